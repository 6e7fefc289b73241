"""The force model protocol: what teachers, students and foreign calculators all meet.

Keys, shapes, units and signs, once for the whole project:

=========  ========  ======  ==========================================================
name       shape     unit    meaning
=========  ========  ======  ==========================================================
numbers    (n,)      -       atomic numbers, int
positions  (n, 3)    A       any image; nobody wraps them
cell       (3, 3)    A       rows are the cell vectors; ignored where not periodic
pbc        (3,)      -       periodic or not, along each cell vector
energy     scalar    eV      None where the model has none (a direct-force student)
forces     (n, 3)    eV/A
virial     (3, 3)    eV      -stress * volume = -dE/d(strain); sum of r (x) F over pairs;
                             None where absent, never zeros
velocities (n, 3)    A/fs
masses     (n,)      amu
=========  ========  ======  ==========================================================
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from .errors import InputError, ModelFault
from .structure import Structure

SHORTEST_DISTANCE_A = 0.3


@dataclass(frozen=True)
class ForceResult:
    """What a force model returns: eV, eV/A, eV (module docstring)."""

    energy_eV: float | None
    forces_eV_per_A: np.ndarray
    virial_eV: np.ndarray | None


@runtime_checkable
class ForceModel(Protocol):
    """A model that turns a structure into forces.

    ``elements`` are the atomic numbers it knows (None: any). ``identity`` is a hash of its
    weights, or another string that tells two models apart. ``conservative`` says whether its
    forces are a gradient. ``compute`` may keep caches (neighbour list, compiled graph) for the
    last ``numbers``; it must not depend on them for its result.
    """

    name: str
    identity: str
    elements: frozenset[int] | None
    cutoff_A: float | None
    conservative: bool

    def compute(
        self, numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray
    ) -> ForceResult:
        """Forces of one structure (shapes and units in the module's docstring).

        Raises:
            ModelFault: the model failed or returned NaN.
        """
        ...


@runtime_checkable
class BatchModel(Protocol):
    """A model that also takes several structures of the same atoms in one call."""

    def compute_batch(
        self, numbers: np.ndarray, positions: np.ndarray, cells: np.ndarray, pbc: np.ndarray
    ) -> list[ForceResult]:
        """Results of B structures: positions (B, n, 3), cells (B, 3, 3); else as ``compute``.

        Each is what ``compute`` gives, to rounding. A caller keeps replicas in their places, so
        that neighbour lists hold from one call to the next.
        """
        ...


@runtime_checkable
class ChargeModel(Protocol):
    """A model whose forces depend on the total charge or the spin of the system."""

    def set_charge(self, charge: float | None, spin: float | None) -> None:
        """Sets them for the calls of ``compute`` that follow.

        Args:
            charge: in elementary charges; None: the model's default, mostly 0.
            spin: multiplicity 2S + 1; None: the model's default, mostly 1.

        Raises:
            InputError: the model does not know this charge or spin.
        """
        ...


def set_charge(model: ForceModel, structure: Structure) -> bool:
    """Tells a model the charge and spin of a structure; False: it does not depend on them."""
    if isinstance(model, ChargeModel):
        model.set_charge(structure.charge, structure.spin)
        return True
    return False


def compute(model: ForceModel, structure: Structure) -> ForceResult:
    """Forces of one structure, at its charge and spin where the model depends on them.

    Raises:
        ModelFault: the model failed or returned NaN.
    """
    set_charge(model, structure)
    return model.compute(*structure.model_input)


def compute_batch(
    model: ForceModel,
    numbers: np.ndarray,
    positions: np.ndarray,
    cells: np.ndarray,
    pbc: np.ndarray,
) -> list[ForceResult]:
    """``BatchModel.compute_batch`` where a model has it, else one structure after another."""
    if isinstance(model, BatchModel):
        return model.compute_batch(numbers, positions, cells, pbc)
    return [model.compute(numbers, x, h, pbc) for x, h in zip(positions, cells, strict=True)]


def all_finite(x: np.ndarray) -> bool:
    """Whether no number of an array is NaN or infinite."""
    return bool(np.isfinite(x).all())


def check_result(result: ForceResult, n: int, name: str) -> ForceResult:
    """Refuses NaN, infinities and wrong shapes. Returns the result.

    Raises:
        ModelFault: says what is wrong and on which atom.
    """
    f = result.forces_eV_per_A
    if f.shape != (n, 3):
        raise ModelFault(f"{name}: forces have shape {f.shape}, expected ({n}, 3)")
    if not all_finite(f):
        atom = int(np.argwhere(~np.isfinite(f))[0, 0])
        raise ModelFault(f"{name}: force on atom {atom} is {f[atom].tolist()}")
    if result.energy_eV is not None and not math.isfinite(result.energy_eV):
        raise ModelFault(f"{name}: energy is {result.energy_eV}")
    if result.virial_eV is not None and not all_finite(result.virial_eV):
        raise ModelFault(f"{name}: virial is {result.virial_eV.tolist()}")
    return result


def check_structure(
    numbers: np.ndarray,
    positions: np.ndarray,
    cell: np.ndarray,
    pbc: np.ndarray,
    elements: frozenset[int] | None = None,
) -> None:
    """Refuses what no model can take.

    Raises:
        InputError: NaN in the positions, an element the model does not know, or two atoms
            closer than ``SHORTEST_DISTANCE_A``.
    """
    from ase.data import chemical_symbols

    from .neighbours import neighbour_pairs

    if elements is not None:
        unknown = sorted(set(int(z) for z in numbers) - elements)
        if unknown:
            known = ", ".join(chemical_symbols[z] for z in sorted(elements))
            raise InputError(
                "element",
                chemical_symbols[unknown[0]],
                f"the model knows {known}; choose a model trained with this element",
            )
    pairs = neighbour_pairs(positions, cell, pbc, SHORTEST_DISTANCE_A, full=False)
    if len(pairs.i):
        i, j = int(pairs.i[0]), int(pairs.j[0])
        raise InputError(
            "positions",
            f"atoms {i} and {j}",
            f"are closer than {SHORTEST_DISTANCE_A} Angstrom; relax or repair the structure",
        )
