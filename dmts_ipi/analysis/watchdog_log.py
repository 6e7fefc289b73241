"""What the watchdog left in a run folder, where there was one: its journal and force differences.

Only the formats of the files are known here, as ``analysis`` imports nothing of ``watchdog``:
``events.jsonl`` (one JSON object a line: time, kind, step, time_ps, text), and the ``watchdog``
part of ``summary.json``, or ``status.json`` while the run goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dmts_ipi.core.files import EVENTS, LIVE, read_lines, read_record
from dmts_ipi.core.levels import STUDENT, TEACHER

MOST_EVENTS = 200


@dataclass(frozen=True)
class JournalEntry:
    """One line of the journal."""

    time: str
    kind: str
    step: int
    time_ps: float
    text: str


@dataclass(frozen=True)
class Differences:
    """Histogram of the force difference of two models on the worst atom of a structure, eV/A.

    ``edges`` (m + 1,), in equal ratios, ``counts`` (m,). ``accurate`` and ``fast`` are the names
    of the two models.
    """

    edges_eV_per_A: np.ndarray
    counts: np.ndarray
    median_eV_per_A: float
    p99_eV_per_A: float
    largest_eV_per_A: float
    accurate: str = TEACHER
    fast: str = STUDENT

    @property
    def frames(self) -> int:
        """Structures compared."""
        return int(self.counts.sum())


def read_events(folder: Path) -> list[JournalEntry]:
    """The newest ``MOST_EVENTS`` lines of the journal; damaged ones are passed over."""
    events = []
    for r in read_lines(folder / EVENTS):
        try:
            events.append(
                JournalEntry(
                    str(r["time"]), str(r["kind"]), int(r["step"]), float(r["time_ps"]), r["text"]
                )
            )
        except (ValueError, KeyError, TypeError):
            continue
    return events[-MOST_EVENTS:]


def read_differences(folder: Path, summary: Mapping[str, Any]) -> Differences | None:
    """The distribution of the outermost level, such as teacher and student; None without one."""
    return next(iter(read_comparisons(folder, summary)), None)


def read_comparisons(folder: Path, summary: Mapping[str, Any]) -> list[Differences]:
    """The distributions of all pairs of models that were compared, outermost level first."""
    record = summary.get("watchdog")
    if not isinstance(record, dict):
        record = read_record(folder / LIVE)
    pairs = record.get("comparisons")
    if not isinstance(pairs, list):  # of a run of an earlier version
        pairs = [{"accurate": TEACHER, "fast": STUDENT, **record}]
    shown = (_differences(pair) for pair in pairs if isinstance(pair, dict))
    return [d for d in shown if d is not None]


def _differences(record: Mapping[str, Any]) -> Differences | None:
    part = record.get("difference_max_eV_per_A")
    if not isinstance(part, dict):
        return None
    try:
        counts = np.asarray(part["bins"], dtype=np.int64)
        low, per_decade = float(part["lowest_edge"]), float(part["bins_per_decade"])
        values = [part.get(k) for k in ("median", "p99", "largest")]
        median, p99, largest = (np.inf if v is None else float(v) for v in values)
        names = str(record["accurate"]), str(record["fast"])
    except (KeyError, TypeError, ValueError):
        return None
    if not counts.sum() or low <= 0 or per_decade <= 0:
        return None
    edges = low * 10 ** (np.arange(len(counts) + 1) / per_decade)
    return Differences(edges, counts, median, p99, largest, *names)
