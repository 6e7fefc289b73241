"""The student through torch: on GPUs, and on CPUs without a C compiler. Padded rows, compiled."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dmts_ipi.core.errors import ModelFault

from .graph import Graph, NeighbourRows, PaddedShape, build_rows, to_graph
from .network import Student

log = logging.getLogger(__name__)

SLACK = 1.06  # padding of a layout that is compiled
MOST_SPILLS = 10  # lists that did not fit and ran uncompiled before a larger layout is compiled
MOST_RECOMPILATIONS = 64


class TorchStudent:
    """Evaluates a student for one set of atoms.

    The compiled network is bound to a layout. A list that outgrows it runs uncompiled (a
    *spill*: some three times slower for a dozen steps) instead of holding the run up for the
    20 s of a compilation; only when that has happened ``MOST_SPILLS`` times is a larger layout
    compiled.

    Args:
        student: the network on its device, ``eval`` and without gradients.
        species: (n,) index of the element of each atom, ascending.
        compile: compile; falls back to eager with one line on stderr.
        name: shown in messages.
    """

    def __init__(self, student: Student, species: np.ndarray, compile: bool, name: str) -> None:
        self.student, self.name = student, name
        parameter = next(student.parameters())
        self._dtype, self._device = parameter.dtype, str(parameter.device)
        self._species = species
        self._run: Callable[..., tuple[Tensor, ...]] = student
        self._compiled = compile
        if compile:
            self._run = self._compile()
        self.layout: PaddedShape | None = None
        self.energy_eV: float | None = None  # of the last evaluation; None: the student has none
        self.spills = 0
        self._spilt = False
        self._fitted: PaddedShape
        self._graph: Graph

    def _compile(self) -> Callable[..., tuple[Tensor, ...]]:
        import torch._dynamo.config as dynamo

        if not self._device.startswith("cpu"):  # on a CPU the reason for compiling has been logged
            log.warning(
                "%s: note: compiles for %s; its first evaluation takes a minute or two",
                self.name,
                self._device,
            )
        dynamo.recompile_limit = max(dynamo.recompile_limit, MOST_RECOMPILATIONS)
        options: dict[str, Any] = {"triton.cudagraphs": self._device.startswith("cuda")}
        skip = getattr(torch.compiler, "skip_guard_on_inbuilt_nn_modules_unsafe", None)
        if skip is not None:  # the weights never change: checking them costs 0.2 ms a call
            options["guard_filter_fn"] = skip
        return torch.compile(self.student, dynamic=False, options=options)

    def set_pairs(self, x: np.ndarray, cell: np.ndarray, pbc: np.ndarray, skin_A: float) -> None:
        """Makes the rows of positions x (n, 3) A, ``skin_A`` beyond the cutoffs."""
        rows_A, near_A, far_A = self.student.architecture.cutoffs_A
        cutoffs = (rows_A + skin_A, near_A + skin_A, far_A + skin_A if far_A else 0.0)
        rows = build_rows(self._species, x, cell, pbc, len(self.student.elements), cutoffs)
        self._fitted = self._layout_for(rows)
        self._graph = to_graph([rows], self._fitted, self._dtype, self._device)

    def _layout_for(self, rows: NeighbourRows) -> PaddedShape:
        """A layout that holds the rows: the compiled one where they fit."""
        self._spilt = False
        if self.layout is not None and rows.fit_into(self.layout):
            return self.layout
        if self.layout is not None and self._compiled:
            self.spills += 1
            if self.spills % MOST_SPILLS:
                self._spilt = True
                return rows.layout()
        self.layout = rows.layout(SLACK).enlarged_for(self.layout)
        return self.layout

    def evaluate(self, x: np.ndarray, cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Forces (n, 3) eV/A and pair virial (3, 3) eV.

        Args:
            x: positions (n, 3), Angstrom, in the order and images of ``set_pairs``.
            cell: (3, 3) Angstrom, rows.

        Raises:
            ModelFault: the network failed.
        """
        local = x - x.mean(axis=0)  # float32 keeps more digits near the origin
        forces, virial, *energy = self._forward(
            torch.as_tensor(local, dtype=self._dtype, device=self._device),
            torch.as_tensor(cell, dtype=self._dtype, device=self._device),
        )
        self.energy_eV = float(energy[0]) if energy else None
        return forces.cpu().numpy().astype(float), virial.cpu().numpy().astype(float)

    def _forward(self, x: Tensor, cell: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            run = self.student if self._spilt else self._run
            if self._compiled and not self._spilt:
                try:
                    return run(x, cell, self._graph, self._fitted)
                except Exception as error:  # no compiler, or one that fails: any exception
                    lines = str(error).strip().splitlines() or [type(error).__name__]
                    log.warning(
                        "%s: warning: runs uncompiled and slower (%s)", self.name, lines[0][:160]
                    )
                    self._compiled, self._run = False, self.student
                    run = self.student
            try:
                return run(x, cell, self._graph, self._fitted)
            except RuntimeError as error:
                raise ModelFault(f"{self.name}: {str(error).splitlines()[0]}") from error
