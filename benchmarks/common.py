"""What every benchmark writes at the top of its result: machine, date, versions, command."""

from __future__ import annotations

import datetime
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

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


def save(name: str, text: str) -> None:
    """Prints a result and writes it to ``benchmarks/results/NAME.txt``."""
    full = f"{header()}\n{text}\n"
    print(full)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.txt").write_text(full)
