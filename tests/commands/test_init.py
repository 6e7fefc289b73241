"""``dmts-ipi init``: what it writes. Wrong input is in ``wrong_inputs.py``."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import read

from dmts_ipi.commands.init import check_distilled_from
from dmts_ipi.core.errors import InputError
from dmts_ipi.ipi.run_folder.folder import RunFolder
from dmts_ipi.ipi.run_folder.structure import prepare_structure, read_structure, write_structure
from run_tools import STUDENT, TEACHER, Done, argon, call, make


def test_defaults_are_the_ones_of_the_manual(tmp_path: Path) -> None:
    done = call(
        *("init", tmp_path / "run", "--teacher", TEACHER, "--student", STUDENT, "--no-model-check")
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"Start it: dmts-ipi run {tmp_path / 'run'}\n")
    run = RunFolder(tmp_path / "run")
    c = run.config
    assert (c.ensemble, c.mode, c.inner_fs, c.n_inner) == ("nvt", "dmts", 1.0, 5)
    assert (c.time_ps, c.temperature_K, c.friction_per_ps) == (20.0, 300.0, 1.0)
    assert (c.hmr_amu, c.seed, c.equilibration_ps) == (3.0, 1, 4.0)
    assert c.versions["ipi"].startswith("3.3")
    spec = run.spec()
    assert spec.total_steps == 4000
    assert {s.mode for s in spec.sockets.values()} == {"unix"}
    structure = run.structure()
    assert sorted(set(structure.masses_amu.round(3))) == [4.008, 9.999]
    assert structure.masses_amu.sum() == pytest.approx(64 * 18.015, abs=1e-3)
    script = (tmp_path / "run" / "start_teacher.sh").read_text()
    assert f"--unix {spec.sockets['teacher'].address}" in script
    assert subprocess.run(["sh", "-n", tmp_path / "run" / "start_teacher.sh"]).returncode == 0
    assert os.access(tmp_path / "run" / "start_ipi.sh", os.X_OK)


def test_sts_is_the_teacher_alone_with_the_same_masses(tmp_path: Path) -> None:
    done = call("init", tmp_path / "s", "--teacher", TEACHER, "--mode", "sts", "--no-model-check")
    assert done.returncode == 0, done.stderr
    run = RunFolder(tmp_path / "s")
    assert list(run.spec().sockets) == ["teacher"]
    assert run.config.student is None
    assert run.spec().outer_fs == pytest.approx(1)
    assert run.structure().masses_amu.min() == pytest.approx(4.008)
    assert not (tmp_path / "s" / "start_student.sh").exists()


@pytest.mark.parametrize(
    ("options", "strides"),
    [
        ((), (2, 10)),  # steps of 5 fs: 10 and 50 fs
        (("--output-every-fs", 100), (20, 20)),
        (("--output-every-fs", 100, "--frames-every-fs", 50), (10, 10)),  # frames fall on lines
        (("--frames-every-fs", 5), (1, 1)),
    ],
)
def test_frames_are_not_more_frequent_than_lines_unless_wanted(
    options: tuple[object, ...], strides: tuple[int, int], tmp_path: Path
) -> None:
    models = ("--teacher", TEACHER, "--student", STUDENT, "--no-model-check")
    done = call("init", tmp_path / "run", *models, *options)
    assert done.returncode == 0, done.stderr
    assert RunFolder(tmp_path / "run").config.strides[:2] == strides


def test_hmr_is_not_done_twice(tmp_path: Path) -> None:
    atoms = prepare_structure(molecule("CH3CH2OH"), 3.0, needs_cell=False)
    write_structure(tmp_path / "e.extxyz", atoms)
    again = prepare_structure(read_structure(tmp_path / "e.extxyz"), 3.0, needs_cell=False)
    np.testing.assert_allclose(again.get_masses(), atoms.get_masses(), atol=1e-6)
    plain = prepare_structure(again, 0.0, needs_cell=False)
    np.testing.assert_allclose(plain.get_masses(), molecule("CH3CH2OH").get_masses(), atol=1e-6)


def test_cells_are_turned_for_ipi_and_geometry_is_kept() -> None:
    rng = np.random.default_rng(0)
    atoms = Atoms("Ar5", rng.random((5, 3)) * 9, cell=rng.normal(size=(3, 3)) + 9 * np.eye(3))
    for pbc in (True, (True, True, False), (True, False, True), False):
        atoms.pbc = pbc
        out = prepare_structure(atoms, 0.0, needs_cell=False)
        assert (out.pbc == atoms.pbc).all()
        assert out.cell.volume > 1
        np.testing.assert_allclose(out.cell.array[[0, 0, 1], [1, 2, 2]], 0, atol=1e-9)
        np.testing.assert_allclose(
            out.get_all_distances(mic=True), atoms.get_all_distances(mic=True), atol=1e-9
        )


def run_init(folder: Path, structure: Path, *options: object) -> Done:
    return call(
        *("init", folder, "--structure", structure, "--teacher", TEACHER, "--student", STUDENT),
        *options,
    )


def structure_file(where: Path) -> Path:
    file = where / "s.extxyz"
    argon().write(file)
    return file


def test_a_run_is_never_overwritten(tmp_path: Path) -> None:
    folder = make(tmp_path / "run", "--no-model-check")
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    done = run_init(folder, tmp_path / "argon.extxyz")
    assert done.returncode == 2
    assert "contains a run already, which is never overwritten" in done.stderr
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def student_model(folder: Path, teacher_identity: str, elements: list[int]) -> Path:
    """A folder with the record of a student and a file that is not weights."""
    folder.mkdir()
    record = {
        "format": "dmts-ipi-student",
        "version": 1,
        "elements": elements,
        "teacher": {"name": "T", "identity": teacher_identity},
    }
    (folder / "model.json").write_text(json.dumps(record))
    header = b"{}      "
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    return folder


def test_a_student_of_another_teacher_must_be_confirmed(tmp_path: Path) -> None:
    structure = structure_file(tmp_path)
    student = student_model(tmp_path / "student", "0123", [18])
    options = ["--student", student, "--no-model-check"]
    done = run_init(tmp_path / "run", structure, *options)
    assert done.returncode == 2
    assert "was distilled from 'T', not from 'ase:run_tools.Pair" in done.stderr
    assert "confirm with --allow-teacher-mismatch" in done.stderr
    assert not (tmp_path / "run").exists()
    done = run_init(tmp_path / "run", structure, *options, "--allow-teacher-mismatch")
    assert done.returncode == 0, done.stderr
    assert RunFolder(tmp_path / "run").config.student.model == str(student)


def test_the_same_teacher_needs_no_confirmation() -> None:
    check_distilled_from({"teacher": {"identity": "a"}}, {"identity": "a"})
    check_distilled_from({}, {"identity": "a"})
    with pytest.raises(InputError, match="allow-teacher-mismatch"):
        check_distilled_from({"teacher": {"identity": "b"}}, {"identity": "a"})


def test_paths_of_models_do_not_depend_on_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    structure = structure_file(tmp_path)
    student_model(tmp_path / "student", "", [18])
    monkeypatch.chdir(tmp_path)
    done = run_init(Path("run"), structure, "--student", "student", "--no-model-check")
    assert done.returncode == 0, done.stderr
    assert RunFolder("run").config.student.model == str(tmp_path / "student")
    assert read("run/structure.extxyz").get_chemical_formula() == "Ar32"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--model", "small=water-student"), "model = small: is in no level; name it by --levels"),
        (("--levels", "teacher=1,student"), "must be such as teacher=1,student=3,small=2"),
        (
            ("--levels", "teacher=1,pupil=2"),
            "levels name pupil, which is not a model of this run; models are",
        ),
        (
            (
                "--levels",
                "teacher=1,a=2",
                "--model",
                "a=water-student",
                "--model",
                "a=water-teacher",
            ),
            "model = a: is given twice",
        ),
        (
            ("--levels", "teacher=1,student=2", "--level-scheme", "sum"),
            "level_scheme sum has no model called teacher",
        ),
    ],
)
def test_levels_and_models_that_do_not_go_together(
    options: tuple[object, ...], message: str, tmp_path: Path
) -> None:
    done = call("init", tmp_path / "run", "--no-model-check", *options)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "run").exists()


def test_one_level_is_split_as_single_time_steps(tmp_path: Path) -> None:
    for name, options in (("a", ("--mode", "sts")), ("b", ("--levels", "teacher=1"))):
        done = call("init", tmp_path / name, "--no-model-check", *options)
        assert done.returncode == 0, done.stderr
    assert RunFolder(tmp_path / "a").spec().splitting == "baoab"
    assert RunFolder(tmp_path / "b").spec().splitting == "baoab"


def test_the_comment_says_what_the_levels_sample(tmp_path: Path) -> None:
    models = ("--model", "long=water-teacher", "--model", "short=water-student")
    levels = ("--levels", "long=1,short=3", "--level-scheme", "sum", "--allow-teacher-mismatch")
    done = call("init", tmp_path / "run", "--no-model-check", *models, *levels)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "run" / "input.xml").read_text()
    assert "the sum of its weights: 1 long + 1 short" in text
    assert "teacher minus student" not in text


def test_a_structure_without_atoms_or_with_masses_of_zero_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "none.xyz"
    file.write_text('0\nLattice="9 0 0 0 9 0 0 0 9"\n')
    with pytest.raises(InputError, match="holds no atom"):
        read_structure(file)
    atoms = argon()
    atoms.set_masses([0.0] * len(atoms))
    with pytest.raises(InputError, match=r"masses = atom 0: 0\.0: must be positive"):
        prepare_structure(atoms, 3.0, False)


def test_n_inner_beside_levels_is_named(tmp_path: Path) -> None:
    levels = ("--levels", "teacher=1,student=2", "--n-inner", 3)
    done = call("init", tmp_path / "run", "--no-model-check", *levels)
    assert done.returncode == 0, done.stderr
    assert "note: n_inner 3 is not used: by --levels it is 2" in done.stderr
