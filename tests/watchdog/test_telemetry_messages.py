"""Telemetry: messages, what a student's driver keeps, and when it is wanted. No sockets."""

from __future__ import annotations

import numpy as np
import pytest

from dmts_ipi.watchdog.messages import BadMessage, decode, digest, encode, encode_forces
from dmts_ipi.watchdog.recent_forces import CachedForces, RecentForces, RequestPeriod
from telemetry_tools import EVALUATION, wrong_messages

RNG = np.random.default_rng(4)


def test_a_message_comes_back_as_it_was_sent() -> None:
    arrays = {"positions_A": RNG.normal(size=(3, 3)), "forces_eV_per_A": np.ones((3, 3))}
    message = decode(encode("evaluation", {**EVALUATION, "energy_eV": float("nan")}, arrays))
    assert message.kind == "evaluation"
    assert np.isnan(message.fields.pop("energy_eV"))
    assert message.fields == {k: v for k, v in EVALUATION.items() if k != "energy_eV"}
    for name, array in arrays.items():
        np.testing.assert_array_equal(message.arrays[name], array)


@pytest.mark.parametrize("case", wrong_messages())
def test_a_wrong_message_is_refused(case: str) -> None:
    with pytest.raises(BadMessage):
        decode(wrong_messages()[case])


def test_digests_tell_structures_apart() -> None:
    x = RNG.normal(size=(50, 3))
    y = x.copy()
    y[7, 2] = np.nextafter(y[7, 2], 9)
    assert digest(x) == digest(x.copy())
    assert len({digest(x), digest(y), digest(-x), digest(x[:49].copy())}) == 4


def test_the_ring_keeps_the_last_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dmts_ipi.watchdog.recent_forces.CACHE_BYTES", 5 * 36)
    recent = RecentForces(3)
    for k in range(12):
        recent.store(f"{k % 10}", float(k), np.full((3, 3), k), 100 + k)
    assert [n for n in range(12) if recent.find(str(n))] == [0, 1, 7, 8, 9]
    found = recent.find("1")
    assert found == CachedForces(111, 11.0, found.forces)
    assert (found.forces == 11).all()


def test_the_period_of_requests_is_learnt_and_forgotten() -> None:
    period = RequestPeriod()
    for asked in (1, 1, 7, 7, 13):
        period.asked(asked)
    assert not any(map(period.due, range(100)))  # two distances may be chance
    period.asked(19)
    assert [n for n in range(20, 44) if period.due(n)] == [25, 31, 37, 43]
    period.asked(31)  # what was sent did not arrive
    assert period.due(37)
    period.asked(33)
    assert not any(map(period.due, range(100)))
    for asked in (36, 39, 42):
        period.asked(asked)
    assert [n for n in range(43, 50) if period.due(n)] == [45, 48]
    period.forget()
    assert not any(map(period.due, range(100)))


def test_a_period_is_learnt_anew_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """It might be of every third evaluation where every sixth is wanted."""
    monkeypatch.setattr("dmts_ipi.watchdog.recent_forces.RENEW_AFTER", 5)
    period, sent = RequestPeriod(), []
    for wanted in (1, 4, 7, 10):
        period.asked(wanted)
    for n in range(11, 101):
        took = period.take(n)
        sent += [n] * took
        if n % 6 == 4 and not took:
            period.asked(n)
    assert sent[:5] == [13, 16, 19, 22, 25]
    assert all(n % 6 == 4 for n in sent[5:])
    assert len(sent) > 8


@pytest.mark.parametrize("energy", [None, -1.25, float("nan"), float("inf")])
def test_forces_are_encoded_in_two_ways_alike(energy: float | None) -> None:
    forces = RNG.normal(size=(3, 3)).astype(np.float32)
    name, arrays = digest(RNG.normal(size=(3, 3))), {"forces_eV_per_A": forces}
    slow = encode("forces", {"digest": name, "found": True, "energy_eV": energy}, arrays)
    assert encode_forces(name, energy, forces) == slow
