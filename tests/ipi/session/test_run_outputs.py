"""Readers of i-PI's files, what they make of half a record, and cutting back to a step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ipi.engine.atoms import Atoms
from ipi.engine.cell import Cell
from ipi.utils.io import print_file
from ipi.utils.units import unit_to_internal

from dmts_ipi.core.errors import InputError
from dmts_ipi.ipi import fixed_width
from dmts_ipi.ipi.input_xml import _ending
from dmts_ipi.ipi.run_folder import outputs

SHAPES = ("xyz", "bin", "extxyz", "pdb")
HEADER = """# column   1     --> step : The current simulation time step.
# column   2     --> time{femtosecond} : The elapsed simulation time.
# column   3     --> temperature{kelvin} : The current temperature.
# column   4     --> potential : The physical system potential energy.
# cols.    5-6   --> dipole : something with two columns.
"""


def properties(path: Path, steps: range) -> Path:
    rows = "".join(f"  {s:.1f}  {5.0 * s}  {300 + s}  0.5  1.0 2.0 \n" for s in steps)
    path.write_text(HEADER + rows)
    return path


def test_properties_come_in_our_units(tmp_path: Path) -> None:
    columns = outputs.read_properties(properties(tmp_path / "p", range(0, 8, 2)))
    assert columns["step"].tolist() == [0, 2, 4, 6]
    assert columns["step"].dtype.kind == "i"
    np.testing.assert_allclose(columns["time_ps"], [0, 0.01, 0.02, 0.03])
    np.testing.assert_allclose(columns["potential_eV"], 0.5 * 27.2114, rtol=1e-5)
    assert columns["dipole"].shape == (4, 2)


def test_half_a_line_waits_for_its_end(tmp_path: Path) -> None:
    path = properties(tmp_path / "p", range(3))
    reader = outputs.PropertyReader(path)
    assert len(reader.read()["step"]) == 3
    with open(path, "a") as stream:
        stream.write("  3.0  15.0 ")
    assert len(reader.read()["step"]) == 0
    assert reader.incomplete
    with open(path, "a") as stream:
        stream.write(" 303  0.5 1 2\n")
    assert reader.read()["step"].tolist() == [3]
    assert not reader.incomplete


@pytest.mark.parametrize("kept", [0, 3, 4, 99])
def test_cut_lines(tmp_path: Path, kept: int) -> None:
    path = properties(tmp_path / "p", range(0, 8, 2))
    with open(path, "a") as stream:
        stream.write("  8.0  40")
    outputs.cut(path, kept)
    assert path.read_text() == properties(tmp_path / "q", range(0, min(kept, 6) + 1, 2)).read_text()


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has the run started"):
        outputs.read_properties(tmp_path / "absent")
    (tmp_path / "p").write_text(HEADER + "  what is this\n")
    with pytest.raises(InputError, match="is not a line of i-PI properties"):
        outputs.read_properties(tmp_path / "p")
    (tmp_path / "t.xyz").write_text("2\nno title\nAr 0 0 0\nAr 1 1 1\n")
    with pytest.raises(InputError, match="is not a trajectory of i-PI"):
        list(outputs.iter_trajectory(tmp_path / "t.xyz"))


def trajectory(path: Path, steps: range, quantity: str = "positions") -> np.ndarray:
    """A trajectory written by i-PI itself; returns what is in it, Angstrom or atomic units.

    ASE's format knows no other unit than its own.
    """
    form = "ase" if path.suffix == ".extxyz" else path.suffix[1:]
    rng = np.random.default_rng(5)
    data = rng.normal(size=(len(steps), 7, 3)) * 3
    cell = Cell(np.array([[9.0, 1.0, -0.5], [0, 8.0, 0.3], [0, 0, 7.0]]) / 0.529177210564)
    with open(path, "w") as stream:
        for k, step in enumerate(steps):
            atoms = Atoms(7)
            unit = "angstrom" if quantity == "positions" else "atomic_unit"
            dimension = "length" if quantity == "positions" else "velocity"
            atoms.q[:] = data[k].ravel() * unit_to_internal(dimension, unit, 1.0)
            atoms.names[:] = ["O", "H", "H", "Ar", "C", "Na", "H"]
            print_file(
                form,
                atoms,
                cell,
                stream,
                title=f"Step:  {step:10d}  Bead:   {0:5d} ",
                key=quantity,
                dimension=dimension,
                units="ase" if form == "ase" else unit,
                cell_units="ase" if form == "ase" else "angstrom",
            )
    return data


@pytest.mark.parametrize("shape", SHAPES)
def test_trajectories(tmp_path: Path, shape: str) -> None:
    path = tmp_path / f"t.{shape}"
    data = trajectory(path, range(0, 12, 4))
    frames = list(outputs.iter_trajectory(path))
    assert [f.step for f in frames] == [0, 4, 8]
    digits = 5.1e-4 if shape == "pdb" else 1e-6
    np.testing.assert_allclose([f.values for f in frames], data, rtol=2e-5, atol=digits)
    cell = np.array([[9.0, 0, 0], [1.0, 8.0, 0], [-0.5, 0.3, 7.0]])
    np.testing.assert_allclose(frames[2].cell, cell, atol=2e-3 if shape == "pdb" else 2e-5)
    if shape == "pdb":
        return  # i-PI writes nothing but positions so
    data = trajectory(path, range(0, 8, 4), "velocities")
    velocities = next(outputs.iter_trajectory(path))
    assert velocities.quantity == "velocities"
    np.testing.assert_allclose(velocities.values, data[0] * 21.876912, rtol=2e-5)  # A/fs


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("lost", [1, 40, 200])
def test_half_a_frame_is_left_out_and_cut(tmp_path: Path, shape: str, lost: int) -> None:
    path, short = tmp_path / f"t.{shape}", tmp_path / f"s.{shape}"
    trajectory(path, range(0, 16, 4))
    trajectory(short, range(0, 12, 4))
    whole = path.read_bytes()
    path.write_bytes(whole[:-lost])
    assert [f.step for f in outputs.iter_trajectory(path)] == [0, 4, 8]
    assert outputs.last_step(path) == 8
    outputs.cut(path, 99)
    assert path.read_bytes() == short.read_bytes()
    outputs.cut(path, 5)
    assert outputs.last_step(path) == 4
    outputs.cut(path, -1)
    assert path.stat().st_size == 0
    assert outputs.last_step(path) is None


@pytest.mark.parametrize("shape", SHAPES)
def test_a_file_that_grows_is_read_on_not_again(
    tmp_path: Path, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, whole = tmp_path / f"t.{shape}", tmp_path / f"w.{shape}"
    trajectory(path, range(0, 16, 4))
    trajectory(whole, range(0, 40, 4))
    begun: list[int] = []
    real = outputs.records

    def counted(file: Path, offset: int = 0) -> Iterator[tuple[int, int, int]]:
        begun.append(offset)
        return real(file, offset)

    monkeypatch.setattr(outputs, "records", counted)
    assert outputs.last_step(path) == 12
    end = path.stat().st_size
    path.write_bytes(whole.read_bytes())  # the same file, longer
    assert outputs.last_step(path) == 36
    assert begun == [0, end]
    outputs.cut(path, 21)
    assert outputs.last_step(path) == 20
    assert 0 not in begun[1:]
    path.write_bytes(whole.read_bytes()[:-1])  # what was cut off has been written anew
    assert outputs.last_step(path) == 32
    path.unlink()
    trajectory(path, range(8, 64, 8))  # another file
    assert outputs.last_step(path) == 56
    outputs.cut(path, 8)
    assert [f.step for f in outputs.iter_trajectory(path)] == [8]


def test_lines_that_grow_are_read_on(tmp_path: Path) -> None:
    path = tmp_path / "md.properties"
    head = "# column   1     --> step : s\n# column   2     --> time{picosecond} : t\n"
    text = head + "".join(f"  {k}.0e+00  0.5\n" for k in range(0, 10, 2))
    path.write_text(text)
    assert outputs.last_step(path) == 8
    with open(path, "a") as stream:
        stream.write("  1.0e+01  0.5\n  1.2e+01  0")  # half a line at the end
    assert outputs.last_step(path) == 10
    outputs.cut(path, 5)
    assert path.read_text() == head + "  0.0e+00  0.5\n  2.0e+00  0.5\n  4.0e+00  0.5\n"
    outputs.cut(path, -1)
    assert path.read_text() == head
    with open(path, "a") as stream:
        stream.write("  7.0e+00  0.5\nno numbers\n")
    with pytest.raises(InputError, match="is not a line of i-PI properties"):
        outputs.last_step(path)
    outputs.cut(path, 3)  # what is damaged lies behind
    assert path.read_text() == head


def extras(path: Path, steps: range, lines: int = 2) -> Path:
    """As i-PI's TrajectoryOutput writes what a driver says beside its forces."""
    block = " #EXTRAS(raw)# Step:  %10d \n" + "a text\n" * lines
    path.write_text("".join(block % s for s in steps))
    return path


