"""``dmts-ipi run`` when something goes wrong: rewinds, restarts, limits. Real processes.

Every test asserts what holds on any machine, however slow: the outputs, not the times.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.io import read

from dmts_ipi.ipi.client.driver import build_parser
from dmts_ipi.ipi.run_folder.folder import RunFolder
from dmts_ipi.ipi.session import resume
from dmts_ipi.ipi.session.watch import Limits
from dmts_ipi.watchdog.journal import read_events
from run_tools import (
    alive,
    call,
    descendants,
    every_step_once,
    held,
    kinds,
    lines,
    make,
    same_run,
    springs,
    start,
    summary,
    until,
)

pytestmark = pytest.mark.timeout(1200)  # whole runs: a loaded machine takes its time
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
WATCHDOG: dict[str, object] = {"sts_ps": 0.04, "guard_fs": 8.0}


def settings(folder: Path, **fields: object) -> Path:
    """Sets fields of the section ``watchdog``, beside short single steps and a short guard."""
    file = folder / "run.yaml"
    text = file.read_text().partition("watchdog:\n")[0]
    rest = "".join(f"  {k}: {v}\n" for k, v in {**WATCHDOG, **fields}.items())
    file.write_text(f"{text}watchdog:\n{rest}")
    return folder


def faulty(folder: Path, once: bool = True, **faults: object) -> Path:
    """Gives the teacher inside i-PI a fault, by default in one evaluation only."""
    if once:
        faults["once"] = folder / "fault-done"
    return springs(folder, **faults)


def test_nan_once_is_rewound_with_single_steps_and_the_run_ends_well(
    fresh: Path, unbroken: Path
) -> None:
    settings(faulty(fresh, fault="invalid", at=45))
    done = call("run", fresh)
    assert done.returncode == 0, done.stderr
    every_step_once(fresh, 100)
    events = read_events(fresh)
    assert [e["kind"] for e in events] == ["start", "verdict", "rewind", "start", "start", "end"]
    verdict = events[1]
    assert verdict["verdict"] == "nan"
    assert verdict["step"] in (44, 46)
    assert "single steps" in events[3]["text"]
    begin, back = events[3]["step"], events[4]["step"]
    assert begin == 40
    assert back == begin + 10
    assert "multiple steps up to step 100" in events[4]["text"]
    assert summary(fresh)["watchdog"]["rewinds"] == 1
    assert summary(fresh)["exit"] == "finished"
    before = [RunFolder(x).properties() for x in (fresh, unbroken)]
    kept = before[0]["step"] <= begin
    np.testing.assert_allclose(
        before[0]["potential_eV"][kept], before[1]["potential_eV"][kept], rtol=1e-10
    )
    assert resume.read_weights(fresh) == [("teacher", (1.0, 0.0)), ("student", (-1.0, 1.0))]


def test_what_happens_again_and_again_ends_by_the_limit(fresh: Path) -> None:
    settings(faulty(fresh, once=False, fault="kick", at=45), rewinds_here_max=1, sts_ps=1.0)
    done = call("run", fresh)
    assert done.returncode == 3
    last = done.stderr.splitlines()[-1]
    assert last.startswith("dmts-ipi run: error: ")
    assert "the limit of rewinds is reached (watchdog.rewinds_here_max = 1 at one place)" in last
    assert "over 10 times 60 K at step" not in last
    assert summary(fresh)["exit"].startswith("stopped: the limit of rewinds")
    sound = read_events(fresh)[-2]["sound_step"]
    states = resume.checkpoints(fresh, RunFolder(fresh).spec())
    assert states
    assert all(s.step <= sound for s in states)  # what is left is good to go on from


@linux
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_ipi_is_started_again(number: int, fresh: Path, unbroken: Path) -> None:
    settings(fresh)
    hold = held(fresh, at=28)
    process = start(fresh)
    until(lambda: lines(fresh) > 15)
    (victim,) = descendants(process.pid)
    os.kill(victim, number)
    until(lambda: not alive(victim))
    hold.unlink()
    output, _ = process.communicate(timeout=250)
    assert process.returncode == 0, output
    assert kinds(fresh) == ["start", "verdict", "restart", "start", "end"]
    same_run(fresh, unbroken)


def test_the_file_exit_stops_a_run(fresh: Path) -> None:
    settings(fresh)
    hold = held(fresh, at=8)
    process = start(fresh)
    until(lambda: lines(fresh) > 5)
    (fresh / "EXIT").touch()
    output, _ = process.communicate(timeout=250)
    assert process.returncode == 3, output
    assert "stopped by the file EXIT at step" in output
    hold.unlink()
    done = call("run", fresh)
    assert done.returncode == 0, done.stderr
    every_step_once(fresh, 100)


@linux
def test_drivers_may_die_hang_and_hallucinate(tmp_path: Path) -> None:
    """One run with both drivers: the student is wrong once, the teacher is killed, then hangs."""
    mark = tmp_path / "wrong-once"
    student = f'ase:run_tools.Pair {{"strength": 0.9, "kick_at": 400, "once": "{mark}"}}'
    teacher_spec = 'ase:run_tools.Pair {"strength": 1.0, "delay_s": 0.05}'
    models = ("--teacher", teacher_spec, "--student", student)
    folder = make(tmp_path / "run", "--no-model-check", *models, "--time-ps", 0.8)
    # the student's force is heard of before the teacher's: whichever is judged first would count
    others = ("force_spike_eV_per_A", "potential_jump_sigma", "conserved_jump_sigma")
    settings(
        folder,
        difference_max_eV_per_A=1.0,
        **dict.fromkeys((*others, "temperature_tolerance"), 1e9),
    )
    process = start(folder, "--stall-limit-s", 12)

    def teacher() -> int:
        for pid in descendants(process.pid):
            if b"nnp_driver" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        return 0

    until(lambda: kinds(folder).count("start") >= 2 or process.poll() is not None)
    assert process.poll() is None, process.communicate()[0]
    seen = lines(folder)
    until(lambda: lines(folder) > seen + 4)
    os.kill(teacher(), signal.SIGKILL)
    seen = lines(folder)
    until(lambda: lines(folder) > seen + 4)
    hung = teacher()
    os.kill(hung, signal.SIGSTOP)
    output, _ = process.communicate(timeout=800)
    assert process.returncode == 0, output
    every_step_once(folder, 200)
    events = read_events(folder)
    verdict = next(e for e in events if e["kind"] == "verdict")
    assert verdict["verdict"] == "difference"
    assert "on atom 3 (Ar at " in verdict["text"]
    assert not Path(f"/proc/{hung}").exists()
    atoms = read(folder / "rewinds.extxyz")
    both = atoms.get_forces() - atoms.arrays["student_forces_eV_per_A"]
    assert np.abs(both).max() == pytest.approx(20, rel=0.05)
    record = summary(folder)["watchdog"]
    assert record["rewinds"] == 1
    assert record["difference_max_eV_per_A"]["largest"] == pytest.approx(20, rel=0.05)
    assert record["telemetry"]["bad"] == 0
    for at in RunFolder(folder).spec().sockets.values():
        assert not list(Path(f"/tmp/dmts-{os.getuid()}").glob(f"{at.address}*"))


@linux
def test_status_of_a_run_that_is_alive_and_of_one_that_is_not(fresh: Path) -> None:
    none = call("status", fresh)
    assert (none.returncode, none.stdout.splitlines()[0]) == (3, f"{fresh}: not started")
    settings(fresh)
    held(fresh, at=6)
    process = start(fresh)
    until(lambda: lines(fresh) > 3)

    def look() -> dict:
        done = call("status", fresh, "--json")
        assert done.returncode == 0
        return json.loads(done.stdout)

    until(lambda: look().get("step", 0) > 4)
    live = look()
    assert live["alive"] is True
    assert live["state"] == "multiple steps"
    assert live["total_steps"] == 100
    second = call("run", fresh)
    assert second.returncode == 2
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=250)
    done = call("status", fresh)
    assert done.returncode == 3
    assert done.stdout.startswith(f"{fresh}: terminated\n  step ")
    assert "end      terminated" in done.stdout


def test_a_driver_waits_while_another_one_loads_its_model() -> None:
    """i-PI greets a driver when its force is wanted: not before the teacher's is there."""
    words = ["--model", "m", "--structure", "s", "--unix", "x"]
    args = build_parser("nc_driver", "float32").parse_args(words)
    assert args.connect_timeout_s >= Limits().startup_s


