"""The figures of a fixed report in a few numbers, to see that a change of ours leaves them alone.

``python tests/support/golden_report.py FILE`` writes ``report(FOLDERS)`` as JSON.
``tests/analysis/golden_report.json`` was made so at commit 7e084df.
"""

from __future__ import annotations

import csv
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from analysis_runs import water_box, write_folder

LEFT_OUT = {"path", "settings", "created", "dmts_ipi"}


def folders(top: Path) -> list[Path]:
    """An STS and an MTS run with spectra, diffusion and a watchdog, and a short hot one."""
    atoms = water_box(2)
    sts = write_folder(top / "sts", atoms, time_ps=12.0, frames_every_fs=8)
    mts = write_folder(top / "mts", atoms, "dmts", 8, time_ps=12.0, frames_every_fs=8, seed=2)
    hot = write_folder(top / "hot", atoms, "dmts", 6, 450.0, time_ps=6.0, seed=3, ns_per_day=5.0)
    event = {"time": "2026-11-21T10:00:00+0000", "kind": "rewind", "step": 800, "time_ps": 6.4,
             "text": "difference 9 eV/A <at> atom 3"}  # fmt: skip
    (mts / "events.jsonl").write_text(json.dumps(event) + "\n")
    bins = [0] * 56
    bins[20:24] = [10, 60, 28, 2]
    watchdog = {"difference_max_eV_per_A": {"bins": bins, "lowest_edge": 1e-4, "bins_per_decade": 8,
                "median": 0.05, "p99": 0.1, "largest": 0.12}}  # fmt: skip
    (mts / "summary.json").write_text(json.dumps({"ns_per_day": 3.0, "watchdog": watchdog}))
    return [sts, mts, hot]


def _short(value: Any) -> Any:
    """Long lists of numbers as their length, sum and norm."""
    if isinstance(value, dict):
        return {k: _short(v) for k, v in value.items() if k not in LEFT_OUT}
    if isinstance(value, list):
        if len(value) > 20 and all(isinstance(x, int | float | None) for x in value):
            x = np.array([np.nan if v is None else v for v in value], float)
            x = x[np.isfinite(x)]
            return {"values": len(x), "sum": float(x.sum()), "norm": float(np.linalg.norm(x))}
        return [_short(v) for v in value]
    return value


def report(runs: list[Path], out: Path) -> dict[str, Any]:
    """The JSON and the CSV files of the page of these runs, shortened."""
    from dmts_ipi.cli import main

    assert main(["analyze", *map(str, runs), "--out", str(out)]) == 0
    tables = {}
    for path in sorted(out.with_name(out.stem + "_csv").iterdir()):
        rows = list(csv.reader(io.StringIO(path.read_text())))
        body = [[_number(c) for c in row] for row in rows[1:]]
        numbers = [c for row in body for c in row if isinstance(c, float)]
        tables[path.name] = {"head": rows[0], "rows": len(body), "sum": float(np.sum(numbers))}
    return {"json": _short(json.loads(out.with_suffix(".json").read_text())), "csv": tables}


def _number(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        found = report(folders(Path(name)), Path(name) / "report.html")
    Path(sys.argv[1]).write_text(json.dumps(found, indent=1) + "\n")
