"""What a fast model's driver keeps of its last evaluations, and which will be asked for next."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np

CACHE_BYTES, CACHE_MAX = 16_000_000, 4096
EQUAL_DISTANCES = 2  # between requests, after the first one: then they are periodic
RENEW_AFTER = 256  # predictions; then requests are awaited again, in case every second one sufficed


@dataclass(frozen=True)
class CachedForces:
    """An evaluation: its number in this connection, energy (eV), forces (n, 3) in eV/A."""

    evaluation: int
    energy_eV: float | None
    forces: np.ndarray


class RecentForces:
    """Forces of the last evaluations, by digest. One thread stores, another looks up.

    They are kept in single precision, in which students compute: a relative error of 1e-7 does not
    matter to the watchdog.
    """

    def __init__(self, n_atoms: int) -> None:
        self.size = max(2, min(CACHE_MAX, CACHE_BYTES // max(12 * n_atoms, 1)))
        self._forces = np.empty((self.size, n_atoms, 3), np.float32)
        self._forces.fill(0)  # now, so that no evaluation waits for the system's pages
        self._about: list[tuple[int, float | None]] = [(0, None)] * self.size
        self._names: list[str] = [""] * self.size
        self._at: dict[str, int] = {}
        self._next = 0
        self._lock = threading.Lock()

    def store(
        self, name: str, energy_eV: float | None, forces: np.ndarray, evaluation: int = 0
    ) -> None:
        """Takes an evaluation, (n, 3) eV/A, in the place of the oldest one."""
        with self._lock:
            k = self._next
            if self._at.get(self._names[k]) == k:
                del self._at[self._names[k]]
            self._forces[k] = forces
            self._about[k], self._names[k], self._at[name] = (evaluation, energy_eV), name, k
            self._next = (k + 1) % self.size

    def find(self, name: str) -> CachedForces | None:
        """The evaluation of a structure, its forces copied, if it is still kept."""
        with self._lock:
            k = self._at.get(name)
            return None if k is None else CachedForces(*self._about[k], self._forces[k].copy())


class RequestPeriod:
    """Predicts which evaluations will be asked for, from those that were.

    A watchdog asks for forces at every outer step: every n-th evaluation. A driver that knows the
    period sends them unasked, which costs it less than an interruption, and keeps no others. One
    thread calls ``asked`` and ``missed``, another ``take``; a request that does not fit discards
    the prediction.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """i-PI has begun a connection: evaluations count from one again."""
        self._predicted: tuple[int, int] | None = None  # one of them, and their distance
        self._last = self._distance = self._equal = self._until_renewal = 0

    def asked(self, evaluation: int) -> None:
        """The forces of an evaluation were asked for."""
        distance = evaluation - self._last
        if distance == 0 or self.due(evaluation):
            return  # asked again, or what was sent has not arrived
        self._equal = self._equal + 1 if distance == self._distance else 0
        self._last, self._distance = evaluation, distance
        periodic = distance > 0 and self._equal >= EQUAL_DISTANCES
        self._until_renewal, self._predicted = (
            RENEW_AFTER,
            (evaluation, distance) if periodic else None,
        )

    def missed(self) -> None:
        """Forces were asked for that are not kept, perhaps because of a wrong prediction."""
        self.forget()

    @property
    def known(self) -> bool:
        """Whether requests are predicted."""
        return self._predicted is not None

    def take(self, evaluation: int) -> bool:
        """The same as ``due``, of an evaluation whose forces are then sent."""
        if self._predicted is None or not self.due(evaluation):
            return False
        self._until_renewal -= 1
        if self._until_renewal <= 0:
            self.forget()
        return True

    def due(self, evaluation: int) -> bool:
        """Whether the forces of an evaluation are likely to be asked for."""
        predicted = self._predicted
        return predicted is not None and (evaluation - predicted[0]) % predicted[1] == 0
