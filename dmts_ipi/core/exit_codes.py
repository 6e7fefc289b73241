"""Exit statuses of our processes: what a parent process is told, instead of phrases in a log.

``dmts-ipi run`` itself ends with 0, 2, 3, 4, 130 or 143 only. The processes that it starts,
``dmts-ipi i-pi`` and the drivers, also use 5 to 7, which say what kind of fault it was.
"""

from __future__ import annotations

import errno
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit status of a process of ours; ``meaning`` says it in words."""

    OK = 0
    UNEXPECTED = 1  # a Python exception that nobody expected; the log has its traceback
    WRONG_INPUT = 2
    STOPPED = 3
    FAULT = 4
    MODEL_FAILED = 5
    DISK_FULL = 6
    EXCHANGE_BROKEN = 7
    INTERRUPTED = 130
    TERMINATED = 143

    @property
    def meaning(self) -> str:
        """One line for messages and documentation."""
        return _MEANINGS[self]


_MEANINGS = {
    ExitCode.OK: "it finished, or was asked to stop",
    ExitCode.UNEXPECTED: "an unexpected Python exception; the log has its traceback",
    ExitCode.WRONG_INPUT: "wrong input; nothing was written",
    ExitCode.STOPPED: "stopped by a limit or by the file EXIT",
    ExitCode.FAULT: "a fault that needs a person",
    ExitCode.MODEL_FAILED: "a force model failed on a structure: an exception, or forces that "
    "are not finite",
    ExitCode.DISK_FULL: "no space left on a disk",
    ExitCode.EXCHANGE_BROKEN: "a thread of i-PI died, so i-PI could no longer exchange forces "
    "with drivers",
    ExitCode.INTERRUPTED: "interrupted (Ctrl-C)",
    ExitCode.TERMINATED: "ended by SIGTERM",
}


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an exception, or one that caused it, says that a disk or a quota is full."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False
