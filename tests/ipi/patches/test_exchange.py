"""Exchange on the calling thread: the same figures as i-PI's own, sockets that lose drivers."""

from __future__ import annotations

import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ipi.interfaces.sockets import InterfaceSocket
from ipi.utils.softexit import softexit

from dmts_ipi.ipi.motion import level_forces
from dmts_ipi.ipi.patches import exchange
from exchange_tools import (
    FORCES,
    LIMIT_S,
    PLAIN,
    Evaluator,
    SocketRun,
    serve,
    serve_forgetful,
    socket_run,
    sockets,
)
from integrator_pes import Waters
from integrator_tools import Run, simulation_xml
from run_tools import command, until

STEPS, N = 5, 4


@pytest.fixture
def direct() -> Iterator[None]:
    exchange.install()
    yield
    exchange.remove()


def state(run: Run) -> np.ndarray:
    return np.concatenate([run.q[0], run.p[0]])


@pytest.fixture(scope="module")
def wanted() -> np.ndarray:
    """Positions and momenta of a run without sockets, through i-PI's own force objects."""
    run = Run(simulation_xml(PLAIN))
    run.integrator._level_forces = level_forces.DependForces(
        run.integrator.forces, run.system.beads
    )
    return state(run.step(STEPS))


def counts(run: SocketRun) -> dict[str, int]:
    return {name: field.socket.counts.forces for name, field in run.fields.items()}


def test_past_ipis_force_objects_nothing_changes(wanted: np.ndarray) -> None:
    run = Run(simulation_xml(PLAIN))
    calls: list[str] = []
    for name, field in run.simulation.fflist.items():
        plain = field.driver.compute_structure
        field.driver.compute_structure = lambda h, x, name=name, plain=plain: (
            calls.append(name),
            plain(h, x),
        )[1]
    np.testing.assert_array_equal(state(run.step(STEPS)), wanted)
    assert isinstance(run.integrator._level_forces, level_forces.ArrayForces)
    assert calls.count("f0") == STEPS + 1
    assert calls.count("f1") == N * STEPS + 1
    before = len(calls)
    pots = float(run.system.forces.pot)  # i-PI was told: nothing is evaluated again
    assert len(calls) == before
    again = Run(simulation_xml(PLAIN)).set(q=run.q[0])
    assert float(again.system.forces.pot) == pytest.approx(pots, rel=1e-14)


@pytest.mark.parametrize("mode", ["unix", "shm"])
def test_sockets_give_the_same_to_the_last_digit(
    mode: str, wanted: np.ndarray, direct: None
) -> None:
    before = set(threading.enumerate())
    with socket_run(mode) as run:
        begun = set(threading.enumerate()) - before
        assert not [t for t in begun if t.name.startswith("poll_")]
        np.testing.assert_array_equal(state(run.step(STEPS)), wanted)
        assert counts(run) == {"f0": STEPS + 1, "f1": N * STEPS + 1}
        # greeting, after INIT, after the first force: never again
        assert [f.socket.counts.questions for f in run.fields.values()] == [3, 3]
        assert not run.fields["f0"].requests


def test_by_ipis_poll_thread_they_are_the_same(wanted: np.ndarray) -> None:
    with socket_run() as run:
        assert not isinstance(run.fields["f0"].socket, exchange.DirectInterface)
        np.testing.assert_array_equal(state(run.step(STEPS)), wanted)


def test_through_ipis_force_objects_too(wanted: np.ndarray, direct: None) -> None:
    with socket_run() as run:
        forces = level_forces.DependForces(run.integrator.forces, run.system.beads)
        run.integrator._level_forces = forces
        np.testing.assert_array_equal(state(run.step(STEPS)), wanted)
        assert counts(run) == {"f0": STEPS + 1, "f1": N * STEPS + 1}


