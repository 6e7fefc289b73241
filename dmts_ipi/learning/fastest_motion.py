r"""The period of a system's fastest vibration, from forces alone.

The largest eigenvalue of the mass-weighted Hessian D = M^{-1/2} H M^{-1/2} is found by the Lanczos
method (Golub and Van Loan, Matrix Computations, section 10.1), with products D v from central
differences of the forces. It needs no bonds and no elements: molecules, liquids, salts and metals
are treated alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dmts_ipi.core.errors import ModelFault
from dmts_ipi.core.model import ForceModel, compute
from dmts_ipi.core.structure import Structure
from dmts_ipi.core.units import AMU_A2_PER_FS2_IN_EV

LARGEST_DISPLACEMENT_A = 0.01  # of an atom in a finite difference
ITERATIONS = 15
TOLERANCE = 0.005  # of the period, at which the iteration ends


@dataclass(frozen=True)
class FastestMotion:
    """The fastest vibration of a structure.

    Attributes:
        period_fs: its period, fs.
        mode: unit vector of mass-weighted displacements, (n, 3).
        evaluations: forces that it took.
    """

    period_fs: float
    mode: np.ndarray
    evaluations: int


def fastest_motion(
    model: ForceModel, structure: Structure, masses_amu: np.ndarray, seed: int = 0
) -> FastestMotion:
    """The fastest vibration around a structure, which may be a thermal one.

    Args:
        model: gives the forces.
        structure: its fixed atoms do not move.
        masses_amu: with which the dynamics runs (after hydrogen mass repartitioning), (n,).
        seed: of the first vector.

    Raises:
        ModelFault: the forces do not hold the structure together in any direction.
    """
    free = np.ones(len(structure), dtype=bool)
    free[structure.fixed] = False
    root = np.sqrt(np.asarray(masses_amu, float))[:, None]
    x = np.asarray(structure.positions, float)
    evaluations = 0

    def product(v: np.ndarray) -> np.ndarray:
        """D v, eV / (A^2 amu), for a unit vector v."""
        nonlocal evaluations
        d = v / root
        h = LARGEST_DISPLACEMENT_A / np.linalg.norm(d, axis=1).max()
        plus = compute(model, structure.at(x + h * d)).forces_eV_per_A
        minus = compute(model, structure.at(x - h * d)).forces_eV_per_A
        evaluations += 2
        y = np.asarray((minus - plus) / (2 * h) / root, float)
        y[~free] = 0.0
        return y

    v = np.random.default_rng(seed).normal(size=x.shape)
    v[~free] = 0.0
    vectors = [v / np.linalg.norm(v)]
    diagonal: list[float] = []
    beside: list[float] = []
    largest = 0.0
    ritz = np.ones(1)
    for _ in range(min(ITERATIONS, 3 * int(free.sum()))):
        w = product(vectors[-1])
        diagonal.append(float((w * vectors[-1]).sum()))
        tridiagonal = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
        values, states = np.linalg.eigh(tridiagonal)
        before, largest, ritz = largest, float(values[-1]), states[:, -1]
        if before > 0 and abs(largest / before - 1) < 2 * TOLERANCE:
            break
        for u in vectors:  # in full: the few vectors lose their orthogonality otherwise
            w = w - (w * u).sum() * u
        size = float(np.linalg.norm(w))
        if size < 1e-9 * max(abs(largest), 1e-12):
            break
        beside.append(size)
        vectors.append(w / size)
    if not largest > 0:
        raise ModelFault(
            f"{model.name}: no direction in which the structure vibrates; relax it first"
        )
    mode = sum(float(c) * u for c, u in zip(ritz, vectors, strict=False))
    period = 2 * np.pi / np.sqrt(largest / AMU_A2_PER_FS2_IN_EV)
    return FastestMotion(float(period), np.asarray(mode), evaluations)
