"""Times of day as a person reads them."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """A duration in its largest unit: ``12 s``, ``3.4 min``, ``2.1 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
