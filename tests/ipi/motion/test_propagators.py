"""Propagators and thermostats of another package, run by ``dmts-ipi i-pi``, and restarted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import toy_motion
from dmts_ipi.core.exit_codes import ExitCode
from dmts_ipi.core.propagator import Propagator
from dmts_ipi.ipi.motion.propagators import PROPAGATORS, Splitting
from integrator_tools import HHF, KELVIN, LANGEVIN, Run, simulation_xml, thermostat
from places import SUPPORT

ANDERSEN = "<thermostat mode='andersen'><tau units='femtosecond'>40</tau></thermostat>"
CHAIN = ANDERSEN.replace("andersen", "chain")
OUTPUT = (
    "<properties filename='properties' stride='1'>[ step, time, conserved, temperature{kelvin}, "
    "potential, kinetic_md ]</properties><checkpoint filename='chk' stride='6' overwrite='False'/>"
)


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toys in this process."""
    from dmts_ipi.ipi.thermostats import THERMOSTATS

    for registry, name, row in (
        (PROPAGATORS, "verlet-halves", toy_motion.VerletHalves),
        (THERMOSTATS, "andersen", toy_motion.Andersen),
        (THERMOSTATS, "chain", toy_motion.Chain),
    ):
        monkeypatch.setitem(registry._own, name, row)
        monkeypatch.setitem(registry._loaded, name, row)


def run_ipi(folder: Path, packages: Path, text: str) -> subprocess.CompletedProcess[str]:
    folder.mkdir()
    (folder / "input.xml").write_text(
        text.replace("<checkpoint filename='chk' stride='1000000'/>", OUTPUT)
    )
    paths = [str(packages), str(SUPPORT), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, "-m", "dmts_ipi.cli", "i-pi", "input.xml"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)},
    )


def last(folder: Path) -> np.ndarray:
    rows = (folder / "md.properties").read_text().splitlines()
    return np.array([float(x) for x in rows[-1].split()])


OURS = {
    "propagator": (LANGEVIN, {"splitting": "verlet-halves"}),
    "propagator, nve": ("", {"splitting": "verlet-halves", "mode": "nve"}),
    "propagator, options": (
        thermostat(HHF) + "<propagator>{halves: 3}</propagator>",
        {"splitting": "verlet-halves"},
    ),
    "thermostat": (ANDERSEN, {}),
    "thermostat, stock splitting": (ANDERSEN, {"splitting": "baoab"}),
    "thermostat, fixcom": (ANDERSEN, {"fixcom": True}),
    "thermostat with a state": (CHAIN, {}),
    "both": (ANDERSEN, {"splitting": "verlet-halves"}),
}


@pytest.mark.parametrize("case", OURS)
def test_of_another_package_it_runs_and_restarts(tmp_path: Path, case: str) -> None:
    inside, options = OURS[case]
    packages = toy_motion.install_package(tmp_path / "packages")
    text = simulation_xml(inside, total=12, **options)
    done = run_ipi(tmp_path / "whole", packages, text)
    assert done.returncode == 0, done.stdout + done.stderr
    checkpoint = (tmp_path / "whole" / "md.chk_1").read_text()
    assert "<step>6" in "".join(checkpoint.split())
    done = run_ipi(tmp_path / "rest", packages, checkpoint)
    assert done.returncode == 0, done.stdout + done.stderr
    np.testing.assert_allclose(
        last(tmp_path / "rest"), last(tmp_path / "whole"), rtol=1e-10, atol=1e-12
    )
    first = (tmp_path / "whole" / "md.properties").read_text().splitlines()[-13]
    assert abs(float(first.split()[3]) - last(tmp_path / "whole")[3]) > 1e-3  # it moves


def test_a_propagator_that_fails_ends_with_the_status_of_a_model(tmp_path: Path) -> None:
    packages = toy_motion.install_package(tmp_path / "packages")
    done = run_ipi(tmp_path / "run", packages, simulation_xml(LANGEVIN, splitting="runs-away"))
    assert done.returncode == ExitCode.MODEL_FAILED
    assert (
        done.stderr.strip()
        .splitlines()[-1]
        .startswith("dmts-ipi i-pi: error: propagator runs-away: positions after a stride are not")
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (simulation_xml(LANGEVIN, splitting="leapfrog"), "dynamics splitting = leapfrog: is not"),
        (simulation_xml(LANGEVIN.replace("langevin", "warm")), "thermostat = warm: is not known"),
        (
            simulation_xml(LANGEVIN, splitting="verlet-halves", mode="npt"),
            "dynamics mode = npt: splitting 'verlet-halves' has nve, nvt",
        ),
        (
            simulation_xml(LANGEVIN, splitting="verlet-halves", nbeads=2),
            "dynamics splitting = verlet-halves: takes one bead",
        ),
        (simulation_xml(ANDERSEN, nbeads=2), "thermostat = andersen: acts on atoms: one bead"),
        (
            simulation_xml(LANGEVIN + "<propagator>{a: 1}</propagator>", splitting="verlet-halves"),
            "propagator = {'a'}: takes halves only",
        ),
        (
            simulation_xml(LANGEVIN + "<propagator>{a: 1}</propagator>"),
            "splitting 'baoab-respa' has no options",
        ),
    ],
)
def test_wrong_input(tmp_path: Path, text: str, message: str) -> None:
    packages = toy_motion.install_package(tmp_path / "packages")
    done = run_ipi(tmp_path / "run", packages, text)
    assert done.returncode == ExitCode.WRONG_INPUT
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_toy_is_velocity_verlet(toys: None) -> None:
    """The force of a level is i-PI's, evaluated once per position; the energy is conserved."""
    text = simulation_xml("", splitting="verlet-halves", mode="nve", outer_fs=0.5)
    run, plain = (
        Run(text),
        Run(simulation_xml("", mode="nve", splitting="obabo", outer_fs=0.25, levels="[1, 1]")),
    )
    start = run.conserved
    run.step(40)
    plain.step(80)
    np.testing.assert_allclose(run.q, plain.q, rtol=0, atol=1e-10)
    assert run.conserved == pytest.approx(start, abs=2e-5)


def test_a_thermostat_of_another_package_has_the_same_two_paths(
    toys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast, general = Run(simulation_xml(ANDERSEN)), Run(simulation_xml(ANDERSEN))
    monkeypatch.setattr(general.integrator, "uses_array_loop", lambda: False)
    assert fast.integrator.beads_lag_one_step()
    fast.step(20)
    general.step(20)
    np.testing.assert_allclose(fast.q, general.q, rtol=0, atol=1e-10)
    np.testing.assert_allclose(fast.p, general.p, rtol=0, atol=1e-9)
    assert fast.conserved == pytest.approx(general.conserved, abs=1e-10)


def test_andersen_keeps_the_temperature(toys: None) -> None:
    run = Run(simulation_xml(ANDERSEN, kelvin=300.0, levels="[1, 2]", outer_fs=1.0))
    seen = [run.step(2).kelvin for _ in range(1500)]
    assert np.mean(seen[100:]) == pytest.approx(300.0, abs=12.0)
    assert KELVIN > 0


def test_what_each_row_says_of_itself() -> None:
    for name in ("obabo", "baoab", "baoab-respa"):
        row = PROPAGATORS.get(name)
        assert isinstance(row, Splitting)
        assert row.label
        assert row.conserves
    assert isinstance(toy_motion.VerletHalves({}), Propagator)
