"""Potential energy: its mean and its distribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dmts_ipi.analysis.comparison import Comparison, difference, ratio
from dmts_ipi.analysis.figures import INK, Palette, Plot, legend_above, new_figure, to_svg
from dmts_ipi.analysis.formatting import plus_minus
from dmts_ipi.analysis.measure import Measured
from dmts_ipi.core.statistics import Estimate, mean_stderr, not_below, std_stderr
from dmts_ipi.core.units import KB_EV_PER_K

from .base import FEWEST_DRAWN, Column, Observable, Sampler, estimate_record

TOLERANCE_MEV = 0.5
WIDTH_TOLERANCE_PERCENT = 10.0
FEWEST_FOR_QUANTILES = 100
QUANTILES = np.concatenate([[0.005, 0.01, 0.02], np.linspace(0.05, 0.95, 19), [0.98, 0.99, 0.995]])


@dataclass(frozen=True)
class PotentialEnergy:
    """In meV/atom. ``series`` (lines,); ``width``: its standard deviation over time.

    ``varies``: whether the model gives an energy; a constant one is none.
    """

    series: np.ndarray
    mean: Estimate
    width: Estimate
    varies: bool


class Potential(Observable[PotentialEnergy]):
    """The potential energy, compared with the reference only: it has no zero of its own."""

    name = "potential_energy"
    page_order = 60

    def measure(self, m: Measured, sampler: Sampler | None) -> PotentialEnergy | None:
        """From the properties; None where they don't hold it."""
        values = m.run.properties.get("potential_eV")
        if values is None:
            m.notes.append("no 'potential{electronvolt}' among the properties: no potential energy")
            return None
        series = np.asarray(values, float) * (1000.0 / len(m.run.numbers))
        varies = bool(np.ptp(series) > 0) or len(series) < 2
        if not varies and len(m.run.numbers) > 1:  # that of a single atom is constant
            m.notes.append(
                "the teacher gives no energy: no potential energy, no conserved quantity"
            )
        kept = m.kept(series)
        mean = not_below(mean_stderr(kept), 1500.0 * KB_EV_PER_K * m.floor_K)
        return PotentialEnergy(series, mean, std_stderr(kept), varies)

    def against_reference(self, m: Measured, reference: Measured) -> list[Comparison]:
        """Mean and width, of runs of one ensemble."""
        a, b = self.of(m), self.of(reference)
        if m.run.ensemble != reference.run.ensemble or not (a.varies and b.varies):
            return []
        return [
            difference(
                *(m, reference, "potential energy", a.mean, b.mean, TOLERANCE_MEV, "meV/atom"),
                structural=True,
                shown_from=b.mean.mean,
            ),
            *ratio(
                *(m, reference, "width of the potential energy", a.width, b.width),
                *(WIDTH_TOLERANCE_PERCENT, "meV/atom"),
            ),
        ]

    def plots(self, measured: Sequence[Measured], palette: Palette) -> list[Plot]:
        """Boxes, and quantiles against those of the reference."""
        figures = [self._boxes(measured, palette), self._quantiles(measured, palette)]
        return [p for p in figures if p is not None]

    def record(self, m: Measured, arrays: bool) -> dict[str, Any]:
        """Mean and width."""
        e = self.get(m)
        if e is None:
            return {"potential_meV_per_atom": None}
        width = {"std": e.width.mean, "std_stderr": e.width.stderr}
        return {"potential_meV_per_atom": {**estimate_record(e.mean), **width}}

    def series(self, m: Measured) -> dict[str, np.ndarray]:
        """The energy per atom."""
        return {"potential_meV_per_atom": self.of(m).series}

    def columns(self, measured: Sequence[Measured], reference: Measured | None) -> list[Column]:
        """Mean from that of the reference, or of the first run."""
        shown = self.shown(measured)
        if not shown:
            return []
        origin = reference if self.get(reference) is not None else shown[0][0]
        assert origin is not None
        zero = self.of(origin).mean.mean
        cells = {
            m.run.name: plus_minus(e.mean.mean - zero, e.mean.stderr, signed=True) for m, e in shown
        }
        footnote = f"Potential energy is counted from the mean of {origin.run.name}."
        return [Column("Potential, meV/atom", cells, footnote)]

    def _boxes(self, measured: Sequence[Measured], palette: Palette) -> Plot | None:
        shown = [
            (m, e) for m, e in self.shown(measured) if m.used.sum() >= FEWEST_DRAWN and e.varies
        ]
        if not shown:
            return None
        figure, axes = new_figure(1.05 + 0.55 * len(shown))
        reference = palette.find_reference(m for m, _ in shown)
        zero = self.of(reference or shown[0][0]).mean.mean
        boxes: dict[str, Any] = axes.boxplot(
            [m.kept(e.series) - zero for m, e in shown],
            orientation="horizontal",
            widths=0.55,
            showfliers=False,
            patch_artist=True,
            whis=(2.5, 97.5),
            medianprops={"color": INK, "linewidth": 1.4},
            whiskerprops={"color": INK, "linewidth": 0.8},
            capprops={"color": INK, "linewidth": 0.8},
        )
        for k, ((m, e), box) in enumerate(zip(shown, boxes["boxes"], strict=True)):
            box.set(facecolor=palette.of(m), alpha=0.5, edgecolor=INK, linewidth=0.7)
            if e.mean.known:
                axes.errorbar(
                    e.mean.mean - zero,
                    k + 1,
                    xerr=2 * e.mean.stderr,
                    fmt="D",
                    color=INK,
                    markersize=4,
                    elinewidth=1.6,
                )
        axes.set_yticks(range(1, len(shown) + 1), [m.run.label for m, _ in shown])
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        name = "the STS mean" if reference is not None else "its mean"
        axes.set_xlabel(f"potential energy above {name}, meV/atom")
        axes.grid(axis="x", color=INK, alpha=0.12, linewidth=0.6)
        return Plot(
            "potential",
            "Potential energy",
            "Box: middle half; whiskers: 95 % of the samples; diamond: mean with two standard "
            "errors.",
            to_svg(figure, "potential", "Box plot of the potential energy of each run"),
        )

    def _quantiles(self, measured: Sequence[Measured], palette: Palette) -> Plot | None:
        shown = [
            (m, e)
            for m, e in self.shown(measured)
            if m.used.sum() >= FEWEST_FOR_QUANTILES and e.varies
        ]
        reference = palette.find_reference(m for m, _ in shown)
        others = [(m, e) for m, e in shown if m is not reference]
        if reference is None or not others:
            return None
        figure, axes = new_figure()
        ref = self.of(reference)
        zero = ref.mean.mean
        base = np.quantile(reference.kept(ref.series) - zero, QUANTILES)
        span = np.array([base[0], base[-1]])
        axes.plot(span, span, color=INK, lw=1.0, linestyle=(0, (4, 2)), label="equal")
        for m, e in others:
            own = np.quantile(m.kept(e.series) - zero, QUANTILES)
            axes.plot(base, own, "o", markersize=4, color=palette.of(m), label=m.run.label)
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


POTENTIAL = Potential()
