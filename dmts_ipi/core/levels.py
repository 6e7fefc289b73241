"""Levels of multiple time stepping: which forces act in which level, by name.

A run has levels 0 (outermost) to L - 1 (innermost). Level k takes ``steps`` of its own steps in
each step of the level outside it; in it the forces of ``forces`` act, each with its weight. The
force of a model that appears with opposite weights in two levels is moved from one to the other,
and nothing is sampled of it: DMTS-NC is::

    levels:
    - {steps: 1, forces: {teacher: 1, student: -1}}
    - {steps: 6, forces: {student: 1}}

What is sampled is the sum of each force's weights over the levels (``sampled``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from .errors import InputError
from .registry import Registry

TEACHER, STUDENT = "teacher", "student"
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Level:
    """One level: ``steps`` in each step of the level outside it, and the weights of its forces."""

    steps: int
    forces: Mapping[str, float]


def n_inner(levels: Sequence[Level]) -> int:
    """Innermost steps per outer step."""
    return math.prod(level.steps for level in levels)


def force_names(levels: Sequence[Level]) -> tuple[str, ...]:
    """Every force that some level names, in the order in which they first appear."""
    return tuple(dict.fromkeys(name for level in levels for name in level.forces))


def weights_of(levels: Sequence[Level], name: str) -> tuple[float, ...]:
    """Weight of a force in each level: i-PI's ``mts_weights``."""
    return tuple(float(level.forces.get(name, 0.0)) for level in levels)


def totals(levels: Sequence[Level]) -> dict[str, float]:
    """Sum of the weights of each force over the levels: what is sampled."""
    return {name: math.fsum(weights_of(levels, name)) for name in force_names(levels)}


def sampled(weights: Mapping[str, float]) -> str:
    """In words: what is sampled if forces count by these sums of weights over all levels."""
    parts = [f"{w:g} {name}" for name, w in weights.items() if abs(w) > TOLERANCE]
    return " + ".join(parts) or "no force at all"


def reference_of(weights: Mapping[str, float]) -> str:
    """The one force that is sampled; empty where it is none, several, or not with weight one."""
    left = [name for name, w in weights.items() if abs(w) > TOLERANCE]
    return left[0] if len(left) == 1 and abs(weights[left[0]] - 1.0) <= TOLERANCE else ""


def comparisons(levels: Sequence[Level]) -> tuple[tuple[str, str], ...]:
    """(accurate, fast) of each level in which a force replaces another: what can be compared.

    In a level the accurate force has weight one and the fast one, which acts further inside,
    minus one: teacher and student; with three levels also student and the smaller student.
    """
    pairs = []
    for level in levels[:-1]:
        plus = [n for n, w in level.forces.items() if w > TOLERANCE]
        minus = [n for n, w in level.forces.items() if w < -TOLERANCE]
        if len(plus) == len(minus) == 1:
            pairs.append((plus[0], minus[0]))
    return tuple(pairs)


class LevelScheme(Protocol):
    """Makes the levels of a run from its models; a row of the registry ``SCHEMES``."""

    def __call__(self, models: Sequence[str], steps: Sequence[int]) -> list[Level]:
        """The levels.

        Args:
            models: names, from the most accurate to the fastest, one per level.
            steps: steps of each level in the one outside it; the first is 1.

        Raises:
            InputError: the two do not go together.
        """
        ...


def _check(models: Sequence[str], steps: Sequence[int]) -> None:
    if len(models) != len(steps):
        raise InputError(
            "levels", f"{len(models)} models, {len(steps)} levels", "give one model for each level"
        )
    for count in steps:
        if count < 1:
            raise InputError("levels: steps", count, "must be at least 1")


def difference(models: Sequence[str], steps: Sequence[int]) -> list[Level]:
    """DMTS: each model but the last is corrected for the one inside it; the first is sampled."""
    _check(models, steps)
    levels = []
    for k, (name, count) in enumerate(zip(models, steps, strict=True)):
        forces = {name: 1.0}
        if k + 1 < len(models):
            forces[models[k + 1]] = -1.0
        levels.append(Level(count, forces))
    return levels


def total(models: Sequence[str], steps: Sequence[int]) -> list[Level]:
    """Models that add up (trained together): each acts in its own level, their sum is sampled."""
    _check(models, steps)
    return [Level(n, {name: 1.0}) for name, n in zip(models, steps, strict=True)]


SCHEMES: Registry[LevelScheme] = Registry(
    "level_schemes", "level scheme", {"difference": difference, "sum": total}
)