def test_extras_are_cut_too(tmp_path: Path) -> None:
    path, short = tmp_path / "md.extras_0", extras(tmp_path / "short", range(0, 12, 4))
    extras(path, range(0, 16, 4))
    assert outputs.last_step(path) == 12
    path.write_bytes(path.read_bytes()[: -len("a text\n")])  # a text that was not written out
    assert outputs.last_step(path) == 8
    outputs.cut(path, 99)
    assert path.read_bytes() == short.read_bytes()
    outputs.cut(path, 7)
    assert outputs.last_step(path) == 4


def test_names_of_outputs_are_those_that_ipi_gives_them() -> None:
    named = [_ending(*x) for x in (("positions{angstrom}", "ase"), ("x_centroid", "xyz"))]
    assert named == ["_0.extxyz", ".xyz"]
    assert _ending("extras", "xyz") == "_0"
    assert _ending("velocities", "pdb") == "_0.pdb"


def xyz_line(name: str, *values: float) -> str:
    """A line as i-PI writes it."""
    return f"{name:>8s} " + " ".join(f"{v:12.5e}" for v in values) + "\n"


def test_fixed_width_lines_read_as_float_reads_them() -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(size=(2000, 3)) * 10.0 ** rng.integers(-14, 14, (2000, 3))
    lines = [xyz_line("O", *row) for row in values]
    expected = np.array([[float(x) for x in line.split()[1:]] for line in lines])
    found = fixed_width.parse("".join(lines).encode(), len(lines))
    assert found is not None
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    "line",
    [
        xyz_line("O", 1e-120, 1.0, 1.0),  # three digits of exponent
        xyz_line("O", float("nan"), 1.0, 1.0),
        xyz_line("averylong", 1.0, 1.0, 1.0),
    ],
)
def test_other_layouts_are_left_to_the_slow_reader(line: str) -> None:
    assert fixed_width.parse((line * 3).encode(), 3) is None
