"""Small run folders for the tests of ``init`` and ``run``."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes

from dmts_ipi.cli import main
from dmts_ipi.core.neighbours import neighbour_pairs
from dmts_ipi.ipi.run_folder.folder import RunFolder
from dmts_ipi.watchdog.journal import read_events
from places import SUPPORT

TEACHER = 'ase:run_tools.Pair {"strength": 1.0}'
STUDENT = 'ase:run_tools.Pair {"strength": 0.9}'
COLUMNS = ("step", "time_ps", "temperature_K", "potential_eV", "kinetic_eV", "conserved_eV")


class Pair(Calculator):
    """Soft repulsion, eV: strength * (1 - r^2/16)^4. NaN from the evaluation ``nan_at`` on.

    In ``KICKS`` evaluations from ``kick_at`` on a force is wrong by 20 eV/A, unless the file
    ``once`` is there, which then marks it. ``delay_s``: of every evaluation, and ``HOLD_S`` more
    from ``hold_at`` on while the file ``hold`` is there.
    """

    HOLD_S = 0.5
    KICKS = 4  # an outer step of the tests: one of them is at its end

    implemented_properties = ("energy", "forces", "stress")

    def __init__(
        self,
        strength: float = 1.0,
        nan_at: int = 0,
        stress: bool = True,
        kick_at: int = 0,
        once: str = "",
        delay_s: float = 0.0,
        hold: str = "",
        hold_at: int = 0,
    ) -> None:
        super().__init__()
        if not stress:
            self.implemented_properties = ("energy", "forces")
        self.strength, self.nan_at, self.calls = strength, nan_at, 0
        self.kick_at, self.once, self.delay_s = kick_at, once, delay_s
        self.hold, self.hold_at = hold, hold_at

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.calls += 1
        x, h = self.atoms.positions, self.atoms.cell.array
        i, j, s = neighbour_pairs(x, h, self.atoms.pbc, 4.5, full=False)
        d = x[j] - x[i] + s @ h
        u = np.clip(1 - (d**2).sum(1) / 16, 0, None)
        g = (self.strength * 8 / 16 * u**3)[:, None] * d
        f = np.zeros_like(x)
        np.add.at(f, j, g)
        np.add.at(f, i, -g)
        if self.nan_at and self.calls >= self.nan_at:
            f[0, 0] = np.nan
        if self.kick_at and self.calls >= self.kick_at and not Path(self.once).is_file():
            f[3, 1] += 20.0
            if self.calls >= self.kick_at + self.KICKS - 1:
                Path(self.once).touch()
        held = self.hold and self.calls >= self.hold_at and Path(self.hold).is_file()
        time.sleep(self.delay_s + (self.HOLD_S if held else 0.0))
        self.results = {"energy": float((self.strength * u**4).sum()), "forces": f}
        stress = -(d.T @ g) / self.atoms.get_volume()
        self.results["stress"] = stress.ravel()[[0, 4, 8, 5, 2, 1]]


def argon() -> Atoms:
    """32 argon atoms, near the fcc lattice whose sites are quarters of the cell's edges."""
    atoms = bulk("Ar", "fcc", a=5.2, cubic=True) * (2, 2, 2)
    atoms.rattle(0.02, seed=1)
    return atoms


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "dmts_ipi.cli", *[str(w) for w in words]]


def environment(*path: Path) -> dict[str, str]:
    """Of a process; ``path``: folders of further modules."""
    folders = ":".join(str(x) for x in (SUPPORT, *path))
    return {**os.environ, "PYTHONPATH": folders, "OMP_NUM_THREADS": "1"}


@dataclass
class Done:
    """What a command left: exit status and output."""

    returncode: int
    stdout: str
    stderr: str


