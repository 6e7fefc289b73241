"""One connection to i-PI: the client side of its socket protocol (i-PI 3.3).

Messages are headers of 12 bytes, each followed by binary data in native byte order:

==========  ==================================================================================
STATUS      answered by NEEDINIT, READY or HAVEDATA
INIT        int32 replica, int32 length, text ``key : value , ...``; ``batch_size:B`` is i-PI's
POSDATA     h (3,3), its inverse (3,3), int32 n, positions (n,3); in batches int32 n,
            B times (h, inverse), positions (B,n,3); in shared memory int32 n, and the first
            time six names of segments
GETFORCE    answered by FORCEREADY, B energies, int32 n, forces (B,n,3), virials (B,3,3),
            B times an int32 length and that many bytes of text; in shared memory only the texts
EXIT        the end
==========  ==================================================================================

Which of the three transports i-PI uses is read off its messages; nobody has to say it twice.
"""

from __future__ import annotations

import select
import socket
import struct
import sys
from collections.abc import Callable
from multiprocessing import shared_memory
from typing import Protocol

import numpy as np

from dmts_ipi.core.errors import DmtsError, InputError

HEADER_BYTES = 12
REQUEST_LIMIT_S = 1e-3  # GETFORCE is under way with the positions, if it comes at all
LINGER_S = 1.0  # how long a close waits for the other side to see it
MAX_INIT_BYTES = 1 << 20
MAX_BATCH = 4096
SEGMENTS = ("pos", "h", "ih", "pot", "force", "vir")


class ConnectionLost(Exception):
    """The other side is gone: end of file, reset, or a message cut short."""


class ProtocolFault(DmtsError):
    """The other side does not speak i-PI's protocol."""

    status = 4


class Evaluator(Protocol):
    """What a session asks for forces: ``AtomicUnitsModel``, or a stub."""

    numbers: np.ndarray

    def compute(
        self, h_bohr: np.ndarray, positions_bohr: np.ndarray
    ) -> tuple[float, np.ndarray, np.ndarray]:
        """Energy, forces (n, 3) and virial (3, 3), all in atomic units."""
        ...

    def compute_batch(
        self, h_bohr: np.ndarray, positions_bohr: np.ndarray
    ) -> list[tuple[float, np.ndarray, np.ndarray]]:
        """The same of several structures, (B, 3, 3) and (B, n, 3)."""
        ...

    def answered(self) -> None:
        """The answer has been sent, or never will be."""
        ...

    def parameters(self, fields: dict[str, str]) -> None:
        """Takes the parameters of INIT."""
        ...


def header(text: str) -> bytes:
    """A header as it goes over the wire."""
    return text.ljust(HEADER_BYTES).encode()


_EXIT, _STATUS, _INIT = header("EXIT"), header("STATUS"), header("INIT")
_POSDATA, _GETFORCE = header("POSDATA"), header("GETFORCE")
_NEEDINIT, _READY, _HAVEDATA = header("NEEDINIT"), header("READY"), header("HAVEDATA")
_FORCEREADY = header("FORCEREADY")


def parse_parameters(text: str) -> dict[str, str]:
    """``key : value , key : value`` -> dict; what does not look so is left out."""
    pairs = (token.partition(":") for token in text.replace("\0", "").split(","))
    return {k.strip(): v.strip() for k, colon, v in pairs if colon and k.strip()}


