"""A thermostat: all momenta are drawn anew from the Maxwell-Boltzmann distribution, at times."""

from __future__ import annotations

import math

import numpy as np

from dmts_ipi.core.propagator import RandomNumbers
from dmts_ipi.ipi.thermostats import Thermostat

ATOMIC_TIME_FS = 0.02418884326509


class Resample(Thermostat):
    """``<thermostat mode='toy-resample'>`` with ``<tau>``: the mean time between two draws."""

    label = "resampled momenta"
    needs_ours = True  # plain i-PI does not know it

    def engine(self) -> ResampleEngine:
        """What acts on momenta within a step."""
        return ResampleEngine((self.tau_fs or 1000.0) / ATOMIC_TIME_FS)


class ResampleEngine:
    """The O step, in atomic units; it keeps nothing between steps."""

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
        """Draws momenta (n, 3) anew with probability 1 - exp(-dt / tau); returns the heat."""
        m = masses[:, None]
        new = rng.normal(p.shape) * np.sqrt(kT * m)
        if rng.uniform() >= -math.expm1(-dt / self.tau):
            return 0.0
        heat = 0.5 * float((p * p / m).sum() - (new * new / m).sum())
        p[:] = new
        return heat
