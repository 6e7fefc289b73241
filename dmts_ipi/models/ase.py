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
        self._has_stress = "stress" in getattr(calculator, "implemented_properties", ())

    def compute(
        self, numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray
    ) -> ForceResult:
        """Energy, forces and, where there is a stress and a volume, the virial.

        Raises:
            ModelFault: the calculator raised, or returned NaN or a wrong shape.
        """
        from ase import Atoms

        if self._atoms is None or not np.array_equal(self._atoms.numbers, numbers):
            self._atoms = Atoms(numbers)
            self._atoms.calc = self._calculator
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
