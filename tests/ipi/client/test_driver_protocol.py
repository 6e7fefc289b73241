"""Our socket client, in this process, against a server that does what i-PI may do."""

from __future__ import annotations

import struct
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from dmts_ipi.core.errors import InputError, RunFault
from dmts_ipi.ipi import units
from dmts_ipi.ipi.client.check_server import DriverFault, Server, posdata
from dmts_ipi.ipi.client.client import Client, Endpoint
from dmts_ipi.ipi.client.client_session import ProtocolFault, parse_parameters
from driver_models import PairModel, evaluator
from driver_tools import LIMIT_S, accept


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
    with pytest.raises(InputError, match="gives no virial, which NPT needs"):
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


def test_parameters_of_init() -> None:
    assert parse_parameters(" virial : required , batch_size:4") == {
        "virial": "required",
        "batch_size": "4",
    }
    assert parse_parameters("\0") == {}
