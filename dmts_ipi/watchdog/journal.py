"""What a run remembers of itself: ``events.jsonl`` and ``watchdog.json``."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any

EVENTS, MEMORY, LIVE = "events.jsonl", "watchdog.json", "status.json"


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
    """All whole lines of the journal; a damaged one (a power failure) is passed over."""
    try:
        raw = (folder / EVENTS).read_text(errors="replace")
    except OSError:
        return []
    found = []
    for line in raw.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            found.append(record)
    return found


def read_record(path: Path) -> dict[str, Any]:
    """A JSON object in a file; empty where there is none or it is damaged."""
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Replaces a JSON file in one step; a full disk leaves the old one."""
    temporary = path.with_name(path.name + ".new")
    try:
        temporary.write_text(json.dumps(plain(record), indent=1) + "\n")
        temporary.replace(path)
    except OSError:
        return


def plain(value: Any) -> Any:
    """The same with NaN and infinity as null."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
