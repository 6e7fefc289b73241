#!/usr/bin/env python3
"""Runs two checkouts side by side and compares their trajectories byte for byte.

    python benchmarks/golden.py                                  toy models, 200 outer steps
    python benchmarks/golden.py --models toy shipped --n 200     all that there is
    python benchmarks/golden.py --old /path/to/a/checkout --cases nvt_dmts.xml resident

Every template of ipi_inputs/ is run by hand (`dmts-ipi i-pi FILE` and the two driver scripts), and
every thermostat, splitting and ensemble as `dmts-ipi init` and `dmts-ipi run` make them. Each
checkout runs its own templates and code, with its own .venv; structure, models, seed, folder names
and threads (one) are the same. Outputs are written at every outer step, and positions, velocities,
forces, properties and checkpoints must agree to the last byte. Of a checkpoint, the comment with
the time of day, the seed (its generator's state is compared; the seed of a resumed run is the
clock) and the places of sockets and models (<ffsocket>, <ffdirect>) are left out.

Prints a table. Exit status 0: all equal; 1: a difference; 2: a run failed, or a checkout has no
dmts-ipi. The checkouts take turns in the same folder, so `--jobs 1` keeps one core busy.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
SUPPORT = HERE / "tests" / "support"
sys.path.insert(0, str(SUPPORT))

from golden_runs import OPTIONS, STUDENT, TEACHER, init_words, outer_fs  # noqa: E402

OLD = HERE.parent / "base"
LIMIT_S = 3600.0


@dataclass(frozen=True)
class Models:
    """A teacher, a student and a structure that they know."""

    teacher: str
    student: str
    structure: str  # a file's name in the scratch folder


MODELS = {
    "toy": Models(TEACHER, STUDENT, "toy.extxyz"),
    "shipped": Models("water-teacher", "water-student", "water64.extxyz"),
}


@dataclass(frozen=True)
class Case:
    """One run: a template by hand (``template``), or options of `dmts-ipi init`."""

    name: str
    template: str = ""
    options: tuple[str, ...] = ()
    run: tuple[str, ...] = ("--no-watchdog",)
    halves: bool = False  # run to the half, then on to the end


def cases(checkouts: tuple[Path, Path]) -> list[Case]:
    """All templates that both checkouts have, then all that `dmts-ipi init` can make."""
    old, new = ({f.name for f in (c / "ipi_inputs").glob("*.xml")} for c in checkouts)
    for name in sorted(old - new):
        print(f"# {name}: only in the old checkout", file=sys.stderr)
    for name in sorted(new - old):
        print(f"# {name}: only in the new checkout: not compared", file=sys.stderr)
    by_hand = [Case(name, template=name) for name in sorted(old & new)]
    made = [Case(name, options=words) for name, words in OPTIONS.items()]
    bond = OPTIONS["bond"]
    made.append(Case("binary", options=("--trajectory-format", "bin")))
    made.append(Case("watchdog", run=()))
    made.append(Case("watchdog resident", options=("--resident",), run=()))
    made.append(Case("resumed", halves=True))
    made.append(Case("resumed bond", options=bond, halves=True, run=()))
    return by_hand + made


@dataclass
class Result:
    """What a comparison of one case found."""

    case: str
    models: str
    status: str = "equal"  # equal, differs, failed
    note: str = ""
    files: int = 0
    seconds: dict[str, float] = field(default_factory=dict)


class Failed(Exception):
    """A run of one checkout that did not end well."""


@dataclass(frozen=True)
class Checkout:
    """A folder with the package and a .venv."""

    name: str
    path: Path
    scratch: Path

    @property
    def python(self) -> Path:
        return self.path / ".venv" / "bin" / "python"

    def environment(self) -> dict[str, str]:
        bin_folder = self.path / ".venv" / "bin"
        one = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
        places = {"PATH": f"{bin_folder}:{os.environ['PATH']}", "PYTHONPATH": str(self.scratch)}
        return {**os.environ, **one, **places, "CUDA_VISIBLE_DEVICES": ""}

    def call(self, folder: Path, *words: str) -> None:
        """``dmts-ipi WORDS`` in a folder.

        Raises:
            Failed: its exit status is not 0.
        """
        command = [str(self.python), "-W", "ignore", "-m", "dmts_ipi.cli", *words]
        done = subprocess.run(
            command,
            cwd=folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT_S,
        )
        if done.returncode:
            last = (done.stdout.strip().splitlines() or [""])[-1]
            raise Failed(f"{self.name}: dmts-ipi {words[0]}: exit status {done.returncode}: {last}")

    def describe(self) -> str:
        """Its commit, for the head of the table.

        Raises:
            Failed: it has no .venv, or that one imports the package from elsewhere.
        """
        if not self.python.exists():
            raise Failed(f"{self.name}: {self.path} has no .venv/bin/python")
        where = subprocess.run(
            [self.python, "-c", "import dmts_ipi; print(dmts_ipi.__file__)"],
            cwd=self.scratch,
            env=self.environment(),
            stdout=subprocess.PIPE,
            text=True,
        ).stdout.strip()
        if not where or self.path.resolve() not in Path(where).resolve().parents:
            raise Failed(f"{self.name}: .venv of {self.path} imports dmts_ipi from {where or '?'}")
        git = ["git", "-C", str(self.path)]
        head = subprocess.run([*git, "describe", "--always", "--dirty"], capture_output=True)
        return f"{self.path} ({head.stdout.decode().strip() or 'no git'})"


def made_run(checkout: Checkout, case: Case, models: Models, folder: Path, n: int) -> None:
    """`dmts-ipi init` and `dmts-ipi run` in ``folder``, ``n`` outer steps."""
    fs = outer_fs(case.options)
    structure = checkout.scratch / models.structure
    words = init_words(case.options, structure, n, models.teacher, models.student)
    words += ["--checkpoints-every-fs", str(50 * fs), "--keep-checkpoints", "100"]
    half = ["--time-ps", f"{(n // 2) * fs / 1000:g}"] if case.halves else []
    whole = ["--time-ps", f"{n * fs / 1000:g}"]
    parent, name = folder.parent, folder.name
    checkout.call(parent, "init", name, *words, *half)
    checkout.call(parent, "run", name, *case.run)
    if case.halves:
        checkout.call(parent, "run", name, *whole, *case.run)


def edited(text: str, structure: Path, address: str, n: int) -> str:
    """A template for this comparison: addresses, structure, length and strides.

    Raises:
        Failed: the template has not got what is to be edited.
    """
    for pattern, new in (
        (r"<address>dmts-(\w+)</address>", rf"<address>{address}-\1</address>"),
        (r"ipi_inputs/water64\.extxyz(?=</file>)", str(structure)),
        (r"<total_steps>\s*\d+\s*</total_steps>", f"<total_steps>{n}</total_steps>"),
        (r"(<checkpoint[^>]*stride=)['\"]\d+['\"]", r"\1'50'"),
        (r"(<(?:properties|trajectory)[^>]*stride=)['\"]\d+['\"]", r"\1'1'"),
    ):
        text, count = re.subn(pattern, new, text)
        if not count:
            raise Failed(f"the template has nothing like {pattern}")
    return text


def run_by_hand(checkout: Checkout, case: Case, models: Models, folder: Path, n: int) -> None:
    """i-PI on a template, and the driver scripts, ``n`` outer steps."""
    folder.mkdir()
    structure = checkout.scratch / models.structure
    address = f"golden-{uuid.uuid4().hex[:10]}"
    text = (checkout.path / "ipi_inputs" / case.template).read_text()
    text = edited(text, structure, address, n)
    (folder / "input.xml").write_text(text)
    names = re.findall(rf"<address>{address}-(\w+)</address>", text)
    drivers = []
    for name in names:
        script = "nnp_driver.py" if name == "teacher" else "nc_driver.py"
        model = models.teacher if name == "teacher" else models.student
        command = [checkout.python, "-W", "ignore", checkout.path / "drivers" / script]
        command += ["--model", model, "--structure", structure, "--unix", f"{address}-{name}"]
        command += ["--device", "cpu", "--threads", "1", "--telemetry", "off"]
        log = open(folder / f"{name}.log", "w")  # noqa: SIM115
        drivers.append(
            subprocess.Popen(
                [str(w) for w in command],
                cwd=folder,
                env=checkout.environment(),
                stdout=log,
                stderr=log,
            )
        )
    try:
        checkout.call(folder, "i-pi", "input.xml")
    finally:
        for process in drivers:
            process.terminate()
        for process in drivers:
            process.wait()


def essential(name: str) -> bool:
    """Whether a file of a run says something of its physics."""
    return name.startswith("md.") or name == "RESTART"


def content(file: Path) -> bytes:
    """A file as it is compared: a checkpoint without clock, sockets and models."""
    data = file.read_bytes()
    if "checkpoint" in file.name or file.name == "RESTART":
        data = re.sub(rb"<(ffsocket|ffdirect)\b.*?</\1>", rb"<\1/>", data, flags=re.DOTALL)
        data = re.sub(rb"<!--.*?-->", b"", data, flags=re.DOTALL)
        data = re.sub(rb"<seed>.*?</seed>", b"", data)  # a resumed i-PI writes the clock here
    return data


def first_difference(a: bytes, b: bytes) -> str:
    """Where two contents differ first: line and the two words, or the byte."""
    try:
        one, two = a.decode().splitlines(), b.decode().splitlines()
    except UnicodeDecodeError:
        at = next(
            (k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(map(len, (a, b)))
        )
        return f"byte {at} of {len(a)} and {len(b)}"
    for k, (x, y) in enumerate(zip(one, two, strict=False), 1):
        if x != y:
            words = zip(x.split(), y.split(), strict=False)
            word = next((w for w in words if w[0] != w[1]), (x[:60], y[:60]))
            return f"line {k}: {word[0][:40]} and {word[1][:40]}"
    return f"{len(one)} and {len(two)} lines"


def compare(old: Path, new: Path) -> tuple[int, str]:
    """Number of files of a run, and the first difference (empty: none)."""
    names = [sorted(f.name for f in p.iterdir() if essential(f.name)) for p in (old, new)]
    if names[0] != names[1]:
        odd = set(names[0]) ^ set(names[1])
        return 0, f"only in one: {', '.join(sorted(odd))}"
    if not any("positions" in n for n in names[0]):
        return 0, "no positions were written"
    # trajectories before checkpoints, which follow from them
    for name in sorted(names[0], key=lambda n: ("checkpoint" in n or n == "RESTART", n)):
        a, b = content(old / name), content(new / name)
        if a != b:
            return len(names[0]), f"{name}: {first_difference(a, b)}"
    return len(names[0]), ""


def judge(case: Case, kind: str, checkouts: tuple[Checkout, Checkout], n: int) -> Result:
    """Runs a case with both checkouts and compares."""
    result = Result(case.name, kind)
    place = checkouts[0].scratch / re.sub(r"\W", "_", f"{kind}_{case.name}")
    place.mkdir()
    try:
        for checkout in checkouts:
            begin = time.perf_counter()
            run = run_by_hand if case.template else made_run
            run(checkout, case, MODELS[kind], place / "run", n)
            result.seconds[checkout.name] = time.perf_counter() - begin
            (place / "run").rename(place / checkout.name)
        result.files, result.note = compare(place / "old", place / "new")
        result.status = "differs" if result.note else "equal"
    except (Failed, subprocess.TimeoutExpired) as error:
        result.status, result.note = "failed", str(error)
    seconds = " ".join(f"{s:5.0f}" for s in result.seconds.values())
    note = result.note or f"{result.files} files"
    print(f"{kind:8s} {case.name:20s} {result.status:8s} {seconds:>11s} s  {note}", flush=True)
    return result


def prepare(scratch: Path) -> None:
    """Structures and toy models, which both checkouts share."""
    from toy_water import toy_box

    for name in ("toy_water.py", "golden_models.py"):
        shutil.copy(SUPPORT / name, scratch)
    toy_box().write(scratch / "toy.extxyz")
    shutil.copy(HERE / "ipi_inputs" / "water64.extxyz", scratch / "water64.extxyz")


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--old", type=Path, default=OLD, help=f"checkout with a .venv ({OLD})")
    p.add_argument("--new", type=Path, default=HERE, help="checkout with a .venv (this one)")
    p.add_argument("--models", nargs="+", choices=list(MODELS), default=["toy"])
    p.add_argument("--n", type=int, default=200, help="outer steps of a run (200)")
    p.add_argument("--n-shipped", type=int, default=None, help="of the shipped models (as --n)")
    p.add_argument(
        "--cases", nargs="+", default=None, metavar="NAME", help="only these; see --list"
    )
    p.add_argument("--list", action="store_true", help="prints the names of the cases")
    p.add_argument("--jobs", type=int, default=1, help="cases at a time (1)")
    p.add_argument("--keep", type=Path, help="folder for the runs; must not exist (none is kept)")
    p.add_argument("--json", type=Path, help="file for the results")
    args = p.parse_args()
    known = {c.name: c for c in cases((args.old, args.new))}
    if args.list:
        print("\n".join(known))
        return 0
    if unknown := [name for name in args.cases or [] if name not in known]:
        p.error(f"--cases: no case {unknown[0]}; see --list")
    chosen = [known[name] for name in args.cases or known]
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        if args.keep:
            scratch = args.keep.resolve()
            scratch.mkdir(parents=True)
        prepare(scratch)
        old = Checkout("old", args.old.resolve(), scratch)
        new = Checkout("new", args.new.resolve(), scratch)
        try:
            print(f"# old: {old.describe()}\n# new: {new.describe()}")
        except Failed as error:
            print(f"golden: {error}", file=sys.stderr)
            return 2
        lengths = {"toy": args.n, "shipped": args.n_shipped or args.n}
        print("# " + ", ".join(f"{kind}: {lengths[kind]} outer steps" for kind in args.models))
        print(f"{'models':8s} {'case':20s} {'result':8s} {'old   new':>11s}", flush=True)
        with ThreadPoolExecutor(args.jobs) as pool:
            work = [(c, kind) for kind in args.models for c in chosen]
            results = list(pool.map(lambda w: judge(*w, (old, new), lengths[w[1]]), work))
    counts = {s: sum(r.status == s for r in results) for s in ("equal", "differs", "failed")}
    print("# " + ", ".join(f"{counts[s]} {s}" for s in counts))
    if args.json:
        args.json.write_text(json.dumps([vars(r) for r in results], indent=1) + "\n")
    return 2 if counts["failed"] else 1 if counts["differs"] else 0


if __name__ == "__main__":
    sys.exit(main())
