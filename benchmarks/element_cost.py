#!/usr/bin/env python3
"""What an evaluation costs with the number of elements that a student knows: us an atom, C kernels.

    taskset -c 1 python benchmarks/element_cost.py --structures ipi_inputs/water216.extxyz \
        ../shared/data/dhfr_solvated_23558.extxyz

Students with random weights (the cost does not depend on them), one core, in turn within each
round, so that a busy machine slows all of them; neighbour lists are not counted. Each student's
shortest time of the processor, and the median over the rounds of its ratio to the first row of
the same round.
"""

from __future__ import annotations

import argparse
import gc
import time
from pathlib import Path

import numpy as np
import torch
from ase.data import chemical_symbols
from ase.io import read

from common import save
from dmts_ipi.students.density.architecture import NEW_STUDENT
from dmts_ipi.students.density.cpu import CpuStudent
from dmts_ipi.students.density.energy import new_student
from dmts_ipi.students.density.graph import species_of

ELEMENTS = {2: [1, 8], 5: [1, 6, 7, 8, 16], 9: [1, 6, 7, 8, 9, 15, 16, 17, 35]}
SKIN_A = 0.3
SHORTEST_S = 0.03  # of a timing: small systems are evaluated several times


class Row:
    """One student on one structure."""

    def __init__(self, structure: Path, known: int, channels: int) -> None:
        atoms = read(structure)
        self.title = f"{structure.stem:24s} {len(atoms):6d} {known:8d} {channels or '-':>8}"
        torch.manual_seed(0)
        sizes = NEW_STUDENT.model_copy(update={"channels": channels})
        student = new_student(sizes, ELEMENTS[known]).eval().requires_grad_(False)
        self.parameters = sum(p.numel() for p in student.parameters())
        self.n = len(atoms)
        self.cell, pbc = np.array(atoms.cell), np.array(atoms.pbc)
        self.x = atoms.get_positions(wrap=True)
        self.model = CpuStudent(student, species_of(atoms.numbers, student.elements))
        self.model.set_pairs(self.x, self.cell, pbc, SKIN_A)
        self.times: list[float] = []

    def measure(self) -> None:
        """Adds one timing, in us an atom."""
        begin, count = time.thread_time(), 0
        while time.thread_time() - begin < SHORTEST_S:
            self.model.evaluate(self.x, self.cell)
            count += 1
        self.times.append(1e6 * (time.thread_time() - begin) / count / self.n)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--structures", nargs="+", type=Path, required=True)
    p.add_argument("--known", nargs="+", type=int, default=[2, 5, 9], choices=sorted(ELEMENTS))
    p.add_argument("--channels", nargs="+", type=int, default=[0, 3], help="0: a block an element")
    p.add_argument("--rounds", type=int, default=9)
    p.add_argument("--name", default="element_cost")
    args = p.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    rows = []
    for structure in args.structures:
        present = set(read(structure).numbers.tolist())
        for channels in args.channels:
            for known in args.known:
                if present <= set(ELEMENTS[known]):
                    rows.append(Row(structure, known, channels))
    gc.disable()
    for _ in range(args.rounds):
        for row in rows:
            row.measure()
    names = ", ".join(chemical_symbols[z] for z in ELEMENTS[max(args.known)])
    text = [
        f"elements known: the first ones, as they are needed, of {names}; {args.rounds} rounds",
        "structure                 atoms elements channels  us/atom  ratio to first  parameters",
    ]
    first = np.array(rows[0].times)
    for row in rows:
        times = np.array(row.times)
        text.append(
            f"{row.title} {times.min():8.2f} {np.median(times / first):15.3f} {row.parameters:11d}"
        )
    save(args.name, "\n".join(text))


if __name__ == "__main__":
    main()
