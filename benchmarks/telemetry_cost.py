#!/usr/bin/env python3
"""Cost of telemetry: evaluations of a student's driver with and without, in one run by turns.

    python benchmarks/telemetry_cost.py --structure FILE ... [--evaluations 3000] [--threads 1]

Four processes, as in a run: this one sends positions over a socket as i-PI does, and thinks for
--think-ms between two of them (i-PI takes longer); the student's driver answers; every sixth
position goes to the teacher's driver, too, which evaluates it (or sleeps for --teacher-ms: caches
then stay warm as they never do beside a large model); a watchdog hears both, asks for their status
once a second, and wants the student's forces of every sixth position. Twice: all processes go
where the system puts them (core ``any``), and the student has a core that no other may use
(``own``), as on a machine with more cores than processes.
Blocks of outer steps with telemetry and without alternate; the cost is the median of the
differences of neighbouring blocks, its error the median absolute deviation over the square root of
their number. ``wall``: from the positions to the forces, which is what i-PI waits for. ``cpu``: of
all threads of the student's driver. ``sent``: forces that it sent without being asked.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import socket
import tempfile
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from common import save
from dmts_ipi.core.frames import read_frames
from dmts_ipi.core.memory import keep_freed_memory
from dmts_ipi.ipi import units
from dmts_ipi.ipi.client.client_session import Session, header
from dmts_ipi.ipi.client.driver_model import AtomicUnitsModel
from dmts_ipi.watchdog.endpoints import Addresses, addresses
from dmts_ipi.watchdog.listener import Listener
from dmts_ipi.watchdog.publisher import Publisher

N_INNER, BLOCK = 6, 12


def watched(block: int) -> bool:
    """Whether a block is one with telemetry: on off, off on, on off ..."""
    return block % 4 in (0, 3)


@dataclass
class Shared:
    """What the processes tell each other. ``first``: evaluation at which the blocks begin."""

    first: Any
    stop: Any
    pairs: Any
    heard: Any
    sent: Any
    cpu: Any  # s of the student's driver, at the begin of each block and at the end


@dataclass
class Alternating:
    """The evaluator of the student's driver, with telemetry in every second block."""

    model: AtomicUnitsModel
    publisher: Publisher
    shared: Shared
    numbers: np.ndarray = field(init=False)
    done: int = 0

    def __post_init__(self) -> None:
        self.numbers = self.model.numbers

    def parameters(self, fields: dict[str, str]) -> None:
        self.model.parameters(fields)

    def answered(self) -> None:
        self.model.answered()

    def compute_batch(self, h: np.ndarray, x: np.ndarray) -> Any:
        raise NotImplementedError

    def compute(self, h: np.ndarray, x: np.ndarray) -> Any:
        self.shared.heard.value = self.publisher.requests
        first = self.shared.first.value
        if first >= 0 and (self.done - first) % BLOCK == 0:
            block = (self.done - first) // BLOCK
            self.shared.cpu[block] = time.process_time()
            self.model.observer = self.publisher if watched(block) else None
        self.done += 1
        return self.model.compute(h, x)


def study(
    sock: socket.socket,
    student: str,
    path: str,
    at: Addresses,
    threads: int,
    shared: Shared,
    own_core: bool,
) -> None:
    """The student's driver."""
    import torch

    from dmts_ipi.models.load import load_model

    torch.set_num_threads(threads)
    if own_core:
        os.sched_setaffinity(0, {0})
    keep_freed_memory()
    frame = read_frames(path)[0]
    publisher = Publisher("student", at, len(frame.numbers), "cpu", reference=False)
    model = AtomicUnitsModel(load_model(student), frame.numbers, frame.pbc, observer=publisher)
    Session(sock, Alternating(model, publisher, shared)).run()
    shared.sent.value = publisher.unasked
    publisher.close()


def teach(
    teacher: str, path: str, at: Addresses, threads: int, sleep_s: float, pipe: Connection
) -> None:
    """The teacher's driver: a position (bohr) and whether to publish, until None."""
    import torch

    from dmts_ipi.models.load import load_model

    frame = read_frames(path)[0]
    publisher = Publisher("teacher", at, len(frame.numbers), "cpu", reference=True)
    torch.set_num_threads(threads)
    keep_freed_memory()
    model = None if sleep_s else load_model(teacher)
    forces = np.zeros_like(frame.positions)
    while (asked := pipe.recv()) is not None:
        sent, told = asked
        x, begin = units.positions_from_ipi(sent), time.perf_counter()
        publisher.begin()
        if model is None:
            time.sleep(sleep_s)
        else:
            forces = model.compute(frame.numbers, x, frame.cell, frame.pbc).forces_eV_per_A
        publisher.end()
        pipe.send(None)
        if told:
            publisher.evaluated(sent, x, frame.cell, 0.0, forces, time.perf_counter() - begin)
    publisher.close()


def listen(at: dict[str, Addresses], numbers: np.ndarray, shared: Shared) -> None:
    """The watchdog."""
    listener = Listener(at, numbers, {("teacher", "student"): 1e9})
    shared.stop.wait()
    shared.pairs.value = listener.counts.pairs
    listener.close()


