"""A run folder: ``run.yaml``, ``input.xml``, ``structure.extxyz``, ``md.*``, ``summary.json``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dmts_ipi.core.config import read_yaml, write_yaml
from dmts_ipi.core.errors import InputError
from dmts_ipi.core.files import SUMMARY
from dmts_ipi.ipi.input_xml import InputSpec, differences, parse_xml, read_input

from . import outputs
from .config import RunConfig, config_of
from .settings import ModelSettings, NetworkSettings, RunSettings

CONFIG, INPUT, STRUCTURE, LOGS = "run.yaml", "input.xml", "structure.extxyz", "logs"
BEGUN = "logs/begun.xml"  # input.xml as it was when the run began

__all__ = [
    "BEGUN",
    "CONFIG",
    "INPUT",
    "LOGS",
    "STRUCTURE",
    "ModelSettings",
    "NetworkSettings",
    "RunConfig",
    "RunFolder",
    "RunSettings",
    "RunStructure",
]


class RunStructure(NamedTuple):
    """The structure of a run with the masses that i-PI uses.

    Attributes:
        numbers: atomic numbers, (n,).
        masses_amu: masses after hydrogen mass repartitioning, (n,).
        positions: (n, 3), Angstrom.
        cell: cell vectors as rows, (3, 3), Angstrom.
        pbc: whether each direction is periodic, (3,).
    """

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
        self.settings = read_yaml(RunSettings, self.path / CONFIG)

    def spec(self) -> InputSpec:
        """What ``input.xml`` says, checked: the physics of the run.

        Raises:
            InputError: the first thing that is wrong with it.
        """
        return read_input(self.path / INPUT)

    def ran_spec(self) -> InputSpec:
        """What the run was made with: ``input.xml`` as it was when the run began, with today's
        length. A begun run does not follow an edit of anything else (``session.begun``).

        Raises:
            InputError: as ``spec``.
        """
        kept = self.path / BEGUN
        if not kept.is_file():
            return self.spec()
        begun = read_input(kept)
        try:
            return replace(begun, total_steps=self.spec().total_steps)
        except InputError:  # broken since: what ran is still known
            return begun

    def unfollowed_edits(self) -> list[str]:
        """Tags of ``input.xml`` that were edited since the run began and are not followed."""
        kept, now = self.path / BEGUN, self.path / INPUT
        if not kept.is_file() or not now.is_file():
            return []
        try:
            edits = differences(parse_xml(kept), parse_xml(now))
        except InputError:
            return []
        return [e.path for e in edits if not e.path.startswith(("total_steps", "ffsocket"))]

    @property
    def config(self) -> RunConfig:
        """The configuration that would make this folder again, from ``input.xml`` and ``run.yaml``.

        Raises:
            InputError: as ``spec``.
        """
        return config_of(self.spec(), self.settings)

    def write_settings(self, settings: RunSettings) -> None:
        """Replaces ``run.yaml``, in one step."""
        self.settings = settings
        write_yaml(settings, self.path / CONFIG)

    def structure(self) -> RunStructure:
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
        return RunStructure(
            atoms.numbers, atoms.get_masses(), atoms.positions, atoms.cell.array, atoms.pbc
        )

    def file(self, kind: str, what: str = "") -> Path:
        """Path of an output, such as ``file("trajectory", "positions")``, of the input with which
        the run began.

        Raises:
            InputError: the input asks for no such output.
        """
        output = self.ran_spec().output(kind, what)
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
        spec = self.ran_spec()
        if (at := spec.output("trajectory", "positions")) is None:
            raise InputError(str(self.path / INPUT), "positions", "are not written")
        frames = outputs.iter_trajectory(self.path / at.filename)
        vt = spec.output("trajectory", "velocities")
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
        at = self.ran_spec().teacher_forces
        if at is None or not (self.path / at.filename).is_file():
            return
        for frame in outputs.iter_trajectory(self.path / at.filename):
            yield frame.step, frame.values

    def summary(self) -> dict[str, Any] | None:
        """``summary.json``; None before the first run has ended, or where the file is damaged: it
        is written anew from the outputs when the next session ends."""
        file = self.path / SUMMARY
        try:
            record = json.loads(file.read_text()) if file.is_file() else None
        except (json.JSONDecodeError, UnicodeDecodeError):
            return None
        return record if isinstance(record, dict) else None
