"""The watchdog of one run: hears, judges, decides, and keeps the journal.

It implements ``core.supervision.Guard`` for the session that holds the processes.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from ase.io import write

from dmts_ipi.core.files import LIVE
from dmts_ipi.core.frames import Frame
from dmts_ipi.core.supervision import Heartbeat, Plan, Segment, Verdict
from dmts_ipi.core.watch_settings import WatchdogSettings

from .difference import Distribution
from .endpoints import Addresses, Announced
from .journal import Journal, write_record
from .judge import Judge
from .listener import Health, Listener, Pair
from .policy import Policy
from .thresholds import Physics, Thresholds

LIVE_EVERY_S, SAVE_EVERY_S = 1.0, 30.0
FRAMES = "rewinds.extxyz"
MEMORY_SETTLES_S = 60.0
ANSWER_LIMIT_S = 15.0  # a driver that is alive answers at once, whatever its model does


class Watchdog:
    """See the module.

    Args:
        folder: of the run.
        settings: section ``watchdog`` of ``run.yaml``.
        limits: derived from it.
        physics: see ``Physics``.
        numbers: atomic numbers, (n,).
        pbc: (3,).
        telemetry: addresses by role; empty: forces are not seen.
        seed: of the run.
    """

    def __init__(
        self,
        folder: Path,
        settings: WatchdogSettings,
        limits: Thresholds,
        physics: Physics,
        numbers: np.ndarray,
        pbc: np.ndarray,
        telemetry: Mapping[str, Addresses | Announced],
        seed: int,
    ) -> None:
        self.folder, self.settings, self.limits, self.physics = folder, settings, limits, physics
        self.numbers, self.pbc = numbers, pbc
        self.journal = Journal(folder)
        self._telemetry = list(telemetry.values())
        self.judge = Judge(limits, physics, numbers)
        self.policy = Policy(folder, settings, limits, physics, seed).load()
        for name in ("largest", "rms"):
            past = Distribution.from_record(self.policy.distributions.get(name, {}))
            setattr(self.judge, name, past)
        self.listener = (
            Listener(telemetry, numbers, limits.difference_max_eV_per_A) if telemetry else None
        )
        self._segment = Segment(False, 0)
        self._first_step = 0
        self._line_step = 0
        self._teacher = (0, 0)  # pid and connection that the count of evaluations belongs to
        self._first_memory: dict[int, tuple[float, float]] = {}
        self._offending: Pair | None = None
        self._beat: Heartbeat | None = None
        self._live_at = self._saved_at = -math.inf
        self._state = "starting"

    @property
    def alarm(self) -> int | None:
        """See ``Guard``: a pair of forces that differ by too much has been heard."""
        return None if self.listener is None else self.listener.alarm

    def segment(self, step: int, total_steps: int) -> Segment:
        """See ``Guard``."""
        return self.policy.segment(step, total_steps)

    def started(self, segment: Segment, step: int, found: bool = False) -> None:
        """See ``Guard``."""
        self._segment, self._first_step, self._line_step = segment, step, step
        single = segment.single_steps or not self.physics.multiple_steps
        self._state = "single steps" if single else "multiple steps"
        self.judge.restarted(step)
        self._teacher = (0, 0)
        if self.listener is not None:
            self.listener.pairing = not segment.single_steps
            self.listener.forget()
        until = f"up to step {segment.until_step}"
        how = "runs" if found else "starts"
        self.note("start", step, f"i-PI {how} with {self._state} {until}")
        self._write_live(force=True)

    def lines(self, step: int, columns: dict[str, float]) -> Verdict | None:
        """See ``Guard``."""
        self._line_step = step
        return self.judge.line(step, columns)

    def beat(self, beat: Heartbeat) -> Verdict | None:
        """See ``Guard``."""
        self._beat = beat
        found = self._pairs() or self._spike() or self._memory(beat)
        self._write_live()
        return found

    def _pairs(self) -> Verdict | None:
        """Judges what has been heard since the last call. Only the first event counts."""
        if self.listener is None:
            return None
        for pair in self.listener.take():
            if not self.listener.pairing:
                continue  # the student moves nothing now: that it is wrong here is known
            found = self.judge.forces(pair, self._step_of(pair))
            if found is not None:
                self._offending = pair
                return found
        return None

    def _spike(self) -> Verdict | None:
        """Judges the student's largest force in any inner step; what moves nothing is let pass."""
        if self.listener is None:
            return None
        peaks = self.listener.take_peaks()
        if "teacher" in peaks:
            self.judge.usual(peaks["teacher"][0])
        if "student" not in peaks or not self.listener.pairing:
            return None
        return self.judge.spike(*peaks["student"], self._line_step)

    def _step_of(self, pair: Pair) -> int:
        """Outer step of a pair: the teacher is asked once per outer step, and once at the start.

        Where the count cannot be trusted (a driver that joined later, single steps) it is the
        step of the last line on disk, which is never later.
        """
        if self._teacher == (0, 0):
            self._teacher = (pair.pid, pair.connection)
            self._counts = pair.evaluation <= 2  # from the beginning: heard the first or second
        same = self._teacher == (pair.pid, pair.connection)
        if not same or not self._counts or self._segment.single_steps:
            return self._line_step
        return self._first_step + pair.evaluation - 1

    def _memory(self, beat: Heartbeat) -> Verdict | None:
        """Growth of a process since its first minute."""
        health = {} if self.listener is None else self.listener.health
        sizes = {role: (h.pid, h.memory_MB) for role, h in health.items()}
        sizes["i-pi"] = (beat.ipi_pid, beat.ipi_memory_MB)
        now = time.monotonic()
        for name, (pid, size) in sizes.items():
            if not pid or size <= 0:
                continue
            since, first = self._first_memory.setdefault(pid, (now, size))
            if now - since < MEMORY_SETTLES_S:
                self._first_memory[pid] = (since, max(first, size))
            elif size > first + self.settings.memory_growth_MB:
                del self._first_memory[pid]
                text = (
                    f"{name} has grown from {first:.0f} to {size:.0f} MB in "
                    f"{(now - since) / 3600:.1f} h; {self.settings.memory_growth_MB:g} MB of "
                    "growth are allowed"
                )
                step = self._line_step
                return Verdict("memory", text, step, step, "process", culprit=name)
        return None

    def driver_started(self, name: str) -> None:
        """See ``Guard``."""
        if self.listener is not None and name in self.listener.health:
            self.listener.health[name] = Health()

    def hearing(self, name: str) -> bool | None:
        """See ``Guard``."""
        if self.listener is None or (health := self.listener.health.get(name)) is None:
            return None
        heard = max(health.last_answer, health.last_news)
        return time.monotonic() - heard < ANSWER_LIMIT_S

    def hung(self, answer_limit_s: float, evaluation_limit_s: float) -> str:
        """See ``Guard``. Only a driver that has answered before can stop answering."""
        if self.listener is None:
            return ""
        now = time.monotonic()
        for role, health in self.listener.health.items():
            heard = max(health.last_answer, health.last_news)
            if heard > -math.inf and now - heard > max(answer_limit_s, ANSWER_LIMIT_S):
                return role
            if (health.evaluating_s or 0.0) > evaluation_limit_s:
                return role
        return ""

    def decide(self, verdict: Verdict, step: int) -> Plan:
        """See ``Guard``."""
        self._state = f"stopped by: {verdict.kind}"
        self._keep_frame(verdict)
        self.note(
            "verdict",
            verdict.step,
            verdict.text,
            verdict=verdict.kind,
            cause=verdict.cause,
            sound_step=verdict.sound_step,
        )
        plan = self.policy.decide(verdict, step)
        if plan.before_step is None:
            self.note("restart", step, "i-PI is started again from its newest checkpoint")
        else:
            seed = "" if plan.seed is None else ", with new random numbers"
            text = f"goes back to the newest checkpoint not after step {plan.before_step}{seed}"
            self.note("rewind", verdict.step, text, number=len(self.policy.rewinds))
        return plan

    def _keep_frame(self, verdict: Verdict) -> None:
        """Appends the offending frame with both forces, ready for training.

        What went wrong between outer steps (a spike, a jump) has none: the last outer step before
        it was seen is the nearest one that both models know.
        """
        pair, self._offending = self._offending, None
        listener = self.listener if self.physics.multiple_steps else None
        if pair is None and verdict.cause == "physics" and listener and listener.pairing:
            pair = listener.latest
        if pair is None or pair.positions_A is None or pair.cell_A is None:
            return
        teacher = pair.teacher_eV_per_A
        finite = teacher is not None and bool(np.isfinite(teacher).all())
        frame = Frame(
            self.numbers,
            pair.positions_A,
            pair.cell_A,
            self.pbc,
            forces=teacher if finite else None,
            energy_eV=pair.energy_eV if finite else None,
            source="watchdog",
            info={"step": verdict.step, "verdict": verdict.kind},
        )
        atoms = frame.to_atoms()
        atoms.arrays["student_forces_eV_per_A"] = np.asarray(pair.student_eV_per_A)
        try:
            write(self.folder / FRAMES, atoms, format="extxyz", append=True)
        except OSError:
            return

    def restart_delay_s(self, name: str, why: str, step: int) -> float:
        """See ``Guard``."""
        delay = self.policy.restart(f"{name} ended {why}", step)
        self.note("restart", step, f"{name} ended {why}; started again in {delay:g} s")
        return delay

    def note(self, kind: str, step: int, text: str, **more: Any) -> None:
        """See ``Guard``."""
        self.journal.write(kind, step, step * self.physics.outer_step_fs / 1000, text, **more)

    def record(self) -> dict[str, Any]:
        """What ``status.json`` and ``summary.json`` carry."""
        outer = self.physics.outer_step_fs / 1000
        health = {} if self.listener is None else self.listener.health
        return {
            "state": self._state,
            "rewinds": len(self.policy.rewinds),
            "restarts_last_hour": sum(t > time.time() - 3600 for t in self.policy.restarts),
            "sts_until_ps": round(self.policy.sts_until_step * outer, 6),
            "difference_max_eV_per_A": self.judge.largest.record(),
            "difference_rms_eV_per_A": self.judge.rms.record(),
            "limits": asdict(self.limits),
            "telemetry": {} if self.listener is None else asdict(self.listener.counts),
            "drivers": {
                role: {
                    "pid": h.pid,
                    "device": h.device,
                    "evaluation_s": h.evaluation_s,
                    "memory_MB": round(h.memory_MB, 1),
                    "dropped": h.dropped,
                }
                for role, h in health.items()
            },
        }

    def _write_live(self, force: bool = False) -> None:
        now = time.monotonic()
        if now - self._saved_at > SAVE_EVERY_S or force:
            self._saved_at = now
            self.policy.distributions = {
                "largest": self.judge.largest.record(),
                "rms": self.judge.rms.record(),
            }
            self.policy.save()
        if now - self._live_at < LIVE_EVERY_S and not force:
            return
        self._live_at = now
        beat = {} if self._beat is None else asdict(self._beat)
        record = {"pid": os.getpid(), "time_unix_s": time.time(), **beat, **self.record()}
        write_record(self.folder / LIVE, record)

    def ended(self, exit: str, step: int) -> dict[str, object]:
        """See ``Guard``."""
        self._state = exit
        self.note("end", step, exit)
        self._write_live(force=True)
        return {"watchdog": self.record()}

    def close(self) -> None:
        """Ends the listener's thread and clears up after drivers that have ended."""
        if self.listener is not None:
            self.listener.close()
        for at in self._telemetry:
            at.remove()

    def __enter__(self) -> Watchdog:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()
