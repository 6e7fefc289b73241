"""Kernels that come with a wheel: used where there is no compiler, and said so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import dmts_ipi
from dmts_ipi.core import compiled
from dmts_ipi.core.compiled import NotCompiled
from dmts_ipi.students.density import kernels
from dmts_ipi.students.density.architecture import NEW_STUDENT
from dmts_ipi.students.density.cpu import CpuStudent
from dmts_ipi.students.density.energy import new_student
from dmts_ipi.students.density.model import StudentModel
from dmts_ipi.students.files import read_student
from student_tools import make_student, water_box


def test_a_wheel_holds_the_shipped_student_and_the_sizes_that_distill_trains_by_default():
    wanted = json.loads((kernels.HERE / "prebuilt.json").read_text())
    assert wanted["units"] == [u.name for u in kernels.UNITS]
    assert wanted["headers"] == [kernels.HEADER.name]
    shipped, _ = read_student(Path(dmts_ipi.__file__).parent / "pretrained/water-student")
    students = [new_student(NEW_STUDENT, list(range(1, n + 1))) for n in range(1, 6)]
    assert wanted["flags"] == [
        kernels.flags_of(kernels.sizes_of(student, torch.float32)) for student in students
    ]
    assert kernels.flags_of(kernels.sizes_of(shipped, torch.float32)) in wanted["flags"]


@pytest.fixture
def no_compiler(monkeypatch, tmp_path):
    def none():
        raise NotCompiled("no C compiler was found")

    monkeypatch.setattr(compiled, "PREBUILT", tmp_path)
    return lambda: monkeypatch.setattr(compiled, "_compiler", none)


def test_the_library_of_the_wheel_is_used_where_there_is_no_compiler(no_compiler, tmp_path, caplog):
    student = make_student()
    flags = kernels.flags_of(kernels.sizes_of(student, torch.float32))
    compiled.build_portable(tmp_path, "student", kernels.UNITS, flags, [kernels.HEADER])
    numbers, x, cell = water_box(3)
    native = StudentModel(student).compute(numbers, x, cell, np.ones(3, bool))
    no_compiler()
    model = StudentModel(student)
    found = model.compute(numbers, x, cell, np.ones(3, bool))
    assert isinstance(model.evaluator, CpuStudent)
    np.testing.assert_allclose(found.forces_eV_per_A, native.forces_eV_per_A, atol=1e-4, rtol=1e-4)
    assert caplog.messages == [
        "student: note: no C compiler was found; the library of the wheel is used"
    ]


def test_a_library_for_other_processors_is_not_loaded(no_compiler, tmp_path, monkeypatch):
    student = make_student()
    flags = kernels.flags_of(kernels.sizes_of(student, torch.float32))
    compiled.build_portable(tmp_path, "student", kernels.UNITS, flags, [kernels.HEADER])
    no_compiler()
    monkeypatch.setattr(compiled, "_machine", lambda: "flags : fpu sse2")
    monkeypatch.setattr(compiled.platform, "machine", lambda: "x86_64")
    with pytest.raises(NotCompiled, match="no C compiler"):
        compiled.library("student", kernels.UNITS, flags, [kernels.HEADER])
