#!/usr/bin/env python3
"""What a rewind costs: the same run with and without them, paired on one machine.

    python benchmarks/rewind_cost.py                   # 64 waters, 1-6 fs, three rounds
    python benchmarks/rewind_cost.py --sts-ps 1 --guard-fs 100 --checkpoints-fs 1000

Rewinds are made frequent by a low limit of the difference between the models (--limit-eV-per-A).
The time that is lost is split into three: steps that are done again, single steps where there would
have been multiple ones, and the rest, which is what the watchdog can help: stopping i-PI, cutting
outputs, a start of i-PI. The last line has them per rewind, over all rounds; percent are of the
wall time of 10 ps, so of the speed that a rewind every 10 ps costs. The steps' own times are those
of the run without rewinds and of a short run of single steps. A round without rewinds says how much
two runs differ anyway.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from pathlib import Path

import yaml

from common import dmts, save

REPOSITORY = Path(__file__).resolve().parents[1]


def run(folder: Path, watchdog: dict[str, object], *options: object) -> list[dict]:
    """Makes and runs a folder; its journal."""
    dmts("init", folder, *options)
    file = folder / "run.yaml"
    config = yaml.safe_load(file.read_text())
    config["watchdog"] |= watchdog
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    dmts("run", folder)
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def wall_s(events: list[dict]) -> float:
    """From the first start of i-PI to the end."""
    starts = [e["time_unix_s"] for e in events if e["kind"] == "start"]
    return float(events[-1]["time_unix_s"] - starts[0])


def step_s(folder: Path) -> float:
    """Seconds of an outer step, start-up left out."""
    sessions = json.loads((folder / "sessions.json").read_text())
    return float(sessions[-1]["steady_s"] / sessions[-1]["steady_steps"])


def count(events: list[dict]) -> tuple[int, int, int]:
    """Rewinds, outer steps done again, and outer steps done as single ones."""
    again = single = rewinds = seen = 0
    begun: int | None = None
    for e in events:
        if e["kind"] == "rewind":
            rewinds, seen = rewinds + 1, e["step"]
        if e["kind"] in ("start", "rewind", "end") and begun is not None:
            single, begun = single + e["step"] - begun, None
        if e["kind"] == "start":
            again, seen = again + max(0, seen - e["step"]), 0
            begun = e["step"] if "single steps" in e["text"] else None
    return rewinds, again, single


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--waters", type=int, choices=(64, 216), default=64)
    p.add_argument("--n-inner", type=int, default=6)
    p.add_argument("--time-ps", type=float, default=6.0)
    p.add_argument("--limit-eV-per-A", type=float, default=0.2, help="of the difference")
    p.add_argument("--sts-ps", type=float, default=0.012)
    p.add_argument("--guard-fs", type=float, default=12.0)
    p.add_argument("--checkpoints-fs", type=float, default=60.0)
    p.add_argument("--threads", type=int, default=2, help="of each driver")
    p.add_argument("--rounds", type=int, default=3)
    args = p.parse_args()
    box = ["--structure", REPOSITORY / f"ipi_inputs/water{args.waters}.extxyz"]
    box += ["--threads", args.threads, "--checkpoints-every-fs", args.checkpoints_fs]
    box += ["--keep-checkpoints", max(4, math.ceil(args.guard_fs / args.checkpoints_fs) + 3)]
    steps = ["--n-inner", args.n_inner, "--time-ps", args.time_ps]
    guard = {"guard_fs": args.guard_fs}
    low = {"difference_max_eV_per_A": args.limit_eV_per_A, "sts_ps": args.sts_ps}
    low |= {**guard, "rewinds_max": 1000, "rewinds_window_max": 1000}
    low |= {"rewinds_here_max": 100}
    rows = [
        f"{args.waters} waters, 1-{args.n_inner} fs, {args.time_ps:g} ps, {args.threads} threads "
        f"per driver; single steps for {1000 * args.sts_ps:g} fs, guard {args.guard_fs:g} fs, "
        f"checkpoints every {args.checkpoints_fs:g} fs",
        "round  rewinds  s of 10 ps  lost, s  done again  single steps  the rest",
    ]
    total: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for k in range(args.rounds):
            here = Path(scratch)
            options = [*box, "--seed", k + 1]
            sts = ["--mode", "sts", "--time-ps", 0.06]
            run(here / f"sts{k}", guard, *options, *sts)
            plain = run(here / f"off{k}", guard, *options, *steps)
            watched = run(here / f"on{k}", low, *options, *steps)
            rewinds, repeated, singles = count(watched)
            outer_s, inner_s = step_s(here / f"off{k}"), step_s(here / f"sts{k}")
            # i-PI starts once in both
            lost = wall_s(watched) - wall_s(plain)
            parts = {
                "lost": lost,
                "again": repeated * outer_s,
                "single": singles * (args.n_inner * inner_s - outer_s),
            }
            parts["rest"] = lost - parts["again"] - parts["single"]
            ten_ps = outer_s * 1e4 / args.n_inner
            for name, seconds in {**parts, "rewinds": rewinds, "ten_ps": ten_ps}.items():
                total[name] = total.get(name, 0.0) + seconds
            lost, again, single, rest = parts.values()
            rows.append(
                f"{k + 1:5d}  {rewinds:7d}  {ten_ps:10.1f}  {lost:7.2f}  {again:10.2f}  "
                f"{single:12.2f}  {rest:8.2f}"
            )
            print(rows[-1], flush=True)
    if total["rewinds"]:
        each = {
            name: total[name] / total["rewinds"] for name in ("lost", "again", "single", "rest")
        }
        ten_ps = total["ten_ps"] / args.rounds
        words = (f"{name} {x:.2f} s, {100 * x / ten_ps:.2f} %" for name, x in each.items())
        rows.append("a rewind: " + "; ".join(words))
    save(f"rewind_cost_{args.waters}", "\n".join(rows))


if __name__ == "__main__":
    main()
