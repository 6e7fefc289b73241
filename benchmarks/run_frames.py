#!/usr/bin/env python3
"""Frames of a run folder as extended XYZ, to be labelled: `evaluate` on what was never trained on.

python benchmarks/run_frames.py work/physics/sts-64 frames.extxyz --from-ps 2 --every 10
dmts-ipi label --teacher water-teacher --frames frames.extxyz --out test.extxyz
dmts-ipi evaluate --model water-student --labels test.extxyz
"""

from __future__ import annotations

import argparse
from pathlib import Path

from dmts_ipi.core.frames import Frame, write_frames
from dmts_ipi.ipi.folder import RunFolder


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("folder", type=Path)
    p.add_argument("out", type=Path)
    p.add_argument("--from-ps", type=float, default=2.0)
    p.add_argument("--every", type=int, default=10, help="stored frames")
    args = p.parse_args()
    run = RunFolder(args.folder)
    numbers, _, _, _, pbc = run.structure()
    series = run.properties()
    time_ps = dict(zip(series["step"].astype(int).tolist(), series["time_ps"], strict=True))
    chosen = [
        Frame(numbers, positions, cell, pbc, source=f"{args.folder.name} step {step}")
        for step, positions, cell, _ in run.frames()
        if time_ps.get(step, 0.0) >= args.from_ps
    ][:: args.every]
    write_frames(args.out, chosen)
    print(f"{args.out}: {len(chosen)} frames")


if __name__ == "__main__":
    main()
