"""The fastest vibration against systems whose frequencies are known."""

from __future__ import annotations

import numpy as np
import pytest

from dmts_ipi.core.errors import ModelFault
from dmts_ipi.core.model import ForceResult
from dmts_ipi.core.structure import Structure
from dmts_ipi.core.units import AMU_A2_PER_FS2_IN_EV
from dmts_ipi.learning.fastest_motion import fastest_motion


class Springs:
    """A chain of atoms with springs between neighbours, k in eV/A^2."""

    name, identity, elements, cutoff_A, conservative = "springs", "springs", None, None, True

    def __init__(self, k: float, length: float) -> None:
        self.k, self.length = k, length

    def compute(self, numbers, positions, cell, pbc) -> ForceResult:  # type: ignore[no-untyped-def]
        d = np.diff(positions, axis=0)
        r = np.linalg.norm(d, axis=1, keepdims=True)
        pull = self.k * (r - self.length) * d / r
        forces = np.zeros_like(positions)
        forces[:-1] += pull
        forces[1:] -= pull
        return ForceResult(0.0, forces, None)


def chain(n: int) -> Structure:
    x = np.zeros((n, 3))
    x[:, 0] = 1.5 * np.arange(n)
    return Structure(np.full(n, 6), x, np.zeros((3, 3)), np.zeros(3, bool))


def test_two_atoms_have_the_period_of_their_reduced_mass() -> None:
    masses, k = np.array([12.0, 1.0]), 30.0
    reduced = 12.0 / 13.0
    expected = 2 * np.pi * np.sqrt(reduced * AMU_A2_PER_FS2_IN_EV / k)
    found = fastest_motion(Springs(k, 1.5), chain(2), masses)
    assert found.period_fs == pytest.approx(expected, rel=1e-3)
    assert found.mode[1, 0] ** 2 == pytest.approx(12 / 13, rel=1e-3)  # the light one moves


def test_a_long_chain_by_few_evaluations() -> None:
    n, k, m = 40, 20.0, 12.0
    largest = 2 * np.sqrt(k / (m * AMU_A2_PER_FS2_IN_EV)) * np.cos(np.pi / (2 * n))
    found = fastest_motion(Springs(k, 1.5), chain(n), np.full(n, m))
    assert found.period_fs == pytest.approx(2 * np.pi / largest, rel=0.03)
    assert found.evaluations <= 30


def test_fixed_atoms_do_not_vibrate() -> None:
    from dataclasses import replace

    k = 30.0
    one = replace(chain(2), fixed=np.array([0]))
    expected = 2 * np.pi * np.sqrt(1.0 * AMU_A2_PER_FS2_IN_EV / k)
    found = fastest_motion(Springs(k, 1.5), one, np.array([12.0, 1.0]))
    assert found.period_fs == pytest.approx(expected, rel=1e-3)


def test_what_does_not_hold_together_is_refused() -> None:
    with pytest.raises(ModelFault, match="relax it first"):
        fastest_motion(Springs(-5.0, 1.5), chain(2), np.ones(2))
