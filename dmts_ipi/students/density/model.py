"""The student as a force model: order of atoms, skin, and what evaluates it on this device."""

from __future__ import annotations

import copy
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch

from dmts_ipi.core.compiled import NotCompiled
from dmts_ipi.core.errors import InputError
from dmts_ipi.core.model import ForceResult, check_result
from dmts_ipi.students.files import parse_dtype

from .cpu import CpuStudent
from .energy import EnergyStudent
from .graph import species_of
from .network import Student
from .torch_path import TorchStudent

log = logging.getLogger(__name__)

SKIN_A = 0.3


class Evaluator(Protocol):
    """Evaluates a student for one set of atoms, sorted by species: ``TorchStudent`` or
    ``CpuStudent``."""

    def set_pairs(self, x: np.ndarray, cell: np.ndarray, pbc: np.ndarray, skin_A: float) -> None:
        """Lists the pairs of positions x (n, 3) A, ``skin_A`` beyond the cutoffs."""

    def evaluate(self, x: np.ndarray, cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Forces (n, 3) eV/A and virial (3, 3) eV at positions near those of ``set_pairs``."""


class _Listed:
    """Where the atoms were when pairs were listed, and so whether the list still holds."""

    def __init__(
        self,
        x: np.ndarray,
        cell: np.ndarray,
        pbc: np.ndarray,
        images: np.ndarray,
    ) -> None:
        self.positions, self.cell, self.pbc = x.copy(), cell.copy(), pbc.copy()
        self.images = images  # whole cells taken off each atom

    def holds(self, x: np.ndarray, cell: np.ndarray, pbc: np.ndarray, room_A: float) -> bool:
        """Whether no pair can have come within reach: atoms and cell moved by less than room."""
        if not np.array_equal(pbc, self.pbc):
            return False
        reference = self.positions
        strain = 0.0
        if pbc.any() and not np.array_equal(cell, self.cell):
            if not pbc.all():
                return False
            change = np.linalg.solve(self.cell, cell)
            reference = reference @ change
            strain = float(np.linalg.norm(change - np.eye(3), 2))
        moved = x - reference
        farthest = float(np.sqrt(np.einsum("na,na->n", moved, moved).max()))
        # Strain brings atoms at the edge of the list closer by less than strain times 20 A.
        return 2.0 * farthest + 20.0 * strain < room_A


class StudentModel:
    """A student that meets ``core.model.ForceModel``.

    Args:
        student: the network.
        name: shown in messages.
        identity: hash of the weights.
        device: ``cpu``, ``cuda``, ``cuda:1``.
        dtype: ``float32`` (default) or ``float64``.
        compile: on a CPU the C kernels, where there is a C compiler; else ``torch.compile``.
            False, and a conservative student always: plain torch.
        skin_A: the list is made anew when an atom moved half of it.

    Attributes:
        rebuilds: how often pairs were listed.
        evaluator: what evaluates the present atoms; None before the first evaluation.
    """

    def __init__(
        self,
        student: Student,
        name: str = "student",
        identity: str = "",
        *,
        device: str = "cpu",
        dtype: str | None = None,
        compile: bool = True,
        skin_A: float = SKIN_A,
    ) -> None:
        self.name, self.identity = name, identity
        self.conservative = student.architecture.energy
        self.elements: frozenset[int] | None = frozenset(student.elements)
        self.cutoff_A: float | None = student.architecture.reach_A
        self.skin_A = skin_A
        self._device, self._compile = device, compile
        try:
            self.student = student.to(device=device, dtype=parse_dtype(dtype)).eval()
        except (RuntimeError, AssertionError) as error:
            line = str(error).splitlines()[0]
            raise InputError("device", device, f"cannot be used ({line})") from error
        self.student.requires_grad_(False)
        self.evaluator: Evaluator | None = None
        self.rebuilds = 0
        self._numbers = np.empty(0, int)
        self._order = np.empty(0, int)
        self._listed: _Listed | None = None
        self._replicas: list[StudentModel] = []
        self._threads: int | None = None  # of the kernels; None: torch's
        self._pool: ThreadPoolExecutor | None = None

    def compute(
        self, numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray
    ) -> ForceResult:
        """Forces eV/A, pair virial eV (``core.model``); an energy from a conservative student only.

        Raises:
            InputError: an element that the student does not know, NaN in the positions.
            ModelFault: the network failed or returned NaN.
        """
        numbers = np.asarray(numbers)
        x = np.asarray(positions, float).reshape(-1, 3)
        periodic = np.broadcast_to(np.asarray(pbc, bool), (3,))
        box = np.asarray(cell, float).reshape(3, 3) if periodic.any() else np.eye(3)
        if len(x) == 0:
            energy = 0.0 if self.conservative else None
            return ForceResult(energy, np.zeros((0, 3)), np.zeros((3, 3)))
        if not np.isfinite(x).all():
            atom = int(np.argwhere(~np.isfinite(x))[0, 0])
            raise InputError("positions", f"atom {atom}: {x[atom]}", "must be finite numbers")
        if self.evaluator is None or not np.array_equal(numbers, self._numbers):
            self._set_atoms(numbers)
        assert self.evaluator is not None
        x = x[self._order]
        if self._listed is None or not self._listed.holds(x, box, periodic, self.skin_A):
            self._list_pairs(x, box, periodic)
        assert self._listed is not None
        forces, virial = self.evaluator.evaluate(x - self._listed.images @ box, box)
        result = np.empty_like(forces)
        result[self._order] = forces
        return check_result(ForceResult(self._energy_eV(), result, virial), len(x), self.name)

    def compute_batch(
        self, numbers: np.ndarray, positions: np.ndarray, cells: np.ndarray, pbc: np.ndarray
    ) -> list[ForceResult]:
        """Several structures of the same atoms (``core.model.BatchModel``), each with a list of
        its own. On a CPU each thread takes whole structures: no thread waits for another within
        one. On a GPU one after another.
        """
        threads = torch.get_num_threads() if self._device == "cpu" else 1
        while len(self._replicas) < len(positions):
            replica = copy.copy(self)
            replica.evaluator, replica._listed, replica.rebuilds = None, None, 0
            replica._replicas, replica._pool = [], None
            replica._threads = 1 if self._kernels(numbers) and threads > 1 else None
            self._replicas.append(replica)
        each = list(zip(self._replicas, positions, cells, strict=False))
        if self._replicas[0]._threads is None:
            return [one.compute(numbers, x, cell, pbc) for one, x, cell in each]
        if self._pool is None:
            self._pool = ThreadPoolExecutor(threads)
        calls = [self._pool.submit(one.compute, numbers, x, cell, pbc) for one, x, cell in each]
        return [call.result() for call in calls]

    def _kernels(self, numbers: np.ndarray) -> bool:
        """Whether the C kernels evaluate these atoms."""
        if self.evaluator is None or not np.array_equal(numbers, self._numbers):
            self._set_atoms(np.asarray(numbers))
        return isinstance(self.evaluator, CpuStudent)

    def _energy_eV(self) -> float | None:
        """Energy of the last evaluation; None from a student of direct forces."""
        if not isinstance(self.student, EnergyStudent):
            return None
        assert isinstance(self.evaluator, TorchStudent)
        assert self.evaluator.energy_eV is not None
        table = dict(zip(self.student.elements, self.student.atom_energies_eV, strict=True))
        return self.evaluator.energy_eV + sum(table[int(z)] for z in self._numbers)

    def _set_atoms(self, numbers: np.ndarray) -> None:
        species = species_of(numbers, self.student.elements)
        self._order = np.argsort(species, kind="stable")
        self._numbers, self._listed = numbers.copy(), None
        species = species[self._order]
        compiled = self._compile and not self.conservative
        if compiled and self._device == "cpu":
            try:
                threads = self._threads or torch.get_num_threads()
                self.evaluator = CpuStudent(self.student, species, threads)
                return
            except NotCompiled as error:
                log.warning("%s: note: %s; torch.compile is used", self.name, error)
        self.evaluator = TorchStudent(self.student, species, compiled, self.name)

    def _list_pairs(self, x: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> None:
        assert self.evaluator is not None
        # Atoms are brought into the cell first, so that coordinates stay short.
        images = np.zeros_like(x)
        if pbc.all():
            images = np.floor(np.linalg.solve(cell.T, x.T).T)
        self._listed = None  # until there is a new one, whatever stops it
        self.evaluator.set_pairs(x - images @ cell, cell, pbc, self.skin_A)
        self._listed = _Listed(x, cell, pbc, images)
        self.rebuilds += 1
