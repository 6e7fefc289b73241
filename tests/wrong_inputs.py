"""Wrong input: every situation with what the command prints. ``docs/wrong_input.md`` is made here.

``python tests/wrong_inputs.py [WORDS]`` writes the page; with words, only the rows of situations
that have them in their name. ``test_wrong_input.py`` compares the page with what is printed. A case
builds what is wrong in an empty folder, the current one, and returns the words of the command.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from driver_models import load
from run_tools import STUDENT, TEACHER, TESTS, Done, argon, call, direct, lines, make, until
from toy_water import toy_box

from dmts_ipi.core.frames import Frame, write_frames
from dmts_ipi.core.private import make_private_folder
from dmts_ipi.distill.models import PRETRAINED
from dmts_ipi.ipi.check_server import Server, posdata
from dmts_ipi.ipi.client import Endpoint
from dmts_ipi.ipi.driver import main as driver_main
from dmts_ipi.ipi.folder import RunFolder
from dmts_ipi.watchdog.keys import make_keys

PAGE = TESTS.parent / "docs" / "wrong_input.md"
TOY = "ase:toy_water.ToyWater"
Words = list[object]
DOG: list[object] = ["watchdog", "run"]
TAKEN = "labels.extxyz/student"  # below a file
FS = ' units="femtosecond">4'


@dataclass(frozen=True)
class Case:
    """A situation, the words of the command after building it, and the exit status."""

    situation: str
    build: Callable[[], Words]
    status: int = 2
    run: Callable[[Words], Done] = lambda words: call(*words)


# ---------------------------------------------------------------------------- builders


def words(*given: object) -> Callable[[], Words]:
    """A command that needs nothing built."""
    return lambda: list(given)


def init(*options: object, **change: Callable[[Atoms], object]) -> Callable[[], Words]:
    """``init`` of argon with toy models; ``change`` breaks the structure."""

    def build() -> Words:
        atoms = argon()
        for breaks in change.values():
            breaks(atoms)
        atoms.write("s.extxyz")
        models = ("--teacher", TEACHER, "--student", STUDENT)
        return ["init", "run", "--structure", "s.extxyz", *models, *options]

    return build


def label(*options: object, **change: Callable[[Atoms], object]) -> Callable[[], Words]:
    """``label`` of eight toy waters."""

    def build() -> Words:
        atoms = toy_box()
        for breaks in change.values():
            breaks(atoms)
        atoms.write("box.extxyz")
        base = ["label", "--teacher", TOY, "--structure", "box.extxyz", "--out", "labels.extxyz"]
        return [*base, *("--time-ps", 0.02, "--equilibrate-ps", 0, "--every-fs", 10), *options]

    return build


def labelled(command: str, *options: object, **change: Callable[[Frame], object]):
    """``distill`` or ``evaluate`` on three frames of toy labels."""

    def build() -> Words:
        frames = []
        for _ in range(3):
            frame = Frame.from_atoms(toy_box())
            frame.forces = np.zeros_like(frame.positions)
            frames.append(frame)
        for breaks in change.values():
            breaks(frames[1])
        write_frames(Path("labels.extxyz"), frames)
        own = ["--model", TOY] if command == "evaluate" else ["--teacher", TOY, "--out", "student"]
        return [command, "--labels", "labels.extxyz", *own, *options]

    return build


def with_file(name: str, text: str, build: Callable[[], Words]) -> Callable[[], Words]:
    """A file beside what ``build`` makes."""

    def both() -> Words:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
        return build()

    return both


def model(name: str, breaks: Callable[[Path], object]) -> Callable[[], Words]:
    """``init`` with a broken copy of a shipped model."""

    def build() -> Words:
        shutil.copytree(PRETRAINED / name, "model")
        breaks(Path("model"))
        which = "--student" if name == "water-student" else "--teacher"
        return ["init", "run", "--no-model-check", which, "model"]

    return build


def replaced(file: str, old: str, new: str) -> Callable[[Path], object]:
    """Edits a file in a folder."""

    def change(folder: Path) -> None:
        text = (folder / file).read_text()
        assert old in text, f"{file} has no {old}"
        (folder / file).write_text(text.replace(old, new, 1))

    return change


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


def weights(folder: Path) -> Path:
    return folder / "model.safetensors"


def driver_of_water() -> Words:
    """Options of a driver of eight waters."""
    toy_box().write("box.extxyz")
    return ["--model", "pair", "--structure", "box.extxyz"]


def shorter(file: Path, by: int = 100) -> None:
    file.write_bytes(file.read_bytes()[:-by])


def no_forces(frame: Frame) -> None:
    frame.forces = None


def nan_forces(frame: Frame) -> None:
    assert frame.forces is not None
    frame.forces[5, 0] = np.nan


def squeezed(frame: Frame) -> None:
    frame.positions *= 0.1  # O-H of 0.1 A


def of_sulphur(frame: Frame) -> None:
    frame.numbers[frame.numbers == 8] = 16


def close(atoms: Atoms) -> None:
    atoms.positions[1] = atoms.positions[0] + [0.1, 0, 0]


def nan(atoms: Atoms) -> None:
    atoms.positions[3, 1] = np.nan


def no_cell(atoms: Atoms) -> None:
    atoms.cell, atoms.pbc = np.zeros((3, 3)), False


def flat(atoms: Atoms) -> None:
    atoms.cell[2] = 0.0


def one_hydrogen(atoms: Atoms) -> None:
    atoms.numbers[4] = 1


# ----------------------------------------------------------------- other ways to run


def taken(given: Words) -> Done:
    """With the socket of the run's teacher in use by somebody else."""
    at = RunFolder("run").facts().sockets["teacher"].path
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


