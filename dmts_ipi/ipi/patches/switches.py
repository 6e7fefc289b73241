"""Which patches are switched off in this process: by an option, or because i-PI lacks a name.

Modules whose own code goes another way without a patch (the loop on arrays, the random numbers
drawn beforehand) ask here. Nothing is off until somebody says so.
"""

from __future__ import annotations

_off: set[str] = set()


def is_on(name: str) -> bool:
    """Whether a patch of the table may act."""
    return name not in _off


def switch_off(name: str) -> None:
    """Keeps a patch from acting on what is made from now on."""
    _off.add(name)


def switch_on(name: str) -> None:
    """The reverse of ``switch_off``."""
    _off.discard(name)
