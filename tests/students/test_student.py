"""The student network: symmetries, conservation, smoothness, images, wall."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dmts_ipi.core.compiled import NotCompiled
from dmts_ipi.core.errors import InputError
from dmts_ipi.core.neighbours import neighbour_pairs
from dmts_ipi.students.density import basis
from dmts_ipi.students.density.model import StudentModel
from dmts_ipi.students.density.torch_path import MOST_SPILLS, TorchStudent
from student_tools import NUMBERS, TINY, make_student, water_box


@pytest.fixture
def _no_kernels(monkeypatch):
    """As on a machine without a C compiler."""

    def refuse(*unused):
        raise NotCompiled("no compiler")

    monkeypatch.setattr("dmts_ipi.students.density.model.CpuStudent", refuse)


def model(**options) -> StudentModel:
    options = {"dtype": "float64", "compile": False, **options}
    return StudentModel(make_student(), **options)


def forces(m: StudentModel, numbers, x, cell=None, pbc=False) -> np.ndarray:
    box = np.zeros((3, 3)) if cell is None else cell
    return m.compute(numbers, x, box, np.broadcast_to(pbc, 3)).forces_eV_per_A


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q *= np.sign(np.diag(r))
    return q  # improper ones included: forces are vectors under reflection too


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("parts", [{}, {"normalise": False}, {"messages": 0}, {"near_hidden": 0}])
def test_rotates_with_the_structure(seed, parts):
    numbers, x, cell = water_box(seed)
    turn = random_rotation(np.random.default_rng(seed))
    m = StudentModel(make_student(**parts), dtype="float64", compile=False)
    one = m.compute(numbers, x, cell, np.ones(3, bool))
    two = m.compute(numbers, x @ turn, cell @ turn, np.ones(3, bool))
    np.testing.assert_allclose(two.forces_eV_per_A, one.forces_eV_per_A @ turn, atol=1e-10)
    np.testing.assert_allclose(two.virial_eV, turn.T @ one.virial_eV @ turn, atol=1e-9)


def test_permutes_and_translates():
    numbers, x, cell = water_box(3)
    order = np.random.default_rng(5).permutation(len(x))
    m = model()
    f = forces(m, numbers, x, cell, True)
    shuffled = forces(m, numbers[order], x[order], cell, True)
    np.testing.assert_allclose(shuffled, f[order], atol=1e-10)
    moved = x + np.array([3.3, -40.0, 0.2]) + np.eye(3)[np.arange(len(x)) % 3] @ cell
    np.testing.assert_allclose(forces(m, numbers, moved, cell, True), f, atol=1e-9)


def test_forces_of_each_connected_component_sum_to_zero():
    numbers, x, _ = water_box(4)
    far = np.concatenate([x, x[:6] + 60.0])
    f = forces(model(), np.concatenate([numbers, numbers[:6]]), far)
    assert np.abs(f).max() > 0.1
    np.testing.assert_allclose(f[: len(x)].sum(0), 0, atol=1e-10)
    np.testing.assert_allclose(f[len(x) :].sum(0), 0, atol=1e-10)


def test_virial_of_a_cluster_is_sum_of_x_f():
    numbers, x, _ = water_box(6)
    r = model().compute(numbers, x, np.zeros((3, 3)), np.zeros(3, bool))
    expected = np.einsum("na,nb->ab", x, r.forces_eV_per_A)
    np.testing.assert_allclose(r.virial_eV, 0.5 * (expected + expected.T), atol=1e-9)


@pytest.mark.parametrize("reach", ["cutoff_A", "near_cutoff_A", "far_cutoff_A"])
def test_second_derivative_is_continuous_at_each_cutoff(reach):
    """Along a pair through the cutoff, the second difference of the force has no jump."""
    m = model()
    edge = getattr(TINY, reach)
    numbers = np.array([8, 1, 1, 8])
    x = np.array([[0, 0, 0], [0.9, 0.3, 0], [-0.3, 0.9, 0.1], [0, 0, edge]])

    def at(d: float) -> np.ndarray:
        y = x.copy()
        y[3, 2] += d
        return forces(m, numbers, y)

    h = 1e-3
    path = np.array([at(h * k) for k in range(-8, 9)])
    second = (path[2:] - 2 * path[1:-1] + path[:-2]) / h**2
    curvature = np.abs(second).max()
    jump = np.abs(np.diff(second, axis=0)).max()
    # A kink in the slope gives second ~ 1/h; a jump of the second derivative a finite jump.
    assert jump < 0.15 * max(curvature, 1.0)


def test_basis_derivatives():
    r = torch.linspace(0.5, 4.6, 300, dtype=torch.float64, requires_grad=True)
    centres = torch.linspace(0.75, 2.1, 5, dtype=torch.float64)
    for value, slope in (
        basis.bessel(r, r * r, 4.5, 6),
        basis.gaussians(r, r * r, 4.5, centres, 0.2),
    ):
        for n in range(value.shape[1]):
            (exact,) = torch.autograd.grad(value[:, n].sum(), r, retain_graph=True)
            torch.testing.assert_close(slope[:, n], exact)


def test_zbl_force_is_minus_the_slope_of_its_energy():
    r = torch.linspace(0.3, 2.0, 50, dtype=torch.float64, requires_grad=True)
    zz, length = torch.tensor(64.0), torch.tensor(basis.zbl_length(8, 8))
    x = r / length
    phi = sum(c * torch.exp(-b * x) for c, b in zip(basis.ZBL_C, basis.ZBL_B, strict=True))
    (slope,) = torch.autograd.grad((basis.COULOMB_EV_A * zz / r * phi).sum(), r)
    torch.testing.assert_close(basis.zbl_force(r, zz, length), -slope)


def test_tensor_algebra_agrees_with_matrices():
    rng = np.random.default_rng(0)
    u, p, q = torch.tensor(rng.normal(size=(3, 7, 3)))
    u = u / u.norm(dim=-1, keepdim=True)
    t = torch.tensor(rng.normal(size=(7, 5)))
    y = basis.harmonics(u)
    torch.testing.assert_close(
        (basis.tensor_times_vector(t, u) * u).sum(-1), (t * y[:, 4:]).sum(-1)
    )
    torch.testing.assert_close(basis.vectors_to_tensor(u, u), y[:, 4:])
    pq = basis.vectors_to_tensor(p, q)
    turned = (pq * basis.vectors_to_tensor(u, u)).sum(-1)
    exact = 1.5 * (p * u).sum(-1) * (q * u).sum(-1) - 0.5 * (p * q).sum(-1)
    torch.testing.assert_close(turned, exact)


@pytest.mark.parametrize("pair", [(1, 1), (1, 8), (8, 8)])
def test_short_pairs_repel_whatever_was_learned(pair):
    student = make_student()
    with torch.no_grad():  # a base that pulls as hard as it can
        student.base.fill_(50.0)
        student.inner[..., 0], student.inner[..., 1] = 0.7, 0.9
    m = StudentModel(student, dtype="float64", compile=False)
    last = np.inf
    for d in np.linspace(0.31, 0.7, 6):
        f = forces(m, np.array(pair), np.array([[0, 0, 0], [0, 0, d]]))
        push = f[1, 2]
        assert push > 1.0
        assert push < last  # the closer, the stronger
        np.testing.assert_allclose(f.sum(0), 0, atol=1e-12)
        last = push


def test_small_box_equals_its_supercell():
    numbers, x, cell = water_box(7, molecules=4, length=5.0)
    cell = cell + np.array([[0, 0, 0], [0.7, 0, 0], [0.3, -0.5, 0]])
    assert cell[0, 0] < 2 * TINY.reach_A
    m = model()
    one = m.compute(numbers, x, cell, np.ones(3, bool))
    parts = [x + np.array(s) @ cell for s in np.ndindex(2, 2, 2)]
    big = m.compute(np.tile(numbers, 8), np.concatenate(parts), 2 * cell, np.ones(3, bool))
    np.testing.assert_allclose(big.forces_eV_per_A, np.tile(one.forces_eV_per_A, (8, 1)), atol=1e-9)
    np.testing.assert_allclose(big.virial_eV, 8 * one.virial_eV, atol=1e-8)


def test_list_with_a_skin_gives_what_a_fresh_list_gives():
    numbers, x, cell = water_box(8)
    rng = np.random.default_rng(1)
    m = model()
    for k in range(12):
        x = x + rng.normal(scale=0.02, size=x.shape)
        box = cell * (1.0 + 1e-4 * k)
        kept = m.compute(numbers, x, box, np.ones(3, bool))
        fresh = model().compute(numbers, x, box, np.ones(3, bool))
        np.testing.assert_allclose(kept.forces_eV_per_A, fresh.forces_eV_per_A, atol=1e-10)
        np.testing.assert_allclose(kept.virial_eV, fresh.virial_eV, atol=1e-9)
    assert 1 < m.rebuilds < 12


def test_float32_traced_whole_agrees_with_float64_eager():
    """One graph without breaks, the one that is compiled; no C++ compiler needed."""
    numbers, x, cell = water_box(9)
    pbc = np.ones(3, bool)
    exact = model().compute(numbers, x, cell, pbc)
    traced = StudentModel(make_student(), compile=False)
    traced.compute(numbers, x, cell, pbc)
    assert isinstance(traced.evaluator, TorchStudent)
    run = torch.compile(traced.student, backend="aot_eager", dynamic=False, fullgraph=True)
    traced.evaluator._run = run
    quick = traced.compute(numbers, x, cell, pbc)
    size = np.abs(exact.forces_eV_per_A).max()
    np.testing.assert_allclose(quick.forces_eV_per_A, exact.forces_eV_per_A, atol=2e-5 * size)


@pytest.mark.slow
@pytest.mark.usefixtures("_no_kernels")
def test_float32_and_compiled_agree_with_float64_eager():
    numbers, x, cell = water_box(9)
    pbc = np.ones(3, bool)
    exact = model().compute(numbers, x, cell, pbc)
    quick = StudentModel(make_student(), compile=True).compute(numbers, x, cell, pbc)
    size = np.abs(exact.forces_eV_per_A).max()
    np.testing.assert_allclose(quick.forces_eV_per_A, exact.forces_eV_per_A, atol=2e-5 * size)
    np.testing.assert_allclose(quick.virial_eV, exact.virial_eV, atol=1e-3)


def test_padding_does_not_change_the_result():
    numbers, x, cell = water_box(10)
    tight, loose = model(), model()
    f = forces(tight, numbers, x, cell, True)
    dense = 0.9 * x
    forces(loose, numbers, dense, 0.9 * cell, True)  # more neighbours: wider rows are kept
    assert isinstance(loose.evaluator, TorchStudent)
    wide = loose.evaluator.layout
    again = forces(loose, numbers, x, cell, True)
    assert loose.evaluator.layout == wide
    np.testing.assert_allclose(again, f, atol=1e-10)


@pytest.mark.usefixtures("_no_kernels")
def test_lists_that_outgrow_the_compiled_layout_run_uncompiled_at_first(monkeypatch):
    numbers, x, cell = water_box(10)
    pbc = np.ones(3, bool)
    compiled_for = []

    def compiled(self):
        def run(x, cell, graph, layout):
            compiled_for.append(layout)
            return self.student(x, cell, graph, layout)

        return run

    monkeypatch.setattr(TorchStudent, "_compile", compiled)
    m = StudentModel(make_student(), dtype="float64", compile=True)
    for k in range(2 * MOST_SPILLS):  # a box that pulses: every second list is a dense one
        scale = (1.0, 0.88)[k % 2]
        before = len(compiled_for)
        spills = m.evaluator.spills if m.evaluator else 0
        f = forces(m, numbers, scale * x, scale * cell, True)
        np.testing.assert_allclose(f, forces(model(), numbers, scale * x, scale * cell, True))
        ran_uncompiled = len(compiled_for) == before
        assert ran_uncompiled == (k % 2 == 1 and k < 2 * MOST_SPILLS - 1)
        assert m.evaluator.spills - spills == k % 2
    assert len(set(compiled_for)) == 2
    before = len(compiled_for)  # both fit into the larger layout from now on
    forces(m, numbers, x, cell, True)
    forces(m, numbers, 0.88 * x, 0.88 * cell, True)
    assert len(compiled_for) == before + 2
    assert len(set(compiled_for)) == 2
    m.compute(numbers[:3], x[:3], cell, pbc)  # other atoms: another layout at once
    assert len(set(compiled_for)) == 3


@pytest.mark.usefixtures("_no_kernels")
def test_no_compiler_means_eager_and_one_line(monkeypatch, caplog):
    numbers, x, cell = water_box(11)

    def broken(*args, **kwargs):
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", lambda *a, **k: broken)
    m = StudentModel(make_student(), compile=True)
    m.compute(numbers, x, cell, np.ones(3, bool))
    m.compute(numbers, x, cell, np.ones(3, bool))
    lines = caplog.messages
    assert len(lines) == 2
    assert lines[0].endswith("note: no compiler; torch.compile is used")
    assert "uncompiled" in lines[1]


def test_wrong_structures_are_refused():
    m = model()
    numbers, x, cell = water_box(12)
    bad = x.copy()
    bad[2, 1] = np.nan
    with pytest.raises(InputError, match="atom 2"):
        forces(m, numbers, bad, cell, True)
    with pytest.raises(InputError, match="Na"):
        forces(m, np.where(numbers == 8, 11, numbers), x, cell, True)


def test_one_atom_and_none():
    m = model()
    np.testing.assert_array_equal(forces(m, np.array([8]), np.zeros((1, 3))), 0.0)
    assert forces(m, np.zeros(0, int), np.zeros((0, 3))).shape == (0, 3)


def test_edges_are_those_of_the_neighbour_list():
    """Forces vanish between atoms beyond the reach and not within it."""
    m = model()
    reach = TINY.reach_A
    for d, expected in ((reach + 1e-3, False), (reach - 0.5, True)):
        x = np.array([[0, 0, 0], [0, 0, d]])
        f = forces(m, NUMBERS, x)
        assert len(neighbour_pairs(x, np.eye(3), False, reach, full=False).i) == expected
        assert bool(np.abs(f).max() > 0) == expected


def test_help_needs_no_torch():
    import subprocess
    import sys

    code = (
        "import sys; from dmts_ipi.cli import main\n"
        "try: main(['distill', '--help'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=250)
    assert done.returncode == 0, done.stderr
    assert Path(sys.executable).exists()


def test_forces_stay_bounded_far_from_the_training_frames():
    """No polynomial of the features runs away when a geometry is outside their usual range."""
    m = model()
    numbers, x, cell = water_box(13)
    usual = np.abs(forces(m, numbers, x, cell, True)).max()
    rng = np.random.default_rng(0)
    for size in (0.1, 0.2, 0.4):
        moved = x + rng.normal(scale=size, size=x.shape)
        assert np.abs(forces(m, numbers, moved, cell, True)).max() < 30 * usual
