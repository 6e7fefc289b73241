"""A propagator of another package as an integrator of i-PI: ``<dynamics splitting='NAME'>``.

The state lives in i-PI's beads and cell, and the random numbers are i-PI's, so checkpoints,
restarts, outputs and the conserved quantity are those of any i-PI run. Forces and the thermostat
go through i-PI's own objects, which cover every forcefield and every thermostat.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ipi.engine.motion.dynamics import NVEIntegrator
from ipi.utils.depend import dstrip
from ipi.utils.units import Constants

from dmts_ipi.core.errors import EvaluationFault, InputError
from dmts_ipi.core.propagator import Propagator, State


class IpiRandom:
    """``core.propagator.RandomNumbers`` of i-PI's ``Random``."""

    def __init__(self, prng: Any) -> None:
        self._prng = prng

    def normal(self, shape: int | tuple[int, ...]) -> np.ndarray:
        """Standard normal numbers."""
        return np.asarray(self._prng.gvec(shape))

    def uniform(self) -> float:
        """One number of [0, 1)."""
        return float(self._prng.u)


class _System:
    """``core.propagator.Surroundings`` of a system of i-PI."""

    def __init__(self, integrator: PropagatorIntegrator) -> None:
        self._i = integrator
        self.masses = dstrip(integrator.beads.m).copy()
        self.labels = tuple(str(x).strip() for x in dstrip(integrator.beads.names))
        self.rng = IpiRandom(integrator.prng)

    @property
    def dt(self) -> float:
        return float(self._i.dt)

    @property
    def steps(self) -> tuple[int, ...]:
        return tuple(int(n) for n in self._i.nmts)

    @property
    def kT(self) -> float:
        return float(Constants.kb * self._i.ensemble.temp)

    def force(self, state: State, level: int = 0) -> np.ndarray:
        self.move(state)
        force = dstrip(self._i.forces.mts_forces[level].f)[0].copy()
        if level == 0 and self._i.ensemble.has_bias:  # as i-PI's integrators do
            force += dstrip(self._i.bias.f)[0]
        return np.asarray(force.reshape(-1, 3))

    def potential(self, state: State) -> float:
        self.move(state)
        return float(self._i.forces.pot)

    def thermostat(self, state: State) -> None:
        if self._i.enstype == "nve":
            return
        self.move(state)  # the bond thermostat looks at positions
        self._i.beads.p = state.p.reshape(1, -1)
        self._i.thermostat.step()
        state.p[:] = dstrip(self._i.beads.p)[0].reshape(-1, 3)

    def move(self, state: State) -> None:
        """Gives i-PI the positions and the cell, where they are others: it would evaluate anew."""
        beads, cell = self._i.beads, self._i.cell
        q = state.q.reshape(1, -1)
        if not np.array_equal(dstrip(beads.q), q):
            beads.q = q
        if not np.array_equal(dstrip(cell.h), state.cell.T):
            cell.h = state.cell.T


class PropagatorIntegrator(NVEIntegrator):
    """Steps i-PI's beads by a propagator.

    Args:
        name: of the row, for messages.
        propagator: what steps.
        options: of ``<propagator>``, kept for checkpoints.
    """

    def __init__(self, name: str, propagator: Propagator, options: Mapping[str, object]) -> None:
        super().__init__()
        self.name, self.propagator, self.options = name, propagator, dict(options)

    def bind(self, motion: Any) -> None:
        """Binds; see i-PI.

        Raises:
            InputError: a path integral, or fixed atoms.
        """
        super().bind(motion)
        self.cell = motion.cell
        if self.beads.nbeads != 1 or len(self.fixatoms_dof) > 0:
            raise InputError(
                "dynamics splitting", self.name, "takes one bead (classical) and no fixed atoms"
            )
        self._system = _System(self)

    def get_tdt(self) -> float:
        """Time step of the thermostat."""
        return float(self.dt / max(1, self.propagator.thermostat_calls))

    def tstep(self) -> None:
        """The propagator calls the thermostat itself."""

    def step(self, step: int | None = None) -> None:
        """One stride.

        Raises:
            EvaluationFault: positions or momenta that are not finite.
        """
        state = State(
            dstrip(self.beads.q)[0].reshape(-1, 3).copy(),
            dstrip(self.beads.p)[0].reshape(-1, 3).copy(),
            dstrip(self.cell.h).T.copy(),
        )
        shape = state.q.shape
        state = self.propagator.step(state, self._system)
        for what, values in (("positions", state.q), ("momenta", state.p)):
            if values.shape != shape or not np.isfinite(values).all():
                raise EvaluationFault(
                    f"propagator {self.name}: {what} after a stride are not {shape} finite numbers"
                )
        self._system.move(state)
        self.beads.p = state.p.reshape(1, -1)
        self.pconstraints()


def make_integrator(
    name: str, row: type[Propagator], mode: str, options: Mapping[str, object]
) -> PropagatorIntegrator:
    """The integrator of a row for an ensemble.

    Raises:
        InputError: the propagator cannot do the ensemble, or an option is wrong.
    """
    if mode not in row.ensembles:
        does = ", ".join(row.ensembles)
        raise InputError("dynamics mode", mode, f"splitting '{name}' has {does}")
    return PropagatorIntegrator(name, row(options), options)
