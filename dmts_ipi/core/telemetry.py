"""Telemetry as a driver sees it: an observer of its evaluations, and what opens one.

``watchdog.publisher`` implements both. Drivers get them as arguments, so that ``ipi`` imports
nothing of ``watchdog``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np


class Observer(Protocol):
    """Observes the evaluations of a driver. It never waits and never raises."""

    def connected(self) -> None:
        """i-PI has begun a connection."""

    def begin(self) -> None:
        """An evaluation begins."""

    def failed(self) -> None:
        """It raised."""

    def end(self) -> None:
        """It is over; ``evaluated`` follows once i-PI has the result."""

    def evaluated(
        self,
        positions_bohr: np.ndarray,
        positions_A: np.ndarray,
        cell_A: np.ndarray,
        energy_eV: float | None,
        forces_eV_per_A: np.ndarray,
        seconds: float,
    ) -> None:
        """Its input and result: positions (n, 3), cell (3, 3) with vectors as rows, energy or None,
        forces (n, 3), wall time in s."""

    def leave(self) -> None:
        """The process is about to end: removes its files."""


Opened = TypeVar("Opened", bound=Observer, covariant=True)


class OpenTelemetry(Protocol[Opened]):
    """Opens telemetry of a driver; None where it is off.

    ``setting`` is that of ``--telemetry``, ``name`` that of i-PI's socket.
    """

    def __call__(
        self,
        setting: str,
        name: str,
        n_atoms: int,
        device: str,
        keys: Path | None = None,
        announce: Path | None = None,
    ) -> Opened | None: ...
