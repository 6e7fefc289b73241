"""Linear theory of BAOAB-RESPA: what a harmonic mode is, step by step, under two forces."""

from __future__ import annotations

import math

import numpy as np


def outer_step(
    w2_slow: float, w2_fast: float, dt: float, n: int, c: float | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """One outer step for a unit mass: state' = M state + noise, kT = 1.

    In (x, v): the outer force is ``-w2_slow x``, the inner ``-w2_fast x``, c the factor by which
    the thermostat of an inner step keeps a velocity, or the matrix by which it keeps (v, s) of a
    generalised Langevin equation.

    Args:
        w2_slow, w2_fast: squared angular frequencies, 1/time^2. dt: the outer step.
        n: inner steps.

    Returns:
        M, and the covariance of the noise.
    """
    d, c = dt / n, np.atleast_2d(c)
    size = 1 + len(c)
    m, s = np.eye(size), np.zeros((size, size))

    def with_entry(row: int, column: int, value: float) -> np.ndarray:
        a = np.eye(size)
        a[row, column] = value
        return a

    def kick(w2: float, h: float) -> np.ndarray:
        return with_entry(1, 0, -w2 * h)

    drift, keep, noise = with_entry(0, 1, d / 2), np.eye(size), np.zeros((size, size))
    keep[1:, 1:], noise[1:, 1:] = c, np.eye(len(c)) - c @ c.T

    def apply(a: np.ndarray) -> None:
        nonlocal m, s
        m, s = a @ m, a @ s @ a.T

    apply(kick(w2_slow, dt / 2))
    for _ in range(n):
        apply(kick(w2_fast, d / 2))
        apply(drift)
        apply(keep)
        s = s + noise
        apply(drift)
        apply(kick(w2_fast, d / 2))
    apply(kick(w2_slow, dt / 2))
    return m, s


def stationary(m: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Covariance C = M C M^T + S."""
    return np.linalg.solve(np.eye(m.size) - np.kron(m, m), s.ravel()).reshape(m.shape)


def stiffness_bias(
    stiffer: float,
    period_fs: float,
    outer_fs: float,
    inner_fs: float = 1.0,
    friction_per_ps: float = 1.0,
) -> float:
    """What a wrong stiffness of the student makes of the kinetic temperature of a mode.

    No heat flows in on average: the ellipse on which the mode moves is another one, and at the
    end of an outer step, where it is seen, velocities are larger or smaller.

    Args:
        stiffer: (k_student - k_teacher) / k_teacher.
        period_fs: of the mode under the teacher. friction_per_ps: above zero.

    Returns:
        (T - T with an exact student) / temperature of the thermostat; inf if unstable.
    """
    w2 = (2 * math.pi / period_fs) ** 2
    n = max(round(outer_fs / inner_fs), 1)
    c = math.exp(-1e-3 * friction_per_ps * outer_fs / n)

    def kinetic(off: float) -> float:
        m, s = outer_step(-off * w2, (1 + off) * w2, outer_fs, n, c)
        if np.abs(np.linalg.eigvals(m)).max() >= 1:
            return math.inf
        return float(stationary(m, s)[1, 1])

    return kinetic(stiffer) - kinetic(0.0)
