"""Single time steps for a while, then multiple ones, by one i-PI: after a rewind.

Up to a step each force acts in the innermost level alone, with the sum of its weights: the teacher
with one, the student with none. Then each force has the MTS weights of the input again.
Checkpoints hold the weights of their moment.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ipi.engine.simulation import Simulation

from dmts_ipi.core.errors import InputError
from dmts_ipi.ipi.input_xml import single_step

from . import deferred_outputs


def install(until_step: int) -> None:
    """Puts it around the ``Simulation.run_step`` that is there.

    Args:
        until_step: see ``SingleSteps``.
    """
    SingleSteps(until_step).install()


class SingleSteps:
    """Wraps ``Simulation.run_step``.

    Args:
        until_step: the first step that is a multiple one again; steps count from 0.
    """

    def __init__(self, until_step: int) -> None:
        self.until_step = until_step
        self._saved: list[tuple[np.ndarray, np.ndarray]] | None = None
        self._run_step = Simulation.run_step

    def install(self) -> None:
        """Puts it in, around what is there."""

        def run_step(simulation: Any, step: int) -> None:
            self.before(simulation, step)
            self._run_step(simulation, step)

        Simulation.run_step = run_step

    def before(self, simulation: Any, step: int) -> None:
        """Sets the weights that hold in a step.

        Raises:
            InputError: no force would act in single steps.
        """
        single = step < self.until_step
        if single and self._saved is None:
            everything = [f for s in simulation.syslist for f in s.forces.mforces]
            if not any(any(single_step(f.mts_weights)) for f in everything):
                text = "the mts_weights of every force sum to zero: no force would act"
                raise InputError("single-steps-until", self.until_step, text)
            deferred_outputs.write(simulation)  # potentials are sums with these weights
            self._saved = [(f.mts_weights, f.mts_weights.copy()) for f in everything]
            for force in everything:
                weights = force.mts_weights
                weights[:] = single_step(weights)
            _taint_levels(simulation, first=True)
        elif not single and self._saved is not None:
            deferred_outputs.write(simulation)
            for weights, saved in self._saved:
                weights[:] = saved
            self._saved = None
            _taint_levels(simulation)


def _taint_levels(simulation: Any, first: bool = False) -> None:
    """Makes i-PI compute the forces of the levels again.

    i-PI keeps the force of a level, and its dependencies are those of the weights at the start.
    """
    for system in simulation.syslist:
        for level in system.forces.mts_forces:
            for force in system.forces.mforces if first else ():
                level._f.add_dependency(force._f)
                level._virs.add_dependency(force._virs)
            level._f.taint()
            level._virs.taint()
