"""Labels in files of other programs: under which names and in which units they stand.

``forces`` and ``energy`` are ASE's names; MACE's training files use ``REF_forces`` and
``REF_energy``, others ``force``. A name that is used although it is not ASE's is logged, and an
unknown one is refused with the option that names it. Positions and cells are in Angstrom.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator

from .errors import InputError
from .frames import UNITS, UNITS_KEY, Frame, require_forces
from .structure_files import read_atoms

log = logging.getLogger(__name__)

FORCES_KEYS = ("forces", "REF_forces", "ref_forces", "force")
ENERGY_KEYS = ("energy", "REF_energy", "ref_energy", "free_energy")
STRESS_KEYS = ("stress", "REF_stress", "ref_stress")
_KCAL, _KJ = units.kcal / units.mol, units.kJ / units.mol
LABEL_UNITS: dict[str, tuple[float, float]] = {  # of energy in eV, of forces in eV/A
    "eV/A": (1.0, 1.0),
    "hartree/bohr": (units.Hartree, units.Hartree / units.Bohr),
    "hartree/A": (units.Hartree, units.Hartree),
    "Ry/bohr": (units.Rydberg, units.Rydberg / units.Bohr),
    "kcal/mol/A": (_KCAL, _KCAL),
    "kJ/mol/A": (_KJ, _KJ),
    "kJ/mol/nm": (_KJ, _KJ / 10),
}


@dataclass(frozen=True)
class LabelFormat:
    """Names and units of labels; None: the names that are known.

    ``units`` is a key of ``LABEL_UNITS``: the unit of energies, over the length of forces.
    """

    forces_key: str | None = None
    energy_key: str | None = None
    units: str = "eV/A"


def read_labels(path: Path, form: LabelFormat | None = None, index: str = ":") -> list[Frame]:
    """Reads labelled frames.

    Raises:
        InputError: the file cannot be read, or a frame has no finite forces under a name that is
            known or given.
    """
    form = form or LabelFormat()
    path = Path(path)
    if form.units not in LABEL_UNITS:
        raise InputError("label_units", form.units, f"known: {', '.join(LABEL_UNITS)}")
    frames, used = [], {}
    for k, atoms in enumerate(read_atoms(path, index, "labels")):
        said = atoms.info.get(UNITS_KEY, UNITS)
        if said != UNITS:
            raise InputError("labels", path, f"frame {k} is in '{said}'; only '{UNITS}' is known")
        used.update(_take_labels(atoms, path, k, form))
        frames.append(Frame.from_atoms(atoms, path))
    require_forces(frames, path)
    names = [f"{what} from {key}" for what, key in used.items() if key != what]
    if form.units != "eV/A":
        names.append(f"units {form.units}")
    isolated = sum(not np.any(frame.pbc) for frame in frames)
    if isolated:
        log.warning("note: %s: %d of %d frames are not periodic", path, isolated, len(frames))
    if names:
        log.warning("note: %s: labels are read as: %s", path, ", ".join(names))
    return frames


def _take_labels(atoms: Atoms, path: Path, k: int, form: LabelFormat) -> dict[str, str]:
    """Puts labels where ASE has them, in eV and A; returns the names under which they stood."""
    results: dict[str, Any] = dict(atoms.calc.results) if atoms.calc is not None else {}
    places = {**atoms.info, **atoms.arrays, **results}
    forces_key = _key(places, form.forces_key, FORCES_KEYS)
    energy_key = _key(places, form.energy_key, ENERGY_KEYS)
    if forces_key is None or forces_key not in places:
        raise InputError("labels", path, f"frame {k} {_no_forces(atoms, form)}")
    if form.energy_key is not None and energy_key not in places:
        raise InputError("energy_key", form.energy_key, f"frame {k} of {path} has no such field")
    energy_eV, force_eV_per_A = LABEL_UNITS[form.units]
    forces = np.asarray(places[forces_key], float)
    if forces.shape != (len(atoms), 3):
        raise InputError("forces_key", forces_key, f"frame {k} of {path}: must be (atoms, 3)")
    labels: dict[str, Any] = {"forces": forces if force_eV_per_A == 1 else forces * force_eV_per_A}
    used = {"forces": forces_key}
    if energy_key is not None:
        labels["energy"] = float(places[energy_key]) * energy_eV
        used["energy"] = energy_key
    stress_key = next((key for key in STRESS_KEYS if key in places), None)
    if stress_key is not None and form.units == "eV/A":
        labels["stress"] = np.asarray(places[stress_key], float)
        used["stress"] = stress_key
    for key in used.values():
        atoms.info.pop(key, None)
        atoms.arrays.pop(key, None)
    atoms.calc = SinglePointCalculator(atoms)
    atoms.calc.results = labels
    return used


def _key(places: dict[str, Any], given: str | None, known: tuple[str, ...]) -> str | None:
    if given is not None:
        return given
    return next((key for key in known if key in places), None)


def _no_forces(atoms: Atoms, form: LabelFormat) -> str:
    missing = "has no " + (f"column {form.forces_key}" if form.forces_key else "forces")
    vectors = [
        key
        for key, value in atoms.arrays.items()
        if key not in ("positions", "velocities_A_per_fs") and value.shape == (len(atoms), 3)
    ]
    if not vectors:
        return f"{missing}; label it: dmts-ipi label --teacher MODEL --frames FILE"
    return f"{missing}; its columns of vectors are {', '.join(vectors)}: give --forces-key NAME"
