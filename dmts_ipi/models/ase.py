"""Any ASE calculator as a teacher, by import path and keywords."""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
from typing import Any

import numpy as np

from dmts_ipi.core.errors import InputError, MissingPackage, ModelFault
from dmts_ipi.core.model import ForceResult, check_result


class AseTeacher:
    """An ASE calculator as a ``ForceModel``.

    ASE's stress has the sign of the strain derivative: ``virial = -stress * volume``. A
    calculator without stress gives no virial (None).
    """

    conservative = True
    elements: frozenset[int] | None = None
    cutoff_A: float | None = None

    def __init__(self, calculator: Any, name: str, identity: str) -> None:
        """Wraps a calculator object; ``name`` is for people, ``identity`` tells models apart."""
        self.name, self.identity, self._calculator = name, identity, calculator
        self._atoms: Any = None
        self._charge: tuple[float | None, float | None] = (None, None)
        self._has_stress = "stress" in getattr(calculator, "implemented_properties", ())

    def set_charge(self, charge: float | None, spin: float | None) -> None:
        """Total charge and spin multiplicity (``core.model.ChargeModel``), as calculators take
        them: ``atoms.info`` under their usual names, and initial charges and magnetic moments
        that add up to them."""
        if (charge, spin) != self._charge:
            self._charge, self._atoms = (charge, spin), None

    def _new_atoms(self, numbers: np.ndarray) -> Any:
        from ase import Atoms

        atoms = Atoms(numbers)
        charge, spin = self._charge
        if charge is not None:
            whole = int(charge) if float(charge).is_integer() else charge
            atoms.info.update(charge=whole, total_charge=whole)
            atoms.set_initial_charges(np.full(len(atoms), charge / len(atoms)))
        if spin is not None:
            whole = int(spin) if float(spin).is_integer() else spin
            atoms.info.update(spin=whole, total_spin=whole, mult=whole)
            atoms.set_initial_magnetic_moments(np.full(len(atoms), (spin - 1) / len(atoms)))
        atoms.calc = self._calculator
        return atoms

    def compute(
        self, numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray
    ) -> ForceResult:
        """Energy, forces and, where there is a stress and a volume, the virial.

        Raises:
            ModelFault: the calculator raised, or returned NaN or a wrong shape.
        """
        if self._atoms is None or not np.array_equal(self._atoms.numbers, numbers):
            self._atoms = self._new_atoms(numbers)
        atoms = self._atoms
        atoms.positions[:] = positions
        atoms.set_cell(np.asarray(cell, float).reshape(3, 3))
        atoms.pbc = pbc
        virial = None
        try:
            with contextlib.redirect_stdout(sys.stderr):  # standard output is for results
                forces = np.asarray(atoms.get_forces(), float)
                energy = float(atoms.get_potential_energy())
                if self._has_stress and atoms.pbc.all() and atoms.cell.rank == 3:
                    virial = -np.asarray(atoms.get_stress(voigt=False)) * atoms.get_volume()
        except Exception as error:  # calculators raise whatever they like
            line = (str(error).splitlines() or [""])[0]
            raise ModelFault(f"{self.name}: {type(error).__name__}: {line}") from error
        return check_result(ForceResult(energy, forces, virial), len(atoms), self.name)


def load_ase(path: str, keywords: dict[str, Any], device: str, dtype: str | None) -> AseTeacher:
    """Imports ``module.Class`` (or a function that returns a calculator) and calls it.

    ``device`` and ``dtype`` are not passed on: calculators name these options differently, so
    give them among the keywords.

    Raises:
        InputError: no such module, class or keyword.
        MissingPackage: the module's own package is not installed.
    """
    module_name, _, attribute = path.rpartition(".")
    if not module_name:
        raise InputError(
            "ase calculator", path, "give module.Class, for example ase.calculators.emt.EMT"
        )
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except ModuleNotFoundError as error:
        raise InputError(
            "ase calculator", path, f"cannot be imported ({error}); install its package"
        ) from error
    except ImportError as error:
        raise MissingPackage("ase", module_name, error) from error
    except AttributeError as error:
        raise InputError("ase calculator", path, f"{module_name} has no {attribute}") from error
    try:
        with contextlib.redirect_stdout(sys.stderr):
            calculator = factory(**keywords)
    except Exception as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError("ase keywords", json.dumps(keywords), line) from error
    if not hasattr(calculator, "get_forces"):
        raise InputError("ase calculator", path, "is not an ASE calculator: it has no get_forces")
    spec = f"ase:{path}" + (json.dumps(keywords, sort_keys=True) if keywords else "")
    return AseTeacher(calculator, spec, spec)
