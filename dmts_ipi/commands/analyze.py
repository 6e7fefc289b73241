"""``dmts-ipi analyze``: runs side by side in one HTML report."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from dmts_ipi.core.errors import InputError

PROGRESS_AFTER_S = 2.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument(
        "folders", nargs="+", metavar="FOLDER", type=Path, help="run folders of one system"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("report.html"),
        metavar="FILE",
        help="the page; its figures get the same name with .json, and as CSV in a folder with _csv",
    )
    parser.add_argument(
        "--skip-ps",
        type=float,
        default=None,
        metavar="PS",
        help="equilibration left out of every average, ps (None: the first 20 %% of each run, or "
        "its equilibration_ps if longer)",
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


class _Progress:
    """One line on a terminal's stderr, once the work takes longer than two seconds."""

    def __init__(self) -> None:
        self.start, self.last, self.shown = time.monotonic(), 0.0, False

    def __call__(self, name: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self.start < PROGRESS_AFTER_S or now - self.last < 0.5:
            return
        self.last, self.shown = now, True
        if sys.stderr.isatty():
            print(f"\rreading {name}: step {done} of {total} ", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.shown and sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def run(args: argparse.Namespace) -> int:
    """Analyses the folders and writes the report."""
    from dmts_ipi.analysis.compare import compare
    from dmts_ipi.analysis.measure import measure
    from dmts_ipi.analysis.record import report_record
    from dmts_ipi.analysis.report import check_writable, csv_folder, write_report
    from dmts_ipi.analysis.source import read_runs, reference_of

    if args.skip_ps is not None and not args.skip_ps >= 0:
        raise InputError("--skip-ps", args.skip_ps, "must be zero or positive")
    check_writable(args.out)
    runs = read_runs(args.folders)
    progress = _Progress()
    try:
        measured = [measure(r, args.skip_ps, progress) for r in runs]
    finally:
        progress.close()
    chosen = reference_of(runs)
    reference = next((m for m in measured if m.run is chosen), None)
    comparisons = compare(measured, reference)
    beside = write_report(args.out, measured, reference, comparisons)
    if args.json:
        record = report_record(measured, reference, comparisons, arrays=False)
        record["report"] = str(args.out)
        print(json.dumps(record, indent=1, allow_nan=False))
    else:
        from dmts_ipi.analysis.terminal import lines

        print("\n".join(lines(measured, reference, comparisons)))
        print(f"report: {args.out} (figures: {beside}, {csv_folder(args.out)}/)")
    return 0
