"""``dmts-ipi i-pi``: nothing changes for plain inputs, ours run and restart, the rest is told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dmts_ipi.ipi.run_folder.resources import ipi_script
from integrator_tools import HHF, LANGEVIN, THERMOSTATS, simulation_xml, thermostat
from run_tools import call

WRAPPED = [sys.executable, "-m", "dmts_ipi.cli", "i-pi"]
PLAIN = [sys.executable, str(ipi_script())]
OUTPUT = (
    "<properties filename='properties' stride='1'>[ step, conserved, temperature{kelvin}, "
    "kinetic_cv, potential, pressure_cv ]</properties><trajectory filename='pos' stride='2'>"
    "positions</trajectory><checkpoint filename='chk' stride='6' overwrite='False'/>"
)


def ipi(command: list[str], folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    (folder / "input.xml").write_text(text)
    return subprocess.run(
        [*command, "input.xml"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def with_output(text: str) -> str:
    return text.replace("<checkpoint filename='chk' stride='1000000'/>", OUTPUT)


def figures(folder: Path) -> dict[str, bytes]:
    """Outputs by name; of checkpoints what comes after the comment, which holds the date."""
    files = {p.name: p.read_bytes() for p in folder.glob("md.*")}
    return {n: b.partition(b"-->")[2] if "chk" in n else b for n, b in files.items()}


@pytest.mark.parametrize(
    ("kind", "splitting", "nbeads"),
    [
        ("langevin", "obabo", 4),  # as i-PI's own example pimd+mts_liquid_water
        ("svr", "baoab", 1),
        ("gle", "baoab", 1),
    ],
)
def test_an_input_without_our_tags_runs_as_under_plain_ipi(
    tmp_path: Path, kind: str, splitting: str, nbeads: int
) -> None:
    text = with_output(
        simulation_xml(
            THERMOSTATS[kind],
            splitting=splitting,
            nbeads=nbeads,
            fixcom=True,
            weights=("[1, 0]", "[0, 1]"),
            forces=("k: 0, bend: 0", "site: 0"),
            total=12,
        )
    )
    for name, command in (("plain", PLAIN), ("ours", WRAPPED)):
        done = ipi(command, tmp_path / name, text)
        assert done.returncode == 0, done.stdout + done.stderr
    plain, ours = figures(tmp_path / "plain"), figures(tmp_path / "ours")
    assert len(plain) == 4 + nbeads  # properties, three checkpoints
    assert plain == ours


def test_checkpoints_of_ours_start_through_the_wrapper_only(tmp_path: Path) -> None:
    text = with_output(simulation_xml(thermostat(HHF, "ffl"), total=12))
    done = ipi(WRAPPED, tmp_path / "whole", text)
    assert done.returncode == 0, done.stdout + done.stderr
    checkpoint = (tmp_path / "whole" / "md.chk_0").read_text()
    assert "baoab-respa" in checkpoint
    assert "local_tau" in checkpoint
    done = ipi(WRAPPED, tmp_path / "rest", checkpoint)
    assert done.returncode == 0, done.stdout + done.stderr
    end = (tmp_path / "whole" / "md.properties").read_text().splitlines()[-1]
    again = (tmp_path / "rest" / "md.properties").read_text().splitlines()[-1]
    assert [float(x) for x in again.split()] == pytest.approx(
        [float(x) for x in end.split()], rel=1e-9
    )
    refused = ipi(PLAIN, tmp_path / "plain", checkpoint)
    assert refused.returncode != 0
    # what a person reads, in i-PI's words
    assert "'local_tau' is not a recognized property of 'thermostat'" in refused.stderr
    refused = ipi(PLAIN, tmp_path / "plain", simulation_xml(LANGEVIN))
    assert refused.returncode != 0
    assert "baoab-respa is not a valid option (['obabo', 'baoab'])" in refused.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (simulation_xml(thermostat(HHF.replace("H'", "D'"))), "local_tau = D: no such atom"),
        (simulation_xml(LANGEVIN.replace("200", "0")), "i-PI says: The thermostat friction"),
        (simulation_xml(LANGEVIN).replace("total_steps", "total_stops"), "'total_stops' is not"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "input.xml").write_text(text)
    done = call("i-pi", tmp_path / "input.xml")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("dmts-ipi i-pi: error: ")
    assert message in done.stderr


def test_a_file_that_is_not_there() -> None:
    done = call("i-pi", "absent.xml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "dmts-ipi i-pi: error: input = absent.xml: does not exist\n"


def test_files_are_synced_with_checkpoints_not_with_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ipi.engine.simulation import Simulation
    from ipi.utils.softexit import softexit

    from dmts_ipi.ipi.patches import output_sync

    monkeypatch.chdir(tmp_path)
    synced: list[int] = []
    monkeypatch.setattr(output_sync.os, "fsync", lambda stream: synced.append(stream.fileno()))
    text = with_output(simulation_xml(LANGEVIN, total=12))
    output_sync.install()
    try:
        simulation = Simulation.load_from_xml(text)
        simulation.threading = False  # else outputs and checkpoint of a step race
        lines: list[int] = []
        write = simulation.outputs[0].write

        def look() -> None:
            write()
            text = (tmp_path / "md.properties").read_text()
            lines.append(sum(not x.startswith("#") for x in text.splitlines()))

        simulation.outputs[0].write = look
        simulation.run()
    finally:
        output_sync.remove()
        softexit.flist.clear()
        softexit.reset()
    assert lines == list(range(1, 14))  # each is there for readers at once
    assert len(synced) == 3 * 2  # three checkpoints, two files