def plain_driver(given: Words) -> Done:
    """A driver by itself."""
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        status = driver_main("nc_driver", load, argv=[str(w) for w in given])
    return Done(status, "", err.getvalue())


def last_line(given: Words) -> Done:
    """A run that ends in a fault: the ends of the logs stand before the line."""
    done = call(*given)
    return Done(done.returncode, done.stdout, done.stderr.splitlines()[-1] + "\n")


class Absent:
    """A finder that knows of no ``package``."""

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(self, name: str, *unused: object) -> None:
        if name.split(".")[0] == self.package:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)


def without(package: str) -> Callable[[Words], Done]:
    """On a machine that lacks a package."""

    def run(given: Words) -> Done:
        kept = {k: sys.modules.pop(k) for k in list(sys.modules) if k.split(".")[0] == package}
        finder = Absent(package)
        sys.meta_path.insert(0, finder)  # type: ignore[arg-type]
        try:
            return call(*given)
        finally:
            sys.meta_path.remove(finder)  # type: ignore[arg-type]
            sys.modules.update(kept)

    return run


def full_disk(given: Words) -> Done:
    """A run whose third checkpoint finds no room; the disk fills up while it runs."""

    def fill() -> None:
        until(lambda: lines(Path("run")) > 1)
        Path("run/md.checkpoint_2").symlink_to("/dev/full")

    direct(Path("run"), teacher="k: 0.02, delay_s: 0.02")
    thread = threading.Thread(target=fill)
    thread.start()
    done = last_line(given)
    thread.join()
    return done


def pair(**keywords: object) -> str:
    """A toy teacher or student of argon."""
    return f"ase:run_tools.Pair {json.dumps(keywords)}"


# ------------------------------------------------------------------------------ cases

OPTIONS = [
    Case("a number that is none", words("run", "run", "--time-ps", "x")),
    Case("a number that is none, of `init`", init("--time-ps", "long")),
    Case("NaN for a number", init("--temperature-K", "nan")),
    Case("a whole number that is none", words("distill", "--steps", "1e3")),
    Case("not a whole number of inner steps", init("--n-inner", 2.5)),
    Case("a number out of range", init("--inner-fs", -1)),
    Case("a number out of range, of `label`", label("--time-ps", -1)),
    Case("an impossible temperature", label("--temperatures-K", 0)),
    Case("not one of the choices", words("evaluate", "--model", "x", "--dtype", "float16")),
    Case("an unknown ensemble", init("--ensemble", "nst")),
    Case("an unknown mode", init("--mode", "mts")),
    Case("an unknown precision", init("--teacher-dtype", "float16")),
    Case("an unknown option", words("run", "run", "--time-pss", 3)),
    Case("an option without its value", words("run", "run", "--time-ps")),
    Case("options that are missing", words("distill", "--out", "student")),
    Case("options that exclude each other", words("distill", "--minutes", 1, "--steps", 5)),
    Case("no length of the training", labelled("distill")),
    Case("nothing to evaluate on", words("evaluate", "--model", "water-student")),
    Case("nothing to label", words("label", "--teacher", TOY, "--out", "labels.extxyz")),
    Case("an unknown part of a job array", label("--shard", "3/2")),
    Case("nothing to check", words("check-driver", "--structure", "s.xyz")),
    Case("an unknown command", words("lable")),
    Case("a driver's option", words("--threads", "many"), run=plain_driver),
]

