"""Thermostats of an i-PI input: one object each, read from XML, written to XML, and judged.

Everything that needs to know a run's thermostat asks such an object: the input of a new run, the
check before a run is resumed, ``tune``, the watchdog, the analysis. Our own rows:

============  ========================================================================
mode          what acts
============  ========================================================================
``langevin``  white-noise Langevin friction, per atom, element (``<local_tau>``) and
              along bonds (``<bonds>``)
``ffl``       fast-forward Langevin (J. Chem. Phys. 148, 184109 (2018)), with the same tags
``svr``       stochastic velocity rescaling (J. Chem. Phys. 126, 014101 (2007)): global
============  ========================================================================

Any other mode of i-PI is kept as it is (``StockThermostat``): i-PI runs it, and what depends on a
friction is not analysed. Another package adds a mode by an entry point of the group
``dmts_ipi.thermostats``; ``docs/extending.md`` has an example.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np
from ase.data import atomic_numbers

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.registry import Registry

RESPA = "baoab-respa"
LOCAL_TAGS = ("local_tau", "bonds")  # ours: plain i-PI has neither
BOND_COMMENT = """<!-- Bond thermostat: friction and noise along short pairs of these elements.
               Full up to the first distance of the range, none from the second. -->"""
ELEMENT_COMMENT = "<!-- Friction of its own for an element: tau is 1/friction, as above. -->"


class QuantityReader(Protocol):
    """Reads numbers with units; complains about a missing unit where a person wrote the file."""

    def quantity(self, element: ET.Element, to: str) -> float:
        """The number of an element in the unit ``to``."""
        ...

    def quantities(self, element: ET.Element, to: str) -> list[float]:
        """The list of numbers of an element in the unit ``to``."""
        ...


def decimal(value: float) -> str:
    """Shortest decimal that reads back as the same double, without a trailing .0."""
    return repr(float(value)).removesuffix(".0")


@dataclass(frozen=True)
class BondFriction:
    """Friction along a kind of pair.

    Attributes:
        tau_fs: time constant of the relative velocity, fs.
        names: labels of the two atoms; empty where pairs are listed.
        range_A: distance up to which the friction is full, and from which it is zero.
        pairs: listed pairs of atoms, from 0, as text of the input; empty where names are given.
    """

    tau_fs: float
    names: tuple[str, ...] = ()
    range_A: tuple[float, ...] = ()
    pairs: str = ""


@dataclass(frozen=True)
class Thermostat:
    """What all thermostats have; a row of the registry ``THERMOSTATS`` is a subclass.

    Attributes:
        tau_fs: time constant, fs; None where the mode has none.
        element_tau_fs: by label of atoms.
        atom_tau_fs: by index from 0, as written in the input, such as ``0, 7``.
        bonds: friction along bonds.
        mode: i-PI's name of it.
    """

    label: ClassVar[str] = ""
    takes_local_tags: ClassVar[bool] = False  # <local_tau> and <bonds>
    needs_ours: ClassVar[bool] = False  # plain i-PI does not know this mode
    is_langevin: ClassVar[bool] = False  # a friction g takes out 2 g (K - K0) of kinetic energy

    tau_fs: float | None = None
    element_tau_fs: Mapping[str, float] = field(default_factory=dict)
    atom_tau_fs: Mapping[str, float] = field(default_factory=dict)
    bonds: tuple[BondFriction, ...] = ()
    mode: str = ""

    @classmethod
    def from_xml(cls, element: ET.Element, read: QuantityReader) -> Thermostat:
        """Reads a ``<thermostat>``.

        Args:
            element: the tag.
            read: gives numbers in our units.

        Raises:
            InputError: a time constant is not positive, or a tag does not go with the mode.
        """
        mode = element.get("mode", "").strip()
        local = [e for tag in LOCAL_TAGS for e in element.findall(tag)]
        if local and not cls.takes_local_tags:
            raise InputError(
                "thermostat mode", mode, f"<{local[0].tag}> goes with langevin and ffl"
            )
        tau = element.find("tau")
        by_element: dict[str, float] = {}
        by_atom: dict[str, float] = {}
        for tag in element.findall("local_tau"):
            value = read.quantity(tag, "femtosecond")
            for name in _list_items(tag.get("names", "")):
                by_element[name] = value
            if atoms := tag.get("atoms", "").strip():
                by_atom[atoms] = value
        pairs = tuple(_bond(tag, read) for tag in element.findall("bonds"))
        return cls(
            None if tau is None else read.quantity(tau, "femtosecond"),
            by_element,
            by_atom,
            pairs,
            mode,
        )

    def local_tags(self) -> list[str]:
        """``<local_tau>`` and ``<bonds>`` as XML, with comments."""
        tags = [ELEMENT_COMMENT] if self.element_tau_fs else []
        for name, tau in self.element_tau_fs.items():
            value = decimal(tau)
            tags.append(f"<local_tau names='{name}' units='femtosecond'>{value}</local_tau>")
        if self.bonds:
            tags.append(BOND_COMMENT)
        for bond in self.bonds:
            reach = ", ".join(decimal(x) for x in bond.range_A)
            tags.append(
                f"<bonds names='{', '.join(bond.names)}'>"
                f"<tau units='femtosecond'>{decimal(bond.tau_fs)}</tau>"
                f"<range units='angstrom'>[{reach}]</range></bonds>"
            )
        return tags

    def to_xml(self) -> str:
        """The whole ``<thermostat>``."""
        tau = f"<tau units='femtosecond'>{decimal(self.tau_fs)}</tau>" if self.tau_fs else ""
        return f"<thermostat mode='{self.mode}'>{tau}{''.join(self.local_tags())}</thermostat>"

    @property
    def labels(self) -> frozenset[str]:
        """Labels of atoms that it names."""
        named = {n for bond in self.bonds if not bond.pairs for n in bond.names}
        return frozenset(self.element_tau_fs) | named

    @property
    def special(self) -> bool:
        """Whether plain i-PI lacks it."""
        return self.needs_ours or bool(self.element_tau_fs or self.atom_tau_fs or self.bonds)

    @property
    def friction_per_ps(self) -> float | None:
        """Friction of the atoms that no tag of their own names, 1/ps."""
        return 1000.0 / self.tau_fs if self.tau_fs else None

    @property
    def bond_friction_per_ps(self) -> float:
        """Largest friction along bonds, 1/ps; 0: none."""
        return max((1000.0 / bond.tau_fs for bond in self.bonds), default=0.0)

    def frictions_per_ps(self, numbers: np.ndarray) -> np.ndarray | None:
        """Friction of every atom, (n,) in 1/ps, for atomic numbers (n,); None: not a friction."""
        if not self.is_langevin or not self.tau_fs:
            return None
        rates = np.full(len(numbers), 1000.0 / self.tau_fs)
        for name, tau in self.element_tau_fs.items():
            if name in atomic_numbers:
                rates[np.asarray(numbers) == atomic_numbers[name]] = 1000.0 / tau
        for atoms, tau in self.atom_tau_fs.items():
            rates[[int(a) for a in _list_items(atoms)]] = 1000.0 / tau
        return rates

    @property
    def one_langevin_friction_per_ps(self) -> float | None:
        """The Langevin friction of all atoms, where there is just one; None: anything else.

        It bounds the error of a mean temperature (``core.statistics.langevin_floor_K``) and turns
        the drift of the conserved quantity into a heating.
        """
        special = bool(self.element_tau_fs or self.atom_tau_fs or self.bonds)
        if not self.is_langevin or special:
            return None
        return self.friction_per_ps


class Langevin(Thermostat):
    """White-noise Langevin friction."""

    label = "Langevin"
    takes_local_tags = True
    is_langevin = True


class FastForwardLangevin(Thermostat):
    """Fast-forward Langevin: the length of each atom's velocity only, its direction is kept."""

    label = "fast-forward Langevin"
    takes_local_tags = True

    def frictions_per_ps(self, numbers: np.ndarray) -> np.ndarray | None:
        """As of Langevin: kinetic energies relax at the same rates."""
        rates = Langevin(self.tau_fs, self.element_tau_fs, self.atom_tau_fs, self.bonds)
        return rates.frictions_per_ps(numbers)


