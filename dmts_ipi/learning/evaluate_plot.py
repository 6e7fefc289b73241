"""Plots of ``dmts-ipi evaluate``: parity, predicted heating, stiffness and spectrum."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dmts_ipi.core.errors import InputError

from .evaluate import Evaluation
from .smoothness import Smoothness

MOST_POINTS = 40_000


def plot(
    path: Path, name: str, evaluation: Evaluation | None, smoothness: Smoothness | None
) -> None:
    """Writes a PNG with one panel for each thing that was measured.

    Raises:
        InputError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heating = evaluation.heating if evaluation is not None else None
    panels = (evaluation is not None) + (heating is not None) + 2 * (smoothness is not None)
    figure = Figure(figsize=(4.4 * panels, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = iter(np.atleast_1d(figure.subplots(1, panels)))
    if evaluation is not None:
        ax = next(axes)
        x, y = np.concatenate(evaluation.reference), np.concatenate(evaluation.predicted)
        symbols = np.concatenate(evaluation.symbols)
        keep = np.arange(len(x))
        if len(x) > MOST_POINTS:
            keep = np.random.default_rng(0).choice(len(x), MOST_POINTS, replace=False)
        for symbol in sorted(set(symbols.tolist())):
            mask = keep[symbols[keep] == symbol]
            ax.plot(x[mask], y[mask], ".", ms=2, alpha=0.4, rasterized=True, label=symbol)
        span = [float(x.min()), float(x.max())]
        ax.plot(span, span, "k-", lw=0.7)
        mae = 1e3 * evaluation.total.absolute / max(evaluation.total.n, 1)
        ax.set(xlabel="label, eV/A", ylabel="model, eV/A", title=f"forces, MAE {mae:.1f} meV/A")
        ax.legend(markerscale=5, frameon=False)
    if heating is not None:
        ax = next(axes)
        for title, values in {"total": heating.K_per_ps, **heating.by_motion}.items():
            style = "k-o" if title == "total" else "--"
            ax.semilogy(heating.outer_fs, np.maximum(values, 1e-6), style, label=title, ms=4)
        top = max(10.0, float(heating.K_per_ps.max())) * 2
        ax.set(xlabel="outer step, fs", ylabel="predicted heating, K/ps", ylim=(1e-3, top))
        ax.axhspan(2, 5, color="orange", alpha=0.2, label="a thermostat of 1/ps holds")
        ax.legend(frameon=False, fontsize=8)
    if smoothness is not None:
        scan, spectrum = smoothness.scan, smoothness.spectrum
        ax = next(axes)
        ax.plot(scan.r_A, scan.stiffness_eV_per_A2, "k-", lw=1)
        ax.set(xlabel="X-H distance, A", ylabel="stiffness, eV/A$^2$", title="along one bond")
        ax = next(axes)
        ax.loglog(spectrum.frequency_per_fs[1:], spectrum.power[1:], "k-", lw=1)
        ax.set(
            xlabel="frequency, 1/fs",
            ylabel="power, eV$^2$/A$^2$ fs",
            title=f"stretch force, $f^{{-{spectrum.slope:.1f}}}$",
        )
    figure.suptitle(name, fontsize=10)
    try:
        figure.savefig(path, dpi=130, format="png")
    except OSError as error:
        raise InputError("plot", path, f"cannot be written ({error.strerror})") from error
