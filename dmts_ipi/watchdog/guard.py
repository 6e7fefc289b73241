"""The watchdog of one run: it listens, judges, decides, and keeps the journal.

It implements ``core.supervision.Guard`` for the session that holds the processes.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase.io import write

from dmts_ipi.core.files import LIVE
from dmts_ipi.core.force_comparison import (
    DifferenceStatistics,
    Distribution,
    ForceComparison,
)
from dmts_ipi.core.frames import Frame
from dmts_ipi.core.supervision import Heartbeat, RestartPlan, Segment
from dmts_ipi.core.verdicts import Cause, JudgedRun, Physics, Thresholds, Verdict, VerdictKind
from dmts_ipi.core.watch_settings import WatchdogSettings

from .endpoints import Addresses, Announced
from .journal import Journal, write_record
from .judges import Judges
from .listener import Health, Listener
from .policy import Policy

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
        telemetry: addresses by model; empty: forces are not seen.
        seed: of the run.
        models: spec and identity of each model by its name in the run, for frames that are kept.

    Raises:
        InputError: a verdict of another package cannot be used, or its options are wrong.
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
        models: Mapping[str, tuple[str, str]] | None = None,
    ) -> None:
        self._models = dict(models or {})
        self.folder, self.settings, self.limits, self.physics = folder, settings, limits, physics
        self.numbers, self.pbc = numbers, pbc
        self.journal = Journal(folder)
        self._telemetry = list(telemetry.values())
        self.policy = Policy(folder, settings, limits, physics, seed).load()
        self.judges = Judges(
            JudgedRun(physics, limits, numbers, self._past()), settings.verdict_options
        )
        keep = {pair: limit.largest_eV_per_A for pair, limit in limits.differences.items()}
        self.listener = Listener(telemetry, numbers, keep) if telemetry else None
        self._segment = Segment(False, 0)
        self._first_step = 0
        self._line_step = 0
        # process and connection of the reference that the count of evaluations belongs to
        self._counted = (0, 0)
        self._first_memory: dict[int, tuple[float, float]] = {}
        self._offending: ForceComparison | None = None
        self._beat: Heartbeat | None = None
        self._live_at = self._saved_at = -math.inf
        self._state = "starting"

    def _past(self) -> dict[tuple[str, str], DifferenceStatistics]:
        """Distributions of earlier sessions."""
        statistics = {}
        for pair in self.limits.differences:
            record = self.policy.distributions_of(pair)
            largest, rms = (Distribution.from_record(record.get(k, {})) for k in ("largest", "rms"))
            statistics[pair] = DifferenceStatistics(largest, rms)
        return statistics

    @property
    def alarm(self) -> int | None:
        """See ``Guard``: forces that differ by too much have been heard."""
        return None if self.listener is None else self.listener.alarm

    def segment(self, step: int, total_steps: int) -> Segment:
        """See ``Guard``."""
        return self.policy.segment(step, total_steps)

    def started(self, segment: Segment, step: int, already_running: bool = False) -> None:
        """See ``Guard``."""
        self._segment, self._first_step, self._line_step = segment, step, step
        single = segment.single_steps or not self.physics.multiple_steps
        self._state = "single steps" if single else "multiple steps"
        self.judges.restarted(step)
        self._counted = (0, 0)
        if self.listener is not None:
            self.listener.comparing = not segment.single_steps
            self.listener.forget()
        until = f"up to step {segment.until_step}"
        how = "runs" if already_running else "starts"
        self.note("start", step, f"i-PI {how} with {self._state} {until}")
        self._write_live(force=True)

    def lines(self, step: int, columns: dict[str, float]) -> Verdict | None:
        """See ``Guard``."""
        self._line_step = step
        return self.judges.line(step, columns)

    def beat(self, beat: Heartbeat) -> Verdict | None:
        """See ``Guard``."""
        self._beat = beat
        verdict = self._comparisons() or self._peaks() or self._memory(beat)
        self._write_live()
        return verdict

    def _comparisons(self) -> Verdict | None:
        """Judges what has been heard since the last call. Only the first verdict counts."""
        if self.listener is None:
            return None
        for comparison in self.listener.take():
            if not self.listener.comparing:
                continue  # fast models do not move the atoms now, and are known to err here
            verdict = self.judges.forces(comparison, self._step_of(comparison))
            if verdict is not None:
                self._offending = comparison
                return verdict
        return None

    def _peaks(self) -> Verdict | None:
        """Judges the largest forces in any inner step; of models that move the atoms only."""
        if self.listener is None:
            return None
        peaks, references = self.listener.take_peaks(), self.judges.run.references
        for name in sorted(peaks, key=lambda name: name not in references):
            if name in references or self.listener.comparing:
                verdict = self.judges.peak(name, *peaks[name], self._line_step)
                if verdict is not None:
                    return verdict
        return None

    def _step_of(self, comparison: ForceComparison) -> int:
        """Outer step of a comparison: the reference is evaluated once per outer step, and once at
        the start.

        Where the count cannot be trusted (a driver that joined later, single steps) it is the
        step of the last line on disk, which is never later.
        """
        of = (comparison.pid, comparison.connection)
        if self._counted == (0, 0):
            self._counted = of
            self._counts = comparison.evaluation <= 2  # from the start: heard the first or second
        if self._counted != of or not self._counts or self._segment.single_steps:
            return self._line_step
        return self._first_step + comparison.evaluation - 1

    def _memory(self, beat: Heartbeat) -> Verdict | None:
        """Growth of a process since its first minute."""
        health = {} if self.listener is None else self.listener.health
        sizes = {name: (h.pid, h.memory_MB) for name, h in health.items()}
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
                return Verdict(VerdictKind.MEMORY, text, step, step, culprit=name)
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
        for name, health in self.listener.health.items():
            heard = max(health.last_answer, health.last_news)
            if heard > -math.inf and now - heard > max(answer_limit_s, ANSWER_LIMIT_S):
                return name
            if (health.evaluating_s or 0.0) > evaluation_limit_s:
                return name
        return ""

    def decide(self, verdict: Verdict, step: int) -> RestartPlan:
        """See ``Guard``."""
        self._state = f"stopped by: {verdict.kind}"
        self._keep_frame(verdict)
        self.note(
            "verdict",
            verdict.step,
            verdict.text,
            verdict=verdict.kind.value,
            cause=verdict.cause.value,
            **{"class": verdict.kind.cls.value},
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
        """Appends the offending frame with all forces there, ready for training.

        What went wrong between outer steps (a spike, a jump) has none: then the last outer step
        before it is kept, the nearest structure that all models have evaluated.
        """
        comparison, self._offending = self._offending, None
        listener = self.listener if self.physics.multiple_steps else None
        physics = verdict.cause is Cause.PHYSICS
        if comparison is None and physics and listener and listener.comparing:
            comparison = listener.latest
        if comparison is None or comparison.positions_A is None or comparison.cell_A is None:
            return
        forces = dict(comparison.forces_eV_per_A)
        reference = forces.pop(comparison.reference)
        finite = bool(np.isfinite(reference).all())
        teacher, identity = self._models.get(comparison.reference, ("", ""))
        frame = Frame(
            self.numbers,
            comparison.positions_A,
            comparison.cell_A,
            self.pbc,
            forces=reference if finite else None,
            energy_eV=comparison.energy_eV if finite else None,
            source="watchdog",
            teacher=teacher if finite else "",
            teacher_identity=identity if finite else "",
            info={"step": verdict.step, "verdict": verdict.kind.value},
        )
        atoms = frame.to_atoms()
        for name, values in forces.items():
            atoms.arrays[f"{name}_forces_eV_per_A"] = np.asarray(values)
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
        self.journal.write(kind, step, step * self.physics.outer_fs / 1000, text, **more)

    def record(self) -> dict[str, Any]:
        """What ``status.json`` and ``summary.json`` carry.

        ``difference_max_eV_per_A`` and ``difference_rms_eV_per_A`` are those of the outermost
        level; ``comparisons`` has those of every pair of models.
        """
        outer = self.physics.outer_fs / 1000
        health = {} if self.listener is None else self.listener.health
        run = self.judges.run
        first = next(iter(run.statistics.values()), DifferenceStatistics())
        limits = asdict(replace(self.limits, differences={}))
        del limits["differences"]
        for limit in list(self.limits.differences.values())[:1]:
            limits["difference_max_eV_per_A"] = limit.largest_eV_per_A
            limits["difference_rms_eV_per_A"] = limit.rms_eV_per_A
        return {
            "state": self._state,
            "rewinds": len(self.policy.rewinds),
            "restarts_last_hour": sum(t > time.time() - 3600 for t in self.policy.restarts),
            "sts_until_ps": round(self.policy.sts_until_step * outer, 6),
            "difference_max_eV_per_A": first.largest.record(),
            "difference_rms_eV_per_A": first.rms.record(),
            "comparisons": [
                {
                    "accurate": pair[0],
                    "fast": pair[1],
                    "difference_max_eV_per_A": run.statistics[pair].largest.record(),
                    "difference_rms_eV_per_A": run.statistics[pair].rms.record(),
                    "allowed_max_eV_per_A": limit.largest_eV_per_A,
                    "allowed_rms_eV_per_A": limit.rms_eV_per_A,
                }
                for pair, limit in self.limits.differences.items()
            ],
            "limits": limits,
            "telemetry": {} if self.listener is None else asdict(self.listener.counts),
            "drivers": {
                name: {
                    "pid": h.pid,
                    "device": h.device,
                    "evaluation_s": h.evaluation_s,
                    "memory_MB": round(h.memory_MB, 1),
                    "dropped": h.dropped,
                }
                for name, h in health.items()
            },
        }

    def _write_live(self, force: bool = False) -> None:
        now = time.monotonic()
        if now - self._saved_at > SAVE_EVERY_S or force:
            self._saved_at = now
            self.policy.distributions = {
                "/".join(pair): {"largest": s.largest.record(), "rms": s.rms.record()}
                for pair, s in self.judges.run.statistics.items()
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
