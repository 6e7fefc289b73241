"""The forces of the MTS levels, for the loop on plain arrays.

``ArrayForces`` asks forcefields itself. i-PI's depend objects between integrator and forcefield
cost more than the arithmetic of a step; here they are updated once per outer step, at its end. All
requests that a position will need are sent together: at the last inner step all models are asked
at the same time. ``DependForces`` goes through i-PI's objects and covers every forcefield.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from ipi.engine.forcefields import FFDirect
from ipi.interfaces.utils import parse_extra
from ipi.utils.depend import dstrip

from dmts_ipi.ipi.patches import exchange


class LevelForces(Protocol):
    """The interface through which the loop on plain arrays obtains forces."""

    def begin(self) -> None:
        """Begins an outer step at the positions of i-PI's beads."""

    def ask(self, levels: list[int]) -> None:
        """Requests the forces of these levels at the last positions q."""

    def moved(self, q: np.ndarray, levels: list[int]) -> None:
        """Moves the atoms to q (3 n,), bohr, and requests the forces of these levels there."""

    def level(self, k: int) -> np.ndarray:
        """Force of a level at the last q, (3 n,), atomic units."""

    def finish(self, q: np.ndarray) -> None:
        """Ends the outer step at q and updates i-PI's beads and forces."""


class DependForces:
    """Forces obtained through i-PI's own objects."""

    def __init__(self, forces: Any, beads: Any) -> None:
        self._forces, self._beads = forces, beads

    def begin(self) -> None:
        """Nothing to do."""

    def ask(self, levels: list[int]) -> None:
        """Has all requests sent at once."""
        if len(levels) > 1:
            for k in levels:
                self._forces.mts_forces[k].queue_mts()

    def moved(self, q: np.ndarray, levels: list[int]) -> None:
        """Moves i-PI's beads, and has all requests sent at once."""
        self._beads.q = q[None]
        self.ask(levels)

    def level(self, k: int) -> np.ndarray:
        """See ``LevelForces``."""
        return np.asarray(dstrip(self._forces.mts_forces[k].f)[0])

    def finish(self, q: np.ndarray) -> None:
        """Nothing to do: i-PI's objects are up to date."""


class _Component:
    """One component of the force, for one bead: its forcefield, and its result at the last q."""

    def __init__(self, component: Any) -> None:
        self.component, self.field = component, component.ff
        self.bead = component._forces[0]
        self.socket = exchange.is_direct(self.field)
        self.request: Any = None
        self.result: list[Any] | None = None

    def begin(self) -> None:
        """Takes i-PI's result, if it is up to date."""
        stale = self.bead._ufvx.tainted()
        self.request, self.result = None, None if stale else list(self.bead.ufvx)

    def send(self, q: np.ndarray, cell: tuple[np.ndarray, np.ndarray]) -> None:
        """Asks a driver; a forcefield in this process is evaluated when it is wanted."""
        if self.socket and self.request is None and self.result is None:
            self.request = exchange.ask(self.field, q, cell)

    def force(self, q: np.ndarray, cell: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """(3 n,)."""
        if self.result is None:
            if self.socket:
                self.send(q, cell)
                self.result, self.request = exchange.answer(self.field, self.request), None
            else:
                energy, f, virial, extra = self.field.driver(cell[0], q.reshape(-1, 3))
                self.result = [
                    energy - self.field.offset,
                    np.asarray(f).reshape(-1),
                    np.asarray(virial).reshape(3, 3),
                    parse_extra(extra),
                ]
        return np.asarray(self.result[1])

    def hand_to_ipi(self) -> None:
        """Gives the result to i-PI. The beads' positions are read first: i-PI would otherwise
        evaluate again."""
        if self.result is not None:
            _ = self.component.beads.q
            self.bead._ufvx.set(self.result, manual=False)


class ArrayForces:
    """Forces obtained without i-PI's objects, for one bead and a constant cell."""

    def __init__(self, forces: Any, beads: Any, cell: Any) -> None:
        self._forces, self._beads, self._cell_object = forces, beads, cell
        self._components = [_Component(c) for c in forces.mforces]

    def begin(self) -> None:
        """Reads what may have changed between two steps: weights, cell, forces."""
        cell = self._cell_object
        self._cell = dstrip(cell.h).copy(), dstrip(cell.ih).copy()
        self._q = dstrip(self._beads.q)[0].copy()
        self._levels: list[list[tuple[float, _Component]]] = []
        for k in range(self._forces.nmtslevels):
            shares = [(_share(c.component, k), c) for c in self._components]
            self._levels.append([(w, c) for w, c in shares if w is not None])
        for component in self._components:
            component.begin()
        self._sums: dict[int, np.ndarray] = {}

    def moved(self, q: np.ndarray, levels: list[int]) -> None:
        """See ``LevelForces``."""
        self._q = q.copy()
        self._sums.clear()
        for component in self._components:
            component.result = None
        self.ask(levels)

    def ask(self, levels: list[int]) -> None:
        """See ``LevelForces``."""
        for k in levels:
            for _, component in self._levels[k]:
                component.send(self._q, self._cell)

    def level(self, k: int) -> np.ndarray:
        """See ``LevelForces``. The same sum as ``ipi.engine.forces.MTSForces``."""
        total = self._sums.get(k)
        if total is not None:
            return total
        for _, component in self._levels[k]:
            component.send(self._q, self._cell)
        for share, component in self._levels[k]:
            force = component.force(self._q, self._cell)
            part = force if share == 1 else share * force
            total = part if total is None else total + part
        self._sums[k] = np.zeros(len(self._q)) if total is None else total
        return self._sums[k]

    def finish(self, q: np.ndarray) -> None:
        """See ``LevelForces``."""
        self._beads.q = q[None]
        for component in self._components:
            component.hand_to_ipi()


def _share(component: Any, k: int) -> float | None:
    """Weight of a component in a level; None if it does not act there."""
    weights = component.mts_weights
    if len(weights) == 0:
        # i-PI would fail on these: such a force is never used on arrays (see _covered)
        return None
    if len(weights) <= k or weights[k] == 0 or component.weight == 0:
        return None
    return float(component.weight * weights[k])


def _covered(component: Any) -> bool:
    """Whether ``_Component`` can ask a forcefield in i-PI's place."""
    field = component.ff
    everyone = len(field.active) == 1 and field.active[0] == -1
    if field.dopbc or not everyone or not len(component.mts_weights):
        return False
    plain = type(field) is FFDirect and field.batch_size == 1 and not field.threaded
    return plain or exchange.is_direct(field)


def level_forces(forces: Any, beads: Any, cell: Any) -> LevelForces:
    """``ArrayForces`` if it supports every forcefield, otherwise i-PI's own objects."""
    if all(_covered(c) for c in forces.mforces):
        return ArrayForces(forces, beads, cell)
    return DependForces(forces, beads)
