"""The student as a force model: neighbour rows with a skin, compiled where a compiler works."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dmts_ipi.core.errors import InputError, ModelFault
from dmts_ipi.core.model import ForceResult, check_result

from .student import Student
from .student_files import parse_dtype, read_student
from .student_graph import Graph, Layout, Rows, build_rows, to_graph
from .train_data import species_of

SKIN_A = 0.3
SLACK = 1.06  # padding of a layout that is compiled
MOST_SPILLS = 10  # lists that did not fit and ran uncompiled before a larger layout is compiled
MOST_RECOMPILATIONS = 64


class _Neighbourhood:
    """A graph and what decides whether it still holds."""

    def __init__(self, rows: Rows, graph: Graph, layout: Layout, spilt: bool) -> None:
        self.rows, self.graph, self.layout, self.spilt = rows, graph, layout, spilt
        self.numbers = np.empty(0)
        self.pbc = np.empty(0)
        self.cell = np.empty((3, 3))
        self.positions = np.empty((0, 3))
        self.images = np.empty((0, 3))  # whole cells taken off each sorted atom

    def holds(
        self, numbers: np.ndarray, x: np.ndarray, cell: np.ndarray, pbc: np.ndarray, room_A: float
    ) -> bool:
        """Whether no pair can have come within reach: atoms and cell moved by less than room."""
        if not np.array_equal(numbers, self.numbers) or not np.array_equal(pbc, self.pbc):
            return False
        if len(x) == 0:
            return True
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

    The compiled network is bound to a layout. A list that outgrows it runs uncompiled (a
    *spill*: some three times slower for a dozen steps) instead of holding the run up for the
    20 s of a compilation; only when that has happened ``MOST_SPILLS`` times is a larger layout
    compiled.

    Args:
        student: the network.
        name: shown in messages.
        identity: hash of the weights.
        device: ``cpu``, ``cuda``, ``cuda:1``.
        dtype: ``float32`` (default) or ``float64``.
        compile: compile; falls back to eager with one line on stderr.
        skin_A: the list is rebuilt when an atom moved half of it.
    """

    conservative = False

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
        self.elements: frozenset[int] | None = frozenset(student.elements)
        self.cutoff_A: float | None = student.architecture.reach_A
        self.skin_A = skin_A
        self._dtype, self._device = parse_dtype(dtype), device
        try:
            self.student = student.to(device=device, dtype=self._dtype).eval()
        except (RuntimeError, AssertionError) as error:
            line = str(error).splitlines()[0]
            raise InputError("device", device, f"cannot be used ({line})") from error
        self.student.requires_grad_(False)
        self._run: Callable[..., tuple[Tensor, Tensor]] = self.student
        self._compiled = compile
        if compile:
            self._run = self._compile()
        self._kept: _Neighbourhood | None = None
        self._layout: Layout | None = None
        self.rebuilds = self.spills = 0

    def _compile(self) -> Callable[..., tuple[Tensor, Tensor]]:
        import torch._dynamo.config as dynamo

        dynamo.recompile_limit = max(dynamo.recompile_limit, MOST_RECOMPILATIONS)
        options: dict[str, Any] = {"triton.cudagraphs": self._device.startswith("cuda")}
        skip = getattr(torch.compiler, "skip_guard_on_inbuilt_nn_modules_unsafe", None)
        if skip is not None:  # the weights never change: checking them costs 0.2 ms a call
            options["guard_filter_fn"] = skip
        return torch.compile(self.student, dynamic=False, options=options)

    def compute(
        self, numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray
    ) -> ForceResult:
        """Forces eV/A and pair virial eV (``core.model``); a student has no energy.

        Raises:
            InputError: an element that the student does not know, NaN in the positions.
            ModelFault: the network failed or returned NaN.
        """
        numbers = np.asarray(numbers)
        x = np.asarray(positions, float).reshape(-1, 3)
        periodic = np.broadcast_to(np.asarray(pbc, bool), (3,))
        box = np.asarray(cell, float).reshape(3, 3) if periodic.any() else np.eye(3)
        if len(x) == 0:
            return ForceResult(None, np.zeros((0, 3)), np.zeros((3, 3)))
        if not np.isfinite(x).all():
            atom = int(np.argwhere(~np.isfinite(x))[0, 0])
            raise InputError("positions", f"atom {atom}: {x[atom]}", "must be finite numbers")
        kept = self._neighbourhood(numbers, x, box, periodic)
        local = x[kept.rows.order] - kept.images @ box
        local -= local.mean(axis=0)  # float32 keeps more digits near the origin
        forces, virial = self._evaluate(
            torch.as_tensor(local, dtype=self._dtype, device=self._device),
            torch.as_tensor(box, dtype=self._dtype, device=self._device),
            kept,
        )
        result = np.empty((len(x), 3))
        result[kept.rows.order] = forces.cpu().numpy()
        return check_result(
            ForceResult(None, result, virial.cpu().numpy().astype(float)), len(x), self.name
        )

    def _evaluate(self, x: Tensor, cell: Tensor, kept: _Neighbourhood) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            run = self.student if kept.spilt else self._run
            if self._compiled and not kept.spilt:
                try:
                    return run(x, cell, kept.graph, kept.layout)
                except Exception as error:  # no compiler, or one that fails: any exception
                    lines = str(error).strip().splitlines() or [type(error).__name__]
                    print(
                        f"{self.name}: warning: runs uncompiled and slower ({lines[0][:160]})",
                        file=sys.stderr,
                    )
                    self._compiled, self._run = False, self.student
                    run = self.student
            try:
                return run(x, cell, kept.graph, kept.layout)
            except RuntimeError as error:
                raise ModelFault(f"{self.name}: {str(error).splitlines()[0]}") from error

    def _neighbourhood(
        self, numbers: np.ndarray, x: np.ndarray, cell: np.ndarray, pbc: np.ndarray
    ) -> _Neighbourhood:
        kept = self._kept
        if kept is not None and kept.holds(numbers, x, cell, pbc, self.skin_A):
            return kept
        species = species_of(numbers, self.student.elements)
        # Atoms are brought into the cell first, so that coordinates stay short.
        images = np.zeros_like(x)
        if pbc.all():
            images = np.floor(np.linalg.solve(cell.T, x.T).T)
        cutoffs = self.student.architecture.cutoffs_A
        rows = build_rows(
            species,
            x - images @ cell,
            cell,
            pbc,
            len(self.student.elements),
            tuple(c + self.skin_A if c else 0.0 for c in cutoffs),  # type: ignore[arg-type]
        )
        layout, spilt = self._layout_for(rows)
        graph = to_graph([rows], layout, self._dtype, self._device)
        self._kept = kept = _Neighbourhood(rows, graph, layout, spilt)
        kept.numbers, kept.pbc, kept.cell = numbers.copy(), pbc.copy(), cell.copy()
        kept.positions, kept.images = x.copy(), images[rows.order]
        self.rebuilds += 1
        return kept

    def _layout_for(self, rows: Rows) -> tuple[Layout, bool]:
        """A layout that holds the rows, and whether it is another one than the compiled."""
        if self._layout is not None and rows.fits(self._layout):
            return self._layout, False
        if self._layout is not None and rows.counts == self._layout.counts and self._compiled:
            self.spills += 1
            if self.spills % MOST_SPILLS:
                return rows.layout(), True
        self._layout = rows.layout(SLACK).joined(self._layout)
        return self._layout, False


def load_student(
    folder: Path | str,
    *,
    device: str = "cpu",
    dtype: str | None = None,
    compile: bool = True,
) -> StudentModel:
    """Loads a student's folder as a force model.

    Raises:
        InputError: the files are absent, truncated, newer, a pickle; or the device or dtype is
            not available.
    """
    student, record = read_student(Path(folder))
    name = str(record.get("name") or Path(folder).name)
    return StudentModel(
        student,
        name,
        str(record["weights_sha256"]),
        device=device,
        dtype=dtype,
        compile=compile,
    )
