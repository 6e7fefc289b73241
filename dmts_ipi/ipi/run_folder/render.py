"""Renders an i-PI input from a template of ``ipi_inputs/``: values change, comments stay."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.levels import (
    STUDENT,
    TEACHER,
    Level,
    force_names,
    sampled,
    totals,
    weights_of,
)
from dmts_ipi.ipi.input_xml import DYNAMICS, FORCES, InputXML
from dmts_ipi.ipi.thermostats import BondFriction
from dmts_ipi.ipi.thermostats import decimal as number

from .config import RunConfig
from .folder import STRUCTURE
from .resources import inputs_folder, resource_folder

FRAMES_PER_FORCES = 20  # every 1 ps by default: enough for the analysis, and next to nothing
RESIDENT_COMMENT = """<!-- The student within i-PI's process: no driver, no exchange in inner steps.
       telemetry: the name under which the watchdog hears it. -->"""
SOCKET = """<!-- The socket of '{name}', the same settings. -->
  <ffsocket name='{name}' mode='unix' pbc='False'>
    <address>{address}</address>
    <latency>1e-4</latency>
    <timeout>600</timeout>
    <consolidate_messages>True</consolidate_messages>{virial}
  </ffsocket>"""
VIRIAL = "\n    <parameters>{virial: required}</parameters>"


def template_path(ensemble: str, mode: str) -> Path:
    """Template of an ensemble (nvt, nve, npt) and a mode (sts, dmts)."""
    return inputs_folder() / f"{ensemble}_{mode}.xml"


def put_in_process(t: InputXML, config: RunConfig, telemetry: str) -> None:
    """The fastest model as a PES of i-PI, in the place of its socket.

    Args:
        t: the input.
        config: the run.
        telemetry: the name under which its telemetry is heard.

    Raises:
        InputError: its model cannot be named within i-PI's braces.
    """
    name = config.in_process
    model = config.models[name]
    if any(mark in model.model for mark in ",{}"):
        raise InputError(
            "student_in_process",
            model.model,
            "i-PI does not allow commas or braces in the name of an in-process model; leave the "
            "option out",
        )
    fields = {
        "model": model.model,
        "structure": STRUCTURE,
        "device": model.device,
        "dtype": model.dtype or "float32",
        "telemetry": telemetry,
    }
    if model.threads:
        fields["threads"] = str(model.threads)
    if config.ensemble == "npt":
        fields["need_virial"] = "true"
    parameters = ", ".join(f"{k}: {v}" for k, v in fields.items())
    pes = resource_folder("drivers") / "ipi_pes.py"
    t.replace(
        name,
        f"{RESIDENT_COMMENT}<ffdirect name='{name}' pbc='False'>\n    <pes>custom</pes>\n"
        f"    <pes_path>{escape(str(pes))}</pes_path>\n"
        f"    <parameters>{{{escape(parameters)}}}</parameters>\n  </ffdirect>",
    )


def put_levels(t: InputXML, config: RunConfig, addresses: Mapping[str, str]) -> None:
    """Levels that the template does not have: one force and one socket for each model.

    Args:
        t: the input, made from the template of two levels or of one.
        config: the run.
        addresses: socket names by model.
    """
    levels = config.mts_levels
    names = list(force_names(levels))
    forces = t.root.find("system/forces")
    present = [f.get("forcefield", "") for f in forces] if forces is not None else []
    standard = [TEACHER] if config.mode == "sts" else [TEACHER, STUDENT]
    if names == standard and config.level_scheme == "difference":
        return
    assert forces is not None
    for old, new in zip(standard, names, strict=False):
        t.set(f"ffsocket[@name='{old}']", name=f"{new} ")  # a space: no clash while renaming
        t.set(f"{FORCES}[@forcefield='{old}']", forcefield=f"{new} ")
    for element in [*t.root.findall("ffsocket"), *t.root.findall(FORCES)]:
        for key in ("name", "forcefield"):
            if key in element.attrib:
                element.set(key, element.get(key, "").strip())
    virial = VIRIAL if config.ensemble == "npt" else ""
    for name in names[len(present) :]:
        socket = SOCKET.format(name=name, address=addresses.get(name, ""), virial=virial)
        t.insert_after("ffsocket", socket)
        t.insert_after(FORCES, f"<force forcefield='{name}'><mts_weights>[]</mts_weights></force>")
    _say_levels(t, levels)
    if len(levels) > 1:
        for name in names:
            weights = ", ".join(number(w) for w in weights_of(levels, name))
            t.set(f"{FORCES}[@forcefield='{name}']/mts_weights", f"[{weights}]")


def _say_levels(t: InputXML, levels: Sequence[Level]) -> None:
    """The comment before the forces, which the template has for teacher and student."""
    system = t.root.find("system")
    for comment in [] if system is None else system:
        if comment.tag is ET.Comment and (comment.text or "").strip().startswith("Weights per"):
            comment.text = (
                " Weights per level, from the outermost to the innermost. What is sampled is each\n"
                f"         force times the sum of its weights: {sampled(totals(levels))}. "
            )


def render(
    config: RunConfig,
    addresses: Mapping[str, str],
    pairs: Sequence[BondFriction] = (),
    fixed_atoms: Sequence[int] = (),
) -> str:
    """``input.xml`` of a run.

    Args:
        config: the run.
        addresses: unix socket name by model.
        pairs: kinds of pairs that the bond thermostat acts on, where the run has one.
        fixed_atoms: indices of atoms that do not move.
    """
    file = template_path(config.ensemble, config.mode)
    t = InputXML(file.read_text(), file.name)
    properties, frames, checkpoints = config.strides
    t.set(".", safe_stride=properties)
    t.set("output/properties", stride=properties)
    t.set("output/trajectory", stride=frames, format=config.trajectory_format)
    t.set("output/trajectory[@filename='forces']", stride=FRAMES_PER_FORCES * frames)
    t.set("output/checkpoint", stride=checkpoints)
    t.set("total_steps", config.total_steps)
    t.set("prng/seed", config.seed)
    put_levels(t, config, addresses)
    for name, address in addresses.items():
        t.set(f"ffsocket[@name='{name}']/address", address)
    if config.student_in_process:
        put_in_process(t, config, addresses[config.in_process])
    t.set("system/initialize/file", STRUCTURE)
    t.set("system/initialize/velocities", number(config.temperature_K))
    t.set("system/ensemble/temperature", number(config.temperature_K))
    t.set(f"{DYNAMICS}/timestep", number(config.outer_fs))
    if config.mode == "dmts":
        t.set(f"{DYNAMICS}/nmts", str(list(config.levels.values())))
    if fixed_atoms:
        indices = ", ".join(str(int(k)) for k in fixed_atoms)
        t.insert_after("system/motion/fixcom", f"<fixatoms>[{indices}]</fixatoms>")
    if config.ensemble != "nve":
        thermostat = config.thermostat_spec(pairs if config.bond_friction_per_ps else ())
        t.set(DYNAMICS, splitting=config.splitting)
        t.set(f"{DYNAMICS}/thermostat", mode=config.thermostat)
        t.set(f"{DYNAMICS}/thermostat/tau", number(1000 / config.friction_per_ps))
        t.add(f"{DYNAMICS}/thermostat", thermostat.local_tags())
    if config.ensemble == "npt":
        t.set("system/ensemble/pressure", number(config.pressure_bar))
        t.set(f"{DYNAMICS}/barostat/tau", number(config.barostat_tau_fs))
    return t.text()
