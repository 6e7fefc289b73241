"""Figures of motion (diffusion, spectra) and of whole distributions (energy, density, forces)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .figures import INK, Plot, legend_above, new_figure, to_svg
from .measure import Measured
from .spectrum import CM_PER_THZ, VelocitySpectrum, resonance_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes

QUANTILES = np.concatenate([[0.005, 0.01, 0.02], np.linspace(0.05, 0.95, 19), [0.98, 0.99, 0.995]])
SHOWN_FRACTION = 3e-5  # of the largest density: below, a spectrum is not drawn


def quantile_plot(
    measured: Sequence[Measured], colour: dict[str, str], reference: Measured | None
) -> Plot | None:
    """Quantiles of the potential energy against those of the reference."""
    others = [m for m in measured if m is not reference and m.used.sum() >= 100 and m.has_energy]
    if reference is None or reference.used.sum() < 100 or not others or not reference.has_energy:
        return None
    figure, axes = new_figure()
    zero = reference.potential.mean
    base = np.quantile(reference.potential_meV[reference.used] - zero, QUANTILES)
    span = np.array([base[0], base[-1]])
    axes.plot(span, span, color=INK, lw=1.0, linestyle=(0, (4, 2)), label="equal")
    for m in others:
        own = np.quantile(m.potential_meV[m.used] - zero, QUANTILES)
        axes.plot(base, own, "o", markersize=4, color=colour[m.run.name], label=m.run.label)
    axes.set_xlabel("quantiles of STS, meV/atom")
    axes.set_ylabel("quantiles of the run, meV/atom")
    legend_above(axes, len(others) + 1)
    return Plot(
        "quantiles",
        "Potential energy, quantile by quantile",
        "On the dashed line both runs have the same distribution; parallel to it: shifted; "
        "steeper: wider. From 0.5 to 99.5 %.",
        to_svg(figure, "quantiles", "Quantiles of the potential energy against the reference"),
    )


def displacement_plot(measured: Sequence[Measured], colour: dict[str, str]) -> Plot | None:
    """Mean-square displacements with the range of the fit."""
    shown = [m for m in measured if m.diffusion]
    if not shown:
        return None
    figure, axes = new_figure()
    several = len({d.kind for m in shown for d in m.diffusion}) > 1
    for m in shown:
        for k, d in enumerate(m.diffusion[:3]):
            axes.plot(
                d.lag_ps,
                d.msd_A2,
                color=colour[m.run.name],
                linestyle=("-", "--", ":")[k],
                label=f"{m.run.label}{' ' + d.kind if several else ''}",
            )
    low, high = shown[0].diffusion[0].fit_ps
    axes.axvspan(low, high, color=INK, alpha=0.06, lw=0)
    axes.text(high, 0.015, "fit ", transform=axes.get_xaxis_transform(), ha="right", size=9)
    axes.set_xlim(0, max(float(m.diffusion[0].lag_ps[-1]) for m in shown))
    axes.set_ylim(0, None)
    axes.set_xlabel("time, ps")
    axes.set_ylabel("mean-square displacement, Å²")
    axes.legend(loc="upper left", handlelength=1.4)
    return Plot(
        "msd",
        "Mean-square displacement",
        "Of molecules' centres of mass, about that of the system, over all time origins. D is a "
        "sixth of the slope in the grey range. A strong thermostat slows it.",
        to_svg(figure, "msd", "Mean-square displacement over time"),
    )


def spectrum_plots(
    measured: Sequence[Measured], colour: dict[str, str], reference: Measured | None
) -> list[Plot]:
    """One figure for each element."""
    elements = list(dict.fromkeys(s.element for m in measured for s in m.spectra))
    return [_spectrum(e, measured, colour, reference) for e in elements]


def _spectrum(
    element: str,
    measured: Sequence[Measured],
    colour: dict[str, str],
    reference: Measured | None,
) -> Plot:
    found = [(m, s) for m in measured for s in m.spectra if s.element == element]
    figure, axes = new_figure()
    top = max(float(s.density_K_per_THz.max()) for _, s in found)
    end = max(_end(s, top) for _, s in found)
    for m, s in found:
        c, thick = colour[m.run.name], m is reference
        f, y = s.frequency_THz[1:-1], s.density_K_per_THz[1:-1]
        axes.plot(f, y, color=c, lw=3.0 if thick else 1.3, alpha=0.55 if thick else 1)
        axes.lines[-1].set_label(m.run.label)
        error = 2 * s.stderr_K_per_THz[1:-1]
        axes.fill_between(f, np.maximum(y - error, top * 1e-9), y + error, color=c, alpha=0.2, lw=0)
    axes.set_yscale("log")
    axes.set_xlim(0, end)
    axes.set_ylim(top * SHOWN_FRACTION, 2 * top)
    marked = _lines(axes, [m for m, _ in found], end)
    _wavenumbers(axes)
    axes.set_xlabel("frequency, THz (above: 1/cm)")
    axes.set_ylabel(f"{element}: K per THz")
    axes.legend(loc="lower left", handlelength=1.4)
    strays = [p for m, _ in found for p in m.foreign_peaks if p.element == element]
    for p in strays:
        axes.plot(p.frequency_THz, 1.5 * top, "v", color=INK, markersize=6, clip_on=False)
    coarse = max(s.frame_fs for _, s in found)
    sentences = [
        "The area below a peak is the temperature that it holds. Bands: two standard errors.",
        f"Velocities {coarse:.3g} fs apart or less show up to {500 / coarse:.0f} THz; what is "
        "faster folds back.",
    ]
    if marked:
        sentences.append("Vertical: multiples of 1/(2 outer steps), where impulses can drive.")
    sentences += [f"Triangle: {p.frequency_THz:.1f} THz, not in STS, {p.meaning}." for p in strays]
    return Plot(
        f"spectrum-{element}",
        f"Velocity spectrum of {element}",
        " ".join(sentences),
        to_svg(figure, f"spectrum{element}", f"Velocity spectrum of {element}"),
    )


def _end(s: VelocitySpectrum, top: float) -> float:
    """Where the axis may end: a little above the last frequency that is worth drawing."""
    above = np.flatnonzero(s.density_K_per_THz > 10 * SHOWN_FRACTION * top)
    return min(s.nyquist_THz, 1.3 * float(s.frequency_THz[above[-1]])) if len(above) else 1.0


def _lines(axes: Axes, measured: Sequence[Measured], end: float) -> bool:
    marked = False
    for m in measured:
        if m.run.mode == "sts":
            continue
        for f, _ in resonance_lines(m.run.outer_fs, end):
            axes.axvline(f, color=INK, alpha=0.35, lw=0.9, linestyle=(0, (1, 2)))
            marked = True
    return marked


def _wavenumbers(axes: Axes) -> None:
    def to_wavenumber(f: Any) -> Any:
        return f * CM_PER_THZ

    def to_THz(k: Any) -> Any:
        return k / CM_PER_THZ

    above = axes.secondary_xaxis("top", functions=(to_wavenumber, to_THz))
    above.tick_params(labelsize=9, length=2.5)


def density_plot(measured: Sequence[Measured], colour: dict[str, str]) -> Plot | None:
    """Histograms of the density of constant-pressure runs."""
    shown = [m for m in measured if m.density_g_cm3 is not None and m.used.sum() >= 10]
    if not shown:
        return None
    figure, axes = new_figure()
    series = [np.asarray(m.density_g_cm3)[m.used] for m in shown]
    low, high = min(float(x.min()) for x in series), max(float(x.max()) for x in series)
    for m, x in zip(shown, series, strict=True):
        counts, edges = np.histogram(
            x, int(np.clip(math.sqrt(len(x)), 10, 40)), (low, high + 1e-9), density=True
        )
        axes.stairs(counts, edges, color=colour[m.run.name], lw=1.6, label=m.run.label)
    axes.set_xlabel("density, g/cm³")
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    legend_above(axes, len(shown))
    return Plot(
        "density",
        "Density",
        "Distribution at constant pressure, after equilibration.",
        to_svg(figure, "density", "Histogram of the density"),
    )


def difference_plot(measured: Sequence[Measured], colour: dict[str, str]) -> Plot | None:
    """Distribution of the watchdog's force differences."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    shown = [m for m in measured if m.differences is not None]
    if not shown:
        return None
    figure, axes = new_figure()
    for m in shown:
        d = m.differences
        assert d is not None
        share = 100 * d.counts / d.frames
        axes.stairs(share, d.edges_eV_per_A, color=colour[m.run.name], lw=1.6, label=m.run.label)
        used = np.flatnonzero(d.counts)
        axes.axvline(d.p99_eV_per_A, color=colour[m.run.name], lw=0.9, linestyle=(0, (3, 2)))
        axes.set_xlim(d.edges_eV_per_A[max(used[0] - 2, 0)], d.edges_eV_per_A[used[-1] + 1] * 1.5)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("largest |teacher − student| of any atom, eV/Å")
    axes.set_ylabel("frames, %")
    legend_above(axes, len(shown))
    d = shown[0].differences
    assert d is not None
    return Plot(
        "difference",
        "Disagreement of teacher and student",
        f"As the watchdog saw it, {d.frames} frames of {shown[0].run.name}. Dashed: 99 % of the "
        "frames lie below.",
        to_svg(figure, "difference", "Histogram of the difference of forces"),
    )
