"""Speed: simulated time per day of wall time, and its ratio to that of the reference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from dmts_ipi.analysis.comparison import Comparison
from dmts_ipi.analysis.figures import Palette, Plot, new_figure, to_svg
from dmts_ipi.analysis.formatting import NOTHING, Card
from dmts_ipi.analysis.measure import Measured

from .base import Column, Observable, Sampler


def speedup(m: Measured, reference: Measured | None) -> float:
    """ns/day over that of the reference; NaN where a speed is missing."""
    return m.run.ns_per_day / reference.run.ns_per_day if reference is not None else math.nan


class Speed(Observable[float]):
    """ns/day, as the run itself measured it; no result where it did not."""

    name = "speed"
    page_order = 10

    def measure(self, m: Measured, sampler: Sampler | None) -> float | None:
        """From ``summary.json``."""
        return m.run.ns_per_day if math.isfinite(m.run.ns_per_day) else None

    def plots(self, measured: Sequence[Measured], palette: Palette) -> list[Plot]:
        """A bar for each run."""
        timed = self.shown(measured)
        if not timed:
            return []
        figure, axes = new_figure(0.75 + 0.55 * len(timed))
        top = max(speed for _, speed in timed)
        for k, (m, speed) in enumerate(timed):
            axes.barh(k, speed, color=palette.of(m), height=0.62)
            axes.text(speed + 0.015 * top, k, f"{speed:.3g}", va="center", weight="bold")
        axes.set_yticks(range(len(timed)), [m.run.label for m, _ in timed])
        axes.invert_yaxis()
        axes.set_xlim(0, 1.13 * top)
        axes.set_xlabel("ns/day")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        return [
            Plot(
                "speed",
                "Speed",
                "Simulated time per day of wall time, as each run measured it.",
                to_svg(figure, "speed", "Bar chart of ns/day of each run"),
            )
        ]

    def columns(self, measured: Sequence[Measured], reference: Measured | None) -> list[Column]:
        """ns/day and speedup."""
        ratios = {m.run.name: speedup(m, reference) for m in measured}
        return [
            Column("ns/day", {m.run.name: f"{s:.3g}" for m, s in self.shown(measured)}),
            Column(
                "Speedup",
                {k: f"{r:.2f}×" if math.isfinite(r) else NOTHING for k, r in ratios.items()},
            ),
        ]

    def cards(
        self, m: Measured, reference: Measured | None, comparisons: Sequence[Comparison]
    ) -> list[Card]:
        """Speedup, or ns/day without a reference."""
        ratio = speedup(m, reference) if m is not reference else math.nan
        if math.isfinite(ratio) and reference is not None:
            detail = f"{m.run.ns_per_day:.3g} against {reference.run.ns_per_day:.3g} ns/day"
            return [Card("Speed over STS", f"{ratio:.1f}×", "", detail, None, "")]
        return [Card("Speed", f"{m.run.ns_per_day:.3g}", "ns/day", m.run.label, None, "")]

    def terminal(self, m: Measured, reference: Measured | None) -> list[str]:
        """ns/day, and the ratio."""
        ratio = speedup(m, reference)
        parts = [f"{m.run.ns_per_day:.3g} ns/day"]
        if math.isfinite(ratio) and m is not reference:
            parts.append(f"{ratio:.2f}x")
        return parts

    def record(self, m: Measured, arrays: bool) -> dict[str, Any]:
        """Nothing: the run's record has it, with or without a value."""
        return {}


SPEED = Speed()
