"""Files that other processes read while they are written: replaced whole, read with tolerance."""

from __future__ import annotations

import contextlib
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

# Records of a run folder that more than one package reads.
EVENTS = "events.jsonl"  # journal of the watchdog: one JSON object a line
LIVE = "status.json"  # what the watchdog says of a run that goes on
SUMMARY = "summary.json"  # what a session left at its end


def replace_file(
    path: Path, content: bytes | str, *, sync: bool = False, mode: int = 0o666
) -> None:
    """Writes a file in one step: a reader, a crash or a full disk sees the old one or the new one.

    Args:
        path: its folder exists.
        content: text is written as UTF-8.
        sync: on the disk before the new one takes the place.
        mode: permissions, less the umask.

    Raises:
        OSError: it cannot be written; the old one is left.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(descriptor, "wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            if sync:
                stream.flush()
                os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, record: Any) -> None:
    """Replaces a JSON file (``replace_file``); NaN and infinity become null.

    Raises:
        OSError: it cannot be written; the old one is left.
    """
    replace_file(path, json.dumps(plain(record), indent=1) + "\n")


def read_record(path: Path) -> dict[str, Any]:
    """A JSON object in a file; empty where there is none or it is damaged."""
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All whole JSON objects of a file with one a line; none where there is no file.

    A damaged line (a power failure) is passed over.
    """
    try:
        raw = path.read_text(errors="replace")
    except OSError:
        return []
    records = []
    for line in raw.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


def plain(value: Any) -> Any:
    """The same as JSON can hold it: arrays as lists, NaN and infinity as null."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
