"""Cells of one system and integrator joined over their seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from .cell import Cell, Result
from .stability import SO_FAR, STABLE, UNKNOWN

Value = tuple[float, float]
NONE: Value = (math.nan, math.nan)


@dataclass(frozen=True)
class Pool:
    """Results of one system and integrator, one for each seed that has begun."""

    results: tuple[Result, ...]

    @property
    def cell(self) -> Cell:
        """Of the first seed."""
        return self.results[0].cell

    @property
    def ns_per_day(self) -> float:
        """Median over rounds and seeds."""
        speeds = [v for r in self.results for v in r.speeds.values()]
        return median(speeds) if speeds else math.nan

    @property
    def ps(self) -> float:
        """Simulated time of all seeds."""
        return sum(r.ps for r in self.results)

    @property
    def rewinds(self) -> int:
        """Of all seeds."""
        return sum(r.rewinds for r in self.results)

    @property
    def instabilities(self) -> str:
        """``no``, or the reasons of the seeds that were not stable."""
        words = [r.stability.word for r in self.results if r.stability.word != UNKNOWN]
        bad = [w for w in dict.fromkeys(words) if w not in (STABLE, SO_FAR)]
        if not words:
            return "-"
        if not bad:
            return SO_FAR if SO_FAR in words else STABLE
        hit = sum(w not in (STABLE, SO_FAR) for w in words)
        return ", ".join(bad) + (f" ({hit} of {len(words)} seeds)" if len(words) > 1 else "")

    @property
    def stable(self) -> bool:
        """Whether every seed that has figures is stable."""
        return self.instabilities in (STABLE, SO_FAR)

    @property
    def potential_meV(self) -> Value:
        """Mean potential energy, meV/atom."""
        return self.mean(lambda r: r.potential_meV)

    @property
    def diffusion(self) -> Value:
        """Of molecules, A^2/ps."""
        return self.mean(lambda r: r.diffusion_A2_per_ps or NONE)

    def kelvin(self, name: str = "atoms") -> Value:
        """Mean kinetic temperature."""
        return self.mean(lambda r: r.kelvin.get(name, (math.nan,) * 3)[:2])

    def expected_K(self, name: str = "atoms") -> float:
        """What it should be."""
        return self.mean(lambda r: (r.kelvin.get(name, (math.nan,) * 3)[2], 0.0))[0]

    def std(self, get: Callable[[Result], float]) -> float:
        """Standard deviation over time, averaged over seeds."""
        return self.mean(lambda r: (get(r), 0.0))[0]

    def mean(self, get: Callable[[Result], Sequence[float]]) -> Value:
        """Mean and standard error over seeds, weighted by time; seeds without a figure left out.

        The standard error is that of the seeds' own errors: each knows its correlation.
        """
        values = [(*tuple(get(r))[:2], r.ps) for r in self.results if r.ps > 0]
        values = [f for f in values if math.isfinite(f[0])]
        total = sum(ps for *_, ps in values)
        if not total:
            return NONE
        mean = sum(v * ps for v, _, ps in values) / total
        return mean, math.sqrt(sum((e * ps) ** 2 for _, e, ps in values)) / total


def pools(results: Sequence[Result]) -> dict[tuple[str, str], Pool]:
    """By (system, label), in the order of the results; what has not begun is left out."""
    grouped: dict[tuple[str, str], list[Result]] = {}
    for r in results:
        if r.exit != "pending":
            grouped.setdefault((r.cell.system, r.cell.label), []).append(r)
    return {k: Pool(tuple(v)) for k, v in grouped.items()}


def ratio(pool: Pool, reference: Pool | None) -> tuple[float, float, float]:
    """Speed over that of the reference: median, smallest and largest over rounds and seeds.

    Each round is divided by the same round of the same seed, so that what else the machine does
    falls out; NaN without a round that both have.
    """
    if reference is None:
        return math.nan, math.nan, math.nan
    others = {r.cell.seed: r.speeds for r in reference.results}
    ratios = [
        speed / others[r.cell.seed][turn]
        for r in pool.results
        for turn, speed in r.speeds.items()
        if turn in others.get(r.cell.seed, {})
    ]
    return (median(ratios), min(ratios), max(ratios)) if ratios else (math.nan,) * 3


def reference_of(pooled: dict[tuple[str, str], Pool], system: str) -> Pool | None:
    """The first STS of a system."""
    return next((p for (s, _), p in pooled.items() if s == system and p.cell.kind == "sts"), None)


def best(pooled: dict[tuple[str, str], Pool], system: str, kinds: Sequence[str]) -> Pool | None:
    """The fastest stable integrator of a kind."""
    known = [
        p
        for (s, _), p in pooled.items()
        if s == system and p.cell.kind in kinds and p.stable and math.isfinite(p.ns_per_day)
    ]
    return max(known, key=lambda p: p.ns_per_day, default=None)
