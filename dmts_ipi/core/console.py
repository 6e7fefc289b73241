"""Standard error and standard output of a command: what our library logs, and what is a result."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import Any


class _ToStderr(logging.Handler):
    """Prints messages as they are; the stream is looked up at each, since tests replace it."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


def log_to_stderr() -> None:
    """Lets the messages of ``dmts_ipi``'s loggers appear on standard error, once a process."""
    logger = logging.getLogger("dmts_ipi")
    if not any(isinstance(h, _ToStderr) for h in logger.handlers):
        logger.addHandler(_ToStderr())
        logger.setLevel(logging.INFO)


def reserve_stdout() -> None:
    """Keeps standard output for the result: what compiled code prints goes to standard error.

    Calculators in Fortran or C write to the file descriptor, past Python. Ours stays
    ``sys.stdout``, on a descriptor of its own. Nothing is done where ``sys.stdout`` has been
    replaced, as by a test.
    """
    stream: Any = sys.stdout
    original: Any = sys.__stdout__
    if stream is not original:
        return
    with contextlib.suppress(OSError, ValueError):
        if stream.fileno() != 1:
            return
        stream.flush()
        ours = os.dup(1)
        os.dup2(2, 1)
        sys.stdout = os.fdopen(ours, "w", encoding=stream.encoding, errors=stream.errors)
