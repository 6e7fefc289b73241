"""Thresholds of a run: from its settings, the student's validation errors, and statistics."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.units import KB_EV_PER_K
from dmts_ipi.core.watch_settings import WatchdogSettings

MAX_OVER_RMSE, RMS_OVER_RMSE = 60.0, 8.0
LEAST_MAX, LEAST_RMS = 0.5, 0.05  # eV/A: what a good student may reach without any harm
UNKNOWN_MAX, UNKNOWN_RMS = 3.0, 0.5  # eV/A: of a student without a record


@dataclass(frozen=True)
class Physics:
    """What of a run the thresholds depend on. ``dof``: kinetic degrees of freedom."""

    ensemble: str
    temperature_K: float
    n_atoms: int
    dof: int
    outer_step_fs: float
    equilibration_ps: float
    properties_stride: int
    checkpoint_stride: int
    keep_checkpoints: int
    multiple_steps: bool = True  # False: the run is one of single time steps throughout

    def steps(self, time_fs: float) -> int:
        """Outer steps that cover a time."""
        return math.ceil(round(time_fs / self.outer_step_fs, 6))


@dataclass(frozen=True)
class Thresholds:
    """Limits in the units of their names; ``temperature_K`` is (lowest, highest)."""

    difference_max_eV_per_A: float
    difference_rms_eV_per_A: float
    window: int
    temperature_K: tuple[float, float]
    force_spike_eV_per_A: float
    potential_jump_eV: float
    conserved_jump_eV: float
    drift_eV: float
    equilibration_steps: int
    guard_steps: int
    sts_steps: int


def thresholds(settings: WatchdogSettings, physics: Physics, rmse: float | None) -> Thresholds:
    """Limits of a run.

    Args:
        settings: what the user set.
        physics: see ``Physics``.
        rmse: the student's validation error, RMS over components, eV/A; None: not known.

    Raises:
        InputError: the guard interval reaches further back than the checkpoints that are kept.
    """
    guard = physics.steps(settings.guard_fs)
    kept = physics.checkpoint_stride * (physics.keep_checkpoints - 1)
    if settings.enabled and guard > kept:
        raise InputError(
            "run.yaml: watchdog.guard_fs",
            settings.guard_fs,
            f"reaches behind the checkpoints that are kept ({kept * physics.outer_step_fs:g} fs): "
            "make it shorter, or raise keep_checkpoints",
        )
    largest = UNKNOWN_MAX if rmse is None else max(MAX_OVER_RMSE * rmse, LEAST_MAX)
    rms = UNKNOWN_RMS if rmse is None else max(RMS_OVER_RMSE * rmse, LEAST_RMS)
    # the potential energy of a classical system fluctuates by about sqrt(dof / 2) kT
    sigma = math.sqrt(physics.dof / 2) * KB_EV_PER_K * physics.temperature_K
    return Thresholds(
        difference_max_eV_per_A=settings.difference_max_eV_per_A or largest,
        difference_rms_eV_per_A=settings.difference_rms_eV_per_A or rms,
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
