"""Every observable of a run against theory and against the reference run."""

from __future__ import annotations

from collections.abc import Sequence

from .comparison import Comparison
from .measure import Measured
from .observables import observables


def compare(measured: Sequence[Measured], reference: Measured | None) -> list[Comparison]:
    """Every comparison of every run, theory first."""
    comparisons: list[Comparison] = []
    for m in measured:
        rows = [o for o in observables() if o.name in m.results]
        for o in rows:
            comparisons += o.against_theory(m, reference)
        if reference is None or m is reference:
            continue
        for o in rows:
            if o.name in reference.results:
                comparisons += o.against_reference(m, reference)
    return comparisons
