"""Telemetry as a driver sees it: who is told of evaluations, and what opens it.

``watchdog.publisher`` implements both; ``ipi`` is handed them, and imports nothing of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np


class Observer(Protocol):
    """Who is told of evaluations (telemetry). It never waits and never raises."""

    def connected(self) -> None:
        """i-PI has begun a connection."""

    def begin(self) -> None:
        """An evaluation begins."""

    def failed(self) -> None:
        """It raised."""

    def end(self) -> None:
        """It is over; ``evaluated`` follows when i-PI has its answer."""

    def evaluated(
        self,
        positions_bohr: np.ndarray,
        positions_A: np.ndarray,
        cell_A: np.ndarray,
        energy_eV: float | None,
        forces_eV_per_A: np.ndarray,
        seconds: float,
    ) -> None:
        """What it gave: (n, 3), (3, 3) rows, energy or None, (n, 3), and its time."""

    def leave(self) -> None:
        """The process is about to end: nothing is to be left behind."""


Opened = TypeVar("Opened", bound=Observer, covariant=True)


class OpenTelemetry(Protocol[Opened]):
    """Opens telemetry of a driver; None where it is off."""

    def __call__(
        self,
        setting: str,
        name: str,
        n_atoms: int,
        device: str,
        keys: Path | None = None,
        announce: Path | None = None,
    ) -> Opened | None: ...
