"""Limits of a run: from its settings, the validation errors of its models, and statistics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.force_comparison import Pair
from dmts_ipi.core.levels import STUDENT, TEACHER
from dmts_ipi.core.units import KB_EV_PER_K
from dmts_ipi.core.verdicts import DifferenceLimits, Physics, Thresholds
from dmts_ipi.core.watch_settings import WatchdogSettings

MAX_OVER_RMSE, RMS_OVER_RMSE = 60.0, 8.0
LEAST_MAX, LEAST_RMS = 0.5, 0.05  # eV/A: what a good student may reach without any harm
UNKNOWN_MAX, UNKNOWN_RMS = 3.0, 0.5  # eV/A: of a student without a record
TEACHER_AND_STUDENT: tuple[Pair, ...] = ((TEACHER, STUDENT),)


def thresholds(
    settings: WatchdogSettings,
    physics: Physics,
    rmse: Mapping[str, float],
    pairs: Sequence[Pair] = TEACHER_AND_STUDENT,
) -> Thresholds:
    """Limits of a run.

    Args:
        settings: what the user set.
        physics: see ``Physics``.
        rmse: validation error by model, RMS over force components, eV/A; absent: not known.
        pairs: the models that are compared, outermost level first.

    Raises:
        InputError: the guard interval reaches further back than the checkpoints that are kept, or
            a limit is set for a model that is compared with none.
    """
    guard = physics.steps(settings.guard_fs)
    kept = physics.checkpoint_stride * (physics.keep_checkpoints - 1)
    if settings.enabled and guard > kept:
        raise InputError(
            "run.yaml: watchdog.guard_fs",
            settings.guard_fs,
            "is longer than the time covered by the checkpoints that are kept "
            f"({kept * physics.outer_fs:g} fs): make it shorter, or increase keep_checkpoints",
        )
    for field in ("difference_max_of_eV_per_A", "difference_rms_of_eV_per_A"):
        for name in getattr(settings, field):
            if settings.enabled and name not in (fast for _, fast in pairs):
                known = ", ".join(fast for _, fast in pairs) or "none in this run"
                remedy = f"is not compared with a more accurate model; known: {known}"
                raise InputError(f"run.yaml: watchdog.{field}", name, remedy)
    references = {a for a, _ in pairs} - {f for _, f in pairs}
    known_rmse = {**dict.fromkeys(references, 0.0), **rmse}
    # the potential energy of a classical system fluctuates by about sqrt(dof / 2) kT
    sigma = math.sqrt(physics.dof / 2) * KB_EV_PER_K * physics.temperature_K
    return Thresholds(
        differences={pair: difference_limits(settings, pair, known_rmse) for pair in pairs},
        window=settings.difference_window_steps,
        temperature_K=temperature_band(settings, physics),
        force_spike_eV_per_A=settings.force_spike_eV_per_A,
        potential_jump_eV=settings.potential_jump_sigma * sigma,
        conserved_jump_eV=settings.conserved_jump_sigma * sigma,
        drift_eV=settings.drift_eV_per_atom * physics.n_atoms,
        equilibration_steps=physics.steps(physics.equilibration_ps * 1000),
        guard_steps=guard,
        sts_steps=max(1, physics.steps(settings.sts_ps * 1000)),
    )


def difference_limits(
    settings: WatchdogSettings, pair: Pair, rmse: Mapping[str, float]
) -> DifferenceLimits:
    """How far two models may differ: as set, else from their validation errors.

    Errors of two students of one teacher are taken as independent: their squares add up. The
    reference has the error 0.
    """
    accurate, fast = pair
    largest, rms = UNKNOWN_MAX, UNKNOWN_RMS
    if fast in rmse and accurate in rmse:
        error = math.hypot(rmse[fast], rmse[accurate])
        largest, rms = max(MAX_OVER_RMSE * error, LEAST_MAX), max(RMS_OVER_RMSE * error, LEAST_RMS)
    s = settings
    return DifferenceLimits(
        s.difference_max_of_eV_per_A.get(fast) or s.difference_max_eV_per_A or largest,
        s.difference_rms_of_eV_per_A.get(fast) or s.difference_rms_eV_per_A or rms,
    )


def temperature_band(settings: WatchdogSettings, physics: Physics) -> tuple[float, float]:
    """Lowest and highest plausible kinetic temperature, K.

    At equilibrium ``dof T / T0`` is distributed as chi squared with ``dof`` degrees of freedom;
    the tolerance is for what heating and integrators do to its mean.
    """
    from scipy.special import gammainccinv, gammaincinv  # scipy.stats takes a second to import

    if physics.ensemble == "nve":
        return 0.0, math.inf
    half, p = physics.dof / 2, settings.temperature_probability
    low = physics.temperature_K * float(gammaincinv(half, p)) / half
    high = physics.temperature_K * float(gammainccinv(half, p)) / half
    tolerance = settings.temperature_tolerance * physics.temperature_K
    return max(low - tolerance, 0.0), high + tolerance
