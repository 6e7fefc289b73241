#!/usr/bin/env python3
"""How far each integrator and thermostat carries: liquid water, shipped models, against STS.

    python benchmarks/integrators.py list
    python benchmarks/integrators.py run respa-bonds-8fs-64 ...  # resumes; --replica 2: new seed
    python benchmarks/integrators.py table                       # of what there is by now

Names are SPLITTING-THERMOSTAT-OUTERfs-WATERS, and sts-THERMOSTAT-WATERS. Splittings: baoab, obabo
(i-PI's own), respa. Thermostats: 1ps (Langevin, 1/ps), hhf (10/ps on hydrogen), hhf_ffl (the same
by fast-forward Langevin), bonds (1/ps, and 50/ps along bonds), bonds_hhf, bonds20, bonds100 (20 and
100/ps along bonds), bonds_low (50/ps along bonds, 0.1/ps on atoms), svr (global, 100 fs), gle
(generalised Langevin: 1/ps, and 50/ps at the period of O-H stretches). 300 K, HMR +3 amu, inner
step 1 fs, 50 ps. STS is compared with at 1/ps, as the ensemble does not depend on the thermostat.
Figures are kept in results/integrators.jsonl by run and seed; the table averages over replicas.
--evaluation FILE (of `dmts-ipi evaluate --json`) gives the predicted heating, which is kept.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common import (
    DMTS,
    RESULTS,
    by_run,
    go_on,
    keep,
    mean_of,
    parse_runs,
    record_of,
    replica_of,
    replicas,
    runs_parser,
    save,
)

if TYPE_CHECKING:
    from dmts_ipi.analysis.tuning import Frictions

REPOSITORY = Path(__file__).resolve().parents[1]
RECORDS, HEATING = RESULTS / "integrators.jsonl", RESULTS / "integrators_heating.json"
FOLDER = REPOSITORY / "work/integrators"
KEYS = ("atoms", "O-H")
SPLITTINGS = {"baoab": "baoab", "obabo": "obabo", "respa": "baoab-respa"}
THERMOSTATS: dict[str, list[str]] = {
    "1ps": [],
    "hhf": ["--friction-by-element", "H=10"],
    "hhf_ffl": ["--friction-by-element", "H=10", "--thermostat", "ffl"],
    "bonds": ["--bond-friction-per-ps", "50"],
    "bonds_hhf": ["--bond-friction-per-ps", "50", "--friction-by-element", "H=10"],
}
HMR_AMU = 3.0
VARIANTS: dict[str, list[str]] = {  # with respa only
    "bonds20": ["--bond-friction-per-ps", "20"],
    "bonds_low": ["--bond-friction-per-ps", "50", "--friction-per-ps", "0.1"],
    "bonds100": ["--bond-friction-per-ps", "100"],
}
OF_IPI: dict[str, list[str]] = {  # with every splitting
    "svr": ["--thermostat", "svr", "--friction-per-ps", "10"],
    "gle": [],
}
OUTER_FS = (3, 4, 5, 6, 8, 10, 12)
SIZES = (64, 216)
PS, KELVIN = 50.0, 300.0
SHORTEST_PS = 10.0  # for a temperature with an error bar; the heating is known before


def names() -> dict[str, list[str]]:
    """Every run and its options of ``init``. New ones go to the end: seeds follow from places."""
    found: dict[str, list[str]] = {}

    def add(size: int, splittings: Iterable[str], thermostats: dict[str, list[str]]) -> None:
        for splitting, (thermostat, options) in product(splittings, thermostats.items()):
            for outer in OUTER_FS:
                steps = ["--splitting", SPLITTINGS[splitting], "--n-inner", str(outer)]
                name = f"{splitting}-{thermostat}-{outer}fs-{size}"
                found[name] = [*box(size), *steps, *options]

    for size in SIZES:
        for thermostat, options in THERMOSTATS.items():
            found[f"sts-{thermostat}-{size}"] = ["--mode", "sts", *box(size), *options]
        add(size, SPLITTINGS, THERMOSTATS)
    for size in SIZES:
        add(size, ["respa"], VARIANTS)
    for size in SIZES:
        add(size, SPLITTINGS, OF_IPI)
    return found


def box(waters: int) -> list[str]:
    """Options of ``init`` for a box of water."""
    return ["--structure", str(REPOSITORY / f"ipi_inputs/water{waters}.extxyz")]


def coloured(
    white_per_ps: float = 1.0,
    peak_per_ps: float = 50.0,
    period_fs: float = 16.6,
    width_per_fs: float = 0.02,
) -> np.ndarray:
    """Drift matrix (3, 3), 1/fs, of a generalised Langevin equation with a peak of friction.

    Its memory is 2 white delta(t) + g^2 exp(-width t) cos(w t), so that friction at w is white +
    g^2 / (2 width), and g^2 width / (width^2 + w^2) above white at frequency zero.
    """
    w, g = 2 * np.pi / period_fs, math.sqrt(2e-3 * width_per_fs * peak_per_ps)
    white = 1e-3 * white_per_ps
    return np.array([[white, g, 0.0], [-g, width_per_fs, w], [0.0, -w, width_per_fs]])


def with_coloured(xml: str) -> str:
    """An input with that in the place of its thermostat."""
    from ipi.utils.units import unit_to_internal

    drift = coloured() / unit_to_internal("time", "femtosecond", 1.0)
    new = f"<thermostat mode='gle'><A shape='(3, 3)'>{drift.ravel().tolist()}</A></thermostat>"
    found, count = re.subn("<thermostat mode=.*?</thermostat>", new, xml, flags=re.DOTALL)
    assert count == 1, "one thermostat in an input of init"
    return found


def run(
    wanted: list[str],
    folder: Path,
    threads: int,
    replica: int,
    ps: float,
    program: Sequence[str] = DMTS,
) -> None:
    """Runs these, each in its folder, by that program in the place of ``dmts-ipi``."""
    runs = names()
    for name in wanted:
        target = replica_of(folder, name, replica)
        seed = 1000 * replica + list(runs).index(name)
        options = ["--seed", seed, "--threads", threads, "--inner-fs", 1]
        edit = with_coloured if "-gle-" in name else str
        go_on(target, *options, *runs[name], time_ps=ps, edit=edit, program=program)


def record(name: str, folder: Path) -> dict | None:
    """Figures of one run; None before it has any."""
    from dmts_ipi.analysis.measure import measure
    from dmts_ipi.analysis.observables.conserved import CONSERVED
    from dmts_ipi.analysis.observables.force_difference import FORCE_DIFFERENCE
    from dmts_ipi.analysis.observables.temperature import TEMPERATURE
    from dmts_ipi.analysis.run_data import read_run
    from dmts_ipi.core.errors import InputError
    from dmts_ipi.core.units import KB_EV_PER_K
    from dmts_ipi.ipi.run_folder.folder import RunFolder

    summary = RunFolder(folder).summary() or {}
    end = summary.get("exit", "runs")
    try:
        m = measure(read_run(folder))
    except InputError as error:
        if not summary:
            return None
        seed = RunFolder(folder).config.seed
        return {"run": name, "seed": seed, "ps": 0.0, "exit": f"{end}; {error}"}
    drift, log = CONSERVED.of(m).drift, FORCE_DIFFERENCE.get(m)
    return {
        **record_of(name, folder, m),
        "exit": end,
        "rewinds": sum(e.kind == "rewind" for e in (log.events if log else [])),
        "by_forces": TEMPERATURE.of(m).expected_by_forces,
        "heating_K_per_ps": [x / (3000 * KB_EV_PER_K) for x in (drift.mean, drift.stderr)],
    }


def reference(name: str) -> str:
    """The STS run of the same size."""
    return f"sts-1ps-{name.rpartition('-')[2]}"


def expected_of(several: list[dict], known: list[dict], key: str) -> float:
    """Kelvin: of forces, over all runs of the inner step that have the bias of BAOAB's middle
    (same teacher, masses and temperature), or 300 where a run has none."""
    own = [one["kelvin"][key][2] for one in several if key in one.get("kelvin", {})]
    if not own or own[0] == KELVIN:
        return own[0] if own else math.nan
    found = [(one["kelvin"][key][2], one["ps"]) for one in known if one["kelvin"][key][2] < KELVIN]
    return sum(x * ps for x, ps in found) / sum(ps for _, ps in found) if found else own[0]


def damping(options: list[str]) -> Frictions:
    """What takes heat out of 64 waters, by a run's options of ``init``."""
    from ase.io import read

    from dmts_ipi.analysis.tuning import frictions
    from dmts_ipi.core.molecules import bonds, repartition_hydrogen_mass

    p = argparse.ArgumentParser()
    p.add_argument("--friction-per-ps", type=float, default=1.0)
    p.add_argument("--friction-by-element", default="H=")
    p.add_argument("--bond-friction-per-ps", type=float, default=0.0)
    given, _ = p.parse_known_args(options)
    atoms = read(REPOSITORY / "ipi_inputs/water64.extxyz")
    pairs, _ = bonds(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)
    hydrogen = float(given.friction_by_element.partition("=")[2] or given.friction_per_ps)
    return frictions(
        np.where(atoms.numbers == 1, hydrogen, given.friction_per_ps),
        repartition_hydrogen_mass(atoms.get_masses(), atoms.numbers, pairs, HMR_AMU),
        pairs,
        given.bond_friction_per_ps,
    )


