"""Several systems in one i-PI step together: all ask for forces before the first one waits.

i-PI steps its systems in threads, whose requests come one by one, or one system after the other.
Here the systems take turns on one thread, at each point where one would wait for a force. With
``<batch_size>`` every message is full: R replicas are one call of the student and of the teacher.
It applies where all systems take BAOAB-RESPA on arrays with forces that are asked for directly
(``respa.RespaIntegrator.bypasses_ipi_forces``); other simulations run as before.
"""

from __future__ import annotations

from typing import Any

from ipi.engine.simulation import Simulation
from ipi.utils.softexit import softexit

from dmts_ipi.ipi.motion.respa import SPLITTING, RespaDynamics

_STOCK = Simulation.run_step


def can_step_in_lockstep(motions: list[Any]) -> bool:
    """Whether these motions of i-PI's systems can."""
    return len(motions) > 1 and all(
        isinstance(m, RespaDynamics)
        and m.splitting == SPLITTING
        and m.integrator.bypasses_ipi_forces()
        for m in motions
    )


def step_in_lockstep(motions: list[Any]) -> None:
    """One step of each."""
    under_way = [m.iter_step() for m in motions]
    while under_way:
        under_way = [m for m in under_way if next(m, True) is None]


def _run_step(self: Any, step: int) -> None:
    motions = [s.motion for s in self.syslist]
    if not can_step_in_lockstep(motions):
        _STOCK(self, step)
        return
    step_in_lockstep(motions)
    if not softexit.triggered and self.smotion is not None:
        self.smotion.step(step)


def install() -> None:
    """Puts it in; a second call does nothing."""
    Simulation.run_step = _run_step


def remove() -> None:
    """Puts i-PI's own back."""
    Simulation.run_step = _STOCK