class Session:
    """Serves one connection until it ends. Buffers are made once, at the first structure.

    Args:
        sock: connected.
        evaluator: answers structures.
        greeting_s: limit of the wait for the first message; i-PI greets as soon as it takes a
            connection, and from then on may be silent for as long as it likes.
        greeted: called at the first message.
    """

    def __init__(
        self,
        sock: socket.socket,
        evaluator: Evaluator,
        greeting_s: float = float("inf"),
        greeted: Callable[[], None] = lambda: None,
    ) -> None:
        self.evaluations = 0
        self.heard = False  # whether any message came
        self._sock = sock
        self._greeting_s, self._greeted = greeting_s, greeted
        self._evaluator = evaluator
        self._n = len(evaluator.numbers)
        self._batch = 1
        self._head = bytearray(HEADER_BYTES)
        self._head_view = memoryview(self._head)
        self._buffers: _Buffers | None = None
        self._has_data = False

    def run(self) -> None:
        """Answers until EXIT.

        Raises:
            ConnectionLost: the connection ended without EXIT.
            ProtocolFault: an unknown header, or one out of order.
            DmtsError: the evaluator failed.
        """
        initialised = False
        try:
            if self._greeting_s < float("inf"):
                self._sock.settimeout(max(self._greeting_s, 1e-3))
            while True:
                self._fill(self._head_view)
                if not self.heard:
                    self.heard = True
                    self._sock.settimeout(None)
                    self._greeted()
                head = bytes(self._head)
                if head == _POSDATA:
                    self._evaluate()
                elif head == _GETFORCE:
                    self._reply()
                elif head == _STATUS:
                    ready = _HAVEDATA if self._has_data else _READY
                    self._send(ready if initialised else _NEEDINIT)
                elif head == _INIT:
                    self._initialise()
                    initialised = True
                elif head == _EXIT:
                    return
                else:
                    raise ProtocolFault(f"unknown header {head!r} from the server; is it i-PI?")
        finally:
            if self._has_data:  # no answer went out; the next connection counts anew
                self._evaluator.answered()
            if self._buffers is not None:
                self._buffers.close()

    def _fill(self, view: memoryview) -> None:
        got, size = 0, len(view)
        while got < size:
            try:
                part = self._sock.recv_into(view[got:], 0, socket.MSG_WAITALL)
            except OSError as error:
                raise ConnectionLost(str(error)) from error
            if part == 0:
                raise ConnectionLost("end of file" if got == 0 else "a message was cut short")
            got += part

    def _send(self, data: bytes | bytearray) -> None:
        try:
            self._sock.sendall(data)
        except OSError as error:
            raise ConnectionLost(str(error)) from error

    def _initialise(self) -> None:
        head = bytearray(8)
        self._fill(memoryview(head))
        _replica, length = struct.unpack("=ii", head)
        if not 0 <= length <= MAX_INIT_BYTES:
            raise ProtocolFault(f"INIT announces {length} bytes")
        text = bytearray(length)
        self._fill(memoryview(text))
        fields = parse_parameters(text.decode("utf-8", errors="replace"))
        try:
            batch = int(fields.pop("batch_size", "1"))
        except ValueError:
            batch = 1
        if not 1 <= batch <= MAX_BATCH:
            raise ProtocolFault(f"INIT announces batch_size {batch}, allowed are 1 to {MAX_BATCH}")
        self._batch = batch
        self._evaluator.parameters(fields)

    def _evaluate(self) -> None:
        if self._buffers is None:
            # The third word tells: i-PI's segments are named ipi_shm_..., a cell is not.
            first = bytearray(12)
            self._fill(memoryview(first))
            kind = _SharedBuffers if first[8:12] == b"ipi_" else _WireBuffers
            self._buffers = kind(self._n, self._batch, bytes(first), self._fill)
        else:
            self._buffers.receive(self._fill)
        asked = self._take_request()
        cells, positions = self._buffers.cells, self._buffers.positions
        real = _structures(cells, positions)
        self.evaluations += real
        if real == 1:
            results = [self._evaluator.compute(cells[0], positions[0])]
        else:
            results = self._evaluator.compute_batch(cells[:real], positions[:real])
        for k in range(self._batch):
            self._buffers.store(k, *results[min(k, real - 1)])
        self._has_data = True
        if asked:
            self._reply()

    def _take_request(self) -> bool:
        """Reads the GETFORCE that i-PI sends along with the positions, before the evaluation.

        The kernel resets a connection that ends with unread data, and i-PI's poll thread dies of
        a reset. With nothing unread, a driver that is killed in the middle of a force leaves a
        clean end of file: i-PI asks the next driver, at the very same step.
        """
        try:
            waiting, _, _ = select.select([self._sock], [], [], REQUEST_LIMIT_S)
            if not waiting or self._sock.recv(HEADER_BYTES, socket.MSG_PEEK) != _GETFORCE:
                return False
        except (OSError, ValueError):
            return False  # told of when the answer is sent
        self._fill(self._head_view)
        return True

    def _reply(self) -> None:
        if not self._has_data or self._buffers is None:
            raise ProtocolFault("GETFORCE came before POSDATA")
        self._send(self._buffers.reply)
        self._has_data = False
        self._evaluator.answered()


def _structures(cells: np.ndarray, positions: np.ndarray) -> int:
    """How many structures of a batch are to be evaluated: i-PI fills it up with the last one."""
    real = len(positions)
    while real > 1 and (
        np.array_equal(positions[real - 1], positions[real - 2])
        and np.array_equal(cells[real - 1], cells[real - 2])
    ):
        real -= 1
    return real


class _Buffers:
    """Where structures arrive and results leave; views of shape (B, ...) in atomic units."""

    cells: np.ndarray  # (B, 3, 3)
    positions: np.ndarray  # (B, n, 3)
    reply: bytearray
    _energies: np.ndarray
    _forces: np.ndarray
    _virials: np.ndarray

    def __init__(
        self, n: int, batch: int, first: bytes, fill: Callable[[memoryview], None]
    ) -> None:
        raise NotImplementedError

    def receive(self, fill: Callable[[memoryview], None]) -> None:
        """Reads what follows the header POSDATA."""
        raise NotImplementedError

    def store(self, k: int, energy: float, forces: np.ndarray, virial: np.ndarray) -> None:
        """Puts one result in its place."""
        self._energies[k] = energy
        self._forces[k] = forces
        self._virials[k] = virial

    def close(self) -> None:
        """Lets go of what the operating system holds."""


