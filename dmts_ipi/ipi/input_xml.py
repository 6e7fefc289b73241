"""i-PI inputs: parsed, checked, edited and rendered. The single source of a run's physics.

``InputSpec`` is one parsed input or checkpoint; run, resume, watchdog, tune, profile, benchmark,
analysis and report read a run's physics from it and from nowhere else. ``InputXML`` is the same
file as editable text: values can be changed and comments are kept. ``differences`` compares two
inputs tag by tag, including tags that this module does not know.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.levels import (
    STUDENT,
    TEACHER,
    Level,
    comparisons,
    n_inner,
    reference_of,
    sampled,
    totals,
)
from dmts_ipi.core.private import user_folder

from .thermostats import RESPA, Thermostat, read_thermostat, thermostat_mid_drift

SOCKET_PREFIX = "/tmp/ipi_"  # i-PI's default, <simulation sockets_prefix='...'>
ENSEMBLES = ("nvt", "nve", "npt")
FORCES = "system/forces/force"
DYNAMICS = "system/motion/dynamics"
STOCK_SPLITTINGS = ("baoab", "obabo")
SPLITTINGS = (*STOCK_SPLITTINGS, RESPA)
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
    "range": ("length", "angstrom"),
}
# Tags that this module reads, or that do not affect the physics. Any other tag is passed to i-PI
# unchanged and listed in ``InputSpec.not_analysed``.
KNOWN = {
    "output", "total_steps", "step", "prng", "ffsocket", "ffdirect", "system",
    "system/initialize", "system/initialize/file", "system/initialize/velocities",
    "system/initialize/masses", "system/initialize/labels", "system/initialize/cell",
    "system/initialize/positions",
    "system/forces", "system/forces/force", "system/forces/force/mts_weights",
    "system/ensemble", "system/ensemble/temperature", "system/ensemble/pressure",
    "system/ensemble/bias", "system/ensemble/bias/force",
    "system/motion", "system/motion/fixcom", "system/motion/fixatoms", DYNAMICS,
    f"{DYNAMICS}/timestep", f"{DYNAMICS}/nmts", f"{DYNAMICS}/thermostat", f"{DYNAMICS}/barostat",
    f"{DYNAMICS}/propagator", f"{DYNAMICS}/barostat/tau", f"{DYNAMICS}/barostat/thermostat",
}  # fmt: skip
WHOLE = ("output", "prng", "ffsocket", "ffdirect")  # tags inside these are not checked


@dataclass(frozen=True)
class Socket:
    """Where i-PI listens for a driver: ``unix`` (a name) or ``inet`` (host and port).

    ``prefix`` is that of the socket file, as i-PI's option -S; it is not part of an input.
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
        """Possible places of the socket file, for an i-PI started by hand or by dmts-ipi."""
        return self.path, Path(SOCKET_PREFIX + self.address), user_folder() / self.address


@dataclass(frozen=True)
class Output:
    """One output of i-PI: its kind (tag), content, file name and stride in steps."""

    kind: str
    what: str
    filename: str
    stride: int
    form: str = ""  # of a trajectory: xyz, bin, ...

    @property
    def columns(self) -> dict[str, str]:
        """Names of properties and their units as written, such as ``time: picosecond``."""
        units = {}
        for word in re.findall(r"[^\s,\[\]]+(?:\([^)]*\))?(?:\{[^}]*\})?", self.what):
            name, _, unit = word.partition("{")
            units[name] = unit.rstrip("}")
        return units


@dataclass(frozen=True)
class Barostat:
    """A ``<barostat>``: mode, relaxation time of the volume, and its own thermostat."""

    mode: str
    tau_fs: float | None = None
    thermostat: Thermostat | None = None


@dataclass(frozen=True)
class StartFile:
    """An ``<initialize><file>``: the path as written, its format, and its unit."""

    path: str
    mode: str = "chk"
    units: str = ""


