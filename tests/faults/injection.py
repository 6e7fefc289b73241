"""Faults: how each is injected into a short run, and what must become of the run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dmts_ipi.ipi.run_folder.folder import RunFolder
from dmts_ipi.watchdog.journal import read_events
from run_tools import alive, command, descendants, environment, lines, make

HERE = Path(__file__).resolve().parent
SUPPORT = HERE.parent / "support"
PYTHONPATH = f"{HERE}:{SUPPORT}:{HERE.parents[1]}"
STEPS = 120
OPTIONS: list[str] = []  # of `init`, further ones
LIMIT_S = 400.0
WATCHDOG = "watchdog:\n  sts_ps: 0.04\n  guard_fs: 8.0\n  difference_max_eV_per_A: 1.0\n"
PROGRAMS = {"ipi": b"i-pi", "teacher": b"nnp_driver", "student": b"nc_driver"}


class Failed(Exception):
    """What a run did not do as it should."""


@dataclass
class Run:
    """A run under way; ``hands``: what a person started, where ``process`` is the watchdog."""

    folder: Path
    process: subprocess.Popen[str]
    seen: set[int]
    hands: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def pid(self, who: str) -> int:
        """Process id of i-PI or of a driver; waits for it."""
        end = time.monotonic() + LIMIT_S
        while time.monotonic() < end:
            for pid in self.everybody():
                try:
                    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if any(Path(w.decode()).name.startswith(PROGRAMS[who].decode()) for w in words[:6]):
                    return pid
            time.sleep(0.05)
        raise Failed(f"no process of {who}")

    def everybody(self) -> list[int]:
        """All processes of the run."""
        found = [self.process.pid, *descendants(self.process.pid)]
        for hand in self.hands:
            if hand.poll() is None:
                found += [hand.pid, *descendants(hand.pid)]
        self.seen.update(found)
        return found

    def wait(self, what: Callable[[], bool], words: str) -> None:
        """Waits for something that the run does."""
        end = time.monotonic() + LIMIT_S
        while not what():
            if self.process.poll() is not None:
                raise Failed(f"ended before {words}: status {self.process.returncode}")
            if time.monotonic() > end:
                raise Failed(f"hangs: not {words}")
            time.sleep(0.02)

    def end(self) -> tuple[int, str]:
        """Exit status and output."""
        try:
            output, _ = self.process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired as error:
            raise Failed("hangs: does not end") from error
        return self.process.returncode, output


def start(folder: Path) -> Run:
    """``dmts-ipi run`` in the background."""
    process = subprocess.Popen(
        [*command("run", folder, "--report-every-s", 100, "--stall-limit-s", 12)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**environment(), "PYTHONPATH": PYTHONPATH},
    )
    return Run(folder, process, set())


def watchdog(folder: Path) -> subprocess.Popen[str]:
    """``dmts-ipi watchdog`` in the background; it may start again what ends."""
    return subprocess.Popen(
        command("watchdog", folder, "--restart", "--report-every-s", 100, "--stall-limit-s", 12),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**environment(), "PYTHONPATH": PYTHONPATH},
    )


def by_hand(folder: Path) -> Run:
    """The three scripts of a run folder, and the watchdog beside them."""
    hands = []
    for name in ("ipi", "teacher", "student"):
        with open(folder / "logs" / f"hand-{name}.log", "ab") as log:
            hands.append(
                subprocess.Popen(
                    [f"./start_{name}.sh"],
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**environment(), "PYTHONPATH": PYTHONPATH},
                )
            )
    return Run(folder, watchdog(folder), set(), hands)


def kill_watchdog(run: Run) -> None:
    """The run goes on without it; the next one takes it over."""
    run.everybody()
    run.process.kill()
    run.process.communicate()
    run.process = watchdog(run.folder)


def prepare(folder: Path, teacher: str = "", student: str = "") -> Path:
    """A run folder; ``teacher`` and ``student``: further keywords of their calculators."""
    os.environ["PYTHONPATH"] = PYTHONPATH
    make(
        folder,
        "--no-model-check",
        *("--teacher", f'ase:faulty.Faulty {{"strength": 1.0{teacher}}}'),
        *("--student", f'ase:faulty.Faulty {{"strength": 0.9{student}}}'),
        *("--time-ps", STEPS * 0.004, *OPTIONS),
    )
    file = folder / "run.yaml"
    file.write_text(file.read_text().partition("watchdog:\n")[0] + WATCHDOG)
    return folder


def check(folder: Path, reference: Path | None) -> None:
    """Every line and frame once, in order, finite, and equal to the reference if there is one."""
    run = RunFolder(folder)
    p, f, _ = run.config.strides
    columns = run.properties()
    if columns["step"].tolist() != list(range(0, STEPS + 1, p)):
        raise Failed("a line is missing or twice")
    frames = list(run.frames())
    if [x[0] for x in frames] != list(range(0, STEPS + 1, f)):
        raise Failed("a frame is missing or twice")
    if not all(np.isfinite(columns[k]).all() for k in ("conserved_eV", "temperature_K")):
        raise Failed("NaN in the properties")
    if reference is None:
        return
    other = RunFolder(reference).properties()
    for key in ("temperature_K", "potential_eV", "conserved_eV"):
        if not np.allclose(columns[key], other[key], rtol=1e-10, atol=1e-12):
            raise Failed(f"{key} differs from the unbroken run")


def cleaned(run: Run) -> None:
    """No process of the run is left."""
    end = time.monotonic() + 20
    while left := [pid for pid in run.seen if alive(pid)]:
        if time.monotonic() > end:
            raise Failed(f"processes left: {left}")
        time.sleep(0.05)


def by_signal(who: str, number: int, seconds: float = 0.0) -> Callable[[Run], None]:
    """Sends a signal; with ``seconds`` SIGCONT follows."""

    def inject(run: Run) -> None:
        pid = run.process.pid if who == "run" else run.pid(who)
        os.kill(pid, number)
        if seconds:
            time.sleep(seconds)
            os.kill(pid, signal.SIGCONT)

    return inject


def kill_all(run: Run) -> None:
    for pid in run.everybody():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def kill_run(run: Run) -> None:
    run.everybody()
    run.process.kill()


def full_disk(run: Run) -> None:
    written = [int(p.name.rpartition("_")[2]) for p in run.folder.glob("md.checkpoint_*")]
    for k in range(max(written) + 1, max(written) + 4):
        target = run.folder / f"md.checkpoint_{k}"
        if not target.exists():
            target.symlink_to("/dev/full")


def second_run(run: Run) -> None:
    pid = run.pid("ipi")
    os.kill(pid, signal.SIGSTOP)  # so that the first run is not over meanwhile
    done = subprocess.run(
        command("run", run.folder),
        capture_output=True,
        text=True,
        env={**environment(), "PYTHONPATH": PYTHONPATH},
    )
    os.kill(pid, signal.SIGCONT)
    if done.returncode != 2 or "a run is in progress in it" not in done.stderr:
        raise Failed(f"the second run was not refused: {done.stderr}")


def truncate_newest(folder: Path) -> None:
    files = sorted(folder.glob("md.checkpoint_*"), key=lambda p: p.stat().st_mtime)
    os.truncate(files[-1], files[-1].stat().st_size // 2)


def leave_exit(folder: Path) -> None:
    (folder / "EXIT").touch()


def remove_links(folder: Path) -> None:
    for path in folder.glob("md.checkpoint_*"):
        if path.is_symlink():
            path.unlink()


@dataclass(frozen=True)
class Kind:
    """A fault: how it is injected, what must become of the run.

    ``status`` of the session that it hits; ``then``: done before a second session, which must
    finish. ``by_hand``: under ``dmts-ipi watchdog``. ``equal``: the trajectory must equal the
    unbroken one. ``verdict``: one of the journal's kinds of verdict must be there.
    """

    inject: Callable[[Run], None] | None = None
    model: tuple[str, str] | None = None  # role and fault of its calculator
    status: int = 0
    then: Callable[[Path], None] | None = None
    by_hand: bool = False
    equal: bool = True
    verdict: tuple[str, ...] = ()


def nothing(folder: Path) -> None:
    """No change between two sessions."""


SPIKE = ("spike", "difference", "temperature", "runaway", "jump")
KINDS: dict[str, Kind] = {
    **{f"kill_{w}": Kind(by_signal(w, signal.SIGKILL)) for w in PROGRAMS},
    **{f"term_{w}": Kind(by_signal(w, signal.SIGTERM)) for w in PROGRAMS},
    **{f"stop_5s_{w}": Kind(by_signal(w, signal.SIGSTOP, 5.0)) for w in PROGRAMS},
    **{f"stop_{w}": Kind(by_signal(w, signal.SIGSTOP)) for w in PROGRAMS},
    "stop_5s_run": Kind(by_signal("run", signal.SIGSTOP, 5.0)),
    "term_run": Kind(by_signal("run", signal.SIGTERM), status=143, then=nothing),
    **{f"hand_{w}": Kind(by_signal(w, signal.SIGKILL), by_hand=True) for w in PROGRAMS},
    "hand_watchdog": Kind(kill_watchdog, by_hand=True),
    "kill_run": Kind(kill_run, status=-signal.SIGKILL, then=nothing),
    "kill_all": Kind(kill_all, status=-signal.SIGKILL, then=nothing),
    "truncated": Kind(kill_all, status=-signal.SIGKILL, then=truncate_newest),
    "exit_left": Kind(kill_all, status=-signal.SIGKILL, then=leave_exit),
    "full_disk": Kind(full_disk, status=4, then=remove_links),
    "second_run": Kind(second_run),
    "nan_teacher": Kind(model=("teacher", "nan"), equal=False, verdict=("model",)),
    "nan_student": Kind(model=("student", "nan"), equal=False, verdict=("model",)),
    "shape_student": Kind(model=("student", "shape"), equal=False, verdict=("model",)),
    "spike_student": Kind(model=("student", "spike"), equal=False, verdict=SPIKE),
    "spike_teacher": Kind(model=("teacher", "spike"), equal=False, verdict=SPIKE),
    "slow_student": Kind(model=("student", "slow")),
    "slow_teacher": Kind(model=("teacher", "slow")),
}


def one(kind: Kind, folder: Path, reference: Path, rng: random.Random) -> str:
    """Runs one fault; returns what became of it in a few words.

    Raises:
        Failed: not what had to.
    """
    keywords = {"teacher": "", "student": ""}
    if kind.model is not None:
        role, fault = kind.model
        n = STEPS * (4 if role == "student" else 1)
        at = rng.randrange(n // 4, 2 * n // 3)
        mark = folder.parent / f"{folder.name}-once"
        keywords[role] = f', "fault": "{fault}", "at": {at}, "once": "{mark}"'
    prepare(folder, **keywords)
    run = (by_hand if kind.by_hand else start)(folder)
    try:
        if kind.inject is not None:
            after = rng.randrange(2, STEPS // 4)
            run.wait(lambda: lines(folder) > after, f"line {after}")
            run.everybody()
            time.sleep(rng.random() * 0.1)
            kind.inject(run)
        status, output = run.end()
        if status != kind.status:
            raise Failed(f"status {status}, not {kind.status}: {output.splitlines()[-1:]}")
        for hand in run.hands:  # drivers wait for the next i-PI, as they do for people
            hand.terminate()
            hand.wait(60)
        cleaned(run)
        if kind.then is not None:
            kind.then(folder)
            again = start(folder)
            status, output = again.end()
            if status != 0:
                raise Failed(f"resumed with status {status}: {output.splitlines()[-1:]}")
    finally:
        for pid in [*run.everybody(), *run.seen]:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        run.process.wait()
        for hand in run.hands:
            hand.wait()
    check(folder, reference if kind.equal else None)
    events = read_events(folder)
    found = [e["verdict"] for e in events if e["kind"] == "verdict"]
    if kind.verdict and not set(found) & set(kind.verdict):
        raise Failed(f"verdicts {found}, none of {kind.verdict}")
    counts = {k: sum(e["kind"] == k for e in events) for k in ("rewind", "restart", "hung")}
    words = [f"{n} {k}" for k, n in counts.items() if n]
    return ", ".join(words) or ("resumed" if kind.then else "went on")
