"""A calculator that goes wrong once, at a given evaluation."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from run_tools import Pair


class Faulty(Pair):
    """``Pair`` with a ``fault`` in the first evaluation from ``at`` on, marked by the file
    ``once``: ``nan``, ``spike`` (50 eV/A on one atom), ``slow`` (6 s) or ``shape``."""

    def __init__(self, strength: float, fault: str = "", at: int = 0, once: str = "") -> None:
        super().__init__(strength)
        self.fault, self.at, self.mark = fault, at, Path(once)

    def calculate(self, *args: Any, **keywords: Any) -> None:
        super().calculate(*args, **keywords)
        if not self.fault or self.calls < self.at or self.mark.exists():
            return
        self.mark.touch()
        forces: np.ndarray = self.results["forces"]
        if self.fault == "nan":
            forces[5, 0] = np.nan
        elif self.fault == "spike":
            forces[5, 0] += 50.0
        elif self.fault == "shape":
            self.results["forces"] = forces[:-1]
        elif self.fault == "slow":
            time.sleep(6.0)
