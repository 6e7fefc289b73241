"""What a student's driver keeps of its last evaluations, and which of them are wanted next."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np

RING_BYTES, RING_MAX = 16_000_000, 4096
SURE = 2  # equal distances between questions, after the first one, that make a rhythm
RENEW = 256  # times that it is kept: it may be that only every second one was wanted


@dataclass(frozen=True)
class Kept:
    """An evaluation: its number in this connection, energy (eV), forces (n, 3) in eV/A."""

    evaluation: int
    energy_eV: float | None
    forces: np.ndarray


class Ring:
    """The forces of the last evaluations, by digest. One thread stores, another looks up.

    In single precision, as students compute: 1e-7 of a force is nothing to a watchdog.
    """

    def __init__(self, n_atoms: int) -> None:
        self.size = max(2, min(RING_MAX, RING_BYTES // max(12 * n_atoms, 1)))
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
        """Takes an evaluation, (n, 3) eV/A; the oldest one goes."""
        with self._lock:
            k = self._next
            if self._at.get(self._names[k]) == k:
                del self._at[self._names[k]]
            self._forces[k] = forces
            self._about[k], self._names[k], self._at[name] = (evaluation, energy_eV), name, k
            self._next = (k + 1) % self.size

    def find(self, name: str) -> Kept | None:
        """The evaluation of a structure, its forces copied, if it is still here."""
        with self._lock:
            k = self._at.get(name)
            return None if k is None else Kept(*self._about[k], self._forces[k].copy())


class Rhythm:
    """Which evaluations are wanted, learnt from those that were asked for.

    A watchdog asks for the student's forces at every outer step: every n-th evaluation. A driver
    that knows the rhythm sends them unasked, which costs it less than to be interrupted, and keeps
    nothing of the others. One thread calls ``asked`` and ``missed``, another ``take``; a question
    that does not fit ends the rhythm.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """i-PI has begun a connection: evaluations count from one again."""
        self._plan: tuple[int, int] | None = None  # one of them, and their distance
        self._last = self._distance = self._equal = self._left = 0

    def asked(self, evaluation: int) -> None:
        """Somebody wanted the forces of an evaluation."""
        distance = evaluation - self._last
        if distance == 0 or self.due(evaluation):
            return  # asked again, or what was sent has not arrived
        self._equal = self._equal + 1 if distance == self._distance else 0
        self._last, self._distance = evaluation, distance
        sure = distance > 0 and self._equal >= SURE
        self._left, self._plan = RENEW, (evaluation, distance) if sure else None

    def missed(self) -> None:
        """Somebody wanted forces that are not there, perhaps because of a wrong rhythm."""
        self.forget()

    @property
    def known(self) -> bool:
        """Whether there is one."""
        return self._plan is not None

    def take(self, evaluation: int) -> bool:
        """The same as ``due``, of an evaluation whose forces are then sent."""
        if self._plan is None or not self.due(evaluation):
            return False
        self._left -= 1
        if self._left <= 0:
            self.forget()
        return True

    def due(self, evaluation: int) -> bool:
        """Whether the forces of an evaluation are likely to be asked for."""
        plan = self._plan
        return plan is not None and (evaluation - plan[0]) % plan[1] == 0
