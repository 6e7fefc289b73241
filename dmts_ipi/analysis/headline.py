"""What the report says first: one sentence, the cards, and how much longer to run."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .comparison import Comparison
from .formatting import Card, with_dash
from .measure import Measured
from .observables.registry import page_order
from .observables.speed import speedup
from .verdict import DEVIATES, SHORT, about_ps


def main_run(measured: Sequence[Measured], reference: Measured | None) -> Measured:
    """The run that the headline is about: the fastest that is not the reference."""
    others = [m for m in measured if m is not reference] or list(measured)
    timed = [m for m in others if math.isfinite(m.run.ns_per_day)]
    return max(timed, key=lambda m: m.run.ns_per_day) if timed else others[0]


def cards(
    measured: Sequence[Measured], reference: Measured | None, comparisons: Sequence[Comparison]
) -> list[Card]:
    """Headline cards of the main run."""
    m = main_run(measured, reference)
    mine = [c for c in comparisons if c.run == m.run.name]
    rows = [o for o in page_order() if o.name in m.results]
    return [card for o in rows for card in o.cards(m, reference, mine)]


def summary_sentence(
    measured: Sequence[Measured], reference: Measured | None, comparisons: Sequence[Comparison]
) -> str:
    """How fast the main run is, and whether the physics is the same; then the other runs.

    It counts every comparison of the table, so that it can't contradict it.
    """
    m = main_run(measured, reference)
    mine = [c for c in comparisons if c.run == m.run.name]
    others = [c for c in comparisons if c.run != m.run.name and c.verdict.status == DEVIATES]
    wrong = [c for c in mine if c.verdict.status == DEVIATES]
    short = [c for c in mine if c.verdict.status == SHORT]
    sentence = _start(m, reference)
    if wrong:
        sentence += f", but it deviates in: {_names(wrong)}."
    elif short:
        sentence += (
            f". Nothing that was measured of it deviates; {len(short)} of {len(mine)} "
            "comparisons need a longer run to be settled."
        )
    elif reference is not None and m is not reference:
        sentence += ", and temperatures, energy and structure agree within the errors."
    else:
        sentence += ", and it agrees with theory within the errors."
    for name in dict.fromkeys(c.run for c in others):
        sentence += f" {name} deviates in: {_names([c for c in others if c.run == name])}."
    return sentence


def _start(m: Measured, reference: Measured | None) -> str:
    ratio = speedup(m, reference) if m is not reference else math.nan
    if math.isfinite(ratio):
        relation = (
            f"{ratio:.1f} times faster than" if ratio >= 1 else f"at {ratio:.2g} of the speed of"
        )
        return f"{m.run.label} ran {relation} single time stepping with the teacher"
    if math.isfinite(m.run.ns_per_day):
        return f"{m.run.label} ran at {m.run.ns_per_day:.3g} ns/day"
    return f"{m.run.label} ran for {m.time_ps[-1]:.3g} ps"


def _names(comparisons: Sequence[Comparison]) -> str:
    return with_dash(", ".join(dict.fromkeys(c.observable for c in comparisons)))


def settling(measured: Sequence[Measured], comparisons: Sequence[Comparison]) -> str:
    """How long each run would have to be for everything to be told, after equilibration."""
    parts = []
    for m in measured:
        factors = [c.verdict.longer for c in comparisons if c.run == m.run.name]
        known = [f for f in factors if math.isfinite(f)]
        if known:
            parts.append(f"{m.run.name} {about_ps(max(known) * m.kept_ps)} (now {m.kept_ps:.3g})")
    if not parts:
        return ""
    return "To settle all that is open at the present error bars: " + ", ".join(parts) + "."
