"""Which frames train and which validate; in what order they are visited."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.frames import Frame
from dmts_ipi.students.contract import ENERGY, VIRIAL, FrameSet


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


@dataclass(frozen=True)
class Pool:
    """Frames of several compositions that share batches.

    Attributes:
        frames: their numbers.
        needs: (frames, kinds of things) what each takes of a batch, atoms first.
        room: (kinds of things,) what a batch has room for; no frame needs more.
        most: frames of a batch at most; None: as many as there is room for.
    """

    frames: Sequence[int]
    needs: np.ndarray
    room: np.ndarray
    most: int | None = None

    def batches(self, rng: np.random.Generator) -> list[tuple[int, ...]]:
        """All frames in random order, each in the first batch that has room for it."""
        used = np.zeros((0, len(self.room)))
        members: list[list[int]] = []
        for k in rng.permutation(len(self.frames)):
            fits = (used + self.needs[k] <= self.room).all(axis=1)
            if self.most is not None:
                fits &= np.array([len(m) < self.most for m in members], bool)
            place = int(np.argmax(fits)) if fits.any() else len(members)
            if place == len(members):
                members.append([])
                used = np.vstack([used, np.zeros_like(used, shape=(1, len(self.room)))])
            members[place].append(int(self.frames[k]))
            used[place] += self.needs[k]
        return [tuple(m) for m in members]


# Of batches packed by atoms alone, the part that a common shape holds; the rest is packed anew.
COMMON_SHAPE = 0.8


def make_pool(
    frames: Sequence[int], needs: np.ndarray, most: int | None, alike: bool, seed: int
) -> Pool:
    """A pool whose batches have some 192 atoms.

    Args:
        frames, needs, most: of the pool.
        alike: limit everything that frames need, so that one shape, without much padding, holds
            every batch; else atoms alone.
        seed: of the packing from which the limits are taken.
    """
    largest = needs.max(axis=0).astype(float)
    room = np.full(len(largest), np.inf)
    room[0] = np.inf if most else max(ATOMS_PER_BATCH, largest[0])
    pool = Pool(frames, needs, room, most)
    if not alike:
        return pool
    place = {k: row for k, row in zip(frames, needs, strict=True)}
    batches = pool.batches(np.random.default_rng([seed, 5]))
    sums = np.array([np.sum([place[k] for k in b], axis=0) for b in batches])
    common = np.maximum(np.quantile(sums, COMMON_SHAPE, axis=0), largest)
    return Pool(frames, needs, np.minimum(np.ceil(common), np.maximum(room, largest)), most)


def plan_batches(
    frames: FrameSet, batch_frames: int | None, trained: Collection[str], alike: bool, seed: int
) -> tuple[list[list[int]], list[int], list[Pool]]:
    """Which frames share batches: by composition, and small ones of several compositions mixed.

    Args:
        frames: of the training.
        batch_frames: frames per batch; None: some 192 atoms.
        trained: labels, beside forces, that all frames of a pool have or lack together.
        alike: see ``make_pool``.
        seed: of the packing.

    Returns:
        Frame numbers of each group, frames per batch of each group, and pools.
    """
    groups = frames.groups()

    def size(group: list[int]) -> int:
        return batch_frames or frames_per_batch(len(frames.frames[group[0]].numbers))

    def labels(group: list[int]) -> tuple[bool, ...]:
        one = frames.frames[group[0]]
        has = {ENERGY: one.energy_eV is not None, VIRIAL: one.virial_eV is not None}
        return tuple(has[name] for name in sorted(trained))

    by_labels: dict[tuple[bool, ...], list[list[int]]] = {}
    for group in groups:
        if frames.mixes and size(group) > 1:
            by_labels.setdefault(labels(group), []).append(group)
    mixed = [some for some in by_labels.values() if len(some) > 1]
    alone = [g for g in groups if not any(g in some for some in mixed)]
    pools = []
    for some in mixed:
        members = [k for group in some for k in group]
        pools.append(make_pool(members, frames.needs(members), batch_frames, alike, seed))
    return alone, [min(len(g), size(g)) for g in alone], pools


class BatchSampler:
    """The batches of every step, from the seed and the step alone: resuming needs no state.

    Args:
        groups: frame numbers by composition; a batch takes frames of one of them.
        sizes: frames per batch and process, of each group.
        world: processes; at each step process r takes batch ``step * world + r``.
        seed: of the order.
        pools: further frames, whose batches mix compositions.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[int]],
        sizes: Sequence[int],
        world: int,
        seed: int,
        pools: Sequence[Pool] = (),
    ) -> None:
        self.groups, self.sizes, self.world, self.seed = groups, sizes, world, seed
        self.pools = pools
        self._epoch, self._batches = 0, self._draw(0)
        self._length = len(self._batches)  # of every epoch, though packing may vary by a batch

    def _draw(self, epoch: int) -> list[tuple[int, ...]]:
        rng = np.random.default_rng([self.seed, 2, epoch])
        batches: list[tuple[int, ...]] = []
        for group, size in zip(self.groups, self.sizes, strict=True):
            order = [int(group[k]) for k in rng.permutation(len(group))]
            short = -len(order) % size
            order += [order[k % len(order)] for k in range(short)]
            batches += [tuple(order[k : k + size]) for k in range(0, len(order), size)]
        for pool in self.pools:
            batches += pool.batches(rng)
        return [batches[k] for k in rng.permutation(len(batches))]

    def batch(self, step: int, rank: int = 0) -> tuple[int, ...]:
        """Frame numbers of one process at one step."""
        epoch, k = divmod(step * self.world + rank, self._length)
        if epoch != self._epoch:
            self._epoch, self._batches = epoch, self._draw(epoch)
        return self._batches[k % len(self._batches)]


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
