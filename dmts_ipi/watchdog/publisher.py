"""A driver's side of telemetry: it publishes, answers, and never waits.

* Every evaluation of the teacher is published with its positions and forces (one per outer step).
* The student publishes figures at most 5 times a second, but at once where a force is twice as
  large as all before it; it keeps the forces of its last evaluations, and who wants them asks by
  the digest of the positions. Where the questions are regular it sends these forces unasked.
* A full queue, a slow listener or none at all: the message is dropped and counted.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from zmq.auth.thread import ThreadAuthenticator

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.telemetry import OpenTelemetry

from .endpoints import Addresses, addresses
from .messages import TOPIC, BadMessage, decode, digest, encode, encode_forces
from .ring import Rhythm, Ring

QUEUE = 32  # messages that may wait in a socket
MIN_INTERVAL_S = 0.2  # between the student's messages
SPIKE = 2.0  # times the largest force component so far: said at once
MEMORY_EVERY_S = 2.0
LISTENER_S = 10.0  # without any question nobody is thought to listen
MAX_QUESTION_BYTES = 1 << 20  # a larger frame ends the connection before it is in memory
_ASK = re.compile(
    encode("ask_forces", {"digest": "@"})[1].replace(b"[", rb"\[").replace(b"@", b"([0-9a-f]+)")
)


class Publisher:
    """Telemetry of one driver. ``role``: ``teacher`` or ``student``.

    ``addresses`` are those in use: with the ports that were found where none was asked for. Where
    they carry keys, only the watchdog that has its own is let in.

    Raises:
        InputError: the addresses cannot be used.
    """

    def __init__(self, role: str, addresses: Addresses, n_atoms: int, device: str) -> None:
        self.role, self.device, self.n_atoms = role, device, n_atoms
        self.connection = self.evaluation = self.dropped = 0
        self.questions = self.bad_questions = self.unasked = 0
        self._with_forces = role == "teacher"
        self._ring = None if self._with_forces else Ring(n_atoms)
        self._rhythm, self._asked_at = Rhythm(), -math.inf
        self._host, self._pid = socket.gethostname(), os.getpid()
        self._started: float | None = None
        self._last_sent = self._memory_at = -math.inf
        self._largest = 0.0  # force component since i-PI connected, eV/A
        self._memory_MB = 0.0
        self._context = zmq.Context()
        self._keys = addresses.keys
        self._authenticator = self._authenticate()
        self._events = self._bind(zmq.PUB, addresses.events)
        service = self._bind(zmq.ROUTER, addresses.service)
        self.addresses = Addresses(_bound(self._events), _bound(service), addresses.keys)
        self._files = {path: os.stat(path).st_ino for path in self.addresses.files()}
        self._thread = threading.Thread(
            target=self._serve, args=(service,), name="telemetry", daemon=True
        )
        self._thread.start()

    def _authenticate(self) -> ThreadAuthenticator | None:
        """The thread that ZeroMQ asks whether a key is known; before any socket is bound."""
        if self._keys is None:
            return None
        authenticator = ThreadAuthenticator(self._context)
        authenticator.start()
        authenticator.configure_curve_callback("*", self._keys)
        return authenticator

    def _bind(self, kind: int, address: str) -> zmq.Socket[bytes]:
        sock: zmq.Socket[bytes] = self._context.socket(kind)
        sock.setsockopt(zmq.LINGER, 0)
        sock.setsockopt(zmq.SNDHWM, QUEUE)
        sock.setsockopt(zmq.RCVHWM, QUEUE)
        sock.setsockopt(zmq.MAXMSGSIZE, MAX_QUESTION_BYTES)
        if self._keys is not None:
            self._keys.guard_server(sock)
        try:
            sock.bind(address)
        except zmq.ZMQError as error:
            if self._authenticator is not None:
                self._authenticator.stop()
            self._context.destroy(linger=0)
            raise InputError("telemetry", address, f"{error.strerror}; use another") from error
        return sock

    def connected(self) -> None:
        """i-PI has begun a connection: evaluations count from one again."""
        self.connection += 1
        self.evaluation, self._largest = 0, 0.0
        self._last_sent = -math.inf  # its first evaluation is told of at once
        self._rhythm.forget()

    def begin(self) -> None:
        """An evaluation begins."""
        self._started = time.monotonic()

    def failed(self) -> None:
        """It raised."""
        self._started = None

    def end(self) -> None:
        """It is over."""
        self._started = None

    def evaluated(
        self,
        positions_bohr: np.ndarray,
        positions_A: np.ndarray,
        cell_A: np.ndarray,
        energy_eV: float | None,
        forces_eV_per_A: np.ndarray,
        seconds: float,
    ) -> None:
        """What it gave. Never waits and never raises for want of a listener.

        Args:
            positions_bohr: (n, 3) as i-PI sent them, for the digest.
            positions_A: (n, 3). cell_A: (3, 3), rows.
            energy_eV: None where the model has none. forces_eV_per_A: (n, 3).
            seconds: how long it took.
        """
        now = time.monotonic()
        self.evaluation += 1
        energy = None if energy_eV is None else float(energy_eV)
        name = ""  # only made where it is needed
        if self._ring is not None:
            known = self._rhythm.known
            if not known or self._rhythm.take(self.evaluation):
                name = digest(positions_bohr)
                self._ring.store(name, energy, forces_eV_per_A, self.evaluation)
                if known and now - self._asked_at < LISTENER_S:
                    self.unasked += 1
                    self._send(encode_forces(name, energy, forces_eV_per_A))
            flat = forces_eV_per_A.reshape(-1)
            peak = max(float(flat[flat.argmax()]), -float(flat[flat.argmin()]))
            usual = peak <= SPIKE * self._largest  # not so of NaN
            self._largest = max(self._largest, peak)
            if usual and now - self._last_sent < MIN_INTERVAL_S:
                return
        self._last_sent = now
        square = np.einsum("ij,ij->i", forces_eV_per_A, forces_eV_per_A, dtype=np.float64)
        worst = int(square.argmax())
        fields: dict[str, Any] = {
            "role": self.role,
            "pid": self._pid,
            "host": self._host,
            "connection": self.connection,
            "evaluation": self.evaluation,
            "digest": name or digest(positions_bohr),
            "n_atoms": len(square),
            "energy_eV": energy,
            "force_max_eV_per_A": float(square[worst]) ** 0.5,
            "force_max_atom": worst,
            "force_rms_eV_per_A": float(square.mean() / 3) ** 0.5,
            "evaluation_s": seconds,
            "memory_MB": self._memory(now),
            "device": self.device,
            "dropped": self.dropped,
            "time_unix_s": time.time(),
        }
        arrays = None
        if self._with_forces:
            arrays = {
                "positions_A": positions_A,
                "cell_A": cell_A,
                "forces_eV_per_A": forces_eV_per_A,
            }
        self._send(encode("evaluation", fields, arrays))

    def _send(self, frames: list[bytes]) -> None:
        try:
            self._events.send_multipart(frames, zmq.NOBLOCK)
        except zmq.ZMQError:
            self.dropped += 1

    def _memory(self, now: float) -> float:
        """Resident memory, MB, looked up now and then."""
        if now - self._memory_at > MEMORY_EVERY_S:
            self._memory_at, self._memory_MB = now, resident_MB()
        return self._memory_MB

    def _serve(self, service: zmq.Socket[bytes]) -> None:
        """Answers questions until the context ends. The only thread that uses this socket."""
        while True:
            try:
                who, *frames = service.recv_multipart()
                self.questions, self._asked_at = self.questions + 1, time.monotonic()
                service.send_multipart([who, *self._answer(frames)], zmq.NOBLOCK)
            except BadMessage:
                self.bad_questions += 1
            except zmq.Again:
                self.dropped += 1
            except zmq.ContextTerminated:
                service.close(0)
                return
            except zmq.ZMQError:  # whoever asked is gone
                self.dropped += 1

    def _answer(self, frames: list[bytes]) -> list[bytes]:
        # the question of every outer step, as encode() writes it: read and so without JSON
        if len(frames) == 2 and frames[0] == TOPIC and (match := _ASK.fullmatch(frames[1])):
            return self._forces(match[1].decode())
        question = decode(frames)
        if question.kind == "ask_status":
            started = self._started
            return encode(
                "status",
                {
                    "role": self.role,
                    "pid": self._pid,
                    "connection": self.connection,
                    "evaluation": self.evaluation,
                    "evaluating_s": None if started is None else time.monotonic() - started,
                    "memory_MB": self._memory_MB,
                },
            )
        if question.kind != "ask_forces":
            raise BadMessage("not a question")
        return self._forces(question.fields["digest"])

    def _forces(self, name: str) -> list[bytes]:
        found = None if self._ring is None else self._ring.find(name)
        if found is None:
            self._rhythm.missed()
            return encode("forces", {"digest": name, "found": False, "energy_eV": None})
        self._rhythm.asked(found.evaluation)
        return encode_forces(name, found.energy_eV, found.forces)

    def leave(self) -> None:
        """Removes the socket files, for a process that ends without ``close``; not those of another
        driver that has taken the addresses over."""
        for path, inode in self._files.items():
            with contextlib.suppress(OSError):
                if os.stat(path).st_ino == inode:
                    os.unlink(path)

    def close(self) -> None:
        """Ends the thread and removes the sockets."""
        self._events.close(0)
        if self._authenticator is not None:
            self._authenticator.stop()
        self._context.term()
        self._thread.join(5.0)


def _bound(sock: zmq.Socket[bytes]) -> str:
    """Where a socket listens, with the port that it was given."""
    found = sock.getsockopt(zmq.LAST_ENDPOINT)
    return found.decode() if isinstance(found, bytes) else ""


def resident_MB() -> float:
    """Resident memory of this process, MB; 0 where the system does not say."""
    if not sys.platform.startswith("linux"):
        return 0.0
    try:
        with open("/proc/self/statm", "rb") as stream:
            pages = int(stream.read().split()[1])
    except (OSError, ValueError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def opener(role: str) -> OpenTelemetry[Publisher]:
    """Opens telemetry for a driver of this role, see ``endpoints.addresses``.

    The function returned writes the addresses into the file ``announce``, if one is given. It
    raises InputError where the setting cannot be used.
    """

    def open_publisher(
        setting: str,
        name: str,
        n_atoms: int,
        device: str,
        keys: Path | None = None,
        announce: Path | None = None,
    ) -> Publisher | None:
        where = addresses(setting, name, keys)
        if where is None:
            return None
        publisher = Publisher(role, where, n_atoms, device)
        if announce is not None:
            about = {"role": role, "pid": os.getpid(), "host": socket.gethostname()}
            publisher.addresses.announce(announce, **about)
        return publisher

    return open_publisher
