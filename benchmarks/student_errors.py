#!/usr/bin/env python3
"""Errors of students on frames that they were not trained on, taken from a long STS run.

    python benchmarks/student_errors.py work/physics/sts-64-r2 [--models water-student ...]

Three sets, labelled by the teacher and kept in --out, where they are found again:
frames of the run as they are; bursts of 48 frames, 1 fs apart, from eight of them, for the
predicted heating; and each frame with protons shared between molecules, which the run itself meets
once in 100 ps.
"""

from __future__ import annotations

import argparse
import contextlib
import io
from pathlib import Path

import numpy as np

from common import dmts, save
from dmts_ipi.cli import main as command
from dmts_ipi.core.frames import Frame, write_frames
from dmts_ipi.ipi.run_folder.folder import RunFolder
from dmts_ipi.learning.labelling.geometry import share_protons

BURSTS = 8


def frames_of(folder: Path, from_ps: float, n: int) -> list[Frame]:
    """``n`` frames of a run, evenly spread over what follows ``from_ps``."""
    run = RunFolder(folder)
    numbers, _, _, _, pbc = run.structure()
    series = run.properties()
    time_ps = dict(zip(series["step"].astype(int).tolist(), series["time_ps"], strict=True))
    late = [
        Frame(numbers, positions, cell, pbc, source=f"{folder.name} step {step}")
        for step, positions, cell, _ in run.frames()
        if time_ps.get(step, 0.0) >= from_ps
    ]
    if len(late) < n:
        raise SystemExit(f"{folder}: {len(late)} frames after {from_ps:g} ps, {n} are needed")
    return [late[k] for k in np.linspace(0, len(late) - 1, n).round().astype(int)]


def label_sets(folder: Path, out: Path, teacher: str, from_ps: float, n: int) -> dict[str, Path]:
    """Makes what is not there yet; titles and files of the labelled sets."""
    out.mkdir(parents=True, exist_ok=True)
    plain, shared = out / "plain.extxyz", out / "shared.extxyz"
    if not shared.exists():
        frames, rng = frames_of(folder, from_ps, n), np.random.default_rng(7)
        write_frames(plain, frames)
        write_frames(shared, [share_protons(f, 0.05, 2.6, rng) for f in frames])
    sets = {
        f"{n} frames of {folder.name} after {from_ps:g} ps": out / "plain-labels.extxyz",
        f"{BURSTS} bursts from these": out / "bursts-labels.extxyz",
        "the frames with a twentieth of their hydrogen bonds shared": out / "shared-labels.extxyz",
    }
    options = (
        ["--frames", plain],
        f"--structure {plain}@::{n // BURSTS} --time-ps 0 --bursts 1 --burst-frames 48 "
        "--temperatures-K 300 --seed 77".split(),
        ["--frames", shared],
    )
    for file, words in zip(sets.values(), options, strict=True):
        dmts("label", "--teacher", teacher, "--out", file, *words)  # resumes, or is done at once
    return sets


def evaluated(model: str, labels: Path, *options: str) -> str:
    """What `dmts-ipi evaluate` prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        command(["evaluate", "--model", model, "--labels", str(labels), *options])
    return printed.getvalue().rstrip()


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("folder", type=Path, help="an STS run of the teacher")
    p.add_argument("--models", nargs="+", default=["water-student"])
    p.add_argument("--teacher", default="water-teacher")
    p.add_argument("--from-ps", type=float, default=3.0)
    p.add_argument("--frames", type=int, default=40)
    p.add_argument("--out", type=Path, default=Path("work/student_errors"))
    args = p.parse_args()
    sets = label_sets(args.folder, args.out, args.teacher, args.from_ps, args.frames)
    text = [f"against {args.teacher}; none of these frames was trained on"]
    for model in args.models:
        for title, labels in sets.items():
            times = ["--outer-fs", "3", "4", "5", "6", "7", "8", "10"] if "bursts" in title else []
            text += ["", f"{title}:", evaluated(model, labels, *times)]
    save("student_errors", "\n".join(text))


if __name__ == "__main__":
    main()
