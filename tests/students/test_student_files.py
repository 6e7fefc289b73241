"""The student's files: round trip, and every way in which they can be wrong."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.model import ForceModel
from dmts_ipi.students.density.model import StudentModel
from dmts_ipi.students.files import load_student, save_student
from student_tools import make_student, water_box


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "student"
    save_student(
        path,
        make_student(),
        teacher={"name": "toy", "identity": "abc"},
        training_data_sha256="0" * 64,
        errors={"force_mae_eV_per_A": 0.01},
    )
    return path


def test_round_trip_gives_the_same_forces(folder):
    numbers, x, cell = water_box()
    stored = load_student(folder, compile=False)
    made = StudentModel(make_student(), compile=False)
    pbc = np.ones(3, bool)
    np.testing.assert_array_equal(
        stored.compute(numbers, x, cell, pbc).forces_eV_per_A,
        made.compute(numbers, x, cell, pbc).forces_eV_per_A,
    )
    assert isinstance(stored, ForceModel)
    assert stored.identity == json.loads((folder / "model.json").read_text())["weights_sha256"]
    assert stored.elements == frozenset({1, 8})


def refuses(folder, match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        load_student(folder)
    assert "\n" not in str(caught.value)


def test_truncated_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refuses(folder, "truncated")


def test_pickle(folder):
    (folder / "model.safetensors").write_bytes(pickle.dumps({"weights": 1}))
    refuses(folder, "pickle")


def test_missing_weights(folder):
    (folder / "model.safetensors").unlink()
    refuses(folder, "missing")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 99}, "newer"),
        ({"version": "1"}, "newer"),
        ({"format": "other"}, "format"),
        ({"architecture": {"cutoff_A": -1}}, "cutoff_A"),
        ({"architecture": {"colour": 1}}, "colour"),
        ({"architecture": {"hidden": 16}}, "does not fit"),
    ],
)
def test_wrong_records(folder, change, message):
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    refuses(folder, message)


def test_missing_field_and_no_json(folder):
    path = folder / "model.json"
    record = json.loads(path.read_text())
    del record["elements"]
    path.write_text(json.dumps(record))
    refuses(folder, "'elements' is missing")
    path.write_text("{")
    refuses(folder, "is not JSON")
    path.unlink()
    refuses(folder, "has no model.json")


def test_wrong_dtype_and_device(folder):
    with pytest.raises(InputError, match="float16"):
        load_student(folder, dtype="float16")
    with pytest.raises(InputError, match="device"):
        load_student(folder, device="nowhere")
