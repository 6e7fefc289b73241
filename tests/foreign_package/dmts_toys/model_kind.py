"""A model kind: ``toy-pair:STRENGTH`` is a soft repulsion between all atoms closer than 4.5 A."""

from __future__ import annotations

from typing import Any

import numpy as np

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.model import ForceResult
from dmts_ipi.core.neighbours import neighbour_pairs
from dmts_ipi.models.registry import LoadOptions, ModelKind

CUTOFF_A = 4.5


class ToyPair:
    """E = strength * sum over pairs of (1 - r^2 / cutoff^2)^4, in eV."""

    elements = None  # any
    cutoff_A = CUTOFF_A
    conservative = True

    def __init__(self, strength_eV: float) -> None:
        self.strength_eV = strength_eV
        self.name = self.identity = f"toy-pair:{strength_eV:g}"

    def compute(
        self, numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray
    ) -> ForceResult:
        """See ``dmts_ipi.core.model``."""
        pairs = neighbour_pairs(positions, cell, pbc, CUTOFF_A, full=False)
        d = positions[pairs.j] - positions[pairs.i] + pairs.shifts @ cell
        u = 1 - (d**2).sum(axis=1) / CUTOFF_A**2
        g = (self.strength_eV * 8 / CUTOFF_A**2 * u**3)[:, None] * d  # force on j
        forces = np.zeros_like(positions)
        np.add.at(forces, pairs.j, g)
        np.add.at(forces, pairs.i, -g)
        return ForceResult(float(self.strength_eV * (u**4).sum()), forces, d.T @ g)


def load(target: str, keywords: dict[str, Any], options: LoadOptions) -> ToyPair:
    """The model of ``toy-pair:STRENGTH``."""
    try:
        strength = float(target)
    except ValueError as error:
        raise InputError("model", f"toy-pair:{target}", "give a strength in eV") from error
    return ToyPair(strength)


KIND = ModelKind("toy-pair", "toy-pair:STRENGTH", "a soft repulsion", load, target_is_path=False)
