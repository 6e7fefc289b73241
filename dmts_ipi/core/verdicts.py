"""Verdicts: what can be wrong with a run, what is done about it, and who judges.

Every kind of verdict states two things, so that neither can be left out: its ``cause`` decides
what the supervision does, its ``cls`` what benchmark and report call it.

A kind and the judge that finds it are a row of the registry ``VERDICTS``. The watchdog asks every
row; another package adds rows by entry points of the group ``dmts_ipi.verdicts``
(``docs/extending/verdict.md``).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

import numpy as np

from .errors import InputError
from .force_comparison import DifferenceStatistics, ForceComparison, Pair
from .registry import Registry


class Cause(str, Enum):
    """What the supervision does about a verdict."""

    PHYSICS = "physics"  # the state can no longer be trusted: the run is rewound
    PROCESS = "process"  # the state is sound, a process is not: i-PI is started again
    FAULT = "fault"  # only a person can help: the run ends with exit status 4

    __str__ = str.__str__


class VerdictClass(str, Enum):
    """What benchmark and report call a verdict."""

    DISAGREEMENT = "disagreement"  # models differ, or one of them fails
    HEAT = "heat"  # the system heats, or energy appears from one line to the next
    DRIFT = "drift"  # the conserved energy drifts
    PROCESS = "process"  # a process ended or hangs
    RESOURCE = "resource"  # memory or disk

    __str__ = str.__str__


class VerdictKind(str, Enum):
    """Every kind of verdict of dmts-ipi itself; its value is what the journal holds.

    Attributes:
        cause: see ``Cause``.
        cls: see ``VerdictClass``.
        meaning: when it is reached, in one line.
    """

    cause: Cause
    cls: VerdictClass
    meaning: str

    def __new__(cls, value: str, cause: Cause, class_: VerdictClass, meaning: str) -> VerdictKind:
        """A member with its attributes."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.cause, member.cls, member.meaning = cause, class_, meaning
        return member

    __str__ = str.__str__

    DIFFERENCE = (
        *("difference", Cause.PHYSICS, VerdictClass.DISAGREEMENT),
        "two models differ by more than difference_max_eV_per_A on one atom",
    )
    DIFFERENCE_RMS = (
        *("difference_rms", Cause.PHYSICS, VerdictClass.DISAGREEMENT),
        "their RMS difference over difference_window_steps is above difference_rms_eV_per_A",
    )
    SPIKE = (
        *("spike", Cause.PHYSICS, VerdictClass.DISAGREEMENT),
        "a fast model's force is far larger than any of the reference",
    )
    MODEL = (
        *("model", Cause.PHYSICS, VerdictClass.DISAGREEMENT),
        "a driver ended because its model failed: NaN, a wrong shape, an exception",
    )
    NAN = (
        *("nan", Cause.PHYSICS, VerdictClass.DISAGREEMENT),
        "a figure of i-PI's properties is not finite",
    )
    RUNAWAY = (
        *("runaway", Cause.PHYSICS, VerdictClass.HEAT),
        "more than ten times the temperature that was asked for",
    )
    TEMPERATURE = (
        *("temperature", Cause.PHYSICS, VerdictClass.HEAT),
        "the temperature is outside the band of its exact distribution",
    )
    JUMP = (
        *("jump", Cause.PHYSICS, VerdictClass.HEAT),
        "potential or conserved energy jumps between two lines of properties",
    )
    DRIFT = (
        *("drift", Cause.PHYSICS, VerdictClass.DRIFT),
        "NVE: the conserved energy is off by more than drift_eV_per_atom",
    )
    IPI = (
        *("ipi", Cause.PROCESS, VerdictClass.PROCESS),
        "i-PI ended early, or has lost its drivers",
    )
    STALL = (
        *("stall", Cause.PROCESS, VerdictClass.PROCESS),
        "i-PI has written nothing for too long",
    )
    HUNG = (
        *("hung", Cause.PROCESS, VerdictClass.PROCESS),
        "a driver does not answer, or evaluates for longer than a stall",
    )
    MEMORY = (
        *("memory", Cause.PROCESS, VerdictClass.RESOURCE),
        "a process has grown by more than memory_growth_MB since its first minute",
    )
    DISK = (
        *("disk", Cause.FAULT, VerdictClass.RESOURCE),
        "the disk is full, or the folder of the run is gone",
    )
    INPUT = (
        *("input", Cause.FAULT, VerdictClass.PROCESS),
        "a driver refuses its input",
    )


