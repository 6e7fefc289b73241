"""The last state of a run as a structure from which another run starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ase import units

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.structure_files import VELOCITIES
from dmts_ipi.ipi.input_xml import parse_xml
from dmts_ipi.ipi.run_folder.folder import CONFIG, STRUCTURE, RunFolder
from dmts_ipi.ipi.run_folder.structure import read_structure

from .resume import checkpoints

ATOMIC_TIME_FS = units._aut * 1e15


def last_structure(path: Path) -> Any:
    """Positions, cell and velocities of a run's newest checkpoint, as ASE Atoms.

    Elements, masses, charge, spin and fixed atoms are those of the run's start structure.

    Args:
        path: a run folder.

    Raises:
        InputError: it is none, has no complete checkpoint yet, or has several beads.
    """
    if not (path / CONFIG).is_file():
        raise InputError("structure", path, f"is a folder without {CONFIG}; give a file or a run")
    folder = RunFolder(path)
    atoms = read_structure(path / STRUCTURE)
    states = checkpoints(path, folder.spec())
    if not states:
        raise InputError("structure", path, "has no complete checkpoint yet; run it for longer")
    system = parse_xml(states[0].path).find("system")
    beads, cell = (None, None) if system is None else (system.find("beads"), system.find("cell"))
    if beads is None or cell is None:
        raise InputError("structure", states[0].path, "contains no beads and cell; give a frame")
    if int(beads.get("nbeads", 1)) != 1:
        raise InputError("structure", states[0].path, "has several beads; give a frame of the run")
    q, p, m = (_array(beads, name) for name in ("q", "p", "m"))
    if q.size != 3 * len(atoms):
        raise InputError("structure", states[0].path, "has other atoms than the run's structure")
    h = np.array((cell.text or "").strip().strip("[]").split(","), float).reshape(3, 3)
    velocities = p.reshape(-1, 3) / m[:, None] * (units.Bohr / ATOMIC_TIME_FS)
    atoms.set_cell(h.T * units.Bohr)  # i-PI's cell vectors are columns
    atoms.positions[:] = q.reshape(-1, 3) * units.Bohr
    atoms.arrays[VELOCITIES] = velocities
    return atoms


def _array(beads: Any, name: str) -> np.ndarray:
    element = beads.find(name)
    if element is None or not element.text:
        raise InputError("structure", "", f"a checkpoint without {name}; give a frame of the run")
    return np.array(element.text.strip().strip("[]").split(","), float)
