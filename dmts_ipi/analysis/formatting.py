"""Numbers and verdicts as text, shared by the page and the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dmts_ipi.core.statistics import Estimate

from .comparison import Comparison
from .verdict import AGREES, DEVIATES, SHORT

MINUS = "−"
NOTHING = "–"
MAX_DECIMALS = 3
STATUS_TEXT = {AGREES: "agrees", DEVIATES: "deviates", SHORT: "too short to tell"}
STATUS_CLASS = {AGREES: "agrees", DEVIATES: "deviates", SHORT: "short"}


@dataclass(frozen=True)
class Card:
    """A headline: what, value, unit or error, one line of detail, and a verdict or None."""

    what: str
    value: str
    small: str
    detail: str
    status: str | None
    verdict: str

    @property
    def status_class(self) -> str:
        """CSS class of the verdict; empty without one."""
        return STATUS_CLASS[self.status] if self.status is not None else ""


def plus_minus(mean: float, stderr: float, unit: str = "", signed: bool = False) -> str:
    """``299.1 ± 1.0 K``: two digits of the error decide; without an error, four digits."""
    tail = f" {unit}" if unit else ""
    if not math.isfinite(mean):
        return NOTHING
    sign = "+" if signed else ""
    if not math.isfinite(stderr):
        return f"{mean:{sign}.4g}{tail}".replace("-", MINUS)
    if stderr == 0:
        return f"{mean:{sign}.5g}{tail}".replace("-", MINUS)
    digits = 0 if stderr >= 9.5 else min(MAX_DECIMALS, 1 - math.floor(math.log10(stderr)))
    return f"{mean:{sign}.{digits}f} ± {stderr:.{digits}f}{tail}".replace("-", MINUS)


def estimate_text(e: Estimate, unit: str = "", signed: bool = False) -> str:
    """An estimate by ``plus_minus``."""
    return plus_minus(e.mean, e.stderr, unit, signed)


def value_and_rest(text: str) -> tuple[str, str]:
    """``299.1 ± 1.0 K`` as ``299.1`` and ``± 1.0 K``."""
    value, _, rest = text.partition(" ")
    return value, rest


def expected_text(comparison: Comparison) -> str:
    """The expected value with as many digits as make sense; 0 where it is the zero of the scale."""
    value = comparison.expected - comparison.shown_from
    if comparison.shown_from and value == 0:
        return "0"
    return (f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}").replace("-", MINUS)


def with_dash(pair: str) -> str:
    """A pair of elements, or text that holds one, as typeset: ``O–H``."""
    return pair.replace("-", "–")


def status_counts(comparisons: Sequence[Comparison]) -> list[tuple[str, str]]:
    """(CSS class, such as "3 agrees") of each status."""
    return [
        (STATUS_CLASS[s], f"{sum(c.verdict.status == s for c in comparisons)} {text}")
        for s, text in STATUS_TEXT.items()
    ]
