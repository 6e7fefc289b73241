"""What ``dmts-ipi profile`` records in i-PI and in the drivers.

Methods are replaced by recorded ones in a process that is profiled, and in no other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dmts_ipi.core.recorder import Recorder, recorder
from dmts_ipi.ipi.client.client_session import Session
from dmts_ipi.ipi.client.driver_model import AtomicUnitsModel

# Names of spans. A span that lies in another one takes its time from it.
STEP, THERMOSTAT, OUTPUT = "step", "thermostat", "output"
MESSAGE, BLOCKED = "message", "blocked"
AHEAD, LATE = "ahead", "late"  # random numbers and outputs, while drivers are at work
SERVE, EVALUATION, MODEL = "serve", "evaluation", "model"
LIST, NETWORK, TELEMETRY = "list", "network", "telemetry"


def install() -> None:
    """Installs the hooks of i-PI's process, if this run is profiled."""
    found = recorder("i-pi")
    if found is not None:
        _hook_ipi(found)


def profile_driver(evaluator: AtomicUnitsModel, role: str) -> Callable[[], None]:
    """Installs the hooks of a driver's process, if this run is profiled.

    Args:
        evaluator: its model has been evaluated, its observer is there already.
        role: ``teacher`` or ``student``.

    Returns:
        What writes the profile when the driver ends; it does nothing where there is none.
    """
    found = recorder(role)
    if found is None:
        return lambda: None
    hook_evaluator(found, evaluator)
    # between the arrival of positions and the answer
    found.wrap(Session, "_evaluate", SERVE)
    found.wrap(Session, "_reply", SERVE)
    return found.write


def profile_inside(evaluator: AtomicUnitsModel, role: str) -> None:
    """The same for an evaluator within i-PI."""
    found = recorder(role)
    if found is not None:
        from ipi.utils.softexit import softexit

        hook_evaluator(found, evaluator)
        softexit.register_function(found.write)


def hook_evaluator(found: Recorder, evaluator: AtomicUnitsModel) -> None:
    """Records an evaluator: the model and, where it is a student, its list and its network."""
    model: Any = evaluator.model
    if hasattr(model, "_list_pairs"):
        found.wrap(model, "_list_pairs", LIST)
        inside: Any = model.evaluator
        if inside is not None:
            found.wrap(inside, "evaluate", NETWORK)
    for name in ("compute", "compute_batch"):
        if hasattr(model, name):
            found.wrap(model, name, MODEL)
    if evaluator.observer is not None:
        for name in ("begin", "end", "evaluated"):
            found.wrap(evaluator.observer, name, TELEMETRY)
    found.wrap(evaluator, "compute_batch", EVALUATION)  # by which ``compute`` goes, too


def _hook_ipi(found: Recorder) -> None:
    from ipi.engine.forces import ForceBead
    from ipi.engine.motion.dynamics import NPTIntegrator, NVTIntegrator
    from ipi.engine.simulation import Simulation
    from ipi.utils.softexit import softexit

    from dmts_ipi.ipi.motion.respa import RespaNPTIntegrator, RespaNVTIntegrator

    from .deferred_outputs import DeferredOutputs
    from .exchange import DirectInterface
    from .prefetched_rng import PrefetchedNormals

    found.wrap(Simulation, "run_step", STEP)
    found.wrap(Simulation, "write_outputs", OUTPUT)
    found.wrap(ForceBead, "get_all", MESSAGE)
    found.wrap(DirectInterface, "send", MESSAGE)
    found.wrap(DirectInterface, "wait_for", MESSAGE)
    found.wrap(DirectInterface, "_wait", BLOCKED)
    for owner in (NVTIntegrator, NPTIntegrator, RespaNVTIntegrator, RespaNPTIntegrator):
        found.wrap(owner, "tstep", THERMOSTAT)
    found.wrap(RespaNVTIntegrator, "_thermostat_in_arrays", THERMOSTAT)
    found.wrap(PrefetchedNormals, "prepare", AHEAD)
    found.wrap(DeferredOutputs, "write", LATE)
    softexit.register_function(found.write)
