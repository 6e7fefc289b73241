"""Options of a training, read from YAML and from the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, create_model, model_validator

from dmts_ipi.core.config import StrictModel, parse
from dmts_ipi.students.contract import ArchitectureConfig
from dmts_ipi.students.density.architecture import NEW_STUDENT
from dmts_ipi.students.registry import kind_of, student_architectures

Output = Literal["forces", "non_conservative_forces", "energy", "virial"]
Weight = Annotated[float, Field(ge=0)]


class TrainConfig(StrictModel):
    """One training run. Exactly one of ``minutes`` and ``steps``.

    A run with ``steps`` gives the same student each time (one thread, one machine, one seed);
    one with ``minutes`` follows the clock.
    """

    architecture: SerializeAsAny[ArchitectureConfig] = NEW_STUDENT
    start: str | None = Field(
        default=None, description="folder of a student whose weights the training starts from"
    )
    steps: int | None = Field(default=None, ge=1, description="length of the training in steps")
    minutes: float | None = Field(
        default=None, gt=0, description="length of the training in minutes"
    )
    batch_frames: int | None = Field(
        default=None, ge=1, description="frames per step and process; None: some 200 atoms of them"
    )
    learning_rate: float = Field(default=3e-3, gt=0, description="of AdamW")
    muon_learning_rate: float = Field(default=5e-3, gt=0, description="of Muon, scaled as AdamW's")
    optimizer: str = Field(
        default="muon", pattern="^(muon|adamw)$", description="for hidden matrices"
    )
    weight_decay: float = Field(default=1e-3, ge=0)
    warmup_steps: int = Field(default=200, ge=0)
    final_rate: float = Field(
        default=0.01, ge=0, le=1, description="of the peak, at the end of the cosine"
    )
    clip: float = Field(default=1.0, gt=0, description="largest norm of the gradient")
    ema: float = Field(default=0.998, ge=0, lt=1, description="averaging of weights")
    huber_eV_per_A: float = Field(default=0.1, gt=0, description="errors above this count linearly")
    loss_weights: dict[Output, Weight] | None = Field(
        default=None,
        description="weight in the loss of each output of the network (forces, "
        "non_conservative_forces: eV/A; energy, virial: eV per atom); None: the architecture's",
    )
    difference_weight: float = Field(
        0.0, ge=0, description="weight of the change of the error between frames of a burst"
    )
    difference_fs: float = Field(default=3.0, gt=0, description="time between those frames")
    validation_fraction: float = Field(default=0.1, gt=0, lt=1)
    validations: int = Field(default=25, ge=1, description="number of validations and checkpoints")
    patience: int = Field(
        default=8,
        ge=0,
        description="validations without a smaller held-out error, while that of the training "
        "falls, after which the training ends; 0: it never ends early",
    )
    validation_frames: int = Field(default=48, ge=1, description="most frames used for the error")
    heating_at_fs: float = Field(
        default=6.0, gt=1, description="outer step at which checkpoints compete"
    )
    heating_bursts: int = Field(default=5, ge=0, description="most bursts used for the heating")
    burst_frames: int = Field(default=40, ge=16, description="most frames used of each burst")
    heating_from: float = Field(
        default=0.5, ge=0, le=1, description="part of the training after which checkpoints compete"
    )
    temperature_K: float = Field(default=300.0, gt=0, description="of the bursts")
    seed: int = Field(default=0, ge=0)
    device: str = Field(
        default="auto", description="auto: the GPU where torch sees one; or cpu, cuda, cuda:N"
    )
    compile: bool = True

    @model_validator(mode="after")
    def _one_length(self) -> TrainConfig:
        if (self.steps is None) == (self.minutes is None):
            raise ValueError("give exactly one of steps and minutes")
        return self


def parse_config(fields: Mapping[str, Any], where: str) -> TrainConfig:
    """Validates the options of a training whose architecture may be any that is registered.

    Args:
        fields: of ``TrainConfig``; ``architecture`` a mapping whose ``kind`` names it.
        where: what messages call the fields.

    Raises:
        InputError: a field is unknown or wrong, or there is no such architecture.
    """
    architecture = student_architectures.get(kind_of(fields.get("architecture")))
    model = create_model(
        "TrainConfig",
        __base__=TrainConfig,
        architecture=(architecture.config, architecture.new),
    )
    return parse(model, dict(fields), where)
