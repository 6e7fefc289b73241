"""Wrong input of run folders, benchmarks, the watchdog, several nodes; faults: lists of cases."""

from __future__ import annotations

import contextlib
import io
import os
import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dmts_ipi.core.private import make_private_folder
from dmts_ipi.ipi.client.check_server import Server, posdata
from dmts_ipi.ipi.client.client import Endpoint
from dmts_ipi.ipi.client.driver import main as driver_main
from dmts_ipi.ipi.run_folder.folder import RunFolder
from dmts_ipi.watchdog.keys import make_keys
from driver_models import load
from run_tools import TEACHER, Done, argon, call, direct, held, lines, make, until
from toy_water import toy_box
from wrong_tools import (
    TOY,
    Case,
    Words,
    init,
    label,
    last_line,
    pair,
    replaced,
    shorter,
    with_file,
    words,
)

DOG: list[object] = ["watchdog", "run"]
FS = ' units="femtosecond">4'


def folder(
    breaks: Callable[[Path], object],
    command: Words | None = None,
    teacher: str = TEACHER,
) -> Callable[[], Words]:
    """A command, ``run`` if none is given, on a run folder with something wrong."""

    def build() -> Words:
        breaks(make(Path("run"), "--no-model-check", "--teacher", teacher))
        return command or ["run", "run"]

    return build


def open_keys(folder: Path) -> None:
    """Keys of a run over TCP that others can read."""
    replaced("run.yaml", "address: null", "address: 127.0.0.1")(folder)
    file = make_private_folder(folder / "network") / "keys.json"
    make_keys(file)
    file.chmod(0o644)


def intact(folder: Path) -> None:
    """What is wrong is not in the folder."""


def driver_of_water() -> Words:
    """Options of a driver of eight waters."""
    toy_box().write("box.extxyz")
    return ["--model", "pair", "--structure", "box.extxyz"]


def taken(given: Words) -> Done:
    """With the socket of the run's teacher in use by somebody else."""
    at = RunFolder("run").spec().sockets["teacher"].path
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(at))
        listener.listen(1)
        try:
            return call(*given)
        finally:
            at.unlink()


PORT = 31497


def on_port(folder: Path) -> None:
    """Gives the teacher a TCP socket."""
    file = folder / "input.xml"
    tcp = f"mode='inet' pbc='False'><address>127.0.0.1</address><port>{PORT}</port>"
    text = re.sub(
        r"(<ffsocket name=['\"]teacher['\"])[^>]*>\s*<address>[^<]*</address>",
        rf"\1 {tcp}",
        file.read_text(),
    )
    assert tcp in text
    file.write_text(text)


