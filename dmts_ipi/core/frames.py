"""Labelled frames and their file: extended XYZ, readable by ASE and by people.

Energy, forces and stress are stored as ASE stores calculator results, ``velocities_A_per_fs`` and
(where they are not those of the elements) ``masses`` as columns. The comment line of each frame
says which model made the labels (``teacher``, ``teacher_identity``), in which units
(``label_units``), and how the frame was sampled (``source``, ``burst``, ``time_fs``), so that
files can be joined and cut without losing any of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.data import atomic_masses
from ase.io import write

from .errors import InputError
from .molecules import masses_without_hmr
from .structure import Structure, structure_fields
from .structure_files import HMR_KEY, VELOCITIES, read_atoms

UNITS = "eV, eV/A, A, A/fs"  # of energy, forces, lengths, velocities
UNITS_KEY = "label_units"
OWN_KEYS = ("source", "burst", "time_fs", "teacher", "teacher_identity", UNITS_KEY)


@dataclass(frozen=True)
class Frame(Structure):
    """A structure with its labels. Shapes and units as in ``core.model``.

    Attributes:
        forces: (n, 3), eV/A, or None.
        energy_eV: or None.
        virial_eV: (3, 3), or None.
        source: how the frame was sampled, for people.
        burst: identifies the run of consecutive frames to which it belongs, unique over all
            files; empty: none.
        time_fs: its time within the burst.
        teacher: name of the model that made the labels; empty: not known.
        teacher_identity: its identity (``ForceModel.identity``); empty: not known.
        info: what else the comment line says.
    """

    forces: np.ndarray | None = None
    energy_eV: float | None = None
    virial_eV: np.ndarray | None = None
    source: str = ""
    burst: str = ""
    time_fs: float = 0.0
    teacher: str = ""
    teacher_identity: str = ""
    info: dict[str, object] = field(default_factory=dict)

    def to_atoms(self) -> Atoms:
        """ASE Atoms with a SinglePointCalculator."""
        atoms = Atoms(self.numbers, self.positions, cell=self.cell, pbc=self.pbc)
        atoms.info.update(self.info)
        # ASE writes an empty value that swallows the next field when read: leave empty ones out
        texts = {k: getattr(self, k) for k in ("source", "burst", "teacher", "teacher_identity")}
        atoms.info.update({k: text for k, text in texts.items() if text})
        if self.burst:
            atoms.info["time_fs"] = self.time_fs
        for key in ("charge", "spin"):
            if getattr(self, key) is not None:
                atoms.info[key] = getattr(self, key)
        if self.masses_amu is not None:
            atoms.set_masses(self.masses_amu)
        if self.velocities_A_per_fs is not None:
            atoms.arrays[VELOCITIES] = np.asarray(self.velocities_A_per_fs, float)
        if len(self.fixed):
            atoms.set_constraint(FixAtoms(self.fixed))
        results: dict[str, object] = {}
        if self.forces is not None:
            results["forces"] = np.asarray(self.forces, float)
            atoms.info[UNITS_KEY] = UNITS
        if self.energy_eV is not None:
            results["energy"] = float(self.energy_eV)
        if self.virial_eV is not None and atoms.cell.volume > 0:
            s = -np.asarray(self.virial_eV) / atoms.cell.volume
            results["stress"] = np.array([s[0, 0], s[1, 1], s[2, 2], s[1, 2], s[0, 2], s[0, 1]])
        atoms.calc = SinglePointCalculator(atoms, **results)
        return atoms

    @classmethod
    def from_atoms(cls, atoms: Any, file: Path | None = None) -> Frame:
        """The inverse of ``to_atoms``; absent labels stay None.

        Args:
            atoms: ASE Atoms, as ``structure_files.read_atoms`` leaves them.
            file: where they come from; makes bursts of older files, which only have numbers,
                different from those of other files.
        """
        results = dict(atoms.calc.results) if atoms.calc is not None else {}
        info = dict(atoms.info)
        virial = None
        if "stress" in results:
            x = np.asarray(results["stress"])
            full = x if x.shape == (3, 3) else x[[0, 5, 4, 5, 1, 3, 4, 3, 2]].reshape(3, 3)
            virial = -full * atoms.cell.volume
        energy = results.get("energy")
        fields = structure_fields(atoms)
        fields["masses_amu"] = _masses(fields, float(info.pop(HMR_KEY, 0.0)))
        own: dict[str, Any] = {key: info.pop(key, "") for key in OWN_KEYS}
        del own[UNITS_KEY]
        own["burst"] = _burst_name(own["burst"], file)
        own["time_fs"] = float(own["time_fs"] or 0.0)
        for key in ("source", "teacher", "teacher_identity"):
            own[key] = str(own[key])
        for key in ("charge", "spin"):
            info.pop(key, None)
        return cls(
            **fields,
            forces=results.get("forces"),
            energy_eV=None if energy is None else float(energy),
            virial_eV=virial,
            **own,
            info=info,
        )


def _masses(fields: dict[str, Any], hmr_added_amu: float) -> np.ndarray | None:
    """Masses without hydrogen mass repartitioning; None: those of the elements."""
    masses = fields["masses_amu"]
    if masses is None:
        return None
    if hmr_added_amu:
        masses = masses_without_hmr(masses, Structure(**fields), hmr_added_amu)
    if np.allclose(masses, atomic_masses[fields["numbers"]], rtol=0, atol=1e-6):
        return None
    return np.asarray(masses, float)


def _burst_name(burst: object, file: Path | None) -> str:
    """Bursts were numbered within each file once; -1 was none."""
    try:
        number = int(str(burst))
    except ValueError:
        return str(burst)
    if number < 0:
        return ""
    where = "" if file is None else hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:8]
    return f"{where}#{number}"


def write_frames(path: Path, frames: Iterable[Frame], append: bool = False) -> None:
    """Writes (or appends) frames as extended XYZ."""
    write(path, [f.to_atoms() for f in frames], format="extxyz", append=append)


def read_frames(path: Path, index: str = ":", field: str = "file") -> list[Frame]:
    """Reads any structure file that ASE knows (``structure_files.read_atoms``).

    Raises:
        InputError: the file is absent, empty or unreadable.
    """
    path = Path(path)
    return [Frame.from_atoms(atoms, path) for atoms in read_atoms(path, index, field)]


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
    """Groups frames with velocities by burst, each sorted by time, in the order of the frames.

    A frame that is there twice (labels that were joined twice) counts once.
    """
    groups: dict[str, dict[float, Frame]] = {}
    for frame in frames:
        if frame.burst and frame.velocities_A_per_fs is not None:
            groups.setdefault(frame.burst, {}).setdefault(frame.time_fs, frame)
    return [sorted(g.values(), key=lambda f: f.time_fs) for g in groups.values()]
