"""One structure: what a force model is evaluated at, and what a run starts from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Structure:
    """Atoms in a cell.

    Attributes:
        numbers: atomic numbers, (n,).
        positions: (n, 3), Angstrom; any periodic image.
        cell: (3, 3), Angstrom; rows are the cell vectors; zeros where there is no cell.
        pbc: (3,), periodic or not along each cell vector.
        masses_amu: (n,), or None: those of the elements.
        velocities_A_per_fs: (n, 3), or None.
        charge: total charge in elementary charges, or None where the file does not say.
        spin: spin multiplicity 2S + 1, or None where the file does not say.
        fixed: indices of atoms that do not move, (k,).
    """

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray = field(default_factory=lambda: np.zeros((3, 3)))
    pbc: np.ndarray = field(default_factory=lambda: np.zeros(3, bool))
    masses_amu: np.ndarray | None = None
    velocities_A_per_fs: np.ndarray | None = None
    charge: float | None = None
    spin: float | None = None
    fixed: np.ndarray = field(default_factory=lambda: np.zeros(0, int))

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def model_input(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Numbers, positions, cell, pbc: the arguments of ``ForceModel.compute``."""
        return self.numbers, self.positions, self.cell, self.pbc

    def at(self, positions: np.ndarray, cell: np.ndarray | None = None) -> Structure:
        """The same atoms elsewhere."""
        return replace(self, positions=positions, cell=self.cell if cell is None else cell)

    @classmethod
    def from_atoms(cls, atoms: Any) -> Structure:
        """Numbers, positions, cell and pbc of ASE Atoms."""
        return cls(
            np.asarray(atoms.numbers),
            np.asarray(atoms.positions, float),
            np.asarray(atoms.cell.array, float),
            np.asarray(atoms.pbc, bool),
        )
