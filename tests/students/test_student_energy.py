"""The conservative student: gradient, symmetries, wall, training, files, command line."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from dmts_ipi.cli import main
from dmts_ipi.core.errors import InputError
from dmts_ipi.core.frames import write_frames
from dmts_ipi.learning.training.config import TrainConfig
from dmts_ipi.learning.training.report import Reporter
from dmts_ipi.learning.training.train import Trainer
from dmts_ipi.models.load import load_model
from dmts_ipi.students.density.batches import GraphSet
from dmts_ipi.students.density.energy import EnergyStudent, new_student
from dmts_ipi.students.density.model import StudentModel
from dmts_ipi.students.density.prepare import fit_base, set_wall
from dmts_ipi.students.files import read_student, save_student
from student_tools import ELEMENTS, TINY, make_student, spring_forces, toy_frames, water_box

ALL = np.ones(3, bool)


def model(**changes: object) -> StudentModel:
    student = make_student(energy=True, **changes)
    assert isinstance(student, EnergyStudent)
    student.atom_energies_eV = [-13.0, -2000.0]
    return StudentModel(student, dtype="float64")


def frames(count: int) -> list:
    """Toy water with its energy: springs, and constants of the elements."""
    found = []
    for f in toy_frames(count):
        x, e = f.positions, 0.0
        for o in range(0, len(x), 3):
            for a, b, rest, k in ((o, o + 1, 0.96, 30.0), (o, o + 2, 0.96, 30.0),
                                  (o + 1, o + 2, 1.5, 8.0)):  # fmt: skip
                e += 0.5 * k * (np.linalg.norm(x[b] - x[a]) - rest) ** 2
        found.append(replace(f, energy_eV=e - 7.0 * len(x)))
    return found


@pytest.mark.parametrize(
    "parts", [{}, {"messages": 0}, {"near_hidden": 0}, {"far_bessel": 0}, {"normalise": False}]
)
def test_forces_and_virial_are_the_gradient(parts: dict) -> None:
    numbers, x, cell = water_box(2)
    x[4] = x[3] + (x[4] - x[3]) * 0.45  # within the wall's range, where parts fade
    m, rng, h = model(**parts), np.random.default_rng(0), 1e-5
    at = m.compute(numbers, x, cell, ALL)
    assert m.conservative
    assert at.energy_eV is not None
    for direction in (rng.normal(size=x.shape) for _ in range(3)):
        two = [m.compute(numbers, x + s * h * direction, cell, ALL).energy_eV for s in (1, -1)]
        slope = (two[0] - two[1]) / (2 * h)
        assert -slope == pytest.approx((at.forces_eV_per_A * direction).sum(), rel=1e-5, abs=1e-5)
    strain = rng.normal(size=(3, 3))
    strain += strain.T
    ends = []
    for s in (1, -1):
        grow = np.eye(3) + s * h * strain
        ends.append(m.compute(numbers, x @ grow, cell @ grow, ALL).energy_eV)
    slope = (ends[0] - ends[1]) / (2 * h)
    assert -slope == pytest.approx((at.virial_eV * strain).sum(), rel=1e-5, abs=1e-5)


def test_symmetries_and_sums() -> None:
    numbers, x, cell = water_box(3)
    rng = np.random.default_rng(5)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    order = rng.permutation(len(x))
    m = model()
    one = m.compute(numbers, x, cell, ALL)
    two = m.compute(numbers[order], (x @ turn)[order], cell @ turn, ALL)
    assert two.energy_eV == pytest.approx(one.energy_eV, abs=1e-8)
    np.testing.assert_allclose(two.forces_eV_per_A, (one.forces_eV_per_A @ turn)[order], atol=1e-9)
    np.testing.assert_allclose(one.forces_eV_per_A.sum(axis=0), 0, atol=1e-10)
    wide = m.compute(np.tile(numbers, 2), np.concatenate([x, x + 80.0]), np.eye(3), ~ALL)
    free = m.compute(numbers, x, np.eye(3), ~ALL)
    assert wide.energy_eV == pytest.approx(2 * free.energy_eV, abs=1e-7)


def test_atoms_that_come_close_repel() -> None:
    m = model()
    energies = [
        m.compute(np.array([8, 8]), np.array([[0, 0, 0], [r, 0, 0]]), np.eye(3), ~ALL).energy_eV
        for r in (0.05, 0.1, 0.15, 0.2)
    ]
    assert all(a > b + 100 for a, b in pairwise(energies))


def test_both_kinds_begin_at_the_same_base() -> None:
    """The base force of a direct student is the gradient of the base energy."""
    some = toy_frames(4)
    found = []
    for energy in (False, True):
        torch.manual_seed(1)
        student = new_student(TINY.model_copy(update={"energy": energy, "far_bessel": 0}), ELEMENTS)
        graphs = GraphSet(some, student.architecture, ELEMENTS)
        batches = [graphs.batch([k]) for k in range(4)]
        set_wall(student, batches)
        fit_base(student, batches)
        b = batches[0]
        with torch.no_grad():
            found.append(student(b.positions, b.cell, b.graph, b.layout)[0].numpy())
    assert np.abs(found[0]).max() > 0.1
    np.testing.assert_allclose(found[1], found[0], atol=2e-4)


def test_learns_forces_and_with_them_the_energy(tmp_path: Path) -> None:
    some = frames(8)
    config = TrainConfig(
        architecture=TINY.model_copy(update={"energy": True, "hidden": 24}),
        steps=80,
        warmup_steps=5,
        validations=4,
        ema=0.9,
        validation_fraction=0.25,
        batch_frames=1,
    )

    whole = Trainer(
        some, config, tmp_path / "whole", {"name": "toy"}, "0" * 64, reporter=Reporter(StringIO())
    )
    rows = whole.run().history
    assert rows[-1]["loss_eV_per_A"] < 0.5 * rows[0]["loss_eV_per_A"]
    assert rows[-1]["force_rmse_eV_per_A"] < 0.9 * whole.base_rmse
    loaded = load_model(str(tmp_path / "whole"))
    assert loaded.conservative
    errors, energies = [], []
    for f in some:
        r = loaded.compute(f.numbers, f.positions, f.cell, f.pbc)
        errors.append(r.forces_eV_per_A - spring_forces(f.positions))
        energies.append(r.energy_eV)
    assert np.sqrt(np.square(errors).mean()) < 0.8 * whole.base_rmse
    labels = np.array([f.energy_eV for f in some])
    assert np.corrcoef(energies, labels)[0, 1] > 0.9  # it was never shown an energy
    assert np.mean(energies) == pytest.approx(labels.mean(), abs=labels.std())


def test_files(tmp_path: Path) -> None:
    student = make_student(energy=True)
    assert isinstance(student, EnergyStudent)
    student.atom_energies_eV = [-1.5, -2.25]
    save_student(tmp_path, student, teacher={"name": "t"}, training_data_sha256="", errors={})
    again, record = read_student(tmp_path)
    assert isinstance(again, EnergyStudent)
    assert again.atom_energies_eV == record["atom_energies_eV"] == [-1.5, -2.25]
    assert record["architecture"]["energy"] is True
    record.pop("atom_energies_eV")
    (tmp_path / "model.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="atom_energies_eV"):
        read_student(tmp_path)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels, out = tmp_path / "labels.extxyz", tmp_path / "student"
    write_frames(labels, frames(6))
    fields = {"architecture": TINY.model_dump(), "steps": 3, "validations": 1, "warmup_steps": 1}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(fields))
    words = ["distill", "--labels", str(labels), "--out", str(out), "--teacher", "ase:toy.Toy"]
    words += ["--config", str(tmp_path / "c.yaml"), "--no-compile", "--forces", "conservative"]
    assert main(words) == 0
    assert json.loads((out / "model.json").read_text())["architecture"]["energy"] is True
    capsys.readouterr()
    assert main(["evaluate", "--model", str(out), "--labels", str(labels), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["energy_mae_eV_per_atom"] < 7.0  # the elements' energies are found
    words[words.index("conservative")] = "direct"
    words[words.index(str(out))] = str(tmp_path / "direct")
    assert main(words) == 0
    assert (
        json.loads((tmp_path / "direct/model.json").read_text())["architecture"]["energy"] is False
    )