@pytest.mark.parametrize("past", [True, False])
def test_both_requests_of_an_outer_step_are_out_before_an_answer(past: bool, direct: None) -> None:
    """The student answers the last inner step only after the teacher has begun, and the other way
    round: one request after the other would wait for ever."""
    begun = {"f0": threading.Semaphore(0), "f1": threading.Semaphore(0)}
    failed: list[str] = []

    def meet(name: str, other: str, calls: Any) -> Any:
        def before(k: int) -> None:
            if calls(k):
                begun[name].release()
                if not begun[other].acquire(timeout=LIMIT_S / 2):
                    failed.append(name)

        return before

    with socket_run(drivers=False) as run:
        if not past:
            forces = level_forces.DependForces(run.integrator.forces, run.system.beads)
            run.integrator._level_forces = forces
        # The first evaluation is that of the start. In the first step a driver may still owe its
        # status, and be asked a moment later.
        run.driver("f0", Evaluator("f0", meet("f0", "f1", lambda k: k > 2)))
        run.driver("f1", Evaluator("f1", meet("f1", "f0", lambda k: k > 1 + N and k % N == 1)))
        run.step(3)
    assert failed == []


def test_a_driver_that_forgets_is_initialised_each_time(wanted: np.ndarray, direct: None) -> None:
    with socket_run(drivers=False) as run:
        run.driver("f0")
        serve_forgetful(run.names["f1"], Waters(**FORCES["f1"]))
        np.testing.assert_array_equal(state(run.step(STEPS)), wanted)
        forces, questions = N * STEPS + 1, run.fields["f1"].socket.counts.questions
        assert counts(run)["f1"] == forces
        assert questions == 1 + 2 * forces  # greeting; after each INIT, after each force


@pytest.mark.parametrize("how", ["raises", "reset"])
def test_a_driver_that_dies_in_a_force_is_replaced_at_the_same_step(
    how: str, wanted: np.ndarray, direct: None
) -> None:
    with socket_run(drivers=False) as run:
        run.driver("f0")

        def dies(k: int) -> None:
            if k == 6:
                client = run.clients[1]
                if how == "reset" and client._sock is not None:
                    client._sock.close()
                run.driver("f1")
                raise RuntimeError("gone")

        run.driver("f1", Evaluator("f1", dies))
        np.testing.assert_array_equal(state(run.step(STEPS)), wanted)
        assert run.fields["f1"].socket.counts.lost == 1
        assert counts(run)["f1"] == N * STEPS + 1


def test_a_late_driver_is_taken_while_its_force_is_waited_for(
    wanted: np.ndarray, direct: None
) -> None:
    with socket_run(drivers=False) as run:
        asked = threading.Event()
        run.driver("f0", Evaluator("f0", lambda k: asked.set()))

        def later() -> None:
            asked.wait(LIMIT_S)  # i-PI is in its first step by now
            run.driver("f1")

        threading.Thread(target=later, daemon=True).start()
        np.testing.assert_array_equal(state(run.step(STEPS)), wanted)


def test_a_driver_that_answers_too_late_is_dropped(direct: None) -> None:
    hanging, dropped = threading.Event(), threading.Event()
    with socket_run(drivers=False, more="") as run:
        run.driver("f0")
        interface = run.fields["f1"].socket
        interface.timeout = 0.2
        drop = interface._drop

        def heard(client: Any, why: str) -> None:
            drop(client, why)
            interface.timeout = LIMIT_S  # the next one may be slow
            dropped.set()

        interface._drop = heard

        def follows() -> None:
            dropped.wait(LIMIT_S)
            run.driver("f1")

        threading.Thread(target=follows, daemon=True).start()
        run.driver("f1", Evaluator("f1", lambda k: hanging.wait(LIMIT_S) and None))
        run.step(1)
        assert interface.counts.lost == 1
        hanging.set()


def test_a_connection_that_is_reset_at_once_does_no_harm() -> None:
    """As by a program that looks for open ports."""
    interface = exchange.DirectInterface(address="127.0.0.1", port=0, mode="inet")
    interface.requests = []
    interface.open()
    try:
        with socket.create_connection(interface.server.getsockname()) as stranger:
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        interface._turn(LIMIT_S)
        assert interface.clients == []
    finally:
        interface.server.close()


def test_a_stop_ends_the_wait(direct: None) -> None:
    with socket_run(drivers=False) as run:
        field = run.fields["f0"]
        request = exchange.ask(field, run.q[0], (np.eye(3) * 14, np.eye(3) / 14))
        threading.Timer(0.05, field.stop).start()
        field.socket.wait_for(request, LIMIT_S)
        until(lambda: bool(request["status"] == "Exit"))  # by the thread that stops, a moment later


