"""Lines and frames of a step are written while the drivers work on the next one.

i-PI writes what belongs to a step when the step is over, and asks for the next forces afterwards.
An integrator whose steps run on plain arrays leaves i-PI's objects as they are until its next step
ends (``RespaIntegrator.iter_step``). So properties and frames can wait until that step waits for a
driver, and then cost nothing. Files hold the same bytes, in the same order.

Deferred outputs are written before i-PI's objects change, and when the run ends: by its last step,
an error or a soft exit, from whichever thread. Nothing is deferred at a step with a checkpoint,
which holds the numbers of the outputs and the state of the random numbers.
"""

from __future__ import annotations

from typing import Any

from ipi.engine.outputs import PropertyOutput, TrajectoryOutput
from ipi.engine.simulation import Simulation
from ipi.engine.smotion import Smotion
from ipi.utils.softexit import softexit

_STOCK_WRITE = Simulation.write_outputs
_STOCK_LOOP = Simulation._run_loop


class DeferredOutputs:
    """Outputs that one run of a simulation has deferred.

    Attributes:
        count: how many steps were written late, for tests.
    """

    def __init__(self, simulation: Any) -> None:
        self.count = 0
        self._simulation = simulation
        self._step: int | None = None  # whose outputs wait
        systems = simulation.syslist
        alone = len(systems) == 1 and not simulation.threading
        alone = alone and type(simulation.smotion) in (type(None), Smotion)  # one that does nothing
        integrator: Any = getattr(systems[0].motion, "integrator", None) if alone else None
        self._integrator = integrator if hasattr(integrator, "while_waiting") else None
        if self._integrator is not None:
            self._integrator.while_waiting = self.write
        softexit.flist.insert(0, (self._write, (), {}))  # before files are closed; holds the lock

    def defer(self) -> bool:
        """Whether the outputs of the step that is over will be written later."""
        simulation = self._simulation
        active = [o for o in simulation.outputs if o.active()]
        last = not 0 <= simulation.step < simulation.tsteps - 1
        if last or softexit.triggered or not self._beads_lag_one_step():
            return False
        if not all(type(o) in (PropertyOutput, TrajectoryOutput) for o in active):
            return False
        self._step = simulation.step if active else None
        return True

    def write(self) -> None:
        """Writes deferred outputs; i-PI's objects must still hold the state of their step."""
        with softexit.lock:  # held for outputs, as by i-PI
            self._write()

    def _write(self) -> None:
        step, self._step = self._step, None
        if step is None:
            return
        now, self._simulation.step = self._simulation.step, step
        try:
            _STOCK_WRITE(self._simulation)
        finally:
            self._simulation.step = now
        self.count += 1

    def _beads_lag_one_step(self) -> bool:
        return self._integrator is not None and bool(self._integrator.beads_lag_one_step())


def write(simulation: Any) -> None:
    """Writes deferred outputs, if there are any."""
    late = getattr(simulation, "deferred_outputs", None)
    if late is not None:
        late.write()


def _write_outputs(self: Any) -> None:
    late = getattr(self, "deferred_outputs", None)
    if late is None or not late.defer():
        _STOCK_WRITE(self)


def _run_loop(self: Any, write_outputs: bool = True) -> None:
    self.deferred_outputs = DeferredOutputs(self)
    try:
        _STOCK_LOOP(self, write_outputs)
    finally:
        self.deferred_outputs.write()
        self.deferred_outputs = None


def install() -> None:
    """Puts it in; a second call does nothing."""
    Simulation.write_outputs = _write_outputs
    Simulation._run_loop = _run_loop


def remove() -> None:
    """Puts i-PI's own back."""
    Simulation.write_outputs = _STOCK_WRITE
    Simulation._run_loop = _STOCK_LOOP
