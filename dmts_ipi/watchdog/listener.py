"""The watchdog's side of telemetry: a thread that hears every driver and compares forces.

The forces of the reference (the most accurate model) come by themselves, once per outer step. The
forces of all other models at the same positions are asked for by digest, until their drivers have
learnt the period of these requests and send them unasked. Messages that are malformed are dropped
and counted.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import zmq

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.force_comparison import ForceComparison, Pair, difference

from .endpoints import Addresses, Announced
from .messages import TOPIC, BadMessage, Message, decode, encode

STATUS_EVERY_S = 1.0
RETRY_EVERY_S, RETRY_FOR_S = 0.05, 5.0  # a fast model may be evaluated after the reference
BUNCH_S = 0.01  # what comes within is taken together: each wake-up costs i-PI a part of a step
MAX_PENDING, MAX_AHEAD = 64, 16  # structures of the reference, and of each other model, unmatched
QUEUE = 64
MIN_FRAME_BYTES = 1 << 20
HEALTH = ("pid", "connection", "evaluation", "evaluation_s", "memory_MB", "dropped", "device")
NICENESS = 10
RECONNECT_MS, RECONNECT_MAX_MS = 20, 100  # a driver is heard from its first evaluations on


@dataclass
class Health:
    """State of a driver. Times are monotonic, s; -inf: never."""

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
    """A structure of the reference, and the forces of other models there that have arrived."""

    reference: str
    message: Message
    since: float
    asked: float
    forces: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass
class Counts:
    """Messages heard, malformed ones, comparisons made (``pairs``), and evaluations of the
    reference at which a model that is compared was missing (``unpaired``)."""

    messages: int = 0
    bad: int = 0
    pairs: int = 0
    unpaired: int = 0


class Listener:
    """Hears the drivers of one run until ``close``.

    Args:
        addresses: by model, or where they will be announced; absent models are not heard.
        numbers: atomic numbers, (n,).
        keep_above_eV_per_A: for each pair of models that is compared: comparisons with a largest
            difference above keep their arrays, and make ``alarm`` readable.
    """

    def __init__(
        self,
        addresses: Mapping[str, Addresses | Announced],
        numbers: np.ndarray,
        keep_above_eV_per_A: Mapping[Pair, float],
    ) -> None:
        self.health = {name: Health() for name in addresses}
        self.counts = Counts()
        self.latest: ForceComparison | None = None  # with its arrays, whatever the difference
        # False in single time steps, until a fast model has a new connection to i-PI
        self.comparing = True
        self._numbers, self._keep_above = numbers, keep_above_eV_per_A
        self._pairs = [pair for pair in keep_above_eV_per_A if set(pair) <= set(addresses)]
        fast = dict.fromkeys(name for _, name in keep_above_eV_per_A)
        self._fast = tuple(name for name in fast if name in addresses)
        # what is wanted at the structures of each reference
        self._wanted = {
            accurate: self._compared_at(accurate)
            for accurate, _ in self._pairs
            if accurate not in fast
        }
        # process and connection of the fast models when ``forget`` was called
        self._before: dict[str, tuple[int, int]] = {}
        self._compared: deque[ForceComparison] = deque(maxlen=100_000)
        self._peaks: dict[str, tuple[float, int]] = {}
        self._waiting: OrderedDict[str, _Waiting] = OrderedDict()
        # forces that were sent unasked, by model and digest
        self._ahead: dict[str, OrderedDict[str, np.ndarray]] = {
            f: OrderedDict() for f in self._fast
        }
        self.alarm, self._bell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._context = zmq.Context()
        self._events: dict[str, zmq.Socket[bytes]] = {}
        self._services: dict[str, zmq.Socket[bytes]] = {}
        self._announced = {r: at for r, at in addresses.items() if isinstance(at, Announced)}
        self._heard_at: dict[str, Addresses] = {}
        for name, at in addresses.items():
            self._events[name] = self._socket(zmq.SUB, at)
            self._events[name].setsockopt(zmq.SUBSCRIBE, TOPIC)
            self._services[name] = self._socket(zmq.DEALER, at)
            if isinstance(at, Addresses):
                self._connect(name, at)
        self._thread = threading.Thread(target=self._run, name="listener", daemon=True)
        self._thread.start()

    def _compared_at(self, reference: str) -> tuple[str, ...]:
        """The models whose forces are wanted at the structures of a reference: those compared with
        it, those compared with these, and so on."""
        models = [reference]
        for accurate, fast in self._pairs:  # outermost level first
            if accurate in models and fast not in models:
                models.append(fast)
        return tuple(models[1:])

    def _socket(self, kind: int, at: Addresses | Announced) -> zmq.Socket[bytes]:
        sock: zmq.Socket[bytes] = self._context.socket(kind)
        sock.setsockopt(zmq.LINGER, 0)
        sock.setsockopt(zmq.SNDHWM, QUEUE)
        sock.setsockopt(zmq.RCVHWM, QUEUE)
        sock.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
        sock.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
        if kind == zmq.DEALER:
            sock.setsockopt(zmq.IMMEDIATE, 1)  # no requests for a driver that is not there
        # a larger frame ends the connection before it is in memory
        sock.setsockopt(zmq.MAXMSGSIZE, max(MIN_FRAME_BYTES, 24 * len(self._numbers)))
        if at.keys is not None:
            at.keys.guard_client(sock)
        return sock

    def _connect(self, name: str, at: Addresses) -> None:
        """Hears a driver at these addresses, and no longer at those before."""
        before = self._heard_at.get(name)
        events, service = self._events[name], self._services[name]
        if before is not None:
            events.disconnect(before.events)
            service.disconnect(before.service)
        events.connect(at.events)
        service.connect(at.service)
        self._heard_at[name] = at

    def _look_for_announced(self) -> None:
        """Follows drivers whose addresses are written into files, also when they move."""
        for name, announced in self._announced.items():
            try:
                at = announced.read()
                if at is not None and at != self._heard_at.get(name):
                    self._connect(name, at)
            except (InputError, zmq.ZMQError):
                self.counts.bad += 1

    def take(self) -> list[ForceComparison]:
        """The comparisons since the last call, oldest first."""
        with self._lock:
            compared = list(self._compared)
            self._compared.clear()
        return compared

    def take_peaks(self) -> dict[str, tuple[float, int]]:
        """By model: the largest force published since the last call, eV/A, and its atom."""
        with self._lock:
            peaks, self._peaks = self._peaks, {}
        return peaks

    def forget(self) -> None:
        """Drops all forces and open requests: i-PI was restarted from an earlier state."""
        with self._lock:
            now = {name: self.health[name] for name in self._fast}
            self._before = {name: (h.pid, h.connection) for name, h in now.items()}
            self._peaks.clear()
            self._compared.clear()
            self.latest = None
            self._waiting.clear()
            for ahead in self._ahead.values():
                ahead.clear()

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
        # forces that were sent unasked are taken before the reference asks for them
        others_first = sorted(self._events, key=lambda name: (name in self._wanted, name))
        try:
            while not self._stop.is_set():
                wait_s = RETRY_EVERY_S if self._waiting else 0.25
                ready = dict(poller.poll(int(1000 * wait_s)))
                now = time.monotonic()
                for name in others_first:
                    if self._events[name] in ready:
                        self._drain(self._events[name], now, name, asked=False)
                for name, sock in self._services.items():
                    if sock in ready:
                        self._drain(sock, now, name, asked=True)
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

    def _drain(self, sock: zmq.Socket[bytes], now: float, name: str, asked: bool) -> None:
        """Takes what has arrived, up to a limit, so that no socket starves the others."""
        for _ in range(2 * QUEUE):
            try:
                frames = sock.recv_multipart(zmq.NOBLOCK)
            except zmq.ZMQError:
                return
            self.counts.messages += 1
            try:
                self._take(decode(frames), now, name, asked)
            except BadMessage:
                self.counts.bad += 1

    def _take(self, message: Message, now: float, name: str, asked: bool) -> None:
        """A message of the model ``name``, published or (``asked``) an answer."""
        if message.kind == "evaluation" and not asked:
            self._evaluation(message, now, name)
        elif message.kind == "status" and asked:
            self._status(self.health[name], message.fields, now)
        elif message.kind == "forces" and name in self._fast:
            self.health[name].last_news = now
            self._forces(message, name)
        else:
            raise BadMessage("not expected here")

    def _status(self, health: Health, fields: dict[str, Any], now: float) -> None:
        """An answer, which may be older than the evaluations that are taken with it."""
        if (fields["pid"], fields["connection"]) == (health.pid, health.connection):
            fields["evaluation"] = max(fields["evaluation"], health.evaluation)
        for name in ("pid", "connection", "evaluation", "evaluating_s", "memory_MB"):
            setattr(health, name, fields[name])
        health.last_answer = now

    def _evaluation(self, message: Message, now: float, model: str) -> None:
        fields, health = message.fields, self.health[model]
        if fields["n_atoms"] != len(self._numbers):
            raise BadMessage("a driver of another run")
        for name in HEALTH:
            setattr(health, name, fields[name])
        health.last_news = now
        if not self.comparing and model in self._fast:
            self._moves_again(model, (health.pid, health.connection))
        with self._lock:
            peak, before = fields["force_max_eV_per_A"], self._peaks.get(model)
            if before is None or not peak <= before[0]:
                self._peaks[model] = (peak, fields["force_max_atom"])
        if model not in self._wanted:
            return
        if any(len(message.arrays.get(k, ())) != rows for k, rows in self._shapes().items()):
            raise BadMessage("arrays are missing")
        name, waiting = fields["digest"], _Waiting(model, message, now, now)
        with self._lock:
            for fast in self._wanted[model]:
                if (forces := self._ahead[fast].pop(name, None)) is not None:
                    waiting.forces[fast] = forces
            missing = self._missing(waiting)
            if missing:
                self._waiting[name] = waiting
            while len(self._waiting) > MAX_PENDING:
                self._compare(self._waiting.popitem(last=False)[1])
        for fast in missing:
            self._ask_forces(fast, name)
        if not missing:
            with self._lock:
                self._compare(waiting)

    def _missing(self, waiting: _Waiting) -> list[str]:
        return [fast for fast in self._wanted[waiting.reference] if fast not in waiting.forces]

    def _moves_again(self, fast: str, connection: tuple[int, int]) -> None:
        """Notes that a fast model is evaluated again: the single time steps are over."""
        with self._lock:
            if connection != self._before.get(fast, (0, 0)):
                self._compared.clear()
                self._waiting.clear()
                self.comparing = True

    def _shapes(self) -> dict[str, int]:
        n = len(self._numbers)
        return {"positions_A": n, "cell_A": 3, "forces_eV_per_A": n}

    def _ask_forces(self, fast: str, name: str) -> None:
        _ask(self._services[fast], encode("ask_forces", {"digest": name}))

    def _retry(self, now: float) -> None:
        for name, waiting in list(self._waiting.items()):
            if now - waiting.since > (RETRY_FOR_S if self.comparing else 0.0):
                with self._lock:
                    if self._waiting.pop(name, None) is not None:
                        self._compare(waiting)
            elif now - waiting.asked > RETRY_EVERY_S:
                waiting.asked = now
                for fast in self._missing(waiting):
                    self._ask_forces(fast, name)

    def _forces(self, message: Message, fast: str) -> None:
        if not message.fields["found"]:
            return
        forces = message.arrays.get("forces_eV_per_A")
        if forces is None or len(forces) != len(self._numbers):
            raise BadMessage("forces of another run")
        name = message.fields["digest"]
        with self._lock:
            waiting = self._waiting.get(name)
            if waiting is None:  # the reference is still at work, or it has been answered before
                self._ahead[fast][name] = forces
                while len(self._ahead[fast]) > MAX_AHEAD:
                    self._ahead[fast].popitem(last=False)
                return
            waiting.forces[fast] = forces
            if not self._missing(waiting):
                del self._waiting[name]
                self._compare(waiting)

    def _compare(self, waiting: _Waiting) -> None:
        """Compares every pair of models whose forces at this structure are there (locked)."""
        fields, arrays = waiting.message.fields, waiting.message.arrays
        self.counts.unpaired += bool(self._missing(waiting)) and self.comparing
        forces = {waiting.reference: arrays["forces_eV_per_A"], **waiting.forces}
        first = True
        for accurate, fast in self._pairs:
            if accurate not in forces or fast not in forces:
                continue
            compared = ForceComparison(
                accurate=accurate,
                fast=fast,
                difference=difference(forces[accurate], forces[fast]),
                reference=waiting.reference,
                connection=fields["connection"],
                evaluation=fields["evaluation"],
                pid=fields["pid"],
                time_unix_s=fields["time_unix_s"],
                energy_eV=fields["energy_eV"],
                positions_A=arrays["positions_A"],
                cell_A=arrays["cell_A"],
                forces_eV_per_A=forces,
            )
            if first:
                self.latest, first = compared, False
            remarkable = not compared.difference.largest <= self._keep_above[accurate, fast]
            if not remarkable:
                compared = replace(compared, positions_A=None, cell_A=None, forces_eV_per_A={})
            self.counts.pairs += 1
            self._compared.append(compared)
            if self.comparing and remarkable:
                with contextlib.suppress(BlockingIOError):  # it can be read already
                    os.write(self._bell, b"!")


def _give_way() -> None:
    """Lowers the priority of this thread, which would otherwise delay the models on few cores."""
    if sys.platform.startswith("linux"):  # elsewhere priorities are of whole processes
        with contextlib.suppress(OSError):
            own = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, own, os.getpriority(os.PRIO_PROCESS, own) + NICENESS)


def _ask(sock: zmq.Socket[bytes], frames: list[bytes]) -> None:
    with contextlib.suppress(zmq.ZMQError):  # nobody there, or its queue is full
        sock.send_multipart(frames, zmq.NOBLOCK)