@dataclass(frozen=True)
class InputSpec:
    """The content of an i-PI input or checkpoint.

    Attributes:
        step: step of a checkpoint; 0 in an input.
        total_steps: outer steps at which i-PI stops.
        ensemble: ``nvt``, ``nve`` or ``npt``.
        outer_fs: outer time step, fs.
        levels: levels of multiple time stepping, the outermost first, with forces by name.
        temperature_K: target temperature; None if the ensemble has none.
        sockets: sockets by name of the forcefield.
        outputs: outputs in the order of the file.
        splitting: splitting of the integrator.
        ours: whether the input needs ``dmts-ipi i-pi`` and cannot run under plain i-PI.
        forces: the forcefield of each force, in order.
        in_process: telemetry names of models that run within i-PI's process, by forcefield.
        thermostats: thermostats that act on the atoms.
        barostat: the barostat of an NPT run.
        pressure_bar: the target pressure of an NPT run.
        fixcom: whether the motion of the centre of mass is removed.
        fixed_atoms: indices of fixed atoms, from 0.
        n_beads: beads of a path integral; 1 is classical.
        systems: number of systems in the input.
        seed: seed at the start; None in a checkpoint.
        bias: forcefields of ``<bias>``.
        start: file from which positions are read; None in a checkpoint.
        start_temperature_K: temperature at which velocities are drawn; None: not drawn.
        masses_given: whether ``<initialize>`` has ``<masses>``.
        not_analysed: tags that are passed to i-PI and not analysed.
    """

    step: int
    total_steps: int
    ensemble: str
    outer_fs: float
    levels: tuple[Level, ...]
    temperature_K: float | None
    sockets: dict[str, Socket]
    outputs: list[Output] = field(default_factory=list)
    splitting: str = "obabo"
    ours: bool = False
    forces: tuple[str, ...] = ()
    in_process: Mapping[str, str] = field(default_factory=dict)
    thermostats: tuple[Thermostat, ...] = ()
    barostat: Barostat | None = None
    pressure_bar: float | None = None
    fixcom: bool = True
    fixed_atoms: tuple[int, ...] = ()
    n_beads: int = 1
    systems: int = 1
    seed: int | None = None
    bias: tuple[str, ...] = ()
    start: StartFile | None = None
    start_temperature_K: float | None = None
    masses_given: bool = False
    not_analysed: tuple[str, ...] = ()

    @property
    def n_inner(self) -> int:
        """Innermost steps per outer step."""
        return n_inner(self.levels)

    @property
    def inner_fs(self) -> float:
        """Innermost time step, fs."""
        return self.outer_fs / self.n_inner

    @property
    def level_steps_fs(self) -> list[float]:
        """Time step of each level, from the innermost, fs."""
        steps, fs = [self.inner_fs], self.inner_fs
        for level in reversed(self.levels[1:]):
            fs *= level.steps
            steps.append(fs)
        return [float(f"{x:.9g}") for x in steps]

    @property
    def multiple(self) -> bool:
        """Whether there is more than one level."""
        return len(self.levels) > 1

    @property
    def mode(self) -> str:
        """``sts`` with one level, else ``dmts``."""
        return "dmts" if self.multiple else "sts"

    @property
    def time_ps(self) -> float:
        """Length of the run, ps."""
        return self.total_steps * self.outer_fs / 1000

    @property
    def reference(self) -> str:
        """The force whose ensemble is sampled; empty if it is that of a sum of forces."""
        return reference_of(totals(self.levels))

    @property
    def sampled(self) -> str:
        """The potential that is sampled, in words."""
        return sampled(totals(self.levels))

    @property
    def comparisons(self) -> tuple[tuple[str, str], ...]:
        """Pairs (accurate, fast) of forces of which one corrects the other in some level."""
        return comparisons(self.levels)

    @property
    def thermostat(self) -> Thermostat | None:
        """The thermostat of the atoms; None if there is none or more than one."""
        return self.thermostats[0] if len(self.thermostats) == 1 else None

    @property
    def labels(self) -> frozenset[str]:
        """Labels of atoms that appear in thermostats."""
        return frozenset().union(*(t.labels for t in self.thermostats))

    @property
    def one_langevin_friction_per_ps(self) -> float | None:
        """See ``Thermostat``; None in NVE."""
        if self.ensemble == "nve" or self.thermostat is None:
            return None
        return self.thermostat.one_langevin_friction_per_ps

    @property
    def thermostat_mid_drift(self) -> bool:
        """See ``thermostats.thermostat_mid_drift``."""
        return thermostat_mid_drift(self.splitting, [level.steps for level in self.levels])

    @property
    def removed_degrees_of_freedom(self) -> int:
        """Number of the 3 N degrees of freedom that belong to fixed atoms or a fixed centre of
        mass."""
        return 3 * len(self.fixed_atoms) + (3 if self.fixcom else 0)

    @property
    def resident(self) -> str:
        """Telemetry name of an in-process student; empty if there is none."""
        return self.in_process.get(STUDENT, "")

    def check_labels(self, symbols: Iterable[str]) -> None:
        """Refuses thermostats for labels that do not occur among these symbols of a structure.

        Raises:
            InputError: it names the first such label.
        """
        known = set(symbols)
        for label in sorted(self.labels - known):
            raise InputError(
                "input.xml: thermostat",
                label,
                f"no atom has this label; labels are {', '.join(sorted(known))}",
            )

    def output(self, kind: str, what: str = "") -> Output | None:
        """The first output of a kind (``properties``, ``trajectory``, ``checkpoint``).

        If there are several files of properties, the first one with all required columns.
        """
        matching = [o for o in self.outputs if o.kind == kind and o.what.startswith(what)]
        if kind == "properties":
            whole = [o for o in matching if not missing_columns(o)]
            matching = whole or matching
        return next(iter(matching), None)

    @property
    def teacher_forces(self) -> Output | None:
        """The trajectory of the reference's forces.

        This is not i-PI's ``forces``, which evaluates the student as well: during single steps
        nothing else does, and the watchdog would conclude that the single steps had ended.
        """
        if self.reference not in self.forces:
            return None
        what = f"forces_component(index={self.forces.index(self.reference)})"
        same = (o for o in self.outputs if o.what.replace(" ", "").startswith(what))
        return next((o for o in same if o.kind == "trajectory"), None)


