#!/usr/bin/env python3
"""`dmts-ipi tune` against a full scan of the outer step: 64 waters, shipped models.

    python benchmarks/tune_scan.py --ps 10 --seeds 1 2           # resumes
    python benchmarks/tune_scan.py --ps 0.3 --outer-fs 4 6       # does it run?

The scan is a benchmark of DMTS-NC at every outer step; its limit is the largest outer step up to
which every one keeps its heating by the integrator within the tolerance, two standard errors
included. `tune` then chooses by itself, and is timed. Runs in work/tune_scan; the result goes to
results/tune_scan.txt.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from pathlib import Path

import yaml

from common import dmts, save

REPOSITORY = Path(__file__).resolve().parents[1]
STRUCTURE = REPOSITORY / "ipi_inputs/water64.extxyz"


def scan(folder: Path, args: argparse.Namespace) -> dict[float, list[dict]]:
    """Records of the benchmark by outer step."""
    model = {"threads": args.threads}
    fields = {
        "teacher": {"model": "water-teacher", **model},
        "students": {"nc": {"model": "water-student", **model}},
        "systems": [{"name": "water64", "structure": str(STRUCTURE)}],
        "integrators": [{"kind": "dmts-nc", "outer_fs": args.outer_fs}],
        "seeds": args.seeds,
        "time_ps": args.ps,
        "equilibration_ps": 0.0,
        "rounds": 1,
    }
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "scan.yaml"
    file.write_text(yaml.safe_dump(fields))
    dmts("benchmark", file, "--out", folder / "scan", check=False)
    found: dict[float, list[dict]] = {}
    for line in (folder / "scan/records.jsonl").read_text().splitlines():
        record = json.loads(line)
        found.setdefault(record["outer_fs"], []).append(record)
    return found


def heating(records: list[dict]) -> tuple[float, float]:
    """Heating by the integrator in K, infinite where a run was ended."""
    if any(r["instabilities"] not in ("no", "no so far", "drift") for r in records):
        return math.inf, math.nan
    pairs = [r["heating_K"] for r in records]
    if any(x is None for p in pairs for x in p):
        return math.nan, math.nan
    n = len(pairs)
    return sum(p[0] for p in pairs) / n, math.sqrt(sum(p[1] ** 2 for p in pairs)) / n


def limit(found: dict[float, list[dict]], tolerance_K: float) -> float:
    """Largest outer step up to which all hold, fs; 0: none."""
    best = 0.0
    for outer in sorted(found):
        mean, error = heating(found[outer])
        if not mean + 2 * error <= tolerance_K:
            break
        best = outer
    return best


def tuned(folder: Path, args: argparse.Namespace) -> tuple[dict, float]:
    """What `tune` chooses, and how long it took, s."""
    run = folder / "tuned"
    if not (run / "run.yaml").is_file():
        dmts("init", run, "--structure", STRUCTURE, "--threads", args.threads)
    words = ["--tolerance-K", str(args.tolerance_K), "--dry-run", "--json"]
    words += ["--thermostats", "own", "--n-inner", *(f"{o:g}" for o in args.outer_fs)]
    words += ["--trial-ps", str(args.trial_ps), "--confirm-ps", str(args.confirm_ps)]
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "dmts_ipi.cli", "tune", str(run), *words],
        capture_output=True,
        text=True,
    )
    if done.returncode not in (0, 3):
        sys.exit(done.stderr)
    return json.loads(done.stdout), time.monotonic() - start


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--folder", type=Path, default=REPOSITORY / "work/tune_scan")
    p.add_argument("--outer-fs", type=int, nargs="+", default=list(range(2, 13)), help="inner 1 fs")
    p.add_argument("--ps", type=float, default=10.0, help="of every run of the scan")
    p.add_argument("--seeds", type=int, nargs="+", default=[1])
    p.add_argument("--tolerance-K", type=float, default=3.0)
    p.add_argument("--trial-ps", type=float, default=4.0, help="of tune")
    p.add_argument("--confirm-ps", type=float, default=8.0, help="of tune")
    p.add_argument("--threads", type=int, default=2, help="of each driver")
    args = p.parse_args()
    found = scan(args.folder, args)
    choice, seconds = tuned(args.folder, args)
    predicted = {x["outer_fs"]: x["K_per_ps"] for x in choice["predicted"]}
    trials = {x["outer_fs"]: x for x in choice["trials"]}
    rows = [
        f"heating by the integrator, K; {args.ps:g} ps and {len(args.seeds)} seeds for each step",
        f"{'outer fs':>8s} {'predicted K/ps':>15s} {'tune, K/ps':>16s} {'scan, K':>16s}",
    ]
    for outer in sorted(found):
        mean, error = heating(found[outer])
        trial = trials.get(outer)
        own = "-"
        if trial:
            heat, wide = trial["heating_K_per_ps"], trial["heating_stderr_K_per_ps"]
            own = "blew up" if heat is None else f"{heat:.2f}+-{wide or math.nan:.2f}"
        rows.append(
            f"{outer:8g} {predicted.get(outer, math.nan):15.2f} {own:>16s} "
            f"{f'{mean:.2f}+-{error:.2f}':>16s}"
        )
    scanned = limit(found, args.tolerance_K)
    chosen = choice["chosen_outer_fs"] or 0.0
    rows.append(
        f"limit of the scan {scanned:g} fs; tune chose {chosen:g} fs in {seconds / 60:.1f} min, "
        f"{chosen - scanned:+g} fs"
    )
    save("tune_scan", "\n".join(rows))


if __name__ == "__main__":
    main()
