"""One session of a run: resume or start, launch, watch, stop, sum up."""

from __future__ import annotations

import contextlib
import math
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

from dmts_ipi.core.errors import DmtsError, InputError
from dmts_ipi.core.files import replace_file, write_json
from dmts_ipi.core.levels import STUDENT, TEACHER
from dmts_ipi.core.private import is_loopback
from dmts_ipi.core.supervision import Guard, NoGuard, Segment, Stop
from dmts_ipi.ipi.client.network import KEYS, NETWORK, announce, over_tcp
from dmts_ipi.ipi.input_xml import InputSpec, InputXML, Socket
from dmts_ipi.ipi.run_folder.folder import INPUT, LOGS, STRUCTURE, RunFolder
from dmts_ipi.ipi.run_folder.resources import driver_script, ipi_command
from dmts_ipi.ipi.run_folder.settings import RunSettings
from dmts_ipi.ipi.run_folder.summary import SESSIONS, read_sessions, write_summary

from . import resume
from .begun import check_edits, check_input, check_models
from .launch import Child, Signals
from .lock import FolderLock
from .socket_file import free_socket, placed, prefix_of
from .supervise import Driver, Hooks, Supervisor
from .third_party_driver import split, third_party_command
from .watch import Limits, check_room


@dataclass
class Outcome:
    """How a session ended: exit status, word for ``summary.json``, and the summary."""

    status: int
    exit: str
    summary: dict[str, object] = field(default_factory=dict)
    tails: dict[str, list[str]] = field(default_factory=dict)


def run_session(
    folder: RunFolder,
    hooks: Hooks,
    limits: Limits,
    time_ps: float | None = None,
    guarded: Callable[[RunFolder, InputSpec], AbstractContextManager[Guard]] | None = None,
    adapt: Callable[[RunSettings], RunSettings] = lambda settings: settings,
) -> Outcome:
    """Runs a folder until it is finished, stopped or at fault.

    Args:
        folder: the run.
        hooks: see ``Hooks``.
        limits: see ``Limits``.
        time_ps: new length of the run, to extend it.
        guarded: makes the guard of a run that is about to start; None: any error ends the run.
        adapt: changes that apply to this session only, such as how drivers are launched.

    Raises:
        InputError: the input is wrong; nothing has been started.
    """
    with FolderLock(folder.path):
        spec = folder.spec()
        longer = None if time_ps is None else with_length(folder, spec, time_ps)
        spec = longer.spec() if longer is not None else spec
        settings = adapt(folder.settings)
        check_input(folder, spec)
        for name, at in spec.sockets.items():  # what is wrong with it is said now
            driver_command(settings, spec, name, at, python=sys.executable)
        # checkpoints have the name that they had when the run began: an edit of it must not make
        # the run begin anew, over what it has written
        state = resume.state_for(folder.path, folder.ran_spec())
        if state is not None:
            check_edits(folder, spec, state.path, hooks)
            check_models(folder, spec, hooks)
        if longer is not None:  # nothing was wrong: now the file is written
            replace_file(folder.path / INPUT, longer.text())
        folder.settings = settings
        if state is not None and state.step >= spec.total_steps:
            return finished(folder, spec, hooks, state.step)
        check_room(folder.path, limits.free_MB, InputError)
        spec = replace(spec, sockets=placed(spec.sockets, folder.settings))
        for at in spec.sockets.values():
            free_socket(at)
        address = folder.settings.network.address
        if address is not None:
            spec = over_tcp(spec, address)
        with (guarded or _unguarded)(folder, spec) as guard:
            if address is not None:
                announce(folder.path, spec.sockets)
            return Session(folder, spec, hooks, limits, guard).run(state)


def finished(folder: RunFolder, spec: InputSpec, hooks: Hooks, step: int) -> Outcome:
    """Of a run that has nothing left to do."""
    done = f"finished, {step} outer steps ({step * spec.outer_fs / 1000:g} ps)"
    shorter = "" if step == spec.total_steps else f", more than the {spec.total_steps} asked for"
    hooks.say(f"{folder.path}: {done}{shorter}; --time-ps extends it")
    summary = folder.summary()
    if summary is None or summary.get("exit") != "finished":
        summary = write_summary(folder, "finished", step)
    return Outcome(0, "finished", summary)


