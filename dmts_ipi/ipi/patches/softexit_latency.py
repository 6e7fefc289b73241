"""i-PI notices its end 10 times a second, not once: SIGTERM, the file EXIT, the last step.

The thread that looks is waited for at the end of every run, and so at every rewind.
"""

from __future__ import annotations

import sys

import ipi.utils.softexit  # noqa: F401  # the name `softexit` in the package is an object

LOOKS_EVERY_S = 0.1


def install() -> None:
    """Puts it in; a second call does nothing."""
    sys.modules["ipi.utils.softexit"].SOFTEXITLATENCY = LOOKS_EVERY_S  # type: ignore[attr-defined]
