"""Section ``watchdog`` of ``run.yaml``: what counts as wrong, and how far back a run then goes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .config import StrictModel

Positive = Annotated[float, Field(gt=0)]


class WatchdogSettings(StrictModel):
    """Every field has a default; null means derived as the comment says (``docs/watchdog.md``).

    Differences are teacher minus student at the same positions, per outer step.
    """

    enabled: bool = True
    telemetry: str = "auto"  # of both drivers: auto, off, or ipc:///PATH; see docs/telemetry.md
    teacher_telemetry: str | None = None  # where its driver differs, such as tcp://127.0.0.1:5500
    student_telemetry: str | None = None
    difference_max_eV_per_A: Positive | None = None  # one atom; 60 x the student's RMSE
    difference_rms_eV_per_A: Positive | None = None  # mean over the window; 8 x its RMSE
    difference_window_steps: int = Field(default=50, ge=1)
    force_spike_eV_per_A: Positive = 10.0  # of the student, beside 3 x the teacher's largest force
    temperature_probability: float = Field(default=1e-12, gt=0, lt=0.5)  # of each tail
    temperature_tolerance: float = Field(default=0.2, ge=0)  # on top of it, relative
    potential_jump_sigma: Positive = 12.0  # between two lines, in canonical standard deviations
    conserved_jump_sigma: Positive = 2.0  # the same of the conserved quantity
    drift_eV_per_atom: Positive = 0.05  # of the conserved quantity, NVE only
    guard_fs: float = Field(default=100.0, ge=0)  # a checkpoint is this much older than the event
    sts_ps: Positive = 1.0  # single time steps after a rewind
    rewinds_max: int = Field(default=50, ge=0)  # of the whole run; 0: the first event ends it
    rewinds_here_max: int = Field(default=4, ge=1)  # one after another at one place
    rewinds_window_max: int = Field(default=10, ge=1)  # within the window below
    rewinds_window_ps: Positive = 100.0
    restarts_max: int = Field(default=30, ge=0)  # of processes, per hour; 0: none is restarted
    stall_limit_s: Positive | None = None  # 60 s and 30 x the time of a line; null: measured
    memory_growth_MB: Positive = 4000.0  # of a driver since its first minute
    # `dmts-ipi watchdog`: commands that start again what others started; null: a person does
    restart_ipi: str | None = None
    restart_teacher: str | None = None
    restart_student: str | None = None
