"""A verdict from outside: the example of docs/extending/verdict.md, by an entry point."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from dmts_ipi.core.config import parse
from dmts_ipi.core.errors import InputError
from dmts_ipi.core.supervision import RestartPlan, Segment
from dmts_ipi.core.verdicts import VERDICTS, Cause, Physics, VerdictClass, kind_of
from dmts_ipi.core.watch_settings import WatchdogSettings
from dmts_ipi.watchdog.guard import Watchdog
from dmts_ipi.watchdog.thresholds import thresholds
from places import ROOT

PHYSICS = Physics("npt", 300.0, 12, 36, 5.0, 0.1, 40, 4)
LINE = {"temperature_K": 300.0, "potential_eV": -5.0}


def block(language: str) -> str:
    text = (ROOT / "docs" / "extending" / "verdict.md").read_text()
    (found,) = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    return found


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package of the page, as pip would leave it."""
    name, target = re.findall(r'^(\w+) = "(.*)"$', block("toml"), re.MULTILINE)[0]
    (tmp_path / f"{target.partition(':')[0]}.py").write_text(block("python"))
    info = tmp_path / "watchdog_density-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: watchdog-density\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[dmts_ipi.verdicts]\n{name} = {target}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(VERDICTS, "_found", None)
    monkeypatch.setattr(VERDICTS, "_loaded", {})


def watchdog(folder: Path, fields: dict[str, object]) -> Watchdog:
    settings = parse(WatchdogSettings, fields, "watchdog")
    limits, numbers = thresholds(settings, PHYSICS, {}), np.array([8, 1, 1] * 4)
    return Watchdog(*(folder, settings, limits, PHYSICS, numbers, np.array([True] * 3), {}), seed=1)


def test_the_example_rewinds_a_run(installed: None, tmp_path: Path) -> None:
    dog = watchdog(tmp_path, yaml.safe_load(block("yaml"))["watchdog"])
    dog.started(Segment(False, 1000), 0)
    assert dog.lines(120, {**LINE, "density_g_cm3": 1.0}) is None
    found = dog.lines(122, {**LINE, "density_g_cm3": 1.3})
    assert found is not None
    assert found.text == (
        "density 1.300 g/cm3 at step 122 is outside 0.8 to 1.2 g/cm3; step 120 was good"
    )
    assert dog.decide(found, 122) == RestartPlan(before_step=100)
    kind = kind_of("density")
    assert (kind.cause, kind.cls) == (Cause.PHYSICS, VerdictClass.HEAT)


def test_its_options_are_checked_before_the_run(installed: None, tmp_path: Path) -> None:
    wrong = {"verdict_options": {"density": {"range_g_cm3": [2, 1]}}}
    with pytest.raises(InputError, match=r"density: range_g_cm3 = \[2, 1\]: must be"):
        watchdog(tmp_path, wrong)
