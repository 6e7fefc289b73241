"""The border to i-PI: atomic units, and cell vectors as columns. Nothing else knows either.

i-PI's own converters are used, with its ``ase`` unit of every family: those factors are
consistent with each other to machine precision (a force is exactly an energy over a length),
which the rounded ``electronvolt``, ``angstrom`` and ``ev/ang`` of i-PI's table are not.

=============  ==============================  =================================
quantity       inside dmts-ipi                 on i-PI's wire
=============  ==============================  =================================
positions      (n, 3) A                        (n, 3) bohr
cell           (3, 3) A, rows are the vectors  (3, 3) bohr, columns are the vectors
energy         eV                              hartree
forces         (n, 3) eV/A                     (n, 3) hartree/bohr
virial         (3, 3) eV, -dE/d(strain)        (3, 3) hartree, the same sign
=============  ==============================  =================================
"""

from __future__ import annotations

import numpy as np
from ipi.utils.units import unit_to_internal

BOHR_PER_A = float(unit_to_internal("length", "ase", 1.0))
HARTREE_PER_EV = float(unit_to_internal("energy", "ase", 1.0))
FORCE_AU_PER_EV_PER_A = float(unit_to_internal("force", "ase", 1.0))


def positions_from_ipi(positions_bohr: np.ndarray) -> np.ndarray:
    """(n, 3) bohr -> (n, 3) Angstrom, a new array."""
    return positions_bohr / BOHR_PER_A


def positions_to_ipi(positions_A: np.ndarray) -> np.ndarray:
    """(n, 3) Angstrom -> (n, 3) bohr, a new array."""
    return np.asarray(positions_A, float) * BOHR_PER_A


def cell_from_ipi(h_bohr: np.ndarray) -> np.ndarray:
    """(3, 3) bohr with vectors as columns -> (3, 3) Angstrom with vectors as rows, a new array."""
    return np.ascontiguousarray(h_bohr.T) / BOHR_PER_A


def cell_to_ipi(cell_A: np.ndarray) -> np.ndarray:
    """The inverse of ``cell_from_ipi``."""
    return np.ascontiguousarray(np.asarray(cell_A, float).T) * BOHR_PER_A


def energy_to_ipi(energy_eV: float) -> float:
    """eV -> hartree."""
    return energy_eV * HARTREE_PER_EV


def energy_from_ipi(energy_hartree: float) -> float:
    """Hartree -> eV."""
    return energy_hartree / HARTREE_PER_EV


def forces_to_ipi(forces_eV_per_A: np.ndarray) -> np.ndarray:
    """(n, 3) eV/A of any float type -> (n, 3) hartree/bohr, float64, contiguous."""
    return np.ascontiguousarray(forces_eV_per_A, dtype=np.float64) * FORCE_AU_PER_EV_PER_A


def forces_from_ipi(forces_au: np.ndarray) -> np.ndarray:
    """(n, 3) hartree/bohr -> (n, 3) eV/A."""
    return forces_au / FORCE_AU_PER_EV_PER_A


def virial_to_ipi(virial_eV: np.ndarray) -> np.ndarray:
    """(3, 3) eV -> (3, 3) hartree in i-PI's order of indices, float64, contiguous."""
    return np.ascontiguousarray(np.asarray(virial_eV, dtype=np.float64).T) * HARTREE_PER_EV


def virial_from_ipi(virial_hartree: np.ndarray) -> np.ndarray:
    """The inverse of ``virial_to_ipi``."""
    return np.ascontiguousarray(virial_hartree.T) / HARTREE_PER_EV
