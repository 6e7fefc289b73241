"""A driver's model and connection: what they tell telemetry, and when."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import numpy as np
import pytest

from dmts_ipi.core.errors import ModelFault
from dmts_ipi.core.model import ForceResult
from dmts_ipi.ipi.client.client_session import ConnectionLost, Session, header
from dmts_ipi.ipi.client.driver_model import AtomicUnitsModel
from dmts_ipi.watchdog.endpoints import Addresses, addresses
from dmts_ipi.watchdog.messages import TOPIC, digest
from dmts_ipi.watchdog.publisher import Publisher

NUMBERS = np.array([8, 1, 1])
RNG = np.random.default_rng(4)
LIMIT_S = 60.0


@pytest.fixture
def at(tmp_path: Path) -> dict[str, Addresses]:
    found = addresses(f"ipc://{tmp_path}/student", "")
    assert found is not None
    return {"student": found}


class Spring:
    """A force model that can fail."""

    name, elements, cutoff_A = "spring", None, 5.0

    def compute(
        self, numbers: np.ndarray, x: np.ndarray, cell: np.ndarray, pbc: np.ndarray
    ) -> ForceResult:
        if x[0, 0] > 50:
            raise ValueError("too far")
        return ForceResult(1.0, -x, None)


def test_a_model_tells_its_observer(at: dict[str, Addresses]) -> None:
    publisher = Publisher("student", at["student"], 3, "cpu", reference=False)
    model = AtomicUnitsModel(Spring(), NUMBERS, True, observer=publisher)
    h, x = np.eye(3) * 20, RNG.normal(size=(3, 3))
    model.parameters({})
    sent = x.copy()
    model.compute(h, sent)
    assert (publisher.connection, publisher.evaluation) == (1, 0)
    sent += 1.0  # as i-PI may, in shared memory, once it has its answer
    model.answered()
    model.answered()
    assert (publisher.connection, publisher.evaluation) == (1, 1)
    recent = publisher._recent
    assert recent is not None
    found = recent.find(digest(x))
    assert found is not None
    np.testing.assert_allclose(found.forces, -x * 0.529177, rtol=1e-5)
    with pytest.raises(ModelFault, match="evaluation 2: ValueError: too far"):
        model.compute(h, x + 1000)
    assert publisher._started is None
    model.parameters({})
    assert (publisher.connection, publisher.evaluation) == (2, 0)
    publisher.close()


@pytest.mark.parametrize("together", [True, False])
def test_nothing_is_unread_during_an_evaluation(together: bool) -> None:
    """So the kernel ends the connection of a killed driver with an end of file, not a reset."""
    ours, theirs = socket.socketpair()
    unread: list[bytes] = []

    told: list[int] = []

    class Evaluator:
        numbers = NUMBERS

        def answered(self) -> None:
            told.append(len(unread))

        def parameters(self, fields: dict[str, str]) -> None:
            pass

        def compute(self, h: np.ndarray, x: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
            try:
                unread.append(ours.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
            except BlockingIOError:
                unread.append(b"")
            return 2.0, x, np.zeros((3, 3))

    thread = threading.Thread(target=Session(ours, Evaluator()).run)
    thread.start()
    theirs.settimeout(LIMIT_S)
    theirs.sendall(header("INIT") + b"\0\0\0\0\0\0\0\0")
    x = RNG.normal(size=(3, 3))
    for _ in range(2):
        data = header("POSDATA") + bytes(144) + np.int32(3).tobytes() + x.tobytes()
        theirs.sendall(data + header("GETFORCE") if together else data)
        if not together:
            theirs.sendall(header("STATUS"))
            assert theirs.recv(12, socket.MSG_WAITALL) == header("HAVEDATA")
            theirs.sendall(header("GETFORCE"))
        reply = theirs.recv(12 + 8 + 4 + 72 + 72 + 4, socket.MSG_WAITALL)
        np.testing.assert_array_equal(np.frombuffer(reply, float, 9, 24), x.ravel())
        theirs.sendall(header("STATUS"))
        assert theirs.recv(12, socket.MSG_WAITALL) == header("READY")
    theirs.sendall(header("EXIT"))
    thread.join(LIMIT_S)
    assert not thread.is_alive()
    assert unread == ([b"", b""] if together else [b"S", b"S"])
    assert told == [1, 2]
    theirs.close()
    ours.close()
    assert TOPIC == b"dmts-ipi.1"


def test_an_evaluation_that_nobody_takes_is_told_of_all_the_same(at: dict[str, Addresses]) -> None:
    """At once: told with the first one of the next connection it would pass for that."""
    publisher = Publisher("student", at["student"], 3, "cpu", reference=False)
    ours, theirs = socket.socketpair()
    theirs.sendall(header("INIT") + bytes(8))
    data = header("POSDATA") + bytes(144) + np.int32(3).tobytes() + RNG.normal(size=9).tobytes()
    theirs.sendall(data)
    theirs.close()
    model = AtomicUnitsModel(Spring(), NUMBERS, True, observer=publisher)
    with pytest.raises(ConnectionLost):
        Session(ours, model).run()
    assert (publisher.connection, publisher.evaluation) == (1, 1)
    ours.close()
    publisher.close()
