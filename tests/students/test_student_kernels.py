"""The student in C equals the student in torch, and is used where a C compiler is."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from dmts_ipi.core import compiled
from dmts_ipi.students.density import cpu as student_cpu
from dmts_ipi.students.density import kernels as student_kernels
from dmts_ipi.students.density import pair_list as student_list
from dmts_ipi.students.density.cpu import CpuStudent
from dmts_ipi.students.density.model import StudentModel
from dmts_ipi.students.density.torch_path import TorchStudent
from student_tools import make_student, water_box

pytestmark = pytest.mark.skipif(
    not any(shutil.which(c) for c in ("cc", "gcc", "clang")), reason="no C compiler"
)
PBC = np.ones(3, bool)
FULLY_OPTIMISED = student_kernels.COMPILE
ORGANIC = [1, 6, 7, 8, 16]
PARTS = [
    {},
    {"normalise": False},
    {"messages": 0},
    {"near_hidden": 0},
    {"far_bessel": 0, "triple_invariants": 0},
    {"hidden": 17, "messages": 21, "invariants": 9, "head_channels": 5, "near_channels": 3},
    {"channels": 1},
    {"channels": 3, "elements": ORGANIC},
    {"channels": 2, "elements": ORGANIC, "messages": 0, "near_hidden": 0},
    {"channels": 3, "elements": ORGANIC, "far_bessel": 0, "near_hidden": 5, "hidden": 17},
]


@pytest.fixture(autouse=True)
def _quick_to_compile(monkeypatch, tmp_path_factory):
    """Less optimised, and kept for all tests of this session only."""
    flags = [f if f != "-O3" else "-O1" for f in student_kernels.COMPILE]
    monkeypatch.setattr(student_kernels, "COMPILE", tuple(flags))
    monkeypatch.setenv("DMTS_CACHE", str(tmp_path_factory.getbasetemp() / "kernels"))


def both(student, dtype="float64") -> tuple[StudentModel, StudentModel]:
    kernels = StudentModel(student, dtype=dtype, compile=True)
    return kernels, StudentModel(student, dtype=dtype, compile=False)


def assert_equal(kernels, plain, numbers, x, cell, pbc, tolerance=1e-11):
    a, b = kernels.compute(numbers, x, cell, pbc), plain.compute(numbers, x, cell, pbc)
    assert isinstance(kernels.evaluator, CpuStudent)
    assert isinstance(plain.evaluator, TorchStudent)
    size = np.abs(b.forces_eV_per_A).max() + 0.1  # alone, an atom feels nothing
    np.testing.assert_allclose(a.forces_eV_per_A, b.forces_eV_per_A, atol=tolerance * size, rtol=0)
    np.testing.assert_allclose(a.virial_eV, b.virial_eV, atol=100 * tolerance * size, rtol=0)


@pytest.mark.parametrize("parts", PARTS, ids=[",".join(p) or "all" for p in PARTS])
def test_equals_torch_for_every_part(parts):
    numbers, x, cell = water_box(1)
    kernels, plain = both(make_student(**parts))
    assert_equal(kernels, plain, numbers, x, cell, PBC)


def test_equals_torch_for_every_kind_of_structure():
    kernels, plain = both(make_student())
    numbers, x, cell = water_box(2, molecules=4, length=5.0)
    tilted = cell + np.array([[0, 0, 0], [0.7, 0, 0], [0.3, -0.5, 0]])  # under twice the reach
    assert_equal(kernels, plain, numbers, x, tilted, PBC)
    assert_equal(kernels, plain, numbers, x, cell, np.zeros(3, bool))
    assert_equal(kernels, plain, numbers, x, cell, np.array([True, True, False]))
    assert_equal(kernels, plain, numbers[:3], x[:3], cell, np.zeros(3, bool))
    assert_equal(kernels, plain, numbers[1:2], x[1:2], cell, np.zeros(3, bool))
    assert_equal(kernels, plain, numbers[1:2], x[1:2], cell / 2, PBC)  # its own images
    hydrogens = np.array([[0, 0, 0], [0, 0, 0.62]])  # within the wall
    assert_equal(kernels, plain, np.array([1, 1]), hydrogens, cell, np.zeros(3, bool))


def test_equals_torch_for_five_elements_in_three_channels():
    """Walls, elements of which some atoms have no neighbour, atoms that are alone."""
    student = make_student(1, elements=ORGANIC, channels=3)
    with torch.no_grad():
        student.inner[..., 0], student.inner[..., 1] = 0.7, 1.1
    kernels, plain = both(student)
    numbers, x, cell = water_box(3)
    numbers = np.random.default_rng(4).choice([1, 6, 7, 8], len(numbers))
    assert_equal(kernels, plain, numbers, x, cell, PBC)
    assert_equal(kernels, plain, numbers, x, cell, np.zeros(3, bool))
    assert_equal(kernels, plain, numbers[:3], x[:3] * 4, cell, np.zeros(3, bool))
    numbers[5] = 16
    assert_equal(kernels, plain, numbers, x, cell, PBC)


def test_equals_torch_along_a_path_with_a_skin_and_a_moving_cell():
    kernels, plain = both(make_student())
    numbers, x, cell = water_box(8)
    rng = np.random.default_rng(1)
    for k in range(10):
        x = x + rng.normal(scale=0.02, size=x.shape)
        assert_equal(kernels, plain, numbers, x, cell * (1 + 1e-4 * k), PBC)
    assert 1 < kernels.rebuilds < 10


def test_odd_sizes_fully_optimised_and_several_chunks_of_atoms(monkeypatch):
    """-O3 relies on alignments that odd sizes would break; species come by turns."""
    monkeypatch.setattr(student_kernels, "COMPILE", FULLY_OPTIMISED)
    monkeypatch.setattr(student_cpu, "CHUNK", 7)
    numbers, x, cell = water_box(5)
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=threads: n)
        kernels, plain = both(make_student(**PARTS[5]))
        assert_equal(kernels, plain, numbers, x, cell, PBC)
        turns = np.diff(kernels.evaluator._species) < 0
        assert turns.sum() == (len(numbers) - 1) // 7


def test_float32_is_as_close_to_float64_as_torch_is():
    numbers, x, cell = water_box(3)
    exact = StudentModel(make_student(), dtype="float64", compile=False)
    wanted = exact.compute(numbers, x, cell, PBC).forces_eV_per_A
    error = [
        np.abs(m.compute(numbers, x, cell, PBC).forces_eV_per_A - wanted).max()
        for m in both(make_student(), "float32")
    ]
    assert error[0] < 3 * error[1]
    assert error[1] < 1e-4 * np.abs(wanted).max()


def test_units_that_are_far_off_are_no_division_by_infinity(monkeypatch):
    """exp(200) is infinite in float32, and -ffast-math takes reciprocals by Newton's steps."""
    monkeypatch.setattr(student_kernels, "COMPILE", FULLY_OPTIMISED)
    student = make_student(near_hidden=48, hidden=96)
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            if name.endswith(("lift1.bias", "dense1.bias", "lift2.bias", "dense.bias")):
                parameter[::3] = -200.0
    numbers, x, cell = water_box(3)
    kernels, plain = both(student, "float32")
    assert_equal(kernels, plain, numbers, x, cell, PBC, tolerance=1e-5)


