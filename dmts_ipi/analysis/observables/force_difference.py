"""What the watchdog saw: differences of forces, and its events (``analysis.watchdog_log``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dmts_ipi.analysis.figures import Palette, Plot, legend_above, new_figure, to_svg
from dmts_ipi.analysis.measure import Measured
from dmts_ipi.analysis.watchdog_log import Differences, JournalEntry, read_comparisons, read_events

from .base import Observable, Sampler


@dataclass(frozen=True)
class WatchdogLog:
    """``comparisons``: one for each pair of models that was compared, outermost level first."""

    comparisons: list[Differences]
    events: list[JournalEntry]

    @property
    def differences(self) -> Differences | None:
        """Those of the outermost level; None where forces were not compared."""
        return next(iter(self.comparisons), None)


class ForceDifference(Observable[WatchdogLog]):
    """The watchdog's distribution of the difference of forces, of the worst atom of a frame."""

    name = "force_difference"
    page_order = 100

    def measure(self, m: Measured, sampler: Sampler | None) -> WatchdogLog | None:
        """From the run folder; None where no watchdog was there."""
        comparisons = read_comparisons(m.run.path, m.run.summary)
        events = read_events(m.run.path)
        return WatchdogLog(comparisons, events) if comparisons or events else None

    def plots(self, measured: Sequence[Measured], palette: Palette) -> list[Plot]:
        """Histograms."""
        from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

        shown = [(m, d) for m, log in self.shown(measured) for d in log.comparisons]
        if not shown:
            return []
        figure, axes = new_figure()
        low, high = np.inf, 0.0
        for m, d in shown:
            share = 100 * d.counts / d.frames
            first = d is self.of(m).differences
            label = m.run.label if first else f"{m.run.label}: {d.accurate} − {d.fast}"
            style = "-" if first else ":"
            axes.stairs(share, d.edges_eV_per_A, color=palette.of(m), lw=1.6, ls=style, label=label)
            used = np.flatnonzero(d.counts)
            if np.isfinite(d.p99_eV_per_A):
                axes.axvline(d.p99_eV_per_A, color=palette.of(m), lw=0.9, linestyle=(0, (3, 2)))
            low = min(low, float(d.edges_eV_per_A[max(used[0] - 2, 0)]))
            high = max(high, float(d.edges_eV_per_A[used[-1] + 1]) * 1.5)
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        axes.xaxis.set_major_locator(FixedLocator(_ticks(low, high)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
        pairs = dict.fromkeys((d.accurate, d.fast) for _, d in shown)
        names = ", ".join(f"|{accurate} − {fast}|" for accurate, fast in pairs)
        axes.set_xlabel(f"largest {names} of any atom, eV/Å")
        axes.set_ylabel("frames, %")
        legend_above(axes, len(shown))
        m, d = shown[0]
        return [
            Plot(
                "difference",
                f"Disagreement of {d.accurate} and {d.fast}"
                + (" and of the models of inner levels" if len(pairs) > 1 else ""),
                f"As the watchdog saw it, {d.frames} frames of {m.run.name}. Dashed: 99 % of the "
                "frames lie below.",
                to_svg(figure, "difference", "Histogram of the difference of forces"),
            )
        ]

    def record(self, m: Measured, arrays: bool) -> dict[str, Any]:
        """Events; the histogram where arrays are wanted."""
        log = self.get(m) or WatchdogLog([], [])
        record: dict[str, Any] = {"events": [asdict(e) for e in log.events]}
        if arrays and log.differences is not None:
            record["differences"] = asdict(log.differences)
            if len(log.comparisons) > 1:
                record["comparisons"] = [asdict(d) for d in log.comparisons]
        return record


def _ticks(low: float, high: float) -> list[float]:
    """One to seven ticks of a logarithmic axis that do not run into each other."""
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [a * 10.0**k for k in decades for a in steps if low <= a * 10.0**k <= high]
        if len(ticks) <= 7:
            break
    return ticks or [float(np.sqrt(low * high))]


FORCE_DIFFERENCE = ForceDifference()
