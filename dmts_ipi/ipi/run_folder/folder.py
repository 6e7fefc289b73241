"""A run folder: ``run.yaml``, ``input.xml``, ``structure.extxyz``, ``md.*``, ``summary.json``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from ase.data import atomic_numbers
from pydantic import Field, model_validator

from dmts_ipi.core.config import StrictModel, read_yaml, write_yaml
from dmts_ipi.core.errors import InputError
from dmts_ipi.core.files import SUMMARY
from dmts_ipi.core.watch_settings import WatchdogSettings
from dmts_ipi.ipi.input_xml import InputFacts, read_input

from . import outputs

CONFIG, INPUT, STRUCTURE, LOGS = "run.yaml", "input.xml", "structure.extxyz", "logs"

Positive = Annotated[float, Field(gt=0)]


class ModelSettings(StrictModel):
    """One model of a run: which, and how it is evaluated. None: the model's or machine's choice."""

    model: str
    identity: str = ""
    device: str = "cpu"
    dtype: Literal["float32", "float64"] | None = None
    threads: int | None = Field(default=None, ge=1)
    launch: str = ""  # words before the driver's command, such as: srun --nodes=1 --ntasks=1
    command: str = ""  # a program of others in the driver's place; {mode}, {address}, {port}


class NetworkSettings(StrictModel):
    """How the processes of a run reach each other (``docs/clusters.md``)."""

    # null: unix sockets of one node. Else TCP: auto, an interface (ib0), a name or an address
    # of i-PI's node
    address: str | None = None


class RunConfig(StrictModel):
    """Everything that defines a run; ``input.xml`` says the same to i-PI."""

    version: Literal[1] = 1
    ensemble: Literal["nvt", "nve", "npt"] = "nvt"
    mode: Literal["sts", "dmts"] = "dmts"
    inner_step_fs: float = Field(default=1.0, gt=0, le=20)
    n_inner: int = Field(default=5, ge=1, le=100)
    time_ps: float = Field(default=20.0, gt=0)
    temperature_K: float = Field(default=300.0, gt=0)
    splitting: Literal["baoab", "obabo", "baoab-respa"] = "baoab"
    thermostat: Literal["langevin", "ffl", "svr"] = "langevin"
    friction_per_ps: float = Field(default=1.0, gt=0)
    friction_by_element_per_ps: dict[str, Positive] = Field(default_factory=dict)
    bond_friction_per_ps: float = Field(default=0.0, ge=0)
    pressure_bar: float = 1.0
    barostat_tau_fs: float = Field(default=2000.0, gt=0)
    hmr_added_amu: float = Field(default=3.0, ge=0)
    seed: int = Field(default=1, ge=0, lt=2**31)
    equilibration_ps: float = Field(default=0.0, ge=0)
    properties_every_fs: float = Field(default=10.0, gt=0)
    frames_every_fs: float = Field(default=50.0, gt=0)
    checkpoints_every_fs: float = Field(default=1000.0, gt=0)
    keep_checkpoints: int = Field(default=4, ge=2)
    trajectory_format: Literal["xyz", "bin"] = "xyz"
    resident: bool = False  # the student in i-PI's process: docs/performance.md
    teacher: ModelSettings
    student: ModelSettings | None = None
    network: NetworkSettings = Field(default_factory=NetworkSettings)
    watchdog: WatchdogSettings = Field(default_factory=WatchdogSettings)
    versions: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _modes(self) -> RunConfig:
        if self.mode == "dmts" and self.student is None:
            raise ValueError("mode dmts needs a student")
        if self.mode == "sts" and self.n_inner != 1:
            raise ValueError("mode sts has n_inner 1")
        if self.resident and self.mode != "dmts":
            raise ValueError("resident needs mode dmts: it is the student that is resident")
        special = bool(self.friction_by_element_per_ps or self.bond_friction_per_ps)
        if self.ensemble == "nve" and (special or self.thermostat != "langevin"):
            raise ValueError("nve has no thermostat; use nvt, or leave thermostat and friction out")
        if self.thermostat == "svr" and special:
            raise ValueError("thermostat svr has one friction for all; use langevin or ffl")
        return self

    @property
    def outer_step_fs(self) -> float:
        """The time step of i-PI: ``n_inner`` inner steps."""
        return self.inner_step_fs * self.n_inner

    def atom_frictions_per_ps(self, numbers: np.ndarray) -> np.ndarray:
        """Friction of each atom, (n,), for atomic numbers (n,)."""
        found = np.full(len(numbers), self.friction_per_ps)
        for name, friction in self.friction_by_element_per_ps.items():
            found[np.asarray(numbers) == atomic_numbers[name]] = friction
        return found

    @property
    def total_steps(self) -> int:
        """Outer steps that cover ``time_ps``."""
        return max(1, math.ceil(round(self.time_ps * 1000 / self.outer_step_fs, 6)))

    @property
    def strides(self) -> tuple[int, int, int]:
        """Strides in outer steps of properties, frames and checkpoints.

        The last two are multiples of the first, so that a checkpoint never falls between lines;
        where one of them is wanted more often, so are properties.
        """
        every_fs = min(self.properties_every_fs, self.frames_every_fs, self.checkpoints_every_fs)
        p = max(1, round(every_fs / self.outer_step_fs))
        frames = max(1, round(self.frames_every_fs / (p * self.outer_step_fs)))
        checkpoints = max(1, round(self.checkpoints_every_fs / (p * self.outer_step_fs)))
        return p, p * frames, p * checkpoints

    @property
    def one_langevin_friction(self) -> bool:
        """Whether one Langevin friction is all: it then bounds the error of temperatures."""
        special = self.friction_by_element_per_ps or self.bond_friction_per_ps
        return self.ensemble != "nve" and self.thermostat == "langevin" and not special

    def models(self) -> dict[str, ModelSettings]:
        """Settings of the models that the run evaluates, by forcefield name."""
        found = {"teacher": self.teacher}
        if self.mode == "dmts" and self.student is not None:
            found["student"] = self.student
        return found


class Structure(NamedTuple):
    """A run's structure: (n,), (n,) with HMR, (n, 3) A, (3, 3) A rows, (3,)."""

    numbers: np.ndarray
    masses_amu: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray


