"""Labels say who made them, or are compared with who is said to have made them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.io import write

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.frames import Frame, read_frames, write_frames
from dmts_ipi.core.label_files import LABEL_UNITS, LabelFormat, read_labels
from dmts_ipi.core.model import compute
from dmts_ipi.learning.labelling.config import LabelConfig
from dmts_ipi.learning.labelling.label import Labeller
from dmts_ipi.learning.labelling.provenance import teacher_in, teacher_of_labels
from dmts_ipi.models.load import load_model
from toy_water import toy_box

TOY, OTHER = "ase:toy_water.ToyWater", 'ase:toy_water.ToyWater {"strength": 0.5}'


@pytest.fixture(scope="module")
def labels() -> list[Frame]:
    """Three frames of the toy model that do not say so."""
    model, rng = load_model(TOY), np.random.default_rng(0)
    start = Frame.from_atoms(toy_box())
    frames = []
    for _ in range(3):
        frame = start.at(start.positions + 0.05 * rng.normal(size=(len(start), 3)))
        frames.append(replace(frame, forces=compute(model, frame).forces_eV_per_A))
    return frames


def by(spec: str, frames: list[Frame]) -> list[Frame]:
    identity = load_model(spec).identity
    return [replace(f, teacher=spec, teacher_identity=identity) for f in frames]


def test_label_writes_the_teacher_and_distill_reads_it(tmp_path: Path) -> None:
    teacher, out = load_model(TOY), tmp_path / "labels.extxyz"
    config = LabelConfig(teacher=TOY, frames=["-"], structures=[])
    Labeller(config, teacher, [], [Frame.from_atoms(toy_box())] * 2, out).run()
    frames = read_labels(out)
    found = teacher_of_labels([(out, frames)], None)
    assert (found.name, found.identity) == (teacher.name, teacher.identity)
    assert 'label_units="eV, eV/A, A, A/fs"' in out.read_text()
    assert teacher_of_labels([(out, frames)], TOY) == found
    with pytest.raises(InputError, match=r"teacher = ase:.*0.5.*did not make these labels"):
        teacher_of_labels([(out, frames)], OTHER)


def test_a_mixture_of_teachers_is_refused(labels: list[Frame]) -> None:
    files = [(Path("a"), by(TOY, labels)), (Path("b"), [*by(TOY, labels[:1]), *by(OTHER, labels)])]
    with pytest.raises(InputError, match=r"labels = b: frame 1 is labelled by .*0.5"):
        teacher_in(files)
    assert teacher_in([(Path("a"), labels)]) is None


def test_labels_that_do_not_say_who_made_them(labels: list[Frame], caplog) -> None:
    with pytest.raises(
        InputError, match="do not record which model made them; give it with --teacher"
    ):
        teacher_of_labels([(Path("a"), labels)], None)
    assert teacher_of_labels([(Path("a"), labels)], TOY).name == TOY
    assert "a does not say which model made its labels" in "\n".join(caplog.messages)
    # one that is not on this machine is believed, and that is said
    assert teacher_of_labels([(Path("a"), labels)], "ase:no.such.Model").name == "ase:no.such.Model"
    assert "not compared with ase:no.such.Model" in "\n".join(caplog.messages)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda f: replace(f, forces=f.forces / 51.42206747), "give --label-units hartree/bohr"),
        (lambda f: replace(f, forces=-f.forces), "turn their sign"),
        (lambda f: replace(f, pbc=np.zeros(3, bool)), "the frames have no cell"),
        (lambda f: replace(f, forces=1.1 * f.forces), "label them by it"),
    ],
)
def test_labels_of_others_are_compared_with_the_teacher(labels, change, why: str) -> None:
    changed = [change(f) for f in labels]
    with pytest.raises(InputError, match=rf"are not those of .* differ by [0-9.]+ eV/A .*{why}"):
        teacher_of_labels([(Path("a"), changed)], TOY)


@pytest.mark.parametrize(
    ("name", "energy"),
    [("REF_forces", "REF_energy"), ("force", "energy"), ("forces", "energy")],
)
def test_names_of_other_programs(labels, tmp_path: Path, name: str, energy: str, caplog) -> None:
    read = read_labels(others(tmp_path, labels, name, energy))
    np.testing.assert_allclose(read[1].forces, labels[1].forces, atol=1e-7)
    assert read[1].energy_eV == 1.0
    assert (name == "forces") != (f"forces from {name}" in "\n".join(caplog.messages))


def test_unknown_names_and_units_are_given(labels, tmp_path: Path) -> None:
    path = others(tmp_path, labels, "dft_forces", "dft_energy")
    with pytest.raises(InputError, match="vectors are dft_forces: give --forces-key NAME"):
        read_labels(path)
    form = LabelFormat("dft_forces", "dft_energy", "hartree/bohr")
    read = read_labels(path, form)
    energy, force = LABEL_UNITS["hartree/bohr"]
    assert read[0].energy_eV == pytest.approx(energy)
    np.testing.assert_allclose(read[0].forces, force * labels[0].forces, rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match="energy_key = nothing"):
        read_labels(path, LabelFormat("dft_forces", "nothing"))


def others(folder: Path, labels: list[Frame], name: str, energy: str) -> Path:
    images = []
    for frame in labels:
        atoms = replace(frame, forces=None).to_atoms()
        atoms.calc = None
        atoms.arrays[name] = frame.forces
        atoms.info[energy] = 1.0
        images.append(atoms)
    write(folder / "others.extxyz", images, format="extxyz")
    return folder / "others.extxyz"


def test_files_of_older_versions_have_bursts_of_their_own(labels, tmp_path: Path) -> None:
    """Bursts were numbers, and the same ones in every file."""
    for name in ("a", "b"):
        moving = replace(labels[0], velocities_A_per_fs=np.zeros_like(labels[0].positions))
        write_frames(tmp_path / name, [replace(moving, burst="x"), replace(moving, burst="")])
        text = (tmp_path / name).read_text().replace("burst=x", "burst=3")
        (tmp_path / name).write_text(text)
        (tmp_path / name).rename(tmp_path / f"{name}.extxyz")
    a, b = (read_frames(tmp_path / f"{name}.extxyz") for name in ("a", "b"))
    assert a[0].burst.endswith("#3")
    assert a[0].burst != b[0].burst
    assert a[1].burst == ""


def test_fixed_atoms_stay_where_they_are(tmp_path: Path) -> None:
    start = replace(Frame.from_atoms(toy_box()), fixed=np.array([0, 1, 2]))
    config = LabelConfig(
        teacher=TOY, structures=["-"], temperatures_K=[300.0], time_ps=0.1, equilibrate_ps=0.02,
        rattle_every=0, stretch_every=0,
    )  # fmt: skip
    Labeller(config, load_model(TOY), [start], [], tmp_path / "l.extxyz").run()
    last = read_frames(tmp_path / "l.extxyz")[-1]
    np.testing.assert_allclose(last.positions[:3], start.positions[:3], atol=1e-7)
    assert np.abs(last.positions[3:] - start.positions[3:]).max() > 0.01
