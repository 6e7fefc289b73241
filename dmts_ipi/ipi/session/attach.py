"""A session that attaches to i-PI and drivers which were started by hand or by a queue."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.supervision import Guard, Segment
from dmts_ipi.ipi.input_xml import InputSpec, Socket, read_checkpoint
from dmts_ipi.ipi.run_folder import outputs
from dmts_ipi.ipi.run_folder.folder import RunFolder
from dmts_ipi.ipi.run_folder.resources import ipi_command

from . import processes, resume
from .attached_process import AttachedProcess, words_of
from .begun import check_edits, check_input, same_physics
from .launch import Child
from .lock import FolderLock
from .session import Outcome, Session, driver_command, finished
from .supervise import Hooks
from .watch import Limits, check_room

LOOK_EVERY_S = 0.2
IPI = "i-pi"


@dataclass(frozen=True)
class AttachedProcesses:
    """The user's options for the processes of a run, by name (``i-pi``, or that of a model).

    Attributes:
        pids: process ids; all other processes are searched for.
        commands: commands that restart a process and run as long as it; for a process without a
            command, a person must do it.
        wait_s: how long i-PI, and drivers whose process is not visible, may be absent.
    """

    pids: dict[str, int] = field(default_factory=dict)
    commands: dict[str, str] = field(default_factory=dict)
    wait_s: float = 60.0


def watch_session(
    folder: RunFolder,
    hooks: Hooks,
    limits: Limits,
    attached: AttachedProcesses,
    guarded: Callable[[RunFolder, InputSpec], AbstractContextManager[Guard]],
) -> Outcome:
    """Watches a run that was started separately, until it finishes, fails or a signal arrives.

    Args:
        folder: the run.
        hooks: see ``Hooks``.
        limits: see ``Limits``.
        attached: see ``AttachedProcesses``.
        guarded: makes the guard.

    Raises:
        InputError: the input is wrong, which is detected at the start.
    """
    if not processes.visible():
        raise InputError("system", sys.platform, "watching needs Linux; use `dmts-ipi run`")
    if (network := folder.settings.network.address) is not None:
        remedy = "its sockets are not those of input.xml; `dmts-ipi run` watches such a run itself"
        raise InputError("run.yaml: network.address", network, remedy)
    with FolderLock(folder.path):
        spec = folder.spec()
        check_input(folder, spec)
        _check(attached, folder, spec)
        check_room(folder.path, limits.free_MB, InputError)
        pid = _wait_for_ipi(folder, spec, attached, hooks)
        state = resume.state_for(folder.path, spec) if pid is None else None
        if pid is None and state is not None and state.step >= spec.total_steps:
            return finished(folder, spec, hooks, state.step)
        if pid is None and state is not None:
            check_edits(folder, spec, state.path, hooks)
        with guarded(folder, spec) as guard:
            session = _AttachedSession(folder, spec, hooks, limits, guard, attached, pid)
            if pid is None:
                return session.run(state)
            return session.run(None, session.take_over(pid))


def _check(attached: AttachedProcesses, folder: RunFolder, spec: InputSpec) -> None:
    """Refuses commands and process ids that cannot be right, before anything is waited for."""
    for name, command in attached.commands.items():
        if name != IPI and name not in folder.settings.models:
            known = ", ".join(folder.settings.models)
            raise InputError(
                "restart_driver", name, f"is not a model of this run; models are {known}"
            )
        words_of(restart_field(name), command, folder.path)
    for name, pid in attached.pids.items():
        if name != IPI and name not in spec.sockets:
            known = ", ".join((IPI, *spec.sockets))
            raise InputError("pid", f"{name}={pid}", f"input.xml has no such socket; give {known}")
        if pid < 1 or processes.ended(pid):
            raise InputError("pid", f"{name}={pid}", "no such process on this machine")


def restart_field(name: str) -> str:
    """Field of ``WatchdogSettings`` that holds the command for a process."""
    return "restart_ipi" if name == IPI else f"restart_driver.{name}"


def _wait_for_ipi(
    folder: RunFolder, spec: InputSpec, attached: AttachedProcesses, hooks: Hooks
) -> int | None:
    """Process id of the run's i-PI; None: it is not there within the limit, and nobody writes.

    Raises:
        InputError: it runs elsewhere.
    """
    deadline, said = time.monotonic() + attached.wait_s, False
    before = _written(folder, spec)
    while True:
        pid = attached.pids.get(IPI) or processes.find_ipi(folder.path, spec.sockets)
        if pid is not None:
            where = processes.folder_of(pid)
            if where != folder.path.resolve():
                raise InputError("i-pi", f"process {pid}", f"runs in {where}, not in this folder")
            return pid
        states = resume.checkpoints(folder.path, spec)
        if states and states[0].step >= spec.total_steps:
            return None
        if time.monotonic() >= deadline:
            break
        if not said:
            hooks.say(f"waits at most {attached.wait_s:g} s for i-PI in {folder.path}")
            said = True
        time.sleep(LOOK_EVERY_S)
    if _written(folder, spec) != before:
        raise InputError(
            "i-pi",
            f"not on {socket.gethostname()}",
            "but md.properties grows: start the watchdog on the machine that runs i-PI",
        )
    return None


def _written(folder: RunFolder, spec: InputSpec) -> list[tuple[int, int]]:
    """Size and time of every output."""
    sizes_and_times = []
    for path in resume.output_files(folder.path, spec):
        if path.exists():
            sizes_and_times.append((path.stat().st_size, path.stat().st_mtime_ns))
    return sizes_and_times


class _AttachedSession(Session):
    """A session whose processes were not started by us; see ``AttachedProcess``."""

    def __init__(
        self,
        folder: RunFolder,
        spec: InputSpec,
        hooks: Hooks,
        limits: Limits,
        guard: Guard,
        attached: AttachedProcesses,
        pid: int | None,
    ) -> None:
        self.attached, self._pid = attached, pid
        super().__init__(folder, spec, hooks, limits, guard)
        self.supervisor.attached(attached.wait_s)

    def take_over(self, pid: int) -> Segment:
        """Makes an i-PI that runs the supervisor's; returns what it does."""
        path, input_file = self.folder.path, processes.input_of(pid)
        segment = Segment(False, self.spec.total_steps)
        if input_file is not None:
            running = read_checkpoint(input_file)
            same_physics(self.spec, running)
            single = resume.single_step_weights(resume.read_weights(path))
            weights = resume.weights_of(input_file)
            segment = Segment(
                weights == single != resume.read_weights(path),
                min(running.total_steps, self.spec.total_steps),
            )
        steps = [outputs.last_step(file) for file in resume.output_files(path, self.spec)]
        step = max([s for s in steps if s is not None], default=0)
        ipi = self._ipi(input_file.name if input_file else "")
        self.supervisor.attach(ipi.adopt(pid), step)
        self.hooks.say(f"takes over i-PI (process {pid}) at step {step}")
        for child in self.children[1:]:
            where = "not seen here yet" if child.unseen else f"process {child.pid}"
            self.hooks.say(f"{child.name}: {where}")
        return segment

    def _word(self, number: int) -> str:
        pid = self.supervisor.ipi_pid
        goes_on = f"; i-PI (process {pid}) goes on" if pid else ""
        return f"unwatched since {signal.Signals(number).name}{goes_on}"

    def _ipi(self, file: str, single_until: int = 0) -> AttachedProcess:
        command = self.attached.commands.get(IPI)
        script = self.folder.path / "start_ipi.sh"
        words = ["./start_ipi.sh"] if script.is_file() else ipi_command(self.spec.ours)
        child = AttachedProcess(
            IPI,
            words_of(restart_field(IPI), command, self.folder.path, file) if command else [],
            self.logs.resolve() / "i-pi.log",
            self.folder.path.resolve(),
            {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
            by_hand=self._typed([*words, file]),
        )
        self.children = [child, *(c for c in self.children if c.name != IPI)]
        return child

    def _driver(self, name: str, at: Socket) -> Child:
        command = self.attached.commands.get(name)
        script = self.folder.path / f"start_{name}.sh"
        if script.is_file() or name not in self.folder.settings.models:
            words = [f"./start_{name}.sh"]
        else:
            words = driver_command(self.folder.settings, self.spec, name, at, python=sys.executable)
        child = AttachedProcess(
            name,
            words_of(restart_field(name), command, self.folder.path) if command else [],
            self.logs.resolve() / f"{name}.log",
            self.folder.path.resolve(),
            {"PYTHONUNBUFFERED": "1"},
            by_hand=self._typed(words),
            find=partial(processes.find_driver, at, self._pid),
        )
        pid = self.attached.pids.get(name) or processes.find_driver(at, self._pid)
        return child if pid is None else child.adopt(pid)

    def _typed(self, words: list[str]) -> str:
        folder = shlex.quote(str(self.folder.path.resolve()))
        again = f"`dmts-ipi watchdog {shlex.quote(str(self.folder.path))}`"
        return f"type `cd {folder} && {shlex.join(words)}`, then {again} again"
