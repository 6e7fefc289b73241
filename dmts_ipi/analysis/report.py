"""The report: one HTML file that needs nothing else, and its figures as JSON beside it."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dmts_ipi import __version__
from dmts_ipi.core.errors import InputError
from dmts_ipi.core.files import replace_file
from dmts_ipi.core.units import KB_EV_PER_K

from .comparison import Comparison
from .figures import STYLE, Palette, Plot, palette_of
from .formatting import (
    NOTHING,
    STATUS_CLASS,
    STATUS_TEXT,
    expected_text,
    plus_minus,
    status_counts,
    with_dash,
)
from .headline import cards, settling, summary_sentence
from .json_report import report_record
from .measure import Measured
from .observables.force_difference import FORCE_DIFFERENCE
from .observables.registry import page_order
from .report_text import stretch, what_ran
from .tables import csv_files

Titles = list[tuple[str, bool]]
"""Titles of a table's columns, and whether they hold numbers."""
TEMPLATE = "report.html.j2"
VERDICT_TITLES: Titles = [
    ("Run", False),
    ("Observable", False),
    ("Value", True),
    ("Against", False),
    ("Expected", True),
    ("Difference", True),
    ("Verdict", False),
]


def check_writable(path: Path) -> None:
    """Refuses a report that could not be written, before the work is done.

    Raises:
        InputError: the folder is absent or not writable, or the path is a folder.
    """
    parent = path.resolve().parent
    if path.is_dir():
        raise InputError("--out", path, "is a folder; name a file such as report.html")
    if not parent.is_dir():
        raise InputError("--out", path, f"the folder {parent} does not exist; make it first")
    target = path if path.exists() else parent
    if not os.access(target, os.W_OK):
        raise InputError("--out", path, "cannot be written; choose another place")
    if path.suffix == ".json":
        raise InputError(
            "--out",
            path,
            "would be overwritten by the JSON of the same name; use a name with .html",
        )


def write_report(
    path: Path,
    measured: Sequence[Measured],
    reference: Measured | None,
    comparisons: Sequence[Comparison],
) -> Path:
    """Writes the page, its JSON, and a folder of CSV files; each appears whole or not at all.

    Returns the JSON's path; the folder has the page's name with ``_csv``.

    Raises:
        InputError: a file cannot be written.
    """
    beside, folder = path.with_suffix(".json"), csv_folder(path)
    record = report_record(measured, reference, comparisons)
    page = render(measured, reference, comparisons, beside.name, folder.name)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError("--out", folder, f"cannot be made ({error.strerror})") from error
    files = [(folder / name, text) for name, text in csv_files(measured, comparisons)]
    files += [(beside, json.dumps(record, allow_nan=False)), (path, page)]
    for file, text in files:
        try:
            replace_file(file, text)
        except OSError as error:
            raise InputError("--out", file, f"cannot be written ({error.strerror})") from error
    return beside


def csv_folder(path: Path) -> Path:
    """The folder of CSV files of a page."""
    return path.with_name(path.stem + "_csv")


def draw(measured: Sequence[Measured], palette: Palette) -> list[Plot]:
    """All figures that the data allow; a figure without data is left out."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        return [plot for o in page_order() for plot in o.plots(measured, palette)]


def render(
    measured: Sequence[Measured],
    reference: Measured | None,
    comparisons: Sequence[Comparison],
    json_name: str = "report.json",
    csv_name: str = "report_csv",
) -> str:
    """The page as text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("dmts_ipi.analysis", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    palette = palette_of(measured, reference)
    titles, rows, footnotes = _runs(measured, reference)
    return environment.get_template(TEMPLATE).render(
        title=_title(measured, reference),
        kicker=_kicker(measured),
        summary=summary_sentence(measured, reference, comparisons),
        cards=cards(measured, reference, comparisons),
        notes=_notes(measured),
        colours=palette.colours,
        run_titles=titles,
        run_rows=rows,
        footnotes=footnotes,
        plots=draw(measured, palette),
        counts=status_counts(comparisons),
        settling=settling(measured, comparisons),
        against=f"theory and {reference.run.name}" if reference is not None else "theory",
        verdict_titles=VERDICT_TITLES,
        verdict_rows=[_verdict(c) for c in comparisons],
        events=[(m.run.name, e) for m, log in FORCE_DIFFERENCE.shown(measured) for e in log.events],
        stretch=stretch(measured),
        one_K=f"{3 * KB_EV_PER_K * 1000:.2f}",
        ran=[what_ran(m) for m in measured],
        version=__version__,
        json_name=json_name,
        csv_name=csv_name,
    )


def _notes(measured: Sequence[Measured]) -> list[tuple[str, str]]:
    """(names of the runs, note); a note that several runs share is one line."""
    runs: dict[str, list[str]] = {}
    for m in measured:
        for note in m.notes:
            runs.setdefault(note, []).append(m.run.name)
    return [(", ".join(names), note) for note, names in runs.items()]


def _title(measured: Sequence[Measured], reference: Measured | None) -> str:
    what = "molecular dynamics"
    if reference is not None and len(measured) > 1:
        what = "multiple time stepping beside the teacher"
    return f"{measured[0].run.system}: {what}"


def _kicker(measured: Sequence[Measured]) -> str:
    first = measured[0].run
    inner = dict.fromkeys(f"{m.run.inner_fs:g}" for m in measured)
    return " · ".join(
        [
            f"{len(first.numbers)} atoms",
            "/".join(dict.fromkeys(m.run.ensemble.upper() for m in measured)),
            f"{first.temperature_K:g} K",
            f"inner step {', '.join(inner)} fs",
            datetime.date.today().isoformat(),
        ]
    )


def _runs(
    measured: Sequence[Measured], reference: Measured | None
) -> tuple[Titles, list[tuple[str, list[str]]], list[str]]:
    """The table of runs: titles, (name, cells) of each run, and what is said below it."""
    columns = [c for o in page_order() for c in o.columns(measured, reference)]
    titles: Titles = [("Run", False), ("Scheme", False), ("Used, ps", True)]
    titles += [(c.title, True) for c in columns]
    rows = []
    for m in measured:
        cells = [m.run.scheme, f"{m.kept_ps:.3g}"]
        cells += [c.cells.get(m.run.name, NOTHING) for c in columns]
        rows.append((m.run.name, cells))
    return titles, rows, list(dict.fromkeys(c.footnote for c in columns if c.footnote))


def _verdict(c: Comparison) -> dict[str, Any]:
    """A row of the table of verdicts."""
    unit = c.value_unit or ("" if c.unit in ("%", "peaks") else c.unit)
    return {
        "run": c.run,
        "observable": with_dash(c.observable),
        "value": plus_minus(c.value - c.shown_from, c.stderr, unit),
        "against": c.against,
        "expected": expected_text(c),
        "difference": plus_minus(c.difference, c.difference_stderr, c.unit, signed=True),
        "status": STATUS_TEXT[c.verdict.status],
        "status_class": STATUS_CLASS[c.verdict.status],
        "why": c.verdict.text,
    }
