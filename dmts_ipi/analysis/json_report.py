"""``report.json``: every figure of the page as data."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from dmts_ipi import __version__
from dmts_ipi.core.errors import InputError
from dmts_ipi.core.files import plain

from .comparison import Comparison
from .measure import Measured
from .observables import observables
from .observables.speed import speedup


def run_record(m: Measured, reference: Measured | None, arrays: bool) -> dict[str, Any]:
    """One run as a mapping; ``arrays`` adds the series behind the plots.

    Raises:
        InputError: two observables write the same key.
    """
    run = m.run
    record: dict[str, Any] = {
        "name": run.name,
        "path": str(run.path),
        "scheme": run.scheme,
        "mode": run.mode,
        "ensemble": run.ensemble,
        "formula": run.formula,
        "atoms": len(run.numbers),
        "inner_fs": run.inner_fs,
        "n_inner": run.n_inner,
        "ns_per_day": run.ns_per_day,
        "speedup": speedup(m, reference),
        "time_ps": float(m.time_ps[-1]),
        "skip_ps": m.skip_ps,
        "frames": m.frames_used,
        "notes": m.notes,
        "devices": run.devices,
        "not_analysed": run.not_analysed,
    }
    if arrays:
        record["series"] = series(m)
        record["settings"] = run.settings
        record["summary"] = run.summary
    for o in observables():
        part = o.record(m, arrays)
        if twice := sorted(part.keys() & record.keys()):
            raise InputError(
                "observable",
                o.name,
                f"writes the key {twice[0]!r}, which another observable writes already",
            )
        record |= part
    return record


def series(m: Measured) -> dict[str, Any]:
    """Every observable's series over time, by name."""
    columns: dict[str, Any] = {"time_ps": m.time_ps}
    for o in observables():
        if o.name in m.results:
            columns |= o.series(m)
    return columns


def report_record(
    measured: Sequence[Measured],
    reference: Measured | None,
    comparisons: Sequence[Comparison],
    arrays: bool = True,
) -> dict[str, Any]:
    """The whole report as a mapping that ``json.dumps(..., allow_nan=False)`` takes."""
    now = datetime.datetime.now(datetime.timezone.utc)
    return plain(
        {
            "schema": "dmts-ipi-report",
            "version": 1,
            "dmts_ipi": __version__,
            "created": now.isoformat(timespec="seconds"),
            "reference": reference.run.name if reference is not None else None,
            "runs": [run_record(m, reference, arrays) for m in measured],
            "comparisons": [asdict(c) for c in comparisons],
        }
    )
