"""Our drivers under real i-PI processes, and our models inside i-PI's own driver."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import read, write

from dmts_ipi.core.exit_codes import ExitCode
from driver_models import PairModel
from driver_tools import Start, programs
from places import ROOT, SUPPORT

PES = ROOT / "drivers" / "ipi_pes.py"
BIN = Path(sys.executable).parent
LIMIT_S = 120

INPUT = """
<simulation verbosity='low' floatformat='%24.16e'>
  <output prefix='md'>
    <properties stride='1' filename='out'>
      [ step, potential{{electronvolt}}, virial_md{{ase}} ] </properties>
    <trajectory stride='1' filename='pos' format='ase'> positions </trajectory>
    <trajectory stride='1' filename='for' format='ase'> forces </trajectory>
    <checkpoint filename='chk' stride='1' overwrite='true'/>
  </output>
  <total_steps> {steps} </total_steps>
  <prng> <seed> 1 </seed> </prng>
  {force}
  <system>
    <initialize nbeads='1'>
      <file mode='ase'> water.extxyz </file>
      <velocities mode='thermal' units='kelvin'> 300 </velocities>
    </initialize>
    <forces> <force forcefield='f'/> </forces>
    <ensemble> <temperature units='kelvin'> 300 </temperature> </ensemble>
    <motion mode='dynamics'>
      <dynamics mode='nve'> <timestep units='femtosecond'> 0.5 </timestep> </dynamics>
    </motion>
  </system>
</simulation>
"""
SOCKET = "<ffsocket name='f' mode='{mode}' pbc='false'><address>{name}</address>{more}</ffsocket>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    x = [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0], [2.6, 0.3, 1], [3.2, 1, 1.2], [2.9, -0.4, 1.6]]
    atoms = Atoms("OH2OH2", x, cell=[[5.5, 0, 0], [0.7, 5.2, 0], [-0.3, 0.4, 5.8]], pbc=True)
    write(tmp_path / "water.extxyz", atoms)
    return tmp_path


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Starts processes in the folder."""
    with programs() as begin:

        def run(*command: object) -> subprocess.Popen[str]:
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
            return begin(*command, cwd=folder, **pipes)

        yield run


@pytest.fixture
def ipi(folder: Path, start: Start, name: str) -> Start:
    """Starts i-PI on a short run."""

    def run(steps: int, mode: str = "unix", more: str = "", force: str = "") -> object:
        section = force or SOCKET.format(mode=mode, name=name, more=more)
        (folder / "input.xml").write_text(INPUT.format(steps=steps, force=section))
        return start(BIN / "i-pi", "input.xml")

    return run


@pytest.fixture
def driver(start: Start, name: str) -> Start:
    def run(*options: str, model: str = "pair") -> subprocess.Popen[str]:
        program = SUPPORT / "driver_models.py"
        where = ["--structure", "water.extxyz", "--unix", name]
        return start(sys.executable, program, "--model", model, *where, *options)

    return run


def check_outputs(folder: Path, steps: int) -> None:
    """Energies, forces and pressure of the files are the model's at the files' positions."""
    table = np.loadtxt(folder / "md.out", ndmin=2)
    np.testing.assert_array_equal(table[:, 0], np.arange(steps + 1))
    frames = read(folder / "md.pos_0.extxyz", index=":")
    forces = read(folder / "md.for_0.extxyz", index=":")
    for k, atoms in enumerate(frames):
        r = PairModel().compute(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)
        # i-PI's electronvolt and ase's differ in the eighth digit
        assert table[k, 1] == pytest.approx(r.energy_eV, rel=3e-7)
        column = forces[k].get_forces()
        np.testing.assert_allclose(column, r.forces_eV_per_A, rtol=1e-6, atol=1e-6)
        assert r.virial_eV is not None
        w = r.virial_eV[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]] / atoms.get_volume()
        np.testing.assert_allclose(table[k, 2:], w, atol=1e-7)


@pytest.mark.parametrize(
    ("mode", "more"),
    [
        ("unix", ""),
        ("shm", ""),
        ("unix", "<consolidate_messages>False</consolidate_messages>"),
        ("shm", "<batch_size>2</batch_size>"),
    ],
)
def test_ipi_gets_what_the_model_says(
    mode: str, more: str, folder: Path, ipi: Start, driver: Start
) -> None:
    """Every transport of i-PI, with the same driver and the same options."""
    server, client = ipi(4, mode=mode, more=more), driver()
    out, _ = server.communicate(timeout=LIMIT_S)
    assert server.returncode == 0, out
    assert client.stdout is not None
    while "i-PI said EXIT after" not in (line := client.stdout.readline()):
        assert line, "the driver ended without a word of it"
    client.terminate()
    client.communicate(timeout=LIMIT_S)
    assert client.returncode == 0
    check_outputs(folder, 4)