def predicted(evaluation: Path | None) -> dict[str, list[float]]:
    """By outer step in fs: predicted heating, its error, what of it goes into stretches, K/ps.

    Kept beside the records when an evaluation is given, and read from there when none is.
    """
    if evaluation is not None:
        said = json.loads(evaluation.read_text())
        parts = (
            said["predicted_heating_K_per_ps"],
            said["predicted_heating_stderr_K_per_ps"],
            said["predicted_heating_by_motion_K_per_ps"]["stretch"],
        )
        by_outer_fs = {outer: [part[outer] for part in parts] for outer in parts[0]}
        HEATING.write_text(json.dumps(by_outer_fs) + "\n")
    return json.loads(HEATING.read_text()) if HEATING.exists() else {}


@dataclass(frozen=True)
class Row:
    """A run, over its replicas. Temperatures: mean, error, what is expected without heating."""

    name: str
    records: list[dict]
    known: list[dict]
    heating: list[float] | None
    zero_meV: float

    @property
    def power(self) -> tuple[float, float]:
        """Measured heating and its error, K/ps."""
        return mean_of(self.records, "heating_K_per_ps")

    @property
    def long(self) -> bool:
        """Whether temperatures have an error bar."""
        return sum(one["ps"] for one in self.records) >= SHORTEST_PS

    def kelvin(self, key: str) -> tuple[float, float, float]:
        """Of "atoms" or "O-H"."""
        return *mean_of(self.records, "kelvin", key), expected_of(self.records, self.known, key)

    @property
    def rise(self) -> dict[str, float]:
        """What the measured heating makes of atoms and of O-H bonds, K, if bonds exchange none."""
        if not self.heating or self.heating[0] <= 0 or self.name.split("-")[1] in OF_IPI:
            return dict.fromkeys(KEYS, math.nan)
        held = damping(names()[self.name])
        part = min(max(self.heating[2] / self.heating[0], 0.0), 1.0)
        excess = held.atoms(part), held.bonds(part)
        return {key: self.power[0] * x for key, x in zip(KEYS, excess, strict=True)}

    def __str__(self) -> str:
        cells = []
        for key in KEYS:
            mean, error, expected = self.kelvin(key)
            off = (mean - expected) / error
            cells.append(f"{mean:6.1f}+-{error:4.1f} ({expected:5.1f} {off:+5.1f})")
        rise = " ".join(f"{x:+5.1f}" for x in self.rise.values() if math.isfinite(x))
        if not self.long:
            cells, rise = ["too short"] * len(KEYS), ""
        energy, e_error = mean_of(self.records, "potential_meV_per_atom")
        d, d_error = mean_of(self.records, "diffusion_A2_per_ps")
        p = "{:.2f}+-{:.2f}".format(*self.heating) if self.heating else ""
        ends = sorted({str(r["exit"]).split(";")[0][:60] for r in self.records} - {"finished"})
        return (
            f"{self.name:26s} {len(self.records):5d} {sum(r['ps'] for r in self.records):6.1f} "
            f"{sum(r.get('rewinds', 0) for r in self.records):7d} {p:>11s} "
            + "{:7.2f}+-{:5.2f}".format(*self.power)
            + f" {rise:>12s} "
            + " ".join(f"{c:>26s}" for c in cells)
            + f" {energy - self.zero_meV:8.2f}+-{e_error:4.2f} {d:8.4f}+-{d_error:6.4f} "
            + ("; ".join(ends) or "finished")
        )


