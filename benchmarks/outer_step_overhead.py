#!/usr/bin/env python3
"""All that is neither teacher nor student: ms of an outer step whose models cost nothing.

    python benchmarks/outer_step_overhead.py [--structure ipi_inputs/water216.extxyz] [--n-inner 6]

Runs as `dmts-ipi init` makes them, with the real drivers, telemetry, a watchdog that hears them,
and outputs; only the models are replaced by one that returns zeros: the student's at once, the
teacher's after --teacher-ms of work (3), which are subtracted. What i-PI does meanwhile takes no
time; with 0 everything counts, but caches stay warm and processors awake. Ways of exchange take
turns, each in fresh processes; "step" is the step alone, with outputs that are written in it,
"with output" is from one step to the next. Medians over rounds of the means over steps, and the
median of the rounds' differences to the first way.

CPU times are the least of all blocks of steps, which holds on a busy machine, too (Linux): the main
threads of i-PI and of the drivers, which work by turns and so make up the wall time, apart
from wake-ups; and all their other threads, which on two cores take no wall time. --profile ROWS
prints the functions of i-PI's main thread that take most.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import re
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from common import save

SKIP = 10
BLOCK = 20  # outer steps of a CPU time
# name: mode of the sockets, i-PI's poll thread, resident, telemetry
WAYS: dict[str, tuple[str, bool, bool, bool]] = {
    "sockets, i-PI's thread and outputs": ("unix", True, False, True),
    "sockets": ("unix", False, False, True),
    "sockets, no telemetry": ("unix", False, False, False),
    "shared memory": ("shm", False, False, True),
    "resident student": ("unix", False, True, True),
    "resident, no telemetry": ("unix", False, True, False),
}


class Zero:
    """A force model that returns zeros after some time."""

    name, identity, elements, cutoff_A, conservative = "zero", "zero", None, None, True

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds
        self._forces: dict[int, np.ndarray] = {}
        self._virial = np.zeros((3, 3))

    def compute(self, numbers: Any, positions: Any, cell: Any, pbc: Any) -> Any:
        from dmts_ipi.core.model import ForceResult

        until = time.perf_counter() + self._seconds
        while time.perf_counter() < until:
            pass
        forces = self._forces.setdefault(len(numbers), np.zeros((len(numbers), 3)))
        return ForceResult(0.0, forces, self._virial)


def load_zero(spec: str, *, device: str, dtype: str | None, compile: bool) -> Zero:
    return Zero(float(spec))


def driver(role: str, argv: list[str]) -> int:
    """A driver with the model of zeros; the model's name is its time, s."""
    from dmts_ipi.ipi.client.driver import main as run
    from dmts_ipi.watchdog.publisher import opener

    telemetry = partial(opener, reference=role == "teacher")
    return run("0", load_zero, argv=argv, telemetry=telemetry, role=role)


def cpu_ms(pids: list[int]) -> np.ndarray:
    """CPU time, ms, of this thread, of the main threads of other processes, of all others."""
    mine, main, others = 1e3 * time.thread_time(), 0.0, 0.0
    for pid in [os.getpid(), *pids]:
        for task in Path(f"/proc/{pid}/task").glob("*"):
            used = float((task / "schedstat").read_text().split()[0]) / 1e6
            if int(task.name) != pid:
                others += used
            elif pid != os.getpid():
                main += used
    return np.array([mine, main, others])


def child(way: str, folder: Path, rows: int, pids: list[int]) -> int:
    """Runs i-PI of a folder in this process; prints ms per outer step.

    Wall time of the step alone and with output; CPU time of i-PI, drivers, other threads.
    """
    import dmts_ipi.models.load as models
    from dmts_ipi.core.recorder import Recorder
    from dmts_ipi.ipi.patches.install import install_patches
    from dmts_ipi.ipi.patches.table import OPTIONAL

    models.load_model = lambda *_, **__: Zero()  # type: ignore[assignment, return-value]
    kept = (
        "array-loop",
        "prefetched-rng",
    )  # of the integrator itself
    install_patches({n for n in OPTIONAL if n not in kept} if WAYS[way][1] else ())
    from ipi.engine.simulation import Simulation

    recorder = Recorder("i-pi", folder)
    recorder.wrap(Simulation, "run_step", "step")
    cpu: list[np.ndarray] = []
    plain, profile = Simulation.run_step, cProfile.Profile(time.thread_time)

    def counted(self: Any, step: int) -> None:
        if step >= SKIP and (step - SKIP) % BLOCK == 0 and sys.platform.startswith("linux"):
            cpu.append(cpu_ms(pids))
        if rows and step == SKIP:
            profile.enable()
        plain(self, step)

    Simulation.run_step = counted
    with open(folder / "input.xml") as stream:
        simulation = Simulation.load_from_xml(stream)
    simulation.run()
    profile.disable()
    simulation.stop()
    if rows:
        stats = pstats.Stats(profile, stream=sys.stderr)
        stats.sort_stats("cumtime").print_stats(rows)
    begins = np.array([a for _, a, _ in recorder.spans])[SKIP:]
    alone = np.array([b - a for _, a, b in recorder.spans])[SKIP:-1]
    least = np.min(np.diff(cpu, axis=0), axis=0) / BLOCK if len(cpu) > 1 else np.full(3, np.nan)
    wall = [1e3 * float(alone.mean()), 1e3 * float(np.diff(begins).mean())]
    print(json.dumps([*wall, *least.tolist()]))
    return 0


