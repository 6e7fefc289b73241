"""A driver's side of telemetry: it publishes, answers, and never waits.

* The reference (the most accurate model, such as the teacher) publishes every evaluation, one per
  outer step, with its positions and forces.
* Every other model publishes figures at most 5 times a second, but at once where a force is twice
  as large as all before it. It keeps the forces of its last evaluations, and whoever wants them
  asks by the digest of the positions. Where requests are periodic it sends them unasked.
* A full queue, a slow listener or none at all: the message is dropped and counted.
"""

from __future__ import annotations

import math
import os
import re
import socket
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import zmq

from dmts_ipi.core.telemetry import OpenTelemetry

from .driver_sockets import DriverSockets
from .endpoints import Addresses, addresses
from .messages import TOPIC, BadMessage, decode, digest, encode, encode_forces
from .recent_forces import RecentForces, RequestPeriod

MIN_INTERVAL_S = 0.2  # between messages of a model that is not the reference
SPIKE = 2.0  # times the largest force component so far: published at once
MEMORY_EVERY_S = 2.0
LISTENER_S = 10.0  # without any request nobody is thought to listen
_ASK = re.compile(
    encode("ask_forces", {"digest": "@"})[1].replace(b"[", rb"\[").replace(b"@", b"([0-9a-f]+)")
)


class Publisher:
    """Telemetry of one driver.

    Args:
        model: name of the model, such as ``teacher``.
        addresses: where to publish and answer; the attribute of this name holds those in use.
        n_atoms: of each evaluation.
        device: on which the model runs, for the messages.
        reference: whether every evaluation is published with its forces; False: forces are kept,
            and sent to whoever asks for them.

    Raises:
        InputError: the addresses cannot be used.
    """

    def __init__(
        self, model: str, addresses: Addresses, n_atoms: int, device: str, reference: bool
    ) -> None:
        self.model, self.device, self.n_atoms = model, device, n_atoms
        self.connection = self.evaluation = self.dropped = 0
        self.requests = self.bad_requests = self.unasked = 0
        self._recent = None if reference else RecentForces(n_atoms)
        self._period, self._asked_at = RequestPeriod(), -math.inf
        self._host, self._pid = socket.gethostname(), os.getpid()
        self._started: float | None = None
        self._last_sent = self._memory_at = -math.inf
        self._largest = 0.0  # force component since i-PI connected, eV/A
        self._memory_MB = 0.0
        self._sockets = DriverSockets(addresses)
        self._events, self.addresses = self._sockets.events, self._sockets.addresses
        self._thread = threading.Thread(
            target=self._serve, args=(self._sockets.service,), name="telemetry", daemon=True
        )
        self._thread.start()

    def connected(self) -> None:
        """i-PI has begun a connection: evaluations count from one again."""
        self.connection += 1
        self.evaluation, self._largest = 0, 0.0
        self._last_sent = -math.inf  # its first evaluation is published at once
        self._period.forget()

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
        """Publishes or keeps the result. Never waits, and raises nothing for want of a listener.

        Args:
            positions_bohr: (n, 3) as i-PI sent them, for the digest.
            positions_A: (n, 3). cell_A: (3, 3), rows.
            energy_eV: None where the model has none. forces_eV_per_A: (n, 3).
            seconds: how long the evaluation took.
        """
        now = time.monotonic()
        self.evaluation += 1
        energy = None if energy_eV is None else float(energy_eV)
        name = ""  # only made where it is needed
        if self._recent is not None:
            known = self._period.known
            if not known or self._period.take(self.evaluation):
                name = digest(positions_bohr)
                self._recent.store(name, energy, forces_eV_per_A, self.evaluation)
                if known and now - self._asked_at < LISTENER_S:
                    self.unasked += 1
                    self._send(encode_forces(name, energy, forces_eV_per_A))
            flat = forces_eV_per_A.reshape(-1)
            peak = max(float(flat[flat.argmax()]), -float(flat[flat.argmin()]))
            usual = peak <= SPIKE * self._largest  # False where it is NaN
            self._largest = max(self._largest, peak)
            if usual and now - self._last_sent < MIN_INTERVAL_S:
                return
        self._last_sent = now
        square = np.einsum("ij,ij->i", forces_eV_per_A, forces_eV_per_A, dtype=np.float64)
        worst = int(square.argmax())
        fields: dict[str, Any] = {
            "role": self.model,
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
        if self._recent is None:
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
        """Resident memory of this process, MB, looked up every two seconds."""
        if now - self._memory_at > MEMORY_EVERY_S:
            self._memory_at, self._memory_MB = now, psutil.Process().memory_info().rss / 1e6
        return self._memory_MB

    def _serve(self, service: zmq.Socket[bytes]) -> None:
        """Answers requests until the context ends. The only thread that uses this socket."""
        while True:
            try:
                who, *frames = service.recv_multipart()
                self.requests, self._asked_at = self.requests + 1, time.monotonic()
                service.send_multipart([who, *self._answer(frames)], zmq.NOBLOCK)
            except BadMessage:
                self.bad_requests += 1
            except zmq.Again:
                self.dropped += 1
            except zmq.ContextTerminated:
                service.close(0)
                return
            except zmq.ZMQError:  # whoever asked is gone
                self.dropped += 1

    def _answer(self, frames: list[bytes]) -> list[bytes]:
        # the request of every outer step, as encode() writes it, is recognised without JSON
        if len(frames) == 2 and frames[0] == TOPIC and (match := _ASK.fullmatch(frames[1])):
            return self._forces(match[1].decode())
        request = decode(frames)
        if request.kind == "ask_status":
            started = self._started
            return encode(
                "status",
                {
                    "role": self.model,
                    "pid": self._pid,
                    "connection": self.connection,
                    "evaluation": self.evaluation,
                    "evaluating_s": None if started is None else time.monotonic() - started,
                    "memory_MB": self._memory_MB,
                },
            )
        if request.kind != "ask_forces":
            raise BadMessage("not a request")
        return self._forces(request.fields["digest"])

    def _forces(self, name: str) -> list[bytes]:
        cached = None if self._recent is None else self._recent.find(name)
        if cached is None:
            self._period.missed()
            return encode("forces", {"digest": name, "found": False, "energy_eV": None})
        self._period.asked(cached.evaluation)
        return encode_forces(name, cached.energy_eV, cached.forces)

    def leave(self) -> None:
        """Removes the socket files, for a process that ends without ``close``; not those of another
        driver that has taken the addresses over."""
        self._sockets.remove_files()

    def close(self) -> None:
        """Ends the thread and removes the sockets."""
        self._sockets.close()
        self._thread.join(5.0)


def opener(model: str, reference: bool) -> OpenTelemetry[Publisher]:
    """Opens telemetry for a driver, see ``endpoints.addresses``.

    The function returned writes the addresses into the file ``announce``, if one is given. It
    raises InputError where the setting cannot be used.

    Args:
        model: its name, such as ``teacher``.
        reference: see ``Publisher``.
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
        publisher = Publisher(model, where, n_atoms, device, reference)
        if announce is not None:
            about = {"role": model, "pid": os.getpid(), "host": socket.gethostname()}
            publisher.addresses.announce(announce, **about)
        return publisher

    return open_publisher