def test_threads_do_not_change_a_digit(monkeypatch):
    numbers, x, cell = water_box(4)
    results = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=threads: n)
        m = StudentModel(make_student(), dtype="float32", compile=True)
        results.append(m.compute(numbers, x, cell, PBC))
    np.testing.assert_array_equal(results[0].forces_eV_per_A, results[1].forces_eV_per_A)
    np.testing.assert_array_equal(results[0].virial_eV, results[1].virial_eV)


@pytest.mark.parametrize("why", ["no compiler", "a compiler that fails", "cutoffs"])
def test_without_kernels_torch_is_used_and_one_line_says_why(why, monkeypatch, caplog, tmp_path):
    parts = {}
    if why == "no compiler":
        compiled._compiler.cache_clear()
        monkeypatch.setattr(shutil, "which", lambda name: None)
    elif why == "a compiler that fails":
        monkeypatch.setenv("DMTS_CACHE", str(tmp_path))
        flags = (*student_kernels.COMPILE, "--no-such-option")
        monkeypatch.setattr(student_kernels, "COMPILE", flags)
    else:
        parts = {"near_cutoff_A": 3.5}
    monkeypatch.setattr(torch, "compile", lambda module, **options: module)
    numbers, x, cell = water_box(5)
    student = make_student(**parts)
    m = StudentModel(student, dtype="float64", compile=True)
    f = m.compute(numbers, x, cell, PBC).forces_eV_per_A
    assert isinstance(m.evaluator, TorchStudent)
    lines = caplog.messages
    assert len(lines) == 1
    assert lines[0].endswith("; torch.compile is used")
    plain = StudentModel(student, dtype="float64", compile=False)
    np.testing.assert_array_equal(f, plain.compute(numbers, x, cell, PBC).forces_eV_per_A)
    compiled._compiler.cache_clear()


