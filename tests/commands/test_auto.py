"""``dmts-ipi auto`` from end to end, with models that cost nothing to train."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ase.build import bulk

from dmts_ipi.ipi.session.lock import FolderLock
from places import SUPPORT

EMT = "ase:ase.calculators.emt.EMT"


SLOW = "ase:slow_emt.SlowEMT"


def auto(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dmts_ipi.cli", "auto", *[str(w) for w in words]]
    env = {**os.environ, "PYTHONPATH": str(SUPPORT)}
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env=env)


@pytest.mark.parametrize(("teacher", "student", "mode"), [(EMT, SLOW, "sts"), (SLOW, EMT, "dmts")])
def test_a_student_is_used_where_it_pays(
    tmp_path: Path, teacher: str, student: str, mode: str
) -> None:
    atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    atoms.write(tmp_path / "cu.extxyz")
    folder = tmp_path / "auto"
    given = ["--structure", tmp_path / "cu.extxyz", "--teacher", teacher, "--student", student]
    done = auto(folder, *given, "--time-ps", 1, "--threads", 1)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (folder / "report.html").exists()
    decisions = (folder / "decisions.md").read_text()
    stages = json.loads((folder / "auto.json").read_text())["stages"]
    tuned, summary = stages["tune"], stages["run"]["summary"]
    assert tuned["mode"] == summary["mode"] == mode
    assert (tuned["speedup"] > 1.2) == (mode == "dmts")
    assert ("without a student" in decisions) == (mode == "sts")
    assert 100 < stages["start"]["period_fs"] < 160  # copper's highest phonon: 7 to 8 THz
    assert summary["time_ps"] == pytest.approx(1.0, abs=0.1)

    again = auto(folder)  # everything is done
    assert again.returncode == 0
    assert "stage" not in again.stderr
    other = auto(folder, "--time-ps", 3)
    assert other.returncode == 2
    assert "the folder was begun with 1.0" in other.stderr


def test_wrong_input_is_one_line(tmp_path: Path) -> None:
    bulk("Cu", cubic=True).write(tmp_path / "cu.extxyz")
    given = ["--structure", tmp_path / "cu.extxyz", "--teacher", EMT]
    cases: list[tuple[list[object], str]] = [
        (given, "time_ps"),
        ([*given, "--time-ps", -1], "time_ps"),
        ([*given, "--time-ps", 1, "--ensemble", "nph"], "ensemble"),
        (["--structure", tmp_path / "no.xyz", "--teacher", EMT, "--time-ps", 1], "no.xyz"),
    ]
    for k, (words, field) in enumerate(cases):
        done = auto(tmp_path / f"r{k}", *words)
        assert done.returncode == 2, done.stderr
        assert field in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / f"r{k}" / "auto.yaml").exists()  # the folder can be used again

    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    done = auto(tmp_path / "full", *given, "--time-ps", 1)
    assert done.returncode == 2
    assert "is not empty" in done.stderr


def test_a_second_start_in_a_folder_is_refused(tmp_path: Path) -> None:
    bulk("Cu", cubic=True).write(tmp_path / "cu.extxyz")
    given = ["--structure", tmp_path / "cu.extxyz", "--teacher", EMT, "--time-ps", 1]
    folder = tmp_path / "auto"
    folder.mkdir()
    with FolderLock(folder):
        done = auto(folder, *given)
    assert done.returncode == 2
    assert "a run is in progress in it" in done.stderr
    assert "Traceback" not in done.stderr
