"""i-PI looks 10 times a second, not once, whether it is to end (SIGTERM, EXIT, a time limit).

The thread that looks is joined at the end of every run, and so at every rewind.
"""

from __future__ import annotations

import sys

import ipi.utils.softexit  # noqa: F401  # the name `softexit` in the package is an object

POLL_INTERVAL_S = 0.1


def install() -> None:
    """Puts it in; a second call does nothing."""
    sys.modules["ipi.utils.softexit"].SOFTEXITLATENCY = POLL_INTERVAL_S  # type: ignore[attr-defined]
