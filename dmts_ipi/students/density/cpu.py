"""The student on a CPU, in C: no padding, no graph, nothing to compile again in a run.

The same function as ``student.Student.forward``, which remains the definition: tests hold the two
equal.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dmts_ipi.core.compiled import NotCompiled, fits

from .kernels import atom_parameters_of, build, parameters_of, sizes_of
from .network import Student
from .pair_list import ROOM, PairLister

BOX_A = 3.0
CHUNK = 144  # atoms


class _System(ctypes.Structure):
    """``system_t`` of student_pairs.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("n_atoms", "n_near", "n_rows", "n_pairs")),
        *(
            (name, ctypes.c_void_p)
            for name in (
                *("species", "first", "second", "shifts", "row_start", "edges", "x", "cell"),
                *("unit", "distance", "rows", "directed", "pair", "parameters"),
            )
        ),
    ]


class CpuStudent:
    """Evaluates a student for one set of atoms.

    Args:
        student: on the CPU, float32 or float64, ``eval`` and without gradients.
        species: (n,) index of the element of each atom.
        threads: over which atoms and pairs are divided.

    Raises:
        NotCompiled: no compiler, or an architecture that the kernels do not cover.
    """

    def __init__(self, student: Student, species: np.ndarray, threads: int = 1) -> None:
        self._parameters, self._atom_parameters = (
            parameters_of(student),
            atom_parameters_of(student),
        )
        self._dtype = self._parameters.dtype
        self._library = build(sizes_of(student, self._dtype))
        counts = self._library.parameter_count(), self._library.atom_parameter_count()
        given = len(self._parameters), len(self._atom_parameters) // len(student.elements)
        if counts != given:
            raise NotCompiled("its parameters do not fit the compiled sizes")
        fits(self._library, "system_size", _System)
        self._lister = PairLister(self._library, len(species))
        self.architecture = a = student.architecture
        self._given = np.asarray(species, dtype=np.int32)
        self._species = self._given.copy()  # in the order of the last list
        n, s = len(species), len(student.elements)
        partners = 1 if a.mixed(s) else s
        sizes = {
            "density": (n, 9, a.blocks(s) * a.radial),
            "hidden": (n, a.hidden),
            "q": (n, a.messages),
            "scalars": (n, partners * a.near_hidden),
            "vectors": (n, 3, a.near_channels),
            "tensors": (n, 5, a.near_channels),
            "far": (n, partners * a.far_bessel),
        }
        self._buffers = {k: torch.zeros(v, dtype=self._dtype) for k, v in sizes.items()}
        self._forces, self._virial = np.zeros((n, 3)), np.zeros((3, 3))
        self._order = np.arange(n)
        self._system = _System(n_atoms=n)
        self._kept: dict[str, np.ndarray | Tensor] = {"species": self._species}
        self._pool = ThreadPoolExecutor(threads - 1) if threads > 1 else None
        self._threads = max(threads, 1)

    def set_pairs(self, x: np.ndarray, cell: np.ndarray, pbc: np.ndarray, skin_A: float) -> None:
        """Makes the list of pairs of positions x (n, 3) A, ``skin_A`` beyond the cutoffs."""
        self._order = order = _order(_along_curve(x, cell, pbc), self._given)
        self._species[:] = self._given[order]
        x = x[order]
        rows, near, far = self.architecture.cutoffs_A
        reach = near + skin_A, rows + skin_A, max(rows, near, far) + skin_A
        pairs = self._lister.pairs(x, cell, pbc, reach)
        n_pairs, n_rows = len(pairs.first), pairs.n_rows
        kept, dtype = self._kept, self._dtype
        for name in ("first", "second", "shifts", "edges", "row_start"):
            kept[name] = getattr(pairs, name)
        for name, count, width in (
            ("unit", n_pairs, 3),
            ("distance", n_pairs, 1),
            ("rows", n_rows, self._library.record_size()),
            ("directed", n_rows, 6),
            ("pair", n_pairs, 3),
        ):
            if name not in kept or len(kept[name]) < count:
                kept.pop(name, None)  # first: it may be most of the memory
                kept[name] = torch.empty((int(ROOM * count) + 64, width), dtype=dtype)
        kept["parameters"] = self._parameters
        system = self._system
        system.n_near, system.n_rows, system.n_pairs = pairs.n_near, n_rows, n_pairs
        for name, array in kept.items():
            setattr(system, name, _address(array))
        self._atom_ranges = self._split(np.asarray(kept["row_start"], float))
        self._pair_ranges = self._split(np.arange(n_pairs + 1.0))

    def _split(self, load: np.ndarray) -> list[tuple[int, int]]:
        """Ranges of equal load for the threads; ``load`` is cumulative, (items + 1,)."""
        wanted = load[-1] * np.arange(1, self._threads) / self._threads
        cuts = [0, *(int(c) for c in np.searchsorted(load, wanted)), len(load) - 1]
        return list(itertools.pairwise(cuts))

    def _each(self, name: str, ranges: list[tuple[int, int]], *arguments: Any) -> None:
        function = getattr(self._library, name)
        call = functools.partial(function, ctypes.addressof(self._system), *arguments)
        waiting = []
        if self._pool is not None:
            waiting = [self._pool.submit(call, *one) for one in ranges[1:]]
        call(*ranges[0])
        for one in waiting:
            one.result()

    def evaluate(self, x: np.ndarray, cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Forces (n, 3) eV/A and pair virial (3, 3) eV, in new arrays.

        Args:
            x: positions (n, 3), Angstrom, in the order and images of ``set_pairs``.
            cell: (3, 3) Angstrom, rows.
        """
        x, cell = np.ascontiguousarray(x[self._order], float), np.ascontiguousarray(cell, float)
        self._system.x, self._system.cell = x.ctypes.data, cell.ctypes.data
        atoms, pairs = self._atom_ranges, self._pair_ranges
        density, hidden, q, *near, far = map(_address, self._buffers.values())
        weights = _address(self._atom_parameters)
        self._each("geometry", pairs)
        self._each("first_stage", atoms, weights, density, hidden, q)
        self._each("second_stage", atoms, weights, density, hidden, q, *near, far)
        self._each("pair_forces", pairs, *near, far, int(self.architecture.normalise))
        self._each("sum_forces", atoms, self._forces.ctypes.data)
        self._library.virial(ctypes.addressof(self._system), self._virial.ctypes.data)
        forces = np.empty_like(self._forces)
        forces[self._order] = self._forces
        return forces, 0.5 * (self._virial + self._virial.T)


def _order(place: np.ndarray, species: np.ndarray) -> np.ndarray:
    """Order (n,) of atoms: chunks of CHUNK along the curve, in each one species after the other.

    Pairs of atoms of a chunk fit into the cache; blocks of one species share their weights.
    """
    along = np.argsort(place, kind="stable")
    chunk = np.empty(len(place), np.int64)
    chunk[along] = np.arange(len(place)) // CHUNK
    return np.lexsort((place, species, chunk))


def _along_curve(x: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """Places (n,) along a Z curve through boxes of BOX_A: neighbours in space stay so in memory."""
    if pbc.all():
        fractions = np.linalg.solve(cell.T, x.T).T
        lengths = np.linalg.norm(cell, axis=1)
    else:
        lengths = np.ptp(x, axis=0) + 1e-9
        fractions = (x - x.min(axis=0)) / lengths
    boxes = np.minimum(np.ceil(lengths / BOX_A), 1024)
    index = (np.clip(fractions, 0, 1 - 1e-9) * boxes).astype(np.int64)
    place = np.zeros(len(x), np.int64)
    for bit in range(10):
        for axis in range(3):
            place |= (index[:, axis] >> bit & 1) << (3 * bit + axis)
    return place


def _address(array: np.ndarray | Tensor) -> int:
    return array.ctypes.data if isinstance(array, np.ndarray) else array.data_ptr()
