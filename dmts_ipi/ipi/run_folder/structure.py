"""A user's structure made ready for i-PI: upper triangular cell, HMR masses, checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.model import check_structure
from dmts_ipi.core.molecules import bonds, repartition_hydrogen_mass
from dmts_ipi.core.structure_files import HMR_KEY, VELOCITIES, read_atoms

VACUUM_A = 50.0


def read_structure(file: Path) -> Any:
    """The last structure of a file, as ``core.structure_files.read_atoms`` gives it.

    Raises:
        InputError: the file is absent, unreadable, empty, or holds NaN.
    """
    atoms: Any = read_atoms(file, "-1")[0]
    if not len(atoms):
        raise InputError("structure", file, "holds no atom")
    bad = np.argwhere(~np.isfinite(atoms.positions))
    if len(bad):
        atom = int(bad[0, 0])
        raise InputError(
            "positions",
            f"atom {atom}: {atoms.positions[atom].round(6).tolist()}",
            "must be finite numbers",
        )
    if not np.isfinite(atoms.cell.array).all():
        raise InputError("cell", atoms.cell.array.tolist(), "must be finite numbers")
    return atoms


def prepare_structure(atoms: Any, hmr_added_amu: float, needs_cell: bool) -> Any:
    """The structure as a run uses it; a new object.

    The cell is turned so that its first vector lies along x and its second in the xy plane, as
    i-PI wants it, and velocities with it; directions that are not periodic get a box that is large
    enough to be ignored (i-PI needs a volume). Charge, spin and fixed atoms are kept. Masses are
    those of the file, or of the elements, after HMR; an HMR that the file already has is undone
    first.

    Args:
        atoms: ASE Atoms.
        hmr_added_amu: mass moved to each hydrogen from its heavy neighbour.
        needs_cell: whether the ensemble changes the cell (NPT).

    Raises:
        InputError: no cell where one is needed, atoms too close, or HMR is impossible.
    """
    from ase import Atoms

    if needs_cell and not (atoms.pbc.all() and atoms.cell.rank == 3):
        raise InputError(
            "cell", "none", "NPT needs a structure that is periodic along three cell vectors"
        )
    if atoms.pbc.any() and not all(atoms.cell.lengths()[k] > 0 for k in range(3) if atoms.pbc[k]):
        raise InputError("cell", atoms.cell.array.tolist(), "a periodic direction has no length")
    out = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    _give_volume(out)
    standard, rotation = out.cell.standard_form()
    out.positions[:] = out.positions @ rotation.T
    out.set_cell(standard.array)
    check_structure(out.numbers, out.positions, out.cell.array, out.pbc)
    out.set_masses(_masses(atoms, out, hmr_added_amu))
    out.info[HMR_KEY] = float(hmr_added_amu)
    out.info.update({key: atoms.info[key] for key in ("charge", "spin") if key in atoms.info})
    out.set_constraint(atoms.constraints)
    if VELOCITIES in atoms.arrays:
        out.arrays[VELOCITIES] = atoms.arrays[VELOCITIES] @ rotation.T
    return out


def _give_volume(atoms: Any) -> None:
    """Fills in cell vectors along directions that are not periodic, in place."""
    if atoms.pbc.all():
        return
    extent = float(np.ptp(atoms.positions, axis=0).max()) + VACUUM_A
    cell = atoms.cell.array.copy()
    periodic = [cell[k] for k in range(3) if atoms.pbc[k]]
    # a basis of what the periodic vectors leave free, from the null space of their span
    _, _, v = np.linalg.svd(np.array(periodic).reshape(-1, 3) if periodic else np.zeros((1, 3)))
    free = list(v[len(periodic) :]) if periodic else list(np.eye(3))
    for k in range(3):
        if not atoms.pbc[k]:
            cell[k] = free.pop(0) * extent
    if np.linalg.det(cell) < 0:
        k = int(np.flatnonzero(~atoms.pbc)[-1])
        cell[k] = -cell[k]
    atoms.set_cell(cell)


def _masses(source: Any, prepared: Any, added_amu: float) -> np.ndarray:
    numbers = prepared.numbers
    pairs = np.zeros((0, 2), int)
    if (numbers == 1).any():
        pairs, _ = bonds(numbers, prepared.positions, prepared.cell.array, prepared.pbc)
    masses = np.asarray(source.get_masses(), float)
    _check_masses(masses)
    before = float(source.info.get(HMR_KEY, 0.0))
    if before:
        masses = repartition_hydrogen_mass(masses, numbers, pairs, -before)
    masses = repartition_hydrogen_mass(masses, numbers, pairs, added_amu)
    _check_masses(masses)
    return masses


def _check_masses(masses: np.ndarray) -> None:
    if not (np.isfinite(masses).all() and (masses > 0).all()):
        atom = int(np.flatnonzero(~(masses > 0))[0])
        raise InputError("masses", f"atom {atom}: {masses[atom]}", "must be positive, in amu")


def write_structure(file: Path, atoms: Any) -> None:
    """Writes extended XYZ with a column ``masses`` and all digits of the positions.

    Columns of velocities and of fixed atoms (``move_mask``) are there where the structure has them.
    """
    from ase.io import write

    columns = ["symbols", "positions", "masses"]
    columns += [VELOCITIES] if VELOCITIES in atoms.arrays else []
    columns += ["move_mask"] if atoms.constraints else []
    write(file, atoms, format="extxyz", columns=columns)
