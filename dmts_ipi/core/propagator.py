"""Contracts of what moves atoms: propagators over one stride, and thermostats within a step.

All numbers are in atomic units, as in i-PI: bohr, hartree, electron masses, hbar/hartree. A row of
the registry ``propagators`` (``ipi/motion/propagators.py``) is a class that meets ``Propagator``;
``<dynamics mode='nvt' splitting='NAME'>`` in an input runs it. A thermostat of the registry
``thermostats`` offers a ``ThermostatEngine``, which BAOAB-RESPA calls for its O step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np


@dataclass
class State:
    """Where a classical system is.

    Attributes:
        q: positions, (n, 3).
        p: momenta, (n, 3).
        cell: vectors as rows, (3, 3).
    """

    q: np.ndarray
    p: np.ndarray
    cell: np.ndarray

    def copy(self) -> State:
        """With arrays of its own."""
        return State(self.q.copy(), self.p.copy(), self.cell.copy())


class RandomNumbers(Protocol):
    """The generator of the run: its state is in every checkpoint."""

    def normal(self, shape: int | tuple[int, ...]) -> np.ndarray:
        """Standard normal numbers."""

    def uniform(self) -> float:
        """One number of [0, 1)."""


class Surroundings(Protocol):
    """What a propagator may ask for during a stride."""

    @property
    def masses(self) -> np.ndarray:
        """Of the atoms, (n,)."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the atoms, (n,), such as element symbols."""

    @property
    def dt(self) -> float:
        """The stride, ``<timestep>``."""

    @property
    def steps(self) -> tuple[int, ...]:
        """Of the levels of multiple time stepping, ``<nmts>``."""

    @property
    def kT(self) -> float:
        """Temperature as an energy."""

    @property
    def rng(self) -> RandomNumbers:
        """Random numbers of the run."""

    def force(self, state: State, level: int = 0) -> np.ndarray:
        """Force of a level at the positions of a state, (n, 3); evaluated once per position."""

    def potential(self, state: State) -> float:
        """Potential energy, of all levels together."""

    def thermostat(self, state: State) -> None:
        """The O step of the input's thermostat, over ``dt / thermostat_calls``: changes ``p``.

        Nothing where the input has no thermostat.
        """


@runtime_checkable
class Propagator(Protocol):
    """Moves a state over one stride. It keeps nothing else between strides: so restarts are exact.

    A row of the registry is the class; it is made with ``<propagator>``'s options, by name.

    Attributes:
        label: for reports.
        symplectic: whether the map is, for conservative forces and without a thermostat.
        reversible: in time, for the same.
        conserves: what it conserves, in words; empty: nothing.
        ensembles: of ``nve`` and ``nvt``, which it can do.
        thermostat_calls: how often it calls ``Surroundings.thermostat`` in a stride.
    """

    label: ClassVar[str]
    symplectic: ClassVar[bool]
    reversible: ClassVar[bool]
    conserves: ClassVar[str]
    ensembles: ClassVar[tuple[str, ...]]
    thermostat_calls: ClassVar[int]

    def __init__(self, options: Mapping[str, object]) -> None: ...

    def step(self, state: State, surroundings: Surroundings) -> State:
        """The state after one stride; the given one may be changed in place.

        The random numbers that it draws must be ``surroundings.rng``'s.
        """


@runtime_checkable
class ThermostatEngine(Protocol):
    """The O step of a thermostat.

    Attributes:
        state: numbers that it keeps between steps, (k,), such as the momenta of a chain; written
            to checkpoints and set in place after a restart. Empty where it has none.
    """

    state: np.ndarray

    def step(
        self,
        p: np.ndarray,
        q: np.ndarray,
        masses: np.ndarray,
        dt: float,
        kT: float,
        rng: RandomNumbers,
    ) -> float:
        """Changes momenta p (n, 3) in place, at positions q (n, 3), over a time dt.

        Returns:
            The energy that went to the bath.
        """
