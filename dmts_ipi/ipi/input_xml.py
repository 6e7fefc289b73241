"""What an i-PI input says, and whether dmts-ipi can run it: one line for the first thing wrong."""

from __future__ import annotations

import contextlib
import io
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.private import user_folder

SOCKET_PREFIX = "/tmp/ipi_"  # i-PI's default, <simulation sockets_prefix='...'>
TEACHER, STUDENT = "teacher", "student"
ENSEMBLES = ("nvt", "nve", "npt")
FORCES = "system/forces/force"
RESPA = "baoab-respa"
SPLITTINGS = ("baoab", "obabo", RESPA)
OUR_TAGS = ("local_tau", "bonds")  # of a thermostat; i-PI has none of them
# trajectories that i-PI writes bead by bead
BY_BEAD = (
    *("positions", "velocities", "momenta", "forces", "forces_spring", "forces_sc", "Eforces"),
    *("extras", "extras_bias", "becx", "becy", "becz"),
)
# tags whose value means nothing without a unit, and an example of one
UNITS: dict[str, tuple[str, str]] = {
    "timestep": ("time", "femtosecond"),
    "tau": ("time", "femtosecond"),
    "local_tau": ("time", "femtosecond"),
    "temperature": ("temperature", "kelvin"),
    "pressure": ("pressure", "bar"),
    "velocities": ("temperature", "kelvin"),
    "masses": ("mass", "dalton"),
}


@dataclass(frozen=True)
class Socket:
    """Where i-PI listens for a driver: ``unix`` (a name) or ``inet`` (host and port).

    ``prefix``: of the socket file, as i-PI's option -S; it is not part of what an input says.
    """

    mode: str
    address: str
    port: int
    prefix: str = field(default=SOCKET_PREFIX, compare=False)

    @property
    def path(self) -> Path:
        """Socket file of the unix mode."""
        return Path(self.prefix + self.address)

    @property
    def paths(self) -> tuple[Path, ...]:
        """Where an i-PI of this user may have put the socket file: started by hand, or by us."""
        return self.path, Path(SOCKET_PREFIX + self.address), user_folder() / self.address


@dataclass(frozen=True)
class Output:
    """One output of i-PI: its kind (tag), what it holds, its file name and stride in steps."""

    kind: str
    what: str
    filename: str
    stride: int


@dataclass(frozen=True)
class InputFacts:
    """What dmts-ipi needs to know of an input or of a checkpoint.

    ``splitting``: of the integrator. ``ours``: plain i-PI cannot run it, ``dmts-ipi i-pi`` can.
    ``labels``: atoms that thermostats name. ``forces``: the forcefield of each force, in order.
    """

    step: int
    total_steps: int
    ensemble: str
    outer_step_fs: float
    n_inner: int
    temperature_K: float | None
    sockets: dict[str, Socket]
    outputs: list[Output] = field(default_factory=list)
    splitting: str = "obabo"
    ours: bool = False
    labels: frozenset[str] = frozenset()
    resident: str = ""  # telemetry name of a student within i-PI
    forces: tuple[str, ...] = ()

    def check_labels(self, symbols: Iterable[str]) -> None:
        """Refuses thermostats that name atoms which a structure with these symbols lacks.

        Raises:
            InputError: names the first.
        """
        known = set(symbols)
        for label in sorted(self.labels - known):
            raise InputError(
                "input.xml: thermostat",
                label,
                f"no such atom; there are {', '.join(sorted(known))}",
            )

    def output(self, kind: str, what: str = "") -> Output | None:
        """The first output of a kind (``properties``, ``trajectory``, ``checkpoint``)."""
        return next((o for o in self.outputs if o.kind == kind and o.what.startswith(what)), None)

    @property
    def teacher_forces(self) -> Output | None:
        """The trajectory of the teacher's forces.

        Not i-PI's ``forces``, which asks the student, too: in single steps nobody else does, and
        the watchdog would take it for their end.
        """
        if TEACHER not in self.forces:
            return None
        what = f"forces_component(index={self.forces.index(TEACHER)})"
        same = (o for o in self.outputs if o.what.replace(" ", "").startswith(what))
        return next((o for o in same if o.kind == "trajectory"), None)


