"""Thresholds, verdicts and decisions of the watchdog, without any process."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.io import read
from scipy import stats

from dmts_ipi.core.config import parse
from dmts_ipi.core.errors import InputError, RunFault
from dmts_ipi.core.files import read_record
from dmts_ipi.core.force_comparison import ForceComparison, difference
from dmts_ipi.core.supervision import (
    Heartbeat,
    NoGuard,
    RestartPlan,
    RunInterrupted,
    Segment,
    Stop,
)
from dmts_ipi.core.verdicts import JudgedRun, Physics, Verdict, VerdictKind
from dmts_ipi.core.watch_settings import WatchdogSettings
from dmts_ipi.watchdog.guard import Watchdog
from dmts_ipi.watchdog.journal import Journal, read_events
from dmts_ipi.watchdog.judges import Judges
from dmts_ipi.watchdog.listener import Counts
from dmts_ipi.watchdog.policy import Policy
from dmts_ipi.watchdog.thresholds import temperature_band, thresholds

NUMBERS = np.array([8, 1, 1] * 4)
PHYSICS = Physics(
    ensemble="nvt",
    temperature_K=300.0,
    n_atoms=12,
    dof=36,
    outer_fs=5.0,
    equilibration_ps=0.1,
    checkpoint_stride=40,
    keep_checkpoints=4,
)
SETTINGS = WatchdogSettings()
RMSE = {"student": 0.02}
BOTH = ("teacher", "student")
LIMITS = thresholds(SETTINGS, PHYSICS, RMSE)


def pair(largest: float, atom: int = 4, evaluation: int = 1) -> ForceComparison:
    teacher = np.zeros((12, 3))
    teacher[atom, 1] = largest
    x = np.arange(36.0).reshape(12, 3)
    forces = {"teacher": teacher, "student": np.zeros((12, 3))}
    found = difference(*forces.values())
    return ForceComparison(
        *(*BOTH, found, "teacher", 1, evaluation, 77, 0.0, -3.0, x, np.eye(3) * 9, forces)
    )


def judge(physics: Physics = PHYSICS, **settings: object) -> Judges:
    chosen = WatchdogSettings.model_validate(settings)
    return Judges(JudgedRun(physics, thresholds(chosen, physics, RMSE), NUMBERS))


def policy(tmp_path: Path, **settings: object) -> Policy:
    chosen = WatchdogSettings.model_validate(settings)
    return Policy(tmp_path, chosen, thresholds(chosen, PHYSICS, {}), PHYSICS, 3)


def physics(step: int, sound: int | None = None) -> Verdict:
    sound = step - 1 if sound is None else sound
    return Verdict(VerdictKind.DIFFERENCE, "too far", step, sound)


PROCESS = Verdict(VerdictKind.STALL, "stalled", 7, 7)


def test_defaults_follow_from_the_student() -> None:
    assert LIMITS.differences[BOTH].largest_eV_per_A == pytest.approx(60 * 0.02)
    assert LIMITS.differences[BOTH].rms_eV_per_A == pytest.approx(8 * 0.02)
    assert LIMITS.guard_steps == 20
    assert LIMITS.sts_steps == 200
    assert LIMITS.equilibration_steps == 20
    good, unknown = (thresholds(SETTINGS, PHYSICS, rmse) for rmse in ({"student": 1e-4}, {}))
    assert good.differences[BOTH].largest_eV_per_A == 0.5
    assert unknown.differences[BOTH].largest_eV_per_A > 1
    own = WatchdogSettings(difference_max_eV_per_A=0.3, guard_fs=0.0)
    assert thresholds(own, PHYSICS, RMSE).differences[BOTH].largest_eV_per_A == 0.3
    assert thresholds(own, PHYSICS, RMSE).guard_steps == 0


@pytest.mark.parametrize("dof", [36, 576, 36000])
def test_the_temperature_band_is_the_exact_distribution(dof: int) -> None:
    settings = WatchdogSettings(temperature_tolerance=0.0, temperature_probability=1e-6)
    where = Physics(**{**vars(PHYSICS), "dof": dof})
    low, high = temperature_band(settings, where)
    kinetic = stats.chi2(dof, scale=300 / dof)
    assert kinetic.cdf(low) == pytest.approx(1e-6, rel=1e-3)
    assert kinetic.sf(high) == pytest.approx(1e-6, rel=1e-3)
    nve = Physics(**{**vars(PHYSICS), "ensemble": "nve"})
    assert temperature_band(settings, nve) == (0.0, math.inf)


WRONG = [
    ({"guard_fs": -1}, "guard_fs"),
    ({"difference_max_eV_per_A": -0.5}, "difference_max_eV_per_A"),
    ({"sts_ps": 0}, "sts_ps"),
    ({"rewinds_max": -1}, "rewinds_max"),
    ({"temperature_probability": 0.5}, "temperature_probability"),
    ({"difference_max": 0.5}, "did you mean"),
]


@pytest.mark.parametrize(("fields", "word"), WRONG, ids=[w[1] for w in WRONG])
def test_wrong_settings_name_the_field(fields: dict[str, object], word: str) -> None:
    with pytest.raises(InputError, match=word):
        parse(WatchdogSettings, fields, "watchdog")


def test_a_guard_longer_than_all_checkpoints_is_refused() -> None:
    with pytest.raises(InputError, match=r"guard_fs = 601.*600 fs"):
        thresholds(WatchdogSettings(guard_fs=601), PHYSICS, {})
    thresholds(WatchdogSettings(guard_fs=600), PHYSICS, {})
    thresholds(WatchdogSettings(guard_fs=601, enabled=False), PHYSICS, {})


def test_one_wrong_force_is_seen_with_atom_and_place() -> None:
    j = judge()
    assert j.forces(pair(1.19), 10) is None
    found = j.forces(pair(1.21, atom=3), 11)
    assert found is not None
    assert (found.kind, found.step, found.sound_step, found.cause) == (
        *("difference", 11, 10, "physics"),
    )
    assert "differ by 1.210 eV/A on atom 3 (O at 9.00, 10.00, 11.00 A) at step 11" in found.text
    assert "1.200 are allowed" in found.text
    assert j.forces(pair(math.nan), 12) is not None
    assert j.run.statistics[BOTH].largest.count == 3


def test_many_small_differences_are_seen_over_their_window() -> None:
    j = judge(difference_window_steps=10)
    fine, bad = 0.9 * 0.16 * 6, 1.1 * 0.16 * 6  # on one of 36 components: RMS is a sixth
    for step in range(30):
        assert j.forces(pair(fine), step) is None
    verdicts = [j.forces(pair(bad), 30 + k) for k in range(10)]
    seen = next(k for k, v in enumerate(verdicts) if v is not None)
    assert 3 < seen < 9
    assert verdicts[seen].kind == "difference_rms"
    assert verdicts[seen].sound_step == 30 + seen - 10


def test_a_cold_start_is_no_verdict_and_cold_later_is_one() -> None:
    """A perfect crystal gives half of its kinetic energy to the potential energy first."""
    j = judge()
    low, high = j.run.limits.temperature_K
    assert j.line(30, {"temperature_K": low - 20}) is None  # 0.15 ps, after the equilibration
    assert str(j.line(31, {"temperature_K": high + 1}).kind) == "temperature"
    assert str(j.line(400, {"temperature_K": low - 1}).kind) == "temperature"  # 2 ps


def test_temperature_and_energy_count_after_equilibration() -> None:
    j = judge()
    low, high = j.run.limits.temperature_K
    assert low == 0  # 36 degrees of freedom fluctuate that far
    jump = j.run.limits.potential_jump_eV
    line = {"temperature_K": 300.0, "potential_eV": -5.0}
    assert j.line(10, {**line, "temperature_K": high + 1}) is None
    assert j.line(12, {**line, "potential_eV": 1e4}) is None
    assert j.line(14, line) is None
    j.restarted(30)
    assert j.line(32, line) is None
    assert j.line(34, {**line, "potential_eV": -5.0 + 0.99 * jump}) is None
    found = j.line(36, line)
    assert found is None
    found = j.line(38, {**line, "potential_eV": -5.0 - 1.01 * jump})
    assert found is not None
    assert (found.kind, found.sound_step) == ("jump", 36)
    assert "potential energy jumped by" in found.text
    j.restarted(38)
    conserved = j.run.limits.conserved_jump_eV
    for step, value in ((38, 0.0), (39, 0.99 * conserved), (39, 0.0)):
        assert j.line(step, {**line, "conserved_eV": value}) is None
    found = j.line(40, {**line, "conserved_eV": -1.01 * conserved})
    assert found is not None
    assert (found.kind, found.sound_step) == ("jump", 39)
    j.restarted(38)
    for step, value in ((38, 0.0), (39, 2.0 * conserved)):  # a teacher without an energy
        assert j.line(step, {**line, "potential_eV": 0.0, "conserved_eV": value}) is None
    j.restarted(38)
    assert j.line(40, {**line, "temperature_K": 0.0}) is None
    found = j.line(42, {**line, "temperature_K": high + 1})
    assert found is not None
    assert found.kind == "temperature"
    assert f"outside {low:.1f} to {high:.1f} K" in found.text


def test_a_spike_is_seen_from_the_first_step_on() -> None:
    j = judge()
    assert j.peak("student", 1e3, 2, 0) is None  # nothing to compare with yet
    j.peak("teacher", 4.0, 0, 0)
    j.peak("teacher", math.nan, 0, 0)
    assert j.peak("student", 10 + 3 * 4.0, 2, 0) is None
    found = j.peak("student", 22.1, 3, 0)
    assert found is not None
    assert (found.kind, found.step, found.sound_step) == ("spike", 0, 0)
    assert (
        "a force of the student is 22.1 eV/A, on atom 3 (O), after step 0; 22.0 are" in found.text
    )
    assert j.forces(pair(0.1), 7) is None
    assert judge(force_spike_eV_per_A=1.0).peak("student", 2.0, 2, 0) is None
    later = j.peak("student", math.inf, 2, 6)
    assert later is not None
    assert later.sound_step == 7  # where both forces agreed
    early = judge()
    conserved = early.run.limits.conserved_jump_eV
    line = {"temperature_K": 300.0, "potential_eV": -5.0}
    assert early.line(0, {**line, "conserved_eV": 0.0}) is None
    assert early.line(2, {**line, "conserved_eV": 2.9 * conserved}) is None  # it may relax
    found = early.line(4, {**line, "conserved_eV": 6.0 * conserved})
    assert found is not None
    assert found.text.endswith("; step 2 was good")


def test_the_watchdog_judges_the_largest_forces_that_it_hears(tmp_path: Path) -> None:
    class Heard:
        comparing, health, counts, alarm = True, {}, Counts(), None
        latest = pair(0.3)  # of the last outer step: a spike between two has no frame of its own

        def __init__(self) -> None:
            self.peaks = {"teacher": (4.0, 1), "student": (30.0, 3)}

        def take(self) -> list[ForceComparison]:
            return []

        def take_peaks(self) -> dict[str, tuple[float, int]]:
            peaks, self.peaks = self.peaks, {}
            return peaks

        def forget(self) -> None:
            pass

    pbc = np.array([True] * 3)
    dog = Watchdog(tmp_path, SETTINGS, LIMITS, PHYSICS, NUMBERS, pbc, {}, seed=1)
    beat = Heartbeat(0, 0.0, 1.0, 300.0, -1.0, 5.0, 1000)
    for single_steps in (True, False):
        dog.listener = Heard()  # type: ignore[assignment]
        dog.started(Segment(single_steps, 1000), 0)
        found = dog.beat(beat)
        assert (found is None) is single_steps  # where the student moves nothing it may be wrong
    assert found is not None
    assert (found.kind, found.cause) == ("spike", "physics")
    assert dog.decide(found, 0) == RestartPlan(before_step=0)
    kept = read(tmp_path / "rewinds.extxyz")
    assert kept.get_forces()[4, 1] == 0.3
    assert kept.info["verdict"] == "spike"


def test_memory_of_ipi_and_of_drivers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    physics = {**vars(PHYSICS), "multiple_steps": False}
    dog = Watchdog(
        *(tmp_path, WatchdogSettings(memory_growth_MB=100.0), LIMITS, Physics(**physics)),
        *(NUMBERS, np.array([True] * 3), {}),
        seed=1,
    )
    dog.started(Segment(False, 10), 0)
    assert read_events(tmp_path)[-1]["text"] == "i-PI starts with single steps up to step 10"
    beat = Heartbeat(0, 0.0, 1.0, 300.0, -1.0, 5.0, 10, ipi_pid=7, ipi_memory_MB=500.0)
    assert dog.beat(beat) is None
    monkeypatch.setattr("dmts_ipi.watchdog.guard.MEMORY_SETTLES_S", -1.0)
    assert dog.beat(replace(beat, ipi_memory_MB=599.0)) is None
    found = dog.beat(replace(beat, ipi_memory_MB=601.0))
    assert found is not None
    assert (found.kind, found.cause, found.culprit) == ("memory", "process", "i-pi")
    assert "i-pi has grown from 500 to 601 MB" in found.text


def test_drift_is_judged_in_nve_only() -> None:
    nve = judge(Physics(**{**vars(PHYSICS), "ensemble": "nve"}), drift_eV_per_atom=0.01)
    for j, kind in ((nve, "drift"), (judge(drift_eV_per_atom=0.01), None)):
        line = {"temperature_K": 300.0, "potential_eV": -5.0, "conserved_eV": 4.0}
        assert j.line(40, line) is None
        assert j.line(42, {**line, "conserved_eV": 4.11}) is None
        assert j.line(43, line) is None
        found = j.line(44, {**line, "conserved_eV": 3.87})
        assert (found.kind if found else None) == kind


def test_a_rewind_goes_before_the_guard_and_past_the_event(tmp_path: Path) -> None:
    p = policy(tmp_path)
    assert p.segment(0, 1000) == Segment(False, 1000)
    assert p.decide(physics(130), 130) == RestartPlan(before_step=129 - 20)
    again = policy(tmp_path).load()  # the process may die in between
    assert again.segment(80, 1000) == Segment(True, 280)
    assert again.segment(200, 1000) == Segment(True, 280)
    assert again.segment(280, 1000) == Segment(False, 1000)
    assert again.segment(200, 250) == Segment(True, 250)
    assert policy(tmp_path).load().sts_until_step == 280


def test_single_steps_last_past_an_event_that_lies_far_ahead(tmp_path: Path) -> None:
    p = policy(tmp_path, sts_ps=0.01)
    p.decide(physics(130), 130)
    assert p.segment(80, 1000) == Segment(True, 150)


def test_repeated_events_go_further_back_with_new_random_numbers(tmp_path: Path) -> None:
    p = policy(tmp_path, rewinds_here_max=3)
    plans = []
    for step in (400, 402, 398):
        plans.append(p.decide(physics(step), step))
        p.segment(plans[-1].before_step or 0, 10_000)
    assert [x.before_step for x in plans] == [379, 339, 299]
    assert plans[0].seed is None
    assert plans[1].seed != plans[2].seed
    assert None not in (plans[1].seed, plans[2].seed)
    with pytest.raises(Stop, match=r"rewinds_here_max = 3 at one place.*too far") as stop:
        p.decide(physics(401), 401)
    assert stop.value.status == 3


def test_events_at_other_places_are_no_repetition(tmp_path: Path) -> None:
    p = policy(tmp_path, rewinds_window_max=3, rewinds_window_ps=10.0)
    for step in (400, 1000, 1600):
        plan = p.decide(physics(step), step)
        assert plan.seed is None
        p.segment(plan.before_step or 0, 10_000)
    with pytest.raises(Stop, match="rewinds_window_max = 3 within 10 ps"):
        p.decide(physics(2200), 2200)
    assert p.decide(physics(6000), 6000).before_step == 5979


def test_limits_of_the_run(tmp_path: Path) -> None:
    with pytest.raises(RunInterrupted, match="too far"):
        policy(tmp_path, rewinds_max=0).decide(physics(100), 100)
    p = policy(tmp_path, rewinds_max=1)
    p.decide(physics(100), 100)
    with pytest.raises(Stop, match="rewinds_max = 1 in this run"):
        p.decide(physics(5000), 5000)
    with pytest.raises(RunInterrupted, match="disk"):
        p.decide(Verdict(VerdictKind.DISK, "disk full", 1, 1), 1)
    with pytest.raises(RunInterrupted, match="too far"):
        NoGuard().decide(physics(1), 1)
    assert policy(tmp_path).decide(physics(10, sound=2), 10).before_step == 0


def test_restarts_wait_longer_and_end_where_nothing_moves(tmp_path: Path) -> None:
    p = policy(tmp_path)
    assert [p.restart("dead", 5) for _ in range(3)] == [0.0, 1.0, 3.0]
    with pytest.raises(RunFault, match="restarted 3 times at step 5 without getting further"):
        p.restart("dead", 5)
    assert p.restart("dead", 6) == 0.0
    q = policy(tmp_path, restarts_max=2)
    for step in (1, 2):
        assert q.decide(PROCESS, step) == RestartPlan()
    with pytest.raises(RunFault, match="restarts_max = 2 per hour"):
        q.decide(PROCESS, 3)
    with pytest.raises(RunFault, match="dead"):
        policy(tmp_path, restarts_max=0).restart("dead", 1)


def test_a_damaged_memory_is_no_obstacle(tmp_path: Path) -> None:
    for text in ("", "[]", '{"version": 1}', '{"version": 1, "rewinds": [{}]}', '{"version": 9}'):
        (tmp_path / "watchdog.json").write_text(text)
        assert policy(tmp_path).load().segment(0, 10) == Segment(False, 10)


def test_the_journal_is_whole_lines(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write("start", 0, 0.0, "begin", figure=math.nan)
    with open(tmp_path / "events.jsonl", "a") as stream:
        stream.write('{"half": \n')
    journal.write("end", 10, 0.05, "finished")
    events = read_events(tmp_path)
    assert [e["kind"] for e in events] == ["start", "end"]
    assert events[0]["figure"] is None
    assert read_events(tmp_path / "none") == []
    Journal(tmp_path / "none").write("end", 0, 0.0, "a folder that is gone")


def test_the_watchdog_keeps_what_it_saw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forces heard, verdict, frame on disk, journal, memory, and what the next session knows."""

    def make() -> Watchdog:
        return Watchdog(
            tmp_path, SETTINGS, LIMITS, PHYSICS, NUMBERS, np.array([True] * 3), {}, seed=1
        )

    class Heard:
        def __init__(self) -> None:
            self.comparing, self.health, self.counts = True, {}, Counts()
            self.pairs = [pair(0.1, evaluation=k) for k in range(1, 30)]
            self.pairs.append(pair(2.5, evaluation=30))

        def take(self) -> list[ForceComparison]:
            pairs, self.pairs = self.pairs, []
            return pairs

        def take_peaks(self) -> dict[str, tuple[float, int]]:
            return {}

        def forget(self) -> None:
            pass

    dog = make()
    dog.listener = Heard()  # type: ignore[assignment]
    dog.started(dog.segment(100, 1000), 100)
    assert dog.lines(124, {"temperature_K": 300.0, "potential_eV": -1.0}) is None
    beat = Heartbeat(124, 0.62, 1.0, 300.0, -1.0, 5.0, 1000)
    verdict = dog.beat(beat)
    assert verdict is not None
    assert (verdict.kind, verdict.step, verdict.sound_step) == ("difference", 129, 128)
    assert dog.decide(verdict, 124) == RestartPlan(before_step=108)
    atoms = read(tmp_path / "rewinds.extxyz")
    assert atoms.info["step"] == 129
    assert atoms.get_potential_energy() == -3.0
    assert atoms.get_forces()[4, 1] == 2.5
    assert (atoms.arrays["student_forces_eV_per_A"] == 0).all()
    assert dog.segment(80, 1000) == Segment(True, 280)
    dog.started(Segment(True, 280), 80)
    assert dog.listener.comparing is False
    dog.listener.pairs = [pair(9.0)]  # type: ignore[attr-defined]
    assert dog.beat(beat) is None  # the student moves nothing in single steps
    ended = dog.ended("terminated", 140)["watchdog"]
    assert isinstance(ended, dict)
    assert ended["rewinds"] == 1
    kinds = [e["kind"] for e in read_events(tmp_path)]
    assert kinds == ["start", "verdict", "rewind", "start", "end"]
    live = read_record(tmp_path / "status.json")
    assert live["difference_max_eV_per_A"]["count"] == 30
    assert json.dumps(live)
    again = make()
    assert again.judges.run.statistics[BOTH].largest.count == 30
    assert again.segment(140, 1000) == Segment(True, 280)