# Columns of <properties> without which a run cannot be followed: progress, watchdog, analysis.
REQUIRED_COLUMNS = {
    "step": "step",
    "time": "time{picosecond}",
    "conserved": "conserved{electronvolt}",
    "temperature": "temperature{kelvin}",
    "potential": "potential{electronvolt}",
}


def missing_columns(output: Output) -> list[str]:
    """Required columns that a file of properties lacks, as they must be written."""
    return [text for name, text in REQUIRED_COLUMNS.items() if name not in output.columns]


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
        return self._convert(element, (element.text or "").strip(), to)

    def quantities(self, element: ET.Element, to: str) -> list[float]:
        """The same of a list such as [1.25, 1.5]."""
        words = re.findall(r"[^\s,\[\]]+", element.text or "")
        if element.get("units") is None and self.units_required:
            text = (element.text or "").strip()
            raise self.fail(element.tag, text, f"write units='{UNITS[element.tag][1]}'")
        return [self._convert(element, word, to) for word in words]

    def _convert(self, element: ET.Element, text: str, to: str) -> float:
        what = element.tag
        dimension, example = UNITS[what]
        unit = element.get("units")
        if unit is None and self.units_required:
            raise self.fail(what, text, f"has no unit; write <{what} units='{example}'>")
        try:
            value = float(text)
        except ValueError as error:
            raise self.fail(what, text, "must be a number") from error
        if unit == to:
            return value  # to the last digit
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


def read_input(path: Path) -> InputSpec:
    """Reads and checks an input that a person may have edited.

    Raises:
        InputError: the first thing that is wrong: field, value, remedy.
    """
    return _spec(_Reader(parse_xml(path), path.name, units_required=True))


def read_checkpoint(path: Path) -> InputSpec:
    """The same for a checkpoint that i-PI wrote: atomic units, defaults left out."""
    return _spec(_Reader(parse_xml(path), path.name, units_required=False))


def known_splittings() -> tuple[str, ...]:
    """Splittings of i-PI and of ours, and propagators of other packages."""
    from .motion.propagators import PROPAGATORS

    return PROPAGATORS.names()


