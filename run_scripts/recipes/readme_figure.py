"""docs/reach.png: temperature of O-H bonds and speed against the outer time step, from the results.

    .venv/bin/python run_scripts/recipes/readme_figure.py [--out docs/reach.png]

Everything drawn is read from ``benchmarks/results/``: temperatures of 64 waters from
``integrators.txt``, speeds of 216 waters from ``speed_216_*.txt``. No figure is typed here.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
SCHEMES = {
    "1ps": "friction 1/ps",
    "hhf": "10/ps on hydrogen",
    "bonds": "50/ps along bonds",
}
ROW = re.compile(r"respa-(\w+)-(\d+)fs-64\s+(\d+)\s+([\d.]+)")
BONDS = re.compile(
    r"([\d.]+)\+-\s*([\d.]+) \(([\d.]+)\s+[+-][\d.]+\)\s+([\d.]+)\+-\s*([\d.]+) \(([\d.]+)"
)


@dataclass(frozen=True)
class Point:
    """Temperature of O-H bonds at one outer step, K, with its error and what is expected."""

    outer_fs: float
    kelvin: float
    stderr: float
    expected: float


def temperatures(text: str) -> dict[str, list[Point]]:
    """By friction: every row of ``integrators.txt`` of 64 waters that is long enough to tell."""
    found: dict[str, list[Point]] = {name: [] for name in SCHEMES}
    for line in text.splitlines():
        row, bonds = ROW.match(line), BONDS.search(line)
        if row and bonds and row[1] in found:
            values = (float(bonds[k]) for k in (4, 5, 6))
            found[row[1]].append(Point(float(row[2]), *values))
    return {name: sorted(points, key=lambda p: p.outer_fs) for name, points in found.items()}


def speeds(folder: Path = RESULTS) -> list[tuple[float, float]]:
    """(outer step in fs, speed over STS): medians of ``benchmarks/speed.py``."""
    found = []
    for file in sorted(folder.glob("speed_216_*.txt")):
        text = file.read_text()
        step = re.search(r"1-(\d+)fs", file.name)
        ratio = re.search(r"median ratio ([\d.]+)", text)
        if step and ratio:
            found.append((float(step[1]), float(ratio[1])))
    return sorted(found)


def draw(out: Path) -> None:
    """Writes the figure."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    points = temperatures((RESULTS / "integrators.txt").read_text())
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    expected = next(p.expected for rows in points.values() for p in rows)
    left.axhspan(expected - 3, expected + 3, color="0.9", label="expected ± 3 K")
    for k, (name, rows) in enumerate(points.items()):
        x = [p.outer_fs + 0.12 * (k - 1) for p in rows]
        y, error = [p.kelvin for p in rows], [p.stderr for p in rows]
        left.errorbar(x, y, error, fmt="os^"[k], capsize=3, label=SCHEMES[name])
    left.set(xlabel="outer time step, fs", ylabel="temperature of O–H bonds, K", ylim=(280, 300))
    left.legend(fontsize=8, loc="lower left")
    x, y = zip(*speeds(), strict=True)
    right.plot([1, 11], [1, 11], color="0.8", label="limit: a student that costs nothing")
    right.plot(x, y, "o-", label="216 waters, two CPU cores")
    right.set(xlabel="outer time step, fs", ylabel="speed over single steps of 1 fs")
    right.legend(fontsize=8)
    fig.savefig(out, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "reach.png")
    draw(parser.parse_args().out)


if __name__ == "__main__":
    main()
