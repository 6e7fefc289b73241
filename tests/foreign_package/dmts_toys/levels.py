"""A level scheme: the innermost model counts half in its own level, half in the one outside it."""

from __future__ import annotations

from collections.abc import Sequence

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.levels import Level


def halves(models: Sequence[str], steps: Sequence[int]) -> list[Level]:
    """Three levels: accurate - middle; middle - fast / 2; fast / 2. The first is sampled."""
    if len(models) != 3 or len(steps) != 3:
        raise InputError("levels", len(models), "the scheme toy-halves takes three models")
    accurate, middle, fast = models
    return [
        Level(steps[0], {accurate: 1.0, middle: -1.0}),
        Level(steps[1], {middle: 1.0, fast: -0.5}),
        Level(steps[2], {fast: 0.5}),
    ]
