#!/usr/bin/env python3
"""Time of one evaluation, student against teacher, on the same cores, alternating.

    python benchmarks/evaluation_time.py --structure FILE ... [--threads 2] [--default-malloc]

--default-malloc: with and without what the drivers ask of malloc (core/memory.py).
Positions move by a thermal step between evaluations, so that neighbour lists, skins and padding
cost what they cost in a run. Medians over rounds; the ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from common import save
from dmts_ipi.core.frames import read_frames
from dmts_ipi.core.memory import keep_freed_memory
from dmts_ipi.core.model import ForceModel


def evaluations(model: ForceModel, frame, track: np.ndarray) -> float:
    """Mean seconds of an evaluation along a track of positions (t, n, 3)."""
    started = time.perf_counter()
    for x in track:
        model.compute(frame.numbers, x, frame.cell, frame.pbc)
    return (time.perf_counter() - started) / len(track)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--teacher", default="water-teacher")
    p.add_argument("--student", default="water-student")
    p.add_argument("--structure", nargs="+", required=True)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("--default-malloc", action="store_true")
    p.add_argument("--name", default="evaluation_time")
    args = p.parse_args()
    import torch

    from dmts_ipi.models.load import load_model

    torch.set_num_threads(args.threads)
    rng = np.random.default_rng(0)
    rows = [f"threads {args.threads}", "malloc   atoms  teacher_ms  student_ms  ratio"]
    teacher, student = load_model(args.teacher), load_model(args.student)
    for malloc in ("default", "kept") if args.default_malloc else ("kept",):
        if malloc == "kept":
            keep_freed_memory()
        for path in args.structure:
            frame = read_frames(path)[0]
            # a straight flight of 40 fs at 300 K: what a skin and a padded list see in a run
            v = rng.normal(size=frame.positions.shape) * 0.006
            track = frame.positions + np.arange(40)[:, None, None] * 0.2 * v
            evaluations(teacher, frame, track[:3])
            evaluations(student, frame, track)
            times = np.array(
                [
                    (evaluations(teacher, frame, track[:6]), evaluations(student, frame, track))
                    for _ in range(args.rounds)
                ]
            )
            t, s = 1e3 * np.median(times, axis=0)
            ratio = np.median(times[:, 0] / times[:, 1])
            rows.append(f"{malloc:8s} {len(frame.numbers):5d}  {t:10.1f}  {s:10.2f}  1/{ratio:.1f}")
    save(args.name, "\n".join(rows))


if __name__ == "__main__":
    main()
