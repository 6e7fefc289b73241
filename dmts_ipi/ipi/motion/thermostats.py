"""Langevin and fast-forward Langevin thermostats with a friction of its own for every atom.

The O step of an atom with time constant tau, mass m, step d, c = exp(-d / tau):

* Langevin: v' = c v + sqrt((1 - c^2) kT / m) G.
* Fast-forward Langevin (FFL, section 2.5 of DOI 10.1021/acs.jctc.6c00653; M. Hijazi,
  D. M. Wilkins, M. Ceriotti, J. Chem. Phys. 148, 184109 (2018), "rescale"): the same v' is drawn,
  and only its length is used: v <- |v'| v / |v|. The length is that of the velocity of one atom,
  three numbers, not of the vector of all atoms, and the direction is kept. An atom at rest has no
  direction, and takes that of v'.

Both leave the Maxwell-Boltzmann distribution as it is. For FFL: |v'| depends on |v| alone, by
rotational symmetry of the Langevin step; so lengths follow a chain of their own, in detailed
balance with the distribution of lengths, and directions stay independent of lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ipi.engine.thermostats import ThermoFFL, ThermoLangevin
from ipi.utils.depend import dstrip
from ipi.utils.units import Constants

from dmts_ipi.core.compiled import NotCompiled
from dmts_ipi.core.errors import InputError

from .bonds import BondFriction, BondTau, check_tau
from .inner_step import InnerStep


@dataclass(frozen=True)
class LocalTau:
    """Time constant (atomic units) of some atoms: by label, or by index from 0."""

    tau: float
    names: tuple[str, ...] = ()
    atoms: tuple[int, ...] = ()


class ThermoLocal(ThermoLangevin):
    """Langevin or FFL, with time constants by element or atom, and friction along bonds.

    Args:
        mode: 'langevin' or 'ffl'.
        tau: time constant of all atoms that no entry of ``local`` names.
        local: time constants of particular atoms. Where several entries name the same atom,
            the last one applies.
        bonds: see ``bonds.BondFriction``; acts next to the friction of atoms, in random order.
    """

    def __init__(
        self,
        mode: str = "langevin",
        tau: float = 1.0,
        local: Sequence[LocalTau] = (),
        bonds: Sequence[BondTau] = (),
    ) -> None:
        """Raises InputError for a time constant that is not positive."""
        for what, value in [("tau", tau), *(("local_tau", x.tau) for x in local)]:
            check_tau(what, value)
        super().__init__(tau=tau)
        self.mode, self.local, self.bond_taus = mode, tuple(local), tuple(bonds)
        self._friction = BondFriction(bonds) if bonds else None
        self._cell: Any = None

    @property
    def special(self) -> bool:
        """Whether stock i-PI has no such thermostat."""
        return bool(self.local or self.bond_taus) or self.mode == "ffl"

    def bind_cell(self, cell: Any) -> None:
        """Gives it the cell; i-PI's ``bind`` has none."""
        self._cell = cell

    def bind(
        self,
        beads: Any = None,
        atoms: Any = None,
        pm: Any = None,
        nm: Any = None,
        prng: Any = None,
        fixdof: Any = None,
        fixcom: Any = None,
    ) -> None:
        """Binds to beads.

        Raises:
            InputError: an entry names no atom of the system.
        """
        if beads is None:
            raise InputError("thermostat", self.mode, "local_tau and bonds act on atoms only")
        self._beads, self._hold_com = beads, bool(fixcom)
        self._tau_of_dof = np.tile(
            np.repeat(time_constants(list(beads.names), self.tau, self.local), 3), beads.nbeads
        )
        if self._friction is not None:
            if beads.nbeads != 1 or (fixdof or 0) > (3 if fixcom else 0):
                raise InputError("bonds", "", "take one bead and no fixed atoms")
            self._friction.bind(list(beads.names), dstrip(beads.m).copy(), self._cell)
        super().bind(beads, atoms, pm, nm, prng, fixdof, fixcom)

    def get_T(self) -> np.ndarray:
        """exp(-dt / tau) of every degree of freedom; (3 n nbeads,)."""
        return np.exp(-self.dt / self._tau_of_dof)

    def step(self) -> None:
        """One O step on the momenta of the beads."""
        p = dstrip(self.p).copy()
        heat = self.propagate(p, dstrip(self._beads.q)[0])
        self.p[:] = p
        self.ethermo += heat

    def propagate(self, p: np.ndarray, q: np.ndarray) -> float:
        """One O step on momenta (3 n nbeads,), in place, at positions (3 n,).

        With a bond thermostat, atoms come before bonds or after them, with equal chance: see
        ``bonds``. With a fixed centre of mass, its momentum is drawn from the canonical
        distribution first, and removed by the integrator afterwards: only so is the distribution
        of the other 3 n - 3 exact when atoms differ in friction, or for FFL.

        Returns:
            The energy that went to the bath, hartree.
        """
        heat = self._draw_com(p) if self._hold_com and self.special else 0.0
        return heat + self._atoms_and_bonds(p, q, self._atoms)

    def _atoms_and_bonds(
        self, p: np.ndarray, q: np.ndarray, atoms: Callable[[np.ndarray], float]
    ) -> float:
        if self._friction is None:
            return atoms(p)
        # a normal number for the coin, as all others are: so they can be drawn ahead
        forward = float(self.prng.gvec(1)[0]) < 0
        heat = atoms(p) if forward else 0.0
        kT = Constants.kb * self.temp
        heat += self._friction.propagate(p, q, self.dt, kT, self.prng, forward)
        return heat if forward else heat + atoms(p)

    def inner_step(self, compiled: InnerStep, force: np.ndarray, half: float, kicks: int) -> float:
        """``InnerStep.step`` with the friction along bonds, if there is one."""
        if self._friction is None:
            return compiled.step(force, half, kicks, self.prng.gvec(compiled.n))
        compiled.kick_and_drift(force, half, kicks)
        heat = self._atoms_and_bonds(
            compiled.p, compiled.q, lambda p: compiled.atoms(self.prng.gvec(len(p)))
        )
        compiled.drift()
        return heat

    def compiled(self, q: np.ndarray, p: np.ndarray, drift: np.ndarray) -> InnerStep | None:
        """The inner steps with this thermostat, for arrays as of ``InnerStep``; None where they go
        by NumPy: with a fixed centre of mass, or without a compiler."""
        if self._hold_com:
            return None
        root_mass, decay, noise = dstrip(self.sm), dstrip(self.T), dstrip(self.S)
        try:
            return InnerStep(q, p, drift, root_mass, decay, noise, self.mode == "ffl")
        except NotCompiled:
            return None

    def _atoms(self, p: np.ndarray) -> float:
        sm = dstrip(self.sm)
        x = p / sm
        new = x * self.T
        new += self.S * self.prng.gvec(len(x))
        if self.mode == "ffl":
            old3, new3 = x.reshape(-1, 3), new.reshape(-1, 3)
            before = np.sqrt((old3 * old3).sum(axis=1))
            ratio = np.sqrt((new3 * new3).sum(axis=1))
            moving = before > 0
            np.divide(ratio, before, out=ratio, where=moving)
            np.multiply(old3, ratio[:, None], out=new3, where=moving[:, None])
        np.multiply(new, sm, out=p)
        return 0.5 * float(x @ x - new @ new)

    def _draw_com(self, p: np.ndarray) -> float:
        m = dstrip(self._beads.m3).reshape(-1)
        p3, mass = p.reshape(-1, 3), float(m[::3].sum())
        v = self.prng.gvec(3) * np.sqrt(Constants.kb * self.temp / mass)
        before = p3.sum(axis=0) / mass
        p += m * np.tile(v - before, len(p3))
        return 0.5 * mass * float(before @ before - v @ v)


