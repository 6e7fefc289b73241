"""The figures of the report, one function each; a figure without data is None."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dmts_ipi.core.statistics import temperature_density, temperature_std

from .figures import INK, STYLE, Plot, legend_above, new_figure, to_svg, two_panels
from .measure import Measured
from .plots_motion import (
    density_plot,
    difference_plot,
    displacement_plot,
    quantile_plot,
    spectrum_plots,
)
from .rdf import PairDistribution, find_pair

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#e8590c", "#1c7ed6", "#2f9e44", "#9c36b5", "#c2255c", "#0c8599")
REFERENCE_COLOUR = "#868e96"
MAX_PAIR_PLOTS = 6


def colours(measured: Sequence[Measured], reference: Measured | None) -> dict[str, str]:
    """Colour of each run by name; the reference is grey."""
    free = iter(COLOURS * (len(measured) // len(COLOURS) + 1))
    return {m.run.name: REFERENCE_COLOUR if m is reference else next(free) for m in measured}


def draw(measured: Sequence[Measured], reference: Measured | None) -> list[Plot]:
    """All figures that the data allow; a figure without data is left out."""
    import matplotlib

    colour = colours(measured, reference)
    # The reference below, so that the others are drawn on top of it.
    order = sorted(measured, key=lambda m: m is not reference)
    with matplotlib.rc_context(STYLE):
        plots = [
            _speed(measured, colour),
            _temperature_law(order, colour),
            _kinetic(measured, colour),
            *_distributions(order, colour, reference),
            *spectrum_plots(order, colour, reference),
            displacement_plot(order, colour),
            _potential(measured, colour, reference),
            quantile_plot(order, colour, reference),
            density_plot(order, colour),
            _temperature_time(order, colour),
            _conserved(order, colour),
            difference_plot(measured, colour),
        ]
    return [p for p in plots if p is not None]


def _speed(measured: Sequence[Measured], colour: dict[str, str]) -> Plot | None:
    timed = [m for m in measured if math.isfinite(m.run.ns_per_day)]
    if not timed:
        return None
    figure, axes = new_figure(0.75 + 0.55 * len(timed))
    top = max(m.run.ns_per_day for m in timed)
    for k, m in enumerate(timed):
        speed = m.run.ns_per_day
        axes.barh(k, speed, color=colour[m.run.name], height=0.62)
        axes.text(speed + 0.015 * top, k, f"{speed:.3g}", va="center", weight="bold")
    axes.set_yticks(range(len(timed)), [m.run.label for m in timed])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.13 * top)
    axes.set_xlabel("ns/day")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return Plot(
        "speed",
        "Speed",
        "Simulated time per day of wall time, as each run measured it.",
        to_svg(figure, "speed", "Bar chart of ns/day of each run"),
    )


def _temperature_law(measured: Sequence[Measured], colour: dict[str, str]) -> Plot | None:
    canonical = [m for m in measured if m.run.ensemble != "nve" and m.used.sum() >= 10]
    if not canonical:
        return None
    figure, axes = new_figure()
    first = canonical[0]
    target, d = first.run.temperature_K, first.degrees_of_freedom
    width = temperature_std(target, d)
    low = min(target - 4.2 * width, *(m.temperature_K[m.used].min() for m in canonical))
    high = max(target + 4.2 * width, *(m.temperature_K[m.used].max() for m in canonical))
    grid = np.linspace(low, high, 400)
    for m in canonical:
        series = m.temperature_K[m.used]
        bins = int(np.clip(math.sqrt(len(series)), 10, 40))
        counts, edges = np.histogram(series, bins=bins, range=(low, high), density=True)
        grey = colour[m.run.name] == REFERENCE_COLOUR
        axes.stairs(
            counts,
            edges,
            color=colour[m.run.name],
            fill=grey,
            alpha=0.45 if grey else 1,
            linewidth=1.6,
            label=m.run.label,
        )
    density = temperature_density(grid, target, d)
    axes.plot(grid, density, color=INK, linewidth=1.2, linestyle=(0, (4, 2)), label="exact law")
    axes.set_xlabel("kinetic temperature of all atoms, K")
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_ylim(0, None)
    axes.legend(loc="upper right", handlelength=1.4)
    return Plot(
        "temperature-law",
        "Temperature and its exact law",
        f"Dashed: (T/d) χ²(d) with d = {d} at {target:g} K, with nothing fitted. BAOAB with a "
        "1 fs step reads a few kelvin low (see below); that is no cooling.",
        to_svg(figure, "tlaw", "Histogram of the temperature with the exact law"),
    )


def _kinetic(measured: Sequence[Measured], colour: dict[str, str]) -> Plot | None:
    names = list(dict.fromkeys(name for m in measured for name in m.kinetic))
    shown = [m for m in measured if len(m.kinetic) > 1]
    if not shown:
        return None
    figure, axes = new_figure(1.0 + 0.3 * len(names) + 0.14 * len(names) * len(shown))
    spread = 0.6 / max(1, len(shown))
    for row, name in enumerate(names):
        for k, m in enumerate(shown):
            if name not in m.kinetic:
                continue
            y = row + (k - (len(shown) - 1) / 2) * spread
            e = m.kinetic[name]
            # Two standard errors: what the verdicts use.
            error = 2 * e.stderr if e.known else 0.0
            axes.errorbar(
                e.mean,
                y,
                xerr=error or None,
                fmt="o",
                markersize=5.5,
                color=colour[m.run.name],
                markerfacecolor=colour[m.run.name] if e.known else "none",
                elinewidth=1.6,
                label=m.run.label if row == 0 else None,
            )
            if m.run.ensemble != "nve":
                axes.plot(
                    [m.expected[name]] * 2,
                    [y - spread * 0.42, y + spread * 0.42],
                    color=INK,
                    lw=1.4,
                )
    axes.plot([], [], color=INK, lw=1.4, label="expected")
    axes.set_yticks(
        range(len(names)), [n.replace("-", "–") + (" bonds" if "-" in n else "") for n in names]
    )
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("kinetic temperature, K (bars: two standard errors)")
    axes.grid(axis="x", color=INK, alpha=0.12, linewidth=0.6)
    legend_above(axes, len(shown) + 1)
    return Plot(
        "kinetic",
        "Temperature by element and of bonds",
        "Heat from multiple time stepping shows first in the X–H bonds (relative velocity along "
        "the bond). Ticks: the expected value, the integrator's own bias included.",
        to_svg(figure, "kinetic", "Temperatures by element and of bonds with expected values"),
    )


def _distributions(
    measured: Sequence[Measured], colour: dict[str, str], reference: Measured | None
) -> list[Plot]:
    names = list(dict.fromkeys(d.pair for m in measured for d in m.distributions))
    return [
        plot
        for name in names[:MAX_PAIR_PLOTS]
        if (plot := _distribution(name, measured, colour, reference)) is not None
    ]


def _distribution(
    pair: str, measured: Sequence[Measured], colour: dict[str, str], reference: Measured | None
) -> Plot | None:
    found = [(m, d) for m in measured if (d := find_pair(m.distributions, pair)) is not None]
    if not found:
        return None
    base = find_pair(reference.distributions, pair) if reference is not None else None
    compared = base is not None and base.periodic and len(found) > 1
    figure, axes, below = two_panels() if compared else (*new_figure(), None)
    top, clipped = 0.0, False
    for m, d in found:
        c, thick = colour[m.run.name], m is reference
        axes.plot(d.r_A, d.g, color=c, lw=3.4 if thick else 1.5, alpha=0.55 if thick else 1)
        axes.lines[-1].set_label(m.run.label)
        _band(axes, d.r_A, d.g, d.stderr, c)
        between = float(d.outside.max())
        if d.periodic and between > 0:
            top = max(top, 1.25 * between)
            clipped = clipped or float(d.g.max()) > 1.25 * between
        else:
            top = max(top, 1.1 * float(d.g.max()))
    if below is not None and base is not None:
        _differences(below, found, base, colour)
    first = found[0][1]
    axes.set_ylim(0, top or 1)
    axes.set_xlim(max(0.0, first.r_A[int(np.argmax(first.g > 0))] - 0.4), first.r_A[-1])
    label = pair.replace("-", "–")
    (below or axes).set_xlabel("r, Å")
    axes.set_ylabel(f"g(r) {label}" if first.periodic else f"density of {label} distances, 1/Å")
    if first.periodic:
        axes.axhline(1, color=INK, alpha=0.25, linewidth=0.7)
    axes.legend(loc="upper right", handlelength=1.4)
    sentences = ["Bands: two standard errors from blocks."]
    if not any(np.isfinite(d.stderr).all() for _, d in found):
        sentences = ["Too few frames for an error band."]
    if below is not None:
        sentences.append("Below: difference from STS.")
    if clipped:
        sentences.append("Peaks within molecules run out of the top.")
    return Plot(
        f"rdf-{pair}",
        f"{label} {'radial distribution' if first.periodic else 'distances'}",
        " ".join(sentences),
        to_svg(figure, f"rdf{pair}", f"Radial distribution of {label}"),
    )


def _band(axes: Axes, r: np.ndarray, y: np.ndarray, stderr: np.ndarray, colour: str) -> None:
    if np.isfinite(stderr).all():
        axes.fill_between(r, y - 2 * stderr, y + 2 * stderr, color=colour, alpha=0.18, lw=0)


def _differences(
    axes: Axes,
    found: Sequence[tuple[Measured, PairDistribution]],
    base: PairDistribution,
    colour: dict[str, str],
) -> None:
    """g(r) minus that of the reference, scaled to what happens between molecules."""
    between = base.outside >= 0.5 * base.g
    limit = 0.05
    for m, d in found:
        if d is base or d.g.shape != base.g.shape:
            continue
        difference, error = d.g - base.g, np.hypot(d.stderr, base.stderr)
        axes.plot(d.r_A, difference, color=colour[m.run.name], lw=1.3)
        _band(axes, d.r_A, difference, error, colour[m.run.name])
        if (between & (base.g > 0)).any():
            limit = max(limit, 1.3 * float(np.abs(difference[between & (base.g > 0)]).max()))
    axes.axhline(0, color=INK, alpha=0.25, linewidth=0.7)
    axes.set_ylim(-limit, limit)
    axes.set_ylabel("Δg")


def _potential(
    measured: Sequence[Measured], colour: dict[str, str], reference: Measured | None
) -> Plot | None:
    shown = [m for m in measured if m.used.sum() >= 10 and m.has_energy]
    if not shown:
        return None
    figure, axes = new_figure(1.05 + 0.55 * len(shown))
    zero = (reference or shown[0]).potential.mean
    boxes: dict[str, Any] = axes.boxplot(
        [m.potential_meV[m.used] - zero for m in shown],
        orientation="horizontal",
        widths=0.55,
        showfliers=False,
        patch_artist=True,
        whis=(2.5, 97.5),
        medianprops={"color": INK, "linewidth": 1.4},
        whiskerprops={"color": INK, "linewidth": 0.8},
        capprops={"color": INK, "linewidth": 0.8},
    )
    for m, box, k in zip(shown, boxes["boxes"], range(len(shown)), strict=True):
        box.set(facecolor=colour[m.run.name], alpha=0.5, edgecolor=INK, linewidth=0.7)
        if m.potential.known:
            axes.errorbar(
                m.potential.mean - zero,
                k + 1,
                xerr=2 * m.potential.stderr,
                fmt="D",
                color=INK,
                markersize=4,
                elinewidth=1.6,
            )
    axes.set_yticks(range(1, len(shown) + 1), [m.run.label for m in shown])
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    name = "the STS mean" if reference is not None else "its mean"
    axes.set_xlabel(f"potential energy above {name}, meV/atom")
    axes.grid(axis="x", color=INK, alpha=0.12, linewidth=0.6)
    return Plot(
        "potential",
        "Potential energy",
        "Box: middle half; whiskers: 95 % of the samples; diamond: mean with two standard errors.",
        to_svg(figure, "potential", "Box plot of the potential energy of each run"),
    )


def _temperature_time(measured: Sequence[Measured], colour: dict[str, str]) -> Plot | None:
    shown = [m for m in measured if len(m.time_ps) >= 10]
    if not shown:
        return None
    figure, axes = new_figure()
    for m in shown:
        window = max(1, len(m.time_ps) // 60)
        n = len(m.time_ps) // window * window
        time = m.time_ps[:n].reshape(-1, window).mean(axis=1)
        series = m.temperature_K[:n].reshape(-1, window).mean(axis=1)
        axes.plot(time, series, color=colour[m.run.name], linewidth=1.4, label=m.run.label)
    target = shown[0].run.temperature_K
    axes.axhline(target, color=INK, linewidth=1.0, linestyle=(0, (4, 2)))
    skip = max(m.skip_ps for m in shown)
    if skip > 0:
        axes.axvspan(0, skip, color=INK, alpha=0.06, linewidth=0)
        axes.text(
            skip, 0.015, " left out ", transform=axes.get_xaxis_transform(), ha="right", size=9
        )
    axes.set_xlim(0, max(m.time_ps[-1] for m in shown))
    axes.set_xlabel("time, ps")
    axes.set_ylabel("temperature, K")
    legend_above(axes, len(shown))
    return Plot(
        "temperature-time",
        "Temperature over time",
        "Averages over a sixtieth of the run. A run that heats climbs here.",
        to_svg(figure, "ttime", "Temperature over time"),
    )


def _conserved(measured: Sequence[Measured], colour: dict[str, str]) -> Plot | None:
    shown = [m for m in measured if len(m.time_ps) >= 10 and m.has_energy]
    if not shown:
        return None
    figure, axes = new_figure()
    for m in shown:
        axes.plot(
            m.time_ps,
            m.conserved_meV - m.conserved_meV[0],
            color=colour[m.run.name],
            linewidth=1.3,
            label=m.run.label,
        )
    axes.axhline(0, color=INK, alpha=0.25, linewidth=0.7)
    axes.set_xlim(0, max(m.time_ps[-1] for m in shown))
    axes.set_xlabel("time, ps")
    axes.set_ylabel("change, meV/atom")
    axes.legend(loc="best", handlelength=1.4)
    return Plot(
        "conserved",
        "Conserved quantity",
        "Its slope is the energy that the integrator adds; the thermostat takes it out in NVT.",
        to_svg(figure, "conserved", "Conserved quantity over time"),
    )
