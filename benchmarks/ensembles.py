#!/usr/bin/env python3
"""Ensembles of liquid water by DMTS-NC: density against STS, and distributions.

    python benchmarks/ensembles.py run npt-sts npt-1-4fs ...   # or no name: all; resumes
    python benchmarks/ensembles.py run npt-sts --replica 2     # the same, another seed
    python benchmarks/ensembles.py table                       # of what there is by now
    python benchmarks/ensembles.py run --teacher work/energy --longer 4 --folder work/fast

64 waters, friction 1/ps, HMR +3 amu, inner step 1 fs, volume relaxed in 300 fs, shipped models.
With --teacher the full model is another one, such as a conservative student, some times cheaper:
whether ensembles are right is the integrator's business, and density needs 70 ps for 0.5 %. The
table gives density and pressure of NPT at 1-4 fs beside STS, and what `physical_validation` says:
kinetic energies of each run against their exact distribution at the temperature that BAOAB reads,
volumes of two pressures and energies of two temperatures against each other, which needs no model
of the liquid. Its figures are standard errors, to be below 3. Kinetic energies are thinned by their
statistical inefficiency. Volumes and energies are slower: every tenth sample is taken, as
histograms need many, and errors are multiplied by the root of the inefficiency that is left. (The
choice of physical_validation, pymbar's detect_equilibration, keeps 70 of 5,300 still correlated.)
"""

from __future__ import annotations

import contextlib
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common import combined, go_on, parse_runs, replica_of, replicas, runs_parser, save

if TYPE_CHECKING:
    from dmts_ipi.analysis.measure import Measured
    from dmts_ipi.core.statistics import Estimate

REPOSITORY = Path(__file__).resolve().parents[1]
TEACHER = "water-teacher"
DMTS = ["--mode", "dmts", "--n-inner", "4"]
# name: ensemble, K, bar, ps, options of init
RUNS: dict[str, tuple[str, float, float, float, list[str]]] = {
    "npt-sts": ("npt", 300, 1, 40, ["--mode", "sts"]),
    "npt-1-4fs": ("npt", 300, 1, 80, DMTS),
    "npt-1-4fs-1kbar": ("npt", 300, 1000, 80, DMTS),
    "nvt-1-4fs": ("nvt", 300, 1, 80, DMTS),
    "nvt-1-4fs-330K": ("nvt", 330, 1, 80, DMTS),
}
THIN = 10  # samples of 10 fs
PAIRS = {
    "volumes of 1 and 1000 bar": ("npt-1-4fs", "npt-1-4fs-1kbar"),
    "energies of 300 and 330 K": ("nvt-1-4fs", "nvt-1-4fs-330K"),
}


def run(
    names: list[str], folder: Path, threads: int, replica: int, teacher: str, longer: float
) -> None:
    for name in names:
        ensemble, kelvin, bar, ps, options = RUNS[name]
        target = replica_of(folder, name, replica)
        fixed = f"--ensemble {ensemble} --temperature-K {kelvin} --inner-fs 1 --teacher {teacher}"
        fixed += " --accept-foreign-student" if teacher != TEACHER and name != "npt-sts" else ""
        seed = 1000 * replica + list(RUNS).index(name)
        words = [*fixed.split(), "--seed", seed, "--threads", threads, *options]
        words += ["--pressure-bar", bar, "--barostat-tau-fs", 300] if ensemble == "npt" else []
        words += ["--structure", REPOSITORY / "ipi_inputs/water64.extxyz"]
        go_on(target, *words, time_ps=ps * longer)


def physical(several: list[Measured], bar: float, kelvin: float, thin: int) -> object:
    """Every thin-th sample of replicas as `physical_validation` takes it, in units of GROMACS."""
    import physical_validation as pv

    def thinned(name: str) -> np.ndarray:
        return np.concatenate([m.run.properties[name][m.used][::thin] for m in several])

    r = several[0].run
    kj_mol, n = 96.48533212, len(r.numbers)
    system = pv.data.SystemData(
        natoms=n, nconstraints=0, ndof_reduction_tra=3 if r.fixcom else 0, ndof_reduction_rot=0,
        mass=r.masses_amu,
    )  # fmt: skip
    volume_nm3 = float(abs(np.linalg.det(r.cell))) * 1e-3
    npt = r.ensemble == "npt"
    more = {"pressure": bar} if npt else {"volume": volume_nm3}
    ensemble = pv.data.EnsembleData(r.ensemble.upper(), natoms=n, temperature=kelvin, **more)
    kinetic = thinned("kinetic_eV") * kj_mol
    seen = pv.data.ObservableData(
        kinetic_energy=kinetic,
        potential_energy=thinned("potential_eV") * kj_mol,
        volume=thinned("volume_A3") * 1e-3 if npt else np.full(len(kinetic), volume_nm3),
    )
    return pv.data.SimulationData(
        units=pv.data.UnitData.units("GROMACS"),
        dt=r.outer_fs * 1e-3,
        system=system,
        ensemble=ensemble,
        observables=seen,
    )


