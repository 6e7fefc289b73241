"""Processes that we did not start: watched and ended by their id, restarted by a command."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from dmts_ipi.core.errors import InputError, RunFault

from . import processes
from .launch import Child
from .third_party_driver import split

UNKNOWN = 1000  # exit status of a process that is not a child of ours
SEEK_EVERY_S = 2.0
INPUT_WORD = "{input}"


class NeedsPerson(RunFault):
    """Only a person can continue; the message says how. i-PI and drivers keep running."""


@dataclass
class AttachedProcess(Child):
    """A process that we did not start, until it ends; ``start`` makes a child of ours of it.

    Args:
        command: starts it again; empty: nobody but a person may.
        by_hand: what a person has to type.
        find: looks for its process; None: it is not seen here (not started yet, or on another
            machine).
    """

    by_hand: str = ""
    find: Callable[[], int | None] = lambda: None
    lasting: bool = True
    _attached_pid: int | None = None
    _identity: psutil.Process | None = None  # with the time of its creation; None: it has ended
    _gone: bool = False
    _our_log: Path | None = None  # what we start writes there
    _sought: float = field(default=float("-inf"))

    def adopt(self, pid: int) -> AttachedProcess:
        """Watches a process from now on."""
        self.close()
        self._attached_pid, self._identity, self._process = pid, None, None
        with contextlib.suppress(psutil.NoSuchProcess):
            self._identity = psutil.Process(pid)
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                self._pidfd = os.pidfd_open(pid)
        # after the handle was opened: now it is certain to be the handle of this process
        self._gone = self._identity is None or processes.ended(self._identity)
        if (log := processes.log_of(pid)) is not None:
            self._our_log = self._our_log or self.log
            self.log, self._log_start = log, log.stat().st_size
        return self

    def start(self) -> Child:
        """Starts it by its command.

        Raises:
            NeedsPerson: there is none.
            InputError: it cannot be started.
        """
        if self.remedy:
            raise NeedsPerson(f"{self.name} must be started; {self.remedy}")
        self._attached_pid, self._identity = None, None
        self.log = self._our_log or self.log
        return super().start()

    @property
    def remedy(self) -> str:
        return "" if self.command else f"no command of ours starts it: {self.by_hand}"

    @property
    def started(self) -> bool:
        return True

    @property
    def unseen(self) -> bool:
        return self._process is None and self._attached_pid is None

    @property
    def pid(self) -> int:
        return self._attached_pid if self._attached_pid is not None else super().pid

    @property
    def status(self) -> int | None:
        if self._process is not None:
            return super().status
        if self._attached_pid is None:
            self._seek()
            return None
        if not self._gone:
            self._gone = self._ended(0.0)
        return UNKNOWN if self._gone else None

    def _seek(self) -> None:
        now = time.monotonic()
        if now - self._sought < SEEK_EVERY_S:
            return
        self._sought = now
        pid = self.find()
        if pid is not None and not processes.ended(pid):
            self.adopt(pid)

    def _ended(self, limit_s: float) -> bool:
        """Whether the attached process ends within a limit."""
        if self._pidfd is not None:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            return bool(poll.poll(1000 * limit_s))
        deadline = time.monotonic() + limit_s
        while self._identity is not None and not processes.ended(self._identity):
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
        return True

    def signal(self, number: int) -> None:
        if self._process is not None:
            super().signal(number)
        elif self._attached_pid is not None and self.status is None:
            # it may have ended, or belong to another user: ``wait`` shows whether it ends
            with contextlib.suppress(OSError, psutil.Error):
                if self._pidfd is not None:
                    signal.pidfd_send_signal(self._pidfd, signal.Signals(number))
                elif self._identity is not None:
                    self._identity.send_signal(number)  # not to another one that got its id

    def wait(self, limit_s: float) -> bool:
        if self._process is not None or self._attached_pid is None:
            return super().wait(limit_s)
        self._gone = self._gone or self._ended(max(limit_s, 0.0))
        return self._gone

    def tail(self, lines: int = 12) -> list[str]:
        return [] if self.unseen else super().tail(lines)


def words_of(field_name: str, command: str, folder: Path, file: str = "") -> list[str]:
    """A restart command as words.

    Args:
        field_name: its option, for error messages.
        command: as the user wrote it; ``{input}`` stands for ``file``, which comes last otherwise.
        folder: of the run, where it is started.
        file: i-PI's input or checkpoint; empty: none is added.

    Raises:
        InputError: it is empty, has an open quote, or there is no such program.
    """
    words = split(command, field_name)
    program = folder / words[0] if "/" in words[0] else Path(words[0])
    if shutil.which(str(program)) is None:
        raise InputError(field_name, words[0], "no such program (commands run in the run folder)")
    if not file:
        return words
    if any(INPUT_WORD in word for word in words):
        return [word.replace(INPUT_WORD, file) for word in words]
    return [*words, file]
