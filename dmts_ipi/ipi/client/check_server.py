"""The server side of i-PI's socket protocol, as far as a check of drivers needs it.

Written from i-PI's protocol and not from our client, so that a mistake in one shows in the other.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable

import numpy as np

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.model import ForceResult
from dmts_ipi.ipi import units

from .client import Endpoint


class DriverFault(ConnectionError):
    """The driver does not answer as the protocol says, or not in time, or is gone."""


class Server:
    """Listens where i-PI would listen. A context manager: the socket file goes with it.

    Raises:
        InputError: the address is in use.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        family = socket.AF_UNIX if endpoint.path else socket.AF_INET
        self._sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            if not endpoint.path:
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._sock.bind(endpoint.path or (endpoint.host, endpoint.port))
        except OSError as error:
            self._sock.close()
            field = "unix" if endpoint.path else "port"
            raise InputError(
                field,
                endpoint,
                f"cannot be used ({error.strerror}); end the i-PI that has it, remove a file that "
                "a killed one left, or take another",
            ) from error
        self._sock.listen(1)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stops listening and removes the socket file."""
        self._sock.close()
        if self.endpoint.path and os.path.exists(self.endpoint.path):
            os.unlink(self.endpoint.path)

    def accept(
        self, timeout_s: float, alive: Callable[[], None] = lambda: None, reply_s: float = 60.0
    ) -> Connection:
        """Waits for a driver.

        Args:
            timeout_s: limit of the wait.
            alive: called now and then; raises when the driver's process has ended.
            reply_s: limit for every answer of the driver.

        Raises:
            DriverFault: nobody came.
        """
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            alive()
            self._sock.settimeout(min(left_s, 0.5))
            try:
                sock, _ = self._sock.accept()
            except TimeoutError:
                continue
            return Connection(sock, reply_s)
        raise DriverFault(f"no driver connected to {self.endpoint} within {timeout_s:g} s")


class Connection:
    """One connected driver. Every wait ends after ``reply_s`` seconds with a ``DriverFault``."""

    def __init__(self, sock: socket.socket, reply_s: float) -> None:
        self._sock = sock
        sock.settimeout(reply_s)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        """Closes without a word, as a killed i-PI does."""
        self._sock.close()

    def send(self, data: bytes) -> None:
        """Sends raw bytes."""
        try:
            self._sock.sendall(data)
        except OSError as error:
            raise DriverFault(f"the driver is gone: {error}") from error

    def receive(self, size: int) -> bytes:
        """Receives exactly ``size`` bytes."""
        data = bytearray()
        while len(data) < size:
            try:
                part = self._sock.recv(size - len(data))
            except TimeoutError as error:
                raise DriverFault("the driver does not answer") from error
            except OSError as error:
                raise DriverFault(f"the driver is gone: {error}") from error
            if not part:
                raise DriverFault(f"the driver closed the connection, {len(data)} of {size} bytes")
            data += part
        return bytes(data)

    def command(self, text: str) -> None:
        """Sends a header."""
        self.send(text.ljust(12).encode())

    def header(self) -> str:
        """Receives a header."""
        return self.receive(12).decode("ascii", errors="replace").rstrip()

    def status(self) -> str:
        """Asks STATUS; returns NEEDINIT, READY or HAVEDATA."""
        self.command("STATUS")
        return self.header()

    def initialise(self, text: str = " ", replica: int = 0) -> None:
        """Sends INIT with a parameter text."""
        body = text.encode()
        self.send(b"INIT".ljust(12) + struct.pack("=ii", replica, len(body)) + body)

    def forces(self, n: int) -> tuple[float, np.ndarray, np.ndarray, str]:
        """Receives what follows GETFORCE, in atomic units: energy, forces, virial, extras."""
        head = self.header()
        if head != "FORCEREADY":
            raise DriverFault(f"answer to GETFORCE is {head!r}, expected FORCEREADY")
        energy, count = struct.unpack("=di", self.receive(12))
        if count != n:
            raise DriverFault(f"forces of {count} atoms, expected {n}")
        f = np.frombuffer(self.receive(24 * n)).reshape(n, 3).copy()
        w = np.frombuffer(self.receive(72)).reshape(3, 3).copy()
        (length,) = struct.unpack("=i", self.receive(4))
        if not 0 <= length < 1 << 28:
            raise DriverFault(f"extras of {length} bytes")
        return energy, f, w, self.receive(length).decode("utf-8", errors="replace")

    def wait_for_end(self, timeout_s: float) -> bool:
        """Whether the driver closes its side within the limit."""
        self._sock.settimeout(timeout_s)
        try:
            return not self._sock.recv(1)
        except ConnectionError:
            return True
        except TimeoutError:
            return False


def posdata(positions_A: np.ndarray, cell_A: np.ndarray) -> bytes:
    """The POSDATA message of one structure."""
    h = units.cell_to_ipi(cell_A)
    x = units.positions_to_ipi(positions_A)
    return b"".join(
        [
            b"POSDATA".ljust(12),
            h.tobytes(),
            np.linalg.pinv(h).tobytes(),
            struct.pack("=i", len(x)),
            np.ascontiguousarray(x).tobytes(),
        ]
    )


class RemoteModel:
    """A driver as a force model; elements, number of atoms and periodicity are its own."""

    elements: frozenset[int] | None = None
    cutoff_A: float | None = None
    conservative = False

    def __init__(self, connection: Connection, name: str) -> None:
        self.connection, self.name, self.identity = connection, name, name

    def compute(
        self, numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray
    ) -> ForceResult:
        """Asks the driver as i-PI does by default: POSDATA and GETFORCE in one message."""
        self.connection.send(posdata(positions, cell) + b"GETFORCE".ljust(12))
        return to_result(*self.connection.forces(len(numbers)))


def to_result(energy: float, forces: np.ndarray, virial: np.ndarray, extras: str) -> ForceResult:
    """Atomic units -> a ``ForceResult``; a virial of exact zeros counts as absent."""
    return ForceResult(
        units.energy_from_ipi(energy),
        units.forces_from_ipi(forces),
        units.virial_from_ipi(virial) if virial.any() else None,
    )
