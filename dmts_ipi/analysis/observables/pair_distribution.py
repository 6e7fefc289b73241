"""Pair distribution functions g(r) and their first peaks (``analysis.rdf``)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import chemical_symbols

from dmts_ipi.analysis.comparison import Comparison, ratio
from dmts_ipi.analysis.figures import (
    INK,
    Palette,
    Plot,
    legend_above,
    new_figure,
    to_svg,
    two_panels,
)
from dmts_ipi.analysis.formatting import (
    Card,
    estimate_text,
    plus_minus,
    value_and_rest,
    with_dash,
)
from dmts_ipi.analysis.measure import Measured
from dmts_ipi.analysis.rdf import PairDistribution, PairHistogram, Peak, find_pair
from dmts_ipi.analysis.run_data import RunInput
from dmts_ipi.analysis.stream import Chunk
from dmts_ipi.core.statistics import Estimate

from .base import Column, Observable, Sampler, Table, curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_FRAMES = 1000  # g(r) is correlated over half a picosecond; 1000 are enough for 1 %
PEAK_TOLERANCE_PERCENT = 5.0
MOST_PLOTS = 6
SMALLEST_DIFFERENCE = 0.05  # half of the height of the panel below, at least


class _PairFrames:
    """Counts distances of evenly chosen frames, on the second thread."""

    in_background = True

    def __init__(self, run: RunInput) -> None:
        self.pairs = PairHistogram(run.numbers, run.positions, run.cell, run.pbc)
        self._every, self._seen = 1, 0

    def add(self, chunk: Chunk) -> None:
        if not self._seen:
            self._every = max(1, math.ceil(chunk.expected / MOST_FRAMES))
        for k in range((-self._seen) % self._every, len(chunk), self._every):
            self.pairs.add(chunk.positions[k], chunk.cells[k])
        self._seen += len(chunk)


class PairDistributions(Observable[list[PairDistribution]]):
    """g(r) of each pair of elements."""

    name = "pair_distribution"
    page_order = 30

    def sampler(self, run: RunInput) -> _PairFrames:
        """At most ``MOST_FRAMES`` frames."""
        return _PairFrames(run)

    def measure(self, m: Measured, sampler: Sampler | None) -> list[PairDistribution] | None:
        """One for each pair."""
        assert isinstance(sampler, _PairFrames)
        return sampler.pairs.results() or None

    def against_reference(self, m: Measured, reference: Measured) -> list[Comparison]:
        """Heights of first peaks, in percent."""
        comparisons = []
        for d in self.of(m):
            other = find_pair(self.of(reference), d.pair)
            if other is not None and d.peak is not None and other.peak is not None:
                comparisons += ratio(
                    *(m, reference, f"first {d.pair} peak", _height(d.peak), _height(other.peak)),
                    *(PEAK_TOLERANCE_PERCENT, ""),
                )
        return comparisons

    def plots(self, measured: Sequence[Measured], palette: Palette) -> list[Plot]:
        """One figure for each pair, with the differences from the reference below."""
        shown = self.shown(palette.reference_first(measured))
        names = list(dict.fromkeys(d.pair for _, each in shown for d in each))
        plots = []
        for name in names[:MOST_PLOTS]:
            of = [(m, d) for m, each in shown if (d := find_pair(each, name)) is not None]
            plots.append(_plot(name, of, palette))
        return plots

    def record(self, m: Measured, arrays: bool) -> dict[str, Any]:
        """First peaks; the functions where arrays are wanted."""
        each = self.get(m) or []
        record: dict[str, Any] = {
            "first_peaks": {d.pair: asdict(d.peak) for d in each if d.peak is not None}
        }
        if arrays:
            record["distributions"] = {
                d.pair: {"r_A": d.r_A, "g": d.g, "stderr": d.stderr, "periodic": d.periodic}
                for d in each
            }
        return record

    def tables(self, measured: Sequence[Measured]) -> Iterable[Table]:
        """One table for each run and pair."""
        for m, each in self.shown(measured):
            for d in each:
                columns = {"r_A": d.r_A, "g": d.g, "stderr": d.stderr}
                yield curve(f"{m.run.file_name}-rdf-{d.pair}", columns)

    def columns(self, measured: Sequence[Measured], reference: Measured | None) -> list[Column]:
        """Height of the first peak of the pair that stands for the structure."""
        pair = next((p for m, _ in self.shown(measured) if (p := headline_pair(m))), None)
        if pair is None:
            return []
        cells = {}
        for m, each in self.shown(measured):
            d = find_pair(each, pair)
            if d is not None and d.peak is not None:
                cells[m.run.name] = estimate_text(_height(d.peak))
        return [Column(f"{with_dash(pair)} peak", cells)]

    def cards(
        self, m: Measured, reference: Measured | None, comparisons: Sequence[Comparison]
    ) -> list[Card]:
        """The same peak against that of the reference."""
        pair = headline_pair(m)
        peak = next((c for c in comparisons if c.observable == f"first {pair} peak"), None)
        if pair is None or peak is None:
            return []
        text = plus_minus(peak.difference, peak.difference_stderr, "%", signed=True)
        detail = (
            f"height of the first {with_dash(pair)} peak against STS: "
            f"{peak.value:.2f}, {peak.expected:.2f}"
        )
        verdict = peak.verdict
        return [Card("Structure", *value_and_rest(text), detail, verdict.status, verdict.text)]


def headline_pair(m: Measured) -> str | None:
    """The pair that stands for the structure: of the most common heavy element with itself."""
    each = PAIR_DISTRIBUTION.get(m) or []
    heavy = [d for d in each if d.peak is not None and "H" not in d.pair.split("-")]
    alike = [d for d in heavy if len(set(d.pair.split("-"))) == 1] or heavy
    if not alike:
        return None
    symbols = [chemical_symbols[int(z)] for z in m.run.numbers]
    return max(alike, key=lambda d: symbols.count(d.pair.split("-")[0])).pair


def _height(peak: Peak) -> Estimate:
    return Estimate(peak.height, peak.stderr, math.nan, 0)


def _plot(pair: str, shown: Sequence[tuple[Measured, PairDistribution]], palette: Palette) -> Plot:
    base = next((d for m, d in shown if palette.is_reference(m)), None)
    compared = base is not None and base.periodic and len(shown) > 1
    figure, axes, below = two_panels() if compared else (*new_figure(), None)
    top, clipped = 0.0, False
    for m, d in shown:
        c, thick = palette.of(m), palette.is_reference(m)
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
        _differences(below, shown, base, palette)
    first = shown[0][1]
    axes.set_ylim(0, top or 1)
    axes.set_xlim(max(0.0, first.r_A[int(np.argmax(first.g > 0))] - 0.4), first.r_A[-1])
    label = with_dash(pair)
    (below or axes).set_xlabel("r, Å")
    axes.set_ylabel(f"g(r) {label}" if first.periodic else f"density of {label} distances, 1/Å")
    if first.periodic:
        axes.axhline(1, color=INK, alpha=0.25, linewidth=0.7)
    legend_above(axes, len(shown))
    sentences = ["Bands: two standard errors from blocks."]
    if not any(np.isfinite(d.stderr).all() for _, d in shown):
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
    shown: Sequence[tuple[Measured, PairDistribution]],
    base: PairDistribution,
    palette: Palette,
) -> None:
    """g(r) minus that of the reference, scaled to what happens between molecules."""
    between = (base.outside >= 0.5 * base.g) & (base.g > 0)
    if not between.any():
        between = base.g > 0
    limit = SMALLEST_DIFFERENCE
    for m, d in shown:
        if d is base or d.g.shape != base.g.shape:
            continue
        difference, error = d.g - base.g, np.hypot(d.stderr, base.stderr)
        axes.plot(d.r_A, difference, color=palette.of(m), lw=1.3)
        _band(axes, d.r_A, difference, error, palette.of(m))
        reach = np.abs(difference) + 2 * np.nan_to_num(error)
        limit = max(limit, 1.1 * float(reach[between].max()))
    axes.axhline(0, color=INK, alpha=0.25, linewidth=0.7)
    axes.set_ylim(-limit, limit)
    axes.set_ylabel("Δg")


PAIR_DISTRIBUTION = PairDistributions()