STRUCTURES = [
    Case("the file does not exist", words("init", "run", "--structure", "s.xyz")),
    Case("the file is empty", with_file("s.xyz", "", words("init", "run", "--structure", "s.xyz"))),
    Case(
        "the file is no structure",
        with_file("s.xyz", "hello\nworld\n", words("init", "run", "--structure", "s.xyz")),
    ),
    Case("NaN in the positions", init(change=nan)),
    Case("NaN in the positions, `label`", label(change=nan)),
    Case("atoms closer than 0.3 A", init(change=close)),
    Case("atoms closer than 0.3 A, `label`", label(change=close)),
    Case("no cell, for NPT", init("--ensemble", "npt", change=no_cell)),
    Case("a cell without volume", init(change=flat)),
    Case("HMR of a hydrogen that is bonded to nothing", init(change=one_hydrogen)),
    Case("an element that the student does not know", init("--student", "water-student")),
    Case("an element that the teacher does not know", init("--teacher", "water-teacher")),
]

MODELS = [
    Case("no such model", init("--teacher", "no-such-model")),
    Case("no such calculator", init("--teacher", "ase:no.such")),
    Case("keywords that are no JSON", init("--teacher", 'ase:ase.calculators.emt.EMT {"a"}')),
    Case(
        "the teacher's package is missing",
        with_file("m.fnx", "", labelled("evaluate", "--model", "fennol:m.fnx")),
        run=without("fennol"),
    ),
    Case("the weights are truncated", model("water-student", lambda p: shorter(weights(p)))),
    Case("the same of a MACE teacher", model("water-teacher", lambda p: shorter(weights(p)))),
    Case(
        "a pickle where safetensors belong",
        model("water-student", lambda p: torch.save({"a": torch.ones(2)}, weights(p))),
    ),
    Case("the weights are missing", model("water-student", lambda p: weights(p).unlink())),
    Case(
        "a model of a newer version",
        model("water-student", replaced("model.json", '"version": 1', '"version": 99')),
    ),
    Case("the record is cut off", model("water-student", lambda p: shorter(p / "model.json"))),
    Case(
        "the student of another teacher",
        words("init", "run", "--teacher", TOY, "--student", "water-student", "--no-model-check"),
    ),
    Case(
        "a model without virial, for NPT",
        init("--student", pair(stress=False), "--ensemble", "npt"),
    ),
    Case("a device that is not there", labelled("evaluate", "--device", "abacus")),
]

