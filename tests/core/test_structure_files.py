"""What a structure file says reaches the structure, or one line says that it does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.constraints import FixAtoms, FixBondLength
from ase.io import write

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.frames import Frame, read_frames, write_frames
from dmts_ipi.core.structure import Structure, describe, read_structure
from dmts_ipi.core.structure_files import read_atoms
from toy_water import toy_box

WATER = "O 0 0 0\nH 0.76 0.59 0\nH -0.76 0.59 0\n"


def file(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


def notes(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(caplog.messages)


@pytest.mark.parametrize(
    ("unit", "factor"), [("angstrom", 1.0), ("atomic_unit", units.Bohr), ("nanometer", 10.0)]
)
def test_ipi_trajectories_have_their_cell(tmp_path: Path, unit: str, factor: float, caplog) -> None:
    title = "# CELL(abcABC): 12 13 14 90 90 60  Step: 10  Bead: 0 positions{%s}  cell{%s}"
    frame = f"3\n{title % (unit, unit)}\n{WATER}"
    path = file(tmp_path, "md.positions_0.xyz", frame + frame.replace("O 0 0 0", "O 0 0 0.5"))
    last = read_structure(path)
    np.testing.assert_allclose(np.linalg.norm(last.cell, axis=1), np.array([12, 13, 14]) * factor)
    assert last.pbc.all()
    assert describe(last) == "periodic"
    np.testing.assert_allclose(last.positions[0], [0, 0, 0.5 * factor])
    assert len(read_atoms(path)) == 2
    assert not caplog.messages


@pytest.mark.parametrize(
    ("title", "wrong"),
    [
        ("velocities{atomic_unit}  cell{atomic_unit}", "holds velocities, not positions"),
        ("cell{angstrom}", "does not say its units"),
        ("positions{parsec}", "unknown unit parsec"),
    ],
)
def test_ipi_trajectories_that_are_no_positions(tmp_path: Path, title: str, wrong: str) -> None:
    text = f"3\n# CELL(abcABC): 12 12 12 90 90 90 Step: 0 Bead: 0 {title}\n{WATER}"
    with pytest.raises(InputError, match=wrong):
        read_structure(file(tmp_path, "a.xyz", text))


def test_no_cell_is_said(tmp_path: Path, caplog) -> None:
    assert describe(read_structure(file(tmp_path, "a.xyz", f"3\nwater\n{WATER}"))) == "not periodic"
    surface = Structure(np.array([1]), np.zeros((1, 3)), np.eye(3), np.array([True, True, False]))
    assert describe(surface) == "periodic along cell vector 1 and cell vector 2"
    assert not caplog.messages


def test_a_cell_that_is_not_periodic_is_said(tmp_path: Path, caplog) -> None:
    write(tmp_path / "a.extxyz", toy_box(1, periodic=False), format="extxyz")
    text = (tmp_path / "a.extxyz").read_text()
    path = file(tmp_path, "b.extxyz", text.replace("Prop", 'Lattice="9 0 0 0 9 0 0 0 9" Prop'))
    assert not read_structure(path).pbc.any()
    assert 'pbc="F F F"' in notes(caplog)


def test_pdb_with_a_dummy_cell_and_without_elements(tmp_path: Path, caplog) -> None:
    lines = ["CRYST1    1.000    1.000    1.000  90.00  90.00  90.00 P 1           1"]
    for k, (name, x) in enumerate((("OW", 0.0), ("HW1", 0.76), ("HW2", -0.76)), 1):
        y = 0.0 if k == 1 else 0.59
        lines.append(
            f"ATOM  {k:5d}  {name:<3s} SOL     1    {x:8.3f}{y:8.3f}{0.0:8.3f}  0.50  0.00"
        )
    found = read_structure(file(tmp_path, "a.pdb", "\n".join([*lines, "END"]) + "\n"))
    assert not found.pbc.any()
    assert not found.cell.any()
    for part in ("dummy", "guessed from atom names", "3 sites are occupied in part"):
        assert part in notes(caplog)


@pytest.mark.parametrize("column", ["masses", "mass", "mass_amu"])
def test_masses_under_their_usual_names(tmp_path: Path, column: str) -> None:
    rows = "O 0 0 0 15.999\nH 0.76 0.59 0 2.014\nH -0.76 0.59 0 2.014\n"
    text = f"3\nProperties=species:S:1:pos:R:3:{column}:R:1\n{rows}"
    assert read_structure(file(tmp_path, "a.extxyz", text)).masses_amu[1] == 2.014


def test_momenta_become_velocities(tmp_path: Path, caplog) -> None:
    atoms = toy_box(1)
    atoms.set_velocities(np.full((3, 3), 0.02) / units.fs)
    write(tmp_path / "a.extxyz", atoms, format="extxyz")
    found = read_structure(tmp_path / "a.extxyz")
    np.testing.assert_allclose(found.velocities_A_per_fs, 0.02, rtol=1e-6)
    assert "velocities" in describe(found)
    text = "1\nProperties=species:S:1:pos:R:3:vel:R:3\nAr 0 0 0 1 0 0\n"
    assert read_structure(file(tmp_path, "b.extxyz", text)).velocities_A_per_fs is None
    assert "its unit is not known" in notes(caplog)


def test_charge_and_spin(tmp_path: Path) -> None:
    head = "3\nProperties=species:S:1:pos:R:3 "
    for words in ("charge=-1 spin=2", "total_charge=-1 multiplicity=2"):
        found = read_structure(file(tmp_path, "a.extxyz", head + words + "\n" + WATER))
        assert (found.charge, found.spin) == (-1, 2)
        assert "charge -1, spin multiplicity 2" in describe(found)
    with pytest.raises(InputError, match="charge = plus must be a number"):
        read_structure(file(tmp_path, "a.extxyz", head + "charge=plus\n" + WATER))
    atoms = toy_box(1)
    atoms.set_initial_charges([0.5, 0.25, 0.25])
    write(tmp_path / "b.extxyz", atoms, format="extxyz")
    assert read_structure(tmp_path / "b.extxyz").charge == 1


def test_fixed_atoms(tmp_path: Path, caplog) -> None:
    atoms = toy_box(1)
    atoms.set_constraint([FixAtoms([0, 2]), FixBondLength(0, 1)])
    for name in ("a.traj", "a.vasp"):
        write(tmp_path / name, atoms[[0, 1, 2]] if name == "a.traj" else fixed_only(atoms))
        found = read_structure(tmp_path / name)
        assert found.fixed.tolist() == [0, 2]
        assert "2 fixed atoms" in describe(found)
    assert "is not used; only whole atoms can be fixed" in notes(caplog)


def fixed_only(atoms: Atoms) -> Atoms:
    copy = atoms.copy()
    copy.set_constraint(FixAtoms([0, 2]))
    return copy


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("a.xyz", "1\n\nD 0 0 0\n", "unknown element D; write H, and 2.014 in a column masses"),
        ("a.xyz", "1\n\nOW 0 0 0\n", "unknown element Ow; write element symbols .* such as O"),
        ("a.data", "LAMMPS data file\n\n3 atoms\n", "ase convert -i lammps-data a.data a.extxyz"),
        ("a.data", "hello\n", "its format is not recognised"),
        ("a.xyz", "", "is empty"),
    ],
)
def test_a_reader_says_what_to_write(tmp_path: Path, name: str, text: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        read_structure(file(tmp_path, name, text))


def test_frames_keep_everything(tmp_path: Path) -> None:
    n, rng = 3, np.random.default_rng(0)
    frame = Frame(
        np.array([8, 1, 1]),
        rng.normal(size=(n, 3)),
        np.eye(3) * 9,
        np.ones(3, bool),
        masses_amu=np.array([15.999, 2.014, 2.014]),
        velocities_A_per_fs=rng.normal(size=(n, 3)),
        charge=1,
        spin=2,
        fixed=np.array([1]),
        forces=rng.normal(size=(n, 3)),
        energy_eV=-1.5,
        burst="abc#1",
        time_fs=3.0,
        teacher='ase:toy.Toy{"a": "b c"}',
        teacher_identity='ase:toy.Toy{"a": "b c"}',
        info={"temperature_K": 300.0},
    )
    write_frames(tmp_path / "a.extxyz", [frame, frame])
    again = read_frames(tmp_path / "a.extxyz")[1]
    for name in ("masses_amu", "velocities_A_per_fs", "fixed", "forces", "positions", "pbc"):
        np.testing.assert_allclose(getattr(again, name), getattr(frame, name), atol=1e-7)
    for name in ("charge", "spin", "burst", "time_fs", "teacher", "teacher_identity", "energy_eV"):
        assert getattr(again, name) == getattr(frame, name)
    assert again.info == frame.info


def test_a_structure_goes_elsewhere_with_all_it_has() -> None:
    atoms = toy_box(1)
    atoms.info["charge"] = 1
    start = Structure.from_atoms(atoms)
    moved = start.at(start.positions + 1)
    assert moved.charge == 1
    np.testing.assert_array_equal(moved.positions, start.positions + 1)
    assert len(start) == 3
