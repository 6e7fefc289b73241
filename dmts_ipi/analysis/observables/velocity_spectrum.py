"""Velocity spectra by element, and peaks that should not be there (``analysis.spectrum``)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dmts_ipi.analysis.comparison import Comparison
from dmts_ipi.analysis.figures import INK, Palette, Plot, legend_above, new_figure, to_svg
from dmts_ipi.analysis.measure import Measured
from dmts_ipi.analysis.run_data import RunInput
from dmts_ipi.analysis.spectrum import (
    CM_PER_THZ,
    ForeignPeak,
    SpectrumSampler,
    VelocitySpectrum,
    foreign_peaks,
    resonance_lines,
    too_fast_peaks,
)
from dmts_ipi.analysis.stream import Chunk
from dmts_ipi.analysis.verdict import AGREES, DEVIATES, Agreement

from .base import Observable, Sampler, Table, curve
from .temperature import TEMPERATURE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COARSEST_FRAMES_FS = 10.0  # where there is no X-H bond whose period decides
SHOWN_FRACTION = 3e-5  # of the largest density: below, a spectrum is not drawn
MARKED = 1.5  # height of the triangles, in units of the largest density


class _SpectrumFrames:
    """Makes a ``SpectrumSampler`` when the time between frames is known."""

    in_background = False

    def __init__(self, run: RunInput) -> None:
        self.run = run
        self.spectrum: SpectrumSampler | None = None
        self.velocities = 0

    def add(self, chunk: Chunk) -> None:
        run = self.run
        if run.n_beads > 1:
            return
        if self.spectrum is None and chunk.frame_ps > 0:
            self.spectrum = SpectrumSampler(
                *(run.numbers, run.masses_amu, chunk.frame_ps, chunk.expected, ~run.moving)
            )
        if chunk.velocities is not None and self.spectrum is not None:
            self.velocities += len(chunk)
            self.spectrum.add(chunk.velocities, chunk.follows)


@dataclass
class Spectra:
    """``spectra``: one for each element. ``foreign``: peaks that should not be there, found when
    the run is compared: those that the reference does not have, or those above every bond.
    """

    spectra: list[VelocitySpectrum]
    foreign: list[ForeignPeak] = field(default_factory=list)


class Spectrum(Observable[Spectra]):
    """Velocity spectra."""

    name = "velocity_spectrum"
    page_order = 40

    def sampler(self, run: RunInput) -> _SpectrumFrames:
        """Of evenly spaced frames with velocities."""
        return _SpectrumFrames(run)

    def measure(self, m: Measured, sampler: Sampler | None) -> Spectra | None:
        """Spectra, where velocities are close enough in time and enough of them."""
        assert isinstance(sampler, _SpectrumFrames)
        s = sampler.spectrum
        if s is None or not sampler.velocities:
            return None
        frame_fs = 1000 * s.frame_ps
        temperatures = TEMPERATURE.get(m)
        kinds = temperatures.bond_kinds if temperatures is not None else []
        period = min((k.period_fs for k in kinds), default=math.nan)
        limit = period / 2 if math.isfinite(period) else COARSEST_FRAMES_FS
        if frame_fs > limit:
            m.notes.append(
                f"velocities every {frame_fs:.3g} fs are too far apart for spectra, which need "
                f"{limit:.2g} fs or less: 'dmts-ipi init --frames-every-fs F'"
            )
            return None
        spectra = s.results()
        if not spectra:
            m.notes.append("too few frames for spectra")
            return None
        return Spectra(spectra)

    def against_theory(self, m: Measured, reference: Measured | None) -> list[Comparison]:
        """Peaks above the fastest X-H bond, of a run without a reference.

        Only where there are any: that none is there says little without a reference.
        """
        result, temperatures = self.of(m), TEMPERATURE.get(m)
        kinds = temperatures.bond_kinds if temperatures is not None else []
        fastest = max((1000 / k.period_fs for k in kinds), default=math.nan)
        if reference is not None or not math.isfinite(fastest):
            return []
        result.foreign = too_fast_peaks(result.spectra, fastest, m.run.outer_fs)
        comparisons = []
        for element in dict.fromkeys(p.element for p in result.foreign):
            strays = [p for p in result.foreign if p.element == element]
            name = f"unphysical peaks in the spectrum of {element}"
            verdict = Agreement(DEVIATES, _describe(strays))
            comparisons.append(_count(m, name, "the fastest bond", strays, verdict))
        return comparisons

    def against_reference(self, m: Measured, reference: Measured) -> list[Comparison]:
        """Peaks that the reference does not have, by element."""
        result, ref = self.of(m), self.of(reference)
        result.foreign = foreign_peaks(result.spectra, ref.spectra, m.run.outer_fs)
        known = {s.element for s in ref.spectra}
        comparisons = []
        for s in result.spectra:
            if s.element not in known:
                continue
            strays = [p for p in result.foreign if p.element == s.element]
            verdict = Agreement(AGREES, "every peak is in STS too")
            if strays:
                verdict = Agreement(DEVIATES, _describe(strays))
            name = f"foreign peaks in the spectrum of {s.element}"
            comparisons.append(_count(m, name, reference.run.name, strays, verdict))
        return comparisons

    def plots(self, measured: Sequence[Measured], palette: Palette) -> list[Plot]:
        """One figure for each element."""
        shown = self.shown(palette.reference_first(measured))
        elements = list(dict.fromkeys(s.element for _, r in shown for s in r.spectra))
        return [_plot(e, shown, palette) for e in elements]

    def record(self, m: Measured, arrays: bool) -> dict[str, Any]:
        """Peaks; the spectra where arrays are wanted."""
        result = self.get(m) or Spectra([])
        record: dict[str, Any] = {
            "spectra": [
                {
                    "element": s.element,
                    "frame_fs": s.frame_fs,
                    "segments": s.segments,
                    "resolution_THz": s.resolution_THz,
                    "nyquist_THz": s.nyquist_THz,
                    "peaks_THz": s.peaks_THz,
                }
                for s in result.spectra
            ],
            "foreign_peaks": [asdict(p) for p in result.foreign],
        }
        if arrays:
            record["velocity_spectra"] = {s.element: _columns(s) for s in result.spectra}
        return record

    def tables(self, measured: Sequence[Measured]) -> Iterable[Table]:
        """One table for each run and element."""
        for m, r in self.shown(measured):
            for s in r.spectra:
                yield curve(f"{m.run.file_name}-spectrum-{s.element}", _columns(s))


def _columns(s: VelocitySpectrum) -> dict[str, np.ndarray]:
    return {
        "frequency_THz": s.frequency_THz,
        "density_K_per_THz": s.density_K_per_THz,
        "stderr_K_per_THz": s.stderr_K_per_THz,
    }


def _describe(peaks: Sequence[ForeignPeak]) -> str:
    return "; ".join(f"{p.frequency_THz:.1f} THz, {p.meaning}" for p in peaks)


def _count(
    m: Measured, name: str, against: str, peaks: Sequence[ForeignPeak], verdict: Agreement
) -> Comparison:
    n = float(len(peaks))
    return Comparison(m.run.name, name, against, n, 0.0, 0.0, n, 0.0, "peaks", verdict)


def _plot(element: str, runs: Sequence[tuple[Measured, Spectra]], palette: Palette) -> Plot:
    shown = [(m, s) for m, r in runs for s in r.spectra if s.element == element]
    figure, axes = new_figure()
    top = max(float(s.density_K_per_THz.max()) for _, s in shown)
    end = max(_end(s, top) for _, s in shown)
    for m, s in shown:
        c, thick = palette.of(m), palette.is_reference(m)
        f, y = s.frequency_THz[1:-1], s.density_K_per_THz[1:-1]
        axes.plot(f, y, color=c, lw=3.0 if thick else 1.3, alpha=0.55 if thick else 1)
        axes.lines[-1].set_label(m.run.label)
        error = 2 * s.stderr_K_per_THz[1:-1]
        axes.fill_between(f, np.maximum(y - error, top * 1e-9), y + error, color=c, alpha=0.2, lw=0)
    axes.set_yscale("log")
    axes.set_xlim(0, end)
    axes.set_ylim(top * SHOWN_FRACTION, 2 * top)
    marked = _resonances(axes, [m for m, _ in shown], end)
    _wavenumbers(axes)
    axes.set_xlabel("frequency, THz (above: 1/cm)")
    axes.set_ylabel(f"{element}: K per THz")
    legend_above(axes, len(shown), lift=0.1)
    strays = [p for _, r in runs for p in r.foreign if p.element == element]
    for p in strays:
        axes.plot(p.frequency_THz, MARKED * top, "v", color=INK, markersize=6, clip_on=False)
    coarse = max(s.frame_fs for _, s in shown)
    sentences = [
        "The area below a peak is the temperature that it holds. Bands: two standard errors.",
        f"Velocities {coarse:.3g} fs apart or less show up to {500 / coarse:.0f} THz; what is "
        "faster folds back.",
    ]
    if marked:
        sentences.append("Vertical: multiples of 1/(2 outer steps), where impulses can drive.")
    where = "not in STS" if palette.reference is not None else "no bond vibrates so fast"
    sentences += [f"Triangle: {p.frequency_THz:.1f} THz, {where}, {p.meaning}." for p in strays]
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


def _resonances(axes: Axes, measured: Sequence[Measured], end: float) -> bool:
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


VELOCITY_SPECTRUM = Spectrum()
