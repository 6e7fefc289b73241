"""Options of a training, read from YAML and from the command line."""

from __future__ import annotations

from pydantic import Field, model_validator

from dmts_ipi.core.config import StrictModel
from dmts_ipi.students.density.architecture import StudentArchitecture

# The defaults of StudentArchitecture are those of files written before a field existed.
NEW_STUDENT = StudentArchitecture(
    bessel=8, gaussians=5, gaussian_width_A=0.3, normalise=True, head_scale=0.02
)


class TrainConfig(StrictModel):
    """One training run. Exactly one of ``minutes`` and ``steps``.

    A run with ``steps`` gives the same student each time (one thread, one machine, one seed);
    one with ``minutes`` follows the clock.
    """

    architecture: StudentArchitecture = NEW_STUDENT
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
    difference_weight: float = Field(
        0.0, ge=0, description="weight of the change of the error between frames of a burst"
    )
    difference_fs: float = Field(default=3.0, gt=0, description="time between those frames")
    validation_fraction: float = Field(default=0.1, gt=0, lt=1)
    validations: int = Field(default=25, ge=1, description="number of validations and checkpoints")
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