def _spec(r: _Reader) -> InputSpec:
    dynamics = r.find(DYNAMICS)
    ensemble = dynamics.get("mode", "nve").strip()
    if ensemble not in ENSEMBLES:
        raise r.fail("dynamics mode", ensemble, f"must be one of {', '.join(ENSEMBLES)}")
    outer = r.quantity(r.find(f"{DYNAMICS}/timestep"), "femtosecond")
    if not 0 < outer < 1000:
        raise r.fail("timestep", f"{outer:g} fs", "must be positive and of the order of 1 to 10 fs")
    steps = _steps(r, dynamics)
    weights = _weights(r, len(steps))
    _check_weights(r, weights)
    temperature = r.root.find("system/ensemble/temperature")
    splitting = dynamics.get("splitting", "obabo").strip()
    if splitting not in known_splittings():
        allowed = ", ".join(known_splittings())
        raise r.fail("dynamics splitting", splitting, f"must be one of {allowed}")
    thermostats = _thermostats(r, dynamics, ensemble)
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
    barostat, pressure_bar = _barostat(r, ensemble, splitting)
    step, total = r.root.find("step"), r.root.find("total_steps")
    total_steps = 1000 if total is None else r.integer(total.text, "total_steps")
    if total_steps < 1:
        raise r.fail("total_steps", total_steps, "must be at least 1")
    forces = tuple(f.get("forcefield", "").strip() for f in r.root.findall(FORCES))
    file = r.root.find("system/initialize/file")
    velocities = r.root.find("system/initialize/velocities[@mode='thermal']")
    return InputSpec(
        step=0 if step is None else r.integer(step.text, "step"),
        total_steps=total_steps,
        ensemble=ensemble,
        outer_fs=outer,
        levels=tuple(
            Level(n, {name: w[k] for name, w in weights.items() if w[k]})
            for k, n in enumerate(steps)
        ),
        temperature_K=kelvin,
        sockets=_sockets(r),
        outputs=_outputs(r),
        splitting=splitting,
        ours=splitting not in STOCK_SPLITTINGS or any(t.special for t in thermostats),
        forces=forces,
        in_process=_in_process(r),
        thermostats=thermostats,
        barostat=barostat,
        pressure_bar=pressure_bar,
        fixcom=(r.root.findtext("system/motion/fixcom") or "true").strip().lower() == "true",
        fixed_atoms=tuple(int(x) for x in r.numbers(r.root.find("system/motion/fixatoms"))),
        n_beads=_beads(r),
        systems=len(r.root.findall("system")) + len(r.root.findall("system_template")),
        seed=_seed(r),
        bias=tuple(
            e.get("forcefield", "").strip() for e in r.root.findall("system/ensemble/bias/force")
        ),
        start=None
        if file is None
        else StartFile(
            (file.text or "").strip(), file.get("mode", "chk").strip(), file.get("units", "")
        ),
        start_temperature_K=None if velocities is None else r.quantity(velocities, "kelvin"),
        masses_given=r.root.find("system/initialize/masses") is not None,
        not_analysed=_not_analysed(r) if r.units_required else (),
    )


def _thermostats(r: _Reader, dynamics: ET.Element, ensemble: str) -> tuple[Thermostat, ...]:
    thermostats = []
    for element in dynamics.findall("thermostat"):
        mode = element.get("mode", "").strip()
        tags = element.find("local_tau") is not None or element.find("bonds") is not None
        if ensemble == "nve" and (tags or mode == "ffl"):
            raise r.fail("thermostat mode", mode, "NVE has no thermostat; remove it or use nvt")
        try:
            thermostats.append(read_thermostat(element, r))
        except InputError as error:
            if error.field.startswith(r.name):
                raise
            raise r.fail(error.field, error.value, error.remedy) from error
    return tuple(thermostats)


def _barostat(r: _Reader, ensemble: str, splitting: str) -> tuple[Barostat | None, float | None]:
    if ensemble != "npt":
        return None, None
    pressure = r.quantity(r.find("system/ensemble/pressure"), "bar")
    element = r.find(f"{DYNAMICS}/barostat")
    mode = element.get("mode", "dummy").strip()
    if splitting == RESPA and mode != "isotropic":
        raise r.fail("barostat mode", mode, f"splitting='{RESPA}' takes 'isotropic' only")
    tau, inside = element.find("tau"), element.find("thermostat")
    return Barostat(
        mode,
        None if tau is None else r.quantity(tau, "femtosecond"),
        None if inside is None else read_thermostat(inside, r),
    ), pressure


