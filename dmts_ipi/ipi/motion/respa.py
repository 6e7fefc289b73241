"""BAOAB-RESPA, the integrator of DMTS-NC, as classes of i-PI.

It is Algorithm 1 of the DMTS-NC paper (DOI 10.1021/acs.jctc.6c00653).

One outer step with levels nmts = [1, n]: kick with the outer force, n BAOAB steps with the inner
one, kick. The thermostat O acts in the middle of every inner drift, with the inner step; i-PI's
own 'baoab' applies it once, with the outer step. More levels nest in the same way.

    level k, nmts[k] times:  B_k(dt_k/2)  [level k+1, or A(d/2) O(d) A(d/2)]  B_k(dt_k/2)

with dt_k = dt / (nmts[0] ... nmts[k]) and d the last of them. Without a thermostat (NVE) it is
velocity Verlet RESPA. With one level it is i-PI's own BAOAB.

========================  ====================================
the paper                 here
========================  ====================================
Delta                     ``dt`` (the ``timestep`` of the input)
n                         product of ``nmts``
F_L, F_S                  ``forces.mts_forces[0].f``, ``[1].f``
Thermostat(v, Delta / n)  ``tstep``, with ``thermostat.dt`` = ``tdt``
========================  ====================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from ipi.engine.barostats import BaroBZP
from ipi.engine.motion.dynamics import Dynamics, NPTIntegrator, NVEIntegrator, NVTIntegrator
from ipi.utils.depend import dstrip
from ipi.utils.messages import verbosity, warning

from dmts_ipi.core.errors import InputError
from dmts_ipi.ipi.input_xml import RESPA, sampled
from dmts_ipi.ipi.patches import switches
from dmts_ipi.ipi.patches.prefetched_rng import prefetched

from .inner_step import InnerStep
from .level_forces import ArrayForces, LevelForces, level_forces
from .propagator_step import make_integrator
from .propagators import PROPAGATORS, Splitting
from .thermostat_engine import EngineThermostat
from .thermostats import ThermoLocal, as_local

SPLITTING = RESPA
ACT_ON_ARRAYS = (ThermoLocal, EngineThermostat)  # they have ``propagate``


class RespaIntegrator(NVEIntegrator):
    """NVE, and what all ensembles share: the order of the steps, and a loop on plain arrays."""

    _level_forces: LevelForces | None = None
    # called in a step, at least once before i-PI's objects change: while drivers work, if any does
    while_waiting: Callable[[], None] | None = None

    def bind(self, motion: Any) -> None:
        """Binds; see i-PI."""
        super().bind(motion)
        self.cell = motion.cell
        self._numbers = prefetched(motion.prng)

    def get_tdt(self) -> float:
        """Time step of the thermostat: the inner step."""
        return float(self.dt / np.prod(self.nmts))

    def tstep(self) -> None:
        """No thermostat in NVE."""

    def step(self, step: int | None = None) -> None:
        """One outer step."""
        if self.uses_array_loop():
            for _ in self.iter_step():
                pass
        else:
            if self.while_waiting is not None:
                self.while_waiting()
            self.mtsprop(0)

    def mtsprop(self, index: int) -> None:
        """The steps of a level and all inside it, for anything that i-PI can integrate."""
        for _ in range(self.nmts[index]):
            self.pstep(index)
            self.pconstraints()
            if index + 1 < self.nmtslevels:
                self.mtsprop(index + 1)
            else:
                self.qcstep()
                self.nm.free_qstep()
                self.tstep()
                self.pconstraints()
                self.qcstep()
                self.nm.free_qstep()
            self.pstep(index)
            self.pconstraints()

    def uses_array_loop(self) -> bool:
        """Whether the loop on arrays covers this system: classical, no bias, no fixed atoms."""
        return (
            switches.is_on("array-loop")
            and self.beads.nbeads == 1
            and len(self.fixatoms_dof) == 0
            and not self.ensemble.has_bias
            and len(self.nm.open_paths) == 0
            and len(self.nm.bosons) == 0
        )

    def bypasses_ipi_forces(self) -> bool:
        """Whether a step asks forcefields itself (``ArrayForces``), without i-PI's objects."""
        if not self.uses_array_loop():
            return False
        if self._level_forces is None:
            self._level_forces = level_forces(self.forces, self.beads, self.cell)
        return isinstance(self._level_forces, ArrayForces)

    def beads_lag_one_step(self) -> bool:
        """Whether i-PI's beads hold the state of the previous step until a step ends."""
        return self.bypasses_ipi_forces()

    def iter_step(self) -> Iterator[None]:
        """The same steps with plain arrays: i-PI's objects are updated at the end.

        Yields where forces have been asked for and are about to be waited for, so that several
        systems can ask before the first one waits (``patches.lockstep_systems``).
        """
        if self._level_forces is None:
            self._level_forces = level_forces(self.forces, self.beads, self.cell)
        self._asked: LevelForces = self._level_forces
        self._asked.begin()
        self._q = dstrip(self.beads.q)[0].copy()
        self._p = dstrip(self.beads.p)[0].copy()
        self._m = dstrip(self.beads.m3)[0]
        self._drift_per_p = self.qdt / self._m
        self._heat = self._com_energy = 0.0
        self._halves = [float(x) for x in dstrip(self.pdt)]
        self._counts = [int(n) for n in self.nmts]
        self._compiled = self._compiled_inner_step()
        self._asked.ask(list(range(len(self._counts))))  # of the first step: then they are known
        yield
        yield from self._level(0, [])
        self._asked.finish(self._q)
        self.beads.p = self._p[None]
        if self._com_energy:
            self.ensemble.eens += self._com_energy
        if self._heat:
            self.thermostat.ethermo += self._heat

    def _level(self, k: int, after: list[int]) -> Iterator[None]:
        """The steps of a level and all inside it.

        ``after``: the levels outside it whose kick follows its last step at the same positions.
        """
        half, count = self._halves[k], self._counts[k]
        compiled = self._compiled
        for step in range(count):
            last = step == count - 1
            next_ = [k, *after] if last else [k]
            if k + 1 < len(self._counts):
                self._kick(k, half)
                yield from self._level(k + 1, next_)
                self._kick(k, half)
                continue
            if compiled is None:
                self._kick(k, half)
                self._q += self._p * self._drift_per_p
                self._thermostat_in_arrays()
                self._q += self._p * self._drift_per_p
            else:  # which also does the second kick of the step before
                kicks, force = 1 if step == 0 else 2, self._asked.level(k)
                self._heat += self.thermostat.inner_step(compiled, force, half, kicks)
            self._asked.moved(self._q, next_)
            yield
            if 0 in next_:
                self._use_the_wait()
            if compiled is None or last:
                self._kick(k, half)

    def _kick(self, k: int, half: float) -> None:
        self._p += self._asked.level(k) * half
        self._hold_com()

    def _use_the_wait(self) -> None:
        """Work that can be done while the reference model is evaluated."""
        if self._numbers is not None:
            self._numbers.prepare()  # those of the next step
        if self.while_waiting is not None:
            self.while_waiting()

    def _thermostat_in_arrays(self) -> None:
        """No thermostat in NVE."""

    def _compiled_inner_step(self) -> InnerStep | None:
        """The compiled inner steps, or None where they use NumPy."""
        return None

    def _hold_com(self) -> None:
        """``pconstraints`` on arrays: removes the motion of the centre of mass, if it is held."""
        if not self.fixcom:
            return
        mass = float(self._m[::3].sum())
        v = self._p.reshape(-1, 3).sum(axis=0) / mass
        self._p -= self._m * np.tile(v, len(self._m) // 3)
        self._com_energy += 0.5 * mass * float(v @ v)


class RespaNVTIntegrator(RespaIntegrator, NVTIntegrator):
    """Constant temperature."""

    def tstep(self) -> None:
        """The thermostat, with the inner step."""
        self.thermostat.step()

    def _compiled_inner_step(self) -> InnerStep | None:
        if isinstance(self.thermostat, ThermoLocal) and not self.fixcom:
            return self.thermostat.compiled(self._q, self._p, self._drift_per_p)
        return None

    def beads_lag_one_step(self) -> bool:
        """Not with a thermostat of i-PI's, which acts on the momenta of its beads."""
        return isinstance(self.thermostat, ACT_ON_ARRAYS) and self.bypasses_ipi_forces()

    def _thermostat_in_arrays(self) -> None:
        if isinstance(self.thermostat, ACT_ON_ARRAYS):
            self._heat += self.thermostat.propagate(self._p, self._q)
        else:  # SVR, GLE, ...: theirs is the momentum of the beads
            self.beads.p = self._p[None]
            self.thermostat.step()
            self._p[:] = dstrip(self.beads.p)[0]
        self._hold_com()


class RespaNPTIntegrator(RespaNVTIntegrator, NPTIntegrator):
    """Constant pressure, with i-PI's isotropic barostat.

    The barostat is kicked at each level with the virial of that level's force, and the cell moves
    with the positions, so that the pressure is that of all forces together and needs no correction
    (section 2.7 of DOI 10.1021/acs.jctc.6c00653 corrects a barostat that acts once per outer step).
    """

    def bind(self, motion: Any) -> None:
        """Binds; see i-PI.

        Raises:
            InputError: another barostat than the isotropic one.
        """
        if type(motion.barostat) is not BaroBZP:
            raise InputError(
                "barostat",
                type(motion.barostat).__name__,
                f"splitting '{SPLITTING}' takes mode='isotropic' only; "
                "cells of variable shape need splitting='baoab'",
            )
        super().bind(motion)
        self._seen = False

    def uses_array_loop(self) -> bool:
        return False

    def tstep(self) -> None:
        """The thermostats of the atoms and of the volume, with the inner step."""
        self.thermostat.step()
        self.barostat.thermostat.step()

    def step(self, step: int | None = None) -> None:
        """One outer step; the first looks whether every force comes with a virial."""
        if not self._seen:
            self._check_virials()
            self._seen = True
        super().step(step)

    def _check_virials(self) -> None:
        for component in self.forces.mforces:
            if component.weight == 0 or not np.any(component.mts_weights):
                continue  # not integrated, and perhaps nobody answers for it
            if not np.any(component.f):
                continue
            if not np.any(component.virs):
                raise InputError(
                    "virial",
                    component.ffield,
                    "this forcefield gives forces but no virial, which NPT needs; use nvt",
                )


INTEGRATORS = {
    "nve": RespaIntegrator,
    "nvt": RespaNVTIntegrator,
    "npt": RespaNPTIntegrator,
}


class RespaDynamics(Dynamics):
    """i-PI's ``Dynamics``, which also knows 'baoab-respa' and the registry of propagators.

    With a splitting of i-PI's it is i-PI's own class, step by step.

    Attributes:
        propagator_options: of ``<propagator>``, for a propagator of another package.
    """

    def __init__(
        self,
        timestep: float,
        mode: str = "nve",
        splitting: str = "obabo",
        thermostat: Any = None,
        propagator: Mapping[str, object] | None = None,
        **others: Any,
    ) -> None:
        """As i-PI's.

        Args:
            propagator: options for a propagator of another package.

        Raises:
            InputError: no such splitting, or one that has no integrator for this mode.
        """
        row = PROPAGATORS.get(splitting)
        self.propagator_options = dict(propagator or {})
        if splitting == SPLITTING:
            if mode not in INTEGRATORS:
                known = ", ".join(INTEGRATORS)
                raise InputError("dynamics mode", mode, f"splitting '{SPLITTING}' has {known}")
            if not timestep > 0:
                raise InputError("timestep", timestep, "must be positive")
            thermostat = as_local(thermostat)
        super().__init__(timestep, mode, splitting, thermostat, **others)
        if splitting == SPLITTING:
            self.integrator = INTEGRATORS[mode]()
        elif not isinstance(row, Splitting):
            self.integrator = make_integrator(splitting, row, mode, self.propagator_options)
        if isinstance(row, Splitting) and self.propagator_options:
            raise InputError(
                "propagator", self.propagator_options, f"splitting '{splitting}' has no options"
            )
        if mode == "nve" and isinstance(self.thermostat, ThermoLocal) and self.thermostat.special:
            raise InputError(
                "thermostat",
                self.thermostat.mode,
                "mode='nve' allows no thermostat; remove it or use nvt",
            )

    def bind(
        self, ens: Any, beads: Any, nm: Any, cell: Any, bforce: Any, prng: Any, omaker: Any
    ) -> None:
        """As i-PI's; the bond thermostat also gets the cell.

        Raises:
            InputError: levels and weights do not match.
        """
        if isinstance(self.thermostat, ThermoLocal):
            self.thermostat.bind_cell(cell)
        if self.splitting == SPLITTING:
            if len(self.nmts) != bforce.nmtslevels:
                raise InputError(
                    "nmts",
                    [int(n) for n in self.nmts],
                    f"has {len(self.nmts)} levels, mts_weights have {bforce.nmtslevels}; "
                    "give each force one weight per level",
                )
            if any(n < 1 for n in self.nmts):
                raise InputError("nmts", [int(n) for n in self.nmts], "must be at least 1 each")
            _tell_what_is_sampled(bforce)
        super().bind(ens, beads, nm, cell, bforce, prng, omaker)

    def iter_step(self) -> Iterator[None]:
        """One step, in the pieces of ``RespaIntegrator.iter_step``."""
        yield from self.integrator.iter_step()
        self.ensemble.time += self.dt


def _tell_what_is_sampled(forces: Any) -> None:
    totals: dict[str, float] = {}
    for force in forces.mforces:
        weights = force.mts_weights if len(force.mts_weights) else [1.0]
        totals[force.ffield] = totals.get(force.ffield, 0.0) + float(sum(weights) * force.weight)
    if any(min(abs(t), abs(t - 1)) > 1e-9 for t in totals.values()):
        text = f"mts_weights: the levels sum to {sampled(totals)}; that potential is sampled"
        warning(text, verbosity.low)
