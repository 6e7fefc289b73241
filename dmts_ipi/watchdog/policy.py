"""The response to a verdict: how far to rewind, how long to run single steps, when to give up.

Everything that these decisions depend on is in ``watchdog.json`` and so outlives the process.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dmts_ipi.core.errors import RunFault
from dmts_ipi.core.files import read_record
from dmts_ipi.core.force_comparison import Pair
from dmts_ipi.core.supervision import RestartPlan, RunInterrupted, Segment, Stop
from dmts_ipi.core.verdicts import Cause, Physics, Thresholds, Verdict
from dmts_ipi.core.watch_settings import WatchdogSettings

from .journal import MEMORY, write_record

VERSION = 1
STUCK = 3  # restarts of processes without a single new step in between
LONGEST_DELAY_S = 60.0
HOUR_S = 3600.0


@dataclass
class Rewind:
    """One rewind: the event, and the step before which the run was taken up again."""

    kind: str
    step: int
    sound_step: int
    before_step: int
    sts_until_step: int
    time_unix_s: float


@dataclass
class Policy:
    """Decides; ``save`` after every change.

    Args:
        folder: of the run.
        settings: what the user set.
        limits: derived from it.
        physics: see ``Physics``.
        seed: of the run; new ones follow from it.
    """

    folder: Path
    settings: WatchdogSettings
    limits: Thresholds
    physics: Physics
    seed: int
    rewinds: list[Rewind] = field(default_factory=list)
    restarts: list[float] = field(default_factory=list)  # unix times
    sts_until_step: int = 0
    single_until: int | None = None  # a rewind was decided; the step up to which it must last
    distributions: dict[str, Any] = field(default_factory=dict)
    _stuck_at: int = -1
    _stuck: int = 0

    def load(self) -> Policy:
        """Reads the state that an earlier session saved."""
        record = read_record(self.folder / MEMORY)
        if record.get("version") != VERSION:
            return self
        try:
            self.rewinds = [Rewind(**r) for r in record["rewinds"]]
            self.restarts = [float(t) for t in record["restarts"]]
            self.sts_until_step = int(record["sts_until_step"])
            single = record["single_until"]
            self.single_until = None if single is None else int(single)
            self.distributions = dict(record.get("distributions", {}))
        except (KeyError, TypeError, ValueError):
            pass  # a damaged record: better to go on without a past than not at all
        return self

    def distributions_of(self, pair: Pair) -> dict[str, Any]:
        """Records of the distributions ``largest`` and ``rms`` of a pair of models; empty: none.

        Earlier versions knew one pair and wrote its records alone.
        """
        if "largest" in self.distributions:
            first = next(iter(self.limits.differences), None)
            return self.distributions if pair == first else {}
        record = self.distributions.get("/".join(pair), {})
        return record if isinstance(record, dict) else {}

    def save(self) -> None:
        """Writes ``watchdog.json``."""
        record = {
            "version": VERSION,
            "rewinds": [vars(r) for r in self.rewinds],
            "restarts": self.restarts,
            "sts_until_step": self.sts_until_step,
            "single_until": self.single_until,
            "distributions": self.distributions,
        }
        write_record(self.folder / MEMORY, record)

    def segment(self, step: int, total_steps: int) -> Segment:
        """Single steps for their set time after a rewind, and past the event; then the rest."""
        if self.single_until is not None:
            self.sts_until_step = max(step + self.limits.sts_steps, self.single_until)
            self.rewinds[-1].sts_until_step = self.sts_until_step
            self.single_until = None
            self.save()
        if step < self.sts_until_step:
            return Segment(True, min(self.sts_until_step, total_steps))
        return Segment(False, total_steps)

    def decide(self, verdict: Verdict, step: int) -> RestartPlan:
        """How to go on.

        Raises:
            RunInterrupted: a person must help.
            Stop: a limit of the settings is reached.
        """
        if verdict.cause is Cause.FAULT:
            raise RunInterrupted(verdict)
        if verdict.cause is Cause.PROCESS:
            self.restart(verdict.text, step)
            return RestartPlan()
        return self._rewind(verdict)

    def _rewind(self, verdict: Verdict) -> RestartPlan:
        if self.settings.rewinds_max == 0:
            raise RunInterrupted(verdict)
        before = max(verdict.sound_step - self.limits.guard_steps, 0)
        repeats = self._repeated_rewinds(verdict)
        if repeats:  # a checkpoint further back each time
            before = min(before, repeats[-1].before_step - self.physics.checkpoint_stride)
        self._check_limits(verdict, len(repeats))
        before = max(before, 0)
        self.single_until = verdict.step + self.limits.guard_steps
        self.rewinds.append(
            Rewind(
                verdict.kind.value,
                verdict.step,
                verdict.sound_step,
                before,
                self.single_until,
                round(time.time(), 3),
            )
        )
        self.save()
        seed = (self.seed * 7919 + len(self.rewinds)) % 2**31 if repeats else None
        return RestartPlan(before, seed)

    def _repeated_rewinds(self, verdict: Verdict) -> list[Rewind]:
        """Directly preceding rewinds caused by events near the same step, oldest first."""
        rewinds: list[Rewind] = []
        place = verdict.step
        for rewind in reversed(self.rewinds):
            end = max(rewind.sts_until_step, rewind.step) + self.physics.checkpoint_stride
            if place > end + self.limits.guard_steps:
                break
            rewinds.append(rewind)
            place = rewind.step
        return rewinds[::-1]

    def _check_limits(self, verdict: Verdict, repeats: int) -> None:
        s = self.settings
        if len(self.rewinds) >= s.rewinds_max:
            self._stop(verdict, f"rewinds_max = {s.rewinds_max} in this run")
        if repeats >= s.rewinds_here_max:
            self._stop(verdict, f"rewinds_here_max = {s.rewinds_here_max} at one place")
        first = verdict.step - self.physics.steps(s.rewinds_window_ps * 1000)
        if sum(r.step > first for r in self.rewinds) >= s.rewinds_window_max:
            self._stop(
                verdict,
                f"rewinds_window_max = {s.rewinds_window_max} within {s.rewinds_window_ps:g} ps",
            )

    def _stop(self, verdict: Verdict, limit: str) -> None:
        raise Stop(
            f"the limit of rewinds is reached (watchdog.{limit}); the last one: {verdict.text}. "
            "Use a smaller outer step, or train the student on rewinds.extxyz where it was at fault"
        )

    def restart(self, why: str, step: int) -> float:
        """Counts a restart of a process; returns how long to wait before it, s.

        Raises:
            RunFault: too many.
        """
        now = time.time()
        self.restarts = [t for t in self.restarts if t > now - HOUR_S]
        if step > self._stuck_at:
            self._stuck_at, self._stuck = step, 0
        self._stuck += 1
        if self.settings.restarts_max == 0:
            raise RunFault(why)
        if self._stuck > STUCK:
            raise RunFault(f"{why}; restarted {STUCK} times at step {step} without getting further")
        if len(self.restarts) >= self.settings.restarts_max:
            raise RunFault(
                f"{why}; watchdog.restarts_max = {self.settings.restarts_max} per hour is reached"
            )
        self.restarts.append(now)
        self.save()
        return float(min(2.0 ** (self._stuck - 1) - 1.0, LONGEST_DELAY_S))
