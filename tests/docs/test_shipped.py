"""The shipped models: size, identity, forces that no change of code may move, and their physics."""

import numpy as np
import pytest

from dmts_ipi.core.conformance import FAIL, Subject, check_model
from dmts_ipi.core.frames import Frame, read_frames
from dmts_ipi.core.heating import heating_of_bursts
from dmts_ipi.learning.labelling.sampler import Langevin, hmr_masses, thermal_velocities
from dmts_ipi.models.load import load_model, read_record
from places import ROOT

pytest.importorskip("mace")

PRETRAINED = ROOT / "dmts_ipi/pretrained"
NAMES = ("water-teacher", "water-student")
# eV/A: forces on the first two atoms of ipi_inputs/water64.extxyz, and RMS of all, in float64.
GOLDEN = {
    "water-teacher": (
        [[-0.352488, -0.268886, 0.4917485], [-1.3827395, -0.3875686, -0.8983543]],
        0.7888934,
    ),
    "water-student": (
        [[-0.3498525, -0.2731707, 0.5045515], [-1.381437, -0.3903358, -0.9090626]],
        0.7897895,
    ),
}


@pytest.fixture(scope="module")
def water() -> Frame:
    return read_frames(ROOT / "ipi_inputs/water64.extxyz")[0]


def test_together_under_five_megabytes() -> None:
    assert sum(f.stat().st_size for f in PRETRAINED.rglob("*.safetensors")) < 5e6


def test_student_is_distilled_from_the_shipped_teacher() -> None:
    student, teacher = read_record("water-student"), read_record("water-teacher")
    assert student["teacher"]["identity"] == teacher["identity"]


@pytest.mark.parametrize("name", NAMES)
def test_forces_are_those_that_were_shipped(name: str, water: Frame) -> None:
    model = load_model(name, dtype="float64", compile=False)
    forces = model.compute(water.numbers, water.positions, water.cell, water.pbc).forces_eV_per_A
    first, rms = GOLDEN[name]
    np.testing.assert_allclose(forces[:2], first, atol=1e-6)
    assert np.sqrt((forces**2).mean()) == pytest.approx(rms, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_conforms(name: str, water: Frame) -> None:
    model = load_model(name, compile=False)
    subject = Subject(model, water.numbers, water.positions, water.cell, water.pbc)
    failed = [c for c in check_model(subject) if c.status == FAIL]
    assert not failed, failed


def test_predicted_heating_at_6_fs(water: Frame) -> None:
    """Four bursts of the teacher at 300 K: the small version of the figure in README.

    Single bursts scatter by a factor of ten about their mean; the limits hold for the mean.
    """
    teacher, student = (load_model(n, compile=False) for n in NAMES)
    masses = hmr_masses(water, 3.0)
    rng = np.random.default_rng(8)
    run = Langevin(teacher, water, masses, thermal_velocities(masses, 300.0, rng), rng, 1.0)
    groups, guesses = [], []
    for _ in range(4):
        for _ in range(30):
            run.step(300.0, 50.0)
        frames, forces = [], []
        for k in range(40):
            run.step(300.0, 0.0)
            x, f, v = run.positions.copy(), run.result.forces_eV_per_A, run.velocities.copy()
            frame = Frame(
                water.numbers,
                x,
                water.cell,
                water.pbc,
                forces=f,
                velocities_A_per_fs=v,
                time_fs=float(k),
            )
            frames.append(frame)
            guess = student.compute(water.numbers, x, water.cell, water.pbc)
            forces.append(guess.forces_eV_per_A)
        groups.append(frames)
        guesses.append(np.array(forces))
    heating = heating_of_bursts(groups, guesses, masses, outer_fs=(6.0, 8.0))
    assert heating.at(6.0) < 1.0
    assert heating.at(8.0) < 5.0
