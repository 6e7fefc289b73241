"""Whether a run was stable, and if not, for which of the paper's reasons.

========================== ================================================================
word                       when
========================== ================================================================
no                         it ran to its end at the right temperature
no so far                  the same, as far as so short a run can tell
data holes                 the watchdog ended it, and its first event was that student and
                           teacher disagreed or a model failed; nothing had heated before
high temp. (resonances)    MTS only: it heated, or its first event was one of temperature or a
                           jump of an energy, before it ended; or it ran to its end too hot
high temp.                 the same of single time steps
drift                      temperatures are right, but the integrator puts in or takes out
                           more than the thermostat's share of a tolerance
failed                     it ended for no reason of physics
========================== ================================================================
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from dmts_ipi.analysis.measure import Measured
from dmts_ipi.analysis.observables.conserved import CONSERVED
from dmts_ipi.analysis.observables.temperature import ATOMS, TEMPERATURE, TOLERANCE_K
from dmts_ipi.analysis.verdict import DEVIATES, SHORT, judge

STABLE, SO_FAR = "no", "no so far"
HOLES, RESONANCE, HOT = "data holes", "high temp. (resonances)", "high temp."
DRIFT, FAILED, UNKNOWN = "drift", "failed", "not run"
DISAGREE = ("difference", "difference_rms", "model", "nan")
HEAT = ("temperature", "jump")


@dataclass(frozen=True)
class Stability:
    """A word of the module's table, and why in a line."""

    word: str
    why: str = ""

    @property
    def stable(self) -> bool:
        """Whether the run counts as stable."""
        return self.word in (STABLE, SO_FAR)


NO_RUN = Stability(UNKNOWN)


def judge_run(
    exit: str, verdicts: Sequence[str], measured: Measured | None, mts: bool
) -> Stability:
    """Judges a run.

    Args:
        exit: of ``summary.json``.
        verdicts: kinds of the watchdog's verdicts, in their order.
        measured: what its output shows; None where there is none.
        mts: whether it has an outer step.
    """
    hot = RESONANCE if mts else HOT
    heat, kelvin = _heat(measured), _temperature(measured)
    counts = Counter(verdicts)
    if exit.startswith(("stopped", "fault")):
        kind, _, text = exit.partition(": ")
        if heat or kelvin:
            return Stability(hot, f"{heat or kelvin}; then {text}")
        first = next((v for v in verdicts if v in (*HEAT, *DISAGREE)), "")
        if first:
            return Stability(hot if first in HEAT else HOLES, text)
        if counts["drift"]:
            return Stability(DRIFT, text)
        return Stability(FAILED, text or kind)
    if measured is None:
        return Stability(UNKNOWN, exit)
    if kelvin:
        return Stability(hot, kelvin)
    if heat:
        return Stability(DRIFT, heat)
    rewinds = sum(counts[k] for k in (*DISAGREE, *HEAT))
    why = f"{rewinds} events, rewound: " + ", ".join(sorted(counts)) if rewinds else ""
    off, stderr = _off_K(measured)
    verdict = judge(off, stderr, TOLERANCE_K, "K", measured.kept_ps)
    if verdict.status == SHORT:
        return Stability(SO_FAR, "; ".join(x for x in (why, verdict.text) if x))
    return Stability(STABLE, why)


def _off_K(m: Measured) -> tuple[float, float]:
    """Kinetic temperature of all atoms minus the expected one, and its standard error."""
    t = TEMPERATURE.get(m)
    if t is None or ATOMS not in t.kinetic:
        return math.nan, math.nan
    e = t.kinetic[ATOMS]
    own = t.law.stderr if t.law is not None and m.run.langevin_per_ps is not None else e.stderr
    return e.mean - t.expected[ATOMS], max(own, t.floor_K) if e.known else math.nan


def _temperature(m: Measured | None) -> str:
    """Says that all atoms are too hot; empty if not, or if it cannot be told."""
    if m is None:
        return ""
    off, stderr = _off_K(m)
    found = judge(off, stderr, TOLERANCE_K, "K", m.kept_ps)
    return f"{off:+.1f} +- {stderr:.1f} K" if found.status == DEVIATES and off > 0 else ""


def _heat(m: Measured | None) -> str:
    """Says that the integrator heats or cools by more than the tolerance."""
    if m is None:
        return ""
    conserved = CONSERVED.get(m)
    if conserved is None:
        return ""
    e = conserved.heating_K
    found = judge(e.mean, e.stderr, TOLERANCE_K, "K", m.kept_ps)
    return f"heating {e.mean:+.1f} +- {e.stderr:.1f} K" if found.status == DEVIATES else ""