@linux
def test_every_pair_of_three_levels_is_watched(tmp_path: Path) -> None:
    """The smallest student is wrong once: the run goes back, and is of three levels again."""
    mark = tmp_path / "wrong-once"
    small = f'ase:run_tools.Pair {{"strength": 0.8, "kick_at": 400, "once": "{mark}"}}'
    levels = ("--model", f"small={small}", "--levels", "teacher=1,student=2,small=2")
    folder = make(tmp_path / "run", "--no-model-check", *levels, "--time-ps", 0.8)
    others = ("force_spike_eV_per_A", "potential_jump_sigma", "conserved_jump_sigma")
    settings(
        folder,
        difference_max_eV_per_A=1.0,
        **dict.fromkeys((*others, "temperature_tolerance"), 1e9),
    )
    done = call("run", folder)
    assert done.returncode == 0, done.stderr
    every_step_once(folder, 200)
    events = read_events(folder)
    verdict = next(e for e in events if e["kind"] == "verdict")
    assert (verdict["verdict"], verdict["class"]) == ("difference", "disagreement")
    assert verdict["text"].startswith("small and student differ by ")
    assert [e["kind"] for e in events].count("rewind") == 1
    assert "multiple steps up to step 200" in events[-2]["text"]
    atoms = read(folder / "rewinds.extxyz")
    student, small_forces = (atoms.arrays[f"{n}_forces_eV_per_A"] for n in ("student", "small"))
    assert np.abs(student - small_forces).max() == pytest.approx(20, rel=0.05)
    assert np.abs(atoms.get_forces() - student).max() < 1.0  # labels are those of the teacher
    record = summary(folder)["watchdog"]
    pairs = [(c["accurate"], c["fast"]) for c in record["comparisons"]]
    assert pairs == [("teacher", "student"), ("student", "small")]
    assert all(c["difference_max_eV_per_A"]["count"] > 20 for c in record["comparisons"])
    assert record["telemetry"]["bad"] == 0
    shown = call("status", folder).stdout
    for name in ("|teacher - student|", "|student - small|", "  small: process"):
        assert name in shown
