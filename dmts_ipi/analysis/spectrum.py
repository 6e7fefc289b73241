"""Velocity spectra by element, streaming: what moves at which frequency, in kelvin.

By the Wiener-Khinchin theorem the averaged periodogram of the velocities is the Fourier transform
of their autocorrelation. It is scaled so that its integral over frequency is the kinetic
temperature of the element: a peak's area is the heat that it holds. Segments with a Hann window
overlap by half (Welch, IEEE Trans. Audio Electroacoust. 15, 70 (1967)).

i-PI writes at outer steps only, so frequencies above 1/(2 stride) fold back: f is seen at
|f - k / stride|. Velocities must be stored often enough for the fastest bond.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from ase.data import chemical_symbols

from .kinetic import TO_KELVIN

SEGMENT_PS = 4.0
SEGMENTS_WANTED = 4
FEWEST_FRAMES = 64
MOST_ATOMS = 2000
CM_PER_THZ = 33.35640951981521  # wavenumber of 1 THz, 1/cm
PEAK_FRACTION = 0.02  # of the largest peak
TOO_FAST = 1.25  # stretches of one kind spread by a tenth with their surroundings
PEAK_SIGMAS = 8.0  # from peak to valley: noise spans six over 500 bins


@dataclass(frozen=True)
class VelocitySpectrum:
    """One element. ``frequency_THz`` (m,); ``density_K_per_THz`` (m,) and its standard error.

    ``frame_fs``: time between velocities; ``segments``: how many were averaged (overlapping);
    ``peaks_THz``: maxima above noise, sharpened by a parabola.
    """

    element: str
    frequency_THz: np.ndarray
    density_K_per_THz: np.ndarray
    stderr_K_per_THz: np.ndarray
    frame_fs: float
    segments: int
    peaks_THz: tuple[float, ...]

    @property
    def resolution_THz(self) -> float:
        """Width of a bin."""
        return float(self.frequency_THz[1])

    @property
    def nyquist_THz(self) -> float:
        """Highest frequency that the stored velocities show."""
        return 500.0 / self.frame_fs


@dataclass
class SpectrumSampler:
    """Collects velocities.

    Args:
        numbers, masses_amu: (n,).
        frame_ps: time between frames.
        expected: frames that will come; sets the length of a segment.
        fixed: mask (n,) of atoms that are held and left out; None: no atom is.
    """

    numbers: np.ndarray
    masses_amu: np.ndarray
    frame_ps: float
    expected: int
    fixed: np.ndarray | None = None
    segments: int = 0
    _buffer: list[np.ndarray] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        total = self.expected * self.frame_ps
        length = min(SEGMENT_PS, total / SEGMENTS_WANTED)
        frames = int(length / self.frame_ps) if self.frame_ps > 0 else 0
        self.frames = 1 << max(0, frames.bit_length() - 1)
        self.possible = self.frames >= FEWEST_FRAMES
        numbers = np.asarray(self.numbers)
        moving = np.ones(len(numbers), bool) if self.fixed is None else ~self.fixed
        every = max(1, math.ceil(len(numbers) / MOST_ATOMS))
        self.elements = sorted(set(int(z) for z in numbers[moving]), reverse=True)
        # Molecules repeat in order: within each element, every k-th atom is a fair choice.
        chosen = [np.flatnonzero((numbers == z) & moving)[::every] for z in self.elements]
        self._atoms = np.concatenate(chosen)
        self._sizes = [len(c) for c in chosen]
        self._weight = np.sqrt(np.asarray(self.masses_amu, float)[self._atoms])[:, None]
        self._sum = np.zeros((len(self.elements), self.frames // 2 + 1))
        self._square = np.zeros_like(self._sum)

    def add(self, velocities: np.ndarray, follows: bool = True) -> None:
        """Adds consecutive frames (c, n, 3) A/fs; ``follows`` as in ``Displacements.add``."""
        if not self.possible:
            return
        if not follows:
            self._buffer = []
        weighted = velocities[:, self._atoms] * self._weight
        self._buffer.append(weighted.reshape(len(velocities), -1).astype(np.float32))
        if sum(len(b) for b in self._buffer) < self.frames:
            return
        x = np.concatenate(self._buffer)
        a = 0
        while a + self.frames <= len(x):
            self._segment(x[a : a + self.frames])
            a += self.frames // 2
        self._buffer = [x[a:].copy()]

    def _segment(self, x: np.ndarray) -> None:
        from scipy.fft import rfft

        window = np.hanning(self.frames + 1)[:-1].astype(np.float32)
        scale = 2 * self.frame_ps / float((window.astype(float) ** 2).sum()) * TO_KELVIN
        start = 0
        for k, size in enumerate(self._sizes):
            part = np.ascontiguousarray(x[:, 3 * start : 3 * (start + size)].T)
            spectrum = rfft(part * window, axis=1)
            power = (spectrum.real**2 + spectrum.imag**2).sum(axis=0, dtype=float)
            power *= scale / (3 * size)
            power[0] /= 2
            power[-1] /= 2
            self._sum[k] += power
            self._square[k] += power**2
            start += size
        self.segments += 1

    def results(self) -> list[VelocitySpectrum]:
        """One spectrum per element; empty with fewer than two segments."""
        if self.segments < 2:
            return []
        f = np.arange(self.frames // 2 + 1) / (self.frames * self.frame_ps)
        spectra = []
        for k, z in enumerate(self.elements):
            mean = self._sum[k] / self.segments
            spread = np.maximum(self._square[k] / self.segments - mean**2, 0.0)
            # Hann segments that overlap by half count as 0.95 independent ones each (Welch).
            error = np.sqrt(spread / max(0.95 * self.segments - 1, 1))
            spectra.append(
                VelocitySpectrum(
                    chemical_symbols[z],
                    f,
                    mean,
                    error,
                    1000 * self.frame_ps,
                    self.segments,
                    find_peaks(f, mean, error),
                )
            )
        return spectra


def find_peaks(
    frequency_THz: np.ndarray, density: np.ndarray, stderr: np.ndarray
) -> tuple[float, ...]:
    """Maxima of a spectrum that stand out of their surroundings and of the noise, in THz.

    The spectrum is first smoothed over three bins. A peak must rise by ``PEAK_FRACTION`` of the
    largest value, and by ``PEAK_SIGMAS`` standard errors, above both its sides.
    """
    import scipy.signal

    kernel = np.array([0.25, 0.5, 0.25])

    def smoothed(y: np.ndarray) -> np.ndarray:
        # The one-sided density has half bins at its ends: take the ones beside them.
        inside = np.pad(y[1:-1], 2, mode="edge")
        return np.convolve(inside, kernel, mode="valid")

    smooth, noise = smoothed(density), smoothed(stderr)
    wanted = np.maximum(PEAK_FRACTION * float(smooth.max()), PEAK_SIGMAS * noise)
    at, properties = scipy.signal.find_peaks(smooth, prominence=0)
    at = at[properties["prominences"] >= wanted[at]]
    peaks = []
    for k in at:
        left, top, right = smooth[k - 1 : k + 2]
        bend = left - 2 * top + right
        shift = 0.5 * (left - right) / bend if bend < 0 else 0.0
        peaks.append(float((k + shift) * frequency_THz[1]))
    return tuple(peaks)


@dataclass(frozen=True)
class ForeignPeak:
    """A peak that the reference does not have: where, its excess in K, and what lies there."""

    element: str
    frequency_THz: float
    excess_K: float
    meaning: str


def resonance_lines(outer_fs: float, up_to_THz: float) -> list[tuple[float, str]]:
    """Frequencies at which impulses every ``outer_fs`` act: m/(2 D), up to a limit.

    At 1/D they push with the same sign each time; a mode at half of it, whose half period is D,
    is driven parametrically (Ma, Izaguirre and Skeel, SIAM J. Sci. Comput. 24, 1951 (2003)).
    """
    half = 500.0 / outer_fs
    lines = []
    for m in range(1, int(up_to_THz / half + 1e-6) + 1):
        name = f"{m // 2}/outer step" if m % 2 == 0 else f"{m}/(2 outer steps)"
        lines.append((m * half, name))
    return lines


def fold(frequency_THz: float, frame_fs: float) -> float:
    """Where a frequency is seen in velocities that are ``frame_fs`` apart."""
    rate = 1000.0 / frame_fs
    f = frequency_THz % rate
    return min(f, rate - f)


def foreign_peaks(
    spectra: Sequence[VelocitySpectrum], reference: Sequence[VelocitySpectrum], outer_fs: float
) -> list[ForeignPeak]:
    """Peaks of ``spectra`` that have no counterpart in ``reference``.

    A counterpart lies within 3 % or two bins, folded as the coarser velocities would show it.
    Without one, the density must also exceed the reference's by four standard errors.
    """
    by_element = {s.element: s for s in reference}
    result = []
    for s in spectra:
        other = by_element.get(s.element)
        if other is None:
            continue
        near = 2 * max(s.resolution_THz, other.resolution_THz)
        known = [*other.peaks_THz, *(fold(p, s.frame_fs) for p in other.peaks_THz)]
        base = np.interp(s.frequency_THz, other.frequency_THz, other.density_K_per_THz)
        noise = np.interp(s.frequency_THz, other.frequency_THz, other.stderr_K_per_THz)
        for p in s.peaks_THz:
            if p > other.nyquist_THz - near or p < near:
                continue
            if any(abs(p - q) <= max(near, 0.03 * q) for q in known):
                continue
            k = int(np.argmin(np.abs(s.frequency_THz - p)))
            excess = s.density_K_per_THz[k] - base[k]
            if excess < 4 * math.hypot(s.stderr_K_per_THz[k], noise[k]):
                continue
            band = np.abs(s.frequency_THz - p) <= max(2 * s.resolution_THz, 0.03 * p)
            area = float((s.density_K_per_THz - base)[band].sum() * s.resolution_THz)
            result.append(ForeignPeak(s.element, p, area, _meaning(p, near, outer_fs, known, s)))
    return result


def too_fast_peaks(
    spectra: Sequence[VelocitySpectrum], fastest_THz: float, outer_fs: float
) -> list[ForeignPeak]:
    """Peaks above ``TOO_FAST`` times the fastest bond's frequency, where nothing can vibrate.

    For a run that has no reference: what the impulses make above the stretches (figure 4 of
    DMTS-NC, DOI 10.1021/acs.jctc.6c00653) shows without one. Frequencies fold downwards only, so
    these are no aliases.
    """
    result = []
    for s in spectra:
        known = [p for p in s.peaks_THz if p <= fastest_THz * TOO_FAST]
        near = 2 * s.resolution_THz
        for p in s.peaks_THz:
            if p <= fastest_THz * TOO_FAST:
                continue
            band = np.abs(s.frequency_THz - p) <= max(2 * s.resolution_THz, 0.03 * p)
            area = float(s.density_K_per_THz[band].sum() * s.resolution_THz)
            meaning = "above every bond, " + _meaning(p, near, outer_fs, known, s)
            result.append(ForeignPeak(s.element, p, area, meaning))
    return result


def _meaning(
    p: float, near: float, outer_fs: float, known: Sequence[float], s: VelocitySpectrum
) -> str:
    for f, name in resonance_lines(outer_fs, s.nyquist_THz):
        if abs(p - f) <= max(near, 0.03 * f):
            return f"at {name}"
    rate = 1000.0 / outer_fs
    for q in known:
        side = fold(abs(rate - q), s.frame_fs)
        if abs(p - side) <= max(near, 0.03 * side) and abs(side - q) > near:
            return f"side band 1/outer step - {q:.1f} THz"
    return "at no multiple of the outer step"
