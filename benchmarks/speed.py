#!/usr/bin/env python3
"""Speed of DMTS-NC over STS under i-PI, both through sockets, alternating on one machine.

    python benchmarks/speed.py --structure ipi_inputs/water216.extxyz --n-inner 6 --rounds 5

Each round runs STS, then DMTS-NC, by `dmts-ipi run` in fresh folders, and takes the ratio of their
ns/day (start-up and compilation left out by `run`). Printed: every round, and the median ratio.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from common import save


def ns_per_day(folder: Path, options: list[str]) -> float:
    dmts = [sys.executable, "-W", "ignore", "-m", "dmts_ipi.cli"]
    quiet = {"stdout": subprocess.DEVNULL, "check": True}
    subprocess.run([*dmts, "init", str(folder), *options], **quiet)
    subprocess.run([*dmts, "run", str(folder)], **quiet)
    return float(json.loads((folder / "summary.json").read_text())["ns_per_day"])


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--structure", type=Path, required=True)
    p.add_argument("--teacher", default="water-teacher")
    p.add_argument("--student", default="water-student")
    p.add_argument("--n-inner", type=int, default=6)
    p.add_argument("--threads", type=int, default=2, help="of each driver")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--steps", type=int, default=60, help="outer steps of each run")
    p.add_argument("--options", default="", help="of init for DMTS-NC, such as a thermostat's")
    p.add_argument("--name", default="speed")
    args = p.parse_args()
    common = ["--structure", str(args.structure), "--teacher", args.teacher]
    common += ["--threads", str(args.threads), "--seed", "1"]
    rows = [
        f"{args.structure.name}, 1-{args.n_inner} fs, {args.threads} threads per driver",
        f"DMTS-NC: {args.options or 'friction 1/ps'}",
    ]
    rows.append("round  STS ns/day  DMTS-NC ns/day  ratio")
    ratios = []
    with tempfile.TemporaryDirectory() as scratch:
        for k in range(args.rounds):
            sts = ["--mode", "sts", "--time-ps", str(args.steps / 1000)]
            dmts = ["--n-inner", str(args.n_inner), "--student", args.student]
            dmts += shlex.split(args.options)
            dmts += ["--time-ps", str(args.steps * args.n_inner / 1000)]
            a = ns_per_day(Path(scratch) / f"sts{k}", [*common, *sts])
            b = ns_per_day(Path(scratch) / f"dmts{k}", [*common, *dmts])
            ratios.append(b / a)
            rows.append(f"{k + 1:5d}  {a:10.4f}  {b:14.4f}  {b / a:5.2f}")
            print(rows[-1], flush=True)
    rows.append(f"median ratio {statistics.median(ratios):.2f}")
    save(args.name, "\n".join(rows))


if __name__ == "__main__":
    main()