def _beads(r: _Reader) -> int:
    for path in ("system/initialize", "system/beads"):
        element = r.root.find(path)
        if element is not None and element.get("nbeads"):
            return r.integer(element.get("nbeads"), "nbeads")
    return 1


def _seed(r: _Reader) -> int | None:
    seed = r.root.findtext("prng/seed")
    return r.integer(seed, "seed") if seed and r.units_required else None


def _not_analysed(r: _Reader) -> tuple[str, ...]:
    unknown_tags: dict[str, None] = {}

    def look(element: ET.Element, path: str) -> None:
        for child in element:
            if not isinstance(child.tag, str):
                continue  # a comment
            here = f"{path}/{child.tag}" if path else child.tag
            if here not in KNOWN:
                unknown_tags[here] = None
            elif here not in WHOLE and not here.endswith("thermostat"):
                look(child, here)

    look(r.root, "")
    return tuple(unknown_tags)


def single_step(weights: Sequence[float]) -> tuple[float, ...]:
    """MTS weights of a force in single time steps: all of it in the innermost level.

    A force that is only moved between levels, such as a student, then acts nowhere. A force
    without levels keeps its weight.
    """
    if len(weights) < 2:
        return tuple(weights)
    total = math.fsum(weights)
    return (*[0.0] * (len(weights) - 1), 0.0 if abs(total) < 1e-9 else total)


def _steps(r: _Reader, dynamics: ET.Element) -> list[int]:
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


def _weights(r: _Reader, levels: int) -> dict[str, list[float]]:
    """Weight of every forcefield in each level; forces of one forcefield are added."""
    known = [e.get("name", "").strip() for e in r.root if str(e.tag).startswith("ff")]
    for name in known:
        if known.count(name) > 1:
            raise r.fail("forcefield", name, "is defined twice; give each its own name")
    forces = r.root.findall(FORCES)
    if not forces:
        raise r.fail("forces", "", "has no <force>")
    used: dict[str, list[float]] = {}
    for force in forces:
        name = force.get("forcefield", "").strip()
        if name not in known:
            raise r.fail("force", name, f"no such forcefield; there are {', '.join(known)}")
        weights = r.numbers(force.find("mts_weights")) or [1.0]
        if len(weights) != levels and not (len(weights) == 1 and levels == 1):
            raise r.fail(
                f"mts_weights of {name}", weights, f"needs {levels} numbers, one per MTS level"
            )
        scale = float(force.get("weight", "1"))
        before = used.get(name, [0.0] * levels)
        used[name] = [a + scale * w for a, w in zip(before, weights, strict=True)]
    return used


def _check_weights(r: _Reader, used: Mapping[str, Sequence[float]]) -> None:
    """What is sampled must be one force, or a sum of forces that add up.

    Where a force is called ``teacher`` it is the one, and all others are only moved between levels.
    Without one, each force counts once (models that add up) or not at all.
    """
    sums = {name: math.fsum(w) for name, w in used.items()}
    if TEACHER not in used:
        wrong = [n for n, t in sums.items() if min(abs(t), abs(t - 1)) > 1e-9]
        if wrong or not any(abs(t - 1) < 1e-9 for t in sums.values()):
            remedy = f"one force must be named '{TEACHER}', or each must sum to 1 or 0"
            raise r.fail("forces", ", ".join(used), remedy)
        return
    for name, total in sums.items():
        wanted = 1.0 if name == TEACHER else 0.0
        if abs(total - wanted) > 1e-9:
            raise r.fail(
                f"mts_weights of {name}",
                f"sum {total:g}",
                f"must sum to {wanted:g} over the levels: teacher [1, 0], student [-1, 1]; as it "
                f"is, {sampled(sums)} would be sampled (`dmts-ipi i-pi` takes such an input)",
            )


def _in_process(r: _Reader) -> dict[str, str]:
    """``InputSpec.in_process``."""
    telemetry_names = {}
    for element in r.root.findall("ffdirect"):
        text = element.findtext("parameters") or ""
        match = re.search(r"[{,]\s*telemetry\s*:\s*([\w.+-]+)", text)
        if match:
            telemetry_names[element.get("name", "").strip()] = match[1]
    return telemetry_names


