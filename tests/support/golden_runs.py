"""Short runs of toy water whose figures must never change, of every integrator and thermostat.

    PYTHONPATH=tests/support python tests/support/golden_runs.py FOLDER > golden.json

prints the figures of this checkout. tests/ipi/motion/golden.json holds those of commit 7e084df.
`benchmarks/golden.py` runs the same options through drivers, and two checkouts side by side.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

SUPPORT = Path(__file__).resolve().parent
STEPS = 20  # outer steps
TEACHER, STUDENT = "ase:golden_models.Teacher", "ase:golden_models.Student"

_STS = ("--mode", "sts")
_HHF = ("--friction-by-element", "H=10")
_BOND = ("--bond-friction-per-ps", "50")
# Options of `dmts-ipi init`, by the name of the run.
OPTIONS: dict[str, tuple[str, ...]] = {
    "sts langevin": _STS,
    "sts ffl": (*_STS, "--thermostat", "ffl"),
    "sts svr": (*_STS, "--thermostat", "svr"),
    "sts hhf": (*_STS, *_HHF),
    "sts bond": (*_STS, *_BOND),
    "sts obabo": (*_STS, "--splitting", "obabo"),
    "sts nve": (*_STS, "--ensemble", "nve"),
    "sts npt": (*_STS, "--ensemble", "npt"),
    "langevin": (),
    "ffl": ("--thermostat", "ffl"),
    "svr": ("--thermostat", "svr"),
    "hhf": ("--n-inner", "10", *_HHF),
    "hhf ffl": ("--thermostat", "ffl", *_HHF),
    "bond": ("--n-inner", "8", *_BOND),
    "bond hhf": (*_BOND, *_HHF),
    "stock baoab": ("--splitting", "stock"),
    "stock obabo": ("--splitting", "obabo"),
    "stock svr": ("--splitting", "stock", "--thermostat", "svr"),
    "nve": ("--ensemble", "nve", "--n-inner", "3"),
    "npt": ("--ensemble", "npt"),
    "npt bond": ("--ensemble", "npt", *_BOND),
    "npt svr": ("--ensemble", "npt", "--thermostat", "svr"),
    "n-inner 1": ("--n-inner", "1"),
    "resident": ("--resident",),
    "resident bond": ("--resident", *_BOND),
}


def outer_fs(options: tuple[str, ...]) -> int:
    """The outer step of a run: inner steps are 1 fs."""
    words = dict(zip(options[::2], options[1::2], strict=False))
    return 1 if "sts" in options else int(words.get("--n-inner", 5))


def init_words(
    options: tuple[str, ...],
    structure: Path,
    steps: int,
    teacher: str = TEACHER,
    student: str = STUDENT,
) -> list[str]:
    """Words of `dmts-ipi init` after the folder: outputs at every outer step."""
    fs = outer_fs(options)
    words = ["--structure", str(structure), "--seed", "7", "--teacher", teacher]
    words += [] if "sts" in options else ["--student", student]
    words += ["--time-ps", f"{steps * fs / 1000:g}", "--no-model-check", "--device", "cpu"]
    words += ["--output-every-fs", str(fs), "--frames-every-fs", str(fs), "--threads", "1"]
    return [*words, *options]


def inside(text: str, structure: Path) -> str:
    """An input whose models run within i-PI, in the place of sockets."""
    import dmts_ipi

    pes = Path(dmts_ipi.__file__).resolve().parents[1] / "drivers" / "ipi_pes.py"
    for name, model in (("teacher", TEACHER), ("student", STUDENT)):
        parameters = f"model: {model}, structure: {structure}, device: cpu, threads: 1"
        text = re.sub(
            rf"<ffsocket name=['\"]{name}['\"].*?</ffsocket>",
            f"<ffdirect name='{name}' pbc='False'><pes>custom</pes><pes_path>{pes}</pes_path>"
            f"<parameters>{{{parameters}}}</parameters></ffdirect>",
            text,
            flags=re.DOTALL,
        )
    return text


def figures(folder: Path) -> dict[str, list[float]]:
    """What is kept of a run: three lines of properties, and weighted sums over the last frame.

    Every coordinate and velocity has a weight of its own, so that none can change unseen.
    """
    rows = np.loadtxt(folder / "md.properties")
    kept = {f"properties {k}": rows[k].tolist() for k in (0, STEPS // 4, STEPS)}
    for name in ("positions", "velocities"):
        lines = (folder / f"md.{name}_0.xyz").read_text().splitlines()
        n = int(lines[0])
        last = np.array([line.split()[1:4] for line in lines[-n:]], float)
        kept[name] = [float((w * last).sum()) for w in np.random.default_rng(5).random((2, n, 3))]
    return kept


def run_all(folder: Path, names: list[str]) -> dict[str, dict[str, list[float]]]:
    """Makes the runs in ``folder`` and runs them, each in a process of its own.

    Raises:
        RuntimeError: a run failed; with what it printed.
    """
    child = [sys.executable, str(Path(__file__).resolve()), "--child", str(folder), *names]
    places = {"PYTHONPATH": str(SUPPORT), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    done = subprocess.run(
        child,
        env={**os.environ, **places},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(done.stdout[-3000:])
    return {name: figures(folder / name.replace(" ", "_")) for name in names}


def _child(folder: Path, names: list[str]) -> int:
    """Every run in a fork of this process, which loads i-PI only once."""
    import ipi.engine.simulation  # noqa: F401

    from dmts_ipi.cli import main
    from toy_water import toy_box

    structure = folder / "toy.extxyz"
    toy_box().write(structure)
    for name in names:
        run = folder / name.replace(" ", "_")
        if main(["init", str(run), *init_words(OPTIONS[name], structure, STEPS)]):
            return 1
        file = run / "input.xml"
        file.write_text(inside(file.read_text(), structure))
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            os.chdir(run)
            status = 1
            try:
                status = main(["i-pi", "input.xml"])
            except SystemExit as error:
                status = int(error.code or 0)
            finally:
                sys.stdout.flush()
                os._exit(status)
        if os.waitpid(pid, 0)[1]:
            print(f"{name}: i-PI failed")
            return 1
    return 0


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        sys.exit(_child(Path(sys.argv[2]), sys.argv[3:]))
    print(json.dumps(run_all(Path(sys.argv[1]).resolve(), list(OPTIONS)), indent=1))
