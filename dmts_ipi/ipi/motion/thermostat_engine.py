"""A thermostat of another package in i-PI: ``<thermostat mode='NAME'>``.

What its tags say is read and written by its object of the registry ``thermostats``
(``ipi/thermostats.py``); its ``engine()`` acts on momenta. Its heat enters the conserved quantity,
and numbers that it keeps are stored in checkpoints, in the tag ``<s>``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ipi.engine.thermostats import Thermostat
from ipi.utils.depend import dstrip
from ipi.utils.units import Constants

from dmts_ipi.core.errors import EvaluationFault, InputError
from dmts_ipi.core.propagator import ThermostatEngine

from .propagator_step import IpiRandom


class EngineThermostat(Thermostat):
    """Runs an engine.

    Args:
        spec: what the tags say: ``mode`` and ``to_xml``.
        engine: what acts.
    """

    def __init__(self, spec: Any, engine: ThermostatEngine) -> None:
        super().__init__()
        self.spec, self.engine, self.mode = spec, engine, str(spec.mode)

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
        """Binds to beads; see i-PI.

        Raises:
            InputError: it is not to act on the atoms of a classical system that can all move.
        """
        if beads is None or beads.nbeads != 1 or (fixdof or 0) > (3 if fixcom else 0):
            raise InputError(
                "thermostat", self.mode, "acts on atoms: one bead (classical), no fixed atoms"
            )
        super().bind(beads, atoms, pm, nm, prng, fixdof, fixcom)
        self._beads, self._masses = beads, dstrip(beads.m).copy()
        self._random = IpiRandom(self.prng)

    def step(self) -> None:
        """One O step on the momenta of the beads."""
        p = dstrip(self.p).copy()
        heat = self.propagate(p, dstrip(self._beads.q)[0])
        self.p[:] = p
        self.ethermo += heat

    def propagate(self, p: np.ndarray, q: np.ndarray) -> float:
        """One O step on momenta (3 n,), in place, at positions (3 n,).

        Returns:
            The energy that went to the bath, hartree.

        Raises:
            EvaluationFault: momenta that are not finite.
        """
        dt, kT = float(self.dt), float(Constants.kb * self.temp)
        heat = float(
            self.engine.step(p.reshape(-1, 3), q.reshape(-1, 3), self._masses, dt, kT, self._random)
        )
        if not np.isfinite(p).all():
            raise EvaluationFault(f"thermostat {self.mode}: momenta are not finite")
        return heat
