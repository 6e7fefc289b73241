"""Random numbers are drawn before they are needed, while i-PI waits for the teacher.

``PrefetchedNormals`` replaces the generator of i-PI's ``Random``. It returns the same numbers in
the same order. Whatever reads the generator's state, such as a checkpoint, sees the state that
belongs to the numbers returned so far: any request except normal numbers in their order first puts
the generator back to that state.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import switches


class PrefetchedNormals:
    """A generator of NumPy that can draw normal numbers beforehand.

    Args:
        generator: the one whose numbers are given.

    Attributes:
        ahead: how many numbers are drawn and not taken.
    """

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator
        self._block, self._at = np.empty(0), 0
        self._before: Any = None  # the generator's state in front of the block
        self._taken, self._other_draws = 0, False  # since the last ``prepare``

    @property
    def ahead(self) -> int:
        """See the class."""
        return len(self._block) - self._at

    def prepare(self) -> None:
        """Draws as many as were taken since the last time, if these were normal numbers only."""
        count, other_draws = self._taken, self._other_draws
        self._taken, self._other_draws = 0, False
        if other_draws or not count or self.ahead:
            return
        self._before = self._generator.bit_generator.state
        if len(self._block) != count:
            self._block = np.empty(count)
        self._generator.standard_normal(out=self._block)
        self._at = 0

    def standard_normal(
        self, size: Any = None, dtype: Any = np.float64, out: np.ndarray | None = None
    ) -> Any:
        """As of a generator."""
        if size is not None or out is None or dtype is not np.float64:
            return self._plain.standard_normal(size, dtype, out)
        self._taken += out.size
        if out.size <= self.ahead:
            out[...] = self._block[self._at : self._at + out.size].reshape(out.shape)
            self._at += out.size
        else:
            self._put_back()
            self._generator.standard_normal(out=out)
        return out

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)

    @property
    def _plain(self) -> np.random.Generator:
        self._other_draws = True
        self._put_back()
        return self._generator

    def _put_back(self) -> None:
        """The generator is where it would be if nothing had been drawn ahead."""
        if self.ahead:
            self._generator.bit_generator.state = self._before
            self._generator.standard_normal(self._at)
        self._at = len(self._block)


def prefetched(random: Any) -> PrefetchedNormals | None:
    """Puts it into i-PI's ``Random``, once; None where the patch is off or numbers come from
    several threads."""
    if random.n_threads != 1 or not switches.is_on("prefetched-rng"):
        return None
    if not isinstance(random.rng[0], PrefetchedNormals):
        random.rng[0] = PrefetchedNormals(random.rng[0])
    ahead: PrefetchedNormals = random.rng[0]
    return ahead
