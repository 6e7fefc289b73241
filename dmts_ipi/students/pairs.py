"""Graph of atom pairs for architectures that do not define a graph of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dmts_ipi.core.frames import Frame
from dmts_ipi.core.neighbours import neighbour_pairs

from .contract import FORCES, Batch, FrameSet


class PairGraph(NamedTuple):
    """Pairs closer than the reach, each once, with its image."""

    first: Tensor  # (e,) int64
    second: Tensor  # (e,) int64
    shifts_A: Tensor  # (e, 3): added to x[second]
    frame: Tensor  # (m,) int64: the frame of each atom
    n_frames: int


def pair_graph(
    structures: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    reach_A: float,
    dtype: torch.dtype,
    device: str,
) -> PairGraph:
    """Pairs of several structures joined; each is positions (n, 3), cell (3, 3), pbc (3,)."""
    first, second, shifts, frame = [], [], [], []
    start = 0
    for k, (x, cell, pbc) in enumerate(structures):
        i, j, s = neighbour_pairs(x, cell, pbc, reach_A, full=False)
        first.append(start + i)
        second.append(start + j)
        shifts.append(s @ np.asarray(cell, float))
        frame.append(np.full(len(x), k))
        start += len(x)

    def whole(parts: list[np.ndarray]) -> Tensor:
        return torch.as_tensor(np.concatenate(parts), dtype=torch.int64, device=device)

    return PairGraph(
        whole(first),
        whole(second),
        torch.as_tensor(np.concatenate(shifts), dtype=dtype, device=device),
        whole(frame),
        len(structures),
    )


class PairFrames(FrameSet):
    """Frames whose batches have a ``PairGraph``; atoms stay in their order."""

    mixes = True

    def __init__(self, frames: Sequence[Frame], elements: list[int], reach_A: float) -> None:
        self.frames, self.elements, self.reach_A = list(frames), elements, reach_A

    def batch(
        self, index: Sequence[int], dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Batch:
        """See ``FrameSet.batch``."""
        some = [self.frames[k] for k in index]

        def real(parts: list[np.ndarray]) -> Tensor:
            return torch.as_tensor(np.concatenate(parts), dtype=dtype, device=device)

        targets = self.frame_targets(index, dtype, device)
        targets[FORCES] = real([np.asarray(f.forces, float) for f in some])
        return Batch(
            real([np.asarray(f.positions, float) for f in some]),
            torch.as_tensor(
                np.concatenate([f.numbers for f in some]), dtype=torch.int64, device=device
            ),
            pair_graph([(f.positions, f.cell, f.pbc) for f in some], self.reach_A, dtype, device),
            len(some),
            targets,
        )

    def atom_rows(self, index: Sequence[int]) -> list[np.ndarray]:
        """See ``FrameSet.atom_rows``."""
        ends = np.cumsum([len(self.frames[k].numbers) for k in index])
        starts = np.concatenate([[0], ends[:-1]])
        return [np.arange(a, b) for a, b in zip(starts, ends, strict=True)]
