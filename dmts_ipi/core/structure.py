"""One structure: what a force model is evaluated at, and what a run starts from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
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
        """From ASE Atoms as ``core.structure_files.read_atoms`` leaves them."""
        return cls(**structure_fields(atoms))


def structure_fields(atoms: Any) -> dict[str, Any]:
    """The fields of a ``Structure`` from ASE Atoms, by name; arrays are copies."""
    from .structure_files import VELOCITIES, fixed_atoms

    velocities = atoms.arrays.get(VELOCITIES)
    return {
        "numbers": np.array(atoms.numbers),
        "positions": np.array(atoms.positions, float),
        "cell": np.array(atoms.cell.array, float),
        "pbc": np.array(atoms.pbc, bool),
        "masses_amu": np.array(atoms.get_masses()) if atoms.has("masses") else None,
        "velocities_A_per_fs": None if velocities is None else np.array(velocities, float),
        "charge": atoms.info.get("charge"),
        "spin": atoms.info.get("spin"),
        "fixed": fixed_atoms(atoms),
    }


def read_structure(path: Path, index: str = "-1", field: str = "structure") -> Structure:
    """One structure of a file (``core.structure_files.read_atoms``), by default the last.

    Raises:
        InputError: the file is absent, unreadable or holds no structure.
    """
    from .structure_files import read_atoms

    return Structure.from_atoms(read_atoms(path, index, field)[0])


def periodicity(structure: Structure) -> str:
    """``periodic``, ``not periodic`` or ``periodic along cell vector 1 and cell vector 2``."""
    pbc = np.broadcast_to(np.asarray(structure.pbc, bool), (3,))
    along = " and ".join(f"cell vector {k + 1}" for k in range(3) if pbc[k])
    return "periodic" if pbc.all() else f"periodic along {along}" if along else "not periodic"


def describe(structure: Structure) -> str:
    """What a run should say of its system: periodic or not, and all that is out of the ordinary.

    For example ``periodic; charge 1, spin multiplicity 2; 3 fixed atoms``.
    """
    words = [periodicity(structure)]
    electrons = []
    if structure.charge is not None:
        electrons.append(f"charge {structure.charge:g}")
    if structure.spin is not None:
        electrons.append(f"spin multiplicity {structure.spin:g}")
    if electrons:
        words.append(", ".join(electrons))
    if len(structure.fixed):
        words.append(f"{len(structure.fixed)} fixed atom" + "s" * (len(structure.fixed) > 1))
    if structure.velocities_A_per_fs is not None:
        words.append("has velocities")
    return "; ".join(words)
