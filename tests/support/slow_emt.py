"""EMT that takes 30 ms for an evaluation, as ``ase:slow_emt.SlowEMT``."""

from __future__ import annotations

import time
from typing import Any

from ase.calculators.emt import EMT


class SlowEMT(EMT):  # type: ignore[misc]
    """The same forces, later."""

    def calculate(self, *args: Any, **keywords: Any) -> None:
        time.sleep(0.03)
        super().calculate(*args, **keywords)
