"""``dmts-ipi run``: whole runs, stopping, resuming, faults. Real processes and real sockets."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import sys
import threading
from pathlib import Path

import pytest

import run_tools
from dmts_ipi.commands.run import clock, figures
from dmts_ipi.ipi.run_folder.folder import RunFolder
from dmts_ipi.ipi.session.exit_reasons import how
from dmts_ipi.ipi.session.launch import Child
from dmts_ipi.ipi.session.watch import Progress
from run_tools import (
    TEACHER,
    alive,
    call,
    descendants,
    finish,
    held,
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


def test_a_run_ends_with_its_summary(unbroken: Path) -> None:
    s = summary(unbroken)
    assert s["exit"] == "finished"
    assert s["outer_steps"] == 100
    assert s["time_ps"] == pytest.approx(0.4)
    run = RunFolder(unbroken)
    columns = run.properties()
    kept = columns["step"] * 4 >= run.config.equilibration_ps * 1000
    assert s["temperature_mean_K"] == pytest.approx(columns["temperature_K"][kept].mean())
    assert list(s["temperature_by_element_K"]) == ["Ar"]
    assert s["temperature_by_element_K"]["Ar"] == pytest.approx(s["temperature_mean_K"], rel=0.1)
    frames = list(run.frames())
    assert [f[0] for f in frames] == list(range(0, 101, 4))
    assert frames[0][3] is not None
    numbered = sorted(p.name for p in unbroken.glob("md.checkpoint_*"))
    assert len(numbered) == run.config.keep_checkpoints


def test_a_finished_run_says_so_and_can_be_extended(unbroken: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(unbroken, tmp_path / "run"))
    done = call("run", folder)
    assert done.returncode == 0
    assert "finished, 100 outer steps (0.4 ps); --time-ps extends it" in done.stderr
    done = call("run", folder, "--time-ps", 0.42, "--json")
    assert done.returncode == 0, done.stderr
    assert "resumes at step 100" in done.stderr
    assert json.loads(done.stdout)["outer_steps"] == 105
    assert RunFolder(folder).config.time_ps == 0.42
    assert "<!--" in (folder / "input.xml").read_text()


@pytest.mark.parametrize("first_ps", [0.04, 0.148])
def test_cut_and_resumed_equals_unbroken(fresh: Path, unbroken: Path, first_ps: float) -> None:
    done = call("run", fresh, "--time-ps", first_ps)
    assert done.returncode == 0, done.stderr
    done = call("run", fresh, "--time-ps", 0.4)
    assert f"resumes at step {round(first_ps * 250)} " in done.stderr
    same_run(fresh, unbroken)
    assert summary(fresh)["sessions"] == 2


@linux
def test_sigterm_stops_cleanly_and_the_run_goes_on(fresh: Path, unbroken: Path) -> None:
    hold = held(springs(fresh, delay_s=0.02), at=16)
    process = start(fresh)
    until(lambda: lines(fresh) > 9)
    children = descendants(process.pid)
    assert children
    status, output = finish(process, signal.SIGTERM)
    assert status == 143
    assert "stops on SIGTERM" in output
    assert not any(alive(pid) for pid in children)
    stopped = summary(fresh)
    assert stopped["exit"] == "terminated"
    assert 16 < stopped["outer_steps"] < 100
    hold.unlink()
    done = call("run", fresh)
    assert done.returncode == 0, done.stderr
    assert summary(fresh)["ns_per_day"] > 0  # of many looks; a run seen once has no speed
    same_run(fresh, unbroken)


@linux
def test_ctrl_c_is_status_130(fresh: Path) -> None:
    held(fresh, at=4)
    process = start(fresh)
    until(lambda: lines(fresh) > 2)
    status, _ = finish(process, signal.SIGINT)
    assert status == 130
    assert summary(fresh)["exit"] == "interrupted"


@linux
def test_sigkill_takes_all_processes_and_loses_no_checkpoint(fresh: Path, unbroken: Path) -> None:
    hold = held(fresh, at=24)
    process = start(fresh)
    until(lambda: lines(fresh) > 13)
    children = descendants(process.pid)
    process.kill()
    process.communicate(timeout=200)
    until(lambda: not any(alive(pid) for pid in children))
    hold.unlink()
    with open(fresh / "md.properties", "a") as stream:  # what a power failure leaves
        stream.write("    9.9999")
    with open(fresh / "md.positions_0.xyz", "a") as stream:
        stream.write("32\n# CELL(abcABC): 1 1 1 90 90 90 Step: ")
    done = call("run", fresh)
    assert done.returncode == 0, done.stderr
    same_run(fresh, unbroken)


@linux
def test_drivers_sockets_and_a_second_run(tmp_path: Path) -> None:
    slow_teacher = TEACHER.replace("}", ', "delay_s": 0.02}')  # not over while we look
    folder = make(tmp_path / "run", "--time-ps", 4, "--teacher", slow_teacher)
    process = start(folder)
    until(lambda: lines(folder) > 5)
    children = descendants(process.pid)
    assert len(children) == 3
    second = call("run", folder)
    assert second.returncode == 2
    assert f"a run is in progress in it (process {process.pid} on " in second.stderr
    assert second.stderr.count("\n") == 1
    until(lambda: lines(folder) > 20)
    process.kill()
    process.communicate(timeout=200)
    until(lambda: not any(alive(pid) for pid in children))
    done = call("run", folder, "--time-ps", 0.4)
    assert done.returncode == 0, done.stderr
    s = summary(folder)
    assert s["outer_steps"] == 100
    for name in ("i-pi", "teacher", "student"):
        assert (folder / "logs" / f"{name}.log").stat().st_size > 0
    at = RunFolder(folder).spec().sockets["teacher"].path
    assert not at.exists()  # the stale one of the killed i-PI was taken over


@linux
def test_the_socket_of_a_dying_ipi_is_waited_for_and_taken_over(tmp_path: Path) -> None:
    folder = make(tmp_path / "run", "--no-model-check")
    at = RunFolder(folder).spec().sockets["teacher"].path
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(at))
    listener.listen(1)

    def die() -> None:  # as the kernel ends a killed process: its last thread drops the socket
        select.select([listener], [], [], 60)
        listener.close()

    thread = threading.Thread(target=die)
    thread.start()
    done = call("run", folder)
    thread.join()
    assert done.returncode == 0, done.stderr
    assert not at.exists()


def test_nan_inside_ipi_is_seen_and_its_states_are_dropped(fresh: Path) -> None:
    springs(fresh, fault="invalid", at=45, delay_s=0.005)
    done = call("run", fresh, "--no-watchdog")
    assert done.returncode == 4
    assert "is nan at step" in done.stderr.splitlines()[-1]
    assert summary(fresh)["exit"].startswith("fault: ")
    for file in [*fresh.glob("md.checkpoint_*"), *fresh.glob("RESTART")]:
        text = file.read_text()
        assert "nan" not in text[text.index("<q") :]
    assert list(fresh.glob("md.checkpoint_*"))


def test_a_runaway_temperature_ends_the_run(fresh: Path) -> None:
    done = call("run", springs(fresh, fault="kick", at=45, delay_s=0.005), "--no-watchdog")
    assert done.returncode == 4
    assert "over 10 times 60 K" in done.stderr.splitlines()[-1]


def test_a_stall_ends_the_run(fresh: Path) -> None:
    done = call("run", springs(fresh, fault="hang", at=45), "--stall-limit-s", 2, "--no-watchdog")
    assert done.returncode == 4
    assert "stalled at step" in done.stderr.splitlines()[-1]


# in the folder of a `sitecustomize`: i-PI does not end by itself after an error
HANGS = """
import sys, threading, time
if "i-pi" in sys.orig_argv:
    threading.Thread(target=time.sleep, args=(500,), daemon=False).start()
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("hangs", [False, True])
def test_a_full_disk_ends_the_run_with_a_good_checkpoint(
    fresh: Path, unbroken: Path, tmp_path: Path, hangs: bool
) -> None:
    (tmp_path / "sitecustomize.py").write_text(HANGS if hangs else "")
    hold = held(fresh, at=5)
    process = start(fresh, path=tmp_path)
    until(lambda: lines(fresh) > 1)
    (fresh / "md.checkpoint_2").symlink_to("/dev/full")
    hold.unlink()
    output, _ = process.communicate(timeout=250)
    assert process.returncode == 4
    assert "disk full at step" in output.splitlines()[-1]
    (fresh / "md.checkpoint_2").unlink()
    done = call("run", fresh)
    assert done.returncode == 0, done.stderr
    assert "resumes at step" in done.stderr
    same_run(fresh, unbroken)


