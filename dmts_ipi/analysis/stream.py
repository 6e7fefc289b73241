"""Frames of a run after equilibration, in chunks of bounded memory, however long the run is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from dmts_ipi.core.errors import InputError

from .run_data import RunInput

CHUNK_NUMBERS = 1_500_000  # doubles of positions in a chunk: 12 MB
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Chunk:
    """Consecutive frames, evenly spaced.

    ``positions`` (c, n, 3) A, not wrapped, ``cells`` (c, 3, 3) A, ``velocities`` (c, n, 3) A/fs or
    None, ``steps`` (c,), ``times_ps`` (c,). ``follows``: the first frame comes one stride after the
    last of the chunk before. ``forces``: of each frame, (n, 3) eV/A of the sampled force, or None
    where they are not written. ``frame_ps``: time between frames (0: there is only one);
    ``expected``: how many frames will come in all.
    """

    steps: np.ndarray
    times_ps: np.ndarray
    positions: np.ndarray
    cells: np.ndarray
    velocities: np.ndarray | None
    forces: tuple[np.ndarray | None, ...]
    follows: bool
    frame_ps: float
    expected: int

    def __len__(self) -> int:
        return len(self.steps)


@dataclass
class FrameStream:
    """One pass over the frames of a run from ``skip_ps`` on.

    Known once the first chunk is there: ``stride`` in steps and ``frame_ps`` (0 with a single
    frame), ``expected`` frames from the properties file. Known at the end: ``frames``, ``last``.
    """

    run: RunInput
    skip_ps: float
    progress: Progress | None = None
    stride: int = 0
    expected: int = 0
    frames: int = 0
    last: int = -1
    without_velocities: bool = False
    _start_ps: float = field(default=0.0, repr=False)
    _ps_per_step: float = field(default=0.0, repr=False)

    def __post_init__(self) -> None:
        self._forces = _Forces(self.run)
        step, time = self.run.properties["step"], self.run.properties["time_ps"]
        self._ps_per_step = self.run.outer_fs / 1000.0
        if len(step) > 1 and step[-1] > step[0]:
            self._ps_per_step = float(time[-1] - time[0]) / float(step[-1] - step[0])
        self._start_ps = float(time[0]) - float(step[0]) * self._ps_per_step
        self.end_step = int(step[-1])

    @property
    def frame_ps(self) -> float:
        """Time between frames, ps."""
        return self.stride * self._ps_per_step

    def chunks(self) -> Iterator[Chunk]:
        """The frames.

        Raises:
            InputError: a position or a velocity is not finite.
        """
        size = max(1, CHUNK_NUMBERS // (3 * len(self.run.numbers)))
        steps: list[int] = []
        arrays: tuple[list[np.ndarray], ...] = ([], [], [])
        first: int | None = None
        follows = False
        for at, positions, cell, velocities in self.run.frames():
            if not self.stride and first is not None:
                self.stride = max(1, at - first)
            first = at if first is None else first
            before, self.last = self.last, at
            if self.progress is not None:
                self.progress(self.run.name, at, self.end_step)
            if self._start_ps + at * self._ps_per_step < self.skip_ps - 1e-9:
                continue
            if not self.frames:
                self._first_kept = at
            self._check(at, positions, velocities)
            torn = bool(self.stride and steps and at - before != self.stride)
            if steps and (torn or len(steps) >= size):
                yield self._chunk(steps, arrays, follows)
                follows, steps, arrays = not torn, [], ([], [], [])
            self.frames += 1
            steps.append(at)
            arrays[0].append(positions)
            arrays[1].append(cell)
            if velocities is None:
                self.without_velocities = True
            else:
                arrays[2].append(velocities)
        if steps:
            yield self._chunk(steps, arrays, follows)

    def _chunk(
        self, steps: list[int], arrays: tuple[list[np.ndarray], ...], follows: bool
    ) -> Chunk:
        if not self.expected:
            stride = max(1, self.stride)
            self.expected = max(1, (self.end_step - self._first_kept) // stride + 1)
        whole = len(arrays[2]) == len(steps)
        at = np.array(steps)
        return Chunk(
            steps=at,
            times_ps=self._start_ps + at * self._ps_per_step,
            positions=np.array(arrays[0], float),
            cells=np.array(arrays[1], float),
            velocities=np.array(arrays[2], float) if whole else None,
            forces=tuple(self._forces.at(step) for step in steps),
            follows=follows,
            frame_ps=self.frame_ps,
            expected=self.expected,
        )

    def _check(self, at: int, positions: np.ndarray, velocities: np.ndarray | None) -> None:
        for name, values in (("positions", positions), ("velocities", velocities)):
            if values is not None and not np.isfinite(values).all():
                raise InputError(
                    "folder",
                    self.run.path,
                    f"{name} are not finite at step {at}; the run failed there",
                )

    def notes(self) -> list[str]:
        """What the reader must know of the frames, at the end of the pass."""
        notes = []
        if self.without_velocities or not self.frames:
            notes.append("no velocities in the trajectory: no temperature by element or bond")
        if not self.frames:
            notes.append("no frame after equilibration: no structure")
        elif self.stride and self.end_step - self.last >= 2 * self.stride:
            notes.append(
                f"the trajectory ends at step {self.last}, the properties at {self.end_step}: "
                "its whole part is used"
            )
        return notes


class _Forces:
    """The sampled forces by step. Steps must be requested in increasing order."""

    def __init__(self, run: RunInput) -> None:
        self._run, self._remaining = run, run.forces()
        self._next = next(self._remaining, None)

    def at(self, step: int) -> np.ndarray | None:
        """The forces of a step, (n, 3) eV/A; None if none were sampled.

        Raises:
            InputError: they are not finite.
        """
        while self._next is not None and self._next[0] < step:
            self._next = next(self._remaining, None)
        if self._next is None or self._next[0] != step:
            return None
        forces = self._next[1]
        if not np.isfinite(forces).all():
            text = f"forces are not finite at step {step}; the run failed there"
            raise InputError("folder", self._run.path, text)
        return forces