@dataclass(frozen=True)
class AddedKind:
    """A kind of verdict that another package adds; fields as those of ``VerdictKind``."""

    value: str
    cause: Cause
    cls: VerdictClass
    meaning: str = ""

    def __str__(self) -> str:
        return self.value


Kind = VerdictKind | AddedKind


@dataclass(frozen=True)
class Verdict:
    """Something is wrong.

    Attributes:
        kind: what; it carries cause and class.
        text: what, where, how much and since when, in one line.
        step: outer step at which it was seen.
        sound_step: last outer step that is known to have been good.
        culprit: the process to end (``i-pi``, or the name of a model), where it is known.
    """

    kind: Kind
    text: str
    step: int
    sound_step: int
    culprit: str = ""

    @property
    def cause(self) -> Cause:
        """See ``Cause``."""
        return self.kind.cause


@dataclass(frozen=True)
class Physics:
    """What the limits of a run depend on. ``dof``: kinetic degrees of freedom."""

    ensemble: str
    temperature_K: float
    n_atoms: int
    dof: int
    outer_fs: float
    equilibration_ps: float
    checkpoint_stride: int
    keep_checkpoints: int
    multiple_steps: bool = True  # False: the run is one of single time steps throughout

    def steps(self, time_fs: float) -> int:
        """Outer steps that cover a time."""
        return math.ceil(round(time_fs / self.outer_fs, 6))


@dataclass(frozen=True)
class DifferenceLimits:
    """How far two models may differ: on one atom, and as RMS over the window, eV/A."""

    largest_eV_per_A: float
    rms_eV_per_A: float


@dataclass(frozen=True)
class Thresholds:
    """Limits in the units of their names; ``temperature_K`` is (lowest, highest).

    ``differences`` holds one entry for each pair of models that is compared, outermost level
    first.
    """

    differences: Mapping[Pair, DifferenceLimits]
    window: int
    temperature_K: tuple[float, float]
    force_spike_eV_per_A: float
    potential_jump_eV: float
    conserved_jump_eV: float
    drift_eV: float
    equilibration_steps: int
    guard_steps: int
    sts_steps: int


