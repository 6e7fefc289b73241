"""Records of the watchdog in the run folder: ``events.jsonl`` and ``watchdog.json``."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

from dmts_ipi.core.files import EVENTS, plain, read_lines, write_json

MEMORY = "watchdog.json"


class Journal:
    """``events.jsonl``: one JSON object a line, append-only, on disk before the call returns."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / EVENTS

    def write(self, kind: str, step: int, time_ps: float, text: str, **more: Any) -> None:
        """Adds a line. A full disk loses the line, never the run."""
        record = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "time_unix_s": round(time.time(), 3),
            "kind": kind,
            "step": step,
            "time_ps": round(time_ps, 6),
            "text": text,
            **more,
        }
        line = (json.dumps(plain(record)) + "\n").encode()
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError:
            return
        try:
            os.write(descriptor, line)
            os.fsync(descriptor)
        except OSError:
            pass
        finally:
            os.close(descriptor)


def read_events(folder: Path) -> list[dict[str, Any]]:
    """All whole lines of the journal."""
    return read_lines(folder / EVENTS)


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Replaces a JSON file in one step; a full disk leaves the old one, and never ends a run."""
    with contextlib.suppress(OSError):
        write_json(path, record)
