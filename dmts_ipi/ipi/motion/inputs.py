"""XML tags of the integrators: read from an input, and stored in checkpoints, as i-PI does.

<dynamics mode='nvt' splitting='baoab-respa'>
  <thermostat mode='langevin'>                              or ffl
    <tau units='femtosecond'>1000</tau>                     all atoms
    <local_tau names='H' units='femtosecond'>100</local_tau>          by label: HHF
    <local_tau atoms='0, 7' units='femtosecond'>200</local_tau>       by index
    <bonds names='O, H'>                                    friction along bonds
      <tau units='femtosecond'>20</tau>
      <range units='angstrom'>[1.25, 1.5]</range>            weight one below, zero above
    </bonds>
    <bonds> <tau units='femtosecond'>20</tau> <pairs shape='(2, 2)'>[0, 1, 0, 2]</pairs> </bonds>
  </thermostat>
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from copy import deepcopy
from typing import Any, ClassVar

import numpy as np
from ipi.inputs.motion.dynamics import InputDynamics
from ipi.inputs.thermostats import InputThermo
from ipi.utils.inputvalue import Input, InputArray, InputAttribute, InputValue
from ipi.utils.io.inputs.io_xml import xml_node
from ipi.utils.units import unit_to_internal, unit_to_user

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.propagator import ThermostatEngine
from dmts_ipi.ipi.thermostats import THERMOSTATS

from .bonds import BondTau
from .thermostat_engine import EngineThermostat
from .thermostats import LocalTau, ThermoLocal

LOCAL, BONDS = "local_tau", "bonds"


def _list_items(text: str) -> tuple[str, ...]:
    return tuple(w for w in text.strip().strip("[]").replace(",", " ").split() if w)


def _indices(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(w) for w in _list_items(text))
    except ValueError as error:
        raise InputError(f"{LOCAL}: atoms", text, "must be indices such as '0, 7'") from error


class InputLocalTau(InputValue):
    """``<local_tau>``: time constant of some atoms."""

    attribs: ClassVar[dict[str, Any]] = {
        **InputValue.attribs,
        "names": (
            InputAttribute,
            {"dtype": str, "default": "", "help": "Labels of the atoms, such as 'H, D'."},
        ),
        "atoms": (
            InputAttribute,
            {"dtype": str, "default": "", "help": "Indices of the atoms, from 0."},
        ),
    }

    def __init__(self, help: str | None = None, default: Any = None) -> None:
        super().__init__(help=help, default=default, dtype=float, dimension="time")

    def read(self) -> LocalTau:
        """The entry.

        Raises:
            InputError: it names no atoms.
        """
        names, atoms = _list_items(self.names.fetch()), _indices(self.atoms.fetch())
        if not names and not atoms:
            raise InputError(LOCAL, "", "selects no atoms; write <local_tau names='H' ...>")
        return LocalTau(float(self.fetch()), names, atoms)

    def put(self, entry: LocalTau) -> None:
        """The reverse of ``read``."""
        self.store(entry.tau)
        self.names.store(", ".join(entry.names))
        self.atoms.store(", ".join(str(a) for a in entry.atoms))


class InputBonds(Input):
    """``<bonds>``: friction along a kind of pair."""

    attribs: ClassVar[dict[str, Any]] = {
        "names": (
            InputAttribute,
            {"dtype": str, "default": "", "help": "Labels of the two atoms, such as 'O, H'."},
        )
    }
    fields: ClassVar[dict[str, Any]] = {
        "tau": (
            InputValue,
            {"dtype": float, "dimension": "time", "default": 0.0, "help": "Time constant."},
        ),
        "range": (
            InputArray,
            {
                "dtype": float,
                "dimension": "length",
                "default": np.zeros(0, float),
                "help": "Distances up to which the weight is one, and from which it is zero.",
            },
        ),
        "pairs": (
            InputArray,
            {"dtype": int, "default": np.zeros(0, int), "help": "Pairs of indices, from 0."},
        ),
    }
    default_help = "Friction on the relative velocity along short pairs of atoms."
    default_label = "BONDS"

    def read(self) -> BondTau:
        """The entry.

        Raises:
            InputError: it is wrong by itself.
        """
        pairs, reach = self.pairs.fetch().flatten(), self.range.fetch().flatten()
        if len(pairs) % 2:
            raise InputError(f"{BONDS}: pairs", pairs.tolist(), "must be pairs of indices")
        if not len(pairs) and len(reach) != 2:
            raise InputError(
                f"{BONDS}: range", reach.tolist(), "must be two distances, such as [1.25, 1.5]"
            )
        limits = (float(reach[0]), float(reach[1])) if len(reach) == 2 else (0.0, 0.0)
        entry = BondTau(
            float(self.tau.fetch()), _list_items(self.names.fetch()), limits, pairs.reshape(-1, 2)
        )
        entry.check()
        return entry

    def put(self, entry: BondTau) -> None:
        """The reverse of ``read``."""
        self.store()
        self.tau.store(entry.tau)
        self.names.store(", ".join(entry.names))
        if len(entry.pairs):
            self.pairs.store(np.asarray(entry.pairs))
        else:
            self.range.store(np.asarray(entry.range))


# What i-PI itself reads of the thermostat of another package.
KEPT = ("ethermo", "s")


class InputLocalThermo(InputThermo):
    """i-PI's ``<thermostat>``, with ``<local_tau>`` and ``<bonds>`` in langevin and ffl.

    A mode that i-PI does not know is looked for in the registry ``thermostats``: all its tags are
    read and written by its object there.
    """

    attribs: ClassVar[dict[str, Any]] = deepcopy(InputThermo.attribs)
    stock_modes = tuple(attribs["mode"][1].pop("options"))
    _foreign: Any = None  # object of the registry that has read the tags

    dynamic: ClassVar[dict[str, Any]] = {
        **InputThermo.dynamic,
        LOCAL: (InputLocalTau, {"help": "Time constant of some atoms."}),
        BONDS: (InputBonds, {"help": "Friction along short pairs of atoms."}),
    }

    def _ours(self) -> bool:
        return any(name in (LOCAL, BONDS) for name, _ in self.extra)

    def parse(self, xml: Any = None, text: str = "") -> None:
        """Reads the tag; see i-PI.

        Raises:
            InputError: no such mode, or its tags are wrong.
        """
        self._foreign = None
        mode = "" if xml is None else str(xml.attribs.get("mode", "")).strip()
        if mode in self.stock_modes:
            super().parse(xml, text)
            return
        self._foreign = THERMOSTATS.get(mode).from_xml(_element(xml), _Quantities())
        kept = [(name, node) for name, node in xml.fields if name in KEPT]
        super().parse(xml_node(attribs=xml.attribs, name=xml.name, fields=kept))

    def write(self, name: str = "", indent: str = "", text: str = "\n") -> Any:
        """The tag as text; see i-PI."""
        if self._foreign is not None:
            inside = ET.fromstring(self._foreign.to_xml())
            lines = (ET.tostring(tag, encoding="unicode").strip() for tag in inside)
            text += "".join(f"{indent}   {line}\n" for line in lines)
        return super().write(name, indent, text)

    def store(self, thermo: Any) -> None:
        """Stores a thermostat of ours under i-PI's tags, as far as those go, or one of i-PI's."""
        if isinstance(thermo, EngineThermostat):
            self._explicit, self._foreign = True, thermo.spec
            self.mode.store(thermo.mode)
            self.ethermo.store(thermo.ethermo)
            if len(thermo.engine.state):
                self.s.store(np.array(thermo.engine.state, float))
            return
        self._foreign = None
        if not isinstance(thermo, ThermoLocal):
            super().store(thermo)
            return
        self._explicit = True
        self.mode.store(thermo.mode)
        self.tau.store(thermo.tau)
        self.ethermo.store(thermo.ethermo)
        self.extra = []
        for local in thermo.local:
            tag = InputLocalTau()
            tag.put(local)
            self.extra.append((LOCAL, tag))
        for bond in thermo.bond_taus:
            pair = InputBonds()
            pair.put(bond)
            self.extra.append((BONDS, pair))

    def fetch(self) -> Any:
        """The thermostat: of ours only if a tag of ours is there.

        Raises:
            InputError: a tag of ours in a thermostat that has no use for it.
        """
        if self._foreign is not None:
            return self._fetch_foreign()
        if not self._ours():
            return super().fetch()
        mode = self.mode.fetch()
        if mode not in ("langevin", "ffl"):
            raise InputError(
                "thermostat mode", mode, f"{LOCAL} and {BONDS} go with langevin and ffl"
            )
        if mode == "ffl" and self.flip.fetch() != "rescale":
            raise InputError("flip", self.flip.fetch(), f"{LOCAL} and {BONDS} go with 'rescale'")
        thermo = ThermoLocal(
            mode,
            self.tau.fetch(),
            [tag.read() for _, tag in self.extra if isinstance(tag, InputLocalTau)],
            [tag.read() for _, tag in self.extra if isinstance(tag, InputBonds)],
        )
        thermo.ethermo = self.ethermo.fetch()
        return thermo

    def _fetch_foreign(self) -> EngineThermostat:
        spec, mode = self._foreign, self.mode.fetch()
        engine = spec.engine() if hasattr(spec, "engine") else None
        if not isinstance(engine, ThermostatEngine):
            raise InputError("thermostat mode", mode, "has no engine; define the method engine()")
        thermo = EngineThermostat(spec, engine)
        thermo.ethermo = self.ethermo.fetch()
        state = self.s.fetch().reshape(-1)
        if len(state):
            if len(state) != len(engine.state):
                wanted = f"has {len(state)} numbers, '{mode}' keeps {len(engine.state)}"
                raise InputError("thermostat: s", "", wanted)
            engine.state[:] = state
        return thermo


def _element(node: xml_node) -> ET.Element:
    """A node of i-PI's parser as an element of Python's."""
    element = ET.Element(node.name, {k: str(v) for k, v in node.attribs.items()})
    for name, inside in node.fields:
        if name == "_text":
            element.text = (element.text or "") + inside
        else:
            element.append(_element(inside))
    return element


_DIMENSIONS = {"femtosecond": "time", "kelvin": "temperature", "angstrom": "length"}


class _Quantities:
    """Numbers of tags in a unit: femtosecond, kelvin or angstrom. Without units: atomic units."""

    def quantity(self, element: ET.Element, to: str) -> float:
        """The number of a tag."""
        return self._convert(element, (element.text or "").strip(), to)

    def quantities(self, element: ET.Element, to: str) -> list[float]:
        """The numbers of a tag that holds a list."""
        return [self._convert(element, word, to) for word in _list_items(element.text or "")]

    def _convert(self, element: ET.Element, text: str, to: str) -> float:
        dimension = _DIMENSIONS[to]
        try:
            value = unit_to_internal(dimension, element.get("units", "automatic"), float(text))
        except (ValueError, TypeError) as error:
            raise InputError(element.tag, text, f"must be a number with units='{to}'") from error
        return float(unit_to_user(dimension, to, value))


class InputRespaDynamics(InputDynamics):
    """i-PI's ``<dynamics>``, with every splitting of the registry and our thermostats.

    ``RespaDynamics`` refuses a splitting that is in no row.
    """

    attribs: ClassVar[dict[str, Any]] = deepcopy(InputDynamics.attribs)
    attribs["splitting"][1].pop("options")
    fields: ClassVar[dict[str, Any]] = {
        **InputDynamics.fields,
        "thermostat": (InputLocalThermo, InputDynamics.fields["thermostat"][1]),
        "propagator": (
            InputValue,
            {
                "dtype": dict,
                "default": {},
                "help": "Options of a propagator of another package, such as {model: file}.",
            },
        ),
    }

    def store(self, dyn: Any) -> None:
        """Stores; see i-PI."""
        super().store(dyn)
        if dyn != {}:
            self.propagator.store(dyn.propagator_options)