def _unguarded(folder: RunFolder, spec: InputSpec) -> AbstractContextManager[Guard]:
    return contextlib.nullcontext(NoGuard())


def with_length(folder: RunFolder, spec: InputSpec, time_ps: float) -> InputXML:
    """``input.xml`` with another length, in memory.

    Raises:
        InputError: the time is not positive.
    """
    if not time_ps > 0:
        raise InputError("time_ps", time_ps, "must be positive")
    xml = InputXML((folder.path / INPUT).read_text(), INPUT)
    steps = max(1, math.ceil(round(float(time_ps) * 1000 / spec.outer_fs, 6)))
    if xml.root.find("total_steps") is None:
        xml.add(".", [f"<total_steps>{steps}</total_steps>"])
    xml.set("total_steps", steps)
    return xml


class Session:
    """Makes the processes, has them supervised, and writes down how it ended."""

    def __init__(
        self, folder: RunFolder, spec: InputSpec, hooks: Hooks, limits: Limits, guard: Guard
    ) -> None:
        self.folder, self.spec, self.hooks, self.guard = folder, spec, hooks, guard
        self.logs = folder.path / LOGS
        try:
            self.logs.mkdir(exist_ok=True)
        except OSError as error:
            raise InputError("folder", error.filename, f"{error.strerror}") from error
        self.children = [self._driver(name, at) for name, at in spec.sockets.items()]
        drivers = [Driver(child) for child in self.children]
        self.supervisor = Supervisor(folder, spec, limits, hooks, guard, self._ipi, drivers)

    def run(self, state: resume.State | None, running: Segment | None = None) -> Outcome:
        """Launches, watches, stops, and writes the summary whatever happened.

        Args:
            state: see ``Supervisor.run``.
            running: see ``Supervisor.run``.
        """
        if state is not None and running is None:
            at_ps = state.step * self.spec.outer_fs / 1000
            self.hooks.say(f"resumes at step {state.step} ({at_ps:g} ps)")
        started, clock = time.strftime("%Y-%m-%d %H:%M:%S"), time.monotonic()
        fault: DmtsError | None = None
        number: int | None = None
        with Signals() as signals:
            try:
                number = self.supervisor.run(state, signals, running)
            except DmtsError as error:
                if not self.supervisor.begun:
                    raise
                fault = error
        watch = self.supervisor.watch
        try:
            watch.read()  # what was written since the last look
        except DmtsError as error:
            fault = fault or error
        sound = [s for s in (watch.sound_step, self.supervisor.sound_step) if s is not None]
        if sound:
            resume.discard_after(self.folder.path, self.spec, min(sound))
        exit, status = "finished", 0
        if number is not None:
            exit = self._word(number)
            status = 128 + number
        if fault is not None:
            kind = "stopped" if isinstance(fault, Stop) else "fault"
            exit, status = f"{kind}: {fault}", fault.status
        reached = self._reached()
        more = self.guard.ended(exit, reached)
        self._record(started, time.monotonic() - clock, exit)
        outcome = Outcome(status, exit)
        if fault is not None:
            outcome.tails = {c.name: c.tail() for c in self.children if c.started}
        try:
            outcome.summary = write_summary(self.folder, exit, reached, more)
        except (
            OSError,
            DmtsError,
        ) as error:  # a full disk, a folder that is gone: the fault counts
            self.hooks.say(f"summary.json was not written: {error}")
        return outcome

    def _word(self, number: int) -> str:
        """How a session ended by a signal."""
        return "interrupted" if number == signal.SIGINT else "terminated"

    def _reached(self) -> int:
        """Outer steps done: of the last line, or of the state that i-PI left at its end."""
        states = resume.checkpoints(self.folder.path, self.spec)
        return max([self.supervisor.watch.progress.step, *(s.step for s in states[:1])])

    def _record(self, started: str, wall_s: float, exit: str) -> None:
        p = self.supervisor.watch.progress
        sessions = read_sessions(self.folder.path)
        sessions.append(
            {
                "started": started,
                "host": socket.gethostname(),
                "exit": exit,
                "first_step": self.supervisor.first,
                "last_step": p.step,
                "steady_steps": p.steady_steps,
                "steady_s": round(p.steady_s, 4),
                "wall_s": round(wall_s, 2),
            }
        )
        with contextlib.suppress(OSError):
            write_json(self.folder.path / SESSIONS, sessions)

    def _ipi(self, file: str, single_until: int = 0) -> Child:
        prefix = prefix_of(placed(self.spec.sockets, self.folder.settings))
        options = ["-S", prefix] if prefix else []
        options += ["--single-steps-until", str(single_until)] if single_until else []
        if self.folder.settings.no_patches:
            options += ["--no-patches", self.folder.settings.no_patches]
        child = Child(
            "i-pi",
            [*ipi_command(ours=True), *options, file],  # ours for all: docs/performance.md
            self.logs.resolve() / "i-pi.log",
            self.folder.path.resolve(),
            {"OMP_NUM_THREADS": "1"},
            uses_exit_codes=True,
        )
        self.children = [child, *(c for c in self.children if c.name != "i-pi")]
        return child

    def _driver(self, name: str, at: Socket) -> Child:
        return Child(
            name,
            driver_command(self.folder.settings, self.spec, name, at, python=sys.executable),
            self.logs.resolve() / f"{name}.log",
            self.folder.path.resolve(),
            {"PYTHONUNBUFFERED": "1"},
            uses_exit_codes=not self.folder.settings.models[name].command,
        )


