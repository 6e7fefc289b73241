"""The labels of small molecules: what is held out, what is written, and that a kill costs nothing.

The teacher is a toy: every bond of a water is a spring.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from dmts_ipi.core.errors import ModelFault
from dmts_ipi.core.frames import Frame, read_frames, write_frames
from dmts_ipi.core.label_files import read_labels
from dmts_ipi.core.model import ForceResult
from dmts_ipi.core.molecules import bonds
from dmts_ipi.learning.labelling.provenance import teacher_in
from dmts_ipi.models.ase import AseTeacher
from places import ROOT
from toy_water import ToyWater, toy_box

AMINO_ACIDS = (
    *("ala", "arg", "asn", "asp", "cys", "gln", "glu", "gly", "hie", "ile"),
    *("leu", "lys", "met", "phe", "pro", "ser", "thr", "trp", "tyr", "val"),
)


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    file = ROOT / "run_scripts" / "recipes" / "organic_labels.py"
    spec = importlib.util.spec_from_file_location("organic_labels", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["organic_labels"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def everything(recipe: ModuleType) -> list[Any]:
    return recipe.read_list()


def toy(**keywords: Any) -> AseTeacher:
    return AseTeacher(ToyWater(**keywords), "toy", "toy 1")


def some(recipe: ModuleType) -> list[Any]:
    """Water, a cluster of two, and others that the toy takes for water, one of them held out."""
    held = next(n for n in map(str, range(100)) if recipe.is_held_out(_one(recipe, n)))
    names = [n for n in map(str, range(100)) if not recipe.is_held_out(_one(recipe, n))][:2]
    cluster = recipe.Molecule("pair", "toy", "O.O", ("water", "water"))
    return [_one(recipe, "water"), cluster, *(_one(recipe, n) for n in [held, *names])]


def _one(recipe: ModuleType, name: str) -> Any:
    return recipe.Molecule(name, "toy", "O", (name,))


def builder(recipe: ModuleType) -> Any:
    def build(smiles: str, seed: int) -> Frame:
        rng = np.random.default_rng(seed)
        water = toy_box(1, periodic=False)
        parts = [water.positions + rng.normal(0, 0.02, (3, 3)) for _ in smiles.split(".")]
        numbers = np.tile(water.numbers, len(parts))
        return Frame(numbers, recipe.pack(parts, rng), charge=1.0)

    return build


def label(recipe: ModuleType, out: Path, **keywords: Any) -> list[str]:
    lines: list[str] = []
    options = {"build": builder(recipe), "report": lines.append, **keywords}
    recipe.run(options.pop("model", None) or toy(), some(recipe), out, **options)
    return lines


def test_list_covers_what_it_says(everything: list[Any]) -> None:
    assert len(everything) > 1200
    assert len({m.name for m in everything}) == len(everything)
    kinds = {m.kind for m in everything}
    assert {"cations", "anions", "capped amino acids", "dimers", "hydrates"} <= kinds
    elements = set(re.findall(r"Cl|Br|[A-Zcnos]", "".join(m.smiles for m in everything)))
    assert {e.upper() for e in elements} == {"H", "C", "N", "O", "F", "S", "CL", "P"}
    names = {m.name for m in everything if m.kind == "capped amino acids"}
    assert names >= {f"ace-{amino_acid}-nme" for amino_acid in AMINO_ACIDS}


def test_a_tenth_is_held_out_and_alanine_dipeptide_is(
    recipe: ModuleType, everything: list[Any]
) -> None:
    held = {m.name for m in everything if recipe.is_held_out(m)}
    assert 0.07 < len(held) / len(everything) < 0.14
    assert "ace-ala-nme" in held
    assert not held & {m.name for m in everything if m.kind == "water clusters"}
    for m in everything:  # no part of a cluster that is trained on is held out
        assert (m.name in held) == any(part in held for part in m.parts)
    assert not any("ace-ala-nme" in m.parts for m in everything if m.name not in held)


def test_names_survive_the_file(everything: list[Any], tmp_path: Path) -> None:
    water = toy_box(1, periodic=False)
    names = [m.name for m in everything]
    frames = [Frame(water.numbers, water.positions, info={"molecule": name}) for name in names]
    write_frames(tmp_path / "names.extxyz", frames)
    assert [f.info["molecule"] for f in read_frames(tmp_path / "names.extxyz")] == names


def test_order_is_kept_when_the_list_grows(recipe: ModuleType, everything: list[Any]) -> None:
    order = recipe.in_random_order(everything, 1)
    assert order != everything
    assert recipe.in_random_order(everything[::2], 1) == [m for m in order if m in everything[::2]]
    assert recipe.in_random_order(everything, 2) != order


def test_frames_carry_all_that_distill_asks_for(recipe: ModuleType, tmp_path: Path) -> None:
    lines = label(recipe, tmp_path)
    assert lines[-1] == "every molecule is labelled"
    files = [(p, read_labels(p)) for p in (tmp_path / "train.extxyz", tmp_path / "held_out.extxyz")]
    teacher = teacher_in(files)
    assert teacher is not None
    assert teacher.identity == "toy 1"
    train, held_out = (frames for _, frames in files)
    names = {f.info["molecule"] for f in train}
    assert len(names) == 4
    assert "pair" in names
    assert len({f.info["molecule"] for f in held_out}) == 1
    frames = [f for f in train if f.info["molecule"] == "pair"]
    sources = [f.source for f in frames]
    assert sources.count("run 300 K") == 5
    assert sources.count("run 500 K") == 6
    for source in ("relaxed", "rattled 0.12 A", "molecules x 0.9", "a bond x 0.86-1.25"):
        assert source in sources
    for f in frames:
        assert f.charge == 1.0
        assert np.linalg.norm(f.forces, axis=1).max() <= recipe.FORCE_LIMIT_EV_PER_A
        result = toy().compute(*f.model_input)
        np.testing.assert_allclose(f.forces, result.forces_eV_per_A, atol=1e-5)


@pytest.mark.parametrize("after", [0, 2])
def test_a_killed_run_goes_on(recipe: ModuleType, tmp_path: Path, after: int) -> None:
    label(recipe, tmp_path / "unbroken")

    def killed(line: str) -> None:
        if line.startswith(f"{after + 1}/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        label(recipe, tmp_path / "killed", report=killed)
    with open(tmp_path / "killed" / "train.extxyz", "a") as stream:
        stream.write("3\nhalf a frame")  # what a kill leaves while it writes
    lines = label(recipe, tmp_path / "killed")
    assert len(lines) == 5 - (after + 1) + 1
    for name in ("train.extxyz", "held_out.extxyz"):
        texts = [(tmp_path / f / name).read_text() for f in ("killed", "unbroken")]
        assert texts[0] == texts[1]


def test_second_round_adds_other_frames(recipe: ModuleType, tmp_path: Path) -> None:
    label(recipe, tmp_path)
    first = read_frames(tmp_path / "train.extxyz")
    label(recipe, tmp_path, rounds=2)
    both = read_frames(tmp_path / "train.extxyz")
    assert len(both) == 2 * len(first)
    positions = {f.positions.tobytes() for f in both}
    assert len(positions) == len(both)


def test_no_time_left_begins_nothing(recipe: ModuleType, tmp_path: Path) -> None:
    lines = label(recipe, tmp_path, minutes=0.0)
    assert lines == ["stopped after 0 minutes; the same command goes on"]
    assert (tmp_path / "train.extxyz").read_text() == ""


def test_a_molecule_that_fails_stops_no_other(recipe: ModuleType, tmp_path: Path) -> None:
    build = builder(recipe)

    def fails_once(smiles: str, seed: int) -> Frame:
        if smiles == "O.O":
            raise ModelFault("no conformation found")
        return build(smiles, seed)

    lines = label(recipe, tmp_path, build=fails_once)
    assert [line for line in lines if "skipped: no conformation found" in line and "pair" in line]
    assert len({f.info["molecule"] for f in read_frames(tmp_path / "train.extxyz")}) == 3


def test_bad_frames_are_dropped(recipe: ModuleType) -> None:
    class Steep:
        name = identity = "steep"
        elements, cutoff_A, conservative = None, None, True

        def compute(self, numbers: np.ndarray, positions: np.ndarray, *_: Any) -> ForceResult:
            if positions[0, 0] > 2:
                raise ModelFault("no convergence")
            force = 39.0 if positions[0, 0] < 1 else 41.0
            return ForceResult(0.0, np.tile([force, 0, 0], (len(numbers), 1)), None)

    def at(x: float, distance: float = 1.0) -> Frame | None:
        return recipe.label(
            Steep(), Frame(np.array([8, 1]), np.array([[x, 0, 0], [x, distance, 0]]))
        )

    assert at(0.0) is not None
    assert at(1.5) is None  # a large force
    assert at(2.5) is None  # the teacher fails
    assert at(0.0, distance=0.4) is None  # atoms on top of each other


def test_stretching_moves_the_lighter_side(recipe: ModuleType) -> None:
    from ase.build import molecule

    atoms = molecule("CH3CH2OH")
    frame = Frame(atoms.numbers, atoms.positions)
    pairs, _ = bonds(*frame.model_input)
    lengths = np.linalg.norm(atoms.positions[pairs[:, 0]] - atoms.positions[pairs[:, 1]], axis=1)
    rng = np.random.default_rng(0)
    for _ in range(20):
        x = recipe.stretch_any_bond(frame, rng).positions
        after = np.linalg.norm(x[pairs[:, 0]] - x[pairs[:, 1]], axis=1)
        changed = np.flatnonzero(abs(after - lengths) > 1e-9)
        assert len(changed) == 1  # no ring: all other bonds keep their lengths
        assert 0.86 <= after[changed[0]] / lengths[changed[0]] <= 1.25
        assert (abs(x - atoms.positions).max(axis=1) > 1e-9).sum() <= len(atoms) / 2


def test_molecules_of_a_cluster_move_as_they_are(recipe: ModuleType) -> None:
    frame = builder(recipe)("O.O.O", 1)
    moved = recipe.move_molecules(frame, 1.2)
    a, b = (x.positions.reshape(3, 3, 3) for x in (frame, moved))
    np.testing.assert_allclose(a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True))
    distance = np.linalg.norm(np.diff(a.mean(1), axis=0), axis=1)
    np.testing.assert_allclose(np.linalg.norm(np.diff(b.mean(1), axis=0), axis=1), 1.2 * distance)
    gaps = np.linalg.norm(a[0][:, None] - a[1][None], axis=2)
    assert gaps.min() >= recipe.CONTACT_A


def test_conformations_have_the_charge_of_the_molecule(
    recipe: ModuleType, everything: list[Any]
) -> None:
    pytest.importorskip("rdkit", reason="rdkit is not installed")
    by_name = {m.name: m for m in everything}
    for name, charge, n in (("hydronium", 1, 4), ("guanidinium+acetate", 0, 17), ("water-2", 0, 6)):
        frame = recipe.build(by_name[name].smiles, 5)
        assert (frame.charge, len(frame.numbers)) == (charge, n)


def test_gfn2_labels_an_ion(recipe: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("tblite", reason="tblite is not installed")
    from ase.build import molecule

    from dmts_ipi.models.load import load_model

    atoms = molecule("NH3")
    x = np.concatenate([atoms.positions, [[0.0, 0.0, atoms.positions[0, 2] + 1.02]]])
    ammonium = Frame(np.append(atoms.numbers, 1), x, charge=1.0)
    todo = [recipe.Molecule("ammonium", "cations", "[NH4+]", ("water",))]
    teacher = load_model(recipe.TEACHER)
    recipe.run(
        teacher, todo, tmp_path, build=lambda smiles, seed: ammonium, report=lambda line: None
    )
    frames = read_labels(tmp_path / "train.extxyz")
    assert len(frames) > 18
    assert {f.charge for f in frames} == {1.0}
    assert np.linalg.norm(frames[0].forces, axis=1).max() < 0.11  # the one that is relaxed
