"""What the session that runs i-PI and the watchdog that judges it tell each other.

The session (``ipi``) knows processes, checkpoints and outputs; the watchdog knows when to worry
and what to do about it. Neither imports the other: this is the border. Verdicts themselves are in
``core.verdicts``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from .errors import RunFault
from .verdicts import Verdict


class RunInterrupted(RunFault):
    """Raised where a verdict interrupts a run."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.text)
        self.verdict = verdict


@dataclass(frozen=True)
class RestartPlan:
    """How a run goes on after a verdict: from the newest checkpoint at or before ``before_step``
    (None: the newest of all), with a new random seed or the one that the checkpoint has."""

    before_step: int | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Segment:
    """One start of i-PI: single time steps or multiple ones, up to a step."""

    single_steps: bool
    until_step: int


@dataclass(frozen=True)
class Heartbeat:
    """State of a run at one moment: last step on disk, its figures, i-PI's memory."""

    step: int
    time_ps: float
    ns_per_day: float
    temperature_K: float
    potential_eV: float
    remaining_s: float
    total_steps: int
    ipi_pid: int = 0
    ipi_memory_MB: float = 0.0


class Stop(RunFault):
    """The run ends by its own limits: exit status 3."""

    status = 3


class Guard(Protocol):
    """Judges a run. Every method returns quickly, and raises only what its docstring names."""

    @property
    def alarm(self) -> int | None:
        """A file descriptor that becomes readable when there is something to judge at once; None:
        the session looks about twice a second."""

    def segment(self, step: int, total_steps: int) -> Segment:
        """How i-PI is to be started at a step."""

    def started(self, segment: Segment, step: int, already_running: bool = False) -> None:
        """i-PI was started to do this segment from a step, or was ``already_running`` it."""

    def lines(self, step: int, columns: dict[str, float]) -> Verdict | None:
        """Judges one new line of properties."""

    def beat(self, beat: Heartbeat) -> Verdict | None:
        """Judges everything else; called about twice a second."""

    def driver_started(self, name: str) -> None:
        """A driver was started (again): earlier messages of it do not count."""

    def hearing(self, name: str) -> bool | None:
        """Whether a driver answers its telemetry; None: it has none."""

    def hung(self, answer_limit_s: float, evaluation_limit_s: float) -> str:
        """Name of a driver that has stopped answering, or evaluates for longer than the limit."""

    def decide(self, verdict: Verdict, step: int) -> RestartPlan:
        """What to do about a verdict.

        Raises:
            DmtsError: the run ends; the message and exit status say why.
        """

    def restart_delay_s(self, name: str, why: str, step: int) -> float:
        """How long to wait before a dead driver is started again, s.

        Raises:
            DmtsError: not at all; the run ends.
        """

    def note(self, kind: str, step: int, text: str) -> None:
        """Writes a line into the journal."""

    def ended(self, exit: str, step: int) -> dict[str, object]:
        """The session is over; returns what it adds to ``summary.json``."""


class NoGuard:
    """Judges nothing: the first thing that goes wrong ends the run."""

    alarm: int | None = None

    def segment(self, step: int, total_steps: int) -> Segment:
        return Segment(False, total_steps)

    def started(self, segment: Segment, step: int, already_running: bool = False) -> None:
        return None

    def lines(self, step: int, columns: dict[str, float]) -> Verdict | None:
        return None

    def beat(self, beat: Heartbeat) -> Verdict | None:
        return None

    def driver_started(self, name: str) -> None:
        return None

    def hearing(self, name: str) -> bool | None:
        return None

    def hung(self, answer_limit_s: float, evaluation_limit_s: float) -> str:
        return ""

    def decide(self, verdict: Verdict, step: int) -> RestartPlan:
        raise RunInterrupted(verdict)

    def restart_delay_s(self, name: str, why: str, step: int) -> float:
        raise RunFault(f"{name} ended ({why})")

    def note(self, kind: str, step: int, text: str) -> None:
        return None

    def ended(self, exit: str, step: int) -> dict[str, object]:
        return {}
