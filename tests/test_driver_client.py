"""Our socket client against a server written for the check, and against ASE's."""

from __future__ import annotations

import signal
import socket
import struct
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.socketio import SocketIOCalculator
from ase.io import write
from driver_models import PairModel, evaluator, two_waters

from dmts_ipi.core.errors import InputError, RunFault
from dmts_ipi.ipi import units
from dmts_ipi.ipi.client.check_server import Connection, DriverFault, Server, posdata
from dmts_ipi.ipi.client.client import Client, Endpoint
from dmts_ipi.ipi.client.client_session import ProtocolFault, parse_parameters

PROGRAM = Path(__file__).parent / "driver_models.py"
SCRIPTS = Path(__file__).parent.parent / "drivers"
LIMIT_S = 100.0  # of every wait; far beyond what a busy machine needs
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def water() -> Atoms:
    return two_waters()


@pytest.fixture
def structure(water: Atoms, tmp_path: Path) -> Path:
    path = tmp_path / "water.extxyz"
    write(path, water)
    return path


@pytest.fixture
def name() -> Iterator[str]:
    """A unix socket name of this test alone."""
    unique = f"dmts_test_{uuid.uuid4().hex[:12]}"
    yield unique
    Path(f"/tmp/ipi_{unique}").unlink(missing_ok=True)


@pytest.fixture
def start(structure: Path) -> Iterator[Start]:
    """Starts driver programs, and ends by pid whatever is left of them."""
    running: list[subprocess.Popen[str]] = []

    def run(*options: str, model: str = "pair") -> subprocess.Popen[str]:
        command = [sys.executable, str(PROGRAM), "--model", model, "--structure", str(structure)]
        process = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True)
        running.append(process)
        return process

    yield run
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def server(name: str) -> Iterator[Server]:
    with Server(Endpoint.unix(name)) as s:
        yield s


def accept(server: Server) -> Connection:
    link = server.accept(LIMIT_S, reply_s=LIMIT_S)
    assert link.status() == "NEEDINIT"
    link.initialise()
    assert link.status() == "READY"
    return link


def ask(link: Connection, atoms: Atoms) -> tuple[float, np.ndarray, np.ndarray, str]:
    link.send(posdata(atoms.positions, atoms.cell.array) + b"GETFORCE".ljust(12))
    return link.forces(len(atoms))


def in_thread(client: Client) -> tuple[threading.Thread, list[BaseException]]:
    raised: list[BaseException] = []

    def serve() -> None:
        try:
            client.serve()
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread, raised


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
    pytest.importorskip("dmts_ipi.distill.teachers.ase")
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


def test_first_connection_has_a_limit(water: Atoms, name: str) -> None:
    news: list[str] = []
    client = Client(Endpoint.unix(name), evaluator(water), connect_timeout_s=0.3, say=news.append)
    with pytest.raises(RunFault, match=r"within 0\.3 s: start i-PI with this <address>"):
        client.serve()
    assert news == [f"waiting at most 0.3 s for i-PI at /tmp/ipi_{name}"]
    Path(f"/tmp/ipi_{name}").touch()
    with pytest.raises(RunFault, match="nobody answers"):
        client.serve()


def test_a_socket_left_in_the_private_folder_is_named(tmp_path: Path, name: str) -> None:
    endpoint = replace(Endpoint.unix(name), private=str(tmp_path / "left"))
    assert "start i-PI" in endpoint.hint()
    (tmp_path / "left").touch()
    assert "if a killed i-PI left it" in endpoint.hint()


def test_end_depends_on_how_ipi_went(water: Atoms, name: str) -> None:
    """After EXIT staying away is the normal end, after a crash it is a fault."""
    for exits in (True, False):
        client = Client(Endpoint.unix(name), evaluator(water), reconnect_timeout_s=0.2)
        with Server(Endpoint.unix(name)) as server:
            thread, raised = in_thread(client)
            link = accept(server)
            if exits:
                link.command("EXIT")
            link.close()
        thread.join(LIMIT_S)
        assert not thread.is_alive()
        assert not raised if exits else isinstance(raised[0], RunFault)


def test_server_that_drops_connections_ends_in_time(water: Atoms, server: Server) -> None:
    """Connections that are taken and dropped neither reset the limit nor make the client spin."""
    client = Client(server.endpoint, evaluator(water), connect_timeout_s=2.0)
    thread, raised = in_thread(client)
    drops = 0
    try:
        while thread.is_alive():
            server.accept(3.0).close()
            drops += 1
    except DriverFault:
        pass
    thread.join(LIMIT_S)
    assert isinstance(raised[0], RunFault)
    assert 2 <= drops < 30


def test_silent_server_ends_in_time(water: Atoms, server: Server) -> None:
    """The kernel takes the connection, but nobody greets: not i-PI, or it hangs."""
    client = Client(server.endpoint, evaluator(water), connect_timeout_s=0.3)
    with pytest.raises(RunFault, match=r"within 0\.3 s"):
        client.serve()


