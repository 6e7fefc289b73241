"""A neighbour list with a skin: searched again only when an atom or the cell has moved enough."""

from __future__ import annotations

import numpy as np

from dmts_ipi.core.neighbours import neighbour_pairs


class SkinList:
    """Edges within a cutoff, from a list that reaches ``skin_A`` further and is reused.

    The result never depends on the reuse: edges beyond the cutoff are filtered exactly, and the
    list is searched again before any pair outside it can have come within the cutoff.
    """

    def __init__(self, cutoff_A: float, skin_A: float = 0.6) -> None:
        self.cutoff_A, self.skin_A = float(cutoff_A), float(skin_A)
        self.searches = 0
        self._key: tuple[int, bytes] | None = None
        self._offsets_cell = self._cell = np.zeros((3, 3))

    def edges(
        self, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every pair closer than the cutoff, twice (i-j and j-i).

        Args:
            positions: (n, 3) Angstrom, finite.
            cell: (3, 3) Angstrom, rows.
            pbc: (3,).

        Returns:
            ``i`` (e,), ``j`` (e,) and the vectors from i to j (e, 3) in Angstrom, float64.

        Raises:
            InputError: positions that are not finite, or a periodic cell without volume.
        """
        cell = np.asarray(cell, float).reshape(3, 3)
        pbc = np.broadcast_to(np.asarray(pbc, bool), (3,))
        if not self._still_valid(positions, cell, pbc):
            self._search(positions, cell, pbc)
        elif not np.array_equal(cell, self._offsets_cell):
            self._offsets_cell, self._offsets = cell.copy(), self._shifts @ cell
        r = positions[self._j] - positions[self._i] + self._offsets
        near = np.einsum("ij,ij->i", r, r) < self.cutoff_A**2
        return self._i[near], self._j[near], r[near]

    def _search(self, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> None:
        self._key = None
        reach = self.cutoff_A + self.skin_A
        self._i, self._j, shifts = neighbour_pairs(positions, cell, pbc, reach)
        if not pbc.any():
            shifts = np.zeros_like(shifts)
        self._shifts = shifts.astype(float)
        self._offsets_cell, self._offsets = cell.copy(), self._shifts @ cell
        self._cell, self._positions = cell.copy(), np.array(positions, float)
        self._key = (len(positions), pbc.tobytes())
        self.searches += 1

    def _still_valid(self, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> bool:
        if self._key != (len(positions), pbc.tobytes()):
            return False
        reference, shrink = self._positions, 1.0
        if pbc.any() and not np.array_equal(cell, self._cell):
            if not pbc.all() or not np.linalg.det(self._cell):
                return False
            # A strain f maps the reference; a pair outside the list stays beyond reach * shrink.
            f = np.linalg.solve(self._cell, cell)
            shrink = float(np.linalg.svd(f, compute_uv=False)[-1])
            reference = self._positions @ f
        moved = float(np.sqrt(((positions - reference) ** 2).sum(axis=1).max(initial=0.0)))
        return (self.cutoff_A + self.skin_A) * shrink - 2 * moved >= self.cutoff_A
