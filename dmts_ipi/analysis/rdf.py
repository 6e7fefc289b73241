"""Pair distribution functions of every pair of elements, streaming, in any cell.

In a periodic cell: g_ab(r) = V n_ab(r) / (N_a N_b 4 pi r^2 dr), with N_a (N_a - 1) / 2 unordered
pairs for a = b (Allen and Tildesley, Computer Simulation of Liquids, section 2.6; the volume is
that of each frame). The range ends at half the smallest height of the cell, so that no atom meets
its own image. Without a periodic cell there is no density to divide by: the histogram is then the
probability density of the pair distances, in 1/A.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from ase.data import chemical_symbols

from dmts_ipi.core.neighbours import neighbour_pairs
from dmts_ipi.core.statistics import mean_stderr

from .fragments import fragments

BIN_A = 0.05
RANGE_A = 8.0
MIN_BLOCKS, MAX_BLOCKS = 4, 20
PEAK_HALF_WIDTH_A = 0.125


@dataclass(frozen=True)
class Peak:
    """First maximum between molecules: position in A, height and its standard error."""

    position_A: float
    height: float
    stderr: float
    independent: float


@dataclass(frozen=True)
class PairDistribution:
    """Distribution of one pair of elements.

    ``r_A`` (m,) bin centres; ``g`` (m,), without unit where ``periodic``, else 1/A; ``stderr``
    (m,) from blocks, NaN where there are too few frames; ``outside`` (m,) the part from pairs of
    different molecules (in a crystal each atom counts as one).
    ``peak`` is None where there is no peak between molecules.
    """

    pair: str
    r_A: np.ndarray
    g: np.ndarray
    stderr: np.ndarray
    outside: np.ndarray
    frames: int
    periodic: bool
    peak: Peak | None


def cell_heights(cell: np.ndarray) -> np.ndarray:
    """Perpendicular heights of a cell (3, 3), rows, in A."""
    return 1.0 / np.linalg.norm(np.linalg.inv(np.asarray(cell, float)).T, axis=1)


@dataclass
class PairHistogram:
    """Counts the distances of one frame after another.

    Args:
        numbers: (n,) atomic numbers.
        positions: (n, 3) A, of the first structure: defines the molecules.
        cell: (3, 3) A, rows.
        pbc: (3,) bool.
        range_A: longest distance; shortened to half of the smallest height of the cell.
        bin_A: width of a bin.
    """

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    range_A: float = RANGE_A
    bin_A: float = BIN_A
    _all: list[np.ndarray] = field(default_factory=list, repr=False)
    _outside: list[np.ndarray] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self.numbers = np.asarray(self.numbers)
        self.periodic = bool(np.all(self.pbc))
        reach = self.range_A
        if self.periodic:
            reach = min(reach, 0.5 * float(cell_heights(self.cell).min()))
        self.bins = max(1, int(reach / self.bin_A))
        self.range_A = self.bins * self.bin_A
        self.elements = sorted(set(int(z) for z in self.numbers), reverse=True)
        self._type = np.array([self.elements.index(int(z)) for z in self.numbers])
        self.counts = [int((self._type == k).sum()) for k in range(len(self.elements))]
        table = np.zeros((len(self.elements),) * 2, dtype=np.int64)
        self.pairs: list[tuple[int, int]] = []
        for a in range(len(self.elements)):
            for b in range(a, len(self.elements)):
                table[a, b] = table[b, a] = len(self.pairs)
                self.pairs.append((a, b))
        self._table = table
        self._molecule = fragments(self.numbers, self.positions, self.cell, self.pbc).label

    def add(self, positions: np.ndarray, cell: np.ndarray) -> None:
        """Adds a frame: positions (n, 3) A in any image, cell (3, 3) A."""
        i, j, s = neighbour_pairs(positions, cell, self.pbc, self.range_A, full=False)
        d = np.linalg.norm(positions[j] - positions[i] + s @ np.asarray(cell, float), axis=1)
        bin_ = (d / self.bin_A).astype(np.int64)
        kind = self._table[self._type[i], self._type[j]]
        inside = bin_ < self.bins
        key = kind * self.bins + bin_
        edges = np.arange(self.bins + 1) * self.bin_A
        shell = 4.0 / 3.0 * math.pi * np.diff(edges**3)
        total = len(self.pairs) * self.bins
        other = inside & (self._molecule[i] != self._molecule[j])
        volume = abs(float(np.linalg.det(cell))) if self.periodic else 1.0
        for store, keep in ((self._all, inside), (self._outside, other)):
            counts = np.bincount(key[keep], minlength=total).reshape(len(self.pairs), -1)
            store.append((counts * self._scale(shell, volume)).astype(np.float32))

    def _scale(self, shell: np.ndarray, volume: float) -> np.ndarray:
        rows = []
        for a, b in self.pairs:
            na, nb = self.counts[a], self.counts[b]
            number = na * (na - 1) / 2 if a == b else na * nb
            unit = volume / shell if self.periodic else np.full(len(shell), 1.0 / self.bin_A)
            rows.append(unit / number if number else np.zeros(len(shell)))
        return np.array(rows)

    @property
    def frames(self) -> int:
        """Frames counted so far."""
        return len(self._all)

    def results(self) -> list[PairDistribution]:
        """One distribution per pair of elements, heavy elements first."""
        if not self._all:
            return []
        everything, outside = np.array(self._all, float), np.array(self._outside, float)
        r = (np.arange(self.bins) + 0.5) * self.bin_A
        distributions = []
        for k, (a, b) in enumerate(self.pairs):
            if a == b and self.counts[a] < 2:
                continue
            name = f"{chemical_symbols[self.elements[a]]}-{chemical_symbols[self.elements[b]]}"
            peak = first_peak(r, outside[:, k]) if self.periodic else None
            blocks = MIN_BLOCKS if peak is None else peak.independent
            distributions.append(
                PairDistribution(
                    name,
                    r,
                    everything[:, k].mean(axis=0),
                    block_stderr(everything[:, k], blocks),
                    outside[:, k].mean(axis=0),
                    self.frames,
                    self.periodic,
                    peak,
                )
            )
        return distributions


def block_stderr(frames: np.ndarray, independent: float) -> np.ndarray:
    """Standard error (m,) of the mean of frames (n, m), from consecutive blocks.

    There are as many blocks as independent samples, between ``MIN_BLOCKS`` and ``MAX_BLOCKS``;
    NaN with fewer than two frames per block, or where the number is not known.
    """
    n = len(frames)
    if not math.isfinite(independent) or independent < MIN_BLOCKS or n < 2 * MIN_BLOCKS:
        return np.full(frames.shape[1], math.nan)
    blocks = int(min(MAX_BLOCKS, independent, n // 2))
    size = n // blocks
    means = frames[n - blocks * size :].reshape(blocks, size, -1).mean(axis=1)
    return means.std(axis=0, ddof=1) / math.sqrt(blocks)


def first_peak(r: np.ndarray, frames: np.ndarray) -> Peak | None:
    """First peak of the mean of ``frames`` (n, m) at ``r`` (m,) A, by a parabola at its top.

    Its error is that of the mean of g within ``PEAK_HALF_WIDTH_A``, as a correlated series over
    frames. None where no value is clearly above one, or the peak touches the end of the range.
    """
    g = frames.mean(axis=0)
    smooth = np.convolve(np.pad(g, 2, mode="edge"), np.array([1, 2, 3, 2, 1]) / 9, mode="valid")
    width = max(2, round(0.3 / (r[1] - r[0])))
    top = next(
        (
            k
            for k in range(2, len(g) - 2)
            if smooth[k] > 1.1 and smooth[k] >= smooth[max(0, k - width) : k + width + 1].max()
        ),
        None,
    )
    if top is None or top + width >= len(g):
        return None
    reach = max(2, round(PEAK_HALF_WIDTH_A / (r[1] - r[0])))
    near = np.abs(np.arange(len(r)) - top) <= reach
    c2, c1, c0 = np.polyfit(r[near] - r[top], g[near], 2)
    if c2 < 0 and abs(c1 / (2 * c2)) <= reach * (r[1] - r[0]):
        position, height = r[top] - c1 / (2 * c2), c0 - c1**2 / (4 * c2)
    else:
        position, height = r[top], g[top]
    estimate = mean_stderr(frames[:, near].mean(axis=1))
    return Peak(float(position), float(height), estimate.stderr, estimate.independent)


def find_pair(distributions: Sequence[PairDistribution], pair: str) -> PairDistribution | None:
    """The distribution of a pair such as ``O-H``, or None."""
    return next((d for d in distributions if d.pair == pair), None)
