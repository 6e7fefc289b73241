"""The learning curve as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dmts_ipi.core.errors import InputError


def plot_history(history: Sequence[Mapping[str, float]], best_step: int, path: Path) -> None:
    """Held-out errors and predicted heating against steps, as PNG.

    Raises:
        InputError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4), dpi=120)
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    steps = [row["step"] for row in history]
    for key, label in (("force_rmse_eV_per_A", "RMSE"), ("force_mae_eV_per_A", "MAE")):
        axes.plot(steps, [1e3 * row[key] for row in history], label=f"held-out {label}")
    axes.set(xlabel="step", ylabel="force error / meV A$^{-1}$", yscale="log")
    axes.axvline(best_step, color="grey", lw=0.8, ls=":", label="chosen")
    heating = [key for key in history[0] if key.startswith("heating_at_")] if history else []
    if heating:
        other = axes.twinx()
        other.plot(steps, [row[heating[0]] for row in history], "C3--", lw=1)
        other.set(ylabel=heating[0].replace("_K_per_ps", " / K ps$^{-1}$"), yscale="log")
        other.yaxis.label.set_color("C3")
    axes.legend(frameon=False)
    figure.tight_layout()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except OSError as error:
        raise InputError("file", path, f"cannot be written ({error.strerror})") from error
