"""What a structure file says reaches the run, and a run starts from the end of another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.constraints import FixAtoms

from dmts_ipi.core.structure import read_structure
from dmts_ipi.core.units import AMU_A2_PER_FS2_IN_EV
from dmts_ipi.ipi.run_folder.folder import RunFolder
from dmts_ipi.ipi.run_folder.structure import prepare_structure, write_structure
from run_tools import TEACHER, argon, call, make


def test_everything_is_kept_in_the_run_folder(tmp_path: Path) -> None:
    atoms = argon()
    atoms.set_cell(atoms.cell.array @ np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]]))
    atoms.positions[:] = atoms.positions[:, [2, 0, 1]]
    atoms.info.update(charge=1, spin=2)
    atoms.set_constraint(FixAtoms([3]))
    speeds = np.random.default_rng(0).normal(size=(len(atoms), 3))
    atoms.arrays["velocities_A_per_fs"] = speeds
    write_structure(tmp_path / "s.extxyz", prepare_structure(atoms, 0.0, False))
    kept = read_structure(tmp_path / "s.extxyz")
    assert (kept.charge, kept.spin, kept.fixed.tolist()) == (1, 2, [3])
    back = np.linalg.solve(kept.cell, atoms.cell.array)  # the cell was turned, and they with it
    np.testing.assert_allclose(kept.velocities_A_per_fs @ back, speeds, atol=1e-7)
    np.testing.assert_allclose(kept.positions @ back, atoms.positions, atol=1e-6)


@pytest.mark.process
def test_a_run_starts_from_the_end_of_another(tmp_path: Path) -> None:
    first = make(tmp_path / "first", "--mode", "sts", "--time-ps", 0.08)
    assert call("run", first).returncode == 0
    again = ("--structure", first, "--mode", "sts", "--time-ps", 0.08)
    done = call("init", tmp_path / "second", *again, "--teacher", TEACHER)
    assert done.returncode == 0, done.stderr
    assert "start velocities are drawn anew" in done.stderr
    start = read_structure(tmp_path / "second" / "structure.extxyz")
    last = RunFolder(first).properties()
    kinetic = 0.5 * AMU_A2_PER_FS2_IN_EV * (
        start.masses_amu[:, None] * start.velocities_A_per_fs**2
    ).sum()  # fmt: skip
    assert kinetic == pytest.approx(last["kinetic_eV"][-1], rel=1e-6)
    *_, (_, positions, cell, _) = RunFolder(first).frames()
    np.testing.assert_allclose(start.cell, cell, atol=1e-4)
    np.testing.assert_allclose(start.positions, positions, atol=1e-4)
