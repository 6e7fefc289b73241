"""The registry of verdicts: ours, and those that another package adds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmts_ipi.core.config import parse
from dmts_ipi.core.errors import InputError, RunFault
from dmts_ipi.core.supervision import RestartPlan, RunInterrupted, Segment
from dmts_ipi.core.verdicts import (
    VERDICTS,
    AddedKind,
    Cause,
    Judge,
    JudgedRun,
    Physics,
    Verdict,
    VerdictClass,
    VerdictKind,
    VerdictRow,
    kind_of,
    verdict_rows,
)
from dmts_ipi.core.watch_settings import WatchdogSettings, settings_table
from dmts_ipi.watchdog.guard import Watchdog
from dmts_ipi.watchdog.journal import read_events
from dmts_ipi.watchdog.thresholds import thresholds
from places import ROOT

NUMBERS = np.array([8, 1, 1] * 4)
PHYSICS = Physics("nvt", 300.0, 12, 36, 5.0, 0.1, 40, 4)
LINE = {"temperature_K": 300.0, "potential_eV": -5.0, "pressure_bar": 1.0}


def squeezed(cause: Cause) -> AddedKind:
    return AddedKind("squeezed", cause, VerdictClass.HEAT, "the pressure is above the limit")


class PressureJudge(Judge):
    """The pressure is above ``limit_bar``."""

    def __init__(self, run: JudgedRun, options: Mapping[str, Any], cause: Cause) -> None:
        self.run, self.limit_bar = run, float(options.get("limit_bar", 1e4))
        self.kind = squeezed(cause)

    def line(self, step: int, columns: Mapping[str, float]) -> Verdict | None:
        bar = columns.get("pressure_bar", 0.0)
        if bar <= self.limit_bar:
            return None
        text = f"pressure {bar:g} bar at step {step}; {self.limit_bar:g} are allowed"
        return self.run.verdict(self.kind, text, step, self.run.sound_line)


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the registry as it was."""
    monkeypatch.setattr(VERDICTS, "_own", dict(VERDICTS._own))
    monkeypatch.setattr(VERDICTS, "_loaded", {})


def watchdog(folder: Path, **settings: object) -> Watchdog:
    chosen = WatchdogSettings.model_validate(settings)
    limits, pbc = thresholds(chosen, PHYSICS, {}), np.array([True] * 3)
    return Watchdog(folder, chosen, limits, PHYSICS, NUMBERS, pbc, {}, seed=1)


def test_every_kind_has_cause_class_and_meaning() -> None:
    rows = verdict_rows()
    assert set(rows) >= {kind.value for kind in VerdictKind}
    for kind in VerdictKind:
        assert rows[kind.value].kind is kind
        assert isinstance(kind.cause, Cause)
        assert isinstance(kind.cls, VerdictClass)
        assert kind.meaning
        assert kind_of(kind.value) is kind
        assert (f"{kind}", kind) == (kind.value, kind.value)


@pytest.mark.parametrize("cause", [Cause.PHYSICS, Cause.FAULT])
def test_a_verdict_of_another_package_rewinds_or_stops_a_run(
    cause: Cause, tmp_path: Path, added: None
) -> None:
    row = VerdictRow(squeezed(cause), lambda run, options: PressureJudge(run, options, cause))
    VERDICTS.add("squeezed", row)
    dog = watchdog(tmp_path, verdict_options={"squeezed": {"limit_bar": 100}})
    dog.started(Segment(False, 1000), 0)
    assert dog.lines(120, LINE) is None
    found = dog.lines(122, {**LINE, "pressure_bar": 101.0})
    assert found is not None
    assert found.text == "pressure 101 bar at step 122; 100 are allowed; step 120 was good"
    if cause is Cause.PHYSICS:
        assert dog.decide(found, 122) == RestartPlan(before_step=100)
    else:
        with pytest.raises(RunInterrupted, match="pressure 101 bar"):
            dog.decide(found, 122)
    written = next(e for e in read_events(tmp_path) if e["kind"] == "verdict")
    assert (written["verdict"], written["cause"], written["class"]) == ("squeezed", cause, "heat")
    assert kind_of("squeezed") is row.kind


def test_a_judge_that_fails_ends_the_run_with_one_line(tmp_path: Path, added: None) -> None:
    class Broken(Judge):
        def line(self, step: int, columns: Mapping[str, float]) -> Verdict | None:
            raise KeyError("no\nsuch column")

    VERDICTS.add("squeezed", VerdictRow(squeezed(Cause.PHYSICS), lambda run, options: Broken()))
    dog = watchdog(tmp_path)
    with pytest.raises(RunFault, match=r"judge of the verdict 'squeezed' failed.*uninstall it"):
        dog.lines(2, LINE)


def test_wrong_rows_and_options_are_refused(tmp_path: Path, added: None) -> None:
    with pytest.raises(
        InputError, match=r"watchdog.verdict_options = squeezed: is not the name of a verdict"
    ):
        watchdog(tmp_path, verdict_options={"squeezed": {}})
    VERDICTS.add("pressed", VerdictRow(squeezed(Cause.FAULT)))
    with pytest.raises(InputError, match="must have the name of its kind, squeezed"):
        watchdog(tmp_path)


def test_settings_of_earlier_versions_are_read() -> None:
    fields = {"teacher_telemetry": "off", "restart_student": "cat", "student_telemetry": None}
    found = parse(WatchdogSettings, {**fields, "sts_ps": 2.0}, "watchdog")
    assert found.telemetry_of == {"teacher": "off"}
    assert found.restart_driver == {"student": "cat"}
    both = parse(WatchdogSettings, {**fields, "telemetry_of": {"teacher": "auto"}}, "watchdog")
    assert both.telemetry_of == {"teacher": "auto"}  # the new name counts
    with pytest.raises(InputError, match="watchdog: telemetry_of"):
        parse(WatchdogSettings, {"teacher_telemetry": 3}, "watchdog")


def test_limits_by_the_name_of_a_model() -> None:
    pairs = (("a", "b"), ("b", "c"))
    of = {"difference_max_of_eV_per_A": {"c": 7.0}}
    limits = thresholds(WatchdogSettings(**of), PHYSICS, {"b": 0.03, "c": 0.04}, pairs).differences
    assert limits["a", "b"].largest_eV_per_A == pytest.approx(60 * 0.03)
    assert limits["b", "c"].largest_eV_per_A == 7.0
    assert limits["b", "c"].rms_eV_per_A == pytest.approx(8 * 0.05)
    with pytest.raises(InputError, match=r"difference_max_of_eV_per_A = c: .*known: student"):
        thresholds(WatchdogSettings(**of), PHYSICS, {})


def test_the_documentation_lists_every_setting() -> None:
    assert settings_table() in (ROOT / "docs" / "watchdog.md").read_text()
    assert all(field.description for field in WatchdogSettings.model_fields.values())


def test_the_documentation_lists_every_verdict() -> None:
    rows = (ROOT / "docs" / "watchdog.md").read_text().partition("## What a rewind is")[0]
    assert all(f"`{kind.value}`" in rows for kind in VerdictKind)
