"""Records what a process does when, for ``dmts-ipi profile``. Nothing is recorded unless asked.

Times are of the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .files import replace_file

PROFILE = "DMTS_PROFILE"  # environment: a folder, where each process leaves its file
MAX_SPANS = 2_000_000


class Recorder:
    """Spans of one process: name, begin and end in s, in the order in which they ended.

    Args:
        process: what this process is called, ``i-pi``, ``teacher`` or ``student``.
        folder: where ``write`` puts ``PROCESS-PID.json``.
    """

    def __init__(self, process: str, folder: Path) -> None:
        self.process, self.folder = process, folder
        self.spans: list[tuple[str, float, float]] = []
        self._writing = threading.Lock()

    def wrap(self, owner: Any, attribute: str, name: str) -> None:
        """Records the calls of a method or function that ``owner`` looks up when it is called.

        Args:
            owner: a class, an object or a module.
            attribute: of the owner.
            name: of the spans.
        """
        setattr(owner, attribute, self.recorded(getattr(owner, attribute), name))

    def recorded(self, plain: Callable[..., Any], name: str) -> Callable[..., Any]:
        """The same function, its calls recorded."""
        spans, clock = self.spans, time.monotonic

        @functools.wraps(plain)
        def timed(*args: Any, **named: Any) -> Any:
            start = clock()
            try:
                return plain(*args, **named)
            finally:
                if len(spans) < MAX_SPANS:
                    spans.append((name, start, clock()))

        return timed

    def write(self) -> None:
        """Writes the file, whole. Never raises: a profile is no reason to end a run.

        Two threads may come at once, one of which ends the process: it waits for the other.
        """
        record = {"process": self.process, "pid": os.getpid(), "spans": list(self.spans)}
        file = self.folder / f"{self.process}-{os.getpid()}.json"
        with self._writing, contextlib.suppress(OSError):
            replace_file(file, json.dumps(record))


def recorder(process: str) -> Recorder | None:
    """The recorder of this process; None where nobody asked for a profile."""
    folder = os.environ.get(PROFILE)
    return Recorder(process, Path(folder)) if folder else None