LABELS = [
    Case("an outer step that is not positive", labelled("evaluate", "--outer-fs", 0)),
    Case("no thread", labelled("distill", "--steps", 5, "--threads", 0)),
    Case("an unknown device, `distill`", labelled("distill", "--steps", 5, "--device", "abacus")),
    Case("a student that cannot be written", labelled("distill", "--steps", 5, "--out", TAKEN)),
    Case("labels without forces", labelled("distill", "--steps", 5, change=no_forces)),
    Case("the same, `evaluate`", labelled("evaluate", change=no_forces)),
    Case("labels with NaN", labelled("distill", "--steps", 5, change=nan_forces)),
    Case("labels with atoms that are too close", labelled("evaluate", change=squeezed)),
    Case(
        "labels of an element that the model does not know",
        labelled("evaluate", "--model", "water-student", change=of_sulphur),
    ),
    Case("labels that do not exist", words("evaluate", "--model", TOY, "--labels", "l.extxyz")),
    Case(
        "an unknown field in the YAML of `label`",
        with_file("o.yaml", "temperature_K: [310]\n", label("--config", "o.yaml")),
    ),
    Case(
        "an unknown field in the YAML of `distill`",
        with_file(
            "o.yaml", "steps: 5\nlearning_rat: 1\n", labelled("distill", "--config", "o.yaml")
        ),
    ),
    Case(
        "a wrong value in a YAML",
        with_file(
            "o.yaml", "steps: 5\nbatch_frames: many\n", labelled("distill", "--config", "o.yaml")
        ),
    ),
    Case(
        "a value out of range in a YAML, one level down",
        with_file(
            "o.yaml",
            "steps: 5\narchitecture: {cutoff_A: 0.5}\n",
            labelled("distill", "--config", "o.yaml"),
        ),
    ),
    Case(
        "a YAML that is none",
        with_file("o.yaml", "steps: [5\n", labelled("distill", "--config", "o.yaml")),
    ),
    Case("a YAML that does not exist", label("--config", "o.yaml")),
    Case("an output that `label` did not make", with_file("labels.extxyz", "mine", label())),
    Case("an output that cannot be written", with_file("file", "", label("--out", "file/l.xyz"))),
    Case("a plot that cannot be written", labelled("evaluate", "--plot", "nowhere/a.png")),
]

FOLDERS = [
    Case("not writable", with_file("file", "", words("init", "file/run"))),
    Case("holds a run already", folder(intact, ["init", "run"])),
    Case("holds other files", with_file("run/notes.txt", "mine", init())),
    Case("is no run folder", words("run", "run")),
    Case("no run to analyse", words("analyze", "run")),
    Case("a run that has written nothing, `analyze`", folder(intact, ["analyze", "run"])),
    Case("an unknown field in run.yaml", folder(replaced("run.yaml", "seed:", "sed:"))),
    Case("a unit is missing in input.xml", folder(replaced("input.xml", FS, ">4"))),
    Case("an unknown unit", folder(replaced("input.xml", FS, " units='fortnight'>4"))),
    Case("`nmts` is no multiple", folder(replaced("input.xml", "[1, 4]", "[1, 2.5]"))),
    Case(
        "the levels do not sum to the teacher", folder(replaced("input.xml", "[-1, 1]", "[0, 1]"))
    ),
    Case("input.xml is cut off", folder(lambda p: shorter(p / "input.xml"))),
    Case("the structure is lost", folder(lambda p: (p / "structure.extxyz").unlink())),
    Case("a length that is not positive", folder(intact, ["run", "run", "--time-ps", -1])),
    Case("too little room on the disk", folder(intact, ["run", "run", "--min-free-MB", 1e12])),
    Case("a socket name in use", folder(intact), run=taken),
    Case("a driver of other atoms than i-PI's", driver_of_water, run=driver),
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
        "watchdog: telemetry at no address",
        folder(replaced("run.yaml", "telemetry: auto", "telemetry: here")),
    ),
    Case(
        "watchdog: it is off", folder(replaced("run.yaml", "enabled: true", "enabled: false"), DOG)
    ),
    Case("watchdog: a folder without a run", words("watchdog", "run")),
    Case(
        "watchdog: a run of another version",
        folder(replaced("run.yaml", "version: 1", "version: 2"), DOG),
    ),
    Case("watchdog: no such command", folder(intact, [*DOG, "--restart-ipi", "no-such-program"])),
    Case("watchdog: an open quote", folder(intact, [*DOG, "--restart-teacher", "ssh 'node"])),
    Case("watchdog: no such process", folder(intact, [*DOG, "--teacher-pid", 2**22 + 1])),
    Case("watchdog: no time to wait", folder(intact, [*DOG, "--wait-s", -1])),
    Case("watchdog: i-PI's port is in use", folder(on_port), run=port_taken),
]

