"""The benchmark in one picture: speed over STS, temperature, diffusion, by integrator."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dmts_ipi.analysis.figures import COLOURS, INK, STYLE

from .cell import Result
from .pool import Pool, Value, pools, ratio, reference_of
from .tables import published

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot(path: Path, results: Sequence[Result]) -> bool:
    """Draws PNG; False, and no file, where there is nothing to draw."""
    import matplotlib
    from matplotlib.figure import Figure

    pooled = pools(results)
    labels = list(dict.fromkeys(label for _, label in pooled))
    systems = list(dict.fromkeys(system for system, _ in pooled))
    panels: list[tuple[str, dict[tuple[str, str], tuple[float, float, float]]]] = [
        (
            "speed, ratio to STS",
            {k: ratio(p, reference_of(pooled, k[0])) for k, p in pooled.items()},
        ),
        ("temperature minus expected, K", _each(pooled, _off)),
        ("D, Å²/ps", _each(pooled, lambda p: p.diffusion)),
    ]
    panels = [(t, v) for t, v in panels if any(math.isfinite(x[0]) for x in v.values())]
    if not panels:
        return False
    with matplotlib.rc_context(STYLE | {"figure.facecolor": "white", "axes.facecolor": "white"}):
        figure = Figure(
            figsize=(2.2 + 0.55 * max(len(labels), 6), 2.6 * len(panels) + 0.9),
            layout="constrained",
        )
        all_axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (title, values) in zip(all_axes, panels, strict=True):
            _panel(axes, title, values, labels, systems)
        if panels[0][0].startswith("speed"):
            _published_ratios(all_axes[0], pooled, labels)
        all_axes[0].legend(frameon=False, fontsize=8.5, loc="upper left")
        all_axes[-1].set_xticks(range(len(labels)), labels, rotation=35, ha="right")
        figure.savefig(path, dpi=130)
    return True


def _off(p: Pool) -> Value:
    mean, error = p.kelvin()
    return mean - p.expected_K(), error


def _each(
    pooled: dict[tuple[str, str], Pool], get: Callable[[Pool], Value]
) -> dict[tuple[str, str], tuple[float, float, float]]:
    """Value, and the ends of two standard errors."""
    values = {}
    for key, p in pooled.items():
        mean, error = get(p)
        wide = 2 * error if math.isfinite(error) else 0.0
        values[key] = mean, mean - wide, mean + wide
    return values


def _panel(
    axes: Axes,
    title: str,
    values: dict[tuple[str, str], tuple[float, float, float]],
    labels: Sequence[str],
    systems: Sequence[str],
) -> None:
    for k, system in enumerate(systems):
        points = [
            (labels.index(label) + 0.12 * (k - (len(systems) - 1) / 2), *v)
            for (s, label), v in values.items()
            if s == system and math.isfinite(v[0])
        ]
        if not points:
            continue
        x, y, low, high = zip(*points, strict=True)
        errors = [
            [max(0.0, a - b) for a, b in zip(y, low, strict=True)],
            [max(0.0, b - a) for a, b in zip(y, high, strict=True)],
        ]
        axes.errorbar(
            x, y, yerr=errors, fmt="o", ms=5, color=COLOURS[k % len(COLOURS)], label=system
        )
    axes.set_title(title, fontsize=10, loc="left")
    axes.grid(axis="y", lw=0.4, alpha=0.4)
    if "minus" in title:
        axes.axhline(0.0, color=INK, lw=0.8)
    else:
        axes.set_ylim(bottom=0)


def _published_ratios(
    axes: Axes, pooled: dict[tuple[str, str], Pool], labels: Sequence[str]
) -> None:
    """Ratios of table 1 as bars of their range over the three boxes."""
    rows = published()["table1"]
    base = rows[0]["ns_per_day"]
    named = False
    for at, label in enumerate(labels):
        key = next(p.cell.key for (_, name), p in pooled.items() if name == label)
        row = next((r for r in rows if (r["kind"], r["inner_fs"], r["outer_fs"]) == key), None)
        known = [v / b for v, b in zip(row["ns_per_day"] if row else [], base, strict=False) if v]
        if known and key[0] != "sts":
            name = None if named else "published, 648 to 12,000 atoms"
            axes.plot([at + 0.3] * 2, [min(known), max(known)], color="#adb5bd", lw=5, label=name)
            named = True
