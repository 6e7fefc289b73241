"""``run.yaml``: what a run needs that i-PI does not know. Its physics is in ``input.xml``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from dmts_ipi.core.config import StrictModel
from dmts_ipi.core.levels import STUDENT, TEACHER
from dmts_ipi.core.watch_settings import WatchdogSettings

VERSION = 2
# Fields of version 1 that repeated what input.xml says, or that only served to write it.
OF_INPUT = (
    *("ensemble", "mode", "inner_step_fs", "n_inner", "time_ps", "temperature_K", "splitting"),
    *("thermostat", "friction_per_ps", "friction_by_element_per_ps", "bond_friction_per_ps"),
    *("pressure_bar", "barostat_tau_fs", "seed", "properties_every_fs", "frames_every_fs"),
    *("checkpoints_every_fs", "trajectory_format", "resident"),
)


class ModelSettings(StrictModel):
    """One model of a run, and how it is evaluated."""

    model: str = Field(description="name, folder or file of the model (`dmts-ipi models --help`)")
    identity: str = Field(default="", description="hash that distinguishes models; written by init")
    device: str = Field(
        default="auto", description="auto (an NVIDIA GPU if torch sees one), cpu, cuda or cuda:N"
    )
    dtype: Literal["float32", "float64"] | None = Field(
        default=None, description="null: the model's own"
    )
    threads: int | None = Field(default=None, ge=1, description="CPU threads; null: all cores")
    launch: str = Field(
        default="",
        description="command that launches the driver, such as srun --nodes=1 ...",
    )
    command: str = Field(
        default="",
        description="another program that is used as the driver; {mode}, {address} and {port} "
        "are replaced by those of the socket",
    )


class NetworkSettings(StrictModel):
    """How the processes of a run reach each other (``docs/clusters.md``)."""

    address: str | None = Field(
        default=None,
        description="null: unix sockets on one node. Otherwise TCP: auto, an interface (ib0), a "
        "host name or an address of i-PI's node",
    )


class RunSettings(StrictModel):
    """``run.yaml``. A file of version 1 is read as well; its physics is ignored in favour of
    input.xml."""

    version: Literal[2] = 2
    models: dict[str, ModelSettings] = Field(
        description="models by the name of their <force> in input.xml, the most accurate first"
    )
    hmr_amu: float = Field(
        default=3.0, ge=0, description="mass that was moved to each hydrogen; 0: none"
    )
    equilibration_ps: float = Field(
        default=0.0, ge=0, description="equilibration that is left out of the summary's means"
    )
    keep_checkpoints: int = Field(
        default=4, ge=2, description="number of newest checkpoints that `run` keeps"
    )
    no_patches: str = Field(
        default="", description="accelerations of i-PI that are switched off: names, or all"
    )
    network: NetworkSettings = Field(default_factory=NetworkSettings)
    watchdog: WatchdogSettings = Field(default_factory=WatchdogSettings)
    versions: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _version_1(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        if given.get("version", VERSION) != 1:
            for name in OF_INPUT:
                if name in given:
                    raise ValueError(f"{name} is set in input.xml: edit it there")
            return given
        fields = {k: v for k, v in given.items() if k not in OF_INPUT}
        models = {name: fields.pop(name, None) for name in (TEACHER, STUDENT)}
        fields["models"] = {k: v for k, v in models.items() if v is not None}
        if given.get("mode") == "sts":
            fields["models"].pop(STUDENT, None)
        if "hmr_added_amu" in fields:
            fields["hmr_amu"] = fields.pop("hmr_added_amu")
        fields["version"] = VERSION
        return fields

    @property
    def teacher(self) -> ModelSettings | None:
        """Settings of the model called ``teacher``."""
        return self.models.get(TEACHER)

    @property
    def student(self) -> ModelSettings | None:
        """Settings of the model called ``student``."""
        return self.models.get(STUDENT)
