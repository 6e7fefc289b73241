"""``dmts-ipi benchmark FILE.yaml``: the paper's tables for any teacher, side by side."""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dmts_ipi.core.config import read_yaml
from dmts_ipi.core.errors import InputError

if TYPE_CHECKING:
    from dmts_ipi.analysis.bench.cell import Cell

    from .benchmark_config import BenchmarkConfig
    from .benchmark_plan import Plan, Skipped

COPY = "benchmark.yaml"


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.epilog = (
        "Runs take turns: every integrator of every system runs one round, then the next round "
        "follows. The same command continues a benchmark that was stopped; finished parts are not "
        "repeated. Exit status 0: all runs are done, including unstable ones; 4: some failed for "
        "a technical reason."
    )
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="YAML file, see docs/benchmark.md")
    add(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="folder of runs and tables (default: the name of the file)",
    )
    add(
        "--only",
        nargs="+",
        default=[],
        metavar="NAME",
        help="only these systems, or runs whose names begin so",
    )
    add("--dry-run", action="store_true", help="print the plan with an estimate of its time")
    add("--tables", action="store_true", help="only print the tables of the results so far")
    add("--report-every-s", type=float, default=10.0, help="time between lines of progress, s")
    add("--json", action="store_true", help="print the records as JSON")


def run(args: argparse.Namespace) -> int:
    """Plans, runs, and writes the tables."""
    from dmts_ipi.analysis.bench.output import summary, text_of, write
    from dmts_ipi.analysis.bench.tables import all_tables
    from dmts_ipi.core.files import plain

    from .benchmark_config import BenchmarkConfig
    from .benchmark_plan import check_unchanged, make_plan
    from .benchmark_run import Interrupted, make_out, read_results, run_cells

    if not args.report_every_s > 0:
        raise InputError("report_every_s", args.report_every_s, "must be positive")
    config = read_yaml(BenchmarkConfig, args.file)
    out = args.out or Path(args.file.stem)
    plan = make_plan(config, args.file.resolve().parent, out)
    cells = plan.cells_of(args.only)
    for cell in plan.cells:
        check_unchanged(cell, plan.configs[cell.name])
    if not cells:
        raise InputError(
            "systems", plan.skipped[0].system, f"no system can be run: {plan.skipped[0].why}"
        )
    for skipped in plan.skipped:
        _say(f"skipped: {skipped.system}, {skipped.what}: {skipped.why}")
    if args.dry_run:
        _dry_run(config, args.file.resolve().parent, plan, cells)
        return 0
    status = 0
    make_out(out)
    (out / COPY).write_text(args.file.read_text())
    if not args.tables:
        try:
            run_cells(plan, cells, _say, args.report_every_s)
        except Interrupted as signal:
            status = signal.status
    results = read_results(plan.cells, _say)
    tables = all_tables(results)
    text = text_of(tables, _header(args, plan.skipped))
    files = write(out, results, tables, _header(args, plan.skipped))
    if args.json:
        print(json.dumps(plain([r.record() for r in results if r.exit != "pending"])))
    else:
        print(text)
        print(f"{summary(results)}; {', '.join(f.name for f in files)} in {out}")
    failed = [r for r in results if r.stability.word == "failed"]
    for r in failed:
        _say(f"failed: {r.cell.name}: {r.stability.why}")
    return status or (4 if failed else 0)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _header(args: argparse.Namespace, skipped: Sequence[Skipped]) -> str:
    """Machine, date and versions, as the results of ``benchmarks/`` have them."""
    from dmts_ipi.ipi.run_folder.summary import versions

    lines = [
        f"# dmts-ipi benchmark {args.file}",
        f"# {datetime.date.today()}  {_machine()}",
        "# " + ", ".join(f"{k} {v}" for k, v in versions().items()),
    ]
    lines += [f"# skipped: {s.system}, {s.what}: {s.why}" for s in skipped]
    return "\n".join(lines)


def _machine() -> str:
    import os

    try:
        model_lines = [
            x for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x
        ]
        name = model_lines[0].partition(":")[2].strip()
    except (OSError, IndexError):
        name = platform.processor()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores, {platform.system()} {platform.release()}"


def _dry_run(config: BenchmarkConfig, base: Path, plan: Plan, cells: Sequence[Cell]) -> None:
    """The plan as a table."""
    from .benchmark_plan import estimate_s, evaluation_times_ms
    from .benchmark_run import reached_ps
    from .run import clock

    _say("evaluating each model four times, for the estimate")
    times = evaluation_times_ms(config, base, plan, cells)
    print(f"{'run':44s} {'atoms':>6s} {'ps':>7s} {'rounds':>6s} {'done ps':>8s} {'left':>9s}")
    total = 0.0
    for cell in cells:
        done = reached_ps(cell)
        left = estimate_s(cell, times, done)
        total += left
        print(
            f"{cell.name:44s} {cell.atoms:6d} {cell.time_ps:7g} {cell.rounds:6d} "
            f"{done:8g} {clock(left):>9s}"
        )
    per = ", ".join(f"{k} {1000 * v:.3g}" for k, v in times.items())
    print(
        f"{len(cells)} runs, about {clock(total)} (microseconds per atom and evaluation: {per}; "
        "larger systems in proportion)"
    )
