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
    profile = recorder("i-pi")
    if profile is not None:
        _hook_ipi(profile)


def profile_driver(evaluator: AtomicUnitsModel, role: str) -> Callable[[], None]:
    """Installs the hooks of a driver's process, if this run is profiled.

    Args:
        evaluator: its model has been evaluated, its observer is there already.
        role: ``teacher`` or ``student``.

    Returns:
        What writes the profile when the driver ends; it does nothing where there is none.
    """
    profile = recorder(role)
    if profile is None:
        return lambda: None
    hook_evaluator(profile, evaluator)
    # between the arrival of positions and the answer
    profile.wrap(Session, "_evaluate", SERVE)
    profile.wrap(Session, "_reply", SERVE)
    return profile.write


def profile_inside(evaluator: AtomicUnitsModel, role: str) -> None:
    """The same for an evaluator within i-PI."""
    profile = recorder(role)
    if profile is not None:
        from ipi.utils.softexit import softexit

        hook_evaluator(profile, evaluator)
        softexit.register_function(profile.write)


def hook_evaluator(profile: Recorder, evaluator: AtomicUnitsModel) -> None:
    """Records an evaluator: the model and, where it is a student, its list and its network."""
    model: Any = evaluator.model
    if hasattr(model, "_list_pairs"):
        profile.wrap(model, "_list_pairs", LIST)
        inside: Any = model.evaluator
        if inside is not None:
            profile.wrap(inside, "evaluate", NETWORK)
    for name in ("compute", "compute_batch"):
        if hasattr(model, name):
            profile.wrap(model, name, MODEL)
    if evaluator.observer is not None:
        for name in ("begin", "end", "evaluated"):
            profile.wrap(evaluator.observer, name, TELEMETRY)
    profile.wrap(evaluator, "compute_batch", EVALUATION)  # by which ``compute`` goes, too


def _hook_ipi(profile: Recorder) -> None:
    from ipi.engine.forces import ForceBead
    from ipi.engine.motion.dynamics import NPTIntegrator, NVTIntegrator
    from ipi.engine.simulation import Simulation
    from ipi.utils.softexit import softexit

    from dmts_ipi.ipi.motion.respa import RespaNPTIntegrator, RespaNVTIntegrator

    from .deferred_outputs import DeferredOutputs
    from .exchange import DirectInterface
    from .prefetched_rng import PrefetchedNormals

    profile.wrap(Simulation, "run_step", STEP)
    profile.wrap(Simulation, "write_outputs", OUTPUT)
    profile.wrap(ForceBead, "get_all", MESSAGE)
    profile.wrap(DirectInterface, "send", MESSAGE)
    profile.wrap(DirectInterface, "wait_for", MESSAGE)
    profile.wrap(DirectInterface, "_wait", BLOCKED)
    for owner in (NVTIntegrator, NPTIntegrator, RespaNVTIntegrator, RespaNPTIntegrator):
        profile.wrap(owner, "tstep", THERMOSTAT)
    profile.wrap(RespaNVTIntegrator, "_thermostat_in_arrays", THERMOSTAT)
    profile.wrap(PrefetchedNormals, "prepare", AHEAD)
    profile.wrap(DeferredOutputs, "write", LATE)
    softexit.register_function(profile.write)