@pytest.mark.parametrize(
    ("mode", "more"),
    [
        ("unix", "<consolidate_messages>False</consolidate_messages>"),
        ("shm", "<batch_size>2</batch_size>"),
    ],
)
def test_other_ways_of_messages_stay_ipis_own(mode: str, more: str, direct: None) -> None:
    with socket_run(mode, more) as run:
        field = run.fields["f0"]
        assert not exchange.is_direct(field)
        assert field._thread.is_alive()
        if "consolidate" in more:
            np.testing.assert_array_equal(
                state(run.step(1)), state(Run(simulation_xml(PLAIN)).step(1))
            )


def test_the_parts_of_a_committee_stay_ipis_own(direct: None) -> None:
    """A committee looks whether its parts are done; it waits for none of them."""
    names = {k: f"dmts_test_{uuid.uuid4().hex[:10]}" for k in ("f0", "a", "b")}
    parts = "".join(
        f"<ffsocket name='{k}' mode='unix' pbc='False'><address>{names[k]}</address></ffsocket>"
        for k in ("a", "b")
    )
    xml = sockets(simulation_xml(PLAIN), {"f0": names["f0"]})
    committee = f"<ffcommittee name='f1' pbc='False'>{parts}</ffcommittee>"
    run = Run(re.sub(r"<ffdirect name='f1'.*?</ffdirect>", committee, xml, flags=re.DOTALL))
    fields = run.simulation.fflist
    clients = [serve(at, Evaluator("f0" if k == "f0" else "f1")) for k, at in names.items()]
    try:
        for field in fields.values():
            field.start()
        assert exchange.is_direct(fields["f0"])
        assert not any(exchange.is_direct(part) for part in fields["f1"].fflist)
        wanted = state(Run(simulation_xml(PLAIN)).step(1))
        np.testing.assert_allclose(state(run.step(1)), wanted, rtol=1e-12, atol=1e-12)
    finally:
        for client in clients:
            client.stop()
        for field in (*fields["f1"].fflist, *fields.values()):
            field.stop()
        for name in names.values():
            Path(f"/tmp/ipi_{name}").unlink(missing_ok=True)
        softexit.flist.clear()


def test_register_can_be_taken_back() -> None:
    import ipi.inputs.forcefields as inputs
    from ipi.engine.forcefields import FFSocket

    stock = FFSocket.queue, FFSocket.start, FFSocket.stop
    exchange.install()
    exchange.install()
    assert inputs.InterfaceSocket is exchange.DirectInterface
    exchange.remove()
    assert inputs.InterfaceSocket is InterfaceSocket
    assert (FFSocket.queue, FFSocket.start, FFSocket.stop) == stock


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_sigterm_ends_an_ipi_that_waits_for_a_driver(tmp_path: Path) -> None:
    names = {field: f"dmts_test_{uuid.uuid4().hex[:10]}" for field in FORCES}
    (tmp_path / "input.xml").write_text(sockets(simulation_xml(PLAIN), names))
    process = subprocess.Popen(
        command("i-pi", "input.xml"),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        listening = [Path(f"/tmp/ipi_{name}") for name in names.values()]
        until(lambda: all(p.exists() for p in listening) or process.poll() is not None)
        # the handler of the signal comes a moment after the sockets
        until(lambda: bool(process.poll() is not None or terminated(process)))
        output, _ = process.communicate(timeout=250)
    finally:
        process.kill()
        for path in listening:
            path.unlink(missing_ok=True)
    assert process.returncode == 0, output
    assert "Kill signal received" in output
    assert "</simulation>" in (tmp_path / "RESTART").read_text()


def terminated(process: subprocess.Popen[str]) -> bool:
    """Sends SIGTERM once i-PI catches it (Linux tells); whether it was sent."""
    text = Path(f"/proc/{process.pid}/status").read_text()
    caught = int(text.partition("SigCgt:")[2].split()[0], 16)
    if not caught >> (signal.SIGTERM - 1) & 1:
        return False
    process.send_signal(signal.SIGTERM)
    return True
