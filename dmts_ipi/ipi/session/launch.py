"""Processes of a run: started, watched, stopped; none outlives the one that started it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dmts_ipi.core.errors import InputError, RunFault

PR_SET_PDEATHSIG = 1


def _die_with_parent() -> Callable[[], None] | None:
    """What a child does before exec: ask the kernel to be killed when its parent dies (Linux)."""
    if not sys.platform.startswith("linux"):
        return None
    prctl, parent = ctypes.CDLL(None, use_errno=True).prctl, os.getpid()

    def before_exec() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the request
            os._exit(1)

    return before_exec


@dataclass
class Child:
    """A process in a session of its own, so that Ctrl-C in the terminal reaches only us."""

    name: str
    command: Sequence[str]
    log: Path
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    lasting: bool = False  # it outlives us
    uses_exit_codes: bool = False  # a program of ours: its exit status is an ``ExitCode``
    _process: subprocess.Popen[bytes] | None = None
    _pidfd: int | None = None
    _log_start: int = 0

    def start(self) -> Child:
        """Starts it, its output appended to the log. Call from the main thread only: the kernel
        counts the end of the starting thread as the death of the parent.

        Raises:
            InputError: the program or the log cannot be opened.
        """
        self.close()  # of an earlier start
        try:
            with open(self.log, "ab") as log:
                self._log_start = log.tell()
                self._process = subprocess.Popen(
                    list(self.command),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=self.folder,
                    env={**os.environ, **self.environment},
                    start_new_session=True,
                    preexec_fn=None if self.lasting else _die_with_parent(),
                )
        except OSError as error:
            raise InputError(self.name, error.filename or self.log, f"{error.strerror}") from error
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                self._pidfd = os.pidfd_open(self._process.pid)
        return self

    @property
    def remedy(self) -> str:
        """What a person must do where we may not start it; empty where we may."""
        return ""

    @property
    def unseen(self) -> bool:
        """Whether it may run where we cannot see it, such as on another machine."""
        return False

    @property
    def ours(self) -> bool:
        """Whether it is a process that we started."""
        return self._process is not None

    @property
    def started(self) -> bool:
        """Whether ``start`` was called."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """Process id."""
        if self._process is None:
            raise RunFault(f"{self.name} was not started")
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Exit status (negative: killed by that signal); None while it is alive."""
        return None if self._process is None else self._process.poll()

    def signal(self, number: int) -> None:
        """Sends a signal to the process and what it started; a dead one is left alone."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def wait(self, limit_s: float) -> bool:
        """Waits for its end; returns whether it came within the limit."""
        if self._process is None:
            return True
        try:
            self._process.wait(max(limit_s, 0.0))
        except subprocess.TimeoutExpired:
            return False
        return True

    def close(self) -> None:
        """Releases the handle that ``wait_any`` uses."""
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def tail(self, lines: int = 12) -> list[str]:
        """The last lines that it logged since this start."""
        try:
            with open(self.log, "rb") as stream:
                end = stream.seek(0, os.SEEK_END)
                stream.seek(max(self._log_start, end - 16384))
                text = stream.read().decode("utf-8", "replace")
        except OSError:
            return []
        return [line for line in text.splitlines() if line.strip()][-lines:]

    def logged(self, *phrases: str) -> bool:
        """Whether the end of its log since this start contains one of some phrases."""
        return any(phrase in line for line in self.tail(60) for phrase in phrases)


def stop(children: Sequence[Child], limit_s: float) -> None:
    """SIGTERM to all, then, after the limit, SIGKILL to what is left. Never raises."""
    for child in children:
        child.signal(signal.SIGTERM)
    deadline = time.monotonic() + limit_s
    for child in children:
        if not child.wait(deadline - time.monotonic()):
            child.signal(signal.SIGKILL)
    for child in children:
        child.wait(5.0)
        child.close()


class Signals:
    """Turns SIGINT and SIGTERM into ``number``, and wakes ``wait_any``. A context manager."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before: dict[int, object] = {}

    def __enter__(self) -> Signals:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        return self

    def _handle(self, number: int, frame: object) -> None:
        self.number = number

    def __exit__(self, *unused: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        os.close(self.read)
        os.close(self._write)


def wait_any(
    children: Sequence[Child], signals: Signals, limit_s: float, alarm: int | None = None
) -> None:
    """Returns when a child ends, a signal comes, an alarm can be read, or the limit is over."""
    poll = select.poll()
    poll.register(signals.read, select.POLLIN)
    if alarm is not None:
        poll.register(alarm, select.POLLIN)
    for child in children:
        if child._pidfd is not None:
            poll.register(child._pidfd, select.POLLIN)
        else:  # no pidfd (macOS, old kernels): look more often
            limit_s = min(limit_s, 0.2)
    for descriptor, _ in poll.poll(max(limit_s, 0.0) * 1000):
        if descriptor in (signals.read, alarm):
            with contextlib.suppress(BlockingIOError):
                os.read(descriptor, 64)
