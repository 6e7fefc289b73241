"""The student's view of a structure: atoms sorted by species, neighbours in rows of equal length.

Row i of ``neighbour`` holds the neighbours of atom i, those of species 0 in the first block of
columns, those of species 1 in the next, and so on; short rows are padded. Rows of equal
length turn the densities into matrix products and keep shapes fixed, so that a compiled student is
not compiled again when a neighbour comes or goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.neighbours import Pairs, neighbour_pairs


def species_of(numbers: np.ndarray, elements: Sequence[int]) -> np.ndarray:
    """Index of each atom's element.

    Raises:
        InputError: an element that the student does not know.
    """
    from ase.data import chemical_symbols

    table = {int(z): k for k, z in enumerate(elements)}
    missing = sorted({int(z) for z in numbers} - set(table))
    if missing:
        known = ", ".join(chemical_symbols[z] for z in elements)
        raise InputError(
            "element",
            chemical_symbols[missing[0]],
            f"the student knows {known}; train one on data with this element",
        )
    return np.array([table[int(z)] for z in numbers], dtype=np.int64)


class PaddedShape(NamedTuple):
    """Sizes that are fixed while the student is not compiled again.

    ``counts``: atoms of each species; ``columns``: columns of each species' block;
    ``near``, ``far``: entries of the two lists of half pairs.
    """

    counts: tuple[int, ...]
    columns: tuple[int, ...]
    near: int
    far: int

    def fits_into(self, other: PaddedShape) -> bool:
        """Whether a graph of these sizes has room in the other."""
        return (
            all(a <= b for a, b in zip(self.counts, other.counts, strict=True))
            and all(a <= b for a, b in zip(self.columns, other.columns, strict=True))
            and self.near <= other.near
            and self.far <= other.far
        )

    def enlarged_for(self, other: PaddedShape | None) -> PaddedShape:
        """The smallest layout that holds what either holds; this one for other atoms."""
        if other is None or other.counts != self.counts:
            return self
        return PaddedShape(
            self.counts,
            tuple(max(a, b) for a, b in zip(self.columns, other.columns, strict=True)),
            max(self.near, other.near),
            max(self.far, other.far),
        )


class Graph(NamedTuple):
    """Tensors that the network reads; n atoms sorted by species, k columns, e half pairs.

    ``shifts`` are in whole cells (float), so that the cell may change between two rebuilds.
    """

    species: Tensor  # (n,) int64
    neighbour: Tensor  # (n, k) int64
    reverse: Tensor  # (n, k) int64: flat position of the edge j -> i
    shifts: Tensor  # (n, k, 3)
    pad: Tensor  # (n, k): 1 where there is no neighbour
    near: Tensor  # (2, e_near) int64
    near_shifts: Tensor  # (e_near, 3)
    near_pad: Tensor  # (e_near,)
    far: Tensor  # (2, e_far)
    far_shifts: Tensor  # (e_far, 3)
    far_pad: Tensor  # (e_far,)


def round_up_to(value: int, step: int) -> int:
    """The next multiple of ``step``, at least one step."""
    return max(step, -(-value // step) * step)


@dataclass
class NeighbourRows:
    """Neighbour rows in numpy, before padding. ``order[k]``: original index of sorted atom k."""

    order: np.ndarray
    species: np.ndarray  # sorted
    atom: np.ndarray  # (2e,) directed edges
    other: np.ndarray
    shifts: np.ndarray  # (2e, 3)
    rank: np.ndarray  # (2e,) column within the block of the neighbour's species
    widths: tuple[int, ...]  # columns needed by each block
    near: Pairs
    far: Pairs
    counts: tuple[int, ...] = field(default=())

    def layout(self, slack: float = 1.0) -> PaddedShape:
        """The sizes that hold these rows, enlarged by ``slack`` and rounded up."""
        return PaddedShape(
            self.counts,
            tuple(round_up_to(int(np.ceil(w * slack)), 2) for w in self.widths),
            round_up_to(int(np.ceil(len(self.near.i) * slack)), 64),
            round_up_to(int(np.ceil(len(self.far.i) * slack)), 64),
        )

    def fit_into(self, layout: PaddedShape) -> bool:
        """Whether the rows fit into a layout."""
        return (
            self.counts == layout.counts
            and all(a <= b for a, b in zip(self.widths, layout.columns, strict=True))
            and len(self.near.i) <= layout.near
            and len(self.far.i) <= layout.far
        )


def build_rows(
    species: np.ndarray,
    positions: np.ndarray,
    cell: np.ndarray,
    pbc: np.ndarray,
    n_species: int,
    cutoffs_A: tuple[float, float, float],
) -> NeighbourRows:
    """Neighbour rows of one structure.

    Args:
        species: (n,) index of the element of each atom.
        positions: (n, 3) Angstrom.
        cell, pbc: as in ``core.model``.
        n_species: number of elements that the student knows.
        cutoffs_A: of the rows, of the near pairs and of the far pairs (0: none); a skin included.
    """
    order = np.argsort(species, kind="stable")
    z = species[order]
    x = np.asarray(positions, float)[order]
    rows, near, far = cutoffs_A
    all_pairs = neighbour_pairs(x, cell, pbc, max(cutoffs_A), full=False)
    i, j, s = all_pairs
    d = x[j] - x[i] + s @ np.asarray(cell, float)
    r = np.sqrt(np.einsum("ea,ea->e", d, d))

    def within(cutoff: float) -> Pairs:
        keep = np.flatnonzero(r < cutoff)
        return Pairs(i[keep], j[keep], s[keep])

    hi, hj, hs = within(rows)
    atom, other = np.concatenate([hi, hj]), np.concatenate([hj, hi])
    key = atom * n_species + z[other]
    sort = np.argsort(key, kind="stable")
    filled = np.bincount(key, minlength=len(z) * n_species)
    start = np.cumsum(filled) - filled
    rank = np.empty(len(key), np.int64)
    rank[sort] = np.arange(len(key)) - start[key[sort]]
    widths = filled.reshape(-1, n_species).max(axis=0) if len(z) else np.zeros(n_species, int)
    return NeighbourRows(
        order,
        z,
        atom,
        other,
        np.concatenate([hs, -hs]),
        rank,
        tuple(int(w) for w in widths),
        within(near),
        within(far),
        tuple(int(c) for c in np.bincount(z, minlength=n_species)),
    )


def places_of(rows: Sequence[NeighbourRows], counts: Sequence[int]) -> list[np.ndarray]:
    """Where the sorted atoms of each structure stand when they are joined.

    Species by species, and within each one structure by structure; ``counts`` (species,) may have
    room for more atoms than there are.
    """
    first = np.cumsum((0, *counts[:-1]))
    places = []
    for r in rows:
        start = np.cumsum((0, *r.counts[:-1]))
        places.append(first[r.species] + np.arange(len(r.species)) - start[r.species])
        first = first + np.asarray(r.counts)
    return places


def to_graph(
    rows: Sequence[NeighbourRows],
    layout: PaddedShape,
    dtype: torch.dtype,
    device: str,
    cells: Sequence[np.ndarray] | None = None,
) -> Graph:
    """Pads rows into tensors; several structures are joined, atoms sorted by species throughout.

    Args:
        rows: of each structure, of any composition.
        layout: room for all of them together. Atoms beyond those that there are have no neighbours.
        dtype, device: of the tensors.
        cells: (3, 3) Angstrom of each structure, by which shifts are multiplied; None: they stay
            in whole cells.
    """
    n, width = sum(layout.counts), sum(layout.columns)
    offset = np.cumsum((0, *layout.columns[:-1]))
    neighbour = np.empty((n, width), np.int64)
    neighbour[:] = np.arange(n)[:, None]
    reverse = np.arange(n * width)
    shifts = np.zeros((n * width, 3))
    pad = np.ones(n * width)
    halves = [
        (np.zeros((2, size), np.int64), np.zeros((size, 3)), np.ones(size))
        for size in (layout.near, layout.far)
    ]
    used = [0, 0]
    for b, (r, where) in enumerate(zip(rows, places_of(rows, layout.counts), strict=True)):
        cell = np.eye(3) if cells is None else np.asarray(cells[b], float)
        slot = where[r.atom] * width + offset[r.species[r.other]] + r.rank
        half = len(slot) // 2
        neighbour.reshape(-1)[slot] = where[r.other]
        reverse[slot] = np.concatenate([slot[half:], slot[:half]])
        shifts[slot] = r.shifts @ cell
        pad[slot] = 0.0
        for part, pairs in enumerate((r.near, r.far)):
            index, vectors, empty = halves[part]
            here = slice(used[part], used[part] + len(pairs.i))
            index[:, here] = where[pairs.i], where[pairs.j]
            vectors[here] = pairs.shifts @ cell
            empty[here] = 0.0
            used[part] += len(pairs.i)

    def real(a: np.ndarray) -> Tensor:
        return torch.as_tensor(a, dtype=dtype, device=device)

    def whole(a: np.ndarray) -> Tensor:
        return torch.as_tensor(a, dtype=torch.int64, device=device)

    (near, near_s, near_p), (far, far_s, far_p) = halves
    return Graph(
        whole(np.repeat(np.arange(len(layout.counts)), layout.counts)),
        whole(neighbour),
        whole(reverse.reshape(-1, width)),
        real(shifts.reshape(-1, width, 3)),
        real(pad.reshape(-1, width)),
        whole(near),
        real(near_s),
        real(near_p),
        whole(far),
        real(far_s),
        real(far_p),
    )
