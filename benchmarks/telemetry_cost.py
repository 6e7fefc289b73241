#!/usr/bin/env python3
"""Cost of telemetry: a driver's evaluations with and without, alternating within one process.

    python benchmarks/telemetry_cost.py --structure FILE ... [--evaluations 3000] [--threads 1]

The student's driver with a watchdog (another process) that hears it, asks for its status once a
second, and for forces once in six evaluations, as at 1-6 fs. Blocks of evaluations with telemetry
and without alternate; the cost is the median of the differences of neighbouring blocks, its error
the median absolute deviation over the square root of their number. ``cpu`` is the processor time
of all threads of the driver, which other load on the machine hardly touches, ``wall`` the time on
the clock. The part of a teacher's telemetry that runs in other threads of this process counts too.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from typing import Any

import numpy as np
from common import save

from dmts_ipi.core.frames import read_frames
from dmts_ipi.core.memory import keep_freed_memory
from dmts_ipi.ipi import units
from dmts_ipi.ipi.client.driver_model import AtomicUnitsModel
from dmts_ipi.watchdog.endpoints import Addresses, addresses
from dmts_ipi.watchdog.listener import Listener
from dmts_ipi.watchdog.publisher import Publisher

BLOCK = 12


def clocks() -> np.ndarray:
    """Wall and processor time, s."""
    return np.array([time.perf_counter(), time.process_time()])


def block(
    model: AtomicUnitsModel, h: np.ndarray, track: np.ndarray, teacher: Publisher | None
) -> np.ndarray:
    """Wall and processor seconds per evaluation. Every sixth position is the teacher's as well."""
    started, outside = clocks(), np.zeros(2)
    for k, x in enumerate(track):
        model.compute(h, x)
        if teacher is not None and k % 6 == 0:
            begin = np.array([time.perf_counter(), time.thread_time()])  # another process in a run
            teacher.begin()
            teacher.evaluated(x, x, h, 0.0, x)
            outside += np.array([time.perf_counter(), time.thread_time()]) - begin
    return (clocks() - started - outside) / len(track)


def listen(at: dict[str, Addresses], numbers: np.ndarray, stop: Any, pairs: Any) -> None:
    """The watchdog's process."""
    listener = Listener(at, numbers, 1e9)
    stop.wait()
    pairs.value = listener.counts.pairs
    listener.close()


def measure(student: str, path: str, count: int, folder: str) -> str:
    """A row of the table."""
    from dmts_ipi.distill.models import load_model

    frame = read_frames(path)[0]
    n = len(frame.numbers)
    at: dict[str, Addresses] = {}
    for role in ("teacher", "student"):
        where = addresses(f"ipc://{folder}/{role}-{n}", "")
        assert where is not None
        at[role] = where
    model = AtomicUnitsModel(load_model(student), frame.numbers, frame.pbc)
    publisher = Publisher("student", at["student"], n, "cpu")
    teacher = Publisher("teacher", at["teacher"], n, "cpu")
    context = multiprocessing.get_context("spawn")
    stop, pairs = context.Event(), context.Value("i", 0)
    watchdog = context.Process(target=listen, args=(at, frame.numbers, stop, pairs))
    watchdog.start()
    h = units.cell_to_ipi(frame.cell)
    rng = np.random.default_rng(0)
    v = rng.normal(size=frame.positions.shape) * 0.006
    flight = frame.positions + np.arange(BLOCK)[:, None, None] * 0.2 * v
    track = np.stack([units.positions_to_ipi(x) for x in flight])
    while teacher.questions == 0:  # the watchdog's first question: it is there
        block(model, h, track, teacher)
    on, off = [], []
    for k in range(max(count // (2 * BLOCK), 4)):
        moved = track + 1e-9 * k  # a digest of its own for every evaluation
        for watched in (True, False) if k % 2 else (False, True):
            model.observer = publisher if watched else None
            (on if watched else off).append(block(model, h, moved, teacher if watched else None))
    stop.set()
    watchdog.join()
    for p in (publisher, teacher):
        p.close()
    difference = np.array(on) - np.array(off)
    cost = np.median(difference, axis=0)
    error = 1.48 * np.median(np.abs(difference - cost), axis=0) / np.sqrt(len(difference))
    base = np.median(off, axis=0)
    row = [f"{n:6}"]
    for k in (1, 0):
        row.append(f"{1e3 * base[k]:8.3f} {1e6 * cost[k]:8.1f} +-{1e6 * error[k]:6.1f}")
        row.append(f"{100 * cost[k] / base[k]:6.2f} +-{100 * error[k] / base[k]:5.2f}")
    return " ".join([*row, f"{pairs.value:7}"])


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--student", default="water-student")
    p.add_argument("--structure", nargs="+", required=True)
    p.add_argument("--evaluations", type=int, default=3000)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--name", default="telemetry_cost")
    args = p.parse_args()
    import torch

    torch.set_num_threads(args.threads)
    keep_freed_memory()
    rows = [
        f"threads {args.threads}, load {os.getloadavg()[0]:.1f}",
        " atoms   cpu_ms     cost_us       cost_percent    "
        "wall_ms     cost_us       cost_percent pairs",
    ]
    with tempfile.TemporaryDirectory() as folder:
        rows += [measure(args.student, f, args.evaluations, folder) for f in args.structure]
    save(args.name, "\n".join(rows))


if __name__ == "__main__":
    main()
