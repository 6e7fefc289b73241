"""Restart states and checkpoints of i-PI, kept and written with less work, and the same bytes.

* The state that a SIGTERM leaves is kept every ``safe_stride`` steps, of 0.5 ms each: here not more
  often than every half second. i-PI describes its outputs anew each time, which is half of the
  time; here only when the number of a checkpoint has changed.
* An array of a checkpoint is formatted once, and floats all at once, not number by number. i-PI
  asks for the text of each tag twice, to see whether it is the default, so for that of an array
  eight times.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from ipi import ipi_global_settings
from ipi.engine.simulation import Simulation
from ipi.inputs.outputs import InputOutputs
from ipi.utils import inputvalue
from ipi.utils.io.inputs import io_xml

_STOCK_STORE = InputOutputs.store
_STOCK_ARRAY = inputvalue.InputArray.write
_STOCK_RUN = Simulation.run
KEPT_EVERY_S = 0.5


class Stride(int):
    """``safe_stride``: a step is a multiple of it only if the last one was ``KEPT_EVERY_S`` ago."""

    _last_s: float

    def __new__(cls, stride: int) -> Stride:
        """As an int."""
        self = super().__new__(cls, stride)
        self._last_s = time.monotonic()
        return self

    def __rmod__(self, step: int) -> int:
        """``step % self``: 0 where the state is to be kept."""
        rest, now = int(step) % int(self), time.monotonic()
        if rest or now - self._last_s < KEPT_EVERY_S:
            return rest or int(self)
        self._last_s = now
        return 0


def _run(self: Any, write_outputs: bool = True) -> None:
    self.safe_stride = Stride(self.safe_stride)
    _STOCK_RUN(self, write_outputs)


def _store(self: Any, plist: Any) -> None:
    now = plist.prefix, [(id(o), getattr(o, "step", None)) for o in plist]
    if getattr(self, "_dmts_stored", None) != now:
        _STOCK_STORE(self, plist)
        self._dmts_stored = now


def array_lines(values: np.ndarray, kind: type) -> list[str]:
    """An array of a checkpoint as i-PI writes it, ``ELPERLINE`` values to a line, not yet indented.

    Args:
        values: (n,). kind: of the values, one that i-PI can write.
    """
    per_line = inputvalue.ELPERLINE
    if kind is not float:
        words = [io_xml.write_type(kind, v) + ", " for v in values]
        lines = ["".join(words[k : k + per_line]) for k in range(0, len(words), per_line)]
    else:
        number = str(ipi_global_settings["floatformat"]) + ", "
        full, rest = divmod(len(values), per_line)
        text = "\n".join([number * per_line] * full + [number * rest] * (rest > 0))
        lines = (text % tuple(values.tolist())).split("\n")
    lines[-1] = lines[-1].rstrip(", ")
    return lines


def _write_array(self: Any, name: str = "", indent: str = "") -> Any:
    if len(self.value) <= inputvalue.ELPERLINE:
        return _STOCK_ARRAY(self, name, indent)
    kept = getattr(self, "_dmts_lines", None)
    if kept is None or kept[0] is not self.value:  # each store() makes a new array
        kept = self._dmts_lines = self.value, array_lines(self.value, self.type)
    text = ("\n" + indent + "   ").join(kept[1])
    return inputvalue.Input.write(self, name=name, indent=indent, text=f"\n{indent} [ {text} ]\n")


def install() -> None:
    """Puts it in; a second call does nothing."""
    inputvalue.InputArray.write = _write_array
    InputOutputs.store = _store
    Simulation.run = _run


def remove() -> None:
    """Puts i-PI's own back."""
    InputOutputs.store = _STOCK_STORE
    Simulation.run = _STOCK_RUN
    inputvalue.InputArray.write = _STOCK_ARRAY
