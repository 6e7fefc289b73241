"""Our drivers as programs, against a server written for the check, and against ASE's."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.socketio import SocketIOCalculator
from ase.io import write

from dmts_ipi.core.exit_codes import ExitCode
from dmts_ipi.ipi import units
from dmts_ipi.ipi.client.check_server import DriverFault, Server, posdata
from dmts_ipi.ipi.client.client import Endpoint
from driver_models import PairModel
from driver_tools import LIMIT_S, Start, accept, ask, programs
from places import ROOT, SUPPORT

PROGRAM = SUPPORT / "driver_models.py"
SCRIPTS = ROOT / "drivers"


@pytest.fixture
def structure(water: Atoms, tmp_path: Path) -> Path:
    path = tmp_path / "water.extxyz"
    write(path, water)
    return path


@pytest.fixture
def start(structure: Path) -> Iterator[Start]:
    """Starts driver programs."""
    with programs() as begin:

        def run(*options: str, model: str = "pair") -> object:
            words = ["--model", model, "--structure", structure, *options]
            return begin(sys.executable, PROGRAM, *words, stderr=subprocess.PIPE)

        yield run


@pytest.mark.parametrize("transport", ["unix", "tcp"])
def test_ase_gets_what_the_model_says(
    transport: str, water: Atoms, name: str, start: Start
) -> None:
    """Energy, forces and stress through ASE's own server equal a direct call."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    where = {"unixsocket": name} if transport == "unix" else {"port": port}
    options = ["--unix", name] if transport == "unix" else ["--port", str(port)]
    atoms = water.copy()
    driver = start(*options)
    with SocketIOCalculator(timeout=LIMIT_S, **where) as calc:
        atoms.calc = calc
        for seed in range(3):
            atoms.rattle(0.05, seed=seed)
            atoms.set_cell(atoms.cell * (1 + 0.01 * seed), scale_atoms=True)
            direct = PairModel().compute(
                atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc
            )
            assert direct.energy_eV is not None
            assert direct.virial_eV is not None
            assert atoms.get_potential_energy() == pytest.approx(direct.energy_eV, abs=1e-10)
            np.testing.assert_allclose(atoms.get_forces(), direct.forces_eV_per_A, atol=1e-10)
            stress = -direct.virial_eV / atoms.get_volume()
            np.testing.assert_allclose(atoms.get_stress(voigt=False), stress, atol=1e-10)
    driver.terminate()
    assert driver.wait(LIMIT_S) == 0


def test_driver_returns_with_the_model_loaded(
    water: Atoms, name: str, server: Server, start: Start
) -> None:
    """EXIT, a killed server and a message cut short: the same process answers the next server."""
    driver = start("--unix", name)
    link = accept(server)
    first = ask(link, water)
    link.command("EXIT")
    assert link.wait_for_end(LIMIT_S)
    link = accept(server)
    np.testing.assert_array_equal(ask(link, water)[1], first[1])
    link.close()
    server.close()
    with Server(Endpoint.unix(name)) as again:
        link = accept(again)
        link.send(posdata(water.positions, water.cell.array)[:100])
        link.close()
        link = accept(again)
        np.testing.assert_array_equal(ask(link, water)[1], first[1])
        link.close()
        driver.terminate()
        _, err = driver.communicate(timeout=LIMIT_S)
    assert err.count("ready in") == 1
    assert "i-PI said EXIT after 1 evaluations" in err
    assert "a message was cut short" in err


@pytest.mark.parametrize("script", ["nc_driver.py", "nnp_driver.py"])
def test_both_scripts_serve_any_model(
    script: str, water: Atoms, structure: Path, name: str, server: Server
) -> None:
    """Composition only: here with a calculator of ASE, named by its import path."""
    pytest.importorskip("dmts_ipi.models.ase")
    from ase.calculators.lj import LennardJones

    options = ["--structure", str(structure), "--unix", name]
    model = 'ase:ase.calculators.lj.LennardJones {"sigma": 1.0, "rc": 3.0}'
    command = [sys.executable, str(SCRIPTS / script), "--model", model, *options]
    driver = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        link = accept(server)
        _, forces, virial, _ = ask(link, water)
        water.calc = LennardJones(sigma=1.0, rc=3.0)
        f = units.forces_from_ipi(forces)
        np.testing.assert_allclose(f, water.get_forces(), rtol=1e-9, atol=1e-10)
        w = -water.get_stress(voigt=False) * water.get_volume()
        np.testing.assert_allclose(units.virial_from_ipi(virial), w, rtol=1e-9, atol=1e-10)
        link.close()
        driver.terminate()
        assert driver.wait(LIMIT_S) == 0
    finally:
        driver.kill()
        driver.communicate()