class RunFolder:
    """Access to the files of one run; opening it reads and checks ``run.yaml`` only."""

    def __init__(self, path: str | Path) -> None:
        """Opens a folder that ``dmts-ipi init`` made.

        Raises:
            InputError: it is none, or ``run.yaml`` is wrong.
        """
        self.path = Path(path)
        if not (self.path / CONFIG).is_file():
            raise InputError("folder", path, f"has no {CONFIG}; make it with `dmts-ipi init`")
        self.config = read_yaml(RunConfig, self.path / CONFIG)

    def facts(self) -> InputFacts:
        """What ``input.xml`` says, checked.

        Raises:
            InputError: the first thing that is wrong with it.
        """
        return read_input(self.path / INPUT)

    def write_config(self, config: RunConfig) -> None:
        """Replaces ``run.yaml``, in one step."""
        self.config = config
        write_yaml(config, self.path / CONFIG)

    def structure(self) -> Structure:
        """The start structure, as i-PI reads it.

        Raises:
            InputError: the file is absent or unreadable.
        """
        from ase.io import read

        file = self.path / STRUCTURE
        try:
            atoms: Any = read(file, format="extxyz")
        except FileNotFoundError as error:
            raise InputError("file", file, "does not exist") from error
        except Exception as error:  # ASE's readers raise whatever they like
            line = (str(error).splitlines() or [""])[0]
            raise InputError("file", file, f"cannot be read ({line})") from error
        return Structure(
            atoms.numbers, atoms.get_masses(), atoms.positions, atoms.cell.array, atoms.pbc
        )

    def file(self, kind: str, what: str = "") -> Path:
        """Path of an output of ``input.xml``, such as ``file("trajectory", "positions")``.

        Raises:
            InputError: the input asks for no such output.
        """
        output = self.facts().output(kind, what)
        if output is None:
            raise InputError(str(self.path / INPUT), f"{kind} {what}".strip(), "is not written")
        return self.path / output.filename

    def properties(self) -> dict[str, np.ndarray]:
        """Columns by key: step, time_ps, temperature_K, potential_eV, kinetic_eV, conserved_eV,
        and for NPT pressure_bar, volume_A3, density_g_cm3; each (lines,).

        Raises:
            InputError: the run has not started, or the file is damaged.
        """
        return outputs.read_properties(self.file("properties"))

    def frames(self) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray | None]]:
        """Streams (step, positions (n, 3) A, cell (3, 3) A, velocities (n, 3) A/fs or None).

        Positions are not wrapped. Frames of which the velocities are missing end the stream.

        Raises:
            InputError: the run has not started, or a file is damaged.
        """
        facts = self.facts()
        if (at := facts.output("trajectory", "positions")) is None:
            raise InputError(str(self.path / INPUT), "positions", "are not written")
        frames = outputs.iter_trajectory(self.path / at.filename)
        vt = facts.output("trajectory", "velocities")
        velocities = iter(()) if vt is None else outputs.iter_trajectory(self.path / vt.filename)
        v = next(velocities, None)
        for frame in frames:
            while v is not None and v.step < frame.step:
                v = next(velocities, None)
            same = v is not None and v.step == frame.step
            if vt is not None and v is None:
                return
            yield frame.step, frame.values, frame.cell, v.values if same and v else None

    def forces(self) -> Iterator[tuple[int, np.ndarray]]:
        """Streams (step, the teacher's forces (n, 3) eV/A); nothing where they are not written.

        Raises:
            InputError: the file is damaged.
        """
        at = self.facts().teacher_forces
        if at is None or not (self.path / at.filename).is_file():
            return
        for frame in outputs.iter_trajectory(self.path / at.filename):
            yield frame.step, frame.values

    def summary(self) -> dict[str, Any] | None:
        """``summary.json``, or None before the first run has ended."""
        file = self.path / SUMMARY
        return json.loads(file.read_text()) if file.is_file() else None