class _Reader:
    """Reads fields of one file; every complaint names the file and the field."""

    def __init__(self, root: ET.Element, name: str, units_required: bool) -> None:
        self.root, self.name, self.units_required = root, name, units_required

    def fail(self, what: str, value: object, remedy: str) -> InputError:
        return InputError(f"{self.name}: {what}", value, remedy)

    def find(self, path: str) -> ET.Element:
        element = self.root.find(path)
        if element is None:
            raise self.fail(path.rsplit("/", 1)[-1], "", f"is missing; add <{path}>")
        return element

    def integer(self, text: str | None, what: str) -> int:
        try:
            return int((text or "").strip())
        except ValueError as error:
            raise self.fail(what, (text or "").strip(), "must be a whole number") from error

    def quantity(self, element: ET.Element, to: str) -> float:
        """Value of an element in our unit; demands a unit where the file is written by hand."""
        text, what = (element.text or "").strip(), element.tag
        dimension, example = UNITS[what]
        unit = element.get("units")
        if unit is None and self.units_required:
            raise self.fail(what, text, f"has no unit; write <{what} units='{example}'>")
        try:
            value = float(text)
        except ValueError as error:
            raise self.fail(what, text, "must be a number") from error
        from ipi.utils.units import unit_to_internal

        try:
            with contextlib.redirect_stdout(io.StringIO()):  # i-PI prints its table of units
                inside = unit_to_internal(dimension, unit or "atomic_unit", value)
        except (TypeError, ValueError) as error:
            raise self.fail(what, f"units='{unit}'", f"unknown unit; try '{example}'") from error
        return float(inside / unit_to_internal(dimension, to, 1.0))

    def numbers(self, element: ET.Element | None) -> list[float]:
        if element is None or not (element.text or "").strip():
            return []
        words = re.split(r"[\s,]+", (element.text or "").strip().strip("[]").strip())
        try:
            return [float(w) for w in words if w]
        except ValueError as error:
            text = (element.text or "").strip()
            raise self.fail(element.tag, text, "must be a list such as [1, 5]") from error


def parse_xml(path: Path) -> ET.Element:
    """Root of an i-PI input or checkpoint.

    Raises:
        InputError: the file is absent, is no XML (truncated, for example), or is not of i-PI.
    """
    try:
        root = ET.parse(path).getroot()
    except FileNotFoundError as error:
        raise InputError("file", path, "does not exist") from error
    except ET.ParseError as error:
        raise InputError("file", path, f"is not valid XML ({error})") from error
    if root.tag != "simulation":
        raise InputError("file", path, f"starts with <{root.tag}>, not with <simulation>")
    return root


def read_input(path: Path) -> InputFacts:
    """Reads and checks an input that a person may have edited.

    Raises:
        InputError: the first thing that is wrong: field, value, remedy.
    """
    return _facts(_Reader(parse_xml(path), path.name, units_required=True))


def read_checkpoint(path: Path) -> InputFacts:
    """The same for a checkpoint that i-PI wrote: atomic units, defaults left out."""
    return _facts(_Reader(parse_xml(path), path.name, units_required=False))


def _facts(r: _Reader) -> InputFacts:
    dynamics = r.find("system/motion/dynamics")
    ensemble = dynamics.get("mode", "nve").strip()
    if ensemble not in ENSEMBLES:
        raise r.fail("dynamics mode", ensemble, f"must be one of {', '.join(ENSEMBLES)}")
    outer = r.quantity(r.find("system/motion/dynamics/timestep"), "femtosecond")
    if not 0 < outer < 1000:
        raise r.fail("timestep", f"{outer:g} fs", "must be positive and of the order of 1 to 10 fs")
    levels = _levels(r, dynamics)
    _check_weights(r, levels)
    temperature = r.root.find("system/ensemble/temperature")
    splitting, ours, labels = _thermostat(r, dynamics, ensemble)
    for tag in ("tau", "local_tau", "velocities", "masses", "pressure"):
        for element in r.root.iter(tag):
            if tag.endswith("tau") and not r.quantity(element, "femtosecond") > 0:
                text = (element.text or "").strip()
                raise r.fail(tag, text, "a time constant must be positive; friction is 1/tau")
            if element.get("mode", "manual") in ("manual", "thermal") and tag != "masses":
                r.quantity(element, UNITS[tag][1])
            elif tag == "masses" and r.units_required and element.get("units") is None:
                raise r.fail(tag, "", f"has no unit; write units='{UNITS[tag][1]}'")
    kelvin = None if temperature is None else r.quantity(temperature, "kelvin")
    if ensemble != "nve" and (kelvin is None or kelvin <= 0):
        raise r.fail("temperature", kelvin, "must be positive in NVT and NPT")
    if ensemble == "npt":
        r.find("system/ensemble/pressure")
        barostat = r.find("system/motion/dynamics/barostat").get("mode", "dummy").strip()
        if splitting == RESPA and barostat != "isotropic":
            raise r.fail("barostat mode", barostat, f"splitting='{RESPA}' takes 'isotropic' only")
    step, total = r.root.find("step"), r.root.find("total_steps")
    total_steps = 1000 if total is None else r.integer(total.text, "total_steps")
    if total_steps < 1:
        raise r.fail("total_steps", total_steps, "must be at least 1")
    return InputFacts(
        step=0 if step is None else r.integer(step.text, "step"),
        total_steps=total_steps,
        ensemble=ensemble,
        outer_step_fs=outer,
        n_inner=math.prod(levels),
        temperature_K=kelvin,
        sockets=_sockets(r),
        outputs=_outputs(r),
        splitting=splitting,
        ours=ours,
        labels=labels,
        resident=_resident(r),
        forces=tuple(f.get("forcefield", "").strip() for f in r.root.findall(FORCES)),
    )


