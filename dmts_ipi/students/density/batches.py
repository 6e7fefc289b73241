"""Training frames as padded graphs, made once and kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dmts_ipi.core.frames import Frame
from dmts_ipi.students.contract import FORCES, Batch, FrameSet

from .architecture import StudentArchitecture
from .graph import (
    NeighbourRows,
    PaddedShape,
    build_rows,
    places_of,
    round_up_to,
    species_of,
    to_graph,
)


@dataclass
class DensityBatch(Batch):
    """Frames joined, atoms sorted by species throughout.

    Attributes:
        cell: (3, 3), the identity: shifts of a batch are already in Angstrom.
        layout: sizes of the joined graph.
    """

    cell: Tensor
    layout: PaddedShape


class GraphSet(FrameSet):
    """Frames with their neighbour rows; ``batch`` pads and joins some of them.

    Frames of one composition share one layout, and those of ``padded_batch`` another one, so that
    a compiled training step sees few shapes.
    """

    mixes = True

    def __init__(
        self, frames: Sequence[Frame], architecture: StudentArchitecture, elements: Sequence[int]
    ) -> None:
        self.frames, self.elements = list(frames), list(elements)
        self.rows: list[NeighbourRows] = []
        for frame in self.frames:
            species = species_of(frame.numbers, elements)
            self.rows.append(
                build_rows(
                    species,
                    frame.positions,
                    frame.cell,
                    frame.pbc,
                    len(elements),
                    architecture.cutoffs_A,
                )
            )
        self.layouts: dict[tuple[int, ...], PaddedShape] = {}
        for rows in self.rows:
            self.layouts[rows.counts] = rows.layout().enlarged_for(self.layouts.get(rows.counts))
        self._room: PaddedShape | None = None

    def groups(self) -> list[list[int]]:
        """Frame numbers of each composition."""
        by_composition: dict[tuple[int, ...], list[int]] = {}
        for k, rows in enumerate(self.rows):
            by_composition.setdefault(rows.counts, []).append(k)
        return list(by_composition.values())

    def needs(self, index: Sequence[int]) -> np.ndarray:
        """See ``FrameSet.needs``: atoms, those of each element, near and far pairs."""
        rows = [self.rows[k] for k in index]
        return np.array([(sum(r.counts), *r.counts, len(r.near.i), len(r.far.i)) for r in rows])

    def set_room(self, index: Sequence[int], room: np.ndarray) -> None:
        """See ``FrameSet.set_room``."""
        _, *counts, near, far = (int(np.ceil(value)) for value in room)
        columns = np.max([self.layouts[self.rows[k].counts].columns for k in index], axis=0)
        self._room = PaddedShape(
            tuple(counts),
            tuple(int(c) for c in columns),
            round_up_to(near, 64),
            round_up_to(far, 64),
        )

    def layout(self, index: Sequence[int]) -> PaddedShape:
        """Sizes of the batch of some frames."""
        rows = [self.rows[k] for k in index]
        if len({r.counts for r in rows}) == 1:
            one, copies = self.layouts[rows[0].counts], len(rows)
            counts = tuple(c * copies for c in one.counts)
            return PaddedShape(counts, one.columns, one.near * copies, one.far * copies)
        _, *counts, near, far = self.needs(index).sum(axis=0)
        columns = np.max([r.layout().columns for r in rows], axis=0)
        return PaddedShape(
            tuple(int(c) for c in counts),
            tuple(int(c) for c in columns),
            round_up_to(int(near), 64),
            round_up_to(int(far), 64),
        )

    def batch(
        self, index: Sequence[int], dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> DensityBatch:
        """Joins frames."""
        return self._join(index, self.layout(index), dtype, device)

    def padded_batch(
        self, index: Sequence[int], dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> DensityBatch:
        """See ``FrameSet.padded_batch``."""
        room = self._room
        if room is not None and self.needs_fit(index, room):
            return self._join(index, room, dtype, device)
        return self.batch(index, dtype, device)

    def needs_fit(self, index: Sequence[int], room: PaddedShape) -> bool:
        """Whether frames, together, fit into a layout."""
        _, *counts, near, far = self.needs(index).sum(axis=0)
        columns = [self.layouts[self.rows[k].counts].columns for k in index]
        return PaddedShape(
            tuple(counts), tuple(np.max(columns, axis=0)), int(near), int(far)
        ).fits_into(room)

    def _join(
        self, index: Sequence[int], layout: PaddedShape, dtype: torch.dtype, device: str
    ) -> DensityBatch:
        rows, frames = [self.rows[k] for k in index], [self.frames[k] for k in index]
        graph = to_graph(rows, layout, dtype, device, [f.cell for f in frames])
        places, n = places_of(rows, layout.counts), sum(layout.counts)
        positions, forces, weight = np.zeros((n, 3)), np.zeros((n, 3)), np.zeros(n)
        for frame, r, place in zip(frames, rows, places, strict=True):
            positions[place] = np.asarray(frame.positions, float)[r.order]
            forces[place] = np.asarray(frame.forces, float)[r.order]
            weight[place] = 1.0
        targets = self.frame_targets(index, dtype, device)
        targets[FORCES] = torch.as_tensor(forces, dtype=dtype, device=device)
        return DensityBatch(
            torch.as_tensor(positions, dtype=dtype, device=device),
            torch.as_tensor(np.repeat(self.elements, layout.counts), dtype=torch.int64).to(device),
            graph,
            len(index),
            targets,
            torch.eye(3, dtype=dtype, device=device),
            layout,
            weight=None if weight.all() else torch.as_tensor(weight, dtype=dtype, device=device),
        )

    def atom_rows(self, index: Sequence[int]) -> list[np.ndarray]:
        """See ``FrameSet.atom_rows``."""
        rows = [self.rows[k] for k in index]
        places = places_of(rows, self.layout(index).counts)
        return [place[np.argsort(r.order)] for place, r in zip(places, rows, strict=True)]
