"""The student within i-PI's process: the same run as with two sockets, seen by the watchdog."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

from dmts_ipi.ipi.run_folder.folder import RunFolder
from run_tools import (
    call,
    every_step_once,
    kinds,
    lines,
    make,
    same_run,
    start,
    summary,
    until,
)

pytestmark = pytest.mark.timeout(1200)  # whole runs: a loaded machine takes its time
SOFT = ("--student", "ase:resident_models.Soft", "--no-model-check", "--time-ps", 0.096)

WAYS = {"sockets": (), "resident": ("--resident",)}  # the spelling of before works, too


def test_init_writes_a_student_within_ipi(tmp_path: Path) -> None:
    folder = make(tmp_path / "run", *SOFT, "--student-in-process", "--student-threads", 1)
    text = (folder / "input.xml").read_text()
    assert "<!-- The student within i-PI's process" in text
    assert "The student's socket" not in text
    assert text.count("<ffsocket") == 1
    run = RunFolder(folder)
    spec = run.spec()
    assert run.config.student_in_process
    assert list(spec.sockets) == ["teacher"]
    assert spec.resident == spec.sockets["teacher"].address.replace("teacher", "student")
    assert "model: ase:resident_models.Soft, structure: structure.extxyz, device: auto" in text
    assert "threads: 1" in text
    assert not (folder / "start_student.sh").exists()
    plain = RunFolder(make(tmp_path / "plain", *SOFT))
    assert not plain.config.student_in_process
    assert plain.spec().resident == ""
    assert list(plain.spec().sockets) == ["teacher", "student"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--student-in-process", "--no-model-check"), "student_in_process = ase:run_tools.Pair"),
        (
            ("--student-in-process", "--mode", "sts", "--n-inner", 1),
            "student_in_process needs mode dmts",
        ),
    ],
)
def test_what_cannot_be_resident_is_told(
    options: tuple[object, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match=message):  # of `make`: the message of the command
        make(tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()


def test_the_run_is_that_of_two_sockets_and_the_watchdog_sees_the_same(tmp_path: Path) -> None:
    # slow enough for the watchdog to come to its questions, on a loaded machine too
    options = (*SOFT, "--teacher", 'ase:run_tools.Pair {"delay_s": 0.2}')
    folders = [make(tmp_path / name, *options, *more) for name, more in WAYS.items()]
    for folder in folders:
        done = call("run", folder)
        assert done.returncode == 0, done.stderr
    one, two = (RunFolder(folder).properties() for folder in folders)
    assert one["step"].tolist() == two["step"].tolist()
    assert one["step"][-1] == 24
    for key in ("temperature_K", "potential_eV", "conserved_eV", "kinetic_eV"):
        np.testing.assert_allclose(two[key], one[key], rtol=1e-10, atol=1e-12, err_msg=key)
    for name in ("md.positions_0.xyz", "md.velocities_0.xyz", "md.forces.xyz"):
        assert (folders[0] / name).read_text() == (folders[1] / name).read_text()
    watched = [summary(folder)["watchdog"] for folder in folders]
    for seen in watched:
        assert seen["drivers"]["student"]["pid"] > 0
        assert seen["drivers"]["teacher"]["pid"] > 0
    assert watched[1]["difference_max_eV_per_A"].keys() == (
        watched[0]["difference_max_eV_per_A"].keys()
    )
    assert watched[1]["telemetry"]["pairs"] > 0
    assert watched[1]["telemetry"]["bad"] == 0


def test_a_resident_student_that_fails_is_told_of_like_a_driver(tmp_path: Path) -> None:
    student = ("--student", "ase:resident_models.Fails", "--no-model-check", "--time-ps", 0.096)
    folder = make(tmp_path / "run", *student, "--student-in-process")
    done = call("run", folder, "--no-watchdog")
    assert done.returncode == 4
    last = done.stderr.strip().splitlines()[-1]
    assert "i-PI ended (exit status 5)" in last
    assert "error: evaluation" in last
    assert "force on atom 0 is" in last


def test_a_stopped_run_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    slow = ("--teacher", 'ase:run_tools.Pair {"delay_s": 0.05}')
    unbroken = make(tmp_path / "unbroken", *SOFT, "--student-in-process")
    assert call("run", unbroken, "--no-watchdog").returncode == 0
    folder = make(tmp_path / "run", *SOFT, *slow, "--student-in-process")
    process = start(folder)
    until(lambda: lines(folder) > 5)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=250)
    assert RunFolder(folder).properties()["step"][-1] < 24
    done = call("run", folder)
    assert done.returncode == 0, done.stderr
    every_step_once(folder, 24)
    same_run(folder, unbroken)


def test_a_resident_student_that_goes_wrong_once_is_rewound(tmp_path: Path) -> None:
    """Its process ends with i-PI and starts anew; the watchdog hears the new one."""
    student = ("--student", "ase:resident_models.Kicks", "--no-model-check", "--student-in-process")
    folder = make(tmp_path / "run", *student, "--teacher", 'ase:run_tools.Pair {"delay_s": 0.03}')
    file = folder / "run.yaml"
    text = file.read_text().partition("watchdog:\n")[0]
    file.write_text(text + "watchdog:\n  sts_ps: 0.04\n  guard_fs: 8.0\n")
    done = call("run", folder)
    assert done.returncode == 0, done.stderr
    every_step_once(folder, 100)
    assert (folder / "kicked").is_file()
    happened = kinds(folder)
    assert happened[:3] == ["start", "verdict", "rewind"]
    assert happened[-1] == "end"
    assert summary(folder)["watchdog"]["rewinds"] == 1
