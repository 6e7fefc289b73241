"""Whether a run was stable, and if not, why: the reasons of DMTS-NC's tables of stability
(DOI 10.1021/acs.jctc.6c00653), read off the classes of the watchdog's verdicts.

========================== ================================================================
word                       when
========================== ================================================================
no                         the run reached its end at the right temperature
no so far                  the same, but the run is too short to tell
data holes                 the watchdog ended it, and the first verdict on physics was that
                           models disagree or one of them failed (class ``disagreement``);
                           nothing had heated before
high temp. (resonances)    multiple time stepping only: the run heated before it was ended, or
                           the first verdict was of class ``heat``; or it reached its end too
                           hot
high temp.                 the same with single time steps
drift                      temperatures are right, but the integrator adds or removes more
                           energy than the thermostat can take up within the tolerance, or the
                           first verdict was of class ``drift``
failed                     the run ended for another reason than its physics
========================== ================================================================
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dmts_ipi.analysis.measure import Measured
from dmts_ipi.analysis.observables.conserved import CONSERVED
from dmts_ipi.analysis.observables.temperature import ATOMS, TEMPERATURE, TOLERANCE_K
from dmts_ipi.analysis.verdict import DEVIATES, SHORT, judge
from dmts_ipi.core.verdicts import AddedKind, Cause, Kind, VerdictClass, kind_of

STABLE, SO_FAR = "no", "no so far"
HOLES, RESONANCE, HOT = "data holes", "high temp. (resonances)", "high temp."
DRIFT, FAILED, UNKNOWN = "drift", "failed", "not run"
MTS_WORDS: dict[VerdictClass, str] = {
    VerdictClass.DISAGREEMENT: HOLES,
    VerdictClass.HEAT: RESONANCE,
    VerdictClass.DRIFT: DRIFT,
    VerdictClass.PROCESS: FAILED,
    VerdictClass.RESOURCE: FAILED,
}
STS_WORDS = {**MTS_WORDS, VerdictClass.HEAT: HOT}


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
    exit: str, verdicts: Sequence[Kind | str], measured: Measured | None, mts: bool
) -> Stability:
    """Judges a run.

    Args:
        exit: of ``summary.json``.
        verdicts: kinds of the watchdog's verdicts, in their order.
        measured: what its output shows; None where there is none.
        mts: whether it has an outer step.
    """
    words = MTS_WORDS if mts else STS_WORDS
    hot = words[VerdictClass.HEAT]
    heat, kelvin = _heat(measured), _temperature(measured)
    known = [k if isinstance(k, AddedKind) else kind_of(k) for k in verdicts]
    physics = [k for k in known if k.cause is Cause.PHYSICS]
    if exit.startswith(("stopped", "fault")):
        state, _, text = exit.partition(": ")
        if heat or kelvin:
            return Stability(hot, f"{heat or kelvin}; then {text}")
        # a drift is named only where nothing else was seen: disagreement and heat cause it
        classes = sorted((k.cls for k in physics), key=lambda cls: cls is VerdictClass.DRIFT)
        return Stability(words[classes[0]] if classes else FAILED, text or state)
    if measured is None:
        return Stability(UNKNOWN, exit)
    if kelvin:
        return Stability(hot, kelvin)
    if heat:
        return Stability(DRIFT, heat)
    seen = ", ".join(sorted({k.value for k in physics}))
    why = f"{len(physics)} events, rewound: {seen}" if physics else ""
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
    """How much too hot all atoms are; empty if they are not, or if the run is too short to tell."""
    if m is None:
        return ""
    off, stderr = _off_K(m)
    verdict = judge(off, stderr, TOLERANCE_K, "K", m.kept_ps)
    return f"{off:+.1f} +- {stderr:.1f} K" if verdict.status == DEVIATES and off > 0 else ""


def _heat(m: Measured | None) -> str:
    """How much the integrator heats or cools, where that is more than the tolerance; else empty."""
    if m is None:
        return ""
    conserved = CONSERVED.get(m)
    if conserved is None:
        return ""
    e = conserved.heating_K
    verdict = judge(e.mean, e.stderr, TOLERANCE_K, "K", m.kept_ps)
    return f"heating {e.mean:+.1f} +- {e.stderr:.1f} K" if verdict.status == DEVIATES else ""
