"""Exchange with drivers on the thread that needs the force, instead of i-PI's poll thread.

i-PI hands a request to a poll thread, sleeps, and is woken when the answer is there: two changes
of thread for every force, each through Python's global lock. Here the thread that asks sends the
request, and receives the answer when it needs it. What goes over the socket is i-PI's protocol, so
any driver can be at the other end; results are the same to the last digit.

* All requests of a step are sent before the first answer is waited for.
* A driver that dies at any moment is dropped, and its request goes to the next one, at the same
  step. i-PI's own poll thread ends on a reset connection, and then no driver is served any more.
* Late drivers are taken while a force is waited for, as by i-PI.
* After a force i-PI asks each driver for its status. A driver that was ready once after a force
  is not asked again.

It applies to sockets with consolidated
messages and matching 'auto' or 'any', which i-PI's force objects ask; all others go on as before,
such as those of a committee, which looks after its parts by itself.

With ``<batch_size>`` (not in shared memory) structures of several systems or beads go out in one
message, as soon as it is full. One that is not full is filled up with its last structure, as by
i-PI, but only when somebody waits and nothing more has come for ``GRACE_S``.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import socket
import struct
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from ipi.engine.forcefields import FFSocket, ForceField, ForceRequest
from ipi.engine.forces import ForceBead
from ipi.inputs import forcefields as inputs
from ipi.interfaces.sockets import (
    HDRLEN,
    MESSAGE,
    Disconnected,
    Driver,
    InterfaceSocket,
    SHMDriver,
    Status,
)
from ipi.interfaces.utils import parse_extra
from ipi.utils.messages import info, verbosity, warning
from ipi.utils.softexit import softexit

from dmts_ipi.core.errors import RunFault

IO_LIMIT_S = 5.0  # of a message under way
SLICE_S = 0.1  # between looks at whether i-PI is to stop
STOP_LIMIT_S = 10.0
GRACE_S = 2e-3  # for a batch to become full
READY, BUSY = Status.Up | Status.Ready, Status.Up | Status.Busy
_STOCK = (FFSocket.queue, FFSocket.start, FFSocket.stop)
_STOCK_BIND = ForceBead.bind
_numbers = itertools.count()


@dataclass
class Counts:
    """What went over the sockets of a forcefield: forces of structures, messages with them,
    questions for a status, lost drivers."""

    forces: int = 0
    messages: int = 0
    questions: int = 0
    lost: int = 0


class DirectInterface(InterfaceSocket):  # type: ignore[misc]
    """i-PI's socket interface, driven by the threads that wait for forces."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.counts = Counts()
        self.stopping = False
        self.asked_by_beads = False
        self._lock = threading.RLock()

    @property
    def usable(self) -> bool:
        """Whether these settings are covered here."""
        return bool(
            self.asked_by_beads
            and self.consolidate_messages
            and (self.batch_size == 1 or self.mode != "shm")
            and self.match_mode != "lock"
            and not self.exit_on_disconnect
        )

    def send(self) -> None:
        """Sends what is queued to the drivers that are free, and returns."""
        with self._lock:
            if self.stopping:
                return
            asked = [c for c in self.clients if c.waitstatus]
            for client in self._wait(asked, 0.0) if asked else ():
                self._read_status(client)
            self._send_queued(full=True)

    def wait_for(self, request: ForceRequest, limit_s: float) -> None:
        """Returns when a request is done, i-PI is to stop, or the limit is over."""
        deadline = time.monotonic() + limit_s
        while request["status"] not in ("Done", "Exit"):
            left = deadline - time.monotonic()
            if left <= 0 or self.stopping or softexit.triggered:
                return
            if not self._lock.acquire(timeout=min(left, SLICE_S)):
                continue  # another thread is at it, and may bring this one's answer
            try:
                if request["status"] not in ("Done", "Exit") and not self.stopping:
                    self._turn(min(left, SLICE_S))
            finally:
                self._lock.release()

    def finish(self) -> None:
        """Ends all connections, once nobody is in the middle of a message."""
        self.stopping = True
        held = self._lock.acquire(timeout=STOP_LIMIT_S)
        try:
            self.close()
        finally:
            if held:
                self._lock.release()

    def _turn(self, limit_s: float) -> None:
        """Sends, waits for the first answer, and takes all that are there."""
        if self.batch_size > 1:
            self._send_queued(full=True)
            if any(r["status"] == "Queued" for r in self.requests) and self._idle():
                time.sleep(min(GRACE_S, limit_s))
        self._send_queued()
        waiting = [c for c in self.clients if c.asked or c.waitstatus]
        for ready in self._wait([self.server, *waiting], limit_s):
            if ready is self.server:
                self._accept()
            elif not ready.asked:
                self._read_status(ready)
            else:
                self._receive(ready)
        if self.timeout > 0:
            now = time.time()
            for client in self.clients[:]:
                if client.asked and now - client.asked[0]["start"] > self.timeout:
                    self._drop(client, f"has not answered for {self.timeout:g} s")

    def _wait(self, sockets: list[Any], limit_s: float) -> list[Any]:
        """Sockets that can be read; none after the limit."""
        return select.select(sockets, [], [], limit_s)[0]

    def _idle(self) -> bool:
        """Whether a driver could take a message now."""
        return any(not c.asked and not c.waitstatus for c in self.clients)

    def _send_queued(self, full: bool = False) -> None:
        """Sends to the drivers that are free. ``full``: no batch that waits for more structures."""
        queued = [r for r in self.requests if r["status"] == "Queued"]
        if not queued:
            return
        free = []
        for client in self.clients[:]:
            if client.asked or client.waitstatus:
                continue
            if client.status & Status.NeedsInit:
                client.initialize(queued[0]["id"], queued[0]["pars"])
                self._ask_status(client)
            elif client.status & Status.Ready:
                free.append(client)
            else:
                self._drop(client, "is in no state to work")
        size = self.batch_size
        for k in range(0, len(queued), size):
            part = queued[k : k + size]
            if not free or (full and len(part) < size):
                return
            same = [c for c in free if c.lastreq == part[-1]["id"]]
            client = (same or free)[0]
            free.remove(client)
            self._send(client, part)

    def _send(self, client: Driver, requests: list[ForceRequest]) -> None:
        client.asked = requests
        for request in requests:
            request["status"] = "Running"
            request["start"] = request["t_dispatched"] = time.time()
        structures = [(_active(r, r["pos"]), r["cell"]) for r in requests]
        structures += structures[-1:] * (self.batch_size - len(requests))
        if isinstance(client, SHMDriver):
            message = client._fill_shm(structures) + MESSAGE["getforce"]
        else:
            n = struct.pack("=i", len(structures[0][0]) // 3)
            cells = [part for _, cell in structures for part in cell]
            data = [positions for positions, _ in structures]
            # a single structure has its number of atoms behind the cell, a batch in front
            parts = [*cells, n, *data] if self.batch_size == 1 else [n, *cells, *data]
            message = b"".join([MESSAGE["posdata"], *parts, MESSAGE["getforce"]])
        try:
            client.sendall(message)
        except OSError as error:
            self._drop(client, f"takes no positions ({error})")

    def _receive(self, client: Driver) -> None:
        requests = client.asked
        try:
            if isinstance(client, SHMDriver):
                results = _receive_shared(client, requests[0])
            else:
                results = _receive_wire(client, requests[0], self.batch_size)
        except (OSError, Disconnected) as error:
            self._drop(client, f"died in the middle of a force {error}".strip())
            return
        for request, result in zip(requests, results, strict=False):  # the rest fills a batch up
            result[0] -= self.offset
            if len(result[1]) != len(request["pos"]):
                forces = np.zeros(len(request["pos"]))
                forces[request["active"]] = result[1]
                result[1] = forces
            request["result"], request["t_finished"] = result, time.time()
        client.asked, client.lastreq = [], requests[-1]["id"]
        self.counts.forces += len(requests)
        self.counts.messages += 1
        if client.trusted:
            client.status = READY
        else:
            self._ask_status(client, after_force=True)
        for request in requests:
            request["status"] = "Done"

    def _accept(self) -> None:
        try:
            sock, address = self.server.accept()
            with sock:  # i-PI's object has a descriptor of its own
                sock.settimeout(IO_LIMIT_S)
                client = SHMDriver(sock) if self.mode == "shm" else Driver(sock)
        except OSError:
            return  # it has gone again
        if self.mode == "shm":
            # i-PI's names come from a file descriptor that the next connection may have, too
            client._shm_prefix = f"ipi_shm_{os.getpid()}_d{next(_numbers)}_"
        client.asked, client.trusted, client.after_force = [], False, False
        client.buffer, client.batch_size = bytearray(0), self.batch_size
        info(f" @interfacesocket: Client asked for connection from {address}.", verbosity.low)
        self.clients.append(client)
        self._ask_status(client)

    def _ask_status(self, client: Driver, after_force: bool = False) -> None:
        """Asks, and returns at once; the answer is taken when it is there."""
        client.status, client.after_force = BUSY, after_force
        self.counts.questions += 1
        try:
            client.send_msg("status")
            client.waitstatus = True
        except OSError as error:
            self._drop(client, f"takes no message ({error})")

    def _read_status(self, client: Driver) -> None:
        client.get_status()
        if not client.status & Status.Up:
            self._drop(client, "has gone")
        elif client.status & Status.Ready and client.after_force:
            client.trusted = True

    def _drop(self, client: Driver, why: str) -> None:
        """Ends a connection; its requests wait for the next driver."""
        warning(f" @SOCKET:   Client {client.peername} {why}. Dropping it.", verbosity.low)
        self.counts.lost += 1
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            client.close()
        client.status, client.waitstatus = Status.Disconnected, False
        if client in self.clients:
            self.clients.remove(client)
        requests, client.asked = client.asked, []
        for request in requests:
            if request["status"] == "Running":
                request["status"], request["start"] = "Queued", -1


def _active(request: ForceRequest, values: np.ndarray) -> np.ndarray:
    """The part that a forcefield acts on."""
    active = request["active"]
    return values if len(active) == len(values) else values[active]


def _fill(client: Driver, view: memoryview) -> None:
    got = 0
    while got < len(view):
        part = client.recv_into(view[got:])
        if part == 0:
            raise Disconnected()
        got += part


def _extra(client: Driver, size: int) -> dict[str, Any]:
    if size <= 0:
        return dict(parse_extra(""))
    text = bytearray(size)
    _fill(client, memoryview(text))
    return dict(parse_extra(text.decode("utf-8")))


def _check_header(head: bytes) -> None:
    if head != MESSAGE["forceready"]:
        raise OSError(f"it sent {head!r}")


def _receive_wire(client: Driver, request: ForceRequest, batch: int) -> list[list[Any]]:
    """FORCEREADY, B energies, int32 n, B forces, B virials, B times int32 length and extras."""
    n = len(request["active"]) // 3
    size = HDRLEN + 8 * batch + 4 + (24 * n + 72) * batch
    alone = 4 * (batch == 1)  # the length comes along
    if len(client.buffer) != size + alone:
        client.buffer = bytearray(size + alone)
    buffer = client.buffer
    _fill(client, memoryview(buffer))
    _check_header(bytes(buffer[:HDRLEN]))
    at = HDRLEN
    energies = np.frombuffer(buffer, np.float64, batch, at)
    sent = int(np.frombuffer(buffer, np.int32, 1, at + 8 * batch)[0])
    if sent != n:
        raise RunFault(f"a driver sends forces of {sent} atoms, {n} were asked for")
    at += 8 * batch + 4
    forces = np.frombuffer(buffer, np.float64, 3 * n * batch, at).reshape(batch, -1).copy()
    at += 24 * n * batch
    virials = np.frombuffer(buffer, np.float64, 9 * batch, at).reshape(batch, 3, 3).copy()
    results = []
    for k in range(batch):
        head = buffer[-4:] if alone else bytearray(4)
        if not alone:
            _fill(client, memoryview(head))
        extra = _extra(client, int(np.frombuffer(head, np.int32)[0]))
        results.append([float(energies[k]), forces[k], virials[k], extra])
    return results


def _receive_shared(client: SHMDriver, request: ForceRequest) -> list[list[Any]]:
    """FORCEREADY, int32 length, extras; the rest is in shared memory."""
    buffer = bytearray(HDRLEN + 4)
    _fill(client, memoryview(buffer))
    _check_header(bytes(buffer[:HDRLEN]))
    length = int(np.frombuffer(buffer, np.int32, 1, HDRLEN)[0])
    extra = _extra(client, length)
    return [[*client._read_shm_results(1)[0], extra]]


class _Answer:
    """Replaces the event that i-PI waits for."""

    def __init__(self, interface: DirectInterface, request: ForceRequest) -> None:
        self._interface, self._request = interface, request

    def wait(self, timeout: float = 1.0) -> bool:
        self._interface.wait_for(self._request, timeout)
        return bool(self._request["status"] == "Done")

    def set(self) -> None:
        """Nothing waits for it."""


def is_direct(field: Any) -> bool:
    """Whether a forcefield exchanges with its drivers as here."""
    return (
        type(field) is FFSocket
        and isinstance(field.socket, DirectInterface)
        and field.socket.usable
    )


def ask(field: FFSocket, positions: np.ndarray, cell: tuple[np.ndarray, np.ndarray]) -> Any:
    """Sends a request without i-PI's force objects; ``answer`` takes its result.

    Args:
        field: ``is_direct``, all atoms active, positions sent as they are.
        positions: (3 n,), bohr; kept, so not to be changed.
        cell: vectors as columns, and the inverse.
    """
    if field.iactive is None or len(field.iactive) != len(positions):
        field.iactive = np.arange(len(positions))
    pars = "".join(f"{k} : {v} , " for k, v in (field.pars or {}).items())
    now = time.time()
    request = ForceRequest(
        id=0,
        pos=positions,
        active=field.iactive,
        cell=cell,
        pars=" " + pars,
        result=None,
        status="Queued",
        start=-1,
        t_queued=now,
        t_dispatched=0,
        t_finished=0,
    )
    with field._threadlock:
        field.requests.append(request)
    field.socket.send()
    return request


def answer(field: FFSocket, request: ForceRequest) -> list[Any]:
    """Result of ``ask``: energy, forces (3 n,), virial, extras. Ends the thread, as i-PI does, if
    i-PI is stopping."""
    while request["status"] != "Done":
        if request["status"] == "Exit" or softexit.triggered:
            softexit.trigger(message=" @ FORCES : cannot return so will die off here")
            while softexit.exiting:
                time.sleep(field.latency)
            sys.exit()
        field.socket.wait_for(request, 1.0)
    field.release(request)
    return list(request["result"])


def _queue(self: Any, atoms: Any, cell: Any, reqid: int = -1, template: Any = None) -> Any:
    if not is_direct(self):
        return _STOCK[0](self, atoms, cell, reqid, template)
    request = ForceField.queue(self, atoms, cell, reqid, template)
    request._event_done = _Answer(self.socket, request)
    self.socket.send()
    return request


def _bind(self: Any, atoms: Any, cell: Any, ff: Any, output_maker: Any) -> None:
    _STOCK_BIND(self, atoms, cell, ff, output_maker)
    if type(ff) is FFSocket and isinstance(ff.socket, DirectInterface):
        ff.socket.asked_by_beads = True


def _start(self: Any) -> None:
    if not is_direct(self):
        _STOCK[1](self)
        return
    self.socket.open()
    softexit.register_function(self.softexit)


def _stop(self: Any) -> None:
    if not is_direct(self):
        _STOCK[2](self)
        return
    self.socket.stopping = True
    ForceField.stop(self)
    self.socket.finish()


def install() -> None:
    """Puts the exchange in; a second call does nothing."""
    inputs.InterfaceSocket = DirectInterface
    ForceBead.bind = _bind
    FFSocket.queue, FFSocket.start, FFSocket.stop = _queue, _start, _stop


def remove() -> None:
    """Puts i-PI's own back, for sockets made from now on."""
    inputs.InterfaceSocket = InterfaceSocket
    ForceBead.bind = _STOCK_BIND
    FFSocket.queue, FFSocket.start, FFSocket.stop = _STOCK
