"""The report: one HTML file that needs nothing else, and its figures as JSON beside it."""

from __future__ import annotations

import datetime
import json
import math
import os
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path

from dmts_ipi import __version__
from dmts_ipi.core.errors import InputError
from dmts_ipi.core.files import replace_file

from .compare import Comparison, headline_pair, speedup
from .figures import Plot
from .formatting import (
    STATUS_CLASS,
    STATUS_WORD,
    Card,
    cards,
    expected_text,
    plus_minus,
    settling,
    summary_sentence,
)
from .json_report import report_record
from .measure import Measured
from .plots import colours, draw
from .report_text import reading, swatch, what_ran
from .tables import csv_files

COPY_SCRIPT = """
document.querySelectorAll('button[data-copy]').forEach(function (b) {
  b.addEventListener('click', function () {
    var t = document.getElementById(b.dataset.copy), rows = t.rows ? Array.from(t.rows) : null;
    var text = rows ? rows.map(function (r) { return Array.from(r.cells).map(function (c) {
      return c.innerText.trim(); }).join('\\t'); }).join('\\n') : t.innerText;
    var done = function () { b.textContent = 'Copied'; };
    var old = function () { var a = document.createElement('textarea'); a.value = text;
      document.body.append(a); a.select(); document.execCommand('copy'); a.remove(); done(); };
    if (navigator.clipboard) navigator.clipboard.writeText(text).then(done, old); else old();
  });
});
"""


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
        raise InputError("--out", path, "is the page; its JSON gets the same name; use .html")


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


def render(
    measured: Sequence[Measured],
    reference: Measured | None,
    comparisons: Sequence[Comparison],
    json_name: str = "report.json",
    csv_name: str = "report_csv",
) -> str:
    """The page as text."""
    first = measured[0].run
    colour = colours(measured, reference)
    css = resources.files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    title = f"{first.system}: " + (
        "multiple time stepping beside the teacher"
        if reference is not None
        else "molecular dynamics"
    )
    kicker = " · ".join(
        [
            f"{len(first.numbers)} atoms",
            "/".join(dict.fromkeys(m.run.ensemble.upper() for m in measured)),
            f"{first.temperature_K:g} K",
            f"inner step {first.inner_fs:g} fs",
            datetime.date.today().isoformat(),
        ]
    )
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="kicker">{escape(kicker)}</p>',
        f'<p class="lead">{escape(summary_sentence(measured, reference, comparisons))}</p>',
        _cards(cards(measured, reference, comparisons)),
        _notes(measured),
        "<h2>Runs</h2>",
        _runs_table(measured, reference, colour),
        "<h2>Figures</h2>",
        '<div class="grid">' + "".join(_figure(p) for p in draw(measured, reference)) + "</div>",
        "<h2>Verdicts</h2>",
        _verdict_text(measured, reference, comparisons),
        _verdict_table(measured, comparisons, colour),
        *_events(measured),
        "<h2>How to read this page</h2>",
        reading(measured),
        "<h2>What ran</h2>",
        *(what_ran(m, colour) for m in measured),
        f"<footer>Made by dmts-ipi {__version__}. All figures as data beside this file: "
        f"{escape(json_name)}, and {escape(csv_name)}/ with a table for each.</footer>",
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{css}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + f"\n</main>\n<script>{COPY_SCRIPT}</script>\n</body>\n</html>\n"
    )


def _cards(found: Sequence[Card]) -> str:
    parts = []
    for k, c in enumerate(found):
        chip = ""
        if c.status is not None:
            chip = f'<div class="chip {STATUS_CLASS[c.status]}">{escape(c.verdict)}</div>'
        small = f" <small>{escape(c.small)}</small>" if c.small else ""
        parts.append(
            f'<div class="card{" first" if k == 0 else ""}">'
            f'<div class="what">{escape(c.what)}</div>'
            f'<div class="value">{escape(c.value)}{small}</div>'
            f'<div class="detail">{escape(c.detail)}</div>{chip}</div>'
        )
    return f'<section class="cards">{"".join(parts)}</section>'


def _notes(measured: Sequence[Measured]) -> str:
    lines = [f"{m.run.name}: {note}" for m in measured for note in m.notes]
    if not lines:
        return ""
    return '<ul class="notes">' + "".join(f"<li>{escape(x)}.</li>" for x in lines) + "</ul>"


def _figure(plot: Plot) -> str:
    return (
        f"<figure><h3>{escape(plot.title)}</h3>{plot.svg}"
        f"<figcaption>{escape(plot.caption)}</figcaption></figure>"
    )


def _table(key: str, head: Sequence[tuple[str, bool]], rows: Sequence[Sequence[str]]) -> str:
    """A table; ``head`` holds (title, numeric), ``rows`` HTML; the first column is a header."""
    columns = "".join(f'<th{" class=n" if n else ""} scope="col">{escape(t)}</th>' for t, n in head)
    body = ""
    for row in rows:
        cells = f'<th scope="row">{row[0]}</th>' + "".join(
            f"<td{' class=n' if n else ''}>{cell}</td>"
            for cell, (_, n) in zip(row[1:], head[1:], strict=True)
        )
        body += f"<tr>{cells}</tr>"
    return (
        f'<div class="scroll"><table id="{key}"><thead><tr>{columns}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
        f'<button type="button" data-copy="{key}">Copy table</button>'
    )


