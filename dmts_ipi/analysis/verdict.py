"""Whether an observable agrees with its reference within the error, and how much longer to run."""

from __future__ import annotations

import math
from dataclasses import dataclass

AGREES, DEVIATES, SHORT = "agrees", "deviates", "too short"


@dataclass(frozen=True)
class Agreement:
    """``status`` is ``agrees``, ``deviates`` or ``too short``; ``text`` says why, in words.

    ``longer`` is by what factor the run must be longer for two standard errors to fall below
    the tolerance (NaN where that is not known or not needed).
    """

    status: str
    text: str
    longer: float = math.nan


def judge(
    difference: float, stderr: float, tolerance: float, unit: str, kept_ps: float
) -> Agreement:
    """Deviates where the difference exceeds both the tolerance and three standard errors.

    Too short to tell where two standard errors exceed the tolerance, or where a difference above
    the tolerance lies between two and three standard errors: with a dozen comparisons in a report
    such a one turns up by chance. The error falls as the square root of the length.
    """
    if not math.isfinite(difference) or not math.isfinite(stderr):
        return Agreement(SHORT, "too short for an error bar")
    size = abs(difference)
    if size > max(tolerance, 3 * stderr):
        how = f"{size / stderr:.1f} standard errors" if stderr else f"{difference:+.2g} {unit}"
        return Agreement(DEVIATES, f"off by {how}")
    if size > max(tolerance, 2 * stderr):
        longer = max(1.5, (3 * stderr / size) ** 2, (2 * stderr / tolerance) ** 2)
        text = f"{size / stderr:.1f} standard errors off; {about_ps(longer * kept_ps)} would tell"
        return Agreement(SHORT, text, longer)
    if 2 * stderr > tolerance:
        longer = (2 * stderr / tolerance) ** 2
        text = f"consistent so far; {about_ps(longer * kept_ps)} would settle {tolerance:g} {unit}"
        return Agreement(SHORT, text, longer)
    inside = "2 standard errors" if size <= 2 * stderr else f"{tolerance:g} {unit}"
    return Agreement(AGREES, f"within {inside}")


def about_ps(ps: float) -> str:
    """A time in words, two digits, rounded up."""
    digits = 10 ** max(0, math.floor(math.log10(ps)) - 1) if ps > 0 else 1
    rounded = math.ceil(ps / digits) * digits
    return f"about {rounded / 1000:.2g} ns" if rounded >= 1000 else f"about {rounded:.0f} ps"
