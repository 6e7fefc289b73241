"""The report in a few lines of text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .compare import AGREES, Comparison, speedup
from .formatting import STATUS_WORD, plus_minus, summary_sentence
from .measure import Measured


def lines(
    measured: Sequence[Measured], reference: Measured | None, comparisons: Sequence[Comparison]
) -> list[str]:
    """A sentence, one line per run, and what does not agree."""
    found = [summary_sentence(measured, reference, comparisons), ""]
    width = max(len(m.run.name) for m in measured)
    for m in measured:
        ratio = speedup(m, reference)
        parts = [m.run.scheme, f"{m.kept_ps:.3g} ps used"]
        if math.isfinite(m.run.ns_per_day):
            parts.append(f"{m.run.ns_per_day:.3g} ns/day")
        if math.isfinite(ratio) and m is not reference:
            parts.append(f"{ratio:.2f}x")
        parts.append("T " + plus_minus(m.kinetic["atoms"].mean, m.kinetic["atoms"].stderr, "K"))
        for k in m.bond_kinds:
            e = m.kinetic[k.name]
            parts.append(
                f"{k.name} bonds {plus_minus(e.mean, e.stderr, 'K')}"
                + (f" (expected {m.expected[k.name]:.0f})" if m.run.ensemble != "nve" else "")
            )
        if m.configurational is not None:
            e = m.configurational.temperature_K["atoms"]
            parts.append("T of positions " + plus_minus(e.mean, e.stderr, "K"))
        for d in m.diffusion:
            value = plus_minus(d.D_A2_per_ps.mean, d.D_A2_per_ps.stderr, "Å²/ps")
            parts.append(f"D({d.kind}) {value}")
        found.append(f"{m.run.name:{width}}  " + ", ".join(parts))
        found += [f"{'':{width}}  note: {note}" for note in m.notes]
    open_ones = [c for c in comparisons if c.verdict.status != AGREES]
    if open_ones:
        found.append("")
    for c in open_ones:
        found.append(
            f"{c.run}: {c.observable} against {c.against}: "
            f"{plus_minus(c.difference, c.difference_stderr, c.unit, signed=True)}: "
            f"{STATUS_WORD[c.verdict.status]} ({c.verdict.text})"
        )
    return found
