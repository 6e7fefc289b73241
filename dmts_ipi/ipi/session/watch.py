"""Monitors a run from its outputs, since i-PI's exit status reveals no NaN, stall or full disk."""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dmts_ipi.core.errors import InputError, RunFault
from dmts_ipi.core.supervision import RunInterrupted
from dmts_ipi.core.verdicts import Verdict, VerdictKind
from dmts_ipi.ipi.run_folder.outputs import PropertyReader

HOT = 10.0  # times the temperature that the run was asked for: a fault
WARM = 2.0  # and up to here a state counts as sound
STALL_S, STALL_LINES = 60.0, 30.0


@dataclass(frozen=True)
class Limits:
    """Limits after which a run counts as failed."""

    startup_s: float = 900.0
    stall_s: float | None = (
        None  # None: the larger of 60 s and 30 times the longest time between lines
    )
    free_MB: float = 50.0


@dataclass
class Progress:
    """Progress of a run at one moment; NaN means not yet known."""

    step: int
    total_steps: int
    outer_fs: float
    temperature_K: float = math.nan
    potential_eV: float = math.nan
    steady_steps: int = 0
    steady_s: float = 0.0

    @property
    def time_ps(self) -> float:
        """Simulated time, ps."""
        return self.step * self.outer_fs / 1000

    @property
    def ns_per_day(self) -> float:
        """Speed without start and compilation; NaN before two lines were seen."""
        if self.steady_steps <= 0 or self.steady_s <= 0:
            return math.nan
        return self.steady_steps * self.outer_fs * 1e-6 / self.steady_s * 86400

    @property
    def remaining_s(self) -> float:
        """Wall time left at this speed, s; NaN while unknown."""
        if self.steady_steps <= 0:
            return math.nan
        return (self.total_steps - self.step) * self.steady_s / self.steady_steps


