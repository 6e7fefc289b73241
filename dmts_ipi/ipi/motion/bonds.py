"""The bond thermostat: friction and noise on the relative velocity along short pairs of atoms.

For a pair with unit vector u, reduced mass mu, time constant tau and weight w in the step d:

    q = (v_i - v_j) . u        q' = c q + sqrt((1 - c^2) kT / mu) G        c = exp(-w d / tau)

and impulses mu (q' - q) u on i, the opposite on j. It is the exact solution of an
Ornstein-Uhlenbeck process of one degree of freedom at fixed positions. So for any tau, w and d
each pair update leaves the canonical distribution of momenta as it is, and total momentum and
angular momentum too, as impulses are equal, opposite and central: vibrations are damped, the
motion of molecules is not. It is a short-ranged relative of dissipative particle dynamics
(P. Espanol, P. Warren, Europhys. Lett. 30, 191 (1995)), in the exact form of T. Shardlow, SIAM J.
Sci. Comput. 24, 1267 (2003).

**Which pairs.** The weight is a smooth function of the distance, one below the first number of
``range``, zero above the second, between atoms of two labels: no topology, bonds may break. Or
pairs are listed, with weight one. Positions are fixed during the O step, so weights are numbers.

**Order and reversibility.** Pairs that share an atom do not commute. Pairs are put into batches
such that no atom is in two pairs of a batch (updates within one commute, and are vectorised). Let
L be the update of the atoms and C_1 ... C_m those of the batches: operators on functions of the
momenta, at fixed positions. Each is self-adjoint in the scalar product weighted by the canonical
distribution, as each is in detailed balance with it. The product L C_1 ... C_m keeps the
distribution but is not self-adjoint: its adjoint is C_m ... C_1 L. Each O step takes one or the
other by a coin, so its operator is (L C_1 ... C_m + C_m ... C_1 L) / 2, which is self-adjoint: the
O step is in detailed balance, and BAOAB with it is as reversible as with Langevin alone. (The
palindrome of half steps would do, too, at twice the cost.) All that needs is that batches are a
function of positions alone. They are: of the set of pairs with a weight above zero, in an order
given by their atoms. So a restart goes on with the same random numbers for the same pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from ipi.utils.depend import dstrip
from ipi.utils.units import unit_to_user

from dmts_ipi.core.compiled import NotCompiled
from dmts_ipi.core.errors import InputError
from dmts_ipi.core.neighbours import neighbour_pairs

from .bond_step import BondLoops

SKIN = 1.0  # bohr beyond the range, within which pairs are kept in the list


def check_tau(field: str, tau: float) -> None:
    """Raises InputError for a time constant, atomic units, that is not positive."""
    if not tau > 0:
        fs = unit_to_user("time", "femtosecond", tau)
        raise InputError(field, f"{fs:g} fs", "must be positive; friction is 1/tau")


@dataclass(frozen=True)
class BondTau:
    """Friction of a kind of pair, in atomic units: by two labels and a range, or listed.

    ``range``: weight one below the first number, zero above the second. ``pairs``: (m, 2) indices
    from 0, which make ``names`` and ``range`` void.
    """

    tau: float
    names: tuple[str, ...] = ()
    range: tuple[float, float] = (0.0, 0.0)
    pairs: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), int))

    def check(self) -> None:
        """Raises InputError for the first thing that is wrong by itself."""
        check_tau("bonds: tau", self.tau)
        if len(self.pairs):
            return
        if len(self.names) != 2:
            raise InputError("bonds: names", ", ".join(self.names), "must be two, such as 'O, H'")
        if not 0 < self.range[0] < self.range[1]:
            raise InputError("bonds: range", list(self.range), "must be two increasing distances")


class BondFriction:
    """All pairs of a system and their O step. Entries later in the list win over earlier ones."""

    def __init__(self, entries: Sequence[BondTau]) -> None:
        """Raises InputError as ``BondTau.check``."""
        for entry in entries:
            entry.check()
        self.entries = tuple(entries)
        self._listed_at: np.ndarray | None = None
        self._listed_h: np.ndarray | None = None
        self._image_h: np.ndarray | None = None
        self._loops: BondLoops | None = None

    def bind(self, names: Sequence[str], masses: np.ndarray, cell: Any) -> None:
        """Binds to atoms and a cell (None: no periodicity).

        Args:
            names: labels, (n,).
            masses: (n,).
            cell: i-PI's cell object.

        Raises:
            InputError: a label or an index that the system does not have.
        """
        self._labels = np.array([str(x).strip() for x in names])
        self._cell, self._inverse_mass = cell, (1.0 / np.asarray(masses, float))[:, None]
        n, known = len(self._labels), ", ".join(sorted(set(self._labels)))
        for entry in self.entries:
            for name in entry.names if not len(entry.pairs) else ():
                if name not in self._labels:
                    raise InputError("bonds: names", name, f"no such atom; the system has {known}")
            pairs = np.asarray(entry.pairs)
            if len(pairs) and (
                pairs.min() < 0 or pairs.max() >= n or (pairs[:, 0] == pairs[:, 1]).any()
            ):
                raise InputError(
                    "bonds: pairs", pairs.tolist(), f"must be two different atoms of 0 to {n - 1}"
                )
        self._reach = max((e.range[1] for e in self.entries if not len(e.pairs)), default=0.0)

    def propagate(
        self, p: np.ndarray, q: np.ndarray, dt: float, kT: float, prng: Any, forward: bool
    ) -> float:
        """Updates momenta (3 n,) in place, at positions (3 n,), batches in the order or reversed.

        Returns:
            The energy that went to the bath.
        """
        p3 = p.reshape(-1, 3)
        d, r, weight = self._weights(np.ascontiguousarray(q, float).reshape(-1, 3))
        rate = weight[self._use] * self._used_rate
        loss = np.expm1(-dt * rate)  # c - 1
        # expm1: 1 - c^2 loses digits at small friction
        kick = np.sqrt(-np.expm1(-2 * dt * rate) * kT * self._mu) * prng.gvec(len(rate))
        if self._loops is not None:
            return self._loops.update(p3, loss, kick, forward)
        return self._update(p3, d[self._use] / r[self._use, None], loss, kick, forward)

    def _update(
        self, p3: np.ndarray, u: np.ndarray, loss: np.ndarray, kick: np.ndarray, forward: bool
    ) -> float:
        """``BondLoops.update`` by NumPy; unit vectors u (m, 3)."""
        i, j, inverse = self._i[self._use], self._j[self._use], self._inverse_mass
        u_i, u_j = u * inverse[i], u * inverse[j]
        before = float((p3 * p3 * inverse).sum())
        for batch in self._batches if forward else reversed(self._batches):
            a, b = i[batch], j[batch]
            p_a, p_b = p3[a], p3[b]
            q_old = _dot(p_a, u_i[batch]) - _dot(p_b, u_j[batch])
            impulse = self._mu[batch] * loss[batch] * q_old + kick[batch]
            along = impulse[:, None] * u[batch]
            p3[a] = p_a + along
            p3[b] = p_b - along
        return 0.5 * (before - float((p3 * p3 * inverse).sum()))

    def _weights(self, q: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Vectors from j to i (m, 3), lengths (m,) and weights (m,) of all listed pairs; those
        with a weight are put in order."""
        h = None if self._cell is None else dstrip(self._cell.h)
        if self._outdated(q, h):
            self._list(q, h)
        if h is not None and (self._image_h is None or not np.array_equal(h, self._image_h)):
            self._image, self._image_h = self._shift @ h.T, h.copy()
            if self._loops is not None:
                self._loops.set(image=self._image)
        if self._loops is not None:
            if not self._loops.weights(q):
                self._order(self._loops.weight > 0, len(q))
            return self._loops.d, self._loops.r, self._loops.weight
        d = q[self._i] - q[self._j] + self._image
        r = np.sqrt(_dot(d, d))
        x = np.clip((self._off - r) * self._slope, 0.0, 1.0)
        weight = x * x * (3 - 2 * x)
        if not np.array_equal(weight > 0, self._active):
            self._order(weight > 0, len(q))
        return d, r, weight

    def _order(self, active: np.ndarray, n: int) -> None:
        """Puts the pairs with a weight into batches."""
        here = np.flatnonzero(active)
        batches = colour(self._i[here], self._j[here], n)
        ends = np.cumsum([0, *(len(b) for b in batches)])
        self._batches = [slice(a, b) for a, b in pairwise(ends)]
        self._active, self._use = active, here[np.concatenate([*batches, np.zeros(0, int)])]
        i, j = self._i[self._use], self._j[self._use]
        self._mu = 1.0 / (self._inverse_mass[i] + self._inverse_mass[j])[:, 0]
        self._used_rate = self._rate[self._use]
        if self._loops is not None:
            self._loops.set(active=active, use=self._use, mu=self._mu)

    def _outdated(self, q: np.ndarray, h: np.ndarray | None) -> bool:
        """Whether a pair that is not in the list may have come within its range, or the nearest
        image of one in the list may be another."""
        if self._listed_at is None:
            return True
        if self._loops is not None:
            farthest = self._loops.moved(q)
        else:
            moved = q - self._listed_at
            farthest = float(_dot(moved, moved).max())
        far = 2 * math.sqrt(farthest)
        if h is not None and self._listed_h is not None:
            far += float(np.abs(h - self._listed_h).sum())
        return not far < SKIN

    def _list(self, q: np.ndarray, h: np.ndarray | None) -> None:
        """Lists the pairs that may get a weight, each once, sorted by their atoms."""
        n = len(q)
        i, j = self._near(q, h)
        key = np.unique(np.minimum(i, j) * n + np.maximum(i, j))
        given = [np.sort(np.asarray(e.pairs), axis=1) for e in self.entries if len(e.pairs)]
        key = np.unique(np.concatenate([key, *(g[:, 0] * n + g[:, 1] for g in given)]).astype(int))
        i, j = key // n, key % n
        rate, off = np.zeros(len(key)), np.zeros(len(key))
        slope = np.ones(len(key))
        for entry in self.entries:
            if len(entry.pairs):
                g = np.sort(np.asarray(entry.pairs), axis=1)
                here = np.isin(key, g[:, 0] * n + g[:, 1])
                off[here], slope[here] = np.inf, 1.0
            else:
                a, b = entry.names
                here = (self._labels[i] == a) & (self._labels[j] == b)
                here |= (self._labels[i] == b) & (self._labels[j] == a)
                off[here] = entry.range[1]
                slope[here] = 1.0 / (entry.range[1] - entry.range[0])
            rate[here] = 1.0 / entry.tau
        d = q[i] - q[j]
        shift = np.zeros_like(d) if h is None else -np.rint(d @ np.linalg.inv(h).T)
        image = shift if h is None else shift @ h.T
        use = (rate > 0) & (np.linalg.norm(d + image, axis=1) < off + SKIN)
        self._i, self._j, self._rate = i[use], j[use], rate[use]
        self._off, self._slope = off[use], slope[use]
        self._shift, self._image = shift[use], image[use]
        self._image_h = None if h is None else h.copy()
        self._listed_at, self._listed_h = q.copy(), self._image_h
        self._loops = _loops()
        if self._loops is not None:
            self._loops.set(listed_at=self._listed_at, inverse_mass=self._inverse_mass)
            self._loops.set(i=self._i, j=self._j, image=self._image)
            self._loops.set(off=self._off, slope=self._slope)
        self._order(np.zeros(len(self._i), bool), n)

    def _near(self, q: np.ndarray, h: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        if self._reach == 0:
            return np.zeros(0, int), np.zeros(0, int)
        reach = self._reach + SKIN
        if h is None:
            pairs = neighbour_pairs(q, np.eye(3), False, reach, full=False)
            return pairs.i, pairs.j
        width = 1.0 / np.linalg.norm(np.linalg.inv(h), axis=1)
        if width.min() < 2 * self._reach:  # the nearest image is then not the only one
            raise InputError(
                "bonds: range", self._reach, "must be below half the width of the cell; list pairs"
            )
        pairs = neighbour_pairs(q, h.T, True, reach, full=False)
        return pairs.i, pairs.j


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Products of rows of three, (m,), summed in an order that C keeps to."""
    x = a * b
    return np.asarray(x[:, 0] + x[:, 1] + x[:, 2])


def _loops() -> BondLoops | None:
    """Compiled loops, or None where there is no compiler."""
    try:
        return BondLoops()
    except NotCompiled:
        return None


def colour(i: np.ndarray, j: np.ndarray, n: int) -> list[np.ndarray]:
    """Batches of pairs (indices into i and j) such that no atom is in two pairs of a batch.

    Greedy, in rounds: a pair enters if its priority is the lowest at both its atoms. Priorities
    are a hash of the two atoms: the result depends on the set of pairs only, and the number of
    rounds grows with the logarithm of its size. At most 2 d - 1 batches, d the largest number of
    pairs of an atom.
    """
    key = (i * 2654435761 + j * 40503) % 4294967291
    rank = np.empty(len(i), int)
    rank[np.lexsort((j, i, key))] = np.arange(len(i))
    left, batches = np.arange(len(i)), []
    while len(left):
        batch, open_, free = [], left, np.ones(n, bool)
        while len(open_):
            first = np.full(n, len(i))
            np.minimum.at(first, i[open_], rank[open_])
            np.minimum.at(first, j[open_], rank[open_])
            best = (first[i[open_]] == rank[open_]) & (first[j[open_]] == rank[open_])
            chosen = open_[best]
            batch.append(chosen)
            free[i[chosen]] = free[j[chosen]] = False
            open_ = open_[~best]
            open_ = open_[free[i[open_]] & free[j[open_]]]
        batches.append(np.sort(np.concatenate(batch)))
        left = left[~np.isin(left, batches[-1])]
    return batches
