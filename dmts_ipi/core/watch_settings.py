"""Section ``watchdog`` of ``run.yaml``: limits of the verdicts, and how far back a rewind goes.

The descriptions of the fields are the manual: ``settings_table`` renders them, and a test compares
``docs/watchdog.md`` with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from .config import StrictModel
from .levels import STUDENT, TEACHER

Positive = Annotated[float, Field(gt=0)]
# fields of earlier versions: the mapping that replaced each of them, and the name of its entry
EARLIER = {f"{name}_telemetry": ("telemetry_of", name) for name in (TEACHER, STUDENT)} | {
    f"restart_{name}": ("restart_driver", name) for name in (TEACHER, STUDENT)
}


class WatchdogSettings(StrictModel):
    """Every field has a default. ``run.yaml`` of earlier versions, with ``teacher_telemetry``,
    ``student_telemetry``, ``restart_teacher`` and ``restart_student``, is read as well."""

    enabled: bool = Field(
        default=True, description="watch the run; `dmts-ipi run --no-watchdog` sets it false"
    )
    telemetry: str = Field(
        default="auto",
        description="where the drivers publish their telemetry: auto, off, or ipc:///PATH "
        "(docs/telemetry.md)",
    )
    telemetry_of: dict[str, str] = Field(
        default_factory=dict,
        description="telemetry of single models, by name, such as "
        "{teacher: 'tcp://127.0.0.1:5500'}",
    )
    difference_max_eV_per_A: Positive | None = Field(
        default=None,
        description="largest difference allowed between the forces of two models on one atom at "
        "an outer step; null: 60 times the validation RMSE of the faster model, at least 0.5 "
        "(3 where it has no record)",
    )
    difference_rms_eV_per_A: Positive | None = Field(
        default=None,
        description="RMS difference allowed over the window; null: 8 times the validation RMSE, "
        "at least 0.05 (0.5 where there is no record)",
    )
    difference_max_of_eV_per_A: dict[str, Positive] = Field(
        default_factory=dict,
        description="difference_max_eV_per_A of single models, by name of the faster one",
    )
    difference_rms_of_eV_per_A: dict[str, Positive] = Field(
        default_factory=dict,
        description="difference_rms_eV_per_A of single models, by name of the faster one",
    )
    difference_window_steps: int = Field(
        default=50, ge=1, description="outer steps over which the RMS difference is averaged"
    )
    force_spike_eV_per_A: Positive = Field(
        default=10.0,
        description="a force of a fast model may be this much larger than three times the largest "
        "force of the reference so far",
    )
    temperature_probability: float = Field(
        default=1e-12,
        gt=0,
        lt=0.5,
        description="probability of each tail of the temperature's exact distribution that is "
        "outside the allowed band",
    )
    temperature_tolerance: float = Field(
        default=0.2,
        ge=0,
        description="relative tolerance added to this band, for heating and the integrator's bias",
    )
    potential_jump_sigma: Positive = Field(
        default=12.0,
        description="change of the potential energy allowed between two lines of properties, in "
        "canonical standard deviations sqrt(dof/2) kT",
    )
    conserved_jump_sigma: Positive = Field(
        default=2.0,
        description="change of the conserved energy allowed between two lines of properties, in "
        "the same unit",
    )
    drift_eV_per_atom: Positive = Field(
        default=0.05, description="NVE: drift of the conserved energy allowed"
    )
    guard_fs: float = Field(
        default=100.0,
        ge=0,
        description="a rewind goes to a checkpoint that is this much older than the last step "
        "known to be good",
    )
    sts_ps: Positive = Field(
        default=1.0, description="simulated time in single time steps after a rewind"
    )
    rewinds_max: int = Field(
        default=50,
        ge=0,
        description="rewinds allowed in the whole run; 0: the first verdict on physics ends it",
    )
    rewinds_here_max: int = Field(
        default=4, ge=1, description="consecutive rewinds allowed at one place"
    )
    rewinds_window_max: int = Field(
        default=10, ge=1, description="rewinds allowed within rewinds_window_ps"
    )
    rewinds_window_ps: Positive = Field(
        default=100.0, description="simulated time over which rewinds_window_max counts"
    )
    restarts_max: int = Field(
        default=30,
        ge=0,
        description="restarts of processes allowed per hour; 0: no process is restarted",
    )
    stall_limit_s: Positive | None = Field(
        default=None,
        description="wall time without a new line of properties that counts as a stall; null: "
        "60 s, or 30 times the longest time between two lines so far if that is longer",
    )
    memory_growth_MB: Positive = Field(
        default=4000.0, description="growth of a process allowed since its first minute"
    )
    verdict_options: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="options of verdicts that other packages add, by their name "
        "(docs/extending/verdict.md)",
    )
    restart_ipi: str | None = Field(
        default=None,
        description="`dmts-ipi watchdog`: command that restarts i-PI; null: a person must restart "
        "it",
    )
    restart_driver: dict[str, str] = Field(
        default_factory=dict,
        description="`dmts-ipi watchdog`: commands that restart drivers, by name of the model; "
        "if absent, a person must restart them",
    )

    @model_validator(mode="before")
    @classmethod
    def _earlier_names(cls, fields: Any) -> Any:
        """Fields of earlier versions, which knew two models only, become entries by name."""
        if not isinstance(fields, Mapping) or not any(old in fields for old in EARLIER):
            return fields
        kept = {key: value for key, value in fields.items() if key not in EARLIER}
        for old, (new, name) in EARLIER.items():
            value = fields.get(old)
            by_name = kept.get(new, {})
            if value is not None and isinstance(by_name, Mapping):
                kept[new] = {name: value, **by_name}
        return kept


def settings_table() -> str:
    """The settings as the table of ``docs/watchdog.md``: field, default, meaning."""
    lines = ["| field | default | meaning |", "|---|---|---|"]
    for name, field in WatchdogSettings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        text = "null" if default is None else str(default).lower() if default is True else default
        lines.append(f"| `{name}` | {text} | {field.description} |")
    return "\n".join(lines) + "\n"
