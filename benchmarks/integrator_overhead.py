#!/usr/bin/env python3
"""What the integrator costs: milliseconds of one outer step of six inner ones, forces for nothing.

    python benchmarks/integrator_overhead.py [--copies 1 2 ...] [--blocks 30]

216 waters (648 atoms) and copies of the box, `<ffdirect>` with a potential that is zero, fixcom
False, no output: what is left is i-PI and the integrator. "floor" is the same arithmetic as a
plain NumPy loop, random numbers and two forces of zeros included. Atoms are cold, so that they stay
in place for the bond thermostat. The least of all blocks counts: others on the machine only add.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase.io import read, write

from common import save

N_INNER = 6
STEPS = 10  # per block
INPUTS = Path(__file__).resolve().parents[1] / "ipi_inputs"
TAU = "<tau units='femtosecond'>1000</tau>"
HHF = TAU + "<local_tau names='H' units='femtosecond'>100</local_tau>"
BONDS = HHF + (
    "<bonds names='O, H'><tau units='femtosecond'>20</tau><range units='angstrom'>[1.25, 1.5]"
    "</range></bonds><bonds names='H, H'><tau units='femtosecond'>20</tau>"
    "<range units='angstrom'>[1.75, 1.9]</range></bonds>"
)
BAROSTAT = (
    "<barostat mode='isotropic'><tau units='femtosecond'>2000</tau>"
    f"<thermostat mode='langevin'>{TAU}</thermostat></barostat>"
)
# name: ensemble, splitting, thermostat mode, what is inside it, the rest of <dynamics>
RUNS: dict[str, tuple[str, str, str, str, str]] = {
    "stock baoab, one O per outer step": ("nvt", "baoab", "langevin", TAU, ""),
    "baoab-respa, NVE": ("nve", "baoab-respa", "", "", ""),
    "baoab-respa": ("nvt", "baoab-respa", "langevin", TAU, ""),
    "baoab-respa, HHF": ("nvt", "baoab-respa", "langevin", HHF, ""),
    "baoab-respa, HHF by FFL": ("nvt", "baoab-respa", "ffl", HHF, ""),
    "baoab-respa, HHF and bonds": ("nvt", "baoab-respa", "langevin", BONDS, ""),
    "stock baoab, NPT": ("npt", "baoab", "langevin", TAU, BAROSTAT),
    "baoab-respa, NPT": ("npt", "baoab-respa", "langevin", TAU, BAROSTAT),
}
PES = """
import numpy as np
from ipi.pes.dummy import Dummy_driver
__DRIVER_NAME__ = "nothing"
__DRIVER_CLASS__ = "Nothing"
class Nothing(Dummy_driver):
    def check_parameters(self): pass
    def compute_structure(self, cell, pos):
        return 0.0, np.zeros((len(pos), 3)), np.eye(3) * 1e-9, ""
"""


def input_xml(name: str, folder: Path) -> str:
    ensemble, splitting, mode, inside, rest = RUNS[name]
    fields = "".join(
        f"<ffdirect name='{n}' pbc='False'><pes>custom</pes><pes_path>{folder / 'pes.py'}"
        "</pes_path></ffdirect>"
        for n in ("teacher", "student")
    )
    thermostat = f"<thermostat mode='{mode}'>{inside}</thermostat>" if mode else ""
    return f"""<simulation verbosity='quiet' safe_stride='1000000'>
      <output><checkpoint stride='1000000'/></output><total_steps>1000000</total_steps>{fields}
      <system><initialize nbeads='1'><file mode='ase'>{folder / "box.extxyz"}</file>
          <velocities mode='thermal' units='kelvin'>1e-6</velocities></initialize>
        <forces><force forcefield='teacher'><mts_weights>[1, 0]</mts_weights></force>
          <force forcefield='student'><mts_weights>[-1, 1]</mts_weights></force></forces>
        <ensemble><temperature units='kelvin'>1e-6</temperature>
          <pressure units='bar'>1</pressure></ensemble>
        <motion mode='dynamics'><fixcom>False</fixcom>
          <dynamics mode='{ensemble}' splitting='{splitting}'>
            <timestep units='femtosecond'>{N_INNER}</timestep><nmts>[1, {N_INNER}]</nmts>
            {thermostat}{rest}</dynamics></motion>
      </system></simulation>"""


def stepper(name: str, folder: Path) -> Callable[[], None]:
    """One outer step of a run within this process."""
    from dmts_ipi.ipi.patches.integrators import install

    install()
    from ipi.engine.simulation import Simulation

    simulation = Simulation.load_from_xml(input_xml(name, folder), read_only=True)
    for field in simulation.fflist.values():
        field.bind(simulation.output_maker)
    motion = simulation.syslist[0].motion
    return lambda: motion.step(0)


def floor(atoms: int) -> Callable[[], None]:
    """The arithmetic of one outer step of BAOAB-RESPA, Langevin with one friction."""
    rng = np.random.default_rng(0)
    q, p, m = np.zeros(3 * atoms), np.zeros(3 * atoms), np.full(3 * atoms, 1e4)
    half, big, sm, drift = 20.0, 120.0, np.sqrt(m), 20.0 / m
    c, s = 0.999, 1e-4

    def step() -> None:
        slow = np.zeros(3 * atoms)
        p[:] += slow * big
        for _ in range(N_INNER):
            fast = np.zeros(3 * atoms)
            p[:] += fast * half
            q[:] += p * drift
            x = p / sm * c
            x += s * rng.standard_normal(3 * atoms)
            p[:] = x * sm
            q[:] += p * drift
            p[:] += fast * half
        p[:] += slow * big

    return step


def least_ms(step: Callable[[], None], blocks: int) -> float:
    """Least mean CPU time of a step over blocks of STEPS, ms: wall time on an idle machine."""
    best = np.inf
    for _ in range(blocks + 1):
        start = time.thread_time()
        for _ in range(STEPS):
            step()
        best = min(best, (time.thread_time() - start) / STEPS)
    return 1e3 * best


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--copies", type=int, nargs="+", default=[1, 7, 18], help="boxes of 216 waters")
    p.add_argument("--blocks", type=int, default=30, help=f"of {STEPS} steps each")
    args = p.parse_args()
    box = read(INPUTS / "water216.extxyz")
    table: dict[str, list[float]] = {name: [] for name in ("NumPy floor, six O", *RUNS)}
    sizes = []
    for copies in args.copies:
        with tempfile.TemporaryDirectory() as where:
            folder = Path(where)
            (folder / "pes.py").write_text(PES)
            atoms = box * (1, 1, copies)
            sizes.append(len(atoms))
            write(folder / "box.extxyz", atoms, columns=["symbols", "positions", "masses"])
            table["NumPy floor, six O"].append(least_ms(floor(len(atoms)), args.blocks))
            for name in RUNS:
                table[name].append(least_ms(stepper(name, folder), args.blocks))
    lines = [
        f"ms of CPU per outer step of {N_INNER} inner ones, least of {args.blocks} blocks",
        f"{'atoms':36s}" + "".join(f"{n:>9d}" for n in sizes),
        *(f"{name:36s}" + "".join(f"{x:9.2f}" for x in row) for name, row in table.items()),
    ]
    above = table["baoab-respa"][0] - table["NumPy floor, six O"][0]
    lines.append(f"baoab-respa above the floor at {sizes[0]} atoms: {above:.2f} ms (limit: 1.0)")
    save("integrator_overhead", "\n".join(lines))


if __name__ == "__main__":
    main()
