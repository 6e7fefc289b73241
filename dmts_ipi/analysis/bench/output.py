"""Writes tables as text and CSV, every run as a JSON line, and the plot."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.files import plain, replace_file

from .cell import Result
from .plot import plot
from .stability import NO_RUN
from .tables import Table

RECORDS, TEXT, PLOT = "records.jsonl", "tables.txt", "benchmark.png"


def text_of(tables: Sequence[Table], header: str) -> str:
    """All tables for people, the measured columns divided from the published ones."""
    parts = [header] if header else []
    for t in tables:
        rows = [t.head, *t.rows]
        widths = [max(len(r[k]) for r in rows) for k in range(len(t.head))]
        lines = [f"Table {t.number}. {t.title}"]
        for k, row in enumerate(rows):
            cells = [c.ljust(w) for c, w in zip(row, widths, strict=True)]
            line = "  ".join(cells[: t.ours]) + "  |  " + "  ".join(cells[t.ours :])
            lines.append(line.rstrip(" |"))
            if k == 0:
                lines.append("-" * len(line.rstrip()))
        parts.append("\n".join(lines + t.notes))
    return "\n\n".join(parts) + "\n"


def write(out: Path, results: Sequence[Result], tables: Sequence[Table], header: str) -> list[Path]:
    """Writes everything into the folder of a benchmark. Returns what was written.

    Raises:
        InputError: a file cannot be written.
    """
    files = {out / TEXT: text_of(tables, header)}
    for t in tables:
        files[out / f"table{t.number}.csv"] = csv_of(t)
    records = [r.record() for r in results if r.exit != "pending"]
    files[out / RECORDS] = "".join(json.dumps(plain(r)) + "\n" for r in records)
    path = out
    try:
        for path, text in files.items():
            replace_file(path, text)
        for stale in out.glob("table[1-7].csv"):
            if stale not in files:
                stale.unlink()
        path = out / PLOT
        drawn = plot(path, results)
    except OSError as error:
        raise InputError("out", path, f"cannot be written ({error.strerror})") from error
    return [*files, *([out / PLOT] if drawn else [])]


def csv_of(table: Table) -> str:
    """One table; the columns in brackets are published."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.head)
    writer.writerows(table.rows)
    return out.getvalue()


def summary(results: Sequence[Result]) -> str:
    """One line: how many cells are done, stable, unstable."""
    done = sum(r.done for r in results)
    unstable = [
        r
        for r in results
        if r.exit != "pending" and not r.stability.stable and r.stability != NO_RUN
    ]
    ps = sum(r.ps for r in results if math.isfinite(r.ps))
    return f"{done} of {len(results)} runs done, {ps:.4g} ps in all, {len(unstable)} unstable"
