"""Architectures of students are a seam: one from outside trains, saves, loads and runs."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from dmts_ipi.cli import main
from dmts_ipi.core import registry
from dmts_ipi.core.errors import InputError
from dmts_ipi.core.frames import Frame, write_frames
from dmts_ipi.learning.training.config import TrainConfig
from dmts_ipi.learning.training.loss import per_atom_term, student_loss
from dmts_ipi.models.load import load_model
from dmts_ipi.students.contract import DIRECT, ENERGY
from dmts_ipi.students.registry import architecture_of, parse_sizes, student_architectures
from student_tools import ELEMENTS, TINY, toy_frames
from toy_architecture import ARCHITECTURE, TwoHeadsConfig


def springs_energy(x: np.ndarray) -> float:
    """The energy of ``student_tools.spring_forces``, eV."""
    total = 0.0
    for o in range(0, len(x), 3):
        for a, b, rest, k in ((o, o + 1, 0.96, 30.0), (o, o + 2, 0.96, 30.0), (o + 1, o + 2, 1.5, 8.0)):  # fmt: skip # noqa: E501
            total += 0.5 * k * (np.linalg.norm(x[b] - x[a]) - rest) ** 2
    return total


def labelled(count: int) -> list[Frame]:
    """Toy water with energies above those of atoms."""
    return [
        replace(f, energy_eV=springs_energy(f.positions) - 100.0 * (f.numbers == 8).sum())
        for f in toy_frames(count)
    ]


@pytest.fixture
def two_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy as an entry point of another package."""
    point = EntryPoint(
        "two_heads", "toy_architecture:ARCHITECTURE", "dmts_ipi.student_architectures"
    )
    monkeypatch.setattr(
        registry, "entry_points", lambda group: [point] if group == point.group else []
    )
    monkeypatch.setattr(student_architectures, "_found", None)
    monkeypatch.setattr(student_architectures, "_loaded", {})


def distill(tmp_path: Path, *options: str, **fields: object) -> int:
    write_frames(tmp_path / "labels.extxyz", labelled(10))
    (tmp_path / "o.yaml").write_text(yaml.safe_dump({"validations": 2, "ema": 0.9, **fields}))
    given = ["--labels", str(tmp_path / "labels.extxyz"), "--teacher", "toy"]
    given += ["--config", str(tmp_path / "o.yaml"), "--out", str(tmp_path / "student")]
    return main(["distill", *given, "--no-compile", *options])


@pytest.mark.usefixtures("two_heads")
def test_an_architecture_with_two_outputs_trains_saves_loads_and_runs(tmp_path, capsys):
    steps = {"steps": 400, "warmup_steps": 20, "batch_frames": 2}
    assert distill(tmp_path, "--architecture", "two_heads", **steps) == 0
    assert "of all atoms" not in capsys.readouterr().err  # no warning: it learnt
    record = json.loads((tmp_path / "student/model.json").read_text())
    assert record["architecture"]["kind"] == "two_heads"
    assert record["cutoff_A"] == 4.0
    model = load_model(str(tmp_path / "student"))
    assert not model.conservative
    assert model.elements == {1, 8}
    frames = labelled(12)[10:]  # it never saw these
    found = [model.compute(f.numbers, f.positions, f.cell, f.pbc) for f in frames]
    forces = np.concatenate([r.forces_eV_per_A for r in found])
    labels = np.concatenate([f.forces for f in frames])
    assert np.abs(forces - labels).mean() < 0.2 * np.abs(labels).mean()
    assert np.abs(forces[: len(frames[0].numbers)].sum(0)).max() < 1e-4
    for r, f in zip(found, frames, strict=True):
        assert r.energy_eV == pytest.approx(f.energy_eV, abs=0.5)
        assert r.virial_eV is None


@pytest.mark.usefixtures("two_heads")
def test_it_resumes_to_the_same_weights(tmp_path):
    kind = ("--architecture", "two_heads")
    (tmp_path / "a").mkdir()
    assert distill(tmp_path / "a", *kind, steps=6) == 0
    assert distill(tmp_path / "a", *kind, steps=6) == 0  # finished: nothing is done


@pytest.mark.usefixtures("two_heads")
def test_wrong_sizes_are_named(tmp_path, capsys):
    sizes = {"kind": "two_heads", "hiden": 3}
    assert distill(tmp_path, steps=1, architecture=sizes) == 2
    assert "architecture.hiden = 3: unknown field; did you mean hidden?" in capsys.readouterr().err
    assert distill(tmp_path, "--forces", "direct", steps=1, architecture={"kind": "two_heads"}) == 2
    assert "a two_heads student has no such option" in capsys.readouterr().err


def test_an_architecture_whose_package_is_missing_is_named(tmp_path, capsys):
    assert distill(tmp_path, "--architecture", "two_heads", steps=1) == 2
    message = "student architecture = two_heads: is not known; there are density"
    assert message in capsys.readouterr().err
    with pytest.raises(InputError, match="install the package that provides it"):
        parse_sizes({"kind": "two_heads"}, "model.json: architecture")


def test_density_is_the_architecture_of_records_without_a_kind():
    sizes = TINY.model_dump(exclude={"kind"})
    assert parse_sizes(sizes, "here") == TINY
    assert architecture_of(TINY).name == "density"


def test_loss_over_named_targets():
    torch.manual_seed(0)
    config = TwoHeadsConfig(hidden=4)
    network = ARCHITECTURE.build(config, ELEMENTS)
    batch = ARCHITECTURE.frames(labelled(3), config, ELEMENTS).batch([0, 1, 2])
    parts = [
        student_loss(ARCHITECTURE, network, batch, {name: 1.0}, 0.1, None, 0.0)
        for name in (DIRECT, ENERGY)
    ]
    both = student_loss(ARCHITECTURE, network, batch, {DIRECT: 2.0, ENERGY: 0.5}, 0.1, None, 0.0)
    assert float(both.detach()) == pytest.approx(
        float(2.0 * parts[0].detach() + 0.5 * parts[1].detach())
    )


def test_frames_without_an_energy_count_nothing_and_a_sum_is_compared_with_the_sum():
    label = torch.tensor([1.0, float("nan"), 3.0])
    output = torch.tensor([1.0, 5.0, 3.0], requires_grad=True)
    loss = per_atom_term(output, label, 10.0)
    loss.backward()
    assert float(loss) == 0.0
    assert torch.isfinite(output.grad).all()
    total = per_atom_term(torch.tensor([4.0]), torch.tensor([1.0, 3.0]), 10.0)
    assert float(total) == 0.0


def test_a_density_student_trains_on_virials_and_energies_too(tmp_path):
    sizes = TINY.model_dump()
    weights = {"forces": 1.0, "energy": 0.1}
    assert (
        distill(tmp_path, steps=3, architecture={**sizes, "energy": True}, loss_weights=weights)
        == 0
    )


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"energy": 1.0}, "give forces a weight above 0"),
        ({"forces": 1.0, "virial": 1.0}, "have no virials"),
        ({"forces": 1.0, "energy": 1.0}, "is not an output of this density student"),
        ({"force": 1.0}, "loss_weights.force"),
    ],
)
def test_weights_that_cannot_be(tmp_path, capsys, weights, message):
    assert distill(tmp_path, steps=1, architecture=TINY.model_dump(), loss_weights=weights) == 2
    assert message in capsys.readouterr().err


def test_loss_weights_are_those_of_the_architecture_where_none_are_given():
    assert TrainConfig(steps=1).loss_weights is None
    assert ARCHITECTURE.weights(TwoHeadsConfig()) == {DIRECT: 1.0, ENERGY: 1.0}