def driver_command(
    settings: RunSettings, spec: InputSpec, name: str, at: Socket, python: str
) -> list[str]:
    """Command line of the driver of a model, from within the run folder.

    Args:
        settings: of ``run.yaml``.
        spec: of ``input.xml``.
        name: of the model.
        at: its socket.
        python: interpreter.

    Raises:
        InputError: the run has no such model.
    """
    model = settings.models.get(name)
    if model is None or not (model.model or model.command):
        raise InputError(
            "run.yaml", name, "input.xml has a socket for it, but run.yaml names no model"
        )
    launch = split(model.launch, f"{name}.launch") if model.launch else []
    if model.command:
        return third_party_command(model.command, launch, at, python)
    accurate = name == spec.reference or (not spec.reference and name == spec.forces[0])
    command = [*launch, python, str(driver_script(accurate)), "--model", model.model]
    command += ["--structure", STRUCTURE]
    if name != (TEACHER if accurate else STUDENT):
        command += ["--name", name]
    if at.mode == "unix":
        command += ["--unix", at.address]
        if prefix := prefix_of({name: at}):
            command += ["--sockets-prefix", prefix]
    elif settings.network.address is not None:
        command += ["--network", NETWORK]
    else:
        command += ["--address", at.address, "--port", str(at.port)]
    command += ["--device", model.device]
    if model.dtype:
        command += ["--dtype", model.dtype]
    if model.threads:
        command += ["--threads", str(model.threads)]
    if spec.ensemble == "npt":
        command += ["--need-virial"]
    if (where := telemetry_setting(settings, name)) != "auto":
        command += ["--telemetry", where]
    if needs_keys(where):
        command += ["--telemetry-keys", f"{NETWORK}/{KEYS}"]
    return command


def needs_keys(telemetry: str) -> bool:
    """Whether other machines can reach a telemetry address."""
    host = telemetry.removeprefix("tcp://").rpartition(":")[0]
    return telemetry.startswith("tcp://") and not is_loopback(host)


def telemetry_setting(settings: RunSettings, name: str) -> str:
    """``--telemetry`` of a driver; off without a watchdog, because nothing would listen."""
    watchdog = settings.watchdog
    return watchdog.telemetry_of.get(name, watchdog.telemetry) if watchdog.enabled else "off"
