"""Toys of another package: a propagator (velocity Verlet in halves) and thermostats."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.propagator import RandomNumbers, State, Surroundings
from dmts_ipi.ipi.thermostats import Thermostat

ENTRY_POINTS = """[dmts_ipi.propagators]
verlet-halves = toy_motion:VerletHalves
runs-away = toy_motion:RunsAway

[dmts_ipi.thermostats]
andersen = toy_motion:Andersen
chain = toy_motion:Chain
"""
FS = 41.341373335182114  # atomic units of time


def install_package(folder: Path) -> Path:
    """A folder for PYTHONPATH with the entry points, as pip would leave them."""
    info = folder / "toy_motion-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-motion\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    return folder


class VerletHalves:
    """Velocity Verlet with two half strides, the force of all levels together, and one O step."""

    label = "velocity Verlet in two halves"
    symplectic = True
    reversible = True
    conserves = "energy, but for the time step"
    ensembles = ("nve", "nvt")
    thermostat_calls = 1

    def __init__(self, options: Mapping[str, object]) -> None:
        unknown = set(options) - {"halves"}
        if unknown:
            raise InputError("propagator", unknown, "takes halves only")
        self.parts = int(str(options.get("halves", 2)))

    def step(self, state: State, surroundings: Surroundings) -> State:
        dt = surroundings.dt / self.parts
        masses = surroundings.masses[:, None]
        for _ in range(self.parts):
            state.p += 0.5 * dt * self._force(state, surroundings)
            state.q += dt * state.p / masses
            state.p += 0.5 * dt * self._force(state, surroundings)
        surroundings.thermostat(state)
        return state

    def _force(self, state: State, surroundings: Surroundings) -> np.ndarray:
        levels = range(len(surroundings.steps))
        return np.sum([surroundings.force(state, k) for k in levels], axis=0)


class RunsAway(VerletHalves):
    """Ends with positions that are no numbers."""

    def step(self, state: State, surroundings: Surroundings) -> State:
        state.q[0, 0] = np.nan
        return state


class Andersen(Thermostat):
    """Momenta of an atom are drawn anew, with a rate of 1/tau."""

    label = "Andersen"
    needs_ours = True

    def engine(self) -> AndersenEngine:
        assert self.tau_fs is not None
        return AndersenEngine(self.tau_fs * FS)


class AndersenEngine:
    """O step of ``Andersen``; tau in atomic units."""

    def __init__(self, tau: float) -> None:
        self.tau, self.state = tau, np.zeros(0)

    def step(
        self,
        p: np.ndarray,
        q: np.ndarray,
        masses: np.ndarray,
        dt: float,
        kT: float,
        rng: RandomNumbers,
    ) -> float:
        before = float((p * p / masses[:, None]).sum())
        new = rng.normal(p.shape) * np.sqrt(kT * masses)[:, None]
        hit = np.array([rng.uniform() < -np.expm1(-dt / self.tau) for _ in masses])
        p[hit] = new[hit]
        return 0.5 * (before - float((p * p / masses[:, None]).sum()))


class Chain(Thermostat):
    """Nose-Hoover, one thermostat: deterministic, with a momentum of its own."""

    label = "Nose-Hoover"
    needs_ours = True

    def engine(self) -> ChainEngine:
        assert self.tau_fs is not None
        return ChainEngine(self.tau_fs * FS)


class ChainEngine:
    """O step of ``Chain``: state is the friction."""

    def __init__(self, tau: float) -> None:
        self.tau, self.state = tau, np.zeros(1)

    def step(
        self,
        p: np.ndarray,
        q: np.ndarray,
        masses: np.ndarray,
        dt: float,
        kT: float,
        rng: RandomNumbers,
    ) -> float:
        kinetic = float((p * p / masses[:, None]).sum())
        self.state += dt / self.tau**2 * (kinetic / (p.size * kT) - 1)
        p *= np.exp(-self.state[0] * dt)
        return 0.5 * (kinetic - float((p * p / masses[:, None]).sum()))