@dataclass
class JudgedRun:
    """What a judge knows of the run that it judges.

    Attributes:
        physics: ensemble, temperature, degrees of freedom, outer step.
        limits: derived from the section ``watchdog`` of ``run.yaml``.
        numbers: atomic numbers, (n,).
        statistics: distributions of the differences so far, for each pair of models.
        sound_line: step of the last line of properties that every judge accepted.
        sound_comparison: the same of forces, for each pair of models.
    """

    physics: Physics
    limits: Thresholds
    numbers: np.ndarray
    statistics: dict[Pair, DifferenceStatistics] = field(default_factory=dict)
    sound_line: int = 0
    sound_comparison: dict[Pair, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for pair in self.limits.differences:
            self.statistics.setdefault(pair, DifferenceStatistics())

    @property
    def references(self) -> tuple[str, ...]:
        """Models that are compared with faster ones and with none that is more accurate."""
        fast = {fast for _, fast in self.limits.differences}
        return tuple(dict.fromkeys(a for a, _ in self.limits.differences if a not in fast))

    def verdict(self, kind: Kind, text: str, step: int, sound_step: int) -> Verdict:
        """A verdict at a step whose text also names the last good step."""
        sound = min(sound_step, step)
        return Verdict(kind, f"{text}; step {sound} was good", step, sound)


class Judge(Protocol):
    """Looks at a run in the order of its steps; derive from it and override what is needed.

    Every method must return within milliseconds: the session waits for it.
    """

    def restarted(self, step: int) -> None:
        """i-PI starts (again) from a step: forget what was seen of later ones."""
        return None

    def line(self, step: int, columns: Mapping[str, float]) -> Verdict | None:
        """Judges one line of properties.

        Args:
            step: outer step.
            columns: ``time_ps``, ``temperature_K``, ``potential_eV``, ``kinetic_eV``,
                ``conserved_eV`` and what else i-PI writes, by key.
        """
        return None

    def forces(self, comparison: ForceComparison, step: int) -> Verdict | None:
        """Judges two models at the structure of one outer step (needs telemetry)."""
        return None

    def peak(self, model: str, force_eV_per_A: float, atom: int, step: int) -> Verdict | None:
        """Judges the largest force of a model since the last call, between outer steps too.

        Args:
            model: its name.
            force_eV_per_A: length of one atom's force.
            atom: from 0.
            step: of the last line of properties.
        """
        return None


class MakeJudge(Protocol):
    """Makes the judge of a row for one run."""

    def __call__(self, run: JudgedRun, options: Mapping[str, Any]) -> Judge:
        """The judge.

        Args:
            run: kept up to date while the run goes on.
            options: ``watchdog.verdict_options`` of this row in ``run.yaml``.

        Raises:
            InputError: an option is wrong.
        """
        ...


@dataclass(frozen=True)
class VerdictRow:
    """A kind of verdict and its judge; None: the session itself reaches this verdict."""

    kind: Kind
    judge: MakeJudge | None = None


_JUDGED = (
    VerdictKind.DIFFERENCE,
    VerdictKind.DIFFERENCE_RMS,
    VerdictKind.SPIKE,
    VerdictKind.TEMPERATURE,
    VerdictKind.JUMP,
    VerdictKind.DRIFT,
)
VERDICTS: Registry[VerdictRow] = Registry(
    "verdicts",
    "verdict",
    {
        kind.value: f"dmts_ipi.watchdog.judges:{kind.name}" if kind in _JUDGED else VerdictRow(kind)
        for kind in VerdictKind
    },
)


def verdict_rows() -> dict[str, VerdictRow]:
    """Every row by its name, our own first.

    Raises:
        InputError: a row of another package cannot be imported, or has another kind's name.
    """
    rows = VERDICTS.rows()
    for name, row in rows.items():
        if row.kind.value != name:
            remedy = f"its entry point must have the name of its kind, {row.kind.value}"
            raise InputError("verdict", name, remedy)
    return rows


_OWN: dict[str, VerdictKind] = {kind.value: kind for kind in VerdictKind}
_BY_CAUSE = {
    Cause.PHYSICS: VerdictClass.DISAGREEMENT,
    Cause.PROCESS: VerdictClass.PROCESS,
    Cause.FAULT: VerdictClass.PROCESS,
}


def kind_of(name: str, cause: str = "", cls: str = "") -> Kind:
    """The kind of a verdict in a journal.

    Args:
        name: as it stands there.
        cause: as it stands there; for kinds of packages that are not installed any more.
        cls: likewise; journals of earlier versions hold none.
    """
    if (own := _OWN.get(name)) is not None:
        return own
    with contextlib.suppress(InputError):  # its package cannot be imported: the journal must do
        if name in VERDICTS:
            return VERDICTS.get(name).kind
    known_cause, known_class = Cause.PROCESS, None
    with contextlib.suppress(ValueError):
        known_cause = Cause(cause)
    with contextlib.suppress(ValueError):
        known_class = VerdictClass(cls)
    return AddedKind(name, known_cause, known_class or _BY_CAUSE[known_cause])


def kind_of_record(record: Mapping[str, Any]) -> Kind:
    """The same of a line of the journal (``events.jsonl``) whose kind is ``verdict``."""
    words = (record.get(key) for key in ("verdict", "cause", "class"))
    return kind_of(*(word if isinstance(word, str) else "" for word in words))