def test_a_stop_ends_the_wait_for_a_silent_server(water: Atoms, server: Server) -> None:
    client = Client(server.endpoint, evaluator(water), connect_timeout_s=1e5)
    thread, raised = in_thread(client)
    link = server.accept(LIMIT_S, reply_s=LIMIT_S)
    while client._sock is None:  # connected, and not greeted
        thread.join(0.01)
    stopping = threading.Thread(target=client.stop, daemon=True)
    stopping.start()
    stopping.join(LIMIT_S)
    thread.join(LIMIT_S)
    assert not stopping.is_alive()
    assert not thread.is_alive()
    assert raised == []
    link.close()


def test_unknown_header_is_a_fault(water: Atoms, server: Server) -> None:
    client = Client(server.endpoint, evaluator(water), connect_timeout_s=LIMIT_S)
    thread, raised = in_thread(client)
    for _ in range(3):
        link = server.accept(LIMIT_S)
        link.command("HTTP/1.1 400")
        assert link.wait_for_end(LIMIT_S)
        link.close()
    thread.join(LIMIT_S)
    assert isinstance(raised[0], ProtocolFault)
    assert "HTTP/1.1 400" in str(raised[0])


def test_getforce_without_positions_is_a_fault(water: Atoms, server: Server) -> None:
    client = Client(server.endpoint, evaluator(water))
    thread, _ = in_thread(client)
    link = accept(server)
    link.command("GETFORCE")
    assert link.wait_for_end(LIMIT_S)
    client.stop()
    thread.join(LIMIT_S)
    assert not thread.is_alive()


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
    assert driver.returncode == 4
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


def test_batches(water: Atoms, server: Server) -> None:
    """INIT announces a batch; three structures come and go in one exchange."""
    client = Client(server.endpoint, evaluator(water))
    thread, _ = in_thread(client)
    link = server.accept(LIMIT_S)
    link.initialise(" , batch_size:3")
    assert link.status() == "READY"
    rng, n = np.random.default_rng(1), len(water)
    xs = [water.positions + 0.1 * rng.normal(size=(n, 3)) for _ in range(3)]
    one = posdata(xs[0], water.cell.array)
    message = b"POSDATA".ljust(12) + struct.pack("=i", n) + one[12:156] * 3
    message += b"".join(units.positions_to_ipi(x).tobytes() for x in xs)
    for _ in range(2):
        link.send(message + b"GETFORCE".ljust(12))
        assert link.header() == "FORCEREADY"
        energies = np.frombuffer(link.receive(24))
        assert struct.unpack("=i", link.receive(4)) == (n,)
        forces = np.frombuffer(link.receive(3 * 24 * n)).reshape(3, n, 3)
        virials = np.frombuffer(link.receive(3 * 72)).reshape(3, 3, 3)
        assert link.receive(12) == bytes(12)
        for k, x in enumerate(xs):
            r = PairModel().compute(water.numbers, x, water.cell.array, water.pbc)
            assert r.virial_eV is not None
            assert units.energy_from_ipi(energies[k]) == pytest.approx(r.energy_eV, abs=1e-10)
            np.testing.assert_allclose(
                units.forces_from_ipi(forces[k]), r.forces_eV_per_A, atol=1e-10
            )
            np.testing.assert_allclose(units.virial_from_ipi(virials[k]), r.virial_eV, atol=1e-10)
    link.command("EXIT")
    client.stop()
    thread.join(LIMIT_S)
    link.close()


def test_virial_is_refused_where_it_is_needed(water: Atoms, name: str, server: Server) -> None:
    """By option, and by the parameters in i-PI's input; otherwise zeros go over the wire."""
    silent = evaluator(water, fault="no-virial")
    h, x = units.cell_to_ipi(water.cell.array), units.positions_to_ipi(water.positions)
    assert not silent.compute(h, x)[2].any()
    silent.need_virial = True
    with pytest.raises(InputError, match="NPT needs a model with virial"):
        silent.compute(h, x)
    silent.need_virial = False
    client = Client(server.endpoint, silent)
    thread, raised = in_thread(client)
    link = server.accept(LIMIT_S)
    link.initialise(" virial : required , ")
    assert link.wait_for_end(LIMIT_S)
    link.close()
    thread.join(LIMIT_S)
    assert isinstance(raised[0], InputError)


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
    from driver_models import load

    from dmts_ipi.ipi.client.driver import main

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


def test_parameters_of_init() -> None:
    assert parse_parameters(" virial : required , batch_size:4") == {
        "virial": "required",
        "batch_size": "4",
    }
    assert parse_parameters("\0") == {}


def test_no_socket_is_left_behind() -> None:
    assert not list(Path("/tmp").glob("ipi_never_used*"))
