"""``RunConfig``: everything that a new run folder is made from, as options, YAML or Python say it.

It is split in two when a folder is made: the physics goes into ``input.xml``, the rest into
``run.yaml`` (``RunSettings``). ``config_of`` is the way back: the configuration that would make a
folder again, read from these two files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationInfo, field_validator, model_validator

from dmts_ipi.core.config import StrictModel
from dmts_ipi.core.errors import InputError
from dmts_ipi.core.levels import SCHEMES, STUDENT, TEACHER, Level, difference, total
from dmts_ipi.core.watch_settings import WatchdogSettings
from dmts_ipi.ipi.input_xml import InputSpec, known_splittings
from dmts_ipi.ipi.thermostats import THERMOSTATS, BondFriction, Thermostat, make_thermostat

from .settings import ModelSettings, NetworkSettings, RunSettings

Positive = Annotated[float, Field(gt=0)]
Steps = Annotated[int, Field(ge=1)]
DERIVED = ("mode", "n_inner", "levels")
LARGEST_INNER_FS, LARGEST_N_INNER, LARGEST_STEPS = 20.0, 1000, 100
READ = {"read": True}  # context: what a run was made with is taken as it is, limits of init aside


class RunConfig(StrictModel):
    """Everything that defines a run. The descriptions are the manual of ``dmts-ipi init``."""

    ensemble: Literal["nvt", "nve", "npt"] = Field(default="nvt", description="nvt, nve or npt")
    mode: Literal["sts", "dmts"] = Field(
        default="dmts", description="dmts: teacher and student; sts: teacher at every step"
    )
    inner_fs: float = Field(
        default=1.0, gt=0, description="innermost time step (the step of sts), fs"
    )
    n_inner: int = Field(default=5, ge=1, description="innermost steps per outer step; 1 in sts")
    levels: dict[str, Steps] = Field(
        default_factory=dict,
        description="model of each level and its number of steps per step of the next outer "
        "level, from the outermost level, such as teacher=1,student=3,small=2 (default: "
        "teacher=1,student=N_INNER)",
    )
    level_scheme: str = Field(
        default="difference",
        description="difference: each model corrects that of the next inner level, and the first "
        "one's ensemble is sampled; sum: forces of the models add up",
    )
    time_ps: float = Field(default=20.0, gt=0, description="length of the run, ps")
    temperature_K: float = Field(default=300.0, gt=0, description="temperature, K")
    splitting: str = Field(
        default="baoab",
        description="baoab-respa: thermostat in every inner step (runs under `dmts-ipi i-pi`); "
        "baoab or stock: i-PI's own, thermostat in the middle of each outer step; obabo: i-PI's "
        "own, thermostat at both ends of each outer step",
    )
    thermostat: str = Field(
        default="langevin", description="langevin, ffl (fast-forward Langevin) or svr"
    )
    friction_per_ps: float = Field(default=1.0, gt=0, description="friction of all atoms, 1/ps")
    friction_by_element_per_ps: dict[str, Positive] = Field(
        default_factory=dict,
        description="friction of single elements, 1/ps, such as H=10 or H=10,O=2 (langevin or ffl)",
    )
    bond_friction_per_ps: float = Field(
        default=0.0,
        ge=0,
        description="bond thermostat: friction along X-H bonds and across H-X-H angles, 1/ps; "
        "0: none",
    )
    pressure_bar: float = Field(default=1.0, description="pressure of NPT, bar")
    barostat_tau_fs: float = Field(
        default=2000.0, gt=0, description="relaxation time of the volume in NPT, fs"
    )
    hmr_amu: float = Field(
        default=3.0, ge=0, description="mass moved to each hydrogen, amu; 0: none"
    )
    seed: int = Field(
        default=1, ge=0, lt=2**31, description="seed of start velocities and thermostat"
    )
    equilibration_ps: float = Field(
        default=0.0, ge=0, description="equilibration left out of the summary's means, ps"
    )
    properties_every_fs: float = Field(
        default=10.0, gt=0, description="time between lines of properties, fs"
    )
    frames_every_fs: float = Field(default=50.0, gt=0, description="time between stored frames, fs")
    checkpoints_every_fs: float = Field(
        default=1000.0, gt=0, description="time between checkpoints, fs"
    )
    keep_checkpoints: int = Field(
        default=4, ge=2, description="number of newest checkpoints that `run` keeps"
    )
    trajectory_format: Literal["xyz", "bin"] = Field(
        default="xyz", description="xyz, or bin (i-PI's binary, 9 times faster to write)"
    )
    student_in_process: bool = Field(
        default=False,
        description="the fastest model runs within i-PI's process, without a driver and without "
        "messages in inner steps (docs/performance.md)",
    )
    models: dict[str, ModelSettings]
    no_patches: str = ""
    network: NetworkSettings = Field(default_factory=NetworkSettings)
    watchdog: WatchdogSettings = Field(default_factory=WatchdogSettings)
    versions: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _one_vocabulary(cls, given: Any) -> Any:
        """Collects models by name; sets levels from ``mode`` and ``n_inner``, or vice versa."""
        if not isinstance(given, dict):
            return given
        fields = dict(given)
        named = {k: fields.pop(k) for k in (TEACHER, STUDENT) if k in fields}
        models = {**{k: v for k, v in named.items() if v is not None}, **fields.get("models", {})}
        fields["models"] = models
        if not fields.get("levels"):
            if fields.get("mode") == "sts":
                if str(fields.get("n_inner", 1)) != "1":
                    raise ValueError("mode sts has n_inner 1")
                fields["levels"] = {TEACHER: 1}
            else:
                fields["levels"] = {TEACHER: 1, STUDENT: fields.get("n_inner", 5)}
        levels = fields["levels"]
        if isinstance(levels, dict):
            if len(levels) > 1 and fields.get("mode") == "sts":
                raise ValueError("mode sts has one level; leave levels or mode out")
            if fields.get("mode", "dmts") in ("sts", "dmts"):
                fields["mode"] = "sts" if len(levels) == 1 else "dmts"
            for name in levels:
                if name not in models:
                    known = ", ".join(models)
                    raise ValueError(
                        f"levels name {name}, which is not a model of this run; models are {known}"
                    )
            fields["models"] = {name: models[name] for name in levels}
        return fields

    @field_validator("splitting", "thermostat", "level_scheme")
    @classmethod
    def _registered(cls, value: str, info: ValidationInfo) -> str:
        if info.field_name == "splitting":
            value, known = ("baoab" if value == "stock" else value), known_splittings()
        else:
            known = (THERMOSTATS if info.field_name == "thermostat" else SCHEMES).names()
        if value not in known:
            raise ValueError(f"must be one of {', '.join(known)}")
        return value

    @field_validator("inner_fs", "n_inner", "levels")
    @classmethod
    def _limits(cls, value: Any, info: ValidationInfo) -> Any:
        name = str(info.field_name)
        limits = {"inner_fs": LARGEST_INNER_FS, "n_inner": LARGEST_N_INNER, "levels": LARGEST_STEPS}
        largest = max(value.values(), default=0) if isinstance(value, dict) else value
        if info.context is not READ and largest > limits[name]:
            raise ValueError(f"input should be less than or equal to {limits[name]:g}")
        return value

    @model_validator(mode="after")
    def _modes(self, info: ValidationInfo) -> RunConfig:
        if info.context is READ:
            object.__setattr__(self, "n_inner", math.prod(self.levels.values()))
            return self
        if self.level_scheme == "sum" and TEACHER in self.levels and len(self.levels) > 1:
            raise ValueError(
                f"level_scheme sum has no model called {TEACHER}, which is sampled alone; name "
                "the models otherwise, such as --model long=MODEL --model short=MODEL --levels "
                "long=1,short=3"
            )
        first = next(iter(self.levels.values()))
        if first != 1:
            raise ValueError("the outermost level must have 1 step, the outer time step")
        object.__setattr__(self, "n_inner", math.prod(self.levels.values()))
        if self.student_in_process and self.mode != "dmts":
            raise ValueError("student_in_process needs mode dmts, which has a student")
        special = bool(self.friction_by_element_per_ps or self.bond_friction_per_ps)
        if self.ensemble == "nve" and (special or self.thermostat != "langevin"):
            raise ValueError("nve has no thermostat; use nvt, or leave thermostat and friction out")
        if special and not THERMOSTATS.get(self.thermostat).takes_local_tags:
            raise ValueError(
                f"thermostat {self.thermostat} has the same friction for all atoms; use langevin "
                "or ffl"
            )
        return self

    def changed(self, **changes: Any) -> RunConfig:
        """The same with other values; ``n_inner`` sets the steps of a run with two levels.

        Raises:
            ValueError: the fields contradict each other (pydantic's ``ValidationError``).
        """
        fields = self.model_dump()
        if "n_inner" in changes:
            if len(self.levels) > 2:
                raise InputError(
                    "n_inner",
                    changes["n_inner"],
                    "with more than two levels, change levels instead",
                )
            if len(self.levels) == 2:
                outer, inner = self.levels
                fields["levels"] = {outer: 1, inner: changes.pop("n_inner")}
        return RunConfig.model_validate({**fields, **changes})

    @property
    def mts_levels(self) -> list[Level]:
        """The levels with the weights of their forces."""
        return SCHEMES.get(self.level_scheme)(list(self.levels), list(self.levels.values()))

    @property
    def outer_fs(self) -> float:
        """The time step of i-PI: ``n_inner`` innermost steps, fs."""
        return self.inner_fs * self.n_inner

    @property
    def reference(self) -> str:
        """Name of the most accurate model, which is sampled alone or in a sum."""
        return next(iter(self.levels))

    @property
    def teacher(self) -> ModelSettings:
        """The most accurate model."""
        return self.models[self.reference]

    @property
    def student(self) -> ModelSettings | None:
        """The model inside it; None in single time steps."""
        names = list(self.levels)
        return self.models[names[1]] if len(names) > 1 else None

    @property
    def in_process(self) -> str:
        """Name of the model that runs within i-PI's process; empty: none."""
        return list(self.levels)[-1] if self.student_in_process else ""

    def thermostat_spec(self, bonds: Sequence[BondFriction] = ()) -> Thermostat:
        """The thermostat as an object; ``bonds``: kinds of pairs that it acts on.

        Raises:
            InputError: no such thermostat.
        """
        return make_thermostat(
            self.thermostat, self.friction_per_ps, self.friction_by_element_per_ps, bonds
        )

    def atom_frictions_per_ps(self, numbers: np.ndarray) -> np.ndarray:
        """Friction of each atom, (n,), for atomic numbers (n,)."""
        rates = self.thermostat_spec().frictions_per_ps(numbers)
        return np.full(len(numbers), self.friction_per_ps) if rates is None else rates

    @property
    def total_steps(self) -> int:
        """Outer steps that cover ``time_ps``."""
        return max(1, math.ceil(round(self.time_ps * 1000 / self.outer_fs, 6)))

    @property
    def strides(self) -> tuple[int, int, int]:
        """Strides in outer steps of properties, frames and checkpoints.

        The last two are multiples of the first, so that a checkpoint never falls between lines;
        where one of them is wanted more often, so are properties.
        """
        every_fs = min(self.properties_every_fs, self.frames_every_fs, self.checkpoints_every_fs)
        p = max(1, round(every_fs / self.outer_fs))
        frames = max(1, round(self.frames_every_fs / (p * self.outer_fs)))
        checkpoints = max(1, round(self.checkpoints_every_fs / (p * self.outer_fs)))
        return p, p * frames, p * checkpoints

    @property
    def settings(self) -> RunSettings:
        """What goes into ``run.yaml``."""
        shared = set(RunSettings.model_fields) & set(RunConfig.model_fields)
        return RunSettings(**{name: getattr(self, name) for name in shared})


def config_of(spec: InputSpec, settings: RunSettings) -> RunConfig:
    """The configuration that would make a run folder again.

    What ``init`` has no option for stays out: ``beyond_options`` names it.

    Args:
        spec: of ``input.xml``.
        settings: of ``run.yaml``.

    Raises:
        InputError: ``run.yaml`` names no model for a force of the input.
    """
    fields: dict[str, Any] = {
        name: getattr(settings, name)
        for name in set(RunSettings.model_fields) & set(RunConfig.model_fields)
    }
    levels, scheme = _levels_of(spec)
    models = dict(settings.models)
    for name in levels:
        if name not in models:  # a force of i-PI's own, or of a program that a person starts
            models[name] = ModelSettings(model="")
    thermostat = spec.thermostat
    fields.update(
        models=models,
        ensemble=spec.ensemble,
        inner_fs=_short(spec.inner_fs),
        levels=levels,
        level_scheme=scheme,
        time_ps=_short(spec.time_ps),
        splitting=spec.splitting,
        student_in_process=bool(spec.in_process),
    )
    if spec.temperature_K:
        fields["temperature_K"] = _short(spec.temperature_K)
    if thermostat is not None and spec.ensemble != "nve":
        fields["thermostat"] = thermostat.mode if thermostat.mode in THERMOSTATS else "langevin"
        if thermostat.friction_per_ps:
            fields["friction_per_ps"] = _short(thermostat.friction_per_ps)
        fields["friction_by_element_per_ps"] = {
            name: _short(1000.0 / tau) for name, tau in thermostat.element_tau_fs.items()
        }
        fields["bond_friction_per_ps"] = _short(thermostat.bond_friction_per_ps)
    if spec.barostat is not None and spec.barostat.tau_fs:
        fields["barostat_tau_fs"] = _short(spec.barostat.tau_fs)
    if spec.pressure_bar is not None:
        fields["pressure_bar"] = _short(spec.pressure_bar)
    if spec.seed is not None:
        fields["seed"] = spec.seed
    frames = spec.output("trajectory", "positions")
    for name, output in (
        ("properties_every_fs", spec.output("properties")),
        ("frames_every_fs", frames),
        ("checkpoints_every_fs", spec.output("checkpoint")),
    ):
        if output is not None:
            fields[name] = _short(output.stride * spec.outer_fs)
    if frames is not None and frames.form in ("xyz", "bin"):
        fields["trajectory_format"] = frames.form
    return RunConfig.model_validate(fields, context=READ)


def _levels_of(spec: InputSpec) -> tuple[dict[str, int], str]:
    """Model and steps of each level, and the scheme, where a scheme makes these levels."""
    steps = [level.steps for level in spec.levels]
    names = []
    for level in spec.levels:
        plus = [name for name, w in level.forces.items() if w > 0]
        names.append(plus[0] if plus else next(iter(level.forces), TEACHER))
    for scheme, make in (("difference", difference), ("sum", total)):
        if len(set(names)) == len(names) and list(spec.levels) == make(names, steps):
            return dict(zip(names, steps, strict=True)), scheme
    return dict(zip(names, steps, strict=False)), "difference"


# Options that are always written out: their default is chosen by `init`, or says what a run is.
ALWAYS = (
    *("ensemble", "mode", "inner_fs", "temperature_K", "splitting", "time_ps", "hmr_amu", "seed"),
    *("friction_per_ps", "equilibration_ps", "frames_every_fs", "trajectory_format"),
    "properties_every_fs",
)


def option_words(config: RunConfig) -> list[str]:
    """The options of ``dmts-ipi init`` that make a configuration."""
    words: list[str] = []
    standard = list(config.levels) == [TEACHER, STUDENT][: len(config.levels)]
    for name, info in RunConfig.model_fields.items():
        value = getattr(config, name)
        if name in ("models", "network", "watchdog", "versions", "no_patches"):
            continue
        if name == "n_inner" and config.mode == "dmts" and standard:
            words += ["--n-inner", str(value)]
        elif name == "levels":
            if not standard:
                words += ["--levels", ",".join(f"{k}={n}" for k, n in value.items())]
        elif name != "n_inner" and (
            name in ALWAYS or value != info.get_default(call_default_factory=True)
        ):
            flag = "--" + name.replace("_", "-")
            words += [flag] if value is True else [flag, _text(value)]
    for name, model in config.models.items():
        if name in (TEACHER, STUDENT):
            words += [f"--{name}", model.model]
        else:
            words += ["--model", f"{name}={model.model}"]
        for key in ("device", "dtype", "threads", "command"):
            value = getattr(model, key)
            if value not in (None, "", "auto"):
                words += ["--set", f"{name}.{key}={value}"]
    if config.network.address is not None:
        words += ["--network", config.network.address]
    return words


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ",".join(f"{k}={v:.12g}" for k, v in value.items())
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def beyond_options(spec: InputSpec) -> list[str]:
    """What an input says that ``init`` has no option for: the input itself must be kept."""
    beyond = list(spec.not_analysed)
    thermostat = spec.thermostat
    if thermostat is not None and (thermostat.mode not in THERMOSTATS or thermostat.atom_tau_fs):
        beyond.append("thermostat")
    if thermostat is not None and len({bond.tau_fs for bond in thermostat.bonds}) > 1:
        beyond.append("bonds")
    if len(spec.thermostats) > 1:
        beyond.append("several thermostats")
    if spec.n_beads > 1:
        beyond.append("nbeads")
    if spec.fixcom:
        beyond.append("fixcom")
    if spec.bias:
        beyond.append("bias")
    if spec.barostat is not None and spec.barostat.mode != "isotropic":
        beyond.append("barostat")
    names, scheme = _levels_of(spec)
    if list(spec.levels) != SCHEMES.get(scheme)(list(names), list(names.values())):
        beyond.append("mts_weights")
    return beyond


def _short(value: float) -> float:
    return float(f"{value:.9g}")


__all__ = [
    "ModelSettings",
    "NetworkSettings",
    "RunConfig",
    "beyond_options",
    "config_of",
    "option_words",
]
