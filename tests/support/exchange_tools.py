"""Runs of i-PI within this process with drivers in threads, for tests of the exchange."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ipi.utils.softexit import softexit

from dmts_ipi.ipi.client.client import Client, Endpoint
from integrator_pes import Waters
from integrator_tools import Run, simulation_xml, thermostat

FORCES: dict[str, dict[str, float]] = {
    "f0": {"k": 0.5},
    "f1": {"k": 0.47, "bend": 0.16, "site": 0.011},
}
PLAIN = thermostat("<tau units='femtosecond'>200</tau>")
LIMIT_S = 60.0


class Evaluator:
    """Evaluates waters for a driver; ``before`` is called at the start of each evaluation."""

    def __init__(self, name: str, before: Callable[[int], None] = lambda k: None) -> None:
        self.numbers = np.tile([8, 1, 1], 8)
        self.waters, self.before, self.calls = Waters(**FORCES[name]), before, 0

    def compute(self, h: np.ndarray, x: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        self.calls += 1
        self.before(self.calls)
        return self.waters.compute_structure(np.array(h), np.array(x))[:3]

    def compute_batch(
        self, h: np.ndarray, x: np.ndarray
    ) -> list[tuple[float, np.ndarray, np.ndarray]]:
        return [self.compute(*one) for one in zip(h, x, strict=True)]

    def answered(self) -> None:
        """Nobody to tell."""

    def parameters(self, fields: dict[str, str]) -> None:
        """Nothing to set."""


def sockets(xml: str, names: dict[str, str], mode: str = "unix", more: str = "") -> str:
    """An input with sockets in the place of its ``<ffdirect>``."""
    for field, address in names.items():
        xml = re.sub(
            rf"<ffdirect name='{field}'.*?</ffdirect>",
            f"<ffsocket name='{field}' mode='{mode}' pbc='False'><address>{address}</address>"
            f"<timeout>{LIMIT_S}</timeout>{more}</ffsocket>",
            xml,
            flags=re.DOTALL,
        )
    return xml


def replicas(xml: str, copies: int) -> str:
    """An input with its system several times; each draws velocities of its own."""
    return re.sub(r"<system>.*</system>", lambda m: m[0] * copies, xml, flags=re.DOTALL)


def serve(address: str, evaluator: Any) -> Client:
    """A driver in a thread; ``stop`` ends it."""
    client = Client(
        Endpoint.unix(address), evaluator, connect_timeout_s=LIMIT_S, reconnect_timeout_s=LIMIT_S
    )

    def run() -> None:
        with contextlib.suppress(Exception):  # a driver that fails is what some tests want
            client.serve()

    threading.Thread(target=run, daemon=True).start()
    return client


def serve_forgetful(address: str, waters: Waters) -> threading.Thread:
    """A driver, in a thread, that wants INIT again after each force, as ASE's does."""

    def run(sock: socket.socket) -> None:
        ready = False
        stream = sock.makefile("rb")
        while head := stream.read(12):
            word = head.decode().strip()
            if word == "STATUS":
                sock.sendall(b"READY       " if ready else b"NEEDINIT    ")
            elif word == "INIT":
                stream.read(struct.unpack("=ii", stream.read(8))[1])
                ready = True
            elif word == "POSDATA":
                h = np.frombuffer(stream.read(72)).reshape(3, 3)
                stream.read(72)
                n = struct.unpack("=i", stream.read(4))[0]
                x = np.frombuffer(stream.read(24 * n)).reshape(n, 3)
                energy, f, virial, _ = waters.compute_structure(h, x)
            elif word == "GETFORCE":
                head = b"FORCEREADY  " + struct.pack("=di", energy, n)
                sock.sendall(head + f.tobytes() + virial.tobytes() + struct.pack("=i", 0))
                ready = False
            else:
                break
        sock.close()

    sock = Endpoint.unix(address).connect(LIMIT_S)

    def quietly() -> None:
        with contextlib.suppress(OSError):  # the run is over
            run(sock)

    thread = threading.Thread(target=quietly, daemon=True)
    thread.start()
    return thread


class SocketRun(Run):
    """``Run`` with sockets; ``fields`` are i-PI's forcefields by name."""

    def __init__(self, mode: str = "unix", more: str = "", copies: int = 1, **options: Any) -> None:
        self.names = {f: f"dmts_test_{uuid.uuid4().hex[:10]}" for f in FORCES}
        xml = replicas(simulation_xml(options.pop("inside", PLAIN), **options), copies)
        super().__init__(sockets(xml, self.names, mode, more))
        self.fields: dict[str, Any] = self.simulation.fflist
        self.clients: list[Client] = []
        for field in self.fields.values():
            field.start()

    def driver(self, name: str, evaluator: Any = None) -> Any:
        """Starts a driver of a forcefield; its evaluator."""
        evaluator = evaluator or Evaluator(name)
        self.clients.append(serve(self.names[name], evaluator))
        return evaluator


@contextlib.contextmanager
def socket_run(*args: Any, drivers: bool = True, **options: Any) -> Iterator[SocketRun]:
    """A run, and one driver for each forcefield; all ended afterwards."""
    run = SocketRun(*args, **options)
    try:
        for name in FORCES if drivers else ():
            run.driver(name)
        yield run
    finally:
        for client in run.clients:
            client.stop()
        for name, field in run.fields.items():
            field.stop()
            Path(f"/tmp/ipi_{run.names[name]}").unlink(missing_ok=True)
        softexit.flist.clear()