def outer_steps(
    sock: socket.socket, h: np.ndarray, track: np.ndarray, told: bool, teacher: Connection, s: float
) -> float:
    """i-PI: sends positions and takes forces. Seconds of waiting for the student, each."""
    wall, n = 0.0, track.shape[1]
    inverse = np.linalg.inv(h).tobytes()
    reply = bytearray(12 + 8 + 4 + 24 * n + 72 + 4)
    for k, x in enumerate(track, start=1):
        thinks_until = time.perf_counter() + s
        if k % N_INNER == 0:
            teacher.send((x, told))
        data = header("POSDATA") + h.tobytes() + inverse + np.int32(n).tobytes() + x.tobytes()
        while time.perf_counter() < thinks_until:
            pass
        begin = time.perf_counter()
        sock.sendall(data + header("GETFORCE"))
        got = 0
        while got < len(reply):
            got += sock.recv_into(memoryview(reply)[got:], 0, socket.MSG_WAITALL)
        wall += time.perf_counter() - begin
        if k % N_INNER == 0:
            teacher.recv()
    return wall / len(track)


def measure(path: str, folder: str, args: argparse.Namespace, own_core: bool) -> str:
    """A row of the table."""
    frame = read_frames(path)[0]
    n = len(frame.numbers)
    at: dict[str, Addresses] = {}
    for role in ("teacher", "student"):
        where = addresses(f"ipc://{folder}/{role}-{n}-{own_core:d}", "")
        assert where is not None
        at[role] = where
    h = units.cell_to_ipi(frame.cell)
    rng = np.random.default_rng(0)
    v = rng.normal(size=frame.positions.shape) * 0.006
    flight = frame.positions + np.arange(BLOCK)[:, None, None] * 0.2 * v
    track = np.stack([units.positions_to_ipi(x) for x in flight])
    blocks = 4 * max(args.evaluations // (4 * BLOCK), 2)
    context = multiprocessing.get_context("spawn")
    values = [context.Value("i", x, lock=False) for x in (-1, 0, 0, 0)]
    cpu = context.Array("d", blocks + 1, lock=False)
    shared = Shared(values[0], context.Event(), *values[1:], cpu)
    teacher, end = context.Pipe()
    sock, other = socket.socketpair()
    by = (args.student, path, at["student"], args.threads, shared, own_core)
    others = [
        context.Process(target=study, args=(other, *by)),
        context.Process(target=listen, args=(at, frame.numbers, shared)),
        context.Process(
            target=teach,
            args=(args.teacher, path, at["teacher"], args.threads, args.teacher_ms / 1e3, end),
        ),
    ]
    everywhere = os.sched_getaffinity(0)
    if own_core:
        os.sched_setaffinity(0, everywhere - {0})
    for process in others:
        process.start()
    other.close()
    think_s = args.think_ms / 1e3
    sock.sendall(header("INIT") + bytes(8))
    done = 0
    while not shared.heard.value:  # the watchdog is there
        outer_steps(sock, h, track, True, teacher, think_s)
        done += BLOCK
    shared.first.value = done
    wall = []
    for k in range(blocks):
        moved = track + 1e-9 * k  # a digest of its own for every evaluation
        wall.append(outer_steps(sock, h, moved, watched(k), teacher, think_s))
    outer_steps(sock, h, track, True, teacher, think_s)
    shared.stop.set()
    teacher.send(None)
    sock.sendall(header("EXIT"))
    for process in others:
        process.join()
    os.sched_setaffinity(0, everywhere)
    row = [f"{n:6} {'own' if own_core else 'any':>5}"]
    for seconds in (np.diff(np.array(cpu[:])) / BLOCK, np.array(wall)):
        on = seconds[[k for k in range(blocks) if watched(k)]]
        off = seconds[[k for k in range(blocks) if not watched(k)]]
        cost, base = float(np.median(on - off)), float(np.median(off))
        error = 1.48 * float(np.median(np.abs(on - off - cost))) / len(on) ** 0.5
        row.append(f"{1e3 * base:8.3f} {1e6 * cost:8.1f} +-{1e6 * error:6.1f}")
        row.append(f"{100 * cost / base:6.2f} +-{100 * error / base:5.2f}")
    return " ".join([*row, f"{shared.pairs.value:7} {shared.sent.value:7}"])


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--student", default="water-student")
    p.add_argument("--structure", nargs="+", required=True)
    p.add_argument("--evaluations", type=int, default=3000)
    p.add_argument("--teacher", default="water-teacher")
    p.add_argument("--teacher-ms", type=float, default=0.0, help="it sleeps instead of working")
    p.add_argument("--think-ms", type=float, default=0.1)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--name", default="telemetry_cost")
    args = p.parse_args()
    rows = [
        f"threads {args.threads}, load {os.getloadavg()[0]:.1f}, "
        + (f"teacher sleeps {args.teacher_ms:g} ms" if args.teacher_ms else args.teacher),
        " atoms  core   cpu_ms     cost_us       cost_percent    "
        "wall_ms     cost_us       cost_percent   pairs    sent",
    ]
    with tempfile.TemporaryDirectory() as folder:
        rows += [measure(path, folder, args, own) for path in args.structure for own in (0, 1)]
    save(args.name, "\n".join(rows))


if __name__ == "__main__":
    main()