def table(folder: Path, evaluation: Path | None) -> None:
    runs, new = names(), []
    for name in runs:
        new += [one for f in replicas(folder, name) if (one := record(name, f)) is not None]
    groups = by_run(keep(RECORDS, new, list(runs)))
    known = [one for several in groups.values() for one in several if one.get("by_forces")]
    heating = predicted(evaluation)
    rows = []
    for name, several in groups.items():
        zero, _ = mean_of(groups.get(reference(name), []), "potential_meV_per_atom")
        outer = name.split("fs")[0].rpartition("-")[2]
        rows.append(Row(name, several, known, heating.get(outer), zero))
    text = [
        "K, mean +- standard error; in brackets what the integrator's own bias lets one expect",
        "(obabo, and baoab with an even number of inner steps: 300), and the distance in errors",
        "P: predicted heating; heating: by the slope of the conserved quantity, which counts the "
        "thermostat's heat; both K/ps of 3N kB",
        "rise: what this heating makes of atoms and of bonds, K, if bonds and other motions "
        "exchange no heat (where all have one friction that of atoms is the same if they do)",
        "E: against STS of the same size",
        f"{'run':26s} {'seeds':>5s} {'ps':>6s} {'rewinds':>7s} {'P, K/ps':>11s} {'heating':>14s} "
        f"{'rise':>12s} {'atoms':>26s} {'O-H bonds':>26s} {'E, meV/atom':>14s} "
        f"{'D, A^2/ps':>16s} end",
        *map(str, rows),
    ]
    grid = {f"{s}-{t}-10fs-64" for s in SPLITTINGS for t in THERMOSTATS}
    for key in KEYS:
        found = [(*row.kelvin(key), row.rise[key]) for row in rows if row.name in grid]
        if not found:
            continue
        mean, error, expected, rise = np.array(found).T
        weight = error**-2
        off = np.average(mean - expected, weights=weight)
        text.append(
            f"{len(found)} runs of 64 waters at 10 fs, {key}: {off:+.1f}+-"
            f"{weight.sum() ** -0.5:.1f} K from what is expected, weighted; "
            f"rise {np.average(rise, weights=weight):+.1f}; "
            f"furthest {np.abs((mean - expected) / error).max():.1f} errors"
        )
    save("integrators", "\n".join(text).replace("nan", "-"))


def main() -> None:
    p = runs_parser(__doc__, FOLDER)
    p.add_argument("--time-ps", type=float, default=PS, help="length of new runs, ps")
    p.add_argument("--evaluation", type=Path, help="JSON of `dmts-ipi evaluate --json`")
    args = parse_runs(p, names())
    if args.what == "run":
        if not args.names:
            p.error("name runs; see list")
        run(args.names, args.folder, args.threads, args.replica, args.time_ps)
    elif args.what == "table":
        table(args.folder, args.evaluation)


if __name__ == "__main__":
    main()
