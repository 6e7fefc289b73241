"""Kinds of models: one row each, other packages add theirs, and what tells two models apart."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.model import ForceResult
from dmts_ipi.models.load import absolute_spec, load_model, parse_spec, read_record
from dmts_ipi.models.registry import (
    LoadOptions,
    ModelKind,
    how_to_name,
    model_kinds,
    same_identity,
    table_of_specs,
)


class Harmonic:
    """Every atom on a spring to the origin."""

    conservative, elements, cutoff_A = True, None, None

    def __init__(self, name: str, k_eV_per_A2: float) -> None:
        self.name, self.identity, self.k = name, "", k_eV_per_A2

    def compute(self, numbers, positions, cell, pbc) -> ForceResult:
        x = np.asarray(positions, float)
        return ForceResult(0.5 * self.k * float((x**2).sum()), -self.k * x, None)


def load(target: str, keywords: dict, options: LoadOptions) -> Harmonic:
    return Harmonic(target, float(keywords.get("k", 1.0)))


KIND = ModelKind("harmonic", "harmonic:NAME", "springs to the origin", load, target_is_path=False)


@pytest.fixture
def harmonic(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(model_kinds, "_own", {**model_kinds._own})
    model_kinds.add("harmonic", KIND)


@pytest.mark.usefixtures("harmonic")
def test_a_kind_from_outside_is_loaded_recorded_and_named_in_help() -> None:
    spec = 'harmonic:well {"k": 2.0, "verbosity": 1}'
    model = load_model(spec, device="auto")
    found = model.compute(np.array([1]), np.ones((1, 3)), np.eye(3), np.zeros(3, bool))
    assert found.forces_eV_per_A.tolist() == [[-2.0, -2.0, -2.0]]
    record = read_record(spec)
    assert record["format"] == "harmonic"
    assert model.identity == record["identity"] == 'harmonic:well{"k": 2.0}'
    assert "harmonic:NAME" in table_of_specs()
    assert "harmonic:NAME" in how_to_name()
    assert absolute_spec(spec) == spec


def test_a_prefix_that_no_package_brings_is_no_kind() -> None:
    with pytest.raises(InputError, match="does not exist"):
        parse_spec("harmonic:well")


def test_identity_has_the_keywords_that_change_forces(tmp_path: Path) -> None:
    path = tmp_path / "a.model"
    path.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    pbe, omol = (read_record(f'mace:{path} {{"head": "{h}"}}')["identity"] for h in ("pbe", "omol"))
    assert read_record(str(path))["identity"] == digest
    assert pbe == digest + '{"head": "pbe"}' != omol
    exported = tmp_path / "a.pt"
    exported.write_bytes(b"weights")
    plain, neutral, direct = (
        read_record(f"metatomic:{exported} {json.dumps(k)}")["identity"]
        for k in ({}, {"extensions_directory": "x"}, {"non_conservative": True})
    )
    assert plain == neutral == digest
    assert direct == digest + '{"non_conservative": true}'


def test_neutral_keywords_make_no_other_model() -> None:
    quiet, loud, other = (
        'ase:tblite.ase.TBLite{"method": "GFN2-xTB", "verbosity": 0}',
        'ase:tblite.ase.TBLite{"method": "GFN2-xTB"}',
        'ase:tblite.ase.TBLite{"method": "GFN1-xTB"}',
    )
    assert read_record(quiet)["identity"] == read_record(loud)["identity"] == loud
    assert same_identity(quiet, loud)  # students of before name all keywords
    assert not same_identity(loud, other)
    assert same_identity("abc", "abc")
    assert not same_identity("abc", "abd")


def test_absolute_spec_counts_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.model").write_bytes(b"weights")
    full = f'mace:{tmp_path / "a.model"} {{"head": "pbe"}}'
    assert absolute_spec('mace:a.model {"head": "pbe"}', tmp_path) == full
    assert absolute_spec("a.model", tmp_path) == f"mace:{tmp_path / 'a.model'}"
    assert absolute_spec("mace:medium-mpa-0", tmp_path) == "mace:medium-mpa-0"
    assert absolute_spec("water-student", tmp_path) == "water-student"


def test_what_a_calculator_prints_leaves_standard_output_clean(capsys) -> None:
    model = load_model("ase:toy_water.PrintingWater")
    from toy_water import toy_box

    box = toy_box()
    model.compute(box.numbers, box.positions, box.cell.array, box.pbc)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "SCF" in printed.err
