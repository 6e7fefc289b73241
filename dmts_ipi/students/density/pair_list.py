"""Half pairs for the student's kernels: by bins in C, or from vesin where bins do not do."""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import numpy as np

from dmts_ipi.core.compiled import fits
from dmts_ipi.core.neighbours import neighbour_pairs

BINS_PER_REACH = 2  # bins are half as wide as the reach: a third of the candidates are pairs
ROOM = 1.1  # of what a list needs, so that the next one fits as well


class HalfPairs(NamedTuple):
    """Pairs in the order of student_pairs.c; of those in rows the directed edges of each atom."""

    first: np.ndarray  # (pairs,) int32
    second: np.ndarray  # (pairs,) int32
    shifts: np.ndarray  # (pairs, 3) float64, whole cells
    edges: np.ndarray  # (2 rows, 2) int32: 2 h of the first atom, 2 h + 1 of the second; neighbour
    row_start: np.ndarray  # (atoms + 1,) int64, into edges
    n_near: int
    n_rows: int


class _List(ctypes.Structure):
    """``list_t`` of student_list.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("n_atoms", "capacity", "n_pairs")),
        *((name, ctypes.c_int64) for name in ("n_near", "n_rows", "periodic")),
        ("bins", ctypes.c_int64 * 3),
        ("reach", ctypes.c_double * 3),
        ("fold", ctypes.c_double * 9),
        ("start", ctypes.c_double * 3),
        ("span", ctypes.c_int32 * 3),
        *((name, ctypes.c_void_p) for name in ("x", "cell", "bin", "wrap", "bin_start")),
        *((name, ctypes.c_void_p) for name in ("bin_atoms", "found", "first", "second")),
        *((name, ctypes.c_void_p) for name in ("edges", "shifts", "row_start")),
    ]


class PairLister:
    """Lists pairs of one set of atoms; keeps its buffers from list to list.

    Args:
        library: with ``list_pairs``.
        n_atoms: how many.

    Raises:
        NotCompiled: the library's record is another one.
    """

    def __init__(self, library: ctypes.CDLL, n_atoms: int) -> None:
        fits(library, "list_size", _List)
        self._library, self._n = library, n_atoms
        self._bin = np.empty((n_atoms, 3), np.int32)
        self._wrap, self._bin_atoms = np.empty_like(self._bin), np.empty(n_atoms, np.int32)
        self._found = np.empty((0, 3), np.int32)

    def pairs(
        self, x: np.ndarray, cell: np.ndarray, pbc: np.ndarray, reach_A: tuple[float, float, float]
    ) -> HalfPairs:
        """All pairs within reach.

        Args:
            x: (n, 3) A; where periodic, in the cell or next to it.
            cell: (3, 3) A, rows.
            pbc: (3,); periodic along some directions only: by vesin.
            reach_A: near pairs, rows, all.
        """
        if pbc.any() and not pbc.all():
            return _by_vesin(x, cell, pbc, reach_A)
        x, cell = np.ascontiguousarray(x, float), np.ascontiguousarray(cell, float)
        fold, start, bins, span = _grid(x, cell, bool(pbc.all()), reach_A[2])
        n, bin_start = self._n, np.empty(int(np.prod(bins)) + 1, np.int32)
        row_start = np.empty(n + 1, np.int64)
        record = _List(n_atoms=n, periodic=int(pbc.all()))
        record.reach[:], record.fold[:] = reach_A, fold.ravel().tolist()
        record.start[:], record.bins[:], record.span[:] = start.tolist(), bins, span
        for name, array in (
            ("x", x),
            ("cell", cell),
            ("bin", self._bin),
            ("wrap", self._wrap),
            ("bin_start", bin_start),
            ("bin_atoms", self._bin_atoms),
            ("row_start", row_start),
        ):
            setattr(record, name, array.ctypes.data)
        while True:
            room = len(self._found)
            kept: dict[str, np.ndarray] = {
                "found": self._found,
                "first": np.empty(room, np.int32),
                "second": np.empty(room, np.int32),
                "edges": np.empty((2 * room, 2), np.int32),
                "shifts": np.empty((room, 3)),
            }
            for name, buffer in kept.items():
                setattr(record, name, buffer.ctypes.data)
            record.capacity = room
            self._library.list_pairs(ctypes.addressof(record))
            m = int(record.n_pairs)
            if m <= room:
                break
            self._found = np.empty((int(ROOM * m) + 64, 3), np.int32)
        n_rows = int(record.n_rows)
        return HalfPairs(
            kept["first"][:m],
            kept["second"][:m],
            kept["shifts"][:m],
            kept["edges"][: 2 * n_rows],
            row_start,
            int(record.n_near),
            n_rows,
        )


def _grid(
    x: np.ndarray, cell: np.ndarray, periodic: bool, reach_A: float
) -> tuple[np.ndarray, np.ndarray, list[int], list[int]]:
    """Matrix from positions (rows) to coordinates in bins, their start, numbers of bins, and how
    many of them a pair may span."""
    if periodic:
        inverse = np.linalg.inv(cell)
        widths, start = 1.0 / np.linalg.norm(inverse, axis=0), np.zeros(3)
    else:
        low, high = x.min(axis=0), x.max(axis=0)
        widths = np.maximum(high - low, 1e-3)
        inverse, start = np.diag(1.0 / widths), low / widths
    bins = np.clip(np.floor(widths * BINS_PER_REACH / reach_A), 1, 1024).astype(int)
    while np.prod(bins) > 8 * len(x) + 64:  # far apart: no need for memory
        bins[bins.argmax()] = -(-bins.max() // 2)
    span = np.ceil(reach_A * bins / widths - 1e-9).astype(int)
    if not periodic:
        span = np.minimum(span, bins - 1)
    return inverse * bins, start * bins, bins.tolist(), span.tolist()


def _by_vesin(
    x: np.ndarray, cell: np.ndarray, pbc: np.ndarray, reach_A: tuple[float, float, float]
) -> HalfPairs:
    """The same from vesin's list."""
    near, rows, most = reach_A
    i, j, s = neighbour_pairs(x, cell, pbc, most, full=False)
    d = x[j] - x[i] + s @ cell
    r = np.sqrt(np.einsum("ea,ea->e", d, d))
    reach = (r >= near).astype(np.int8) + (r >= rows)
    order = np.lexsort((i, reach))
    i, j, s, reach = i[order], j[order], s[order], reach[order]
    n_rows = int(np.searchsorted(reach, 2))
    owners, others = np.c_[i, j][:n_rows].ravel(), np.c_[j, i][:n_rows].ravel()
    edges = np.argsort(owners, kind="stable")
    return HalfPairs(
        i.astype(np.int32),
        j.astype(np.int32),
        np.ascontiguousarray(s, dtype=float),
        np.c_[edges, others[edges]].astype(np.int32),
        np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=len(x)))]),
        int(np.searchsorted(reach, 1)),
        n_rows,
    )
