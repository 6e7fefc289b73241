"""One session of a run: resume or start, launch, watch, stop, sum up."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ase.data import chemical_symbols

from dmts_ipi.core.errors import DmtsError, InputError, RunFault

from . import resume
from .folder import INPUT, LOGS, STRUCTURE, RunConfig, RunFolder
from .launch import Child, Signals, stop, wait_any
from .lock import FolderLock
from .render import Template
from .resources import driver_script, ipi_command
from .summary import SESSIONS, read_sessions, write_json, write_summary
from .validate import InputFacts, Socket, read_checkpoint
from .watch import Limits, Progress, Watch, check_room

TICK_S = 0.5
STOP_LIMIT_S = 20.0
DRIVER_LIMIT_S = 5.0
SOCKET_LIMIT_S = 2.0


@dataclass
class Hooks:
    """What the command line wants to hear: one line at a time, progress at every tick."""

    say: Callable[[str], None] = lambda line: None
    progress: Callable[[Progress], None] = lambda progress: None


@dataclass
class Outcome:
    """How a session ended: exit status, word for ``summary.json``, and the summary."""

    status: int
    exit: str
    summary: dict[str, object] = field(default_factory=dict)
    tails: dict[str, list[str]] = field(default_factory=dict)


def run_session(
    folder: RunFolder, hooks: Hooks, limits: Limits, time_ps: float | None = None
) -> Outcome:
    """Runs a folder until it is finished, stopped or at fault.

    Args:
        folder: the run.
        hooks: see ``Hooks``.
        limits: see ``Limits``.
        time_ps: new length of the run, to extend it.

    Raises:
        InputError: something is wrong that shows before anything is started.
    """
    with FolderLock(folder.path):
        facts = folder.facts()
        facts.check_labels(chemical_symbols[z] for z in folder.structure().numbers)
        if time_ps is not None:
            _set_length(folder, facts, time_ps)
            facts = folder.facts()
        _follow_input(folder, facts, hooks)
        state = resume.newest_state(folder.path, facts)
        if state is not None:
            _same_physics(facts, read_checkpoint(state.path))
        if state is not None and state.step >= facts.total_steps:
            hooks.say(
                f"{folder.path}: finished, {facts.total_steps} outer steps "
                f"({folder.config.time_ps:g} ps); --time-ps extends it"
            )
            summary = folder.summary()
            if summary is None or summary.get("exit") != "finished":
                summary = write_summary(folder, "finished", state.step)
            return Outcome(0, "finished", summary)
        check_room(folder.path, limits.free_MB, InputError)
        for at in facts.sockets.values():
            _free_socket(at)
        return _Session(folder, facts, state, hooks, limits).run()


def _set_length(folder: RunFolder, facts: InputFacts, time_ps: float) -> None:
    """Writes a new length into ``input.xml`` and ``run.yaml``."""
    if not time_ps > 0:
        raise InputError("time_ps", time_ps, "must be positive")
    config = folder.config.model_copy(update={"time_ps": float(time_ps)})
    file = folder.path / INPUT
    template = Template(file.read_text(), INPUT)
    template.set("total_steps", config.total_steps)
    temporary = folder.path / (INPUT + ".new")
    temporary.write_text(template.text())
    temporary.replace(file)
    folder.write_config(config)


def _follow_input(folder: RunFolder, facts: InputFacts, hooks: Hooks) -> None:
    """``input.xml`` is what runs: where a person edited it, ``run.yaml`` follows."""
    config: RunConfig = folder.config
    said = {
        "ensemble": facts.ensemble,
        "n_inner": facts.n_inner,
        "inner_step_fs": facts.outer_step_fs / facts.n_inner,
        "temperature_K": facts.temperature_K or config.temperature_K,
        "time_ps": facts.total_steps * facts.outer_step_fs / 1000,
    }
    tolerance = {"time_ps": facts.outer_step_fs / 1000}
    changed: dict[str, object] = {}
    for key, value in said.items():
        old = getattr(config, key)
        if isinstance(value, float):
            if abs(value - old) > max(1e-6 * abs(value), tolerance.get(key, 0.0)):
                changed[key] = float(f"{value:.9g}")
        elif value != old:
            changed[key] = value
    if not changed:
        return
    for key, value in changed.items():
        hooks.say(f"run.yaml: {key} {getattr(config, key)} -> {value}, as input.xml says")
    folder.write_config(RunConfig.model_validate({**config.model_dump(), **changed}))


def _same_physics(facts: InputFacts, begun: InputFacts) -> None:
    """Refuses to resume with other settings than the run was started with."""
    for name, now, before in (
        ("ensemble", facts.ensemble, begun.ensemble),
        ("splitting", facts.splitting, begun.splitting),
        ("timestep", f"{facts.outer_step_fs:.6g} fs", f"{begun.outer_step_fs:.6g} fs"),
        ("nmts", facts.n_inner, begun.n_inner),
        ("temperature", f"{facts.temperature_K or 0:.6g}", f"{begun.temperature_K or 0:.6g}"),
        ("output", _names(facts), _names(begun)),
        ("ffsocket", facts.sockets, begun.sockets),
    ):
        if now != before and not (name == "temperature" and facts.ensemble == "nve"):
            raise InputError(
                f"input.xml: {name}",
                now,
                f"the run was started with {before} and goes on from its checkpoint; "
                "put it back, or make a new folder with `dmts-ipi init`",
            )


def _names(facts: InputFacts) -> list[tuple[str, int]]:
    return [(o.filename, o.stride) for o in facts.outputs]


def _free_socket(at: Socket) -> None:
    """Removes the socket file that a killed i-PI left; refuses one that somebody listens on.

    A process that was just killed still takes connections until its last thread is gone, and
    then drops them: that end is waited for. A living i-PI keeps the connection.
    """
    if at.mode != "unix":
        return
    deadline = time.monotonic() + SOCKET_LIMIT_S
    while at.path.exists():
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(SOCKET_LIMIT_S)
            try:
                probe.connect(str(at.path))
                dying = _dropped(probe, deadline)
            except ConnectionRefusedError:
                with contextlib.suppress(FileNotFoundError):
                    at.path.unlink()
                return
            except FileNotFoundError:
                return
            except OSError as error:
                raise InputError("socket", at.path, f"{error.strerror}; remove it") from error
        if not dying or time.monotonic() > deadline:
            raise InputError(
                "socket", at.path, "is in use; stop that i-PI, or change <address> in input.xml"
            )


def _dropped(probe: socket.socket, deadline: float) -> bool:
    """Whether the other end closed the connection before the deadline without a word."""
    probe.settimeout(max(deadline - time.monotonic(), 0.01))
    try:
        return probe.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True


class _Session:
    def __init__(
        self,
        folder: RunFolder,
        facts: InputFacts,
        state: resume.State | None,
        hooks: Hooks,
        limits: Limits,
    ) -> None:
        self.folder, self.facts, self.hooks, self.limits = folder, facts, hooks, limits
        self.logs = folder.path / LOGS
        try:
            self.logs.mkdir(exist_ok=True)
            if state is None:
                resume.prepare_start(folder.path, facts)
                self.input = folder.path / INPUT
            else:
                self.input = resume.prepare_resume(folder.path, facts, state, facts.total_steps)
        except OSError as error:
            raise InputError("folder", error.filename, f"{error.strerror}") from error
        (folder.path / "EXIT").unlink(missing_ok=True)  # i-PI would stop at once
        first = state.step if state else 0
        properties = facts.output("properties")
        assert properties is not None  # read_input demands it
        self.watch = Watch(
            folder.path / properties.filename,
            Progress(first, facts.total_steps, facts.outer_step_fs),
            facts.temperature_K,
            limits,
        )
        self.first = first
        if state is not None:
            hooks.say(f"resumes at step {first} ({first * facts.outer_step_fs / 1000:g} ps)")

    def run(self) -> Outcome:
        """Launches, watches, stops, and writes the summary whatever happened."""
        started, clock = time.strftime("%Y-%m-%d %H:%M:%S"), time.monotonic()
        fault: DmtsError | None = None
        number: int | None = None
        with Signals() as signals:
            children = self._children()
            ipi, drivers = children[0], children[1:]
            try:
                for child in children:
                    child.start()
                number = self._follow(ipi, drivers, signals)
            except DmtsError as error:
                fault = error
            finally:
                # i-PI first, while its drivers still answer: it then leaves a RESTART
                stop([ipi], STOP_LIMIT_S if ipi.status is None else 0.0)
                stop(drivers, DRIVER_LIMIT_S)
                for at in self.facts.sockets.values():
                    if at.mode == "unix":
                        with contextlib.suppress(OSError):
                            at.path.unlink()
        try:
            self.watch.read()  # what was written since the last look
        except DmtsError as error:
            fault = fault or error
        if self.watch.sound_step is not None:
            resume.discard_after(self.folder.path, self.facts, self.watch.sound_step)
        resume.prune(self.folder.path, self.facts, self.folder.config.keep_checkpoints)
        exit, status = "finished", 0
        if number is not None:
            exit = "interrupted" if number == signal.SIGINT else "terminated"
            status = 128 + number
        if fault is not None:
            exit, status = f"fault: {fault}", fault.status
        self._record(started, time.monotonic() - clock, exit)
        outcome = Outcome(status, exit)
        if fault is not None:
            outcome.tails = {c.name: c.tail() for c in children}
        try:
            outcome.summary = write_summary(self.folder, exit, self._reached())
        except OSError as error:  # a full disk: the fault is told all the same
            self.hooks.say(f"summary.json was not written: {error.strerror}")
        return outcome

    def _follow(self, ipi: Child, drivers: list[Child], signals: Signals) -> int | None:
        """Waits for the end; returns the number of the signal that asked for it, if one did.

        Raises:
            RunFault: a process ended early, or the watch saw something wrong.
        """
        pruned = time.monotonic()
        while True:
            wait_any([ipi, *drivers], signals, TICK_S)
            if signals.number is not None:
                self.hooks.say(f"stops on {signal.Signals(signals.number).name}")
                return signals.number
            self.hooks.progress(self.watch.update())
            if ipi.status is not None:
                self._ended(ipi)
                return None
            for driver in drivers:
                if driver.status is not None and not ipi.wait(2.0):
                    raise RunFault(f"{driver.name} ended ({_how(driver)}): {_reason(driver)}")
            if time.monotonic() - pruned > 5.0:
                resume.prune(self.folder.path, self.facts, self.folder.config.keep_checkpoints)
                pruned = time.monotonic()

    def _reached(self) -> int:
        """Outer steps done: of the last line, or of the state that i-PI left at its end."""
        states = resume.checkpoints(self.folder.path, self.facts)
        return max([self.watch.progress.step, *(s.step for s in states[:1])])

    def _ended(self, ipi: Child) -> None:
        """i-PI is gone: was that the end of the run?"""
        states = resume.checkpoints(self.folder.path, self.facts)
        if ipi.status == 0 and states and states[0].step >= self.facts.total_steps:
            return
        if ipi.logged("No space left on device") or ipi.logged("Errno 28"):
            raise RunFault(
                f"disk full at step {self.watch.progress.step}; the last checkpoint is good: "
                "make room and run again"
            )
        raise RunFault(
            f"i-PI ended ({_how(ipi)}) at step {self.watch.progress.step} of "
            f"{self.facts.total_steps}: {_reason(ipi)}"
        )

    def _record(self, started: str, wall_s: float, exit: str) -> None:
        p = self.watch.progress
        sessions = read_sessions(self.folder.path)
        sessions.append(
            {
                "started": started,
                "host": socket.gethostname(),
                "exit": exit,
                "first_step": self.first,
                "last_step": p.step,
                "steady_steps": p.steady_steps,
                "steady_s": round(p.steady_s, 4),
                "wall_s": round(wall_s, 2),
            }
        )
        with contextlib.suppress(OSError):
            write_json(self.folder.path / SESSIONS, sessions)

    def _children(self) -> list[Child]:
        path = self.folder.path.resolve()
        ipi = Child(
            "i-pi",
            [*ipi_command(self.facts.ours), self.input.name],
            self.logs.resolve() / "i-pi.log",
            path,
            {"OMP_NUM_THREADS": "1"},
        )
        children = [ipi]
        for name, at in self.facts.sockets.items():
            children.append(
                Child(
                    name,
                    driver_command(self.folder.config, name, at, python=sys.executable),
                    self.logs.resolve() / f"{name}.log",
                    path,
                    {"PYTHONUNBUFFERED": "1"},
                )
            )
        return children


def driver_command(config: RunConfig, name: str, at: Socket, python: str) -> list[str]:
    """Command line of the driver of a forcefield, from within the run folder.

    Raises:
        InputError: the run has no such model.
    """
    settings = config.models().get(name)
    if settings is None:
        raise InputError("run.yaml", name, "input.xml has a socket for it, but no model is named")
    command = [python, str(driver_script(name)), "--model", settings.model]
    command += ["--structure", STRUCTURE]
    if at.mode == "unix":
        command += ["--unix", at.address]
    else:
        command += ["--address", at.address, "--port", str(at.port)]
    command += ["--device", settings.device]
    if settings.dtype:
        command += ["--dtype", settings.dtype]
    if settings.threads:
        command += ["--threads", str(settings.threads)]
    if config.ensemble == "npt":
        command += ["--need-virial"]
    return command


def _how(child: Child) -> str:
    status = child.status
    if status is not None and status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}"


def _reason(child: Child) -> str:
    """The line of a log that says most: an error if there is one, else the last."""
    if child.status == -signal.SIGKILL:
        return "killed from outside (out of memory?); run again to resume"
    lines = child.tail(40)
    errors = [x for x in lines if "error" in x.lower()]
    return (errors or lines or ["nothing in its log"])[-1].strip()
