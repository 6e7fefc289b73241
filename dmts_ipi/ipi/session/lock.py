"""One run per folder: a lock that the kernel drops with the process that holds it."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from pathlib import Path
from types import TracebackType

from dmts_ipi.core.errors import InputError

LOCK = "run.lock"
LOOK_S = 0.3


class FolderLock:
    """Holds a folder while a run is alive. Use as a context manager.

    The file says who holds it (``pid``, ``host``, ``started``); what counts is ``flock``, so the
    file of a process that was killed locks nothing and is simply taken over.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        self._descriptor: int | None = None

    def __enter__(self) -> FolderLock:
        """Takes the lock.

        Raises:
            InputError: another run holds it, or the folder cannot be written or locked.
        """
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise InputError("folder", self.path.parent, f"{error.strerror}") from error
        try:
            _flock(descriptor)
        except BlockingIOError as error:
            holder = os.read(descriptor, 1000)
            os.close(descriptor)
            raise InputError(
                "folder",
                self.path.parent,
                f"a run is in progress in it ({_who(holder)}); wait for it or stop it",
            ) from error
        except OSError as error:
            os.close(descriptor)
            raise InputError(
                "folder",
                self.path.parent,
                f"its file system does not support locks ({error.strerror})",
            ) from error
        record = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(record).encode(), 0)
        self._descriptor = descriptor
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Drops the lock; the empty file stays, because removing it would race with a newcomer."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None


def _flock(descriptor: int) -> None:
    """Locks; waits a moment for `dmts-ipi status`, which holds a lock while it looks.

    Raises:
        BlockingIOError: somebody holds it for longer.
    """
    deadline = time.monotonic() + LOOK_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _who(raw: bytes) -> str:
    try:
        record = json.loads(raw)
        return f"process {record['pid']} on {record['host']} since {record['started']}"
    except (ValueError, KeyError, TypeError):
        return "by another process"
