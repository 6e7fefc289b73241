"""i-PI within this process, for tests of the integrators: a few waters, forces at no cost."""

from __future__ import annotations

from typing import Any

import numpy as np

from dmts_ipi.ipi.patches.integrators import install
from places import SUPPORT

install()

from ipi.engine.simulation import Simulation  # noqa: E402
from ipi.inputs.simulation import InputSimulation  # noqa: E402
from ipi.utils.depend import dstrip  # noqa: E402
from ipi.utils.units import unit_to_internal  # noqa: E402

FS = float(unit_to_internal("time", "femtosecond", 1.0))
KELVIN = float(unit_to_internal("temperature", "kelvin", 1.0))
AMU = float(unit_to_internal("mass", "dalton", 1.0))
SIDE = 14.0  # bohr
HHF = "<tau units='femtosecond'>1000</tau><local_tau names='H' units='femtosecond'>100</local_tau>"
BONDS = (
    "<bonds names='O, H'><tau units='femtosecond'>20</tau>"
    "<range units='angstrom'>[1.3, 1.6]</range></bonds>"
    "<bonds names='H, H'><tau units='femtosecond'>30</tau>"
    "<range units='angstrom'>[1.7, 2.1]</range></bonds>"
)
LANGEVIN = "<thermostat mode='langevin'><tau units='femtosecond'>200</tau></thermostat>"
BAROSTAT = (
    "<barostat mode='isotropic'><tau units='femtosecond'>200</tau><thermostat mode='langevin'>"
    "<tau units='femtosecond'>100</tau></thermostat></barostat>"
)


def thermostat(inside: str, mode: str = "langevin") -> str:
    return f"<thermostat mode='{mode}'>{inside}</thermostat>"


def coloured(per_fs: np.ndarray) -> str:
    """A generalised Langevin thermostat with this drift matrix, 1/fs."""
    numbers = ", ".join(repr(float(a)) for a in per_fs.ravel() / FS)
    return thermostat(f"<A shape='{per_fs.shape}'>[{numbers}]</A>", "gle")


# memory of 30 fs that peaks at a period of 16.6 fs, and a white part
DRIFT_PER_FS = np.array([[0.004, 0.05, 0.0], [-0.05, 0.033, 0.378], [0.0, -0.378, 0.033]])
THERMOSTATS = {
    "langevin": LANGEVIN,
    "hhf": thermostat(HHF),
    "ffl": thermostat(HHF, "ffl"),
    "bonds": thermostat(HHF + BONDS),
    "bonds, ffl": thermostat(HHF + BONDS, "ffl"),
    "svr": LANGEVIN.replace("langevin", "svr"),
    "gle": coloured(DRIFT_PER_FS),
}


