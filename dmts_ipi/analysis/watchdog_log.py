"""What the watchdog left in a run folder, where there was one: events and force differences.

Read by their format only, as ``analysis`` imports nothing of ``watchdog``: ``events.jsonl`` (one
JSON object a line: time, kind, step, time_ps, text), and the ``watchdog`` part of ``summary.json``,
or ``status.json`` while the run goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dmts_ipi.core.files import EVENTS, LIVE, read_lines, read_record

MOST_EVENTS = 200


@dataclass(frozen=True)
class Event:
    """One line of the journal."""

    time: str
    kind: str
    step: int
    time_ps: float
    text: str


@dataclass(frozen=True)
class Differences:
    """Histogram of |teacher - student| of the worst atom of a frame, eV/A.

    ``edges`` (m + 1,), in equal ratios, ``counts`` (m,).
    """

    edges_eV_per_A: np.ndarray
    counts: np.ndarray
    median_eV_per_A: float
    p99_eV_per_A: float
    largest_eV_per_A: float

    @property
    def frames(self) -> int:
        """Frames compared."""
        return int(self.counts.sum())


def read_events(folder: Path) -> list[Event]:
    """The journal's whole lines, the newest ``MOST_EVENTS``; others are passed over."""
    found = []
    for r in read_lines(folder / EVENTS):
        try:
            found.append(
                Event(
                    str(r["time"]), str(r["kind"]), int(r["step"]), float(r["time_ps"]), r["text"]
                )
            )
        except (ValueError, KeyError, TypeError):
            continue
    return found[-MOST_EVENTS:]


def read_differences(folder: Path, summary: dict[str, Any]) -> Differences | None:
    """The watchdog's distribution of the difference of the worst atom; None without one."""
    record = summary.get("watchdog")
    if not isinstance(record, dict):
        record = read_record(folder / LIVE)
    part = record.get("difference_max_eV_per_A")
    if not isinstance(part, dict):
        return None
    try:
        counts = np.asarray(part["bins"], dtype=np.int64)
        low, per_decade = float(part["lowest_edge"]), float(part["bins_per_decade"])
        values = [part.get(k) for k in ("median", "p99", "largest")]
        median, p99, largest = (np.inf if v is None else float(v) for v in values)
    except (KeyError, TypeError, ValueError):
        return None
    if not counts.sum() or low <= 0 or per_decade <= 0:
        return None
    edges = low * 10 ** (np.arange(len(counts) + 1) / per_decade)
    return Differences(edges, counts, median, p99, largest)
