"""Labelled frames and their file: extended XYZ, readable by ASE and by people.

Energy, forces and stress are stored as ASE stores calculator results; ``velocities_A_per_fs``
is a column, ``source``, ``burst`` and ``time_fs`` are fields of the comment line.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import iread, write

from .errors import InputError


@dataclass
class Frame:
    """A structure with its labels. Shapes and units as in ``core.model``.

    ``burst`` numbers the run of consecutive frames to which it belongs (-1: none) and
    ``time_fs`` its time within it; ``source`` says how it was sampled.
    """

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    forces: np.ndarray | None = None
    energy_eV: float | None = None
    virial_eV: np.ndarray | None = None
    velocities: np.ndarray | None = None
    source: str = ""
    burst: int = -1
    time_fs: float = 0.0
    info: dict[str, object] = field(default_factory=dict)

    def to_atoms(self) -> Atoms:
        """ASE Atoms with a SinglePointCalculator."""
        atoms = Atoms(self.numbers, self.positions, cell=self.cell, pbc=self.pbc)
        atoms.info.update(burst=self.burst, time_fs=self.time_fs, **self.info)
        if self.source:  # ASE writes an empty value that swallows the next field when read
            atoms.info["source"] = self.source
        if self.velocities is not None:
            atoms.arrays["velocities_A_per_fs"] = np.asarray(self.velocities, float)
        results: dict[str, object] = {}
        if self.forces is not None:
            results["forces"] = np.asarray(self.forces, float)
        if self.energy_eV is not None:
            results["energy"] = float(self.energy_eV)
        if self.virial_eV is not None and atoms.cell.volume > 0:
            s = -np.asarray(self.virial_eV) / atoms.cell.volume
            results["stress"] = np.array([s[0, 0], s[1, 1], s[2, 2], s[1, 2], s[0, 2], s[0, 1]])
        atoms.calc = SinglePointCalculator(atoms, **results)
        return atoms

    @classmethod
    def from_atoms(cls, atoms: Atoms) -> Frame:
        """The inverse of ``to_atoms``; absent labels stay None."""
        results = dict(atoms.calc.results) if atoms.calc is not None else {}
        info = dict(atoms.info)
        virial = None
        if "stress" in results:
            x = np.asarray(results["stress"])
            full = x if x.shape == (3, 3) else x[[0, 5, 4, 5, 1, 3, 4, 3, 2]].reshape(3, 3)
            virial = -full * atoms.cell.volume
        energy = results.get("energy")
        return cls(
            numbers=atoms.numbers.copy(),
            positions=atoms.positions.copy(),
            cell=np.asarray(atoms.cell.array, float).copy(),
            pbc=atoms.pbc.copy(),
            forces=results.get("forces"),
            energy_eV=None if energy is None else float(energy),
            virial_eV=virial,
            velocities=atoms.arrays.get("velocities_A_per_fs"),
            source=str(info.pop("source", "")),
            burst=int(info.pop("burst", -1)),
            time_fs=float(info.pop("time_fs", 0.0)),
            info=info,
        )


def write_frames(path: Path, frames: Iterable[Frame], append: bool = False) -> None:
    """Writes (or appends) frames as extended XYZ."""
    write(path, [f.to_atoms() for f in frames], format="extxyz", append=append)


def read_frames(path: Path, index: str = ":") -> list[Frame]:
    """Reads any structure file that ASE knows.

    Raises:
        InputError: the file is absent, empty or unreadable.
    """
    try:
        frames = [Frame.from_atoms(a) for a in iread(path, index=index)]
    except FileNotFoundError as error:
        raise InputError("file", path, "does not exist") from error
    except Exception as error:  # ASE's readers raise whatever they like
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError("file", path, f"cannot be read as a structure ({line})") from error
    if not frames:
        raise InputError("file", path, "holds no structure")
    return frames


def require_forces(frames: Sequence[Frame], path: Path) -> None:
    """Refuses labels without forces.

    Raises:
        InputError: names the first such frame.
    """
    for k, frame in enumerate(frames):
        if frame.forces is None or not np.isfinite(frame.forces).all():
            what = "has no forces" if frame.forces is None else "has forces that are not finite"
            raise InputError("labels", path, f"frame {k} {what}; label it again")


def bursts(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Groups frames with velocities by burst number, each sorted by time."""
    groups: dict[int, list[Frame]] = {}
    for frame in frames:
        if frame.burst >= 0 and frame.velocities is not None:
            groups.setdefault(frame.burst, []).append(frame)
    return [sorted(g, key=lambda f: f.time_fs) for _, g in sorted(groups.items())]