def test_a_read_only_cache_is_no_obstacle(monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("DMTS_CACHE", str(blocked / "below"))
    numbers, x, cell = water_box(6)
    kernels, plain = both(make_student())
    assert_equal(kernels, plain, numbers, x, cell, PBC)


def test_a_compiled_library_is_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("DMTS_CACHE", str(tmp_path))
    numbers, x, cell = water_box(7)
    for _ in range(2):
        both(make_student())[0].compute(numbers, x, cell, PBC)
        assert [p.suffix for p in tmp_path.iterdir()] == [".so"]


def test_lists_are_those_of_vesin():
    """Random triclinic cells, thinner than the reach too, and no cell; every order that the
    kernels rely on."""
    lister_of = make_kernels()
    rng = np.random.default_rng(11)
    reach = 3.3, 4.8, 5.8
    for k in range(24):
        n, length = int(rng.integers(1, 25)), rng.uniform(3, 14)
        cell = np.eye(3) * length + rng.uniform(-0.2, 0.2, (3, 3)) * length
        pbc = np.ones(3, bool) if k % 2 else np.zeros(3, bool)
        x = rng.uniform(-0.2, 1.2, (n, 3)) @ cell
        box = cell if k % 2 else np.eye(3)
        found = lister_of(n).pairs(x, box, pbc, reach)
        wanted = student_list._by_vesin(x, box, pbc, reach)
        names, others = either_way(found), either_way(wanted)
        assert sorted(names) == sorted(others)
        for count in ("n_near", "n_rows"):
            m = getattr(wanted, count)
            assert getattr(found, count) == m
            assert sorted(names[:m]) == sorted(others[:m])
        ends = np.stack([found.first, found.second], axis=1)[: found.n_rows]
        owners, others = ends.reshape(-1), ends[:, ::-1].reshape(-1)
        edges = np.argsort(owners, kind="stable")
        np.testing.assert_array_equal(found.edges, np.stack([edges, others[edges]], axis=1))
        counts = np.bincount(owners, minlength=n)
        np.testing.assert_array_equal(found.row_start, [0, *np.cumsum(counts)])
        for part in (slice(0, found.n_near), slice(found.n_near, found.n_rows)):
            assert (np.diff(found.first[part]) >= 0).all()


def test_a_list_that_outgrows_its_room_is_made_again():
    lister, rng = make_kernels()(30), np.random.default_rng(3)
    yes = np.ones(3, bool)
    sizes = []
    for length in (12.0, 6.0, 9.0):
        x = rng.uniform(size=(30, 3)) * length
        pairs = lister.pairs(x, np.eye(3) * length, yes, (3.3, 4.8, 5.8))
        sizes.append((len(pairs.first), len(lister._found)))
    assert sizes[1][0] > sizes[0][1]  # it did not fit
    assert sizes[2][1] == sizes[1][1]  # and this one did: nothing new


def make_kernels():
    student = make_student()
    dtype = next(student.parameters()).dtype
    library = student_kernels.build(student_kernels.sizes_of(student, dtype))
    return lambda n: student_list.PairLister(library, n)


def either_way(pairs) -> list[tuple[int, ...]]:
    """Pairs as tuples that do not depend on which atom comes first."""
    return [
        min((int(i), int(j), *map(int, s)), (int(j), int(i), *(-int(v) for v in s)))
        for i, j, s in zip(pairs.first, pairs.second, pairs.shifts, strict=True)
    ]
