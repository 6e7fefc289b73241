"""Numbers and verdicts in words, shared by the page and the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .compare import AGREES, DEVIATES, SHORT, Comparison, headline_pair, speedup
from .measure import Measured
from .verdict import about_ps

MINUS = "−"
MAX_DECIMALS = 3


def plus_minus(mean: float, stderr: float, unit: str = "", signed: bool = False) -> str:
    """``299.1 ± 1.0 K``: two digits of the error decide; without an error, four digits."""
    tail = f" {unit}" if unit else ""
    if not math.isfinite(mean):
        return "–"
    sign = "+" if signed else ""
    if not math.isfinite(stderr):
        return f"{mean:{sign}.4g}{tail}".replace("-", MINUS)
    if stderr == 0:
        return f"{mean:{sign}.5g}{tail}".replace("-", MINUS)
    digits = 0 if stderr >= 9.5 else min(MAX_DECIMALS, 1 - math.floor(math.log10(stderr)))
    return f"{mean:{sign}.{digits}f} ± {stderr:.{digits}f}{tail}".replace("-", MINUS)


def expected_text(comparison: Comparison) -> str:
    """The expected value with as many digits as make sense."""
    value = comparison.expected
    return (f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}").replace("-", MINUS)


@dataclass(frozen=True)
class Card:
    """A headline: what, value, unit or error, one line of detail, and a verdict or None."""

    what: str
    value: str
    small: str
    detail: str
    status: str | None
    verdict: str


def main_run(measured: Sequence[Measured], reference: Measured | None) -> Measured:
    """The run that the headline is about: the fastest that is not the reference."""
    others = [m for m in measured if m is not reference] or list(measured)
    timed = [m for m in others if math.isfinite(m.run.ns_per_day)]
    return max(timed, key=lambda m: m.run.ns_per_day) if timed else others[0]


def _split(text: str) -> tuple[str, str]:
    value, _, rest = text.partition(" ")
    return value, rest


def cards(
    measured: Sequence[Measured], reference: Measured | None, comparisons: Sequence[Comparison]
) -> list[Card]:
    """Headline cards: speed, temperature, bonds, structure."""
    m = main_run(measured, reference)
    mine = [c for c in comparisons if c.run == m.run.name]
    found = []
    ratio = speedup(m, reference) if m is not reference else math.nan
    if math.isfinite(ratio) and reference is not None:
        detail = f"{m.run.ns_per_day:.3g} against {reference.run.ns_per_day:.3g} ns/day"
        found.append(Card("Speed over STS", f"{ratio:.1f}×", "", detail, None, ""))
    elif math.isfinite(m.run.ns_per_day):
        found.append(Card("Speed", f"{m.run.ns_per_day:.3g}", "ns/day", m.run.label, None, ""))
    bond = next((k.name for k in m.bond_kinds), None)
    for name, what in (("atoms", "Temperature"), (bond, f"Temperature of {_dash(bond)} bonds")):
        if name is not None:
            found.append(_temperature_card(name, what, m, reference, mine))
    pair = headline_pair(m)
    peak = next((c for c in mine if c.observable == f"first {pair} peak"), None)
    if peak is not None:
        value = plus_minus(peak.difference, peak.difference_stderr, "%", signed=True)
        detail = (
            f"height of the first {_dash(pair)} peak against STS: "
            f"{peak.value:.2f}, {peak.expected:.2f}"
        )
        found.append(
            Card("Structure", *_split(value), detail, peak.verdict.status, peak.verdict.text)
        )
    elif m.run.ensemble == "nve":
        drift = next((c for c in mine if c.against == "zero"), None)
        if drift is not None:
            value = plus_minus(drift.value, drift.stderr, drift.unit, signed=True)
            found.append(
                Card("Drift", *_split(value), "", drift.verdict.status, drift.verdict.text)
            )
    return found


def _temperature_card(
    name: str,
    what: str,
    m: Measured,
    reference: Measured | None,
    mine: Sequence[Comparison],
) -> Card:
    estimate = m.kinetic[name]
    label = "atoms" if name == "atoms" else f"{_dash(name)} bonds"
    of = [c for c in mine if c.observable == f"temperature of {label}"]
    best = next((c for c in of if c.against != "theory"), of[0] if of else None)
    detail = f"expected {m.expected[name]:.1f} K" if m.run.ensemble != "nve" else ""
    if reference is not None and m is not reference and name in reference.kinetic:
        e = reference.kinetic[name]
        detail = f"STS {plus_minus(e.mean, e.stderr, 'K')}" + (f"; {detail}" if detail else "")
    value, small = _split(plus_minus(estimate.mean, estimate.stderr, "K"))
    if best is None:
        return Card(what, value, small, detail, None, "")
    return Card(what, value, small, detail, best.verdict.status, best.verdict.text)


def _dash(pair: str | None) -> str:
    return (pair or "").replace("-", "–")


def summary_sentence(
    measured: Sequence[Measured], reference: Measured | None, comparisons: Sequence[Comparison]
) -> str:
    """One sentence: how fast, and whether the physics is the same."""
    m = main_run(measured, reference)
    mine = [c for c in comparisons if c.run == m.run.name]
    # Beside a reference, what counts is whether the run differs from it.
    mine = [c for c in mine if reference is not None and c.against == reference.run.name] or mine
    wrong = [c for c in mine if c.verdict.status == DEVIATES]
    short = [c for c in mine if c.verdict.status == SHORT]
    ratio = speedup(m, reference) if m is not reference else math.nan
    start = f"{m.run.label} ran"
    if math.isfinite(ratio):
        relation = (
            f"{ratio:.1f} times faster than" if ratio >= 1 else f"at {ratio:.2g} of the speed of"
        )
        start += f" {relation} single time stepping with the teacher"
    elif math.isfinite(m.run.ns_per_day):
        start += f" at {m.run.ns_per_day:.3g} ns/day"
    else:
        start += f" for {m.time_ps[-1]:.3g} ps"
    if wrong:
        names = ", ".join(dict.fromkeys(c.observable for c in wrong))
        return f"{start}, but it deviates in: {names.replace('-', '–')}."
    if short:
        return (
            f"{start}. Nothing that was measured deviates; "
            f"{len(short)} of {len(mine)} comparisons need a longer run to be settled."
        )
    same = "temperatures, energy and structure agree" if reference is not None else "it agrees"
    return f"{start}, and {same} within the errors."


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


STATUS_WORD = {AGREES: "agrees", DEVIATES: "deviates", SHORT: "too short to tell"}
STATUS_CLASS = {AGREES: "agrees", DEVIATES: "deviates", SHORT: "short"}
