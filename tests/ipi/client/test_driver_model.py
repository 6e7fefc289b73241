"""A force model as i-PI sees it: units, and numbers that are not finite."""

from __future__ import annotations

import os

import numpy as np
import pytest

from dmts_ipi.core.errors import ModelFault
from dmts_ipi.core.model import all_finite
from dmts_ipi.ipi import units
from dmts_ipi.ipi.client import driver
from driver_models import evaluator, two_waters


def test_units_are_consistent() -> None:
    """A force is an energy over a length to machine precision, and every way has its way back."""
    product = units.FORCE_AU_PER_EV_PER_A * units.BOHR_PER_A
    assert product == pytest.approx(units.HARTREE_PER_EV, rel=1e-14)
    a = np.random.default_rng(0).normal(size=(3, 3))
    for there, back in (
        (units.cell_to_ipi, units.cell_from_ipi),
        (units.virial_to_ipi, units.virial_from_ipi),
        (units.positions_to_ipi, units.positions_from_ipi),
        (units.forces_to_ipi, units.forces_from_ipi),
    ):
        np.testing.assert_allclose(back(there(a)), a, rtol=1e-14)
    assert units.cell_to_ipi(a)[0, 1] == pytest.approx(a[1, 0] * units.BOHR_PER_A)
    assert units.forces_to_ipi(a.astype(np.float32)).dtype == np.float64


def test_positions_that_are_not_finite_are_refused() -> None:
    water = two_waters()
    x = units.positions_to_ipi(water.positions)
    x[0, 0] = np.inf
    with pytest.raises(ModelFault, match="not finite"):
        evaluator(water).compute(units.cell_to_ipi(water.cell.array), x)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_finite_numbers_are_told_from_others(dtype: type) -> None:
    x = np.ones((40, 3), dtype)
    assert all_finite(x)
    for value, expected in ((1e30, True), (np.inf, False), (-np.inf, False), (np.nan, False)):
        x[7, 1] = value
        assert all_finite(x) is expected
        assert all_finite(x * x[0, 0]) is expected
    assert all_finite(np.full((2, 3), np.finfo(dtype).max))


@pytest.mark.parametrize("said", [None, *driver.WAIT_VARIABLES])
def test_threads_of_a_model_wait_for_less_long_unless_somebody_says_how_long(
    said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*driver.WAIT_VARIABLES, *driver.THREAD_VARIABLES):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    if said:
        monkeypatch.setenv(said, "PASSIVE")
    driver.limit_threads(None)
    found = {name: os.environ.get(name) for name in driver.WAIT_VARIABLES}
    expected = {said: "PASSIVE"} if said else {"GOMP_SPINCOUNT": driver.SPINS}
    assert {k: v for k, v in found.items() if v is not None} == expected
