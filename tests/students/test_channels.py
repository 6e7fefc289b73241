"""A student that mixes the densities of elements in few channels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dmts_ipi.students.density.model import StudentModel
from dmts_ipi.students.density.network import start_of_channels
from numpy_student import NumpyStudent
from student_tools import TINY, make_student

ORGANIC = [1, 6, 7, 8, 16]


def cluster(seed: int, atoms: int = 14) -> tuple[np.ndarray, np.ndarray]:
    """Atoms of five elements at random places, 0.9 A apart or more."""
    rng = np.random.default_rng(seed)
    x: list[np.ndarray] = []
    while len(x) < atoms:
        new = rng.uniform(0, 4.2, 3)
        if all(np.linalg.norm(new - old) > 0.9 for old in x):
            x.append(new)
    return rng.choice(ORGANIC, atoms), np.array(x)


def plain(student) -> StudentModel:
    return StudentModel(student, dtype="float64", compile=False)


@pytest.mark.parametrize(("elements", "channels"), [(ORGANIC, 3), (ORGANIC, 1), ([1, 8], 1)])
def test_forces_are_those_of_the_equations(elements, channels):
    student = make_student(3, elements=elements, channels=channels)
    with torch.no_grad():  # walls that some of these pairs reach
        student.inner[..., 0], student.inner[..., 1] = 0.7, 1.2
    numbers, x = cluster(1)
    numbers = np.where(np.isin(numbers, elements), numbers, 8)
    found = plain(student).compute(numbers, x, np.zeros((3, 3)), np.zeros(3, bool))
    wanted = NumpyStudent(student.double()).forces(numbers, x)
    assert np.abs(wanted).max() > 1
    np.testing.assert_allclose(found.forces_eV_per_A, wanted, atol=1e-9 * np.abs(wanted).max())


def test_hydrogen_has_a_channel_and_signs_tell_heavy_elements_apart():
    w = start_of_channels([1, 6, 7, 8, 9], 3).numpy()
    np.testing.assert_array_equal(w[:, 0], [1, 0, 0, 0, 0])
    assert (np.abs(w[1:, 1:]) == 1).all()
    assert len({tuple(row) for row in w}) == 5
    assert np.abs(start_of_channels([3, 11, 13, 17], 3).numpy()).min() == 1


def test_with_no_more_elements_than_channels_there_is_a_block_for_each_element():
    numbers, x = cluster(5)
    numbers = np.where(numbers == 1, 1, 8)
    today, other = make_student(2), make_student(2, channels=2)
    assert today.state_dict().keys() == other.state_dict().keys()
    place = np.zeros((3, 3)), np.zeros(3, bool)
    one, two = (plain(s).compute(numbers, x, *place) for s in (today, other))
    np.testing.assert_array_equal(two.forces_eV_per_A, one.forces_eV_per_A)
    assert make_student(channels=1).state_dict().keys() != today.state_dict().keys()


def test_elements_that_are_mixed_alike_are_told_apart_by_pairs_alone():
    """Two elements in one channel, all factors 1, no terms: the other's element does not matter."""
    student = make_student(4, elements=[6, 7, 8], channels=1, base="none")
    with torch.no_grad():
        student.inner.copy_(torch.tensor([0.1, 0.2]).expand(3, 3, 2))
        for net in student.atoms:
            net.mixing.fill_(1.0)
            net.load_state_dict(student.atoms[0].state_dict())
        student.base_far.zero_()
        for name in ("near_factor", "far_factor"):
            getattr(student.pair_elements, name).fill_(1.0)
        for name in ("near_terms", "far_terms"):
            getattr(student.pair_elements, name).zero_()
    _, x = cluster(6)
    place = np.zeros((3, 3)), np.zeros(3, bool)
    rng = np.random.default_rng(0)
    one, two = (plain(student).compute(rng.choice([6, 7, 8], 14), x, *place) for _ in range(2))
    size = np.abs(one.forces_eV_per_A).max()
    np.testing.assert_allclose(two.forces_eV_per_A, one.forces_eV_per_A, atol=1e-11 * size)


def test_the_networks_of_atoms_do_not_grow_with_the_elements():
    def widths(elements):
        net = make_student(elements=elements, channels=3).atoms[0]
        return {n: tuple(p.shape) for n, p in net.named_parameters() if not n.endswith("mixing")}

    assert widths([1, 6, 7, 8]) == widths([1, 6, 7, 8, 9, 15, 16, 17, 35])


def test_the_tables_of_elements_are_left_to_adamw():
    from dmts_ipi.students.density.density import DENSITY

    student = make_student(elements=ORGANIC, channels=3)
    hidden = DENSITY.hidden_matrices(student)
    assert "atoms.0.lift1.weight" in hidden
    assert "pair.dense.weight" in hidden
    assert not [n for n in hidden if "mixing" in n or n.startswith("pair_elements")]
    assert TINY.channels == 0


def test_frames_for_the_scales_cover_elements_that_are_rare():
    from dmts_ipi.students.density.prepare import SETUP_ATOMS, SETUP_FRAMES, setup_frames

    counts = [(10, 5, 0)] * 90 + [(10, 5, 2)] * 10
    order = np.arange(100)
    assert setup_frames(counts[:90], np.arange(90)) == list(range(SETUP_FRAMES))
    chosen = setup_frames(counts, order)
    assert chosen == [*range(SETUP_FRAMES), *range(90, 100)]  # all that have the third element
    assert SETUP_ATOMS > 10 * 2


def test_an_element_that_is_always_alone_gets_finite_scales():
    from dmts_ipi.core.frames import Frame
    from dmts_ipi.students.density.batches import GraphSet
    from dmts_ipi.students.density.prepare import prepare

    rng = np.random.default_rng(2)
    frames = []
    for _ in range(6):
        x = np.array([[0, 0, 0], [0, 0, 1.0], [0, 0.9, 0.2], [30, 0, 0]]) + rng.normal(
            scale=0.03, size=(4, 3)
        )
        frames.append(
            Frame(np.array([8, 1, 1, 11]), x, np.zeros((3, 3)), np.zeros(3, bool), forces=0 * x)
        )
    student = make_student(elements=[1, 8, 11], channels=2, base="short")
    prepare(student, GraphSet(frames, student.architecture, [1, 8, 11]), 0)
    sodium = student.atoms[2]
    assert float(sodium.scale0.max()) <= 1.0
    assert all(torch.isfinite(v).all() for v in student.state_dict().values())
    met = np.array([[0, 0, 0], [0, 0, 1.0], [0, 0.9, 0.2], [2.2, 0, 0]])  # it never met a neighbour
    force = (
        plain(student)
        .compute(frames[0].numbers, met, np.zeros((3, 3)), np.zeros(3, bool))
        .forces_eV_per_A
    )
    assert np.abs(force).max() < 1e3