def call(*words: object) -> Done:
    """``dmts-ipi`` within this process: the tests start enough processes as it is."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, environment()),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            status = main([str(w) for w in words])
        except SystemExit as error:  # argparse
            status = int(error.code or 0)
    return Done(status, out.getvalue(), err.getvalue())


def make(folder: Path, *options: object) -> Path:
    """``dmts-ipi init`` of argon at 60 K, 4 x 1 fs a step unless the options say otherwise."""
    structure = folder.parent / "argon.extxyz"
    argon().write(structure)
    done = call(
        *("init", folder, "--structure", structure, "--teacher", TEACHER, "--student", STUDENT),
        *("--temperature-K", 60, "--n-inner", 4, "--checkpoints-every-fs", 80),
        *("--time-ps", 0.4, "--frames-every-fs", 16, "--threads", 1, *options),
    )
    assert done.returncode == 0, done.stderr
    return folder


def direct(folder: Path, teacher: str = "k: 0.02", student: str = "k: 0.018") -> Path:
    """Turns a folder's sockets into PES inside i-PI: no drivers, quick to start."""
    file = folder / "input.xml"
    text = file.read_text()
    for name, parameters in (("teacher", teacher), ("student", student)):
        text = re.sub(
            rf"<ffsocket name=['\"]{name}['\"].*?</ffsocket>",
            f"<ffdirect name='{name}' pbc='False'><pes>custom</pes>"
            f"<pes_path>{SUPPORT / 'run_pes.py'}</pes_path>"
            f"<parameters>{{{parameters}}}</parameters>"
            "</ffdirect>",
            text,
            flags=re.DOTALL,
        )
    file.write_text(text)
    return folder


def springs(folder: Path, **parameters: object) -> Path:
    """Gives the teacher inside i-PI (``direct``) further parameters: faults, delays."""
    words = ", ".join(f"{k}: {v}" for k, v in parameters.items())
    file = folder / "input.xml"
    file.write_text(file.read_text().replace("{k: 0.02", f"{{k: 0.02, {words}"))
    return folder


def held(folder: Path, at: int) -> Path:
    """A file that, while it is there, slows i-PI of a folder down from evaluation ``at`` on: what a
    test does at a certain step is done long before the end of the run, on any machine."""
    file = folder.parent / "hold"
    file.touch()
    springs(folder, hold=file, hold_at=at)
    return file


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def kinds(folder: Path) -> list[str]:
    """What happened to a run, by its journal."""
    return [e["kind"] for e in read_events(folder)]


def same_run(a: Path, b: Path) -> None:
    """Every line and frame of two runs agrees, to 1e-10 and to the digits of the frames."""
    one, two = RunFolder(a).properties(), RunFolder(b).properties()
    assert one["step"].tolist() == two["step"].tolist()
    assert len(set(one["step"])) == len(one["step"])
    for key in COLUMNS:
        np.testing.assert_allclose(one[key], two[key], rtol=1e-10, atol=1e-12, err_msg=key)
    for name in ("md.positions_0.xyz", "md.velocities_0.xyz", "md.forces.xyz"):
        assert (a / name).read_text() == (b / name).read_text()


def every_step_once(folder: Path, steps: int) -> None:
    """Lines and frames are complete, in order, without a step twice."""
    run = RunFolder(folder)
    p, frames, _ = run.config.strides
    assert run.properties()["step"].tolist() == list(range(0, steps + 1, p))
    assert np.isfinite(run.properties()["conserved_eV"]).all()
    assert [f[0] for f in run.frames()] == list(range(0, steps + 1, frames))
    assert all(f[3] is not None for f in run.frames())


def until(condition: Callable[[], bool], limit_s: float = 600) -> None:
    """Waits for what another process brings about; the limit is for what never comes."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def lines(folder: Path) -> int:
    """Whole lines of figures that a run has written."""
    file = folder / "md.properties"
    if not file.exists():
        return 0
    return sum(1 for x in file.read_text().splitlines(True) if x[0] != "#" and x[-1] == "\n")


def descendants(pid: int) -> list[int]:
    """Children of a process, and theirs (Linux)."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return []
    return [int(c) for c in children] + [d for c in children for d in descendants(int(c))]


def alive(pid: int) -> bool:
    """Whether a process runs: it exists and is no zombie (Linux)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def start(folder: Path, *options: object, path: Path | None = None) -> subprocess.Popen[str]:
    """``dmts-ipi run`` in the background; ``path``: of further modules."""
    return subprocess.Popen(
        command("run", folder, "--report-every-s", 1, *options),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(*([path] if path else [])),
    )


def finish(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> tuple[int, str]:
    """Sends a signal, waits for the end; status and output."""
    process.send_signal(number)
    output, _ = process.communicate(timeout=250)
    return process.returncode, output
