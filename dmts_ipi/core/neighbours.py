"""Neighbour pairs: vesin behind one function."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .errors import InputError


class Pairs(NamedTuple):
    """Pairs within a cutoff. The vector from i to j is ``x[j] - x[i] + shifts @ cell``."""

    i: np.ndarray  # (e,) int64
    j: np.ndarray  # (e,) int64
    shifts: np.ndarray  # (e, 3) int64, whole cells


def neighbour_pairs(
    positions: np.ndarray,
    cell: np.ndarray,
    pbc: np.ndarray | bool,
    cutoff_A: float,
    full: bool = True,
) -> Pairs:
    """All pairs closer than a cutoff, images included (boxes thinner than twice the cutoff too).

    Args:
        positions: (n, 3) Angstrom.
        cell: (3, 3) Angstrom, rows; any triclinic shape; ignored along non-periodic directions.
        pbc: one flag, or three.
        cutoff_A: Angstrom.
        full: each pair twice (i-j and j-i), or once.

    Raises:
        InputError: a position is NaN or infinite, or a periodic cell has no volume.
    """
    from vesin import NeighborList  # here: it loads torch, a second that i-PI does without

    positions = np.ascontiguousarray(positions, dtype=np.float64)
    periodic = np.broadcast_to(np.asarray(pbc, dtype=bool), (3,))
    if not np.isfinite(positions).all():
        atom = int(np.argwhere(~np.isfinite(positions))[0, 0])
        raise InputError("positions", f"atom {atom}: {positions[atom]}", "must be finite numbers")
    box = np.ascontiguousarray(cell, dtype=np.float64).reshape(3, 3)
    if periodic.all() and not abs(np.linalg.det(box)) > 1e-6:
        raise InputError(
            "cell",
            box.tolist(),
            "the volume of a periodic cell must not be zero; check the structure",
        )
    if not periodic.any():
        box = np.eye(3)
    search = NeighborList(cutoff=float(cutoff_A), full_list=full, sorted=True, n_threads=1)
    i, j, shifts = search.compute(positions, box, periodic.tolist(), quantities="ijS")
    return Pairs(i.astype(np.int64), j.astype(np.int64), shifts.astype(np.int64))