def socket_of(element: ET.Element) -> Socket:
    """Where an ``<ffsocket>`` listens, with i-PI's defaults.

    Raises:
        ValueError: the port is no number.
    """
    mode = "inet" if element.get("mode", "inet").strip() == "inet" else "unix"
    address = (element.findtext("address") or "localhost").strip()
    return Socket(mode, address, int((element.findtext("port") or "65535").strip()))


def _sockets(r: _Reader) -> dict[str, Socket]:
    sockets: dict[str, Socket] = {}
    prefix = r.root.get("sockets_prefix", SOCKET_PREFIX).strip()
    if r.units_required and prefix != SOCKET_PREFIX:  # a checkpoint has that of i-PI's option -S
        raise r.fail("sockets_prefix", prefix, f"must be left at {SOCKET_PREFIX}")
    for element in r.root.findall("ffsocket"):
        name, mode = element.get("name", "").strip(), element.get("mode", "inet").strip()
        if not re.fullmatch(r"[\w.-]{1,60}", name):
            raise r.fail("ffsocket", name, "its name must be letters, digits, dots and hyphens")
        r.integer(element.findtext("port") or "65535", "port")
        at = sockets[name] = socket_of(element)
        if mode == "inet":
            continue
        if mode not in ("unix", "shm") or not re.fullmatch(r"[\w.+-]{1,90}", at.address):
            raise r.fail(
                f"address of {name}", at.address, "must be letters, digits, dots and hyphens"
            )
    if len(set(sockets.values())) < len(sockets):
        raise r.fail("ffsocket", "address", "two sockets share it; give each its own")
    return sockets


def _ending(what: str, form: str) -> str:
    """What i-PI appends to the name of a trajectory: the bead, and the format."""
    key = re.split(r"[{(]", what)[0].strip()
    bead = "_0" if key in BY_BEAD else ""
    return bead if key.startswith("extras") else f"{bead}.{'extxyz' if form == 'ase' else form}"


def _outputs(r: _Reader) -> list[Output]:
    output = r.find("output")
    prefix = output.get("prefix", "i-pi").strip()
    outputs: list[Output] = []
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
        form = element.get("format", "xyz").strip() if element.tag == "trajectory" else ""
        if element.tag == "trajectory":
            name += _ending(what, form)
        if element.tag == "checkpoint" and element.get("overwrite", "True").strip() == "True":
            raise r.fail(
                "checkpoint",
                "overwrite='True'",
                "a checkpoint is not written atomically; write overwrite='False'",
            )
        outputs.append(Output(element.tag, what, name, stride, form))
    for kind in ("properties", "checkpoint"):
        if not any(o.kind == kind for o in outputs):
            raise r.fail("output", "", f"needs <{kind}>: progress and resuming rest on it")
    return outputs