class Watch:
    """Follows the properties file of a run and raises when something is wrong.

    ``sound_step`` is None until a broken state is found; then it is the last step whose state was
    good, and later checkpoints must not be used.
    """

    sound_step: int | None = None

    def __init__(
        self, properties: Path, first: Progress, temperature_K: float | None, limits: Limits
    ) -> None:
        """Starts at the end of what the file holds already.

        Args:
            properties: the file, which may not exist yet.
            first: where the run starts from.
            temperature_K: what it was asked for; None: no limit on temperature.
            limits: see ``Limits``.
        """
        self.progress, self.limits, self.temperature_K = first, limits, temperature_K
        self._reader = PropertyReader(properties)
        self._reader.read()
        self._started = self._last_news = time.monotonic()
        self._origin: tuple[int, float] | None = None
        self._before = (first.steady_steps, first.steady_s)  # of earlier starts of i-PI
        self._last_sound = first.step
        self._waits_for_start = False
        self._longest_s = 0.0
        self._fresh: list[tuple[int, dict[str, float]]] = []

    def update(self) -> Progress:
        """Reads new lines and checks them.

        Raises:
            RunFault: NaN, a runaway temperature, a stall, or too little free space on the disk.
        """
        now = time.monotonic()
        if self.read():
            if self._origin is not None and not self._waits_for_start:
                self._longest_s = max(self._longest_s, now - self._last_news)
            self._last_news, self._waits_for_start = now, False
        waited = now - self._last_news
        started = self._origin is not None and not self._waits_for_start
        if waited > self.waiting_limit_s:
            what = "no step for" if started else "no first step after"
            text = (
                f"stalled at step {self.progress.step}: {what} {waited:.0f} s; see the logs, "
                f"or raise --{'stall' if started else 'startup'}-limit-s"
            )
            raise self._interrupted(VerdictKind.STALL, text, self.progress.step)
        try:
            check_room(self._reader.path.parent, self.limits.free_MB, RunFault)
        except RunFault as error:
            raise self._interrupted(VerdictKind.DISK, str(error), self.progress.step) from error
        return self.progress

    def wait_for_start(self) -> None:
        """A process was started: the next line may take as long as a first one."""
        self._last_news, self._waits_for_start = time.monotonic(), True

    @property
    def waited_s(self) -> float:
        """Time since the last news, s."""
        return time.monotonic() - self._last_news

    @property
    def waiting_limit_s(self) -> float:
        """How long the next line may take, s: longer after a process was started."""
        started = self._origin is not None and not self._waits_for_start
        return self.stall_limit_s if started else self.limits.startup_s

    @property
    def stall_limit_s(self) -> float:
        """The limit that was set, or one from the longest time between two lines so far."""
        if self.limits.stall_s is not None:
            return self.limits.stall_s
        return max(STALL_S, STALL_LINES * self._longest_s)

    def fresh(self) -> list[tuple[int, dict[str, float]]]:
        """Steps and columns of the lines since the last call; all values are finite."""
        fresh, self._fresh = self._fresh, []
        return fresh

    def _interrupted(self, kind: VerdictKind, text: str, step: int) -> RunInterrupted:
        sound = self._last_sound if self.sound_step is None else self.sound_step
        return RunInterrupted(Verdict(kind, text, step, min(sound, step)))

    def read(self) -> bool:
        """Reads new lines, checks them, and returns whether there were any.

        Raises:
            RunFault: NaN, or a runaway temperature.
        """
        new = self._reader.read()
        if not len(new.get("step", ())):
            return False
        self._take(new)
        return True

    def _take(self, new: dict[str, np.ndarray]) -> None:
        steps, p = new["step"], self.progress
        for key in ("conserved_eV", "temperature_K", "potential_eV", "kinetic_eV"):
            bad = np.flatnonzero(~np.isfinite(new.get(key, np.zeros(len(steps)))))
            if len(bad):
                self._broken(new)
                text = (
                    f"{key} is {new[key][bad[0]]} at step {steps[bad[0]]}; a force was NaN, or the "
                    "outer step is too large; the last checkpoint before it is good"
                )
                raise self._interrupted(VerdictKind.NAN, text, int(steps[bad[0]]))
        hot = new.get("temperature_K", np.zeros(len(steps)))
        if self.temperature_K and (hot > HOT * self.temperature_K).any():
            k = int(np.argmax(hot > HOT * self.temperature_K))
            self._broken(new)
            text = (
                f"temperature is {hot[k]:.0f} K at step {steps[k]}, over {HOT:g} times "
                f"{self.temperature_K:g} K; use a smaller outer step or a better student"
            )
            raise self._interrupted(VerdictKind.RUNAWAY, text, int(steps[k]))
        self._fresh += [
            (int(step), {key: float(values[k]) for key, values in new.items() if values.ndim == 1})
            for k, step in enumerate(steps)
        ]
        if not self.temperature_K or hot[-1] < WARM * self.temperature_K:
            self._last_sound = int(steps[-1])
        written = self._reader.path.stat().st_mtime  # of the last line: every line is flushed
        if self._origin is None:
            self._origin = (int(steps[-1]), written)
        p.step = int(steps[-1])
        p.temperature_K = float(hot[-1])
        p.potential_eV = float(new.get("potential_eV", np.full(1, math.nan))[-1])
        p.steady_steps = self._before[0] + p.step - self._origin[0]
        p.steady_s = self._before[1] + max(written - self._origin[1], 0.0)

    def _broken(self, new: dict[str, np.ndarray]) -> None:
        limit = WARM * (self.temperature_K or math.inf)
        sound = self._last_sound
        for step, kelvin in zip(new["step"], new.get("temperature_K", ()), strict=False):
            if not kelvin < limit:
                break
            sound = int(step)
        self.sound_step = sound


def check_room(folder: Path, free_MB: float, kind: type[InputError] | type[RunFault]) -> None:
    """Raises ``kind`` when the disk has less room than this, or the folder is gone."""
    try:
        free = shutil.disk_usage(folder).free / 1e6
    except OSError as error:
        if kind is InputError:
            raise InputError("folder", folder, f"{error.strerror}") from error
        raise RunFault(f"the folder of the run is gone ({error.strerror}: {folder})") from error
    if free >= free_MB:
        return
    if kind is InputError:
        raise InputError("disk", f"{free:.0f} MB free", f"make room: {free_MB:g} MB are needed")
    raise RunFault(
        f"disk full: {free:.0f} MB free, {free_MB:g} MB are needed; the last checkpoint is good: "
        "make room and run again"
    )