@pytest.mark.parametrize(
    ("number", "status", "state"),
    [
        (signal.SIGTERM, 0, "waiting"),
        (signal.SIGTERM, 0, "idle"),
        (signal.SIGTERM, 0, "computing"),
        (signal.SIGINT, 130, "computing"),
    ],
)
def test_signals_end_it_at_once(
    number: int, status: int, state: str, water: Atoms, name: str, start: Start
) -> None:
    """Before i-PI is there, between two evaluations, and inside one that takes ten minutes."""
    computing = state == "computing"
    driver = start("--unix", name, model="pair,fault=hang,at=4" if computing else "pair")
    assert driver.stderr is not None
    if state == "waiting":
        while "waiting at most" not in driver.stderr.readline():
            assert driver.poll() is None
        driver.send_signal(number)
    else:
        with Server(Endpoint.unix(name)) as server:
            link = accept(server)
            if computing:
                link.send(posdata(water.positions, water.cell.array) + b"GETFORCE".ljust(12))
                while driver.stderr.readline() != "hangs\n":  # into the evaluation
                    assert driver.poll() is None
            driver.send_signal(number)
            # An end of file, not a reset: i-PI's poll thread would die of that.
            with pytest.raises(DriverFault, match="closed the connection"):
                link.receive(12)
    assert driver.wait(LIMIT_S) == status


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("nan", "evaluation 2: pair: force on atom 1 is"),
        ("raise", "evaluation 2: RuntimeError: CUDA error: out of memory"),
        ("shape", "evaluation 2: pair: forces have shape (5, 3), expected (6, 3)"),
    ],
)
def test_a_failing_model_ends_with_one_line(
    fault: str, cause: str, water: Atoms, name: str, server: Server, start: Start
) -> None:
    """Warm-up takes three evaluations; then one is good, and the next one is not."""
    driver = start("--unix", name, model=f"pair,fault={fault},at=5")
    link = accept(server)
    ask(link, water)
    link.send(posdata(water.positions, water.cell.array) + b"GETFORCE".ljust(12))
    with pytest.raises(DriverFault, match=r"closed the connection, 0 of 12 bytes"):
        link.receive(12)
    link.close()
    _, err = driver.communicate(timeout=LIMIT_S)
    assert driver.returncode == ExitCode.MODEL_FAILED
    errors = [line for line in err.splitlines() if "error" in line]
    assert len(errors) == 1
    assert cause in errors[0]
    assert "Traceback" not in err


def test_wrong_atom_count_is_one_line(
    water: Atoms, name: str, server: Server, start: Start
) -> None:
    driver = start("--unix", name)
    link = accept(server)
    x = np.concatenate([water.positions, [[9.0, 9.0, 9.0]]])
    link.send(posdata(x, water.cell.array) + b"GETFORCE".ljust(12))
    with pytest.raises(DriverFault, match="closed the connection"):
        link.receive(12)
    link.close()
    _, err = driver.communicate(timeout=LIMIT_S)
    assert driver.returncode == 2
    assert "structure = 6 atoms: i-PI sends 7 atoms; give i-PI and the driver the same" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "port: give --unix NAME"),
        (["--unix", "a", "--port", "3"], "not both"),
        (["--port", "70000"], "port = 70000: must be between"),
        (["--unix", "x" * 120], "longer than 107 bytes"),
        (["--unix", "a", "--sockets-prefix", "/no/such/folder/"], "there is no folder"),
        (["--unix", "a", "--threads", "0"], "threads = 0"),
        (["--unix", "a", "--connect-timeout-s", "nan"], "connect_timeout_s = nan"),
        (["--unix", "a", "--structure", "/no/file.xyz"], "does not exist"),
        (["--unix", "a", "--model", "what"], "model = what: must be pair"),
    ],
)
def test_wrong_options_are_one_line(
    options: list[str], message: str, structure: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dmts_ipi.ipi.client.driver import main
    from driver_models import load

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    try:
        argv = ["--model", "pair", "--structure", str(structure), *options]
        assert main("test_driver", load, argv=argv) == 2
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])
        signal.set_wakeup_fd(-1)
    errors = [line for line in capsys.readouterr().err.splitlines() if "loading" not in line]
    assert len(errors) == 1
    assert message in errors[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [("element", "the model knows H, O"), ("close", "are closer than 0.3"), ("nan", "finite")],
)
def test_bad_structures_end_before_the_socket(
    change: str, message: str, water: Atoms, structure: Path, start: Start
) -> None:
    if change == "element":
        water.numbers[0] = 26
    else:
        water.positions[1] = water.positions[0] + 0.1 if change == "close" else np.nan
    write(structure, water)
    driver = start("--unix", "never_used")
    _, err = driver.communicate(timeout=LIMIT_S)
    assert driver.returncode == 2
    errors = [line for line in err.splitlines() if "loading" not in line]
    assert len(errors) == 1
    assert message in errors[0]


def test_no_socket_is_left_behind() -> None:
    assert not list(Path("/tmp").glob("ipi_never_used*"))
