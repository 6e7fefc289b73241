"""Divides the work of ``label`` into independent tasks, each with a schedule of time steps."""

from __future__ import annotations

from dataclasses import dataclass

from dmts_ipi.core.errors import InputError

from .config import LabelConfig

BURSTS_PER_TASK = 5
EQUILIBRATION_FRICTION_PER_PS = 50.0


@dataclass(frozen=True)
class Task:
    """One independent run, or one frame to relabel. ``index`` seeds its random numbers.

    ``bursts`` lists the numbers of the bursts that the task samples; a plain run has none.
    """

    index: int
    kind: str  # "relabel", "run" or "bursts"
    structure: int
    temperature_K: float = 0.0
    cell_scale: float = 1.0
    bursts: tuple[int, ...] = ()

    @property
    def title(self) -> str:
        """A short description of the task for progress messages."""
        if self.kind == "relabel":
            return f"frame {self.structure + 1}"
        what = f"structure {self.structure + 1}, {self.temperature_K:g} K"
        if self.bursts:
            return what + f", bursts {self.bursts[0] + 1}-{self.bursts[-1] + 1}"
        return what + (f", cell x {self.cell_scale:g}" if self.cell_scale != 1 else "")


@dataclass(frozen=True)
class Step:
    """One time step: its friction (0: none), and whether a frame is stored after it."""

    friction_per_ps: float
    emit: bool
    burst: int = -1
    time_fs: float = 0.0
    equilibrating: bool = False
    last_of_burst: bool = False


@dataclass(frozen=True)
class Schedule:
    """The ``total`` time steps of a task; ``at(k)`` describes step k, counted from 0."""

    config: LabelConfig
    task: Task

    @property
    def step_fs(self) -> float:
        """Time step, fs."""
        return self.config.burst_step_fs if self.task.kind == "bursts" else self.config.step_fs

    @property
    def _equilibration(self) -> int:
        return round(self.config.equilibrate_ps * 1e3 / self.step_fs)

    @property
    def _period(self) -> int:
        if self.task.kind == "bursts":
            return self.config.burst_frames + round(self.config.burst_gap_fs / self.step_fs)
        return max(1, round(self.config.every_fs / self.step_fs))

    @property
    def total(self) -> int:
        """Number of steps."""
        if self.task.kind == "bursts":
            return self._equilibration + self._period * len(self.task.bursts)
        frames = int(self.config.time_ps * 1e3 / self.step_fs / self._period + 1e-9)
        return self._equilibration + frames * self._period

    def at(self, k: int) -> Step:
        """The k-th step."""
        c = self.config
        if k < self._equilibration:
            return Step(EQUILIBRATION_FRICTION_PER_PS, False, equilibrating=True)
        number, phase = divmod(k - self._equilibration, self._period)
        if self.task.kind != "bursts":
            return Step(c.friction_per_ps, phase == self._period - 1)
        gap = self._period - c.burst_frames
        if phase < gap:
            return Step(c.friction_per_ps, False)
        frame = phase - gap  # no friction: heating is predicted on an undisturbed trajectory
        last = frame == c.burst_frames - 1
        return Step(0.0, True, self.task.bursts[number], frame * self.step_fs, last_of_burst=last)

    def saves_after(self, k: int) -> bool:
        """Whether the state may be stored after step k (never inside a burst)."""
        step = self.at(k)
        inside = step.burst >= 0 and not step.last_of_burst
        return not inside


def plan(config: LabelConfig, n_structures: int, n_frames: int) -> list[Task]:
    """All tasks in order. Every shard computes the same list."""
    tasks = [Task(k, "relabel", k) for k in range(n_frames)]
    scales = [1.0, *[s for s in config.cell_scales if s != 1.0]]
    for s in range(n_structures):
        if config.time_ps > 0:
            for scale in scales:
                for t in config.temperatures_K:
                    tasks.append(Task(len(tasks), "run", s, t, scale))
        numbers = [s * config.bursts + b for b in range(config.bursts)]
        for k in range(0, len(numbers), BURSTS_PER_TASK):
            chosen = tuple(numbers[k : k + BURSTS_PER_TASK])
            tasks.append(Task(len(tasks), "bursts", s, config.burst_temperature_K, bursts=chosen))
    return tasks


def parse_shard(text: str | None) -> tuple[int, int]:
    """``k/N`` with 1 <= k <= N; None is 1/1.

    Raises:
        InputError: anything else.
    """
    if text is None:
        return 1, 1
    first, slash, second = text.partition("/")
    if slash and first.isdigit() and second.isdigit() and 1 <= int(first) <= int(second):
        return int(first), int(second)
    raise InputError("shard", text, "must be k/N with k from 1 to N, for example 1/8")
