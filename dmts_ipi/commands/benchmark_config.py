"""The YAML of ``dmts-ipi benchmark``: systems, models, integrators, seeds and times."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from dmts_ipi.core.config import StrictModel
from dmts_ipi.ipi.run_folder.config import ModelSettings, Positive

Kind = Literal["sts", "dmts", "dmts-nc", "hhf", "hhf-ffl", "bond"]
KINDS: tuple[str, ...] = ("sts", "dmts", "dmts-nc", "hhf", "hhf-ffl", "bond")
NAMES = {
    "sts": "STS",
    "dmts": "DMTS",
    "dmts-nc": "DMTS-NC",
    "hhf": "HHF",
    "hhf-ffl": "HHF+FFL",
    "bond": "bonds",
}


def _model(given: Any) -> Any:
    """A model is its spec, or a mapping with device, dtype and threads."""
    return {"model": given} if isinstance(given, str) else given


def _list(given: Any) -> Any:
    return given if isinstance(given, list) else [given]


Model = Annotated[ModelSettings, BeforeValidator(_model)]


class Students(StrictModel):
    """The two students of the paper; one that is absent leaves its integrators out."""

    nc: Model | None = Field(default=None, description="direct forces: dmts-nc, hhf, bond")
    conservative: Model | None = Field(default=None, description="forces by autograd: dmts")


class System(StrictModel):
    """One structure. Paths are relative to the YAML file; ``water64`` ships."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.+-]+$")
    structure: str
    group: Literal["water", "solvated"] | None = Field(
        default=None, description="which tables it goes to; null: water where it is only water"
    )


class Integrator(StrictModel):
    """One kind of integrator at one or several outer steps. null: the value of the file."""

    kind: Kind
    inner_fs: Positive = 1.0
    outer_fs: Annotated[list[Positive], BeforeValidator(_list)] = Field(default_factory=list)
    hmr_amu: float | None = Field(
        default=None, ge=0, description="null: 0 for sts, else the file's"
    )
    time_ps: Positive | None = None
    friction_per_ps: Positive | None = None
    splitting: Literal["baoab", "obabo", "baoab-respa"] | None = None
    hydrogen_friction_per_ps: Positive = Field(default=10.0, description="of hhf and hhf-ffl")
    bond_friction_per_ps: Positive = Field(default=50.0, description="of bond")
    name: str | None = Field(default=None, description="in tables; null: from kind and steps")

    @model_validator(mode="after")
    def _steps(self) -> Integrator:
        if self.kind == "sts" and self.outer_fs:
            raise ValueError("sts has no outer_fs; give inner_fs")
        if self.kind != "sts" and not self.outer_fs:
            raise ValueError(f"{self.kind} needs outer_fs")
        for outer in self.outer_fs:
            n = round(outer / self.inner_fs)
            if not 1 <= n <= 100 or not math.isclose(n * self.inner_fs, outer, rel_tol=1e-6):
                raise ValueError(
                    f"outer_fs {outer:g} is not a multiple of inner_fs {self.inner_fs:g}"
                )
        if self.name is not None and len(self.outer_fs) > 1:
            raise ValueError("name can only be given with a single outer_fs")
        return self


class BenchmarkConfig(StrictModel):
    """Everything that ``dmts-ipi benchmark`` needs; see ``docs/benchmark.md``."""

    version: Literal[1] = 1
    teacher: Model
    students: Students = Students()
    systems: list[System] = Field(min_length=1)
    integrators: list[Integrator] = Field(min_length=1)
    seeds: list[Annotated[int, Field(ge=0, lt=2**31)]] = Field(default_factory=lambda: [1])
    rounds: int = Field(default=3, ge=1, le=100, description="turns that every run takes")
    time_ps: Positive = 20.0
    equilibration_ps: float | None = Field(
        default=None, ge=0, description="null: a fifth, at most 5"
    )
    ensemble: Literal["nvt", "npt"] = "nvt"
    temperature_K: Positive = 300.0
    friction_per_ps: Positive = 1.0
    hmr_amu: float = Field(default=3.0, ge=0, description="of all but sts")
    accept_foreign_students: bool = Field(
        default=False, description="take students that were distilled from another teacher"
    )
    properties_every_fs: Positive = 10.0
    frames_every_fs: Positive = 50.0
    checkpoints_every_fs: Positive = 1000.0

    @model_validator(mode="after")
    def _sense(self) -> BenchmarkConfig:
        names = [s.name for s in self.systems]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"system {name} is listed twice")
        if len(set(self.seeds)) < len(self.seeds) or not self.seeds:
            raise ValueError("give at least one seed, and no seed twice")
        kinds = {i.kind for i in self.integrators}
        if "dmts" in kinds and self.students.conservative is None:
            raise ValueError("integrator dmts needs students.conservative; see docs/benchmark.md")
        if kinds - {"sts", "dmts"} and self.students.nc is None:
            raise ValueError("integrators other than sts and dmts need students.nc")
        return self

    def time_of(self, integrator: Integrator) -> float:
        """Length of its runs, ps."""
        return integrator.time_ps or self.time_ps

    def hmr_of(self, integrator: Integrator) -> float:
        """Mass moved to each hydrogen, amu. As in the paper, plain STS has none."""
        if integrator.hmr_amu is not None:
            return integrator.hmr_amu
        return 0.0 if integrator.kind == "sts" else self.hmr_amu
