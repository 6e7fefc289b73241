"""What a person sees while a student trains: lines that stay, one that lives on a terminal."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from dmts_ipi.core.durations import duration

ON_TERMINAL_S, IN_LOG_S = 0.5, 30.0


class Reporter:
    """Lines of text; between them the state of the training, rewritten in place on a terminal.

    In a log the state is a line of its own, at most every 30 s.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stdout
        self.live = self.stream.isatty()
        self._last = time.monotonic()
        self._shown = 0

    def line(self, text: str) -> None:
        """A line that stays."""
        blank = "\r" + " " * self._shown + "\r" if self._shown else ""
        print(blank + text, file=self.stream, flush=True)
        self._shown, self._last = 0, time.monotonic()

    def tick(self, step: int, done: float, elapsed_s: float) -> None:
        """The state, if it is time to show it."""
        now = time.monotonic()
        if elapsed_s < 1.0 or now - self._last < (ON_TERMINAL_S if self.live else IN_LOG_S):
            return
        self._last = now
        left = elapsed_s * (1.0 / max(done, 1e-9) - 1.0)
        rate = step / max(elapsed_s, 1e-9)
        text = f"step {step} ({100 * done:.0f} %)  {rate:.1f} steps/s  left {duration(left)}"
        if not self.live:
            print(text, file=self.stream, flush=True)
            return
        print("\r" + text.ljust(self._shown), end="", file=self.stream, flush=True)
        self._shown = len(text)
