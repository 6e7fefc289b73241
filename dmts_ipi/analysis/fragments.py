"""What moves as a whole: molecules, and the single atoms of crystals and other networks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dmts_ipi.core.molecules import METALS, bonds, molecules, periodic_images


@dataclass(frozen=True)
class Fragments:
    """``label`` (n,) number of each atom's fragment; ``single`` (n,) whether it is alone in it.

    Atoms of metals, of crystals and of other networks (whose bonds lead to an atom's own periodic
    image) are alone, as free atoms and ions are.
    """

    label: np.ndarray
    single: np.ndarray


def fragments(
    numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray
) -> Fragments:
    """Fragments of a structure.

    Args:
        numbers: (n,) atomic numbers.
        positions: (n, 3) A. cell: (3, 3) A, rows. pbc: (3,) bool.
    """
    n = len(numbers)
    pairs, shifts = bonds(numbers, positions, cell, pbc)
    kept = ~np.isin(np.asarray(numbers)[pairs], list(METALS)).any(axis=1)
    pairs, shifts = pairs[kept], shifts[kept]
    label = molecules(n, pairs)
    image = periodic_images(n, pairs, shifts)
    wraps = (image[pairs[:, 1]] - image[pairs[:, 0]] != shifts).any(axis=1)
    endless = np.isin(label, label[pairs[wraps, 0]])
    label = np.where(endless, n + np.arange(n), label)
    label = np.unique(label, return_inverse=True)[1].reshape(n)
    return Fragments(label, np.bincount(label)[label] == 1)
