"""The report in a few lines of text."""

from __future__ import annotations

from collections.abc import Sequence

from .comparison import Comparison
from .formatting import STATUS_TEXT, plus_minus
from .headline import summary_sentence
from .measure import Measured
from .observables import observables
from .verdict import AGREES


def lines(
    measured: Sequence[Measured], reference: Measured | None, comparisons: Sequence[Comparison]
) -> list[str]:
    """A sentence, one line per run, and what does not agree."""
    text = [summary_sentence(measured, reference, comparisons), ""]
    width = max(len(m.run.name) for m in measured)
    for m in measured:
        parts = [m.run.scheme, f"{m.kept_ps:.3g} ps used"]
        for o in observables():
            if o.name in m.results:
                parts += o.terminal(m, reference)
        text.append(f"{m.run.name:{width}}  " + ", ".join(parts))
        text += [f"{'':{width}}  note: {note}" for note in m.notes]
    open_ones = [c for c in comparisons if c.verdict.status != AGREES]
    if open_ones:
        text.append("")
    for c in open_ones:
        text.append(
            f"{c.run}: {c.observable} against {c.against}: "
            f"{plus_minus(c.difference, c.difference_stderr, c.unit, signed=True)}: "
            f"{STATUS_TEXT[c.verdict.status]} ({c.verdict.text})"
        )
    return text
