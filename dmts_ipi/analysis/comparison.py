"""One figure of one run against what it should be: theory, or the reference run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dmts_ipi.core.statistics import MIN_INDEPENDENT, Estimate

from .transport import SHORTEST_PS, WINDOW_FRACTION
from .verdict import SHORT, Agreement, about_ps, judge

if TYPE_CHECKING:
    from .measure import Measured

THEORY, ZERO = "theory", "zero"
RELAXATIONS = 2.0 * MIN_INDEPENDENT  # an independent structure takes two relaxation times


@dataclass(frozen=True)
class Comparison:
    """One figure of one run against theory or against the reference run.

    ``unit`` is that of ``difference``; ``value_unit`` that of ``value`` and ``expected``, "" where
    it is the same or there is none. ``shown_from``: subtracted from both where they are printed
    (an energy has no zero of its own).
    """

    run: str
    observable: str
    against: str
    value: float
    stderr: float
    expected: float
    difference: float
    difference_stderr: float
    unit: str
    verdict: Agreement
    value_unit: str = ""
    shown_from: float = 0.0


def judge_structure(
    m: Measured, ref: Measured, difference: float, stderr: float, tolerance: float, unit: str
) -> Agreement:
    """As ``judge``, for what depends on the structure of a liquid: energy, peaks, diffusion.

    In less than ``RELAXATIONS`` relaxation times of either run a spread over time says nothing of
    the spread between structures, and two runs from one start can differ for no other reason.
    """
    slow = max((m, ref), key=_open_relaxations)
    if math.isinf(slow.relaxation_ps):
        return Agreement(
            SHORT, f"{SHORTEST_PS / WINDOW_FRACTION:g} ps of frames would show how fast it relaxes"
        )
    if (factor := _open_relaxations(slow)) > 1:
        text = (
            f"the structure of {slow.run.name} relaxes in {about_ps(slow.relaxation_ps)}; "
            f"{about_ps(factor * slow.kept_ps)} would tell"
        )
        return Agreement(SHORT, text, factor)
    return judge(difference, stderr, tolerance, unit, min(m.kept_ps, ref.kept_ps))


def _open_relaxations(m: Measured) -> float:
    """By what factor a run is too short for its structure; 0 where nothing has to relax."""
    tau = m.relaxation_ps
    return 0.0 if math.isnan(tau) else RELAXATIONS * tau / m.kept_ps


def against_value(
    m: Measured,
    observable: str,
    estimate: Estimate,
    expected: float,
    tolerance: float,
    unit: str,
    against: str = THEORY,
    stderr: float | None = None,
) -> Comparison:
    """An estimate against a value that it should have.

    ``stderr``: the error to judge by, where another than the estimate's own is better.
    """
    error = estimate.stderr if stderr is None else stderr
    off = estimate.mean - expected
    verdict = judge(off, error, tolerance, unit, m.kept_ps)
    return Comparison(
        m.run.name, observable, against, estimate.mean, error, expected, off, error, unit, verdict
    )


def difference(
    m: Measured,
    ref: Measured,
    observable: str,
    a: Estimate,
    b: Estimate,
    tolerance: float,
    unit: str,
    shift: float = 0.0,
    structural: bool = False,
    shown_from: float = 0.0,
) -> Comparison:
    """An estimate minus that of the reference.

    Args:
        m, ref: the two runs; ``a`` and ``b`` are theirs.
        observable, tolerance, unit: see ``Comparison``.
        shift: by how much theory has the two differ; subtracted from the difference.
        structural: whether it changes as slowly as the structure (``judge_structure``).
        shown_from: see ``Comparison``.
    """
    off, stderr = a.mean - b.mean - shift, math.hypot(a.stderr, b.stderr)
    if structural:
        verdict = judge_structure(m, ref, off, stderr, tolerance, unit)
    else:
        verdict = judge(off, stderr, tolerance, unit, min(m.kept_ps, ref.kept_ps))
    return Comparison(
        *(m.run.name, observable, ref.run.name, a.mean, a.stderr, b.mean, off, stderr, unit),
        verdict,
        shown_from=shown_from,
    )


def ratio(
    m: Measured,
    ref: Measured,
    observable: str,
    a: Estimate,
    b: Estimate,
    tolerance: float,
    unit: str,
    verdict: Agreement | None = None,
) -> list[Comparison]:
    """A positive quantity against that of the reference, in percent; nothing without a value.

    ``tolerance`` is in percent, ``unit`` that of ``a`` and ``b``. A ``verdict`` replaces the one
    that follows from the errors, where these are known not to cover the difference.
    """
    if not (math.isfinite(a.mean) and math.isfinite(b.mean) and a.mean > 0 and b.mean > 0):
        return []
    percent = 100 * (a.mean / b.mean - 1)
    error = 100 * a.mean / b.mean * math.hypot(a.stderr / a.mean, b.stderr / b.mean)
    verdict = verdict or judge_structure(m, ref, percent, error, tolerance, "%")
    return [
        Comparison(
            *(m.run.name, observable, ref.run.name, a.mean, a.stderr, b.mean, percent, error, "%"),
            verdict,
            unit,
        )
    ]
