#!/usr/bin/env python3
"""Splits the DFT water frames as the teacher's training did, into extended XYZ.

    python run_scripts/recipes/water_frames.py ../shared/data/water64_pbe0ts_train.npz OUT

writes OUT/dft_train.extxyz and OUT/dft_held_out.extxyz (frames that `water-teacher` never saw).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from dmts_ipi.core.frames import Frame, write_frames

HELD_OUT = 32


def split(n_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of trained and of held-out frames; the one place that decides."""
    order = np.random.default_rng(0).permutation(n_frames)
    return order[HELD_OUT:], order[:HELD_OUT]


def main() -> None:
    data, out = np.load(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    pbc = np.ones(3, bool)
    for name, rows in zip(("train", "held_out"), split(len(data["energy"])), strict=True):
        frames = [
            Frame(
                data["numbers"],
                data["positions"][k].astype(float),
                data["cell"][k].astype(float),
                pbc,
                data["forces"][k].astype(float),
                float(data["energy"][k]),
                source="pbe0ts",
            )
            for k in rows
        ]
        write_frames(out / f"dft_{name}.extxyz", frames)
        print(f"{out}/dft_{name}.extxyz: {len(frames)} frames")


if __name__ == "__main__":
    main()
