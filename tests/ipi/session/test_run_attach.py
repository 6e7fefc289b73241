"""``dmts-ipi watchdog``: a run whose i-PI and drivers were started by hand.

What is said and decided is tested with processes that do nothing (``cat``); the runs are real.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest

from dmts_ipi.core.errors import InputError
from dmts_ipi.ipi.input_xml import Socket
from dmts_ipi.ipi.run_folder.folder import RunFolder
from dmts_ipi.ipi.session import processes
from dmts_ipi.ipi.session.attached_process import UNKNOWN, AttachedProcess, NeedsPerson, words_of
from dmts_ipi.watchdog.journal import read_events
from places import SUPPORT
from run_tools import (
    TEACHER,
    alive,
    call,
    command,
    environment,
    every_step_once,
    held,
    kinds,
    lines,
    make,
    same_run,
    springs,
    summary,
    until,
)

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc"),
    pytest.mark.timeout(1200),
]
LONG_S = 400.0


@pytest.fixture
def fresh(fresh: Path) -> Path:
    """With short single steps and a short guard."""
    file = fresh / "run.yaml"
    text = file.read_text().partition("watchdog:\n")[0]
    file.write_text(text + "watchdog:\n  sts_ps: 0.04\n  guard_fs: 8.0\n")
    return fresh


@pytest.fixture
def background() -> Iterator[Background]:
    hands = Background()
    yield hands
    hands.end()


class Background:
    """Processes that a person started, and watchdogs."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[str]] = []
        self.pids: set[int] = set()  # of what watchdogs started

    def script(self, folder: Path, name: str, *words: str) -> subprocess.Popen[str]:
        with open(folder / "logs" / f"hand-{name}.log", "a") as log:
            return self._start([f"./start_{name}.sh", *words], log, folder)

    def watchdog(self, folder: Path, *options: object) -> subprocess.Popen[str]:
        words = command("watchdog", folder, "--report-every-s", 1, *options)
        return self._start(words, subprocess.PIPE, None)

    def _start(self, words, out, folder) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            words, stdout=out, stderr=subprocess.STDOUT, text=True, cwd=folder, env=environment()
        )
        self.processes.append(process)
        return process

    def see(self, folder: Path, name: str) -> int:
        """Process id of i-PI or of a driver of a run, from when it is there."""
        spec = RunFolder(folder).spec()

        def find() -> int | None:
            if name == "ipi":
                return processes.find_ipi(folder, spec.sockets)
            return processes.find_driver(spec.sockets[name], None)

        until(lambda: find() is not None, LONG_S)
        pid = find() or 0
        self.pids.add(pid)
        return pid

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
        for process in self.processes:
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
        for pid in self.pids:
            if alive(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def with_sockets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh folder of a run with two drivers."""
    return make(tmp_path_factory.mktemp("made") / "run", "--no-model-check")


@pytest.fixture
def folder(with_sockets: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(with_sockets, tmp_path / "run"))


def cat(background: Background, folder: Path, *words: str) -> subprocess.Popen[str]:
    """A process in a folder that waits for ever, with words on its command line."""
    process = subprocess.Popen(
        ["cat", "-", *words],
        stdin=subprocess.PIPE,
        text=True,
        cwd=folder,
        stderr=subprocess.DEVNULL,
    )
    background.processes.append(process)
    return process


@contextlib.contextmanager
def when(condition: Callable[[], bool], action: Callable[[], object]) -> Iterator[None]:
    """Does something beside the test, which waits in the watchdog."""

    def wait() -> None:
        until(condition, LONG_S)
        action()

    thread = threading.Thread(target=wait)
    thread.start()
    yield
    thread.join()


def test_processes_are_found_by_their_sockets(tmp_path: Path, background: Background) -> None:
    at = Socket("unix", f"dmts-test-{os.getpid()}", 0)
    sockets = {"teacher": at}
    assert processes.find_ipi(tmp_path, sockets) is None
    with socket.socket(socket.AF_UNIX) as listener, socket.socket() as tcp:
        listener.bind(str(at.path))
        try:
            assert processes.find_ipi(tmp_path, sockets) is None  # it does not listen yet
            listener.listen(1)
            assert processes.find_ipi(tmp_path, sockets) == os.getpid()
        finally:
            at.path.unlink()
        tcp.bind(("127.0.0.1", 0))
        tcp.listen(1)
        inet = Socket("inet", "127.0.0.1", tcp.getsockname()[1])
        assert processes.find_ipi(tmp_path, {"student": inet}) == os.getpid()
    assert processes.find_driver(at, None) is None
    starter = subprocess.Popen(["sh", "-c", "read x", at.address], stdin=subprocess.PIPE, text=True)
    background.processes.append(starter)
    until(lambda: processes.find_driver(at, None) == starter.pid)
    driver = cat(background, tmp_path, at.address)
    until(lambda: processes.find_driver(at, None) == driver.pid)  # not who only started it
    assert processes.find_driver(at, driver.pid) == starter.pid
    assert processes.folder_of(driver.pid) == tmp_path
    assert processes.resident_MB(driver.pid) > 0.01
    driver.kill()
    until(lambda: processes.ended(driver.pid))  # a zombie counts as ended
    driver.wait()
    assert processes.ended(driver.pid)


def test_what_others_started_is_watched_ended_and_started_again(
    tmp_path: Path, background: Background
) -> None:
    process = cat(background, tmp_path)
    child = AttachedProcess("teacher", [], tmp_path / "log", tmp_path, by_hand="type `x`")
    assert child.unseen
    assert child.status is None
    child.adopt(process.pid)
    assert (child.pid, child.status, child.unseen, child.ours) == (process.pid, None, False, False)
    assert not child.wait(0.0)
    child.signal(signal.SIGTERM)
    assert child.wait(60.0)
    assert child.status == UNKNOWN
    with pytest.raises(
        NeedsPerson, match=r"teacher must be started; no command of ours .*: type `x`"
    ):
        child.start()
    found = cat(background, tmp_path)
    child = AttachedProcess("teacher", ["cat"], tmp_path / "log", tmp_path, find=lambda: found.pid)
    assert child.status is None
    assert child.pid == found.pid  # it has been looked for
    found.kill()
    assert child.wait(60.0)
    child.start()  # cat of nothing ends at once
    assert child.wait(60.0)
    assert (child.status, child.ours) == (0, True)


def test_restart_commands() -> None:
    here = SUPPORT
    assert words_of("f", "cat 'a b'", here) == ["cat", "a b"]
    assert words_of("f", "cat x", here, "r.xml") == ["cat", "x", "r.xml"]
    assert words_of("f", "cat in={input} y", here, "r.xml") == ["cat", "in=r.xml", "y"]
    for wrong, why in (("cat 'a", "no closing quotation"), (" ", "is empty"), ("./no", "no such")):
        with pytest.raises(InputError, match=why):
            words_of("restart_ipi", wrong, here)


def test_where_it_may_not_restart_it_says_what_a_person_must_do(
    folder: Path, background: Background
) -> None:
    started = lambda: "start" in kinds(folder)  # noqa: E731
    ipi, teacher, student = (cat(background, folder) for _ in range(3))
    pids = ("--ipi-pid", ipi.pid, "--teacher-pid", teacher.pid, "--student-pid", student.pid)
    with when(started, teacher.kill):
        done = call("watchdog", folder, *pids)
    assert done.returncode == 4
    last = done.stderr.splitlines()[-1]
    assert "teacher ended (it is gone): its messages went elsewhere; no command of ours" in last
    assert f"type `cd {folder} && ./start_teacher.sh`, then `dmts-ipi watchdog {folder}`" in last
    assert ipi.poll() is None  # i-PI waits for the teacher, and goes on with it
    assert student.poll() is None
    before = len(kinds(folder))
    teacher = cat(background, folder)
    pids = ("--ipi-pid", ipi.pid, "--teacher-pid", teacher.pid, "--student-pid", student.pid)
    with when(lambda: "start" in kinds(folder)[before:], ipi.kill):
        done = call("watchdog", folder, *pids)
    assert done.returncode == 4
    last = done.stderr.splitlines()[-1]
    assert "i-PI ended (it is gone) at step 0 of 100" in last
    assert f"type `cd {folder} && ./start_ipi.sh input.xml`, then" in last
    assert summary(folder)["exit"].startswith("fault: i-PI ended")
    ipi = cat(background, folder)
    done = call("watchdog", folder, "--ipi-pid", ipi.pid, "--wait-s", 0)
    assert done.returncode == 4
    last = done.stderr.splitlines()[-1]
    assert "is neither seen nor heard, and i-PI waits; no command of ours starts it" in last
    assert ipi.poll() is None


def test_a_folder_that_vanishes_is_told_in_one_line(folder: Path, background: Background) -> None:
    ipi, teacher, student = (cat(background, folder) for _ in range(3))
    pids = ("--ipi-pid", ipi.pid, "--teacher-pid", teacher.pid, "--student-pid", student.pid)

    def remove() -> None:
        while folder.exists():  # the watchdog may write a file while the folder is emptied
            shutil.rmtree(folder, ignore_errors=True)

    with when(lambda: "start" in kinds(folder), remove):
        done = call("watchdog", folder, *pids)
    assert done.returncode == 4
    assert "the folder of the run is gone (No such file" in done.stderr.splitlines()[-1]


def test_a_watchdog_that_is_told_to_stop_leaves_the_run_alone(
    folder: Path, background: Background
) -> None:
    ipi, teacher, student = (cat(background, folder) for _ in range(3))
    pids = ("--ipi-pid", ipi.pid, "--teacher-pid", teacher.pid, "--student-pid", student.pid)
    text = (folder / "run.yaml").read_text()
    (folder / "run.yaml").write_text(
        text.replace("restart_driver: {}", "restart_driver: {student: cat}")
    )

    def stop() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with (
        when(lambda: "start" in kinds(folder), teacher.kill),
        when(lambda: (folder / "logs" / "teacher.log").exists(), stop),
    ):
        done = call("watchdog", folder, *pids, "--restart-teacher", f"sleep {LONG_S:.0f}")
    assert done.returncode == 143
    assert f"unwatched since SIGTERM; i-PI (process {ipi.pid}) goes on" in done.stdout
    assert ipi.poll() is None
    assert student.poll() is None
    assert "restart" in kinds(folder)
    (started,) = (
        p
        for p in psutil.pids()
        if processes.folder_of(p) == folder and p not in (ipi.pid, teacher.pid, student.pid)
    )
    os.kill(started, signal.SIGKILL)  # alive: it would have outlived us


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--restart-ipi", "no-such-program"), "restart_ipi = no-such-program: no such program"),
        (("--teacher-pid", 2**22 + 1), "no such process on this machine"),
        (("--wait-s", -1), "wait_s = -1.0: must be zero or more seconds"),
        (("--ipi-pid", "self"), "runs in"),
    ],
)
def test_wrong_input(folder: Path, options: tuple[object, ...], words: str) -> None:
    options = tuple(os.getpid() if o == "self" else o for o in options)
    done = call("watchdog", folder, *options)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (folder / "events.jsonl").exists()


def taken(folder: Path) -> bool:
    """Whether a watchdog has taken the folder: it then looks for i-PI."""
    lock = folder / "run.lock"
    return lock.exists() and lock.stat().st_size > 0


def test_a_killed_ipi_is_started_again_by_its_command_and_a_dead_watchdog_is_replaced(
    fresh: Path, unbroken: Path, background: Background
) -> None:
    hold = held(fresh, at=10)
    first = background.watchdog(fresh, "--restart", "--wait-s", LONG_S)
    until(lambda: taken(fresh), LONG_S)
    background.script(fresh, "ipi", "input.xml")
    until(lambda: "start" in kinds(fresh) and lines(fresh) > 5, LONG_S)
    os.kill(background.see(fresh, "ipi"), signal.SIGKILL)
    second = call("watchdog", fresh, "--wait-s", 0)
    assert second.returncode == 2
    assert f"a run is in progress in it (process {first.pid} on " in second.stderr
    until(lambda: kinds(fresh).count("start") == 2, LONG_S)
    again = background.see(fresh, "ipi")
    os.kill(again, signal.SIGSTOP)  # so that it is not over meanwhile
    hold.unlink()
    first.kill()
    first.communicate()
    assert alive(again)  # what the watchdog started outlives it
    with when(lambda: kinds(fresh).count("start") == 3, lambda: os.kill(again, signal.SIGCONT)):
        done = call("watchdog", fresh)
    assert done.returncode == 0, done.stderr
    assert f"takes over i-PI (process {again}) at step" in done.stderr
    assert kinds(fresh) == ["start", "verdict", "restart", "start", "start", "end"]
    same_run(fresh, unbroken)
    assert summary(fresh)["exit"] == "finished"


def test_a_person_types_what_it_says_until_the_run_is_finished(
    fresh: Path, background: Background
) -> None:
    """NaN once, and no command may be used: a rewind, single steps, and multiple steps again."""
    springs(fresh, fault="invalid", at=45, once=fresh / "fault-done", delay_s=0.05)
    file, said = "input.xml", []
    for _ in range(3):
        with when(lambda: taken(fresh), partial(background.script, fresh, "ipi", file)):
            done = call("watchdog", fresh, "--wait-s", LONG_S)
        said.append(done.stderr.splitlines()[-1])
        if done.returncode == 0:
            break
        assert done.returncode == 4, done.stderr
        assert f"&& ./start_ipi.sh resume.xml`, then `dmts-ipi watchdog {fresh}` again" in said[-1]
        file = "resume.xml"
    assert done.returncode == 0, said
    assert "is nan at step" in said[0]
    assert len(said) == 3
    every_step_once(fresh, 100)
    texts = [e["text"] for e in read_events(fresh) if e["kind"] == "start"]
    assert [" ".join(t.split()[3:5]) for t in texts] == [
        *("multiple steps", "single steps", "multiple steps"),
    ]
    assert summary(fresh)["watchdog"]["rewinds"] == 1


def test_plain_ipi_and_the_three_scripts_survive_kill_9_of_each(
    tmp_path: Path, background: Background
) -> None:
    slow_teacher = TEACHER.replace("}", ', "delay_s": 0.05}')
    models = ("--teacher", slow_teacher, "--splitting", "baoab", "--time-ps", 0.6)
    folder = make(tmp_path / "run", "--no-model-check", *models)
    assert "dmts_ipi.cli" not in (folder / "start_ipi.sh").read_text()
    watchdog = background.watchdog(folder, "--restart", "--wait-s", LONG_S)
    until(lambda: taken(folder), LONG_S)
    for name in ("ipi", "teacher", "student"):
        background.script(folder, name)
    until(lambda: "start" in kinds(folder), LONG_S)
    for name in ("teacher", "student", "ipi"):
        seen = lines(folder)
        until(lambda: lines(folder) > seen + 3, LONG_S)  # noqa: B023 - called at once
        os.kill(background.see(folder, name), signal.SIGKILL)
        until(lambda: not all(map(alive, background.pids)), LONG_S)
        background.pids.clear()
    output, _ = watchdog.communicate(timeout=LONG_S)
    assert watchdog.returncode == 0, output
    every_step_once(folder, 150)
    assert np.isfinite(RunFolder(folder).properties()["conserved_eV"]).all()
    restarts = [e["text"] for e in read_events(folder) if e["kind"] == "restart"]
    for who in ("teacher ended", "student ended", "i-PI is started again"):
        assert any(text.startswith(who) for text in restarts), restarts
    sockets = RunFolder(folder).spec().sockets.values()
    assert [processes.find_driver(at, None) for at in sockets] == [None, None]  # its own: ended


def test_an_id_that_another_process_got_is_not_ended(
    tmp_path: Path, background: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process is its id and the time of its creation, also where there are no pidfds."""
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    process = cat(background, tmp_path)
    child = AttachedProcess("teacher", [], tmp_path / "log", tmp_path).adopt(process.pid)
    assert child.status is None
    monkeypatch.setattr(child._identity, "_create_time", 1.0)  # as of one that has ended before
    monkeypatch.setattr(child._identity, "_ident", (process.pid, 1.0))
    assert child.wait(0.0)
    assert child.status == UNKNOWN
    child._gone = False
    child.signal(signal.SIGKILL)
    assert process.poll() is None
