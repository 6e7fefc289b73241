"""Output files are synced to disk with each checkpoint, not with each line.

i-PI flushes and syncs every line and every frame; a sync costs 0.1 ms on a fast disk and many on a
slow one. Lines after the last checkpoint are of no use after a power failure: a run goes on from
the checkpoint and writes them again. So they are flushed, which is all that readers and a killed
process need, and synced before the next checkpoint is written. Files hold the same bytes.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

from ipi.engine import outputs

_STOCK_WRITE = outputs.CheckpointOutput.write


class _LazyOs:
    """The module ``os``, except that ``fsync`` waits for ``sync``."""

    def __init__(self) -> None:
        self.waiting: dict[int, Any] = {}
        self.synced = 0  # files, for tests

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def fsync(self, stream: Any) -> None:
        """Remembers a stream."""
        self.waiting[id(stream)] = stream

    def sync(self) -> None:
        """Syncs what has been written since the last time."""
        waiting, self.waiting = self.waiting, {}
        for stream in waiting.values():
            with contextlib.suppress(ValueError):  # it has been closed
                os.fsync(stream)
                self.synced += 1


lazy = _LazyOs()


def _write(self: Any, store: bool = True) -> None:
    if self.active():
        lazy.sync()
    _STOCK_WRITE(self, store)


def install() -> None:
    """Puts it in; a second call does nothing."""
    outputs.os = lazy
    outputs.CheckpointOutput.write = _write


def remove() -> None:
    """Puts i-PI's own back."""
    outputs.os = os
    outputs.CheckpointOutput.write = _STOCK_WRITE
