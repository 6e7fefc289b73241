"""Two models at one structure: how far their forces differ, and how such differences are spread.

The watchdog compares an accurate and a fast model at the reference's structures; judges of
verdicts (``core.verdicts``) see each comparison, and reports show the distributions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Pair = tuple[str, str]  # names of an accurate and of a fast model, as in core.levels.comparisons
LOWEST, HIGHEST, PER_DECADE = 1e-4, 1e3, 8  # eV/A: the distribution's first and last edge


@dataclass(frozen=True)
class Difference:
    """Accurate minus fast forces at one structure, eV/A.

    ``largest`` is the length of the longest difference of one atom's force, ``atom`` that atom
    (from 0), ``rms`` the root mean square over components. Where a force is not finite, both
    figures are infinite and ``atom`` is the first such atom.
    """

    largest: float
    atom: int
    rms: float


def difference(accurate: np.ndarray, fast: np.ndarray) -> Difference:
    """Figures of two sets of forces, each (n, 3) in eV/A."""
    with np.errstate(invalid="ignore", over="ignore"):
        square = ((accurate - fast) ** 2).sum(axis=1)
    bad = np.flatnonzero(~np.isfinite(square))
    if len(bad):
        return Difference(math.inf, int(bad[0]), math.inf)
    worst = int(square.argmax())
    return Difference(math.sqrt(square[worst]), worst, float(math.sqrt(square.mean() / 3)))


@dataclass(frozen=True)
class ForceComparison:
    """Forces of two models at one structure of the reference.

    Attributes:
        accurate: name of the more accurate model.
        fast: name of the faster one.
        difference: accurate minus fast.
        reference: the model whose evaluation this structure is, such as the teacher.
        connection: of the reference's driver to i-PI, from 1.
        evaluation: of the reference in this connection, from 1.
        pid: process of the reference's driver.
        time_unix_s: when the reference was evaluated.
        energy_eV: of the reference; None where it has none.
        positions_A: (n, 3); None where the difference is unremarkable.
        cell_A: (3, 3), rows; None likewise.
        forces_eV_per_A: (n, 3) by model, the reference's first; empty likewise.
    """

    accurate: str
    fast: str
    difference: Difference
    reference: str
    connection: int
    evaluation: int
    pid: int
    time_unix_s: float
    energy_eV: float | None
    positions_A: np.ndarray | None = None
    cell_A: np.ndarray | None = None
    forces_eV_per_A: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def pair(self) -> Pair:
        """Names of the two models: (accurate, fast)."""
        return self.accurate, self.fast


@dataclass
class Distribution:
    """Running histogram of a positive figure, in bins of equal ratio; the ends are open."""

    count: int = 0
    last: float = math.nan
    largest: float = 0.0
    bins: list[int] = field(
        default_factory=lambda: [0] * round(PER_DECADE * math.log10(HIGHEST / LOWEST))
    )

    def add(self, value: float) -> None:
        """Takes one value; infinite ones fall into the last bin."""
        self.count += 1
        self.last, self.largest = value, max(self.largest, value)
        place = PER_DECADE * math.log10(min(max(value, LOWEST), HIGHEST) / LOWEST)
        self.bins[min(int(place), len(self.bins) - 1)] += 1

    def quantile(self, p: float) -> float:
        """Upper edge of the bin below which a share ``p`` of the values lies; NaN without any."""
        if not self.count:
            return math.nan
        reached = np.cumsum(self.bins)
        k = int(np.searchsorted(reached, p * self.count))
        return float(min(LOWEST * 10 ** ((k + 1) / PER_DECADE), self.largest))

    def record(self) -> dict[str, Any]:
        """As JSON takes it; ``from_record`` is the inverse."""
        return {
            "count": self.count,
            "last": self.last if math.isfinite(self.last) else None,
            "largest": self.largest if math.isfinite(self.largest) else None,
            "median": _finite(self.quantile(0.5)),
            "p99": _finite(self.quantile(0.99)),
            "lowest_edge": LOWEST,
            "bins_per_decade": PER_DECADE,
            "bins": list(self.bins),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Distribution:
        """A distribution that goes on; a record of other bins starts anew."""
        new = cls()
        bins = record.get("bins", [])
        if len(bins) == len(new.bins) and record.get("bins_per_decade") == PER_DECADE:
            new.bins = [int(n) for n in bins]
            new.count = sum(new.bins)
            largest, last = record.get("largest"), record.get("last")
            new.largest = math.inf if largest is None and new.count else float(largest or 0.0)
            new.last = math.nan if last is None else float(last)
        return new


@dataclass
class DifferenceStatistics:
    """Distributions of ``Difference.largest`` and ``Difference.rms`` over a run."""

    largest: Distribution = field(default_factory=Distribution)
    rms: Distribution = field(default_factory=Distribution)

    def add(self, difference: Difference) -> None:
        """Takes the figures of one structure."""
        self.largest.add(difference.largest)
        self.rms.add(difference.rms)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
