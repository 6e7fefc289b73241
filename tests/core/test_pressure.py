"""The pressure that an error of the student's virial makes DMTS sample."""

from __future__ import annotations

import math

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from dmts_ipi.core.pressure import (
    BAR_PER_EV_A3,
    bulk_modulus_bar,
    pressure_shift_bar,
    virial_pressure_bar,
)
from dmts_ipi.core.units import KB_EV_PER_K
from dmts_ipi.models.load import load_model


def measured_shift_bar(
    excess_bar: float,
    bulk_bar: float,
    volume: float,
    n: int,
    kelvin: float,
    outer: float,
    tau: float,
) -> float:
    """Mean pressure at the ends of outer steps, by stepping the barostat itself.

    The barostat's equation of motion is W e'' = 3 V (P - P0), P - P0 = -3 K e, with the student's
    excess in every inner step and minus the same, times the number of inner steps, in the kicks
    of the outer one. A friction takes the swing out; the constant push that is left is sampled.
    """
    n_inner = 400
    d = outer / n_inner
    mass = 3 * n * KB_EV_PER_K * kelvin * tau**2
    push = 3 * volume / BAR_PER_EV_A3
    e = v = 0.0
    found = []
    for step in range(4000):
        v += 0.5 * outer * push * -excess_bar / mass
        for _ in range(n_inner):
            v += 0.5 * d * push * (excess_bar - 3 * bulk_bar * e) / mass
            e += d * v
            v += 0.5 * d * push * (excess_bar - 3 * bulk_bar * e) / mass
        v += 0.5 * outer * push * -excess_bar / mass
        v *= math.exp(-outer / tau)
        if step > 3000:
            found.append(-3 * bulk_bar * e)
    return float(np.mean(found))


@pytest.mark.parametrize("outer_fs", [20.0, 40.0, 80.0])
def test_the_formula_is_what_the_barostat_does(outer_fs: float) -> None:
    copper = (1.4e6, 1270.0, 108, 300.0, outer_fs, 2000.0)
    predicted = pressure_shift_bar(1e5, *copper)
    # the next order is (Omega D)^2 / 60 of it: 3 % at 80 fs
    next_order = abs(predicted) / 1e5 / 5
    assert predicted == pytest.approx(measured_shift_bar(1e5, *copper), rel=0.01 + next_order)
    assert predicted < 0


def test_the_published_run_of_copper() -> None:
    """-918, -3,712 and -14,789 bar were sampled in 30 ps at 20, 40 and 80 fs (errors of 100)."""
    atoms = bulk("Cu", cubic=True) * (3, 3, 3)
    atoms.calc = EMT()
    teacher = load_model("ase:ase.calculators.emt.EMT")
    place = (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)
    bulk_bar = bulk_modulus_bar(teacher, *place)
    assert 1.1e6 < bulk_bar < 1.6e6  # EMT's copper: 134 GPa
    for outer, sampled in ((20.0, -918.0), (40.0, -3712.0), (80.0, -14789.0)):
        shift = pressure_shift_bar(
            108950.0, bulk_bar, atoms.get_volume(), len(atoms), 300.0, outer, 2000.0
        )
        assert shift == pytest.approx(sampled, rel=0.15)


def test_pressure_of_a_virial() -> None:
    assert virial_pressure_bar(np.eye(3), np.eye(3) * 10) == pytest.approx(1.602176634e3)