NODES = [
    Case("keys that others can read", folder(open_keys)),
    Case(
        "telemetry that others can reach, without keys",
        folder(replaced("run.yaml", "telemetry: auto", "telemetry: tcp://0.0.0.0:5500")),
    ),
    Case(
        "an address of another machine", folder(intact, ["run", "run", "--network", "198.51.100.7"])
    ),
    Case("an open quote", folder(intact, ["run", "run", "--launch-teacher", "srun 'x"])),
    Case("a run that is named twice", folder(intact, ["run", "run", "run"])),
    Case(
        "an unknown field of the tasks",
        with_file("t.yaml", "partitoin: gpu", folder(intact, ["run", "run", "--tasks", "t.yaml"])),
    ),
    Case("no parts of the labels", label("--parallel", 2)),
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
        "an outer step that is no multiple of the inner one",
        benchmark(ONE + "integrators: [{kind: hhf, outer_fs: 2.5}]\n"),
    ),
    Case(
        "DMTS without a conservative student",
        benchmark(ONE + "integrators: [{kind: dmts, outer_fs: 5}]\n"),
    ),
    Case("a teacher that knows none of the systems", benchmark(ONE + STS)),
    Case("a structure that does not exist", benchmark(ONE.replace("argon", "b") + STS)),
]

PARTS = {
    "Options": OPTIONS,
    "Structures": STRUCTURES,
    "Models": MODELS,
    "Labels and training": LABELS,
    "Run folders": FOLDERS,
    "Benchmarks": BENCHMARKS,
    "The watchdog": WATCHDOG,
    "Several nodes, several runs": NODES,
    "Faults during a run": FAULTS,
}


# ----------------------------------------------------------------- messages and page


VARIES = (
    (r"dmts-[0-9a-f]{10}-", "dmts-...-"),
    (r"at step \d+", "at step N"),
    (r"\[nan, [^]]*\]", "[nan, ...]"),
    (r"= \d+ MB free", "= N MB free"),
    # the words of other libraries, which differ between their versions
    (r"(cannot be read|cannot be imported|is not JSON|is not valid XML) \(.*\)", r"\1 (...)"),
    (r"(is not valid YAML:) .*", r"\1 ..."),
    (r"(is missing) \(No module named '[^']*'\)", r"\1 (...)"),  # it, or what it needs first
)


def said(case: Case) -> tuple[Done, str]:
    """Builds and runs a case in the current folder; what it printed, without what varies."""
    done = case.run(case.build())
    text = done.stderr.strip().replace(f"{Path.cwd()}/", "").replace(f"{TESTS}/", "")
    for varies, instead in VARIES:
        text = re.sub(varies, instead, text)
    return done, text


@contextlib.contextmanager
def fresh_folder() -> Iterator[None]:
    """A temporary folder as the current one."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def row(case: Case, message: str) -> str:
    """A row of the page."""
    ticks = "``" if "`" in message else "`"
    pad = " " if "`" in message else ""
    text = message.replace("|", chr(92) + "|")
    return f"| {case.situation} | {ticks}{pad}{text}{pad}{ticks} |"


HEAD = """\
# Wrong input, and what is said

Every wrong input is one line on stderr: the field, its value, the remedy. The exit status is 2,
nothing is written, nothing is left running. What goes wrong during a run or inside a model is a
fault: one line after the ends of the logs, and status 4; what was written until then is good, and
the same command goes on from there. `...` stands for what differs between machines, or for the
words of another library.

`python tests/wrong_inputs.py` makes this page from what the commands print, and
`tests/test_wrong_input.py` compares the two.

No cell is too thin for the neighbour lists: images are counted, also where the cell is thinner
than the cutoff.
"""


def page(only: str = "") -> str:
    """The page, from running every case whose situation has ``only`` in it; other rows stay."""
    now = PAGE.read_text().splitlines() if only else []
    parts = [HEAD]
    for title, cases in PARTS.items():
        parts.append(f"## {title}\n| situation | message |\n|---|---|")
        for case in cases:
            kept = [line for line in now if line.startswith(f"| {case.situation} | ")]
            if only not in case.situation and kept:
                parts.append(kept[0])
                continue
            with fresh_folder():
                parts.append(row(case, said(case)[1]))
            print(parts[-1], file=sys.stderr, flush=True)
        parts.append("")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(*sys.argv[1:2]))