class StochasticVelocityRescaling(Thermostat):
    """Global: one factor for all velocities; tau is its relaxation time."""

    label = "stochastic velocity rescaling"


class StockThermostat(Thermostat):
    """Any other thermostat of i-PI (``gle``, ``pile_l``, ``multi``, ...), kept as it is."""

    label = "i-PI's own"


THERMOSTATS: Registry[type[Thermostat]] = Registry(
    "thermostats",
    "thermostat",
    {"langevin": Langevin, "ffl": FastForwardLangevin, "svr": StochasticVelocityRescaling},
)


def read_thermostat(element: ET.Element, read: QuantityReader) -> Thermostat:
    """The object of a ``<thermostat>`` tag, by its mode.

    Raises:
        InputError: as ``Thermostat.from_xml``; a package that adds the mode cannot be imported.
    """
    mode = element.get("mode", "").strip()
    kind = THERMOSTATS.get(mode) if mode in THERMOSTATS else StockThermostat
    return kind.from_xml(element, read)


def make_thermostat(
    mode: str,
    friction_per_ps: float,
    friction_by_element_per_ps: Mapping[str, float] | None = None,
    bonds: Sequence[BondFriction] = (),
) -> Thermostat:
    """A thermostat of a registered mode.

    Raises:
        InputError: no such mode, or frictions that it does not take.
    """
    kind = THERMOSTATS.get(mode)
    by_element = {k: 1000.0 / v for k, v in (friction_by_element_per_ps or {}).items()}
    if (by_element or bonds) and not kind.takes_local_tags:
        raise InputError(
            "thermostat", mode, "has the same friction for all atoms; use langevin or ffl"
        )
    return kind(1000.0 / friction_per_ps, by_element, {}, tuple(bonds), mode)


def thermostat_mid_drift(splitting: str, steps: Sequence[int]) -> bool:
    """Whether the thermostat acts in the middle of an inner drift.

    It decides which kinetic temperature a finite time step has (``analysis.kinetic``). Stock
    ``baoab`` acts there with odd ``nmts``, BAOAB-RESPA in every inner step, ``obabo`` never.
    """
    odd = all(n % 2 == 1 for n in steps)
    return "respa" in splitting or (splitting == "baoab" and odd)


def _list_items(text: str) -> list[str]:
    return re.findall(r"[^\s,\[\]]+", text)


def _bond(tag: ET.Element, read: QuantityReader) -> BondFriction:
    tau = tag.find("tau")
    reach = tag.find("range")
    return BondFriction(
        read.quantity(tau, "femtosecond") if tau is not None else 0.0,
        tuple(_list_items(tag.get("names", ""))),
        () if reach is None else tuple(read.quantities(reach, "angstrom")),
        " ".join((tag.findtext("pairs") or "").split()),
    )
