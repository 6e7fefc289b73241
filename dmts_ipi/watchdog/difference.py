"""How far student and teacher disagree: figures of one structure, and their distribution."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase.data import chemical_symbols

LOWEST, HIGHEST, PER_DECADE = 1e-4, 1e3, 8  # eV/A: the distribution's first and last edge


@dataclass(frozen=True)
class Difference:
    """Teacher minus student at one structure, eV/A.

    ``largest`` is the length of the longest difference of one atom's force, ``atom`` that atom
    (from 0), ``rms`` the root mean square over components, ``rms_by_element`` the same by element.
    Where a force is not finite, ``largest`` is infinite and ``atom`` the first such atom.
    """

    largest: float
    atom: int
    rms: float
    rms_by_element: dict[str, float]


def difference(teacher: np.ndarray, student: np.ndarray, numbers: np.ndarray) -> Difference:
    """Figures of two sets of forces.

    Args:
        teacher: (n, 3) eV/A.
        student: (n, 3) eV/A.
        numbers: atomic numbers, (n,).
    """
    with np.errstate(invalid="ignore", over="ignore"):
        square = ((teacher - student) ** 2).sum(axis=1)
    bad = np.flatnonzero(~np.isfinite(square))
    if len(bad):
        return Difference(math.inf, int(bad[0]), math.inf, {})
    worst = int(square.argmax())
    elements = {
        symbol: math.sqrt(float(square[members].mean()) / 3)
        for symbol, members in _members(np.asarray(numbers, np.int64).tobytes())
    }
    return Difference(
        math.sqrt(square[worst]), worst, float(math.sqrt(square.mean() / 3)), elements
    )


@functools.lru_cache(maxsize=8)
def _members(numbers: bytes) -> list[tuple[str, np.ndarray]]:
    """Symbol and atoms of each element of int64 atomic numbers, by atomic number."""
    z = np.frombuffer(numbers, np.int64)
    return [(chemical_symbols[int(k)], np.flatnonzero(z == k)) for k in np.unique(z)]


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
    def from_record(cls, record: dict[str, Any]) -> Distribution:
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


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
