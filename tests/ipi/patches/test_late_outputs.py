"""Outputs written while drivers work: the same files, also where a run ends before its time."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from integrator_tools import BONDS, HHF, LANGEVIN, simulation_xml, thermostat
from places import SUPPORT
from run_tools import until

OUTPUTS = """<output prefix='md'>
  <properties filename='properties' stride='2'>[step, time, conserved, kinetic_md, potential]
  </properties>
  <trajectory filename='positions' stride='3'> positions </trajectory>
  <trajectory filename='forces' stride='5' format='xyz'> forces </trajectory>
  <checkpoint filename='chk' stride='7' overwrite='False'/>
</output>"""
PROGRAM = """
import sys
from dmts_ipi.ipi.patches.integrators import install
from dmts_ipi.ipi.patches import deferred_outputs
install()
deferred_outputs.install()
if sys.argv[1] == "at once":
    deferred_outputs.DeferredOutputs.defer = lambda self: False
from ipi.engine.simulation import Simulation
write, count = deferred_outputs.DeferredOutputs._write, 0
def counted(self):
    global count
    write(self)
    count = self.count
deferred_outputs.DeferredOutputs._write = counted
simulation = Simulation.load_from_xml(open("input.xml"))
try:
    simulation.run()
finally:
    print("late", count, flush=True)
"""
PES = f"""
import sys, time
sys.path.insert(0, {str(SUPPORT)!r})
from integrator_pes import Waters
__DRIVER_NAME__, __DRIVER_CLASS__ = "special", "Special"
class Special(Waters):
    calls = 0
    def compute_structure(self, cell, pos):
        Special.calls += 1
        ACT
        return super().compute_structure(cell, pos)
"""
FAILS = "if Special.calls == 90: raise RuntimeError('this is the end')"
SLOW = "time.sleep(0.003)"


def special(folder: Path, act: str, xml: str) -> str:
    """The input with a PES that also does something else."""
    file = folder / "special.py"
    file.write_text(PES.replace("ACT", act))
    return xml.replace(str(SUPPORT / "integrator_pes.py"), str(file))


def with_outputs(xml: str, threading: bool = False) -> str:
    xml = re.sub(r"<output.*?</output>", OUTPUTS, xml, flags=re.S)
    return xml.replace("<simulation ", f"<simulation threading='{threading}' ", 1)


@dataclass
class Done:
    """What a run left: its files, how many steps were written late, its exit status."""

    files: dict[str, bytes]
    late: int
    status: int


def both_ways(folder: Path, xml: str) -> tuple[Done, Done]:
    """A run whose outputs are written at once, and one where they may wait."""
    started = []
    for how in ("at once", "late"):
        here = folder / how
        here.mkdir()
        (here / "input.xml").write_text(xml)
        command = [sys.executable, "-W", "ignore", "-c", PROGRAM, how]
        pipe = subprocess.PIPE
        started.append((here, subprocess.Popen(command, cwd=here, stdout=pipe, stderr=pipe)))
    done = []
    for here, process in started:
        out, err = process.communicate(timeout=300)
        found = re.search(rb"^late (\d+)$", out, re.M)
        assert found is not None, err
        files = {f.name: _same(f.read_bytes()) for f in here.iterdir() if f.name.startswith("md.")}
        done.append(Done(files, int(found[1]), process.returncode))
    return done[0], done[1]


def _same(text: bytes) -> bytes:
    """Without what i-PI says of the moment of writing."""
    return re.sub(rb"<!--.*?-->", b"", text, flags=re.S)


@pytest.mark.parametrize(
    ("inside", "options", "late"),
    [
        (thermostat(HHF), {}, True),
        (thermostat(HHF + BONDS), {"fixcom": True}, True),
        ("", {"mode": "nve"}, True),
        (thermostat("<tau units='femtosecond'>100</tau>", "svr"), {}, False),  # i-PI's momenta
        (LANGEVIN, {"splitting": "baoab"}, False),
    ],
    ids=["langevin", "bonds", "nve", "svr", "baoab"],
)
def test_files_are_the_same(inside: str, options: dict, late: bool, tmp_path: Path) -> None:
    xml = with_outputs(simulation_xml(inside, total=24, **options))
    plain, other = both_ways(tmp_path, xml)
    assert (plain.status, other.status) == (0, 0)
    assert plain.files.keys() == other.files.keys()
    assert len(plain.files) == 7  # a table, two trajectories, three checkpoints and the first
    for name, text in plain.files.items():
        assert other.files[name] == text, name
    assert plain.late == 0
    # steps with an output, less those with a checkpoint and the last one
    active = [k for k in range(1, 24) if (k % 2 == 0 or k % 3 == 0 or k % 5 == 0) and k % 7]
    assert other.late == (len(active) if late else 0)


def test_what_waits_is_written_when_a_step_fails(tmp_path: Path) -> None:
    xml = special(tmp_path, FAILS, with_outputs(simulation_xml(thermostat(HHF), total=40)))
    plain, other = both_ways(tmp_path, xml)
    assert (plain.status, other.status) == (1, 1)
    assert other.late > 5
    assert other.files == plain.files
    rows = np.loadtxt(plain.files["md.properties"].decode().splitlines())
    assert 4 < rows[-1, 0] < 40


def test_a_stopped_run_has_all_lines_up_to_its_restart(tmp_path: Path) -> None:
    """i-PI ends from the thread that looks for a signal, in the middle of a step."""
    xml = with_outputs(simulation_xml(thermostat(HHF))).replace("stride='2'", "stride='1'", 1)
    xml = special(tmp_path, SLOW, xml.replace("safe_stride='1000000'", "safe_stride='1'"))
    (tmp_path / "input.xml").write_text(xml)
    hard = "from ipi.utils.softexit import softexit\nsoftexit.hard_exit = True\n"
    command = [sys.executable, "-W", "ignore", "-c", hard + PROGRAM, "late"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        table = tmp_path / "md.properties"
        until(lambda: table.exists() and table.read_bytes().count(b"\n") > 30)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    rows = np.loadtxt(table)
    np.testing.assert_array_equal(rows[:, 0], np.arange(len(rows)))
    step = re.search(r"<step>\s*(\d+)", (tmp_path / "RESTART").read_text())
    assert step is not None
    assert int(step[1]) == rows[-1, 0]