def waters(molecules: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n,) and positions (n, 3) in bohr, on a 2 x 2 x 2 lattice, each turned."""
    rng = np.random.default_rng(7)
    sites = np.array([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)]) * SIDE / 2
    shape = np.array([[0, 0, 0], [1.81, 0, 0], [-0.45, 1.75, 0]])
    x = []
    for k in range(molecules):
        q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        x.append(sites[k] + shape @ q.T + rng.normal(scale=0.02, size=(3, 3)))
    return np.array(["O", "H", "H"] * molecules), np.concatenate(x)


def simulation_xml(
    dynamics: str,
    *,
    mode: str = "nvt",
    splitting: str = "baoab-respa",
    levels: str = "[1, 4]",
    weights: tuple[str, ...] = ("[1, 0]", "[-1, 1]"),
    forces: tuple[str, ...] = ("k: 0.5", "k: 0.47, bend: 0.16, site: 0.011"),
    outer_fs: float = 2.0,
    fixcom: bool = False,
    molecules: int = 8,
    nbeads: int = 1,
    seed: int = 3,
    kelvin: float = 300.0,
    total: int = 100000,
    extra: str = "",
    pes: str = "integrator_pes",
    system: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
    side: float = SIDE,
    bar: float = 1.0,
) -> str:
    """An input with one ``<ffdirect>`` per entry of ``forces`` (parameters of the PES).

    ``system``: labels, positions in bohr and masses in amu of other things than waters.
    """
    if system is None:
        names, x = waters(molecules)
        system = names, x, np.where(names == "O", 9.9994, 4.008)
    names, x, masses = system
    fields = "\n".join(
        f"<ffdirect name='f{k}' pbc='False'><pes>custom</pes>"
        f"<pes_path>{SUPPORT / pes}.py</pes_path><parameters>{{{p}}}</parameters>"
        "</ffdirect>"
        for k, p in enumerate(forces)
    )
    parts = "".join(
        f"<force forcefield='f{k}'><mts_weights>{w}</mts_weights></force>"
        for k, w in enumerate(weights)
    )
    return f"""<simulation verbosity='quiet' floatformat='%24.16e' safe_stride='1000000'>
      <output prefix='md'><checkpoint filename='chk' stride='1000000'/></output>
      <total_steps>{total}</total_steps><prng><seed>{seed}</seed></prng>
      {fields}
      <system>
        <initialize nbeads='{nbeads}'>
          <positions mode='manual'>{[float(v) for v in x.ravel()] * nbeads}</positions>
          <labels mode='manual'>[{", ".join(names)}]</labels>
          <masses mode='manual' units='dalton'>{[float(m) for m in masses]}</masses>
          <cell mode='manual'>[{side}, 0, 0, 0, {side}, 0, 0, 0, {side}]</cell>
          <velocities mode='thermal' units='kelvin'>{kelvin}</velocities>
        </initialize>
        <forces>{parts}</forces>
        <ensemble><temperature units='kelvin'>{kelvin}</temperature>
          <pressure units='bar'>{bar}</pressure></ensemble>
        <motion mode='dynamics'><fixcom>{fixcom}</fixcom>{extra}
          <dynamics mode='{mode}' splitting='{splitting}'>
            <timestep units='femtosecond'>{outer_fs}</timestep><nmts>{levels}</nmts>{dynamics}
          </dynamics></motion>
      </system></simulation>"""


class Run:
    """One system of i-PI in this process: no sockets, no threads, no output."""

    def __init__(self, xml: str) -> None:
        self.simulation = Simulation.load_from_xml(xml, read_only=True)
        for field in self.simulation.fflist.values():
            field.bind(self.simulation.output_maker)
        self.system = self.simulation.syslist[0]
        self.motion: Any = self.system.motion
        self.integrator = self.motion.integrator
        self.done = self.simulation.step

    def step(self, steps: int = 1) -> Run:
        for _ in range(steps):
            self.motion.step(self.done)
            self.done += 1
        return self

    @property
    def q(self) -> np.ndarray:
        return np.array(dstrip(self.system.nm.beads.q)).copy()

    @property
    def p(self) -> np.ndarray:
        """Momenta (nbeads, 3 n), always from where they were set last."""
        return np.array(self.system.beads.p).copy()

    @property
    def m(self) -> np.ndarray:
        return np.array(dstrip(self.system.beads.m3))[0].copy()

    @property
    def conserved(self) -> float:
        return float(self.system.ensemble.econs)

    @property
    def kelvin(self) -> float:
        """Kinetic temperature of all 3 n degrees of freedom."""
        return float((self.p**2 / self.m).sum() / self.p.size / KELVIN)

    def set(self, q: np.ndarray | None = None, p: np.ndarray | None = None) -> Run:
        """Sets positions and momenta, (3 n,)."""
        if q is not None:
            self.system.beads.q = np.asarray(q)[None]
        if p is not None:
            self.system.beads.p = np.asarray(p)[None]
        return self

    def checkpoint(self) -> str:
        """The checkpoint that i-PI would write now."""
        self.simulation.step = self.done
        status = InputSimulation()
        status.store(self.simulation)
        return str(status.write(name="simulation"))