def test_other_physics_is_refused_on_resuming(unbroken: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(unbroken, tmp_path / "run"))
    file = folder / "input.xml"
    file.write_text(file.read_text().replace(">4</timestep>", ">6</timestep>"))
    done = call("run", folder, "--time-ps", 1)
    assert done.returncode == 2
    assert "timestep = 6 fs: the run was started with 4 fs" in done.stderr


def test_an_edited_input_before_the_start_is_followed(fresh: Path) -> None:
    file = fresh / "input.xml"
    file.write_text(
        file.read_text().replace(">4</timestep>", ">6</timestep>").replace(">100<", ">10<")
    )
    done = call("run", fresh)
    assert done.returncode == 0, done.stderr
    assert RunFolder(fresh).config.inner_fs == pytest.approx(1.5)
    assert RunFolder(fresh).config.outer_fs == pytest.approx(6)
    assert summary(fresh)["inner_fs"] == pytest.approx(1.5)
    assert summary(fresh)["time_ps"] == pytest.approx(0.06)


def test_an_output_that_was_added_later_does_not_begin_a_run_anew(
    unbroken: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "added"
    shutil.copytree(unbroken, folder)
    kept = {f.name: f.read_bytes() for f in folder.glob("md.*")}
    file = folder / "input.xml"
    added = "<trajectory filename='momenta' stride='4'>momenta</trajectory>"
    file.write_text(file.read_text().replace("<checkpoint ", f"{added}<checkpoint ", 1))
    done = call("run", folder, "--time-ps", 0.48)
    assert done.returncode == 2
    assert "('md.momenta_0.xyz', 4)" in done.stderr
    assert "goes on from its checkpoint; put it back" in done.stderr
    assert {f.name: f.read_bytes() for f in folder.glob("md.*")} == kept


def test_a_lost_output_does_not_begin_a_run_anew(unbroken: Path, tmp_path: Path) -> None:
    folder = tmp_path / "lost"
    shutil.copytree(unbroken, folder)
    (folder / "md.velocities_0.xyz").unlink()
    kept = {f.name: f.read_bytes() for f in folder.glob("md.*")}
    done = call("run", folder, "--time-ps", 0.48)
    assert done.returncode == 2
    assert "md.velocities_0.xyz: is missing, the oldest checkpoint is of step" in done.stderr
    assert done.stderr.count("\n") == 1
    assert {f.name: f.read_bytes() for f in folder.glob("md.*")} == kept


@linux
def test_an_output_lost_while_ipi_runs_does_not_begin_the_run_anew(fresh: Path) -> None:
    held(fresh, at=24)
    process = start(fresh)
    until(lambda: lines(fresh) > 13 and any(fresh.glob("md.checkpoint_*")))
    (fresh / "md.velocities_0.xyz").unlink()
    kept = {f: f.read_bytes() for f in fresh.glob("md.checkpoint_*")}
    for pid in descendants(process.pid):
        if b"input.xml" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
    output, _ = process.communicate(timeout=250)
    assert process.returncode == 2
    assert "md.velocities_0.xyz: is missing, the oldest checkpoint" in output.splitlines()[-1]
    assert all(f.read_bytes() == raw for f, raw in kept.items())


def test_progress_in_words() -> None:
    p = Progress(250, 1000, 4.0, 301.2, -12.5, steady_steps=200, steady_s=10.0)
    assert figures(p) == ("step 250/1000  1.000 ps  6.91 ns/day  T 301 K  E -12.5000 eV  left 0:38")
    assert figures(Progress(0, 10, 1.0)) == "starting: models are loaded"
    assert clock(3723) == "1:02:03"


@pytest.mark.parametrize(("number", "words"), [(9, "SIGKILL"), (40, "signal 40")])
@linux
def test_how_a_process_ended(number: int, words: str, tmp_path: Path) -> None:
    child = Child("x", ["sh", "-c", f"kill -{number} $$"], tmp_path / "log", tmp_path).start()
    assert child.wait(250.0)
    assert how(child) == f"killed by {words}"
    child.close()


def test_tools_see_no_zombies() -> None:
    assert not run_tools.alive(2**22 + 1)
