"""``dmts-ipi analyze``: runs side by side in one HTML report."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dmts_ipi.core.errors import InputError

if TYPE_CHECKING:
    from dmts_ipi.analysis.measure import Measured
    from dmts_ipi.core.model import ForceModel

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
        help="the page; its data are written to the same name with .json, and as CSV to a folder "
        "with the suffix _csv",
    )
    parser.add_argument(
        "--skip-ps",
        type=float,
        default=None,
        metavar="PS",
        help="equilibration left out of every average, ps (default: the first 20 %% of each run, "
        "or its equilibration_ps if that is longer)",
    )
    parser.add_argument(
        "--configurational",
        type=int,
        default=0,
        metavar="FRAMES",
        help="number of frames of each run, such as 20, for which the configurational temperature "
        "is measured with the teacher; costs 7 evaluations per frame, and 6 for each further "
        "element",
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")


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


def _configurational(measured: Sequence[Measured], count: int) -> None:
    """Adds the configurational temperature to each run, by the teacher that it ran with."""
    import numpy as np

    from dmts_ipi.analysis.configurational import configurational, pick_frames
    from dmts_ipi.analysis.observables.configurational import CONFIGURATIONAL
    from dmts_ipi.models.load import load_model

    models: dict[str, ForceModel] = {}
    for m in measured:
        settings = m.run.settings["models"][m.run.sampled_model]
        key = json.dumps(settings, sort_keys=True)
        frames = pick_frames(m.run, m.skip_ps, count)
        if key not in models:
            models[key] = load_model(
                settings["model"], device=settings["device"], dtype=settings["dtype"]
            )

        def report(line: str, name: str = m.run.name) -> None:
            print(f"{name}: {line}", file=sys.stderr, flush=True)

        temperatures = configurational(
            models[key],
            m.run.numbers,
            m.run.pbc,
            frames,
            np.random.default_rng(0),
            floor_K=m.floor_K,
            report=report,
        )
        CONFIGURATIONAL.store(m, temperatures)


def run(args: argparse.Namespace) -> int:
    """Analyses the folders and writes the report."""
    from dmts_ipi.analysis.compare import compare
    from dmts_ipi.analysis.json_report import report_record
    from dmts_ipi.analysis.measure import measure
    from dmts_ipi.analysis.report import check_writable, csv_folder, write_report
    from dmts_ipi.analysis.run_data import read_runs, reference_of

    if args.skip_ps is not None and not args.skip_ps >= 0:
        raise InputError("--skip-ps", args.skip_ps, "must be zero or positive")
    if args.configurational < 0:
        raise InputError("configurational", args.configurational, "must be zero or positive")
    check_writable(args.out)
    runs = read_runs(args.folders)
    progress = _Progress()
    try:
        measured = [measure(r, args.skip_ps, progress) for r in runs]
    finally:
        progress.close()
    if args.configurational:
        _configurational(measured, args.configurational)
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
