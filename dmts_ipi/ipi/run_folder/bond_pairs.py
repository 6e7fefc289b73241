"""Pairs for the bond thermostat, from a structure: X-H bonds, and H-X-H across each angle."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from ase.data import chemical_symbols

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.molecules import bonds
from dmts_ipi.ipi.thermostats import BondFriction

# Of the mean distance: full friction up to the first, none from the second. Thermal motion stays
# below the first. Hydrogen bonds and hydrogens of two molecules stay above the second, but for a
# few: one pair in 50 in liquid water, at part of the friction.
BOND_RANGE = (1.27, 1.53)
ANGLE_RANGE = (1.12, 1.22)


def bond_pairs(
    numbers: np.ndarray,
    positions: np.ndarray,
    cell: np.ndarray,
    pbc: np.ndarray | bool,
    friction_per_ps: float,
) -> list[BondFriction]:
    """Kinds of pairs in a structure: (n,), (n, 3) A, (3, 3) A rows, flags; all of one friction.

    Raises:
        InputError: it has no bond between a heavy atom and hydrogen.
    """
    pairs, shifts = bonds(numbers, positions, cell, pbc)
    keep = (numbers[pairs[:, 1]] == 1) & (numbers[pairs[:, 0]] > 1)
    pairs = pairs[keep]
    arms = positions[pairs[:, 1]] - positions[pairs[:, 0]] + shifts[keep] @ np.asarray(cell)
    if not len(pairs):
        raise InputError(
            "bond_friction_per_ps", "", "the structure has no bond to hydrogen; leave it out"
        )
    tau_fs = 1000.0 / friction_per_ps
    kinds = []
    for z in sorted(set(int(a) for a in numbers[pairs[:, 0]])):
        lengths = np.linalg.norm(arms[numbers[pairs[:, 0]] == z], axis=1)
        kinds.append(_kind(tau_fs, (chemical_symbols[z], "H"), float(lengths.mean()), BOND_RANGE))
    across: dict[int, list[float]] = {}
    for heavy in np.unique(pairs[:, 0]):
        for a, b in combinations(arms[pairs[:, 0] == heavy], 2):
            across.setdefault(int(numbers[heavy]), []).append(float(np.linalg.norm(a - b)))
    if across:  # H-H of different heavy atoms share one range: the widest
        mean = max(float(np.mean(d)) for d in across.values())
        kinds.append(_kind(tau_fs, ("H", "H"), mean, ANGLE_RANGE))
    return kinds


def _kind(
    tau_fs: float, names: tuple[str, str], mean_A: float, factors: tuple[float, float]
) -> BondFriction:
    reach = (round(mean_A * factors[0], 2), round(mean_A * factors[1], 2))
    return BondFriction(tau_fs, names, reach)
