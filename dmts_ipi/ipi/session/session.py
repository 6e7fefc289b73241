"""One session of a run: resume or start, launch, watch, stop, sum up."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

from ase.data import chemical_symbols

from dmts_ipi.core.errors import DmtsError, InputError
from dmts_ipi.core.files import replace_file, write_json
from dmts_ipi.core.private import is_loopback
from dmts_ipi.core.supervision import Guard, NoGuard, Segment, Stop
from dmts_ipi.ipi.client.network import KEYS, NETWORK, announce, over_tcp
from dmts_ipi.ipi.input_xml import InputFacts, Socket, read_checkpoint
from dmts_ipi.ipi.run_folder.folder import INPUT, LOGS, STRUCTURE, RunConfig, RunFolder
from dmts_ipi.ipi.run_folder.render import Template
from dmts_ipi.ipi.run_folder.resources import driver_script, ipi_command
from dmts_ipi.ipi.run_folder.summary import SESSIONS, read_sessions, write_summary

from . import resume
from .launch import Child, Signals
from .lock import FolderLock
from .socket_file import free_socket, placed, prefix_of
from .supervise import Driver, Hooks, Supervisor
from .third_party_driver import foreign_command, split
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
    guarded: Callable[[RunFolder, InputFacts], AbstractContextManager[Guard]] | None = None,
    adapt: Callable[[RunConfig], RunConfig] = lambda config: config,
) -> Outcome:
    """Runs a folder until it is finished, stopped or at fault.

    Args:
        folder: the run.
        hooks: see ``Hooks``.
        limits: see ``Limits``.
        time_ps: new length of the run, to extend it.
        guarded: makes the guard of a run that is about to start; None: what goes wrong ends it.
        adapt: what is different in this session only, such as how drivers are launched.

    Raises:
        InputError: something is wrong that shows before anything is started.
    """
    with FolderLock(folder.path):
        facts = folder.facts()
        facts.check_labels(chemical_symbols[z] for z in folder.structure().numbers)
        if time_ps is not None:
            _set_length(folder, facts, time_ps)
            facts = folder.facts()
        follow_input(folder, facts, hooks)
        folder.config = adapt(folder.config)
        for name, at in facts.sockets.items():  # what is wrong with it is said now
            driver_command(folder.config, name, at, python=sys.executable)
        state = resume.state_for(folder.path, facts)
        if state is not None:
            same_physics(facts, read_checkpoint(state.path))
        if state is not None and state.step >= facts.total_steps:
            return finished(folder, facts, hooks, state.step)
        check_room(folder.path, limits.free_MB, InputError)
        facts = replace(facts, sockets=placed(facts.sockets, folder.config))
        for at in facts.sockets.values():
            free_socket(at)
        address = folder.config.network.address
        if address is not None:
            facts = over_tcp(facts, address)
        with (guarded or _unguarded)(folder, facts) as guard:
            if address is not None:
                announce(folder.path, facts.sockets)
            return Session(folder, facts, hooks, limits, guard).run(state)


def finished(folder: RunFolder, facts: InputFacts, hooks: Hooks, step: int) -> Outcome:
    """Of a run that has nothing left to do."""
    hooks.say(
        f"{folder.path}: finished, {facts.total_steps} outer steps "
        f"({folder.config.time_ps:g} ps); --time-ps extends it"
    )
    summary = folder.summary()
    if summary is None or summary.get("exit") != "finished":
        summary = write_summary(folder, "finished", step)
    return Outcome(0, "finished", summary)


def _unguarded(folder: RunFolder, facts: InputFacts) -> AbstractContextManager[Guard]:
    return contextlib.nullcontext(NoGuard())


def _set_length(folder: RunFolder, facts: InputFacts, time_ps: float) -> None:
    """Writes a new length into ``input.xml`` and ``run.yaml``."""
    if not time_ps > 0:
        raise InputError("time_ps", time_ps, "must be positive")
    config = folder.config.model_copy(update={"time_ps": float(time_ps)})
    file = folder.path / INPUT
    template = Template(file.read_text(), INPUT)
    template.set("total_steps", config.total_steps)
    replace_file(file, template.text())
    folder.write_config(config)


def follow_input(folder: RunFolder, facts: InputFacts, hooks: Hooks) -> None:
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


def same_physics(facts: InputFacts, begun: InputFacts) -> None:
    """Refuses to resume with other settings than the run was started with."""
    for name, now, before in (
        ("ensemble", facts.ensemble, begun.ensemble),
        ("splitting", facts.splitting, begun.splitting),
        ("timestep", f"{facts.outer_step_fs:.6g} fs", f"{begun.outer_step_fs:.6g} fs"),
        ("nmts", facts.n_inner, begun.n_inner),
        ("temperature", f"{facts.temperature_K or 0:.6g}", f"{begun.temperature_K or 0:.6g}"),
        ("output", _names(facts), _names(begun)),
        ("ffsocket", sorted(facts.sockets), sorted(begun.sockets)),  # where they are may change
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


class Session:
    """Makes the processes, has them supervised, and writes down how it ended."""

    def __init__(
        self, folder: RunFolder, facts: InputFacts, hooks: Hooks, limits: Limits, guard: Guard
    ) -> None:
        self.folder, self.facts, self.hooks, self.guard = folder, facts, hooks, guard
        self.logs = folder.path / LOGS
        try:
            self.logs.mkdir(exist_ok=True)
        except OSError as error:
            raise InputError("folder", error.filename, f"{error.strerror}") from error
        self.children = [self._driver(name, at) for name, at in facts.sockets.items()]
        drivers = [Driver(child) for child in self.children]
        self.supervisor = Supervisor(folder, facts, limits, hooks, guard, self._ipi, drivers)

    def run(self, state: resume.State | None, found: Segment | None = None) -> Outcome:
        """Launches, watches, stops, and writes the summary whatever happened.

        Args:
            state: see ``Supervisor.run``.
            found: see ``Supervisor.run``.
        """
        if state is not None and found is None:
            at_ps = state.step * self.facts.outer_step_fs / 1000
            self.hooks.say(f"resumes at step {state.step} ({at_ps:g} ps)")
        started, clock = time.strftime("%Y-%m-%d %H:%M:%S"), time.monotonic()
        fault: DmtsError | None = None
        number: int | None = None
        with Signals() as signals:
            try:
                number = self.supervisor.run(state, signals, found)
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
            resume.discard_after(self.folder.path, self.facts, min(sound))
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
        states = resume.checkpoints(self.folder.path, self.facts)
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
        prefix = prefix_of(placed(self.facts.sockets, self.folder.config))
        options = ["-S", prefix] if prefix else []
        options += ["--single-steps-until", str(single_until)] if single_until else []
        child = Child(
            "i-pi",
            [*ipi_command(ours=True), *options, file],  # ours for all: docs/performance.md
            self.logs.resolve() / "i-pi.log",
            self.folder.path.resolve(),
            {"OMP_NUM_THREADS": "1"},
        )
        self.children = [child, *(c for c in self.children if c.name != "i-pi")]
        return child

    def _driver(self, name: str, at: Socket) -> Child:
        return Child(
            name,
            driver_command(self.folder.config, name, at, python=sys.executable),
            self.logs.resolve() / f"{name}.log",
            self.folder.path.resolve(),
            {"PYTHONUNBUFFERED": "1"},
        )


def driver_command(config: RunConfig, name: str, at: Socket, python: str) -> list[str]:
    """Command line of the driver of a forcefield, from within the run folder.

    Raises:
        InputError: the run has no such model.
    """
    settings = config.models().get(name)
    if settings is None:
        raise InputError("run.yaml", name, "input.xml has a socket for it, but no model is named")
    launch = split(settings.launch, f"{name}.launch") if settings.launch else []
    if settings.command:
        return foreign_command(settings.command, launch, at, python)
    command = [*launch, python, str(driver_script(name)), "--model", settings.model]
    command += ["--structure", STRUCTURE]
    if at.mode == "unix":
        command += ["--unix", at.address]
        if prefix := prefix_of({name: at}):
            command += ["--sockets-prefix", prefix]
    elif config.network.address is not None:
        command += ["--network", NETWORK]
    else:
        command += ["--address", at.address, "--port", str(at.port)]
    command += ["--device", settings.device]
    if settings.dtype:
        command += ["--dtype", settings.dtype]
    if settings.threads:
        command += ["--threads", str(settings.threads)]
    if config.ensemble == "npt":
        command += ["--need-virial"]
    if (where := telemetry_setting(config, name)) != "auto":
        command += ["--telemetry", where]
    if needs_keys(where):
        command += ["--telemetry-keys", f"{NETWORK}/{KEYS}"]
    return command


def needs_keys(telemetry: str) -> bool:
    """Whether others can reach a telemetry address."""
    host = telemetry.removeprefix("tcp://").rpartition(":")[0]
    return telemetry.startswith("tcp://") and not is_loopback(host)


def telemetry_setting(config: RunConfig, name: str) -> str:
    """``--telemetry`` of a driver: nobody listens where the watchdog is off."""
    settings = config.watchdog
    own = {"teacher": settings.teacher_telemetry, "student": settings.student_telemetry}[name]
    return (own or settings.telemetry) if settings.enabled else "off"
