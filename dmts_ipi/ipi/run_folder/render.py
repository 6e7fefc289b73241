"""Renders an i-PI input from a template of ``ipi_inputs/``: values change, comments stay."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from dmts_ipi.core.errors import InputError

from .bond_pairs import BondPair
from .folder import STRUCTURE, RunConfig
from .resources import inputs_folder, resource_folder

DYNAMICS = "system/motion/dynamics"
FRAMES_PER_FORCES = 20  # every 1 ps by default: enough for the analysis, and next to nothing
RESIDENT_COMMENT = """<!-- The student within i-PI's process: no driver, no exchange in inner steps.
       telemetry: the name under which the watchdog hears it. -->"""
BOND_COMMENT = """<!-- Bond thermostat: friction and noise along short pairs of these elements.
               Full up to the first distance of the range, none from the second. -->"""


class Template:
    """An XML file whose named values are set; anything else, comments included, is kept."""

    def __init__(self, text: str, name: str) -> None:
        """Parses a template.

        Raises:
            InputError: it is no XML.
        """
        parser = ET.XMLParser(target=ET.TreeBuilder(insert_comments=True))
        try:
            self.root = ET.fromstring(text, parser)
        except ET.ParseError as error:
            raise InputError("template", name, f"is not valid XML ({error})") from error
        self.name = name

    def set(self, path: str, value: object = None, **attributes: object) -> None:
        """Sets the text (unless None) and attributes of every element at ``path``.

        Raises:
            InputError: the template has no such element.
        """
        elements = [self.root] if path == "." else self.root.findall(path)
        if not elements:
            raise InputError("template", self.name, f"has no <{path}>")
        for element in elements:
            if value is not None:
                element.text = str(value)
            for key, text in attributes.items():
                element.set(key, str(text))

    def add(self, path: str, fragments: Sequence[str]) -> None:
        """Appends pieces of XML, each with comments or not, to the element at ``path``.

        Raises:
            InputError: the template has no such element.
        """
        element = self.root.find(path)
        if element is None:
            raise InputError("template", self.name, f"has no <{path}>")
        children = list(element)
        inner = element.text or "\n"  # the line break and indentation before a child
        for fragment in fragments:
            parser = ET.XMLParser(target=ET.TreeBuilder(insert_comments=True))
            new = list(ET.fromstring(f"<x>{fragment}</x>", parser))
            for piece in new:
                if children:
                    children[-1].tail = inner
                element.append(piece)
                children.append(piece)
        if children:
            children[-1].tail = inner[:-2] if inner.endswith("  ") else inner

    def replace(self, name: str, fragment: str) -> None:
        """Puts XML in the place of the socket of a forcefield and the comment before it.

        Raises:
            InputError: the template has no such socket.
        """
        children = list(self.root)
        found = [k for k, e in enumerate(children) if e.tag == "ffsocket" and e.get("name") == name]
        if not found:
            raise InputError("template", self.name, f"has no <ffsocket name='{name}'>")
        at, tail = found[0], children[found[0]].tail
        self.root.remove(children[at])
        if at and children[at - 1].tag is ET.Comment:
            self.root.remove(children[at - 1])
            at -= 1
        parser = ET.XMLParser(target=ET.TreeBuilder(insert_comments=True))
        for new in reversed(list(ET.fromstring(f"<x>{fragment}</x>", parser))):
            new.tail = tail
            self.root.insert(at, new)

    def text(self) -> str:
        """The XML."""
        return ET.tostring(self.root, encoding="unicode") + "\n"


def template_path(ensemble: str, mode: str) -> Path:
    """Template of an ensemble (nvt, nve, npt) and a mode (sts, dmts)."""
    return inputs_folder() / f"{ensemble}_{mode}.xml"


def thermostat_tags(config: RunConfig, pairs: Sequence[BondPair]) -> list[str]:
    """Tags of ours inside ``<thermostat>``: friction by element, friction along bonds."""
    tags = []
    if config.friction_by_element_per_ps:
        tags.append("<!-- Friction of its own for an element: tau is 1/friction, as above. -->")
    for name, friction in config.friction_by_element_per_ps.items():
        tau = number(1000 / friction)
        tags.append(f"<local_tau names='{name}' units='femtosecond'>{tau}</local_tau>")
    if config.bond_friction_per_ps and pairs:
        tags.append(BOND_COMMENT)
    for pair in pairs if config.bond_friction_per_ps else ():
        reach = f"[{number(pair.range_A[0])}, {number(pair.range_A[1])}]"
        tags.append(
            f"<bonds names='{', '.join(pair.names)}'>"
            f"<tau units='femtosecond'>{number(1000 / config.bond_friction_per_ps)}</tau>"
            f"<range units='angstrom'>{reach}</range></bonds>"
        )
    return tags


def make_resident(t: Template, config: RunConfig, name: str) -> None:
    """The student as a PES of i-PI, in the place of its socket.

    Args:
        t: the template.
        config: the run.
        name: under which its telemetry is heard.

    Raises:
        InputError: its model cannot be named within i-PI's braces.
    """
    student = config.student
    assert student is not None  # RunConfig demands it
    if any(mark in student.model for mark in ",{}"):
        raise InputError(
            "resident", student.model, "i-PI takes no model with commas or braces; leave it out"
        )
    fields = {
        "model": student.model,
        "structure": STRUCTURE,
        "device": student.device,
        "dtype": student.dtype or "float32",
        "telemetry": name,
    }
    if student.threads:
        fields["threads"] = str(student.threads)
    if config.ensemble == "npt":
        fields["need_virial"] = "true"
    parameters = ", ".join(f"{k}: {v}" for k, v in fields.items())
    pes = resource_folder("drivers") / "ipi_pes.py"
    t.replace(
        "student",
        f"{RESIDENT_COMMENT}<ffdirect name='student' pbc='False'>\n    <pes>custom</pes>\n"
        f"    <pes_path>{escape(str(pes))}</pes_path>\n"
        f"    <parameters>{{{escape(parameters)}}}</parameters>\n  </ffdirect>",
    )


def number(value: float) -> str:
    """Shortest decimal that reads back as the same double, without a trailing .0."""
    return repr(float(value)).removesuffix(".0")


def render(config: RunConfig, addresses: dict[str, str], pairs: Sequence[BondPair] = ()) -> str:
    """``input.xml`` of a run.

    Args:
        config: the run.
        addresses: unix socket name by forcefield (``teacher``, ``student``).
        pairs: kinds of pairs that the bond thermostat acts on, where the run has one.
    """
    file = template_path(config.ensemble, config.mode)
    t = Template(file.read_text(), file.name)
    properties, frames, checkpoints = config.strides
    t.set(".", safe_stride=properties)
    t.set("output/properties", stride=properties)
    t.set("output/trajectory", stride=frames, format=config.trajectory_format)
    t.set("output/trajectory[@filename='forces']", stride=FRAMES_PER_FORCES * frames)
    t.set("output/checkpoint", stride=checkpoints)
    t.set("total_steps", config.total_steps)
    t.set("prng/seed", config.seed)
    for name, address in addresses.items():
        t.set(f"ffsocket[@name='{name}']/address", address)
    if config.resident:
        make_resident(t, config, addresses["student"])
    t.set("system/initialize/file", STRUCTURE)
    t.set("system/initialize/velocities", number(config.temperature_K))
    t.set("system/ensemble/temperature", number(config.temperature_K))
    t.set(f"{DYNAMICS}/timestep", number(config.outer_step_fs))
    if config.mode == "dmts":
        t.set(f"{DYNAMICS}/nmts", f"[1, {config.n_inner}]")
    if config.ensemble != "nve":
        t.set(DYNAMICS, splitting=config.splitting)
        t.set(f"{DYNAMICS}/thermostat", mode=config.thermostat)
        t.set(f"{DYNAMICS}/thermostat/tau", number(1000 / config.friction_per_ps))
        t.add(f"{DYNAMICS}/thermostat", thermostat_tags(config, pairs))
    if config.ensemble == "npt":
        t.set("system/ensemble/pressure", number(config.pressure_bar))
        t.set(f"{DYNAMICS}/barostat/tau", number(config.barostat_tau_fs))
    return t.text()