def port_taken(given: Words) -> Done:
    """With that port in use by somebody else."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", PORT))
        listener.listen(1)
        return call(*given)


def driver(given: Words) -> Done:
    """A driver of 24 atoms to which i-PI sends 25."""
    name, atoms = f"dmts-test-{os.getpid()}", toy_box()
    options = [*map(str, given), "--unix", name]
    status, err = [0], io.StringIO()

    def serve() -> None:
        status[0] = driver_main("nc_driver", load, argv=options)

    with Server(Endpoint.unix(name)) as server, contextlib.redirect_stderr(err):
        thread = threading.Thread(target=serve)
        thread.start()
        link = server.accept(100.0, reply_s=100.0)
        link.status()
        link.initialise()
        x = np.concatenate([atoms.positions, [[9.0, 9.0, 9.0]]])
        link.send(posdata(x, atoms.cell.array) + b"GETFORCE".ljust(12))
        thread.join(100.0)
        link.close()
    errors = [x for x in err.getvalue().splitlines() if "error" in x]
    return Done(status[0], "", "".join(x + "\n" for x in errors))


def full_disk(given: Words) -> Done:
    """A run whose third checkpoint finds no room; the disk fills up while it runs."""

    def fill() -> None:
        until(lambda: lines(Path("run")) > 1, 600)
        Path("run/md.checkpoint_2").symlink_to("/dev/full")
        hold.unlink()

    hold = held(direct(Path("run")).resolve(), at=5)
    thread = threading.Thread(target=fill)
    thread.start()
    done = last_line(given)
    thread.join()
    return done


FOLDERS = [
    Case("a folder that is not writable", with_file("file", "", words("init", "file/run"))),
    Case("holds a run already", folder(intact, ["init", "run"])),
    Case("holds other files", with_file("run/notes.txt", "mine", init())),
    Case("is not a run folder", words("run", "run")),
    Case("no run to analyse", words("analyze", "run")),
    Case("a run that has written nothing, `analyze`", folder(intact, ["analyze", "run"])),
    Case("an unknown field in run.yaml", folder(replaced("run.yaml", "hmr_amu:", "hmr_am:"))),
    Case("a unit is missing in input.xml", folder(replaced("input.xml", FS, ">4"))),
    Case("an unknown unit", folder(replaced("input.xml", FS, " units='fortnight'>4"))),
    Case("`nmts` is not a multiple", folder(replaced("input.xml", "[1, 4]", "[1, 2.5]"))),
    Case(
        "the weights do not sum to the teacher alone",
        folder(replaced("input.xml", "[-1, 1]", "[0, 1]")),
    ),
    Case("input.xml is truncated", folder(lambda p: shorter(p / "input.xml"))),
    Case("the structure file is missing", folder(lambda p: (p / "structure.extxyz").unlink())),
    Case("a length that is not positive", folder(intact, ["run", "run", "--time-ps", -1])),
    Case("a limit that is not positive", folder(intact, ["run", "run", "--stall-limit-s", 0])),
    Case(
        "too little free space on the disk", folder(intact, ["run", "run", "--min-free-MB", 1e12])
    ),
    Case("a socket name in use", folder(intact), run=taken),
    Case("a driver with another structure than i-PI", driver_of_water, run=driver),
]


WATCHDOG = [
    Case(
        "watchdog: a negative limit",
        folder(replaced("run.yaml", "guard_fs: 100.0", "guard_fs: -1")),
    ),
    Case(
        "watchdog: a guard interval longer than all checkpoints that are kept",
        folder(replaced("run.yaml", "guard_fs: 100.0", "guard_fs: 5000")),
    ),
    Case(
        "watchdog: an unknown field",
        folder(replaced("run.yaml", "guard_fs: 100.0", "guard: 100")),
    ),
    Case(
        "watchdog: telemetry at an invalid address",
        folder(replaced("run.yaml", "telemetry: auto", "telemetry: here")),
    ),
    Case(
        "watchdog: it is disabled",
        folder(replaced("run.yaml", "enabled: true", "enabled: false"), DOG),
    ),
    Case("watchdog: a folder without a run", words("watchdog", "run")),
    Case(
        "watchdog: a run of another version",
        folder(replaced("run.yaml", "version: 2", "version: 3"), DOG),
    ),
    Case("watchdog: no such command", folder(intact, [*DOG, "--restart-ipi", "no-such-program"])),
    Case(
        "watchdog: an open quote", folder(intact, [*DOG, "--restart-driver", "teacher=ssh 'node"])
    ),
    Case("watchdog: no such process", folder(intact, [*DOG, "--pid", f"teacher={2**22 + 1}"])),
    Case("watchdog: a process id without a name", folder(intact, [*DOG, "--pid", "7"])),
    Case(
        "watchdog: a process of a model that the run does not have",
        folder(intact, [*DOG, "--pid", "small=7"]),
    ),
    Case(
        "watchdog: a command for a model that the run does not have",
        folder(intact, [*DOG, "--restart-driver", "small=cat"]),
    ),
    Case(
        "watchdog: options of a verdict that does not exist",
        folder(replaced("run.yaml", "verdict_options: {}", "verdict_options: {spiek: {a: 1}}")),
    ),
    Case(
        "watchdog: a limit for a model that is not compared",
        folder(
            replaced(
                "run.yaml",
                "difference_max_of_eV_per_A: {}",
                "difference_max_of_eV_per_A: {small: 1.0}",
            )
        ),
    ),
    Case("watchdog: a negative waiting time", folder(intact, [*DOG, "--wait-s", -1])),
    Case("watchdog: i-PI's port is in use", folder(on_port), run=port_taken),
]


NODES = [
    Case("keys that other users can read", folder(open_keys)),
    Case(
        "telemetry that other machines can reach, without keys",
        folder(replaced("run.yaml", "telemetry: auto", "telemetry: tcp://0.0.0.0:5500")),
    ),
    Case(
        "an address of another machine", folder(intact, ["run", "run", "--network", "198.51.100.7"])
    ),
    Case("an open quote", folder(intact, ["run", "run", "--launch-teacher", "srun 'x"])),
    Case("a run that is given twice", folder(intact, ["run", "run", "run"])),
    Case(
        "an unknown field of the file of tasks",
        with_file("t.yaml", "partitoin: gpu", folder(intact, ["run", "run", "--tasks", "t.yaml"])),
    ),
    Case("--parallel without a number of shards", label("--parallel", 2)),
]


ALONE: Words = ["run", "run", "--no-watchdog"]  # with one, a fault is met by rewinds first


FAULTS = [
    Case(
        "the teacher returns NaN, `label`", label("--teacher", TOY + '{"explode": 1}'), 4, last_line
    ),
    Case("the teacher returns NaN, `init`", init("--teacher", pair(nan_at=1)), 4),
    Case(
        "the teacher returns NaN, `run`",
        folder(intact, ALONE, teacher=pair(nan_at=12)),
        4,
        last_line,
    ),
    Case("the disk is full, `run`", folder(intact, ALONE), 4, full_disk),
]


def benchmark(text: str) -> Callable[[], Words]:
    """``benchmark`` of argon with the shipped models."""

    def build() -> Words:
        argon().write("argon.extxyz")
        start = "teacher: water-teacher\nstudents: {nc: water-student}\n"
        Path("b.yaml").write_text(start + text)
        return ["benchmark", "b.yaml"]

    return build


ONE, STS = "systems: [{name: a, structure: argon.extxyz}]\n", "integrators: [{kind: sts}]\n"


BENCHMARKS = [
    Case("a benchmark that does not exist", words("benchmark", "b.yaml")),
    Case("an unknown field in a benchmark", benchmark(ONE + STS + "round: 3\n")),
    Case(
        "an outer step that is not a multiple of the inner step",
        benchmark(ONE + "integrators: [{kind: hhf, outer_fs: 2.5}]\n"),
    ),
    Case(
        "DMTS without a conservative student",
        benchmark(ONE + "integrators: [{kind: dmts, outer_fs: 5}]\n"),
    ),
    Case("a teacher that knows none of the systems", benchmark(ONE + STS)),
    Case("a structure that does not exist", benchmark(ONE.replace("argon", "b") + STS)),
]


def tuning(*options: object) -> Callable[[], Words]:
    """``tune`` of a good folder."""
    return folder(intact, ["tune", "run", *options])


def single_steps() -> Words:
    """``tune`` of single time stepping."""
    make(Path("run"), "--no-model-check", "--mode", "sts", "--n-inner", 1)
    return ["tune", "run"]


TUNING = [
    Case("a run to tune that does not exist", words("tune", "run")),
    Case("a negative step", folder(intact, ["i-pi", "run/input.xml", "--single-steps-until", -1])),
    Case("a run without an outer step", single_steps),
    Case("a tolerance of zero", tuning("--tolerance-K", 0)),
    Case("an inner step of zero", tuning("--inner-fs", 0)),
    Case("a thermostat for hydrogen in a system without hydrogen", tuning("--thermostats", "hhf")),
    Case("no candidates", tuning("--n-inner", 0)),
]
