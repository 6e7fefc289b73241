"""What benchmarks share: machine, date and versions at the top of a result; runs and records."""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dmts_ipi.analysis.measure import Measured

RESULTS = Path(__file__).parent / "results"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"no {package}"


def machine() -> str:
    """Processor, cores and system."""
    return (
        f"{_cpu()}, {len(os.sched_getaffinity(0))} cores, {platform.system()} {platform.release()}"
    )


def header() -> str:
    """Machine, date, versions and the command, as comment lines."""
    packages = ("dmts-ipi", "torch", "mace-torch", "ipi", "numpy")
    return "\n".join(
        [
            f"# {' '.join([Path(sys.argv[0]).name, *sys.argv[1:]])}",
            f"# {datetime.date.today()}  {machine()}, Python {platform.python_version()}",
            f"# {', '.join(_version(p) for p in packages)}",
        ]
    )


DMTS = (sys.executable, "-W", "ignore", "-m", "dmts_ipi.cli")


def dmts(*words: object, check: bool = True, program: Sequence[str] = DMTS) -> int:
    """A command of dmts-ipi in a process of its own; its exit status."""
    return subprocess.run([*program, *[str(w) for w in words]], check=check).returncode


def go_on(
    target: Path,
    *options: object,
    time_ps: float,
    edit: Callable[[str], str] = lambda text: text,
    program: Sequence[str] = DMTS,
) -> None:
    """Runs a folder to that time; if it is not there, it is made by `init` with these options.

    ``edit`` makes the input.xml what it shall be, until the run has begun: twice is as once.
    ``program`` runs it.
    """
    if not (target / "run.yaml").exists():
        dmts("init", target, "--time-ps", time_ps, *options)
    if not (target / "md.properties").exists():
        xml = target / "input.xml"
        xml.write_text(edit(xml.read_text()))
    dmts("run", target, "--time-ps", time_ps, check=False, program=program)


def runs_parser(doc: str | None, folder: Path) -> argparse.ArgumentParser:
    """Options that scripts of many runs share: what to do, which runs, where, threads."""
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("what", choices=["list", "run", "table"])
    p.add_argument("names", nargs="*", metavar="RUN", help="see list")
    p.add_argument("--folder", type=Path, default=folder)
    p.add_argument("--threads", type=int, default=2, help="of each driver")
    p.add_argument("--replica", type=int, default=1, help="1, 2, ...: another seed each")
    return p


def replica_of(folder: Path, name: str, replica: int) -> Path:
    """The folder of a run's replica, which are counted from 1."""
    return folder / (name if replica == 1 else f"{name}-r{replica}")


def replicas(folder: Path, name: str) -> list[Path]:
    """Folders of all replicas of a run that have properties by now."""
    found = [replica_of(folder, name, 1), *sorted(folder.glob(f"{name}-r[0-9]*"))]
    return [f for f in found if (f / "md.properties").exists()]


def parse_runs(p: argparse.ArgumentParser, names: Collection[str]) -> argparse.Namespace:
    """The options; a run that is not known ends the script, ``list`` prints all."""
    args = p.parse_args()
    if unknown := sorted(set(args.names) - set(names)):
        p.error(f"unknown run {unknown[0]}; see list")
    if args.what == "list":
        print("\n".join(names))
    return args


def combined(values: list[tuple[float, float, float]]) -> tuple[float, float]:
    """Mean and standard error of (value, standard error, ps), weighted by time.

    From three on the error is not less than by the scatter of the values: what lasts as long as
    a run (slow and fast states of a small box) is not in the errors of single runs.
    """
    total, n = sum(ps for *_, ps in values), len(values)
    mean = sum(v * ps for v, _, ps in values) / total
    own = sum((e * ps / total) ** 2 for _, e, ps in values)
    scatter = sum(((v - mean) * ps / total) ** 2 for v, _, ps in values) * n / max(n - 1, 1)
    return mean, math.sqrt(max(own, scatter) if n > 2 else own)


def mean_of(several: list[dict], key: str, inner: str = "") -> tuple[float, float]:
    """Mean and standard error over replicas; NaN where none has it."""
    found = []
    for one in several:
        value = one.get(key, {}).get(inner) if inner else one.get(key)
        if value and all(math.isfinite(x) for x in value[:2]):
            found.append((value[0], value[1], one["ps"]))
    return combined(found) if found else (math.nan, math.nan)


def record_of(name: str, folder: Path, m: Measured) -> dict:
    """What is kept of every run: pairs are mean and standard error, temperatures have the
    expected one (K) as third."""
    from dmts_ipi.analysis.observables.diffusion import DIFFUSION
    from dmts_ipi.analysis.observables.potential import POTENTIAL
    from dmts_ipi.analysis.observables.temperature import TEMPERATURE
    from dmts_ipi.ipi.run_folder.folder import RunFolder

    t, energy, displaced = TEMPERATURE.of(m), POTENTIAL.of(m).mean, DIFFUSION.get(m)
    water = max(displaced.kinds if displaced else [], key=lambda d: d.molecules, default=None)
    return {
        "run": name,
        "seed": RunFolder(folder).config.seed,
        "date": str(datetime.date.today()),
        "machine": machine(),
        "ps": round(float(m.time_ps[-1]), 3),
        "kelvin": {k: [e.mean, e.stderr, t.expected[k]] for k, e in t.kinetic.items()},
        "potential_meV_per_atom": [energy.mean, energy.stderr],
        "diffusion_A2_per_ps": water and [water.D_A2_per_ps.mean, water.D_A2_per_ps.stderr],
        "ns_per_day": m.run.ns_per_day,
    }


def keep(file: Path, new: list[dict], order: list[str]) -> list[dict]:
    """Adds records to a file of JSON lines, where they replace those of the same run, seed and
    student that are not longer: a run begun anew does not undo a long one.

    Returns all of them, in the order of the runs.
    """
    kept: dict[tuple, dict] = {}
    for one in [*map(json.loads, file.read_text().splitlines() if file.exists() else []), *new]:
        key = one["run"], one["seed"], one.get("student", "")
        if key not in kept or one["ps"] >= kept[key]["ps"]:
            kept[key] = one
    records = [kept[k] for k in sorted(kept, key=lambda k: (order.index(k[0]), k[1]))]
    file.write_text("".join(json.dumps(r) + "\n" for r in records))
    return records


def by_run(records: list[dict]) -> dict[str, list[dict]]:
    """Records of all replicas of each run."""
    groups: dict[str, list[dict]] = {}
    for one in records:
        groups.setdefault(one["run"], []).append(one)
    return groups


def save(name: str, text: str) -> None:
    """Prints a result and writes it to ``benchmarks/results/NAME.txt``."""
    full = f"{header()}\n{text}\n"
    print(full)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.txt").write_text(full)