def _require_count(sent: int, n: int) -> None:
    if sent != n:
        raise InputError(
            "structure",
            f"{n} atoms",
            f"i-PI sends {sent} atoms; give i-PI and the driver the same structure",
        )


class _WireBuffers(_Buffers):
    def __init__(
        self, n: int, batch: int, first: bytes, fill: Callable[[memoryview], None]
    ) -> None:
        self._n = n
        cells = 144 * batch
        self._fixed = bytearray(cells + 4)
        self._fixed_view = memoryview(self._fixed)
        # A single structure has its atom count behind the cell, a batch in front.
        cells_at, self._count_at = (0, cells) if batch == 1 else (4, 0)
        both = np.ndarray((batch, 2, 3, 3), np.float64, self._fixed, offset=cells_at)
        self.cells = both[:, 0]
        data = bytearray(24 * n * batch)
        self._data_view = memoryview(data)
        self.positions = np.ndarray((batch, n, 3), np.float64, data)

        at = HEADER_BYTES
        self.reply = bytearray(at + 8 * batch + 4 + (24 * n + 72 + 4) * batch)
        self.reply[:at] = _FORCEREADY
        self._energies = np.ndarray((batch,), np.float64, self.reply, at)
        at += 8 * batch
        struct.pack_into("=i", self.reply, at, n)
        at += 4
        self._forces = np.ndarray((batch, n, 3), np.float64, self.reply, at)
        at += 24 * n * batch
        self._virials = np.ndarray((batch, 3, 3), np.float64, self.reply, at)

        self._fixed[: len(first)] = first
        fill(self._fixed_view[len(first) :])
        self._receive_positions(fill)

    def receive(self, fill: Callable[[memoryview], None]) -> None:
        fill(self._fixed_view)
        self._receive_positions(fill)

    def _receive_positions(self, fill: Callable[[memoryview], None]) -> None:
        _require_count(struct.unpack_from("=i", self._fixed, self._count_at)[0], self._n)
        fill(self._data_view)


class _SharedBuffers(_Buffers):
    def __init__(
        self, n: int, batch: int, first: bytes, fill: Callable[[memoryview], None]
    ) -> None:
        self._n = n
        self._count = bytearray(first[:4])
        self._segments: list[shared_memory.SharedMemory] = []
        _require_count(struct.unpack("=i", self._count)[0], n)
        rest = first[4:]
        shapes = {"pos": (batch, n, 3), "pot": (batch,), "force": (batch, n, 3)}
        views = {}
        for kind in SEGMENTS:
            (length,) = struct.unpack("=i", rest[:4] or _take(fill, 4))
            if not 0 < length <= 255:
                raise ProtocolFault(f"a shared segment has a name of {length} bytes")
            name = rest[4:] + _take(fill, length - len(rest[4:]))
            rest = b""
            segment = _attach(name.decode("utf-8", errors="replace"))
            self._segments.append(segment)
            views[kind] = np.ndarray(shapes.get(kind, (batch, 3, 3)), np.float64, segment.buf)
        self.positions, self.cells = views["pos"], views["h"]
        self._energies, self._forces, self._virials = views["pot"], views["force"], views["vir"]
        self.reply = bytearray(_FORCEREADY + b"\0\0\0\0" * batch)

    def receive(self, fill: Callable[[memoryview], None]) -> None:
        fill(memoryview(self._count))
        _require_count(struct.unpack("=i", self._count)[0], self._n)

    def close(self) -> None:
        none = np.zeros(0)  # a segment cannot be closed while arrays look into it
        self.positions = self.cells = self._energies = self._forces = self._virials = none
        for segment in self._segments:
            segment.close()


def _take(fill: Callable[[memoryview], None], size: int) -> bytes:
    data = bytearray(size)
    fill(memoryview(data))
    return bytes(data)


def _attach(name: str) -> shared_memory.SharedMemory:
    try:
        if sys.version_info >= (3, 13):
            return shared_memory.SharedMemory(name=name, track=False)
        from multiprocessing import resource_tracker

        segment = shared_memory.SharedMemory(name=name)
    except OSError as error:
        raise ProtocolFault(f"cannot open i-PI's shared memory '{name}': {error}") from error
    # i-PI owns the segment; without this Python would remove it when the driver ends.
    resource_tracker.unregister(segment._name, "shared_memory")  # type: ignore[attr-defined]
    return segment


def close_cleanly(sock: socket.socket, linger_s: float = LINGER_S) -> None:
    """Ends a connection so that i-PI sees an end of file, never a reset.

    A socket closed with unread data (the GETFORCE that i-PI sends along with the positions)
    resets the connection, and i-PI 3.3's poll thread dies of that: so stop sending, read until
    the other side has closed too or ``linger_s`` is over, then close.
    """
    import time

    deadline = time.monotonic() + linger_s
    try:
        sock.shutdown(socket.SHUT_WR)
        while (left := deadline - time.monotonic()) > 0:
            sock.settimeout(left)
            if not sock.recv(1 << 16):
                break
    except OSError:
        pass
    finally:
        sock.close()
