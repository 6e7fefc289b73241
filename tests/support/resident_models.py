"""Students within i-PI's process: named without braces, which its parameters cannot hold."""

from __future__ import annotations

from run_tools import Pair


class Soft(Pair):
    """A little softer than the teacher of ``run_tools``."""

    def __init__(self) -> None:
        super().__init__(strength=0.9)


class Fails(Pair):
    """NaN from the 30th evaluation on."""

    def __init__(self) -> None:
        super().__init__(strength=0.9, nan_at=30)


class Kicks(Pair):
    """Wrong by 20 eV/A in the evaluations of one outer step, once in a run folder."""

    def __init__(self) -> None:
        super().__init__(strength=0.9, kick_at=190, once="kicked")