def _thermostat(
    r: _Reader, dynamics: ET.Element, ensemble: str
) -> tuple[str, bool, frozenset[str]]:
    """``splitting``, ``ours`` and ``labels`` of ``InputFacts``."""
    splitting = dynamics.get("splitting", "obabo").strip()
    if splitting not in SPLITTINGS:
        raise r.fail("dynamics splitting", splitting, f"must be one of {', '.join(SPLITTINGS)}")
    labels: set[str] = set()
    special = False
    for thermostat in dynamics.findall("thermostat"):
        mode = thermostat.get("mode", "").strip()
        tags = [e for tag in OUR_TAGS for e in thermostat.findall(tag)]
        special = special or bool(tags)
        if ensemble == "nve" and (tags or mode == "ffl"):
            raise r.fail("thermostat mode", mode, "NVE has no thermostat; remove it or use nvt")
        if tags and mode not in ("langevin", "ffl"):
            remedy = f"<{tags[0].tag}> goes with langevin and ffl"
            raise r.fail("thermostat mode", mode, remedy)
        for tag in tags:
            reach = tag.find("range")
            if r.units_required and reach is not None and reach.get("units") is None:
                raise r.fail("range", (reach.text or "").strip(), "write units='angstrom'")
            if tag.find("pairs") is None:
                labels |= set(re.findall(r"[^\s,\[\]]+", tag.get("names", "")))
    return splitting, splitting == RESPA or special, frozenset(labels)


def single_step(weights: Sequence[float], of_teacher: bool) -> tuple[float, ...]:
    """MTS weights of a force in single time steps: the teacher alone, in the innermost level.

    A force without levels keeps its own.
    """
    if len(weights) < 2:
        return tuple(weights)
    return (*[0.0] * (len(weights) - 1), float(sum(weights)) if of_teacher else 0.0)


def sampled(totals: dict[str, float]) -> str:
    """What is sampled if forces count by these sums of weights over all MTS levels."""
    parts = [f"{total:g} {name}" for name, total in totals.items() if abs(total) > 1e-9]
    return " + ".join(parts) or "no force at all"


def _levels(r: _Reader, dynamics: ET.Element) -> list[int]:
    """``nmts`` as whole numbers; [1] where it is absent."""
    values = r.numbers(dynamics.find("nmts")) or [1.0]
    if any(v != int(v) or v < 1 for v in values):
        text = (dynamics.findtext("nmts") or "").strip()
        raise r.fail(
            "nmts",
            text,
            "each level must be a whole number of steps of the one inside it; write [1, n_inner]",
        )
    return [int(v) for v in values]


