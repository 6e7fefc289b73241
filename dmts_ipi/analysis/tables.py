"""The figures and tables of a report as CSV, one file for each, in a folder beside the page."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence

import numpy as np

from .compare import Comparison
from .measure import Measured

Table = tuple[str, list[str], list[list[object]]]


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
    yield (
        "temperatures",
        ["run", "of", "mean_K", "stderr_K", "expected_K"],
        [
            [m.run.name, name, e.mean, e.stderr, m.expected[name]]
            for m in measured
            for name, e in m.kinetic.items()
        ],
    )
    yield "diffusion", [
        "run", "kind", "D_A2_per_ps", "stderr_A2_per_ps", "exponent",
        "finite_size_correction_at_1_mPa_s_A2_per_ps",
    ], [
        [m.run.name, d.kind, d.D_A2_per_ps.mean, d.D_A2_per_ps.stderr, d.exponent,
         d.correction_A2_per_ps]
        for m in measured
        for d in m.diffusion
    ]  # fmt: skip
    for m in measured:
        yield from _curves(m)


def _curves(m: Measured) -> Iterator[Table]:
    """Series and functions of one run."""
    name = "".join(ch if ch.isalnum() or ch in "-_." else "_" for ch in m.run.name)
    yield _columns(
        f"{name}-series",
        time_ps=m.time_ps,
        temperature_K=m.temperature_K,
        potential_meV_per_atom=m.potential_meV,
        conserved_meV_per_atom=m.conserved_meV,
    )
    for p in m.distributions:
        yield _columns(f"{name}-rdf-{p.pair}", r_A=p.r_A, g=p.g, stderr=p.stderr)
    for s in m.spectra:
        yield _columns(
            f"{name}-spectrum-{s.element}",
            frequency_THz=s.frequency_THz,
            density_K_per_THz=s.density_K_per_THz,
            stderr_K_per_THz=s.stderr_K_per_THz,
        )
    for d in m.diffusion:
        yield _columns(f"{name}-msd-{d.kind}", lag_ps=d.lag_ps, msd_A2=d.msd_A2)


def _columns(name: str, **columns: np.ndarray) -> Table:
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    return name, list(columns), rows
