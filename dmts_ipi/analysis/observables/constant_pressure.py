"""Density, volume and pressure of runs at constant pressure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dmts_ipi.analysis.comparison import Comparison, difference
from dmts_ipi.analysis.figures import Palette, Plot, legend_above, new_figure, to_svg
from dmts_ipi.analysis.formatting import estimate_text
from dmts_ipi.analysis.measure import Measured
from dmts_ipi.core.statistics import Estimate, mean_stderr

from .base import FEWEST_DRAWN, MOST_BINS, Column, Observable, Sampler, estimate_record

COMPARED = (("density_g_cm3", "density", 0.01, "g/cm³"), ("pressure_bar", "pressure", 50.0, "bar"))
COLUMNS = (("density_g_cm3", "Density, g/cm³"), ("pressure_bar", "Pressure, bar"))
PROPERTIES = ("pressure_bar", "volume_A3", "density_g_cm3")


@dataclass(frozen=True)
class ConstantPressureState:
    """``means`` by the name of the property; ``density_g_cm3`` (lines,) or None."""

    means: dict[str, Estimate]
    density_g_cm3: np.ndarray | None


class ConstantPressure(Observable[ConstantPressureState]):
    """Of NPT runs only."""

    name = "constant_pressure"
    page_order = 70

    def measure(self, m: Measured, sampler: Sampler | None) -> ConstantPressureState | None:
        """From the properties."""
        if m.run.ensemble != "npt":
            return None
        p = m.run.properties
        means = {key: mean_stderr(m.kept(p[key])) for key in PROPERTIES if key in p}
        return ConstantPressureState(means, p.get("density_g_cm3"))

    def against_reference(self, m: Measured, reference: Measured) -> list[Comparison]:
        """Density and pressure."""
        a, b = self.of(m).means, self.of(reference).means
        return [
            difference(m, reference, label, a[key], b[key], tolerance, unit, structural=True)
            for key, label, tolerance, unit in COMPARED
            if key in a and key in b
        ]

    def plots(self, measured: Sequence[Measured], palette: Palette) -> list[Plot]:
        """Histograms of the density."""
        shown = [
            (m, m.kept(s.density_g_cm3))
            for m, s in self.shown(palette.reference_first(measured))
            if s.density_g_cm3 is not None and m.used.sum() >= FEWEST_DRAWN
        ]
        if not shown:
            return []
        figure, axes = new_figure()
        low = min(float(x.min()) for _, x in shown)
        high = max(float(x.max()) for _, x in shown)
        for m, x in shown:
            bins = int(np.clip(math.sqrt(len(x)), 10, MOST_BINS))
            counts, edges = np.histogram(x, bins, (low, high + 1e-9), density=True)
            axes.stairs(counts, edges, color=palette.of(m), lw=1.6, label=m.run.label)
        axes.set_xlabel("density, g/cm³")
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        legend_above(axes, len(shown))
        return [
            Plot(
                "density",
                "Density",
                "Distribution at constant pressure, after equilibration.",
                to_svg(figure, "density", "Histogram of the density"),
            )
        ]

    def record(self, m: Measured, arrays: bool) -> dict[str, Any]:
        """Means."""
        state = self.get(m)
        means = state.means if state is not None else {}
        return {"npt": {k: estimate_record(e) for k, e in means.items()}}

    def columns(self, measured: Sequence[Measured], reference: Measured | None) -> list[Column]:
        """Density and pressure."""
        shown = self.shown(measured)
        if not shown:
            return []
        return [
            Column(
                title,
                {m.run.name: estimate_text(s.means[key]) for m, s in shown if key in s.means},
            )
            for key, title in COLUMNS
        ]


CONSTANT_PRESSURE = ConstantPressure()