def test_killed_ipi_comes_back(folder: Path, ipi: Start, driver: Start, name: str) -> None:
    """i-PI is killed in the middle and started from its checkpoint; the driver stays."""
    server, client = ipi(1_000_000), driver()
    output = folder / "md.out"
    wait_for(lambda: output.exists() and output.read_text().count("\n") > 20, server)
    server.send_signal(signal.SIGKILL)
    server.wait(LIMIT_S)
    for path in folder.glob("md.*"):
        if "chk" not in path.name:
            path.unlink()
    os.unlink(f"/tmp/ipi_{name}")
    again = ipi(3)
    out, _ = again.communicate(timeout=LIMIT_S)
    assert again.returncode == 0, out
    client.terminate()
    err, _ = client.communicate(timeout=LIMIT_S)
    assert client.returncode == 0
    assert err.count("ready in") == 1
    assert "connection to i-PI lost" in err
    check_outputs(folder, 3)


@pytest.mark.parametrize("more", ["", "<consolidate_messages>False</consolidate_messages>"])
def test_ipi_never_sees_nan_and_takes_another_driver(
    more: str, folder: Path, ipi: Start, driver: Start
) -> None:
    """A model that fails ends with one line; i-PI's poll thread lives, and a good driver takes
    over at the very step."""
    server = ipi(5, more=more)
    bad = driver(model="pair,fault=nan,at=6")
    err, _ = bad.communicate(timeout=LIMIT_S)
    assert bad.returncode == ExitCode.MODEL_FAILED
    assert "error: evaluation 3: pair: force on atom 1 is" in err
    assert server.poll() is None
    good = driver()
    out, _ = server.communicate(timeout=LIMIT_S)
    assert server.returncode == 0, out
    good.terminate()
    good.communicate(timeout=LIMIT_S)
    assert "nan" not in (folder / "md.out").read_text().lower()
    check_outputs(folder, 5)


def test_npt_input_refuses_a_model_without_virial(ipi: Start, driver: Start) -> None:
    server = ipi(3, more="<parameters> {virial: required} </parameters>")
    client = driver(model="pair,fault=no-virial")
    err, _ = client.communicate(timeout=LIMIT_S)
    assert client.returncode == 2
    assert (
        "virial = pair: the model gives no virial, which NPT needs; use another model or nvt" in err
    )
    server.kill()


PLUGIN = """
import sys
sys.path.insert(0, {tests!r})
import driver_models
import dmts_ipi.models.load as models
models.load_model = driver_models.load
exec(compile(open({pes!r}).read(), {pes!r}, "exec"))
"""


def test_our_model_in_ipis_own_driver(folder: Path, ipi: Start, start: Start, name: str) -> None:
    pytest.importorskip("dmts_ipi.models.load")
    (folder / "pes.py").write_text(PLUGIN.format(tests=str(SUPPORT), pes=str(PES)))
    server = ipi(3)
    wait_for(Path(f"/tmp/ipi_{name}").exists, server)
    options = ["-u", "-a", name, "-m", "custom", "-P", "pes.py"]
    client = start(BIN / "i-pi-driver-py", *options, "-o", "model=pair,structure=water.extxyz")
    out, _ = server.communicate(timeout=LIMIT_S)
    assert server.returncode == 0, out
    assert client.wait(LIMIT_S) == 0
    check_outputs(folder, 3)


def test_our_model_inside_ipi(folder: Path, ipi: Start) -> None:
    """``<ffdirect>`` needs no driver at all."""
    pytest.importorskip("dmts_ipi.models.load")
    (folder / "pes.py").write_text(PLUGIN.format(tests=str(SUPPORT), pes=str(PES)))
    force = (
        "<ffdirect name='f'><pes>custom</pes><pes_path>pes.py</pes_path>"
        "<parameters>{model: pair, structure: water.extxyz}</parameters></ffdirect>"
    )
    server = ipi(3, force=force)
    out, _ = server.communicate(timeout=LIMIT_S)
    assert server.returncode == 0, out
    check_outputs(folder, 3)


def wait_for(ready: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Waits until ``ready``, as long as the process lives and at most ``LIMIT_S``."""
    for _ in range(int(LIMIT_S / 0.05)):
        if ready():
            return
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
        break
    raise AssertionError(process.communicate()[0])