class InputXML:
    """An i-PI input as text that is edited; anything that is not set, comments included, stays."""

    def __init__(self, text: str, name: str) -> None:
        """Parses an input.

        Raises:
            InputError: it is not XML.
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
            InputError: the input has no such element.
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
            InputError: the input has no such element.
        """
        element = self.root.find(path)
        if element is None:
            raise InputError("template", self.name, f"has no <{path}>")
        children = list(element)
        inner = element.text or "\n"  # the line break and indentation before a child
        for fragment in fragments:
            for piece in _pieces(fragment):
                if children:
                    children[-1].tail = inner
                element.append(piece)
                children.append(piece)
        if children:
            children[-1].tail = inner[:-2] if inner.endswith("  ") else inner

    def insert_after(self, path: str, fragment: str) -> None:
        """Puts XML after the last element at ``path``, at the same indentation.

        Raises:
            InputError: the input has no such element.
        """
        above, _, tag = path.rpartition("/")
        parent = self.root.find(above) if above else self.root
        elements = [] if parent is None else parent.findall(tag)
        if parent is None or not elements:
            raise InputError("template", self.name, f"has no <{path}>")
        at, last = list(parent).index(elements[-1]), elements[-1]
        new = _pieces(fragment)
        for piece in new:
            piece.tail = last.tail
        if at and parent[at - 1].tail and len(new):
            last.tail = parent[at - 1].tail
            for piece in new[:-1]:
                piece.tail = parent[at - 1].tail
        for k, piece in enumerate(new):
            parent.insert(at + 1 + k, piece)

    def replace(self, name: str, fragment: str) -> None:
        """Puts XML in the place of the socket of a forcefield and the comment before it.

        Raises:
            InputError: the input has no such socket.
        """
        children = list(self.root)
        indices = [
            k for k, e in enumerate(children) if e.tag == "ffsocket" and e.get("name") == name
        ]
        if not indices:
            raise InputError("template", self.name, f"has no <ffsocket name='{name}'>")
        at, tail = indices[0], children[indices[0]].tail
        self.root.remove(children[at])
        if at and children[at - 1].tag is ET.Comment:
            self.root.remove(children[at - 1])
            at -= 1
        for new in reversed(_pieces(fragment)):
            new.tail = tail
            self.root.insert(at, new)

    def text(self) -> str:
        """The XML."""
        return ET.tostring(self.root, encoding="unicode") + "\n"

    def spec(self) -> InputSpec:
        """What it says now, checked.

        Raises:
            InputError: as ``read_input``.
        """
        return _spec(_Reader(self.root, self.name, units_required=True))


def _pieces(fragment: str) -> list[ET.Element]:
    parser = ET.XMLParser(target=ET.TreeBuilder(insert_comments=True))
    return list(ET.fromstring(f"<x>{fragment}</x>", parser))


@dataclass(frozen=True)
class Difference:
    """A tag or attribute that two inputs say differently; empty text: it is absent."""

    path: str
    before: str
    now: str


def differences(before: ET.Element, now: ET.Element) -> list[Difference]:
    """Where two inputs differ, tag by tag, whatever the tags are. Comments and spaces do not count.

    Elements are matched by tag and by ``name``, ``filename`` or ``forcefield``; numbers are
    compared as numbers.
    """
    differing: list[Difference] = []
    _compare(before, now, "", differing)
    return differing


def _compare(a: ET.Element, b: ET.Element, path: str, differing: list[Difference]) -> None:
    for key in sorted({*a.keys(), *b.keys()}):
        one, two = (e.get(key, "").strip() for e in (a, b))
        if not _same(one, two):
            place = f"{path or a.tag} {key}"
            differing.append(Difference(place, one, two))
    one, two = (" ".join((e.text or "").split()) for e in (a, b))
    if not _same(one, two):
        differing.append(Difference(path or a.tag, one, two))
    left, right = _children(a), _children(b)
    for name in [*left, *(n for n in right if n not in left)]:
        x, y = left.get(name), right.get(name)
        place = f"{path}/{name}" if path else name
        if x is None or y is None:
            shown = [("" if e is None else _short(e)) for e in (x, y)]
            differing.append(Difference(place, *shown))
        else:
            _compare(x, y, place, differing)


def _children(element: ET.Element) -> dict[str, ET.Element]:
    """By tag and name; several of one name are numbered."""
    by_name: dict[str, ET.Element] = {}
    for child in element:
        if not isinstance(child.tag, str):
            continue
        mark = next((child.get(k) for k in ("name", "filename", "forcefield") if child.get(k)), "")
        names = child.get("names") or child.get("atoms") or ""
        words = " ".join(x.strip() for x in (child.tag, mark, names) if x and x.strip())
        key, number = words, 1
        while key in by_name:
            number += 1
            key = f"{words} {number}"
        by_name[key] = child
    return by_name


def _short(element: ET.Element) -> str:
    text = " ".join(" ".join(element.itertext()).split())
    return text if 0 < len(text) <= 40 else f"<{element.tag}>"


def _same(a: str, b: str) -> bool:
    if a == b:
        return True
    words = [re.split(r"[\s,\[\](){}]+", x.strip("[] ")) for x in (a, b)]
    if len(words[0]) != len(words[1]):
        return False
    for x, y in zip(*words, strict=True):
        if x.lower() == y.lower():
            continue
        try:
            if not math.isclose(float(x), float(y), rel_tol=1e-12):
                return False
        except ValueError:
            return False
    return True
