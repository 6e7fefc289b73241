"""Trajectories of toy models do not change: every integrator and thermostat, to nine digits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from golden_runs import OPTIONS, run_all

GOLDEN = Path(__file__).with_name("golden.json")  # made by commit 7e084df


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[float]]]:
    return run_all(tmp_path_factory.mktemp("golden"), list(OPTIONS))


@pytest.mark.process
@pytest.mark.parametrize("name", list(OPTIONS))
def test_trajectory_is_as_ever(name: str, found: dict[str, dict[str, list[float]]]) -> None:
    golden = json.loads(GOLDEN.read_text())[name]
    assert set(found[name]) == set(golden)
    for key, values in golden.items():
        # 1e-9 of the largest: round-off of another processor, and nothing of an algorithm
        np.testing.assert_allclose(
            found[name][key], values, rtol=1e-9, atol=1e-9 * np.abs(values).max(), err_msg=key
        )


def test_runs_differ_from_each_other_where_they_should() -> None:
    """An option without effect would not be tested by a golden value."""
    golden = json.loads(GOLDEN.read_text())
    equal = {("n-inner 1", "sts langevin"), ("resident", "langevin")}  # by construction
    names = list(OPTIONS)
    pairs = [(a, b) for k, a in enumerate(names) for b in names[:k]]
    assert {(a, b) for a, b in pairs if golden[a]["velocities"] == golden[b]["velocities"]} == equal
