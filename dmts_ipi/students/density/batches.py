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
from .graph import Graph, NeighbourRows, PaddedShape, build_rows, species_of, to_graph


@dataclass
class DensityBatch(Batch):
    """Frames of one composition joined, atoms sorted by species throughout.

    Attributes:
        cell: (3, 3), the identity: shifts of a batch are already in Angstrom.
        layout: sizes of the joined graph.
    """

    cell: Tensor
    layout: PaddedShape


class GraphSet(FrameSet):
    """Frames with their neighbour rows; ``batch`` pads and joins some of them.

    All frames of one composition share one layout, so that a compiled training step sees one
    shape for each composition and batch size.
    """

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
            one = rows.layout()
            old = self.layouts.get(rows.counts, one)
            self.layouts[rows.counts] = PaddedShape(
                one.counts,
                tuple(max(p, q) for p, q in zip(one.columns, old.columns, strict=True)),
                max(one.near, old.near),
                max(one.far, old.far),
            )

    def groups(self) -> list[list[int]]:
        """Frame numbers of each composition."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for k, rows in enumerate(self.rows):
            groups.setdefault(rows.counts, []).append(k)
        return list(groups.values())

    def batch(
        self, index: Sequence[int], dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> DensityBatch:
        """Joins frames of one composition."""
        rows = [self.rows[k] for k in index]
        layout = self.layouts[rows[0].counts]
        graph = to_graph(rows, layout, dtype, device)
        positions = self._joined([self.frames[k].positions for k in index], rows, layout)
        forces = self._joined([self.frames[k].forces for k in index], rows, layout)
        graph = self._shifts_in_angstrom(graph, index, rows, layout, dtype, device)
        targets = self.frame_targets(index, dtype, device)
        targets[FORCES] = torch.as_tensor(forces, dtype=dtype, device=device)
        numbers = np.repeat(self.elements, np.asarray(layout.counts) * len(index))
        return DensityBatch(
            torch.as_tensor(positions, dtype=dtype, device=device),
            torch.as_tensor(numbers, dtype=torch.int64, device=device),
            graph,
            len(index),
            targets,
            torch.eye(3, dtype=dtype, device=device),
            PaddedShape(
                tuple(c * len(index) for c in layout.counts),
                layout.columns,
                layout.near * len(index),
                layout.far * len(index),
            ),
        )

    def atom_rows(self, index: Sequence[int]) -> list[np.ndarray]:
        """See ``FrameSet.atom_rows``."""
        rows = [self.rows[k] for k in index]
        layout = self.layouts[rows[0].counts]
        return [
            self.places(r, layout, len(index), b)[np.argsort(r.order)] for b, r in enumerate(rows)
        ]

    @staticmethod
    def places(rows: NeighbourRows, layout: PaddedShape, copies: int, which: int) -> np.ndarray:
        """Joined positions of the sorted atoms of frame ``which`` among ``copies``."""
        first = np.cumsum((0, *layout.counts[:-1]))
        s = rows.species
        counts = np.asarray(layout.counts)
        return np.arange(len(s)) + first[s] * (copies - 1) + which * counts[s]

    def _joined(
        self, arrays: Sequence, rows: Sequence[NeighbourRows], layout: PaddedShape
    ) -> np.ndarray:
        out = np.empty((len(rows) * len(rows[0].order), 3))
        for b, (x, r) in enumerate(zip(arrays, rows, strict=True)):
            out[self.places(r, layout, len(rows), b)] = np.asarray(x, float)[r.order]
        return out

    def _shifts_in_angstrom(
        self,
        graph: Graph,
        index: Sequence[int],
        rows: Sequence[NeighbourRows],
        layout: PaddedShape,
        dtype: torch.dtype,
        device: str,
    ) -> Graph:
        """Frames have their own cells: multiply the shifts by them here, once."""
        atoms = np.empty((len(rows) * len(rows[0].order), 3, 3))
        for b, (k, r) in enumerate(zip(index, rows, strict=True)):
            atoms[self.places(r, layout, len(rows), b)] = np.asarray(self.frames[k].cell, float)
        cells = torch.as_tensor(atoms, dtype=dtype, device=device)
        of_frame = torch.as_tensor(
            np.stack([np.asarray(self.frames[k].cell, float) for k in index]),
            dtype=dtype,
            device=device,
        )
        return graph._replace(
            shifts=torch.einsum("nka,nab->nkb", graph.shifts, cells),
            near_shifts=torch.einsum(
                "bea,bac->bec", graph.near_shifts.reshape(len(index), -1, 3), of_frame
            ).reshape(-1, 3),
            far_shifts=torch.einsum(
                "bea,bac->bec", graph.far_shifts.reshape(len(index), -1, 3), of_frame
            ).reshape(-1, 3),
        )
