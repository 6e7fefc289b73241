"""A propagator: nested velocity Verlet at any number of levels, and one O step per stride."""

from __future__ import annotations

from collections.abc import Mapping

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.propagator import State, Surroundings


class KickDriftKick:
    """RESPA with the thermostat once per outer step (``splitting='toy-respa'``)."""

    label = "nested velocity Verlet"
    symplectic = True
    reversible = True
    conserves = "energy, but for the time step"
    ensembles = ("nve", "nvt")
    thermostat_calls = 1

    def __init__(self, options: Mapping[str, object]) -> None:
        if options:
            raise InputError("propagator", ", ".join(options), "toy-respa has no options")

    def step(self, state: State, surroundings: Surroundings) -> State:
        """One outer step."""
        self._level(0, surroundings.dt, state, surroundings)
        surroundings.thermostat(state)
        return state

    def _level(self, k: int, dt: float, state: State, at: Surroundings) -> None:
        dt /= at.steps[k]
        for _ in range(at.steps[k]):
            state.p += 0.5 * dt * at.force(state, k)
            if k + 1 < len(at.steps):
                self._level(k + 1, dt, state, at)
            else:
                state.q += dt * state.p / at.masses[:, None]
            state.p += 0.5 * dt * at.force(state, k)