def measure(way: str, args: argparse.Namespace, folder: Path) -> list[float]:
    """One run: see ``child``."""
    mode, _, resident, telemetry = WAYS[way]
    dmts = [sys.executable, "-W", "ignore", "-m", "dmts_ipi.cli"]
    options = ["--structure", args.structure, "--n-inner", args.n_inner, "--hmr", 3, "--threads", 1]
    options += ["--time-ps", (args.steps + SKIP) * args.n_inner / 1000, "--no-model-check"]
    options += ["--resident"] if resident else []
    command = [*dmts, "init", folder, *options]
    subprocess.run([str(x) for x in command], stdout=subprocess.DEVNULL, check=True)
    file = folder / "input.xml"
    text = file.read_text().replace('mode="unix"', f'mode="{mode}"')
    if not telemetry:
        text = re.sub(r", telemetry: [\w.-]+", "", text)
    file.write_text(text)
    from dmts_ipi.ipi.input_xml import read_input

    me = [sys.executable, "-W", "ignore", str(Path(__file__).resolve())]
    drivers = []
    for role, at in read_input(file).sockets.items():
        seconds = args.teacher_ms / 1e3 if role == "teacher" else 0.0
        words = ["--model", str(seconds), "--structure", "structure.extxyz", "--unix", at.address]
        words += ["--telemetry", "auto" if telemetry else "off"]
        drivers.append(
            subprocess.Popen([*me, "--driver", role, *words], cwd=folder, stderr=subprocess.DEVNULL)
        )
    watchdog = listener(file) if telemetry else None
    try:
        ipi = subprocess.Popen(
            [*me, "--child", way, str(folder), str(args.profile), *(str(p.pid) for p in drivers)],
            cwd=folder,
            stdout=subprocess.PIPE,
            text=True,
        )
        while ipi.poll() is None:  # without a driver i-PI would wait for ever
            if any(process.poll() is not None for process in drivers):
                ipi.kill()
                sys.exit(f"a driver of {folder} has ended; start it with --driver to see why")
            time.sleep(0.2)
        output = ipi.communicate()[0]
        if ipi.returncode:
            sys.exit(f"i-PI of {folder}: exit status {ipi.returncode}")
    finally:
        for process in drivers:
            process.terminate()
            process.wait()
        if watchdog is not None:
            watchdog.close()
    found = list(json.loads(output.strip().splitlines()[-1]))
    cpu_of_teacher = [args.teacher_ms * k for k in (1, 1, 0, 1, 0)]
    return [a - b for a, b in zip(found, cpu_of_teacher, strict=True)]


def listener(file: Path) -> Any:
    """The watchdog's side of telemetry for a run."""
    from dmts_ipi.commands.build_watchdog import telemetry_of
    from dmts_ipi.ipi.input_xml import read_input
    from dmts_ipi.ipi.run_folder.folder import RunFolder
    from dmts_ipi.watchdog.listener import Listener

    folder = RunFolder(file.parent)
    spec = read_input(file)
    limits = dict.fromkeys(spec.comparisons, 1e9)
    return Listener(telemetry_of(folder, spec), folder.structure().numbers, limits)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    here = Path(__file__).resolve().parents[1] / "ipi_inputs"
    p.add_argument("--structure", type=Path, default=here / "water216.extxyz")
    p.add_argument("--n-inner", type=int, default=6)
    p.add_argument("--steps", type=int, default=200, help="outer steps of a run")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--teacher-ms", type=float, default=3.0, help="0: at once")
    p.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    p.add_argument("--profile", type=int, default=0, metavar="ROWS")
    p.add_argument("--name", default="outer_step_overhead")
    args = p.parse_args()
    args.structure = args.structure.resolve()
    found: dict[str, list[list[float]]] = {way: [] for way in args.ways}
    with tempfile.TemporaryDirectory() as scratch:
        for k in range(args.rounds):
            order = args.ways if k % 2 == 0 else args.ways[::-1]
            for n, way in enumerate(order):
                found[way].append(measure(way, args, Path(scratch) / f"{k}-{n}"))
                print(f"# round {k + 1}: {way}: {found[way][-1]}", file=sys.stderr, flush=True)
    first = found[args.ways[0]]
    rows = [
        f"{args.structure.name}, {args.n_inner} inner steps, a teacher of {args.teacher_ms:g} ms, "
        f"{args.rounds} rounds of {args.steps}",
        f"{'':59s}{'CPU time':>12s}",
        f"{'ms per outer step':30s}{'step':>8s}{'with output':>13s}{'less than first':>17s}"
        f"{'i-PI':>8s}{'drivers':>9s}{'sum':>7s}{'beside':>8s}",
    ]
    for way, values in found.items():
        step, whole = (statistics.median(v[k] for v in values) for k in (0, 1))
        less = statistics.median(a[1] - b[1] for a, b in zip(first, values, strict=True))
        ipi, others, beside = (min(v[k] for v in values) for k in (2, 3, 4))
        rows.append(
            f"{way:30s}{step:8.2f}{whole:13.2f}{less:17.2f}"
            f"{ipi:8.2f}{others:9.2f}{ipi + others:7.2f}{beside:8.2f}"
        )
    rows.append("limits, with output: sockets 2.0 (aim 1.2), resident 0.6 (aim 0.3)")
    save(args.name, "\n".join(rows))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        pids = [int(x) for x in sys.argv[5:]]
        sys.exit(child(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), pids))
    if sys.argv[1:2] == ["--driver"]:
        sys.exit(driver(sys.argv[2], sys.argv[3:]))
    main()