def _check_weights(r: _Reader, levels: list[int]) -> None:
    """Every force names a forcefield; over all levels the teacher counts once, others not."""
    known = [e.get("name", "").strip() for e in r.root if e.tag.startswith("ff")]
    for name in known:
        if known.count(name) > 1:
            raise r.fail("forcefield", name, "is defined twice; give each its own name")
    forces = r.root.findall(FORCES)
    if not forces:
        raise r.fail("forces", "", "has no <force>")
    used: dict[str, float] = {}
    for force in forces:
        name = force.get("forcefield", "").strip()
        if name not in known:
            raise r.fail("force", name, f"no such forcefield; there are {', '.join(known)}")
        weights = r.numbers(force.find("mts_weights")) or [1.0]
        if len(weights) != len(levels) and not (len(weights) == 1 and len(levels) == 1):
            raise r.fail(
                f"mts_weights of {name}", weights, f"needs {len(levels)} numbers, one per MTS level"
            )
        used[name] = used.get(name, 0.0) + sum(weights) * float(force.get("weight", "1"))
    if TEACHER not in used:
        raise r.fail("forces", ", ".join(used), f"one force must be named '{TEACHER}'")
    for name, total in used.items():
        wanted = 1.0 if name == TEACHER else 0.0
        if abs(total - wanted) > 1e-9:
            raise r.fail(
                f"mts_weights of {name}",
                f"sum {total:g}",
                f"must sum to {wanted:g} over the levels: teacher [1, 0], student [-1, 1]; as it "
                f"is, {sampled(used)} would be sampled (`dmts-ipi i-pi` takes such an input)",
            )


def _resident(r: _Reader) -> str:
    """``InputFacts.resident``."""
    for element in r.root.findall("ffdirect"):
        if element.get("name", "").strip() == STUDENT:
            text = element.findtext("parameters") or ""
            found = re.search(r"[{,]\s*telemetry\s*:\s*([\w.+-]+)", text)
            return found[1] if found else ""
    return ""


def socket_of(element: ET.Element) -> Socket:
    """Where an ``<ffsocket>`` listens, with i-PI's defaults.

    Raises:
        ValueError: the port is no number.
    """
    mode = "inet" if element.get("mode", "inet").strip() == "inet" else "unix"
    address = (element.findtext("address") or "localhost").strip()
    return Socket(mode, address, int((element.findtext("port") or "65535").strip()))


def _sockets(r: _Reader) -> dict[str, Socket]:
    found: dict[str, Socket] = {}
    prefix = r.root.get("sockets_prefix", SOCKET_PREFIX).strip()
    if r.units_required and prefix != SOCKET_PREFIX:  # a checkpoint has that of i-PI's option -S
        raise r.fail("sockets_prefix", prefix, f"must be left at {SOCKET_PREFIX}")
    for element in r.root.findall("ffsocket"):
        name, mode = element.get("name", "").strip(), element.get("mode", "inet").strip()
        if name not in (TEACHER, STUDENT):
            raise r.fail("ffsocket", name, f"must be named '{TEACHER}' or '{STUDENT}'")
        r.integer(element.findtext("port") or "65535", "port")
        at = found[name] = socket_of(element)
        if mode == "inet":
            continue
        if mode not in ("unix", "shm") or not re.fullmatch(r"[\w.+-]{1,90}", at.address):
            raise r.fail(
                f"address of {name}", at.address, "must be letters, digits, dots and hyphens"
            )
    if len(set(found.values())) < len(found):
        raise r.fail("ffsocket", "address", "two sockets share it; give each its own")
    return found


def _ending(what: str, form: str) -> str:
    """What i-PI appends to the name of a trajectory: the bead, and the format."""
    key = re.split(r"[{(]", what)[0].strip()
    bead = "_0" if key in BY_BEAD else ""
    return bead if key.startswith("extras") else f"{bead}.{'extxyz' if form == 'ase' else form}"


def _outputs(r: _Reader) -> list[Output]:
    output = r.find("output")
    prefix = output.get("prefix", "i-pi").strip()
    found: list[Output] = []
    for element in output:
        if not isinstance(element.tag, str):
            continue  # a comment
        stride = r.integer(element.get("stride", "1"), f"stride of {element.tag}")
        if stride < 1:
            raise r.fail(f"stride of {element.tag}", stride, "must be at least 1")
        name = (
            f"{prefix}.{element.get('filename', '').strip()}"
            if prefix
            else element.get("filename", "")
        )
        what = " ".join((element.text or "").split())
        if element.tag == "trajectory":
            name += _ending(what, element.get("format", "xyz").strip())
        if element.tag == "checkpoint" and element.get("overwrite", "True").strip() == "True":
            raise r.fail(
                "checkpoint",
                "overwrite='True'",
                "a checkpoint is not written atomically; write overwrite='False'",
            )
        found.append(Output(element.tag, what, name, stride))
    for kind in ("properties", "checkpoint"):
        if not any(o.kind == kind for o in found):
            raise r.fail("output", "", f"needs <{kind}>: progress and resuming rest on it")
    return found
