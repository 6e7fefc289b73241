"""The i-PI templates: what they say, how they are rendered, and that i-PI runs them."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from ase.units import Bohr, Hartree

import run_tools
from dmts_ipi.core.errors import InputError
from dmts_ipi.ipi.input_xml import InputXML, read_input
from dmts_ipi.ipi.run_folder import outputs
from dmts_ipi.ipi.run_folder.folder import ModelSettings, RunConfig
from dmts_ipi.ipi.run_folder.render import render, template_path
from dmts_ipi.ipi.run_folder.resources import inputs_folder

NAMES = [f"{e}_{m}" for e in ("nvt", "nve", "npt") for m in ("sts", "dmts")]
EXTRA = [f"nvt_dmts_{kind}" for kind in ("hhf", "ffl", "bond")]
MODEL = ModelSettings(model="water-teacher")


def config(name: str = "nvt_dmts", **fields: object) -> RunConfig:
    ensemble, mode = name.split("_")
    given = {"ensemble": ensemble, "mode": mode, "teacher": MODEL, "n_inner": 1, **fields}
    return RunConfig(student=MODEL if mode == "dmts" else None, **given)


@pytest.mark.parametrize("name", [*NAMES, *EXTRA])
def test_template_counts_the_teacher_once_and_the_student_not_at_all(name: str) -> None:
    spec = read_input(inputs_folder() / f"{name}.xml")
    assert spec.ensemble == name[:3]
    assert spec.temperature_K == pytest.approx(300)
    assert spec.outer_fs == pytest.approx(spec.n_inner)
    root = ET.parse(inputs_folder() / f"{name}.xml").getroot()
    sums = {}
    for force in root.iter("force"):
        weights = force.findtext("mts_weights") or "[1]"
        sums[force.get("forcefield")] = sum(float(w) for w in weights.strip("[] ").split(","))
    assert sums == ({"teacher": 1.0} if name.endswith("sts") else {"teacher": 1.0, "student": 0.0})
    assert root.findtext("system/motion/fixcom") == "False"


def test_rendering_sets_values_and_keeps_every_comment() -> None:
    c = config(
        "npt_dmts",
        n_inner=6,
        inner_fs=0.5,
        time_ps=3.0,
        temperature_K=310.5,
        friction_per_ps=0.2,
        pressure_bar=7,
        seed=42,
    )
    text = render(c, {"teacher": "T", "student": "S"})
    source = template_path("npt", "dmts").read_text()
    comments = re.findall(r"<!--.*?-->", source, re.DOTALL)
    assert len(comments) >= 20
    assert re.findall(r"<!--.*?-->", text, re.DOTALL) == comments
    root = ET.fromstring(text)
    assert root.findtext("total_steps") == "1000"
    assert root.findtext("prng/seed") == "42"
    assert root.findtext("system/ensemble/temperature") == "310.5"
    assert root.findtext("system/ensemble/pressure") == "7"
    assert root.findtext("system/motion/dynamics/timestep") == "3"
    assert root.findtext("system/motion/dynamics/nmts") == "[1, 6]"
    assert root.findtext("system/motion/dynamics/thermostat/tau") == "5000"
    assert root.findtext("ffsocket[@name='student']/address") == "S"
    assert root.find("output/properties").get("stride") == "3"  # 9 of the 10 fs


def test_a_template_without_a_field_is_told_of() -> None:
    with pytest.raises(InputError, match="has no <system/nothing>"):
        InputXML("<simulation/>", "x.xml").set("system/nothing", 1)


def test_strides_are_multiples_so_that_checkpoints_fall_on_lines() -> None:
    for outer in (1, 3, 4, 5, 6, 7, 8, 10):
        p, f, c = config(n_inner=outer).strides
        assert f % p == 0
        assert c % p == 0
        assert 5 <= p * outer <= 15
    assert config(n_inner=6, frames_every_fs=6.0).strides[:2] == (1, 1)  # spectra ask for that
    assert config(n_inner=2, checkpoints_every_fs=4.0).strides == (2, 24, 2)


WRONG = [
    ("units='femtosecond'>5", ">5", "timestep = 5: has no unit; write <timestep units='femto"),
    ("units='femtosecond'>5", "units='fortnight'>5", "timestep = units='fortnight': unknown unit"),
    ("units='kelvin'>300</temperature", ">300</temperature", "temperature = 300: has no unit"),
    ("[1, 5]</nmts>", "[1, 2.5]</nmts>", "nmts = [1, 2.5]: each level must be a whole number"),
    ("[1, 5]</nmts>", "[1, five]</nmts>", "nmts = [1, five]: must be a list such as [1, 5]"),
    ("[1, 5]</nmts>", "[1]</nmts>", "mts_weights of teacher = [1.0, 0.0]: needs 1 numbers"),
    ("[-1, 1]</mts", "[0, 1]</mts", "mts_weights of student = sum 1: must sum to 0"),
    ("[1, 0]</mts", "[1, 1]</mts", "mts_weights of teacher = sum 2: must sum to 1"),
    ("<force forcefield='student'>", "<force forcefield='x'>", "force = x: no such forcefield"),
    ("<address>dmts-student", "<address>dmts-teacher", "two sockets share it"),
    ("<address>dmts-student", "<address>a/b", "address of student = a/b: must be letters"),
    ("overwrite='False'", "overwrite='True'", "a checkpoint is not written atomically"),
    ("stride='2' flush", "stride='0' flush", "stride of properties = 0: must be at least 1"),
    ("<total_steps>4000", "<total_steps>4k", "total_steps = 4k: must be a whole number"),
    ("mode='nvt'", "mode='scnpt'", "dynamics mode = scnpt: must be one of nvt, nve, npt"),
    ("</system>", "", "is not valid XML"),
    ("floatformat", "sockets_prefix='/x' floatformat", "sockets_prefix = /x: must be left at"),
]


@pytest.mark.parametrize(("old", "new", "message"), WRONG, ids=[w[2][:24] for w in WRONG])
def test_an_edited_input_is_refused_with_field_value_and_remedy(
    old: str, new: str, message: str, tmp_path: Path
) -> None:
    text = (inputs_folder() / "nvt_dmts.xml").read_text()
    assert old in text
    file = tmp_path / "input.xml"
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        read_input(file)
    assert "input.xml" in str(caught.value)
    assert "\n" not in str(caught.value)


BOTH = "teacher", "student"
RUNNER = """
import sys
from ipi.engine.simulation import Simulation
from ipi.utils.softexit import softexit
from dmts_ipi.ipi.patches.integrators import install
install()
for name in sys.argv[1:]:
    with open(name) as stream:
        simulation = Simulation.load_from_xml(stream)
    simulation.run()
    softexit.cleanup("success")
    softexit.reset()
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All templates as they are, with springs for sockets, and one with n_inner = 1."""
    where = tmp_path_factory.mktemp("inputs")
    (where / "ipi_inputs").symlink_to(inputs_folder())
    names = []
    for name in [*NAMES, *EXTRA, "nvt_one"]:
        text = (inputs_folder() / f"{name.replace('one', 'dmts')}.xml").read_text()
        text = re.sub("stride='[0-9]+'", "stride='2'", text).replace("'md'", f"'{name}'")
        text = re.sub("<total_steps>[0-9]+", "<total_steps>4", text)
        if name == "nvt_one":
            text = text.replace("[1, 5]", "[1, 1]").replace("'femtosecond'>5<", "'femtosecond'>1<")
        (where / "input.xml").write_text(text)
        run_tools.direct(where)
        (where / "input.xml").rename(where / f"{name}.xml")
        names.append(f"{name}.xml")
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, *names],
        cwd=where,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return where


@pytest.mark.parametrize("name", [*NAMES, *EXTRA])
def test_ipi_runs_the_template_as_it_is(ran: Path, name: str) -> None:
    columns = outputs.read_properties(ran / f"{name}.properties")
    assert columns["step"].tolist() == [0, 2, 4]
    dt_fs = read_input(inputs_folder() / f"{name}.xml").outer_fs
    np.testing.assert_allclose(columns["time_ps"], columns["step"] * dt_fs / 1000, rtol=1e-6)
    assert 200 < columns["temperature_K"][0] < 400  # drawn at 300 K
    # kinetic_eV counts all 3N degrees of freedom
    kinetic_K = columns["kinetic_eV"] * 2 / (3 * 192 * 8.617333e-5)
    if name.startswith("nv"):
        np.testing.assert_allclose(columns["temperature_K"], kinetic_K, rtol=1e-4)
    else:
        assert columns["density_g_cm3"][0] == pytest.approx(0.9934, abs=1e-3)
        assert len(set(columns["volume_A3"])) == 3
    frames = list(outputs.iter_trajectory(ran / f"{name}.positions_0.xyz"))
    assert [f.step for f in frames] == [0, 2, 4]
    assert frames[0].cell[0, 0] == pytest.approx(12.44466, abs=1e-4)
    assert (ran / f"{name}.checkpoint_2").read_text().rstrip().endswith("</simulation>")


def test_velocities_and_masses_give_the_temperature_that_ipi_prints(ran: Path) -> None:
    from ase.io import read

    from dmts_ipi.ipi.run_folder.summary import kinetic_temperatures_K

    atoms = read(inputs_folder() / "water64.extxyz")
    columns = outputs.read_properties(ran / "nvt_dmts.properties")
    frames = outputs.iter_trajectory(ran / "nvt_dmts.velocities_0.xyz")
    for frame, kelvin in zip(frames, columns["temperature_K"], strict=True):
        by_element = kinetic_temperatures_K(frame.values, atoms.get_masses(), atoms.numbers)
        assert (by_element["O"] + 2 * by_element["H"]) / 3 == pytest.approx(kelvin, rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_forces_are_the_teachers_alone(ran: Path, name: str) -> None:
    found = list(outputs.iter_trajectory(ran / f"{name}.forces.xyz"))
    assert [f.step for f in found] == [0, 2, 4]
    frames = outputs.iter_trajectory(ran / f"{name}.positions_0.xyz")
    k = 0.02 * Hartree / Bohr**2  # teacher; the student's is 0.018
    for force, at in zip(found, frames, strict=True):
        sites = np.round(at.values @ np.linalg.inv(at.cell) * 4) / 4 @ at.cell
        d = at.values - sites
        np.testing.assert_allclose(force.values, -k * d * (1 + 0.3 * (d / Bohr) ** 2), atol=2e-3)


def test_the_teachers_forces_are_found_by_its_place(tmp_path: Path) -> None:
    text = (inputs_folder() / "nvt_dmts.xml").read_text()
    one, two = (re.search(f"<force forcefield='{k}'.*</force>", text)[0] for k in BOTH)
    swapped = text.replace(one, "ONE").replace(two, one).replace("ONE", two)
    file = tmp_path / "input.xml"
    for content, filename in (
        (text, "md.forces.xyz"),
        (swapped, None),  # these would be the student's
        (swapped.replace("(index=0)", "(index=1)"), "md.forces.xyz"),
        (text.replace("forces_component(index=0)", "forces"), None),
    ):
        file.write_text(content)
        at = read_input(file).teacher_forces
        assert (at.filename if at else None) == filename


def test_one_inner_step_equals_single_time_steps(ran: Path) -> None:
    one = outputs.read_properties(ran / "nvt_one.properties")
    sts = outputs.read_properties(ran / "nvt_sts.properties")
    for key in ("temperature_K", "potential_eV", "conserved_eV"):
        np.testing.assert_allclose(one[key], sts[key], rtol=1e-10)
