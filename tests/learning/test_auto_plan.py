"""The rules of ``dmts-ipi auto``."""

from __future__ import annotations

import pytest

from dmts_ipi.learning.auto_plan import FEWEST_EVALUATIONS, make_plan, step_below


def test_water_gets_the_steps_that_are_known_to_hold() -> None:
    p = make_plan(12.6, 0.08, 192, 1000, 300, True, 0.05)
    assert (p.inner_fs, p.sts_fs) == (1.0, 2.0)
    assert p.n_inner == list(range(2, 11))


def test_steps_scale_with_the_period() -> None:
    p = make_plan(128.0, 0.001, 108, 200, 300, True, 0.05)
    assert p.inner_fs == 10.0
    assert p.n_inner[-1] * p.inner_fs == 100.0
    assert p.burst_frames * p.burst_step_fs >= 3 * 100.0
    assert p.label_step_fs == 5.0  # the most that the sampler takes


@pytest.mark.parametrize("time_ps", [1.0, 20.0, 1000.0, 100_000.0])
@pytest.mark.parametrize("n_atoms", [5, 192, 20_000])
@pytest.mark.parametrize("period_fs", [4.0, 12.0, 130.0])
def test_labels_stay_within_the_budget(time_ps: float, n_atoms: int, period_fs: float) -> None:
    p = make_plan(period_fs, 0.1, n_atoms, time_ps, 300, False, 0.05)
    md = sum(p.label_ps * 1000 / p.label_step_fs for _ in p.temperatures_K)
    budget = max(0.05 * 1000 * time_ps / p.sts_fs, FEWEST_EVALUATIONS)
    assert md <= 1.05 * budget
    frames = len(p.temperatures_K) * p.label_ps * 1000 / p.label_every_fs
    assert frames >= 50
    assert 2 <= p.minutes <= 60
    assert p.n_inner


def test_a_step_is_one_of_a_list() -> None:
    assert [step_below(x) for x in (0.01, 0.93, 99)] == [0.25, 1.0, 10.0]
