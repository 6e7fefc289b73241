"""Which frames train and which validate; in what order they are visited."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.frames import Frame


def split_frames(
    frames: Sequence[Frame], fraction: float, seed: int
) -> tuple[list[int], list[int]]:
    """Frame numbers of training and validation; a burst is held out as a whole.

    Bursts and single frames are drawn separately, so that both kinds validate.

    Raises:
        InputError: fewer than two units to split.
    """
    units: dict[tuple[str, str], list[int]] = {}
    for k, frame in enumerate(frames):
        kind = ("burst", frame.burst) if frame.burst else ("frame", str(k))
        units.setdefault(kind, []).append(k)
    if len(units) < 2:
        raise InputError("labels", f"{len(frames)} frames", "are too few; label more")
    rng = np.random.default_rng([seed, 1])
    held: list[int] = []
    for name in ("frame", "burst"):
        keys = [key for key in units if key[0] == name]
        count = round(fraction * len(keys))
        if len(keys) > 1:
            count = min(max(count, 1), len(keys) - 1)
        for k in rng.permutation(len(keys))[:count]:
            held += units[keys[k]]
    kept = sorted(set(range(len(frames))) - set(held))
    return kept, sorted(held)


def partners(frames: Sequence[Frame], kept: Sequence[int], gap_fs: float) -> dict[int, int]:
    """For each frame of a burst, the frame ``gap_fs`` later in the same burst, if kept."""
    place = {(frames[k].burst, round(frames[k].time_fs * 1000)): k for k in kept if frames[k].burst}
    later_frames = {}
    for (burst, time), k in place.items():
        later = place.get((burst, time + round(gap_fs * 1000)))
        if later is not None and np.array_equal(frames[k].numbers, frames[later].numbers):
            later_frames[k] = later
    return later_frames


ATOMS_PER_BATCH = 192


def frames_per_batch(n_atoms: int) -> int:
    """Frames of ``n_atoms`` that make a batch of the usual size.

    A step of nine atoms costs nearly that of 192: the optimiser and the calls dominate.
    """
    return max(1, round(ATOMS_PER_BATCH / n_atoms))


class BatchSampler:
    """The batches of every step, from the seed and the step alone: resuming needs no state.

    Args:
        groups: frame numbers by composition; a batch never mixes compositions.
        sizes: frames per batch and process, of each group.
        world: processes; at each step process r takes batch ``step * world + r``.
        seed: of the order.
    """

    def __init__(
        self, groups: Sequence[Sequence[int]], sizes: Sequence[int], world: int, seed: int
    ) -> None:
        self.groups, self.sizes, self.world, self.seed = groups, sizes, world, seed
        self._epoch, self._batches = -1, self._draw(0)
        self._epoch = 0

    def _draw(self, epoch: int) -> list[tuple[int, ...]]:
        rng = np.random.default_rng([self.seed, 2, epoch])
        batches: list[tuple[int, ...]] = []
        for group, size in zip(self.groups, self.sizes, strict=True):
            order = [int(group[k]) for k in rng.permutation(len(group))]
            short = -len(order) % size
            order += [order[k % len(order)] for k in range(short)]
            batches += [tuple(order[k : k + size]) for k in range(0, len(order), size)]
        return [batches[k] for k in rng.permutation(len(batches))]

    def batch(self, step: int, rank: int = 0) -> tuple[int, ...]:
        """Frame numbers of one process at one step."""
        epoch, k = divmod(step * self.world + rank, len(self._batches))
        if epoch != self._epoch:
            self._epoch, self._batches = epoch, self._draw(epoch)
        return self._batches[k]


def data_hash(paths: Sequence[Path]) -> str:
    """SHA-256 of label files, in their order.

    Raises:
        InputError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            with open(path, "rb") as stream:
                for block in iter(lambda: stream.read(1 << 20), b""):
                    digest.update(block)
        except OSError as error:
            raise InputError("labels", path, f"cannot be read ({error.strerror})") from error
    return digest.hexdigest()
