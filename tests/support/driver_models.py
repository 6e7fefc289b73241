"""Small force models for the driver tests, and a driver program that serves them.

``python tests/driver_models.py --model SPEC ...`` takes the options of our drivers; SPEC is
``pair`` or ``pair,fault=KIND,at=N`` (the N-th evaluation goes wrong).
"""

from __future__ import annotations

import sys
import time

import numpy as np
from ase import Atoms

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.model import ForceResult
from dmts_ipi.core.neighbours import neighbour_pairs
from dmts_ipi.ipi.client.driver_model import AtomicUnitsModel

FAULTS = ("nan", "raise", "shape", "hang", "no-virial", "no-energy", "jump", "stateful", "drift")


class PairModel:
    """E = sum over pairs of a (1 - r^2/rc^2)^4: smooth at the cutoff to the third derivative."""

    name = "pair"
    identity = "pair-1"
    conservative = True

    def __init__(self, cutoff_A: float = 3.0, fault: str = "", at: int = 1) -> None:
        self.cutoff_A: float | None = cutoff_A
        self.elements: frozenset[int] | None = frozenset({1, 8})
        self.fault, self.at, self.calls = fault, at, 0

    def compute(
        self, numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray
    ) -> ForceResult:
        self.calls += 1
        rc = self.cutoff_A or 0.0
        i, j, s = neighbour_pairs(positions, cell, pbc, rc + 0.5, full=False)
        d = positions[j] - positions[i] + s @ np.asarray(cell)
        strength = 0.3 + 0.1 * (numbers[i] + numbers[j])
        u = np.clip(1 - (d**2).sum(1) / rc**2, 0, None)
        g = (strength * 4 * u**3 * 2 / rc**2)[:, None] * d  # force on j
        forces = np.zeros_like(positions)
        np.add.at(forces, j, g)
        np.add.at(forces, i, -g)
        energy: float | None = float((strength * u**4).sum())
        virial: np.ndarray | None = d.T @ g
        if self.fault and self.calls >= self.at:
            if self.fault == "nan":
                forces[1, 2] = np.nan
            elif self.fault == "raise":
                raise RuntimeError("CUDA error:\n out of memory")
            elif self.fault == "shape":
                forces = forces[:-1]
            elif self.fault == "hang":
                print("hangs", file=sys.stderr, flush=True)  # for a test that waits for it
                time.sleep(600)
            elif self.fault == "no-virial":
                virial = None
            elif self.fault == "no-energy":
                energy, self.conservative = None, False
            elif self.fault == "jump":
                near = (d**2).sum(1) < (rc - 0.05) ** 2
                np.add.at(forces, j[near], 0.05 * d[near])
                np.add.at(forces, i[near], -0.05 * d[near])
            elif self.fault == "stateful":
                forces *= 1 + 0.01 * self.calls
            elif self.fault == "drift":
                forces[0, 0] += 0.1
        return ForceResult(energy, forces, virial)


def two_waters() -> Atoms:
    """Two molecules in a triclinic cell, thinner than twice the cutoff."""
    x = [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0], [2.6, 0.3, 1], [3.2, 1, 1.2], [2.9, -0.4, 1.6]]
    cell = [[5.5, 0, 0], [0.7, 5.2, 0], [-0.3, 0.4, 5.8]]
    return Atoms("OH2OH2", x, cell=cell, pbc=True)


def evaluator(atoms: Atoms, **fields: object) -> AtomicUnitsModel:
    return AtomicUnitsModel(PairModel(**fields), atoms.numbers, atoms.pbc)  # type: ignore[arg-type]


def load(
    spec: str, *, device: str = "cpu", dtype: str | None = None, compile: bool = True
) -> PairModel:
    """The test programs' ``load_model``."""
    kind, _, rest = spec.partition(",")
    if kind != "pair":
        raise InputError("model", spec, "must be pair")
    fields = dict(item.split("=") for item in rest.split(",") if item)
    return PairModel(fault=fields.get("fault", ""), at=int(fields.get("at", 1)))


if __name__ == "__main__":
    from dmts_ipi.ipi.client.driver import main

    sys.exit(main("test_driver", load))
