#!/usr/bin/env python3
"""Long runs of liquid water with the shipped models: temperatures and structure against STS.

    python benchmarks/water_physics.py run sts64 1-6fs-64 ...   # or no name: all; resumes
    python benchmarks/water_physics.py table                    # of what there is by now

Runs are made by `dmts-ipi init` and `dmts-ipi run` in work/physics (--folder). Settings are those
of the figures in README: 300 K, friction 1/ps, HMR +3 amu, inner step 1 fs.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from pathlib import Path

from common import save

REPOSITORY = Path(__file__).resolve().parents[1]
# name: structure, mode, n_inner, ps
RUNS: dict[str, tuple[str, str, int, float]] = {
    "sts-64": ("water64", "sts", 1, 80),
    "1-5fs-64": ("water64", "dmts", 5, 80),
    "1-6fs-64": ("water64", "dmts", 6, 80),
    "1-7fs-64": ("water64", "dmts", 7, 80),
    "1-8fs-64": ("water64", "dmts", 8, 80),
    "nve-sts-64": ("water64", "sts", 1, 5),
    "nve-1-3fs-64": ("water64", "dmts", 3, 10),
    "sts-216": ("water216", "sts", 1, 24),
    "1-5fs-216": ("water216", "dmts", 5, 30),
    "1-6fs-216": ("water216", "dmts", 6, 30),
}


def run(names: list[str], folder: Path, threads: int) -> None:
    for name in names:
        structure, mode, n_inner, ps = RUNS[name]
        target = folder / name
        dmts = [sys.executable, "-W", "ignore", "-m", "dmts_ipi.cli"]
        if not (target / "run.yaml").exists():
            ensemble = "nve" if name.startswith("nve") else "nvt"
            seed = 1000 + list(RUNS).index(name)
            options = f"--ensemble {ensemble} --mode {mode} --inner-fs 1 --time-ps {ps}".split()
            options += f"--seed {seed} --threads {threads}".split()
            options += ["--structure", str(REPOSITORY / f"ipi_inputs/{structure}.extxyz")]
            options += ["--n-inner", str(n_inner)] if mode == "dmts" else []
            subprocess.run([*dmts, "init", str(target), *options], check=True)
        subprocess.run([*dmts, "run", str(target)], check=False)


def table(folder: Path) -> None:
    from dmts_ipi.analysis.measure import Measured, measure
    from dmts_ipi.analysis.rdf import find_pair
    from dmts_ipi.analysis.source import read_run

    def kelvin(m: Measured, name: str) -> str:
        if name not in m.kinetic:
            return "-"
        e = m.kinetic[name]
        return f"{e.mean:6.1f}+-{e.stderr:3.1f} ({m.expected[name]:5.1f})"

    def peak(m: Measured) -> float:
        pair = find_pair(m.distributions, "O-O")
        return math.nan if pair is None or pair.peak is None else pair.peak.height

    measured = {
        n: measure(read_run(folder / n)) for n in RUNS if (folder / n / "md.properties").exists()
    }
    rows = [
        "temperatures in K, mean +- standard error (expected with BAOAB's bias)",
        f"{'run':10s} {'ps':>5s} {'atoms':>21s} {'H':>21s} {'O':>21s} {'O-H bonds':>21s}"
        f" {'O-O peak':>9s} {'vs STS':>7s} {'ns/day':>7s} {'drift, meV/atom/ps':>19s}",
    ]
    for name, m in measured.items():
        reference = measured.get(f"sts-{name.split('-')[-1]}")
        against = "-" if reference is None else f"{100 * (peak(m) / peak(reference) - 1):+.1f}%"
        rows.append(
            f"{name:10s} {m.time_ps[-1]:5.1f} "
            + " ".join(f"{kelvin(m, k):>21s}" for k in ("atoms", "H", "O", "O-H"))
            + f" {peak(m):9.3f} {against:>7s} {m.run.ns_per_day:7.3f}"
        )
    save("water_physics", "\n".join(rows))


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("what", choices=["run", "table"])
    p.add_argument("names", nargs="*", help=f"of {', '.join(RUNS)}")
    p.add_argument("--folder", type=Path, default=REPOSITORY / "work/physics")
    p.add_argument("--threads", type=int, default=2, help="of each driver")
    args = p.parse_args()
    unknown = set(args.names) - set(RUNS)
    if unknown:
        p.error(f"unknown run {sorted(unknown)[0]}; known: {', '.join(RUNS)}")
    if args.what == "run":
        run(args.names or list(RUNS), args.folder, args.threads)
    else:
        table(args.folder)


if __name__ == "__main__":
    main()
