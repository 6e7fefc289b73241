"""Models that take several structures in one call: the same as one by one, each with its list."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from test_teachers import compute, mace_folder, structure  # noqa: F401

from dmts_ipi.core.model import BatchModel, ForceModel, compute_batch
from dmts_ipi.ipi.client.driver_model import AtomicUnitsModel
from dmts_ipi.models.load import load_model
from dmts_ipi.students.density.model import StudentModel
from driver_models import PairModel
from student_tools import make_student, water_box

COPIES = 3
PBC = np.ones(3, bool)


def frames(x: np.ndarray, cell: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Moved copies, one of them in a larger cell."""
    rng = np.random.default_rng(seed)
    cells = np.stack([cell * s for s in (1.0, 1.0, 1.02)])
    moved = [x @ np.linalg.solve(cell, c) + rng.normal(scale=0.02, size=x.shape) for c in cells]
    return np.stack(moved), cells


def check(model: ForceModel, alone: ForceModel, numbers: np.ndarray, x, cells) -> None:
    assert isinstance(model, BatchModel)
    for one, y, cell in zip(compute_batch(model, numbers, x, cells, PBC), x, cells, strict=True):
        two = alone.compute(numbers, y, cell, PBC)
        np.testing.assert_allclose(one.forces_eV_per_A, two.forces_eV_per_A, atol=1e-10)
        np.testing.assert_allclose(one.virial_eV, two.virial_eV, atol=1e-9)
        assert one.energy_eV == pytest.approx(two.energy_eV, abs=1e-9)


@pytest.mark.parametrize(("compiled", "threads"), [(False, 1), (True, 1), (True, 2)])
def test_students(compiled: bool, threads: int) -> None:
    numbers, x0, cell = water_box(1)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        options = {"dtype": "float64", "compile": compiled}
        model = StudentModel(make_student(), **options)  # type: ignore[arg-type]
        alone = StudentModel(make_student(), **options)  # type: ignore[arg-type]
        for k in range(3):
            x, cells = frames(x0, cell)
            check(model, alone, numbers, x + 0.01 * k, cells)
        # each replica keeps a list; one list for all would be made anew every time
        assert [m.rebuilds for m in model._replicas] == [1] * COPIES
        assert alone.rebuilds > COPIES
    finally:
        torch.set_num_threads(before)


def test_mace(mace_folder: Path) -> None:  # noqa: F811
    atoms = structure()
    x0, cell = atoms.positions, np.array(atoms.cell)
    model, alone = (load_model(str(mace_folder), dtype="float64") for _ in range(2))
    for k in range(2):
        x, cells = frames(x0, cell)
        check(model, alone, atoms.numbers, x + 0.01 * k, cells)
    assert [one.searches for one in model._lists] == [1] * COPIES  # type: ignore[attr-defined]
    assert compute(model, atoms).energy_eV == pytest.approx(compute(alone, atoms).energy_eV)


def test_a_model_of_one_structure_gets_one_at_a_time() -> None:
    seen: list[np.ndarray] = []

    class Observer:
        def evaluated(self, positions_bohr: np.ndarray, *others: object) -> None:
            seen.append(positions_bohr.copy())

        def begin(self) -> None: ...
        def end(self) -> None: ...
        def failed(self) -> None: ...
        def connected(self) -> None: ...

    numbers = np.array([8, 1, 1])
    evaluator = AtomicUnitsModel(PairModel(), numbers, False, observer=Observer())
    x = np.random.default_rng(0).normal(size=(COPIES, 3, 3)) * 2
    h = np.stack([np.eye(3) * 30] * COPIES)
    got = evaluator.compute_batch(h, x)
    assert evaluator.evaluations == COPIES
    assert not seen
    evaluator.answered()
    np.testing.assert_array_equal(np.stack(seen), x)
    for one, y in zip(got, x, strict=True):
        for a, b in zip(one, evaluator.compute(h[0], y), strict=True):
            np.testing.assert_array_equal(a, b)
