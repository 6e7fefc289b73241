"""A force model as i-PI sees it: atomic units in and out, elements known beforehand."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np

from dmts_ipi.core.errors import EvaluationFault, InputError, ModelFault
from dmts_ipi.core.model import ForceModel, ForceResult, all_finite, check_result, compute_batch
from dmts_ipi.core.telemetry import Observer
from dmts_ipi.ipi import units


class _Evaluation(NamedTuple):
    """What an observer is told of."""

    positions_bohr: np.ndarray
    positions_A: np.ndarray
    cell_A: np.ndarray
    result: ForceResult
    seconds: float


class AtomicUnitsModel:
    """Evaluates a ``ForceModel`` for i-PI, which sends neither elements nor periodicity.

    Args:
        model: the force model.
        numbers: atomic numbers, (n,), in i-PI's order of atoms.
        pbc: one flag, or three.
        need_virial: refuse a model without virial. Where False such a model answers with a
            virial of zeros, because i-PI's protocol has no "absent": right for NVE and NVT,
            wrong for NPT.
        observer: is told of every evaluation, by ``answered``; may be set later.

    Attributes:
        evaluations: how many structures were asked for since the start.
        seconds: wall time spent inside the model.
        virial_absent: whether the last evaluation had no virial.
    """

    def __init__(
        self,
        model: ForceModel,
        numbers: np.ndarray,
        pbc: np.ndarray | bool,
        need_virial: bool = False,
        observer: Observer | None = None,
    ) -> None:
        self.model = model
        self.observer = observer
        self.numbers = np.array(numbers, dtype=np.int64)
        self.pbc = np.array(np.broadcast_to(np.asarray(pbc, dtype=bool), (3,)))
        self.need_virial = need_virial
        self.evaluations = 0
        self.seconds = 0.0
        self.virial_absent = False
        self._untold: list[_Evaluation] = []
        self._last_cell: tuple[bytes, np.ndarray] = b"", np.zeros((3, 3))

    def compute(
        self, h_bohr: np.ndarray, positions_bohr: np.ndarray
    ) -> tuple[float, np.ndarray, np.ndarray]:
        """Energy (hartree, 0 where the model has none), forces (n, 3), virial (3, 3).

        Args:
            h_bohr: (3, 3), cell vectors as columns.
            positions_bohr: (n, 3).

        Raises:
            EvaluationFault: whatever went wrong, with the number of the evaluation in front.
            InputError: a virial is needed and the model has none.
        """
        return self.compute_batch(h_bohr[None], positions_bohr[None])[0]

    def compute_batch(
        self, h_bohr: np.ndarray, positions_bohr: np.ndarray
    ) -> list[tuple[float, np.ndarray, np.ndarray]]:
        """``compute`` of B structures in one call of the model, where it takes several.

        Args:
            h_bohr: (B, 3, 3). positions_bohr: (B, n, 3).

        Raises:
            As ``compute``; of several structures the number is that of the last.
        """
        self.answered()  # where nobody has said so of those before
        count = len(positions_bohr)
        self.evaluations += count
        if self.observer is not None:
            self.observer.begin()
        start = time.perf_counter()
        n = len(self.numbers)
        try:
            if positions_bohr.shape[1] != n:
                sent = positions_bohr.shape[1]
                raise ModelFault(f"i-PI sent {sent} atoms, the structure has {n}")
            if not all_finite(positions_bohr):
                raise ModelFault("i-PI sent positions that are not finite")
            positions = units.positions_from_ipi(positions_bohr)
            cells = [self._cell_A(h) for h in h_bohr]
            if count == 1:
                results = [self.model.compute(self.numbers, positions[0], cells[0], self.pbc)]
            else:
                box = np.array(cells)
                results = compute_batch(self.model, self.numbers, positions, box, self.pbc)
            for result in results:
                check_result(result, n, self.model.name)
        except Exception as error:  # a network can raise anything; i-PI must see a clean end
            if self.observer is not None:
                self.observer.failed()
            raise EvaluationFault(f"evaluation {self.evaluations}: {_cause(error)}") from error
        finally:
            seconds = time.perf_counter() - start
            self.seconds += seconds
        if self.observer is not None:
            self.observer.end()
            sent = positions_bohr.copy()  # i-PI may write the next ones into shared memory
            self._untold = [
                _Evaluation(sent[k], positions[k], cells[k], result, seconds)
                for k, result in enumerate(results)
            ]
        return [self._to_ipi(result) for result in results]

    def _cell_A(self, h_bohr: np.ndarray) -> np.ndarray:
        """Rows are the vectors; the last one is kept."""
        key = h_bohr.tobytes()
        if key != self._last_cell[0]:
            if not all_finite(h_bohr):
                raise ModelFault("i-PI sent a cell that is not finite")
            self._last_cell = key, units.cell_from_ipi(h_bohr)
        return self._last_cell[1]

    def answered(self) -> None:
        """i-PI has what it asked for, or is gone: the observer is told now, while i-PI works."""
        if self._untold and self.observer is not None:
            for e in self._untold:
                forces_eV = np.asarray(e.result.forces_eV_per_A)
                self.observer.evaluated(
                    e.positions_bohr,
                    e.positions_A,
                    e.cell_A,
                    e.result.energy_eV,
                    forces_eV,
                    e.seconds,
                )
            self._untold = []

    def _to_ipi(self, result: ForceResult) -> tuple[float, np.ndarray, np.ndarray]:
        self.virial_absent = result.virial_eV is None
        if result.virial_eV is None:
            self._refuse_absent_virial()
            virial = np.zeros((3, 3))
        else:
            virial = units.virial_to_ipi(result.virial_eV)
        energy = 0.0 if result.energy_eV is None else units.energy_to_ipi(result.energy_eV)
        return energy, units.forces_to_ipi(result.forces_eV_per_A), virial

    def parameters(self, fields: dict[str, str]) -> None:
        """Takes the ``<parameters>`` of i-PI's ``<ffsocket>``; ``virial: required`` counts.

        Raises:
            InputError: i-PI requires a virial and the model has none.
        """
        if self.observer is not None:
            self.observer.connected()
        if fields.get("virial", "").lower() == "required":
            self.need_virial = True
            if self.virial_absent:
                self._refuse_absent_virial()

    def _refuse_absent_virial(self) -> None:
        if self.need_virial:
            raise InputError(
                "virial",
                self.model.name,
                "the model gives no virial, which NPT needs; use another model or nvt",
            )


def _cause(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, ModelFault | InputError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
