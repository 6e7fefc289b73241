#!/usr/bin/env python3
"""Long runs of liquid water with the shipped models: temperatures and structure against STS.

    python benchmarks/water_physics.py run sts-64 1-6fs-64 ...   # or no name: all; resumes
    python benchmarks/water_physics.py run sts-64 --replica 2    # another seed
    python benchmarks/water_physics.py table                     # of what there is by now

Runs are made by `dmts-ipi init` and `dmts-ipi run` in work/physics (--folder). Settings are those
of the figures in README: 300 K, friction 1/ps, HMR +3 amu, inner step 1 fs. `table` keeps the
figures of each run and seed in results/water_physics.jsonl, and prints means over all replicas
there: a long sum can be gathered over days and machines.
"""

from __future__ import annotations

import math
from pathlib import Path

from common import (
    RESULTS,
    combined,
    go_on,
    keep,
    parse_runs,
    record_of,
    replica_of,
    replicas,
    runs_parser,
    save,
)

REPOSITORY = Path(__file__).resolve().parents[1]
# name: structure, mode, n_inner, ps; those in -baoab by i-PI's own splitting, others by init's
RUNS: dict[str, tuple[str, str, int, float]] = {
    "sts-64": ("water64", "sts", 1, 80),
    "1-5fs-64": ("water64", "dmts", 5, 104),
    "1-6fs-64": ("water64", "dmts", 6, 120),
    "1-7fs-64": ("water64", "dmts", 7, 80),
    "1-8fs-64": ("water64", "dmts", 8, 80),
    "1-5fs-64-baoab": ("water64", "dmts", 5, 80),
    "1-6fs-64-baoab": ("water64", "dmts", 6, 80),
    "nve-sts-64": ("water64", "sts", 1, 5),
    "nve-1-3fs-64": ("water64", "dmts", 3, 10),
    "sts-216": ("water216", "sts", 1, 34),
    "1-5fs-216": ("water216", "dmts", 5, 34),
    "1-6fs-216": ("water216", "dmts", 6, 30),
}


RECORDS = RESULTS / "water_physics.jsonl"
COLUMNS = ("atoms", "H", "O", "O-H")


def run(names: list[str], folder: Path, threads: int, replica: int) -> None:
    for name in names:
        structure, mode, n_inner, ps = RUNS[name]
        target = replica_of(folder, name, replica)
        ensemble = "nve" if name.startswith("nve") else "nvt"
        seed = 1000 * replica + list(RUNS).index(name)
        options = f"--ensemble {ensemble} --mode {mode} --inner-fs 1".split()
        options += f"--seed {seed} --threads {threads}".split()
        options += ["--structure", str(REPOSITORY / f"ipi_inputs/{structure}.extxyz")]
        options += ["--n-inner", str(n_inner)] if mode == "dmts" else []
        options += ["--splitting", "baoab"] if name.endswith("-baoab") else []
        go_on(target, *options, time_ps=ps)


def record(name: str, folder: Path) -> dict[str, object]:
    """Figures of one run, as they are kept."""
    from dmts_ipi.analysis.measure import measure
    from dmts_ipi.analysis.observables.conserved import CONSERVED
    from dmts_ipi.analysis.observables.pair_distribution import PAIR_DISTRIBUTION
    from dmts_ipi.analysis.rdf import find_pair
    from dmts_ipi.analysis.run_data import read_run
    from dmts_ipi.ipi.run_folder.folder import RunFolder

    m = measure(read_run(folder))
    pair = find_pair(PAIR_DISTRIBUTION.get(m) or [], "O-O")
    conserved = CONSERVED.of(m)
    config = RunFolder(folder).config
    return {
        **record_of(name, folder, m),
        "student": "" if config.student is None else config.student.identity[:8],
        "oo_peak": [math.nan] * 2
        if pair is None or pair.peak is None
        else [pair.peak.height, pair.peak.stderr],
        "drift_meV_per_atom_ps": [conserved.drift.mean, conserved.drift.stderr],
        "heating_K": [conserved.heating_K.mean, conserved.heating_K.stderr],
    }


def gather(folder: Path) -> list[dict]:
    """All records: those kept, and those of the runs in the folder, which replace their own."""
    new = [record(name, f) for name in RUNS for f in replicas(folder, name)]
    return keep(RECORDS, new, list(RUNS))


def _mean(records: list[dict], key: str) -> tuple[float, float]:
    """Over replicas, by time; NaN where an older record has no such figure."""
    missing = [math.nan, math.nan]
    return combined([(*(r.get(key) or missing), r["ps"]) for r in records])


def table(folder: Path) -> None:
    groups: dict[tuple[str, str], list[dict]] = {}
    for one in gather(folder):
        groups.setdefault((one["run"], one["student"]), []).append(one)
    rows = [
        "temperatures in K, mean +- standard error (expected with BAOAB's bias); O-O: first peak",
        "where 297.9 and 290.5 K are expected, by bonds alone, without forces (docs/analysis.md)",
        f"{'run':14s} {'student':8s} {'seeds':>5s} {'ps':>6s} "
        + " ".join(f"{c:>19s}" for c in ("atoms", "H", "O", "O-H bonds"))
        + f" {'heating, K':>14s} {'E, meV/atom':>15s} {'O-O':>12s} {'drift, meV/atom/ps':>19s}"
        + f" {'ns/day':>7s}",
    ]
    zero = None
    for (name, student), several in groups.items():
        cells = []
        for key in COLUMNS:
            values = [(*r["kelvin"][key][:2], r["ps"]) for r in several if key in r["kelvin"]]
            mean, error = combined(values)
            cells.append(f"{mean:6.1f}+-{error:4.1f} ({several[0]['kelvin'][key][2]:5.1f})")
        energy, e_error = _mean(several, "potential_meV_per_atom")
        zero = energy if zero is None else zero
        peak, p_error = _mean(several, "oo_peak")
        drift, d_error = _mean(several, "drift_meV_per_atom_ps")
        heating, h_error = _mean(several, "heating_K")
        ps = sum(r["ps"] for r in several)
        rows.append(
            f"{name:14s} {student:8s} {len(several):5d} {ps:6.1f} "
            + " ".join(f"{c:>19s}" for c in cells)
            + f" {heating:7.3f}+-{h_error:5.3f} {energy - zero:9.2f}+-{e_error:4.2f}"
            + f" {peak:6.3f}+-{p_error:4.2f} {drift:11.4f}+-{d_error:6.4f}"
            + f" {several[-1]['ns_per_day'] or math.nan:7.3f}"
        )
    rows.append(
        "heating: excess temperature by the slope of the conserved quantity, which counts all heat "
        "of the thermostat."
    )
    rows.append("E is relative to the first row. ns/day: of the last run, other work beside it.")
    rows.append("student: its hash, as `dmts-ipi models` gives it, so of an older one in part.")
    save("water_physics", "\n".join(rows))


def main() -> None:
    p = runs_parser(__doc__, REPOSITORY / "work/physics")
    args = parse_runs(p, RUNS)
    if args.what == "run":
        run(args.names or list(RUNS), args.folder, args.threads, args.replica)
    elif args.what == "table":
        table(args.folder)


if __name__ == "__main__":
    main()