def _runs_table(
    measured: Sequence[Measured], reference: Measured | None, colour: dict[str, str]
) -> str:
    bond = next((k.name for m in measured for k in m.bond_kinds), None)
    pair = headline_pair(measured[0])
    head = [
        ("Run", False),
        ("Scheme", False),
        ("ns/day", True),
        ("Speedup", True),
        ("Used, ps", True),
    ]
    head.append(("Temperature, K", True))
    if bond:
        head.append((f"{bond.replace('-', '–')} bonds, K", True))
    head.append(("Potential, meV/atom", True))
    if pair:
        head.append((f"{pair.replace('-', '–')} peak", True))
    if any(m.npt for m in measured):
        head += [("Density, g/cm³", True), ("Pressure, bar", True)]
    head.append(("Drift, meV/atom/ps", True))
    zero = (reference or measured[0]).potential.mean
    rows = []
    for m in measured:
        ratio = speedup(m, reference)
        row = [
            swatch(m, colour) + escape(m.run.name),
            escape(m.run.scheme),
            f"{m.run.ns_per_day:.3g}" if math.isfinite(m.run.ns_per_day) else "–",
            f"{ratio:.2f}×" if math.isfinite(ratio) else "–",
            f"{m.kept_ps:.3g}",
            plus_minus(m.kinetic["atoms"].mean, m.kinetic["atoms"].stderr),
        ]
        if bond:
            e = m.kinetic.get(bond)
            row.append(plus_minus(e.mean, e.stderr) if e else "–")
        row.append(plus_minus(m.potential.mean - zero, m.potential.stderr, signed=True))
        if pair:
            peak = next((d.peak for d in m.distributions if d.pair == pair), None)
            row.append(plus_minus(peak.height, peak.stderr) if peak else "–")
        if any(x.npt for x in measured):
            for key in ("density_g_cm3", "pressure_bar"):
                e = m.npt.get(key)
                row.append(plus_minus(e.mean, e.stderr) if e else "–")
        slope = m.drift_meV_per_atom_ps
        row.append(plus_minus(slope.mean, slope.stderr, signed=True))
        rows.append(row)
    name = "the STS mean" if reference is not None else f"the mean of {measured[0].run.name}"
    return (
        _table("runs", head, rows) + f'<p class="kicker">± is one standard error. Potential '
        f"energy is counted from {escape(name)}.</p>"
    )


def _verdict_text(
    measured: Sequence[Measured], reference: Measured | None, comparisons: Sequence[Comparison]
) -> str:
    against = "theory and " + reference.run.name if reference is not None else "theory"
    counts = ", ".join(
        f'<span class="chip {STATUS_CLASS[s]}">'
        f"{sum(c.verdict.status == s for c in comparisons)} {STATUS_WORD[s]}</span>"
        for s in STATUS_WORD
    )
    return (
        f"<p>{counts}. {escape(settling(measured, comparisons))}</p>"
        f"<p>Each run against {escape(against)}. A value <em>deviates</em> when it is off by more "
        "than the tolerance and by more than three standard errors. It is <em>too short to "
        "tell</em> while two standard errors exceed the tolerance, or while a larger difference is "
        "between two and three standard errors: among a dozen comparisons one such is common.</p>"
    )


def _events(measured: Sequence[Measured]) -> list[str]:
    """What the watchdog did, newest last; nothing where there was none."""
    rows = [
        [escape(m.run.name), f"{e.time_ps:.3f}", escape(e.kind), escape(e.text), escape(e.time)]
        for m in measured
        for e in m.events
    ]
    if not rows:
        return []
    head = [("Run", False), ("At, ps", True), ("Kind", False), ("What", False), ("When", False)]
    return ["<h2>Events of the watchdog</h2>", _table("events", head, rows)]


def _verdict_table(
    measured: Sequence[Measured], comparisons: Sequence[Comparison], colour: dict[str, str]
) -> str:
    by_name = {m.run.name: m for m in measured}
    head = [
        ("Run", False),
        ("Observable", False),
        ("Value", True),
        ("Against", False),
        ("Expected", True),
        ("Difference", True),
        ("Verdict", False),
    ]
    rows = []
    for c in comparisons:
        unit = c.value_unit or ("" if c.unit in ("%", "peaks") else c.unit)
        offset = by_name[c.run].potential.mean if c.observable == "potential energy" else 0.0
        value, expected = c.value, expected_text(c)
        if offset:
            value, expected = c.value - c.expected, "0"
        rows.append(
            [
                swatch(by_name[c.run], colour) + escape(c.run),
                escape(c.observable.replace("-", "–")),
                plus_minus(value, c.stderr, unit),
                escape(c.against),
                expected,
                plus_minus(c.difference, c.difference_stderr, c.unit, signed=True),
                f'<span class="chip {STATUS_CLASS[c.verdict.status]}">'
                f"{STATUS_WORD[c.verdict.status]}</span><br><small>{escape(c.verdict.text)}</small>",
            ]
        )
    return _table("verdicts", head, rows)
