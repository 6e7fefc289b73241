"""How fast the energy of single modes relaxes, from the means of blocks of many short series."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

FEWEST_BLOCKS = 32  # of all atoms or bonds together, from which a relaxation rate is read
BLOCK_RELAXATIONS = 1.0  # length of a block, in relaxation times 1/friction


@dataclass
class BlockVariance:
    """Variance of the means over consecutive blocks of many series, pooled by group.

    Args:
        group: (m,) group of each series.
        groups: how many there are.
    """

    group: np.ndarray
    groups: int

    def __post_init__(self) -> None:
        self._sum = np.zeros(len(self.group))
        self._filled = 0
        self._means = np.zeros((2, self.groups))  # of block means: their sum, that of squares
        self.blocks = np.zeros(self.groups)

    def interrupt(self) -> None:
        """The frames that come do not follow: begins a new block."""
        self._sum[:], self._filled = 0.0, 0

    def add(self, values: np.ndarray, length: int) -> None:
        """Adds (c, m) values in blocks of ``length`` frames."""
        at = 0
        while at < len(values):
            end = min(len(values), at + length - self._filled)
            self._sum += values[at:end].sum(axis=0)
            self._filled += end - at
            at = end
            if self._filled == length:
                mean = self._sum / length
                for k, weights in enumerate((mean, mean**2)):
                    self._means[k] += np.bincount(self.group, weights, self.groups)
                self.blocks += np.bincount(self.group, minlength=self.groups)
                self.interrupt()

    def rate_per_ps(self, group: int, dof: float, block_ps: float, slowest_per_ps: float) -> float:
        """Rate at which the energy of a series relaxes, 1/ps; ``slowest_per_ps`` where not known.

        Of a mode whose energy relaxes as exp(-l t), half of the variance of the kinetic temperature
        does so and half oscillates. Means over blocks of length L have the variance
        v f(l L) / 2, f(x) = 2/x (1 - (1 - exp(-x))/x), v = 2 T^2 / dof that of one series.

        Args:
            group: which.
            dof: degrees of freedom of each of its series.
            block_ps: L.
            slowest_per_ps: the least that it can be.
        """
        n = float(self.blocks[group])
        if n < FEWEST_BLOCKS:
            return slowest_per_ps
        total, squares = self._means[:, group]
        mean = total / n
        if mean <= 0:
            return slowest_per_ps
        share = 0.5 * dof * (squares / n / mean**2 - 1) * (1 + math.sqrt(2 / n))
        low, high = slowest_per_ps, 1e3 * slowest_per_ps
        if share >= _block_share(low * block_ps):
            return low
        for _ in range(60):
            middle = math.sqrt(low * high)
            low, high = (middle, high) if share < _block_share(middle * block_ps) else (low, middle)
        return low


def _block_share(x: float) -> float:
    """f(x) / 2 of ``BlockVariance.rate_per_ps``."""
    return (1 - (1 - math.exp(-x)) / x) / x
