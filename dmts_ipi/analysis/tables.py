"""The figures and tables of a report as CSV, one file for each, in a folder beside the page."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence

import numpy as np

from .comparison import Comparison
from .json_report import series
from .measure import Measured
from .observables import observables
from .observables.base import Table, curve


def csv_files(
    measured: Sequence[Measured], comparisons: Sequence[Comparison]
) -> Iterator[tuple[str, str]]:
    """Yields (file name, text). Units are in the column names; an empty cell is no figure."""
    for name, head, rows in _tables(measured, comparisons):
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(head)
        writer.writerows([[_cell(v) for v in row] for row in rows])
        yield f"{name}.csv", out.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, float | np.floating):
        return f"{float(value):.8g}" if math.isfinite(value) else ""
    return value


def _tables(measured: Sequence[Measured], comparisons: Sequence[Comparison]) -> Iterator[Table]:
    yield (
        "verdicts",
        ["run", "observable", "value", "stderr", "unit", "against", "expected", "difference",
         "difference_stderr", "difference_unit", "verdict", "why", "times_longer"],
        [
            [c.run, c.observable, c.value, c.stderr, c.value_unit, c.against, c.expected,
             c.difference, c.difference_stderr, c.unit, c.verdict.status, c.verdict.text,
             c.verdict.longer]
            for c in comparisons
        ],
    )  # fmt: skip
    for o in observables():
        yield from o.tables(measured)
    for m in measured:
        yield curve(f"{m.run.file_name}-series", series(m))