def time_constants(names: Sequence[str], tau: float, local: Sequence[LocalTau]) -> np.ndarray:
    """Time constant of every atom, (n,).

    Raises:
        InputError: an entry names no atom of the system.
    """
    labels = np.array([str(x).strip() for x in names])
    taus = np.full(len(labels), float(tau))
    for entry in local:
        for name in entry.names:
            here = labels == name
            if not here.any():
                known = ", ".join(sorted(set(labels)))
                raise InputError("local_tau", name, f"no such atom in the system; it has {known}")
            taus[here] = entry.tau
        for atom in entry.atoms:
            if not 0 <= atom < len(labels):
                raise InputError("local_tau", f"atom {atom}", f"indices are 0 to {len(labels) - 1}")
            taus[atom] = entry.tau
    return taus


def as_local(thermostat: Any) -> Any:
    """Replaces i-PI's plain Langevin and FFL by ``ThermoLocal``; returns any other unchanged."""
    if type(thermostat) is ThermoLangevin:
        new = ThermoLocal("langevin", thermostat.tau)
    elif type(thermostat) is ThermoFFL and thermostat.flip == "rescale":
        new = ThermoLocal("ffl", thermostat.tau)
    else:
        return thermostat
    new.ethermo = thermostat.ethermo
    return new
