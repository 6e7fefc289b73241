"""An observable: the mean distance of atoms from the centre of mass."""

from __future__ import annotations

from typing import Any

import numpy as np

from dmts_ipi.analysis.observables import FrameAverage


class Spread(FrameAverage):
    """One number per frame; the table, the figure, JSON and CSV follow from it."""

    name = "toy-spread"
    title = "mean distance from the centre"
    unit = "Å"
    tolerance = 0.1

    def value(self, run: Any, positions: np.ndarray, cell: np.ndarray) -> float:
        """Positions (n, 3) A."""
        mass = run.masses_amu[:, None]
        centre = (mass * positions).sum(axis=0) / mass.sum()
        return float(np.linalg.norm(positions - centre, axis=1).mean())


SPREAD = Spread()
