#!/usr/bin/env python3
"""Speed of two checkouts, paired on one machine: A B, B A, A B ... and the ratios pair by pair.

    python benchmarks/paired_speed.py                             all below, three rounds
    python benchmarks/paired_speed.py --only overhead --rounds 7  what i-PI and exchange take
    python benchmarks/paired_speed.py --old /path/to/a/checkout --only speed --structure FILE

overhead: `outer_step_overhead.py` of each checkout, ms per outer step with models that cost nothing
(sockets, and the resident student): wall time with output, and CPU time of i-PI and drivers, which
other work on the machine changes least. speed: `speed.py` of each, ns/day of STS and of DMTS-NC
with the shipped models. Every figure is measured by the checkout's own script, code and .venv.

Printed are medians, and of the ratios new/old (time; ns/day: old/new, so that above 1 is always
slower) median, least and largest. Exit status 1 where a median ratio exceeds --limit (1.02).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
WAYS = ("sockets", "resident student")

WHERE = """
if Path(sys.argv[4]) not in Path(dmts_ipi.__file__).resolve().parents:
    sys.exit(f"dmts_ipi comes from {dmts_ipi.__file__}")
"""
OVERHEAD = (
    """
import argparse, json, sys
from pathlib import Path
import dmts_ipi, outer_step_overhead as script
"""
    + WHERE
    + """
args = argparse.Namespace(**json.loads(sys.argv[2]))
args.structure = Path(args.structure)
wall, output, ipi, drivers, beside = script.measure(sys.argv[1], args, Path(sys.argv[3]))
print(json.dumps({"wall, ms": output, "CPU, ms": ipi + drivers}))
"""
)
SPEED = (
    """
import json, sys
from pathlib import Path
import dmts_ipi, speed as script
"""
    + WHERE
    + """
print(json.dumps({"day/ns": 1 / script.ns_per_day(Path(sys.argv[3]), json.loads(sys.argv[2]))}))
"""
)


def measured(checkout: Path, code: str, *words: str) -> dict[str, float]:
    """What ``code`` prints as JSON with the Python and the benchmarks of a checkout.

    The last of ``words`` is the folder that ``code`` makes.

    Raises:
        SystemExit: it fails.
    """
    bin_folder = checkout / ".venv" / "bin"
    places = {"PATH": f"{bin_folder}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(bin_folder / "python"), "-W", "ignore", "-c", code, *words, str(checkout)],
        cwd=Path(words[-1]).parent,  # not in a checkout, whose package would come first
        env={**os.environ, **places, "PYTHONPATH": str(checkout / "benchmarks")},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"paired_speed: {checkout}: {done.stderr.strip()[-500:]}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def jobs(args: argparse.Namespace) -> dict[str, tuple[str, list[str]]]:
    """Code and its words, by what is measured."""
    found: dict[str, tuple[str, list[str]]] = {}
    structure = str(args.structure.resolve())
    if "overhead" in args.only:
        settings = {"structure": structure, "n_inner": args.n_inner, "steps": args.steps}
        for way in WAYS:
            words = [way, json.dumps({**settings, "teacher_ms": 3.0, "profile": 0})]
            found[f"overhead, {way}"] = OVERHEAD, words
    if "speed" in args.only:
        common = ["--structure", structure, "--threads", str(args.threads), "--seed", "1"]
        common += ["--device", "cpu"]
        sts = ["--mode", "sts", "--time-ps", str(args.speed_steps / 1000)]
        dmts = ["--n-inner", str(args.n_inner)]
        dmts += ["--time-ps", str(args.speed_steps * args.n_inner / 1000)]
        found["speed, STS"] = SPEED, ["", json.dumps([*common, *sts])]
        found["speed, DMTS-NC"] = SPEED, ["", json.dumps([*common, *dmts])]
    return found


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    old = HERE.parent / "base"
    p.add_argument("--old", type=Path, default=old, help=f"checkout with a .venv ({old})")
    p.add_argument("--new", type=Path, default=HERE, help="checkout with a .venv (this one)")
    p.add_argument(
        "--only", nargs="+", choices=["overhead", "speed"], default=["overhead", "speed"]
    )
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--structure", type=Path, default=HERE / "ipi_inputs" / "water64.extxyz")
    p.add_argument("--n-inner", type=int, default=6)
    p.add_argument("--steps", type=int, default=200, help="outer steps of a run (overhead)")
    p.add_argument("--speed-steps", type=int, default=60, help="outer steps of a run (speed)")
    p.add_argument("--threads", type=int, default=2, help="of each driver (speed)")
    p.add_argument("--limit", type=float, default=1.02, help="largest median ratio (1.02)")
    p.add_argument("--save", metavar="NAME", help="also into benchmarks/results/NAME.txt")
    args = p.parse_args()
    checkouts = {"old": args.old.resolve(), "new": args.new.resolve()}
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for k in range(args.rounds):
            order = list(checkouts) if k % 2 == 0 else list(checkouts)[::-1]
            for n, (what, (code, words)) in enumerate(jobs(args).items()):
                for name in order:
                    folder = Path(scratch) / f"{k}-{n}-{name}"
                    figures = measured(checkouts[name], code, *words, str(folder))
                    found.setdefault(what, {}).setdefault(name, []).append(figures)
                    text = ", ".join(f"{key} {value:.4g}" for key, value in figures.items())
                    print(f"# round {k + 1}: {what}, {name}: {text}", file=sys.stderr, flush=True)
    rows = [f"old: {described(checkouts['old'])}", f"new: {described(checkouts['new'])}"]
    rows += [f"{args.structure.name}, {args.n_inner} inner steps, {args.rounds} rounds"]
    rows += [f"{'':42s}{'old':>9s}{'new':>9s}{'ratio':>8s}{'least':>8s}{'largest':>9s}"]
    slower = False
    for what, runs in found.items():
        for key in runs["old"][0]:
            a, b = ([figures[key] for figures in runs[name]] for name in ("old", "new"))
            ratios = [y / x for x, y in zip(a, b, strict=True)]
            median = statistics.median(ratios)
            slower |= median > args.limit
            row = f"{f'{what}, {key}':42s}{statistics.median(a):9.3f}{statistics.median(b):9.3f}"
            rows.append(f"{row}{median:8.3f}{min(ratios):8.3f}{max(ratios):9.3f}")
    rows.append(f"a median ratio above {args.limit:g}: {'yes' if slower else 'none'}")
    print("\n".join(rows))
    if args.save:
        from common import save

        save(args.save, "\n".join(rows))
    return int(slower)


def described(checkout: Path) -> str:
    """Folder and commit of a checkout."""
    git = ["git", "-C", str(checkout), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip()
    return f"{checkout} ({commit or 'no git'})"


if __name__ == "__main__":
    sys.exit(main())
