"""Our integrators in run folders: what ``init`` writes, ``run`` starts, and wrong input is told."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.molecules import bonds, molecules
from dmts_ipi.ipi.input_xml import InputSpec, read_checkpoint, read_input
from dmts_ipi.ipi.run_folder.bond_pairs import bond_pairs
from dmts_ipi.ipi.run_folder.folder import RunFolder
from dmts_ipi.ipi.run_folder.resources import inputs_folder, ipi_command
from dmts_ipi.ipi.thermostats import thermostat_mid_drift
from dmts_ipi.watchdog.journal import read_events
from run_tools import STUDENT, TEACHER, call, direct, make

WATER = ("--teacher", TEACHER, "--student", STUDENT, "--no-model-check")
HHF = ("--friction-by-element", "H=10,O=2")


def init(folder: Path, *options: str) -> tuple[InputSpec, ET.Element]:
    done = call("init", folder, *WATER, *options)
    assert done.returncode == 0, done.stderr
    dynamics = ET.parse(folder / "input.xml").getroot().find("system/motion/dynamics")
    assert dynamics is not None
    return RunFolder(folder).spec(), dynamics


def integrator_of(folder: Path) -> tuple[bool, bool, float | None]:
    spec = RunFolder(folder).spec()
    return spec.fixcom, spec.thermostat_mid_drift, spec.one_langevin_friction_per_ps


def test_stock_inputs_need_no_wrapper(tmp_path: Path) -> None:
    for splitting, written in (("stock", "baoab"), ("baoab", "baoab"), ("obabo", "obabo")):
        spec, dynamics = init(tmp_path / splitting, "--splitting", splitting)
        assert dynamics.get("splitting") == spec.splitting == written
        assert not spec.ours
        assert "dmts_ipi.cli" not in (tmp_path / splitting / "start_ipi.sh").read_text()
    assert RunFolder(tmp_path / "stock").config.splitting == "baoab"


def test_options_become_tags_and_frictions_time_constants(tmp_path: Path) -> None:
    spec, dynamics = init(
        tmp_path / "run",
        *("--splitting", "baoab-respa", "--thermostat", "ffl", *HHF),
        *("--friction-per-ps", "0.5", "--bond-friction-per-ps", "50"),
    )
    assert (spec.splitting, spec.ours, spec.labels) == ("baoab-respa", True, {"H", "O"})
    assert "dmts_ipi.cli i-pi" in (tmp_path / "run" / "start_ipi.sh").read_text()
    thermostat = dynamics.find("thermostat")
    assert thermostat is not None
    assert thermostat.get("mode") == "ffl"
    assert thermostat.findtext("tau") == "2000"
    local = {e.get("names"): float(e.text or "") for e in thermostat.findall("local_tau")}
    assert local == {"H": 100.0, "O": 500.0}
    found = {e.get("names"): e for e in thermostat.findall("bonds")}
    assert {n: e.findtext("tau") for n, e in found.items()} == {"O, H": "20", "H, H": "20"}
    config = RunFolder(tmp_path / "run").config
    assert config.friction_by_element_per_ps == {"H": 10.0, "O": 2.0}
    assert config.bond_friction_per_ps == 50.0


def test_our_tags_need_the_wrapper_with_any_splitting(tmp_path: Path) -> None:
    assert init(tmp_path / "hhf", *HHF)[0].ours
    assert not init(tmp_path / "svr", "--thermostat", "svr", "--splitting", "baoab")[0].ours
    assert ipi_command(True)[-1] == "i-pi"
    assert ipi_command(False)[-1].endswith("/i-pi")


def test_ranges_lie_between_a_molecule_and_its_neighbours() -> None:
    from ase.io import read

    atoms = read(inputs_folder() / "water64.extxyz")
    kinds = bond_pairs(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, 50.0)
    assert [k.names for k in kinds] == [("O", "H"), ("H", "H")]
    d = atoms.get_all_distances(mic=True)
    pairs, _ = bonds(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)
    same = molecules(192, pairs)
    inside = (same[:, None] == same[None]) & ~np.eye(192, dtype=bool)
    z = atoms.numbers
    for (a, b), (full, none) in (((8, 1), kinds[0].range_A), ((1, 1), kinds[1].range_A)):
        here = (z[:, None] == a) & (z[None] == b)
        assert d[here & inside].max() < full
        near = (d[here & (same[:, None] != same[None])] < none).sum()
        assert near < 0.02 * (here & inside).sum()
    ethanol = molecule("CH3CH2OH")
    cell = np.eye(3) * 20
    found = bond_pairs(ethanol.numbers, ethanol.positions, cell, False, 50.0)
    names = [k.names for k in found]
    assert names == [("C", "H"), ("O", "H"), ("H", "H")]
    with pytest.raises(InputError, match="no bond to hydrogen"):
        bond_pairs(np.array([18, 18]), np.array([[0.0, 0, 0], [3.8, 0, 0]]), cell, False, 1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--friction-by-element", "He=1"), "friction_by_element_per_ps = He: is not in the"),
        (
            ("--friction-by-element", "H10"),
            "friction_by_element_per_ps = H10: must be such as H=10",
        ),
        (("--friction-by-element", "H=0"), "friction_by_element_per_ps.H = '0': input should be"),
        (("--bond-friction-per-ps", "-1"), "bond_friction_per_ps = '-1': input should be greater"),
        (("--splitting", "respa"), "splitting = 'respa': must be one of obabo, baoab, baoab-respa"),
        (("--thermostat", "nose"), "thermostat = 'nose': must be one of langevin, ffl, svr"),
        (("--ensemble", "nve", "--thermostat", "ffl"), "nve has no thermostat; use nvt"),
        (("--ensemble", "nve", *HHF), "nve has no thermostat; use nvt"),
        (("--thermostat", "svr", *HHF), "thermostat svr has the same friction for all atoms"),
    ],
)
def test_wrong_options_of_init(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    done = call("init", tmp_path / "run", *WATER, *options)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


EDITS = [
    ("splitting='baoab-respa'", "splitting='respa'", "dynamics splitting = respa: must be one of"),
    ("'femtosecond'>100<", "'femtosecond'>0<", "local_tau = 0: a time constant must be positive"),
    ("'femtosecond'>1000<", "'femtosecond'>-5<", "tau = -5: a time constant must be positive"),
    ("units='femtosecond'>100<", ">100<", "local_tau = 100: has no unit"),
    ("mode='langevin'", "mode='svr'", "thermostat mode = svr: <local_tau> goes with langevin"),
    ("mode='nvt'", "mode='nve'", "thermostat mode = langevin: NVE has no thermostat"),
]


@pytest.mark.parametrize(("old", "new", "message"), EDITS)
def test_wrong_edits_of_an_input(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (inputs_folder() / "nvt_dmts_hhf.xml").read_text()
    assert text.count(old) >= 1
    before, _, after = text.rpartition(old)
    (tmp_path / "input.xml").write_text(before + new + after)
    with pytest.raises(InputError, match=re.escape(message)):
        read_input(tmp_path / "input.xml")


def test_wrong_edits_of_bonds_and_barostats(tmp_path: Path) -> None:
    text = (inputs_folder() / "nvt_dmts_bond.xml").read_text()
    (tmp_path / "a.xml").write_text(text.replace("<range units='angstrom'>", "<range>", 1))
    with pytest.raises(InputError, match=r"range = \[1\.25, 1\.5\]: write units='angstrom'"):
        read_input(tmp_path / "a.xml")
    assert read_input(inputs_folder() / "nvt_dmts_bond.xml").labels == {"O", "H"}
    text = (inputs_folder() / "npt_dmts.xml").read_text()
    (tmp_path / "b.xml").write_text(text.replace("mode='isotropic'", "mode='flexible'"))
    with pytest.raises(InputError, match="takes 'isotropic' only"):
        read_input(tmp_path / "b.xml")


def test_run_starts_ours_resumes_and_refuses_unknown_atoms(tmp_path: Path) -> None:
    folder = direct(
        make(tmp_path / "run", "--splitting", "baoab-respa", "--friction-by-element", "Ar=10")
    )
    done = call("run", folder, "--time-ps", 0.2)
    assert done.returncode == 0, done.stdout + done.stderr
    done = call("run", folder, "--time-ps", 0.24)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resumes at step 50" in done.stderr
    state = read_checkpoint(folder / "RESTART")
    assert (state.splitting, state.ours, state.step) == ("baoab-respa", True, 60)
    text = (folder / "input.xml").read_text()
    (folder / "input.xml").write_text(text.replace('names="Ar"', 'names="Kr"'))
    done = call("run", folder, "--time-ps", 0.3)
    assert done.returncode == 2
    assert "input.xml: thermostat = Kr: no atom has this label; labels are Ar" in done.stderr
    (folder / "input.xml").write_text(text.replace("baoab-respa", "baoab"))
    done = call("run", folder, "--time-ps", 0.3)
    assert done.returncode == 2
    assert "splitting = baoab: the run was started with baoab-respa" in done.stderr


def test_a_rewind_keeps_integrator_and_thermostat(tmp_path: Path) -> None:
    # a fault in one evaluation: back to a checkpoint, single time steps, and on with MTS
    options = ("--splitting", "baoab-respa", "--friction-by-element", "Ar=10", "--no-model-check")
    folder = direct(make(tmp_path / "run", *options))
    text = (folder / "input.xml").read_text()
    fault = f"{{k: 0.02, fault: kick, at: 70, once: {folder / 'fault-done'}}}"
    (folder / "input.xml").write_text(text.replace("{k: 0.02}", fault))
    settings = (folder / "run.yaml").read_text().partition("watchdog:\n")[0]
    (folder / "run.yaml").write_text(settings + "watchdog:\n  sts_ps: 0.04\n  guard_fs: 8.0\n")
    done = call("run", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [e["kind"] for e in read_events(folder)].count("rewind") == 1
    run = RunFolder(folder)
    assert run.properties()["step"].tolist() == list(range(0, 101, run.config.strides[0]))
    state = read_checkpoint(folder / "RESTART")
    assert (state.splitting, state.ours, state.step) == ("baoab-respa", True, 100)
    assert "local_tau" in (folder / "RESTART").read_text()


def test_analysis_expects_the_temperature_of_the_splitting(tmp_path: Path) -> None:
    # Where the O step is in the middle of each inner drift, kinetic temperatures are low by
    # (w dt)^2/4, whatever n_inner; the statistics tests of the integrator measure it.
    assert thermostat_mid_drift("baoab-respa", [1, 6])
    assert not thermostat_mid_drift("baoab", [1, 6])
    init(tmp_path / "plain", "--splitting", "baoab-respa")
    assert integrator_of(tmp_path / "plain") == (False, True, 1.0)
    # frictions differ by atom: the floor of a temperature's error bar is not that of one friction
    init(tmp_path / "hhf", "--splitting", "baoab-respa", *HHF)
    assert integrator_of(tmp_path / "hhf") == (False, True, None)
