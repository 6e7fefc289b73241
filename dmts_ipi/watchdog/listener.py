"""The watchdog's side of telemetry: a thread that hears both drivers and pairs their forces.

The teacher's forces come by themselves, once per outer step. The student's forces at the same
positions are asked for by digest, until its driver knows the rhythm and sends them by itself.
What is malformed is dropped and counted.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import zmq

from dmts_ipi.core.errors import InputError

from .difference import Difference, difference
from .endpoints import Addresses, Announced
from .messages import TOPIC, BadMessage, Message, decode, encode

STATUS_EVERY_S = 1.0
RETRY_EVERY_S, RETRY_FOR_S = 0.05, 5.0  # the student may be the later one of the two
BUNCH_S = 0.01  # what comes within is taken together: each wake-up costs i-PI a part of a step
MAX_PENDING, MAX_AHEAD = 64, 16  # of the teacher and of the student, without the other one
QUEUE = 64
MIN_FRAME_BYTES = 1 << 20
HEALTH = ("pid", "connection", "evaluation", "evaluation_s", "memory_MB", "dropped", "device")
NICER = 10
RECONNECT_MS, RECONNECT_MAX_MS = 20, 100  # a driver is heard from its first evaluations on


@dataclass(frozen=True)
class Pair:
    """Both forces at one structure. Arrays are kept only where they were asked for.

    ``evaluation`` counts the teacher's evaluations of this connection to i-PI, from 1.
    """

    difference: Difference
    connection: int
    evaluation: int
    pid: int
    time_unix_s: float
    energy_eV: float | None
    positions_A: np.ndarray | None = None
    cell_A: np.ndarray | None = None
    teacher_eV_per_A: np.ndarray | None = None
    student_eV_per_A: np.ndarray | None = None


@dataclass
class Health:
    """What is known of a driver. Times are monotonic, s; -inf: never."""

    pid: int = 0
    connection: int = 0
    evaluation: int = 0
    evaluation_s: float = float("nan")
    memory_MB: float = 0.0
    dropped: int = 0
    device: str = ""
    last_news: float = float("-inf")
    last_answer: float = float("-inf")
    evaluating_s: float | None = None


@dataclass
class _Waiting:
    message: Message
    since: float
    asked: float


@dataclass
class Counts:
    """How many messages: heard, malformed, and teacher evaluations without a partner."""

    messages: int = 0
    bad: int = 0
    pairs: int = 0
    unpaired: int = 0


class Listener:
    """Hears the drivers of one run until ``close``.

    Args:
        addresses: by role, or where they will be announced; absent roles are not heard.
        numbers: atomic numbers, (n,).
        keep_above_eV_per_A: pairs with a largest difference above keep their arrays, and make
            ``alarm`` readable.
    """

    def __init__(
        self,
        addresses: Mapping[str, Addresses | Announced],
        numbers: np.ndarray,
        keep_above_eV_per_A: float,
    ) -> None:
        self.health = {role: Health() for role in addresses}
        self.counts = Counts()
        self.latest: Pair | None = None  # with its arrays, whatever the difference
        # off in single time steps, until the student is heard of on another connection to i-PI
        self.pairing = True
        self._student_before = (0, 0)  # its process and connection when ``forget`` was called
        self._numbers, self._keep_above = numbers, keep_above_eV_per_A
        self._pairs: deque[Pair] = deque(maxlen=100_000)
        self._peaks: dict[str, tuple[float, int]] = {}
        self._waiting: OrderedDict[str, _Waiting] = OrderedDict()
        self._ahead: OrderedDict[str, np.ndarray] = OrderedDict()  # forces that came unasked
        self.alarm, self._bell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._context = zmq.Context()
        self._events: dict[str, zmq.Socket[bytes]] = {}
        self._services: dict[str, zmq.Socket[bytes]] = {}
        self._announced = {r: at for r, at in addresses.items() if isinstance(at, Announced)}
        self._heard_at: dict[str, Addresses] = {}
        for role, at in addresses.items():
            self._events[role] = self._socket(zmq.SUB, at)
            self._events[role].setsockopt(zmq.SUBSCRIBE, TOPIC)
            self._services[role] = self._socket(zmq.DEALER, at)
            if isinstance(at, Addresses):
                self._connect(role, at)
        self._thread = threading.Thread(target=self._run, name="listener", daemon=True)
        self._thread.start()

    def _socket(self, kind: int, at: Addresses | Announced) -> zmq.Socket[bytes]:
        sock: zmq.Socket[bytes] = self._context.socket(kind)
        sock.setsockopt(zmq.LINGER, 0)
        sock.setsockopt(zmq.SNDHWM, QUEUE)
        sock.setsockopt(zmq.RCVHWM, QUEUE)
        sock.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
        sock.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
        if kind == zmq.DEALER:
            sock.setsockopt(zmq.IMMEDIATE, 1)  # no questions for a driver that is not there
        # a larger frame is none of ours, and ends the connection before it is in memory
        sock.setsockopt(zmq.MAXMSGSIZE, max(MIN_FRAME_BYTES, 24 * len(self._numbers)))
        if at.keys is not None:
            at.keys.guard_client(sock)
        return sock

    def _connect(self, role: str, at: Addresses) -> None:
        """Hears a driver at these addresses, and no longer at those before."""
        before = self._heard_at.get(role)
        events, service = self._events[role], self._services[role]
        if before is not None:
            events.disconnect(before.events)
            service.disconnect(before.service)
        events.connect(at.events)
        service.connect(at.service)
        self._heard_at[role] = at

    def _look_for_announced(self) -> None:
        """Follows drivers whose addresses are written into files, also when they move."""
        for role, announced in self._announced.items():
            try:
                at = announced.read()
                if at is not None and at != self._heard_at.get(role):
                    self._connect(role, at)
            except (InputError, zmq.ZMQError):
                self.counts.bad += 1

    def take(self) -> list[Pair]:
        """The pairs since the call before, oldest first."""
        with self._lock:
            pairs = list(self._pairs)
            self._pairs.clear()
        return pairs

    def take_peaks(self) -> dict[str, tuple[float, int]]:
        """By role: the largest force heard of since the call before, eV/A, and its atom."""
        with self._lock:
            peaks, self._peaks = self._peaks, {}
        return peaks

    def forget(self) -> None:
        """Drops peaks, pairs and questions under way: i-PI was restarted from an earlier state."""
        student = self.health.get("student", Health())
        with self._lock:
            self._student_before = student.pid, student.connection
            self._peaks.clear()
            self._pairs.clear()
            self.latest = None
            self._waiting.clear()
            self._ahead.clear()

    def close(self) -> None:
        """Ends the thread."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._thread.join(10.0)
        if not self._thread.is_alive():
            os.close(self.alarm)
            os.close(self._bell)

    def _run(self) -> None:
        _give_way()
        poller = zmq.Poller()
        for sock in (*self._events.values(), *self._services.values()):
            poller.register(sock, zmq.POLLIN)
        next_status = 0.0
        # what the student sent unasked comes before the question for it
        by_need = [self._events[role] for role in sorted(self._events)]
        try:
            while not self._stop.is_set():
                wait_s = RETRY_EVERY_S if self._waiting else 0.25
                ready = dict(poller.poll(int(1000 * wait_s)))
                now = time.monotonic()
                for sock in by_need:
                    if sock in ready:
                        self._drain(sock, now)
                for role, sock in self._services.items():
                    if sock in ready:
                        self._drain(sock, now, role)
                self._retry(now)
                if ready:
                    self._stop.wait(BUNCH_S)
                if now >= next_status:
                    next_status = now + STATUS_EVERY_S
                    self._look_for_announced()
                    for sock in self._services.values():
                        _ask(sock, encode("ask_status", {}))
        finally:
            self._context.destroy(linger=0)

    def _drain(self, sock: zmq.Socket[bytes], now: float, role: str = "") -> None:
        """Takes what has arrived, but not for ever: other sockets want their turn."""
        for _ in range(2 * QUEUE):
            try:
                frames = sock.recv_multipart(zmq.NOBLOCK)
            except zmq.ZMQError:
                return
            self.counts.messages += 1
            try:
                self._take(decode(frames), now, role)
            except BadMessage:
                self.counts.bad += 1

    def _take(self, message: Message, now: float, role: str) -> None:
        if message.kind == "evaluation" and not role:
            self._evaluation(message, now)
        elif message.kind == "status" and role:
            self._status(self.health[role], message.fields, now)
        elif message.kind == "forces" and role in ("", "student"):
            self._forces(message)
        else:
            raise BadMessage("not expected here")

    def _status(self, health: Health, fields: dict[str, Any], now: float) -> None:
        """An answer, which may be older than the evaluations that are taken with it."""
        if (fields["pid"], fields["connection"]) == (health.pid, health.connection):
            fields["evaluation"] = max(fields["evaluation"], health.evaluation)
        for name in ("pid", "connection", "evaluation", "evaluating_s", "memory_MB"):
            setattr(health, name, fields[name])
        health.last_answer = now

    def _evaluation(self, message: Message, now: float) -> None:
        fields = message.fields
        health = self.health.get(fields["role"])
        if health is None or fields["n_atoms"] != len(self._numbers):
            raise BadMessage("a driver of another run")
        for name in HEALTH:
            setattr(health, name, fields[name])
        health.last_news = now
        if not self.pairing and fields["role"] == "student":
            self._moves_again((health.pid, health.connection))
        with self._lock:
            peak, before = fields["force_max_eV_per_A"], self._peaks.get(fields["role"])
            if before is None or not peak <= before[0]:
                self._peaks[fields["role"]] = (peak, fields["force_max_atom"])
        if fields["role"] != "teacher" or "student" not in self._services:
            return
        if any(len(message.arrays.get(k, ())) != rows for k, rows in self._shapes().items()):
            raise BadMessage("arrays are missing")
        with self._lock:
            student = self._ahead.pop(fields["digest"], None)
            if student is None:
                self._waiting[fields["digest"]] = _Waiting(message, now, now)
            while len(self._waiting) > MAX_PENDING:
                self._waiting.popitem(last=False)
                self.counts.unpaired += 1
        if student is None:
            self._ask_forces(fields["digest"])
        else:
            self._add_pair(message, student)

    def _moves_again(self, student: tuple[int, int]) -> None:
        """The student is asked for forces: the single time steps are over."""
        with self._lock:
            if student != self._student_before:
                self._pairs.clear()
                self._waiting.clear()
                self.pairing = True

    def _shapes(self) -> dict[str, int]:
        n = len(self._numbers)
        return {"positions_A": n, "cell_A": 3, "forces_eV_per_A": n}

    def _ask_forces(self, name: str) -> None:
        _ask(self._services["student"], encode("ask_forces", {"digest": name}))

    def _retry(self, now: float) -> None:
        for name, waiting in list(self._waiting.items()):
            if now - waiting.since > (RETRY_FOR_S if self.pairing else 0.0):
                with self._lock:
                    if self._waiting.pop(name, None) is not None:
                        self.counts.unpaired += self.pairing
            elif now - waiting.asked > RETRY_EVERY_S:
                waiting.asked = now
                self._ask_forces(name)

    def _forces(self, message: Message) -> None:
        if not message.fields["found"]:
            return
        student = message.arrays.get("forces_eV_per_A")
        if student is None or len(student) != len(self._numbers):
            raise BadMessage("forces of another run")
        name = message.fields["digest"]
        with self._lock:
            waiting = self._waiting.pop(name, None)
            if waiting is None:  # the teacher is still at work, or it has been answered before
                self._ahead[name] = student
                while len(self._ahead) > MAX_AHEAD:
                    self._ahead.popitem(last=False)
        if waiting is not None:
            self._add_pair(waiting.message, student)

    def _add_pair(self, teacher: Message, student: np.ndarray) -> None:
        pair = self._pair(teacher, student)
        with self._lock:
            self.counts.pairs += 1
            self._pairs.append(pair)
        if self.pairing and not pair.difference.largest <= self._keep_above:
            with contextlib.suppress(BlockingIOError):  # it rings already
                os.write(self._bell, b"!")

    def _pair(self, teacher: Message, student: np.ndarray) -> Pair:
        fields, arrays = teacher.fields, teacher.arrays
        found = difference(arrays["forces_eV_per_A"], student, self._numbers)
        pair = Pair(
            difference=found,
            connection=fields["connection"],
            evaluation=fields["evaluation"],
            pid=fields["pid"],
            time_unix_s=fields["time_unix_s"],
            energy_eV=fields["energy_eV"],
            positions_A=arrays["positions_A"],
            cell_A=arrays["cell_A"],
            teacher_eV_per_A=arrays["forces_eV_per_A"],
            student_eV_per_A=student,
        )
        self.latest = pair
        if not found.largest <= self._keep_above:
            return pair
        return replace(
            pair, positions_A=None, cell_A=None, teacher_eV_per_A=None, student_eV_per_A=None
        )


def _give_way() -> None:
    """Lets drivers go first where cores are few: this thread is woken while a student works."""
    if sys.platform.startswith("linux"):  # elsewhere priorities are of whole processes
        with contextlib.suppress(OSError):
            own = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, own, os.getpriority(os.PRIO_PROCESS, own) + NICER)


def _ask(sock: zmq.Socket[bytes], frames: list[bytes]) -> None:
    with contextlib.suppress(zmq.ZMQError):  # nobody there, or its queue is full
        sock.send_multipart(frames, zmq.NOBLOCK)