def table(folder: Path, name_of_result: str) -> None:
    import physical_validation as pv

    from dmts_ipi.analysis.measure import measure
    from dmts_ipi.analysis.observables.constant_pressure import CONSTANT_PRESSURE
    from dmts_ipi.analysis.observables.potential import POTENTIAL
    from dmts_ipi.analysis.observables.temperature import TEMPERATURE
    from dmts_ipi.analysis.run_data import read_run
    from dmts_ipi.core.errors import InputError
    from dmts_ipi.core.statistics import statistical_inefficiency

    def npt_of(m: Measured) -> dict[str, Estimate]:
        state = CONSTANT_PRESSURE.get(m)
        return state.means if state is not None else {}

    found: dict[str, list[Measured]] = {}
    for name in RUNS:
        for replica in replicas(folder, name):
            with contextlib.suppress(InputError):
                found.setdefault(name, []).append(measure(read_run(replica)))
    rows = [
        f"{'run':18s} {'seeds':>5s} {'ps':>6s} {'atoms, K':>20s} {'density, g/cm3':>16s} "
        f"{'pressure, bar':>15s}  densities of the seeds"
    ]
    for name, several in found.items():
        ps = [float(m.time_ps[-1]) for m in several]
        kelvin = [TEMPERATURE.of(m) for m in several]
        npt = [npt_of(m) for m in several]

        def mean(of: list[Estimate], digits: int, ps: list[float] = ps) -> str:
            values = [(e.mean, e.stderr, t) for e, t in zip(of, ps, strict=True)]
            return "{:.{d}f}+-{:.{d}f}".format(*combined(values), d=digits)

        atoms = mean([t.kinetic["atoms"] for t in kelvin], 1)
        cells = [f"{atoms} ({kelvin[0].expected['atoms']:.1f})"]
        for key, digits in (("density_g_cm3", 4), ("pressure_bar", 0)):
            known = [means[key] for means in npt if key in means]
            cells.append(mean(known, digits) if known else "-")
        each = [means.get("density_g_cm3") for means in npt] if len(several) > 1 else []
        rows.append(
            f"{name:18s} {len(several):5d} {sum(ps):6.1f} {cells[0]:>20s} {cells[1]:>16s} "
            f"{cells[2]:>15s}  " + " ".join(f"{e.mean:.4f}+-{e.stderr:.4f}" for e in each if e)
        )
    rows += ["", "physical_validation, standard errors (below 3)"]
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        for name, several in found.items():
            fast = max(
                statistical_inefficiency(m.run.properties["kinetic_eV"][m.used]) for m in several
            )
            # BAOAB's momenta are colder by a known part (docs/analysis.md)
            wanted = TEMPERATURE.of(several[0]).expected["atoms"]
            one = physical(several, RUNS[name][2], wanted, math.ceil(fast))
            mean, width = pv.kinetic_energy.distribution(
                one, strict=False, verbosity=1, data_is_uncorrelated=True
            )
            rows.append(f"{name:18s} kinetic energy: mean {mean:.2f}, width {width:.2f}")
        for what, names in PAIRS.items():
            if set(names) <= set(found):
                both = [m for n in names for m in found[n]]
                slow = [
                    npt_of(m).get("density_g_cm3", POTENTIAL.of(m).mean).inefficiency for m in both
                ]
                pair = (physical(found[n], RUNS[n][2], RUNS[n][1], THIN) for n in names)
                try:
                    off = pv.ensemble.check(
                        *pair, total_energy=False, verbosity=1, data_is_uncorrelated=True
                    )
                    # each sample counts THIN / slow: errors are that much larger
                    more = math.sqrt(max(max(slow) / THIN, 1.0))
                    text = ", ".join(f"{x / more:.2f}" for x in np.atleast_1d(off))
                except pv.util.error.InputError as error:  # too few samples for its histograms
                    text = f"too short ({str(error.args[-1]).splitlines()[0]})"
                rows.append(f"{what}: {text}")
    rows += ["", said.getvalue().strip()]
    save(name_of_result, "\n".join(rows))


def main() -> None:
    p = runs_parser(__doc__, REPOSITORY / "work/ensembles")
    p.add_argument("--teacher", default=TEACHER)
    p.add_argument("--longer", type=float, default=1.0, help="factor of the lengths of runs")
    p.add_argument("--name", default="ensembles", help="of the result")
    args = parse_runs(p, RUNS)
    if args.what == "run":
        run(
            args.names or list(RUNS),
            args.folder,
            args.threads,
            args.replica,
            args.teacher,
            args.longer,
        )
    elif args.what == "table":
        table(args.folder, args.name)


if __name__ == "__main__":
    main()
