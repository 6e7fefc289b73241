#!/usr/bin/env python3
"""The last frame of a run as a start structure with its masses: how ipi_inputs/*.extxyz were made.

    dmts-ipi init eq216 --structure ../shared/data/water216.extxyz --n-inner 4 --time-ps 5 \\
        --friction-per-ps 5 --seed 7
    dmts-ipi run eq216
    python run_scripts/recipes/start_structure.py eq216 ipi_inputs/water216.extxyz

and once more from that, with 60 ps at --n-inner 6, 1/ps (benchmarks/integrators.py,
respa-1ps-6fs-216, replica 3): its energy falls by 4 meV/atom in the first 30 ps.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read, write

from dmts_ipi.ipi.run_folder.folder import RunFolder


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("folder", type=Path)
    p.add_argument("out", type=Path)
    args = p.parse_args()
    run = RunFolder(args.folder)
    numbers, _, _, _, pbc = run.structure()
    start = read(args.folder / "structure.extxyz")
    *_, (step, positions, cell, _) = run.frames()
    atoms = Atoms(numbers, positions=positions, cell=cell, pbc=pbc)
    atoms.set_masses(start.get_masses())
    atoms.info = {k: v for k, v in start.info.items() if k == "hmr_added_amu"}
    atoms.positions -= np.floor(atoms.get_scaled_positions(wrap=False)) @ atoms.cell.array
    write(args.out, atoms, format="extxyz", columns=["symbols", "positions", "masses"])
    print(f"{args.out}: {len(atoms)} atoms, step {step} of {args.folder}")


if __name__ == "__main__":
    main()
