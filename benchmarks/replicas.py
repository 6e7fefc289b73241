#!/usr/bin/env python3
"""Models on R replicas: one call for all of them against one call for each.

    python benchmarks/replicas.py [--structure ipi_inputs/water64.extxyz] [--replicas 1 2 4 8]

ms per structure; replicas fly straight from the same start with velocities of 300 K. "one by one"
is what a driver without batches does for each of R replicas, with one neighbour list for all. Ways
take turns; medians over rounds.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from common import save
from dmts_ipi.core.frames import read_frames
from dmts_ipi.core.memory import keep_freed_memory
from dmts_ipi.core.model import compute_batch

STEPS = {"teacher": 2, "student": 10}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    here = Path(__file__).resolve().parents[1] / "ipi_inputs"
    p.add_argument("--structure", type=Path, default=here / "water64.extxyz")
    p.add_argument("--teacher", default="water-teacher")
    p.add_argument("--student", default="water-student")
    p.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 4, 8])
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--device", default="cpu")
    p.add_argument("--name", default="replicas")
    args = p.parse_args()
    import torch

    from dmts_ipi.models.load import load_model

    torch.set_num_threads(args.threads)
    keep_freed_memory()
    frame = read_frames(args.structure)[0]
    rows = [
        f"{args.structure.name}, {args.device}, threads {args.threads}, ms per structure",
        f"{'model':8s}{'replicas':>9s}{'one by one':>12s}{'one call':>10s}{'gain':>7s}",
    ]
    for role in ("teacher", "student"):
        for count in args.replicas:
            rng = np.random.default_rng(0)
            v = 0.0012 * rng.normal(size=(count, *frame.positions.shape))  # A in 1 fs
            cells = np.array([frame.cell] * count)
            models = [load_model(getattr(args, role), device=args.device) for _ in range(2)]
            times: list[list[float]] = []
            at = 0
            for k in range(args.rounds + 1):  # the first one warms up
                begin, one = at, []
                for batched in (False, True):
                    at, model, start = begin, models[batched], time.perf_counter()
                    for _ in range(STEPS[role]):
                        at += 1
                        x = frame.positions + at * v
                        if batched:
                            compute_batch(model, frame.numbers, x, cells, frame.pbc)
                        else:
                            for y in x:
                                model.compute(frame.numbers, y, frame.cell, frame.pbc)
                    one.append((time.perf_counter() - start) / STEPS[role] / count)
                if k:
                    times.append(one)
            a, b = 1e3 * np.median(times, axis=0)
            gain = np.median([x / y for x, y in times])
            rows.append(f"{role:8s}{count:9d}{a:12.2f}{b:10.2f}{gain:7.2f}")
            print("#", rows[-1], flush=True)
    save(args.name, "\n".join(rows))


if __name__ == "__main__":
    main()
