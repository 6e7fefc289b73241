"""Bonds and molecules by distance, and hydrogen mass repartitioning."""

from __future__ import annotations

import numpy as np
from ase.data import chemical_symbols, covalent_radii

from .errors import InputError
from .neighbours import neighbour_pairs
from .structure import Structure

BOND_FACTOR = 1.25  # a bond is shorter than this times the sum of covalent radii
LARGEST_MOLECULE = 200  # atoms; the cost of splitting motions grows with the square of this
METALS = frozenset({3, 4, *range(11, 14), *range(19, 32), *range(37, 51), *range(55, 85)})
METALS |= frozenset(range(87, 119))


def bonds(
    numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray | bool
) -> tuple[np.ndarray, np.ndarray]:
    """Bonded pairs by distance, each once.

    Returns:
        ``pairs`` (b, 2) with the heavier atom first, and ``shifts`` (b, 3): the vector from
        first to second is ``x[second] - x[first] + shifts @ cell``. A hydrogen keeps only its
        nearest partner, a heavy one if there is any.
    """
    numbers = np.asarray(numbers)
    radii = covalent_radii[numbers]
    reach = BOND_FACTOR * 2 * float(radii.max())
    i, j, s = neighbour_pairs(positions, cell, pbc, reach, full=False)
    d = np.linalg.norm(positions[j] - positions[i] + s @ np.asarray(cell, float), axis=1)
    near = d < BOND_FACTOR * (radii[i] + radii[j])
    i, j, s, d = i[near], j[near], s[near], d[near]
    swap = numbers[i] < numbers[j]
    i, j, s = np.where(swap, j, i), np.where(swap, i, j), np.where(swap[:, None], -s, s)
    keep = np.ones(len(i), bool)
    best: dict[int, tuple[tuple[bool, float], int]] = {}
    for k in np.argsort(d, kind="stable"):
        for h in {int(i[k]), int(j[k])}:
            if numbers[h] != 1:
                continue
            other = int(i[k]) if h == int(j[k]) else int(j[k])
            rank = (bool(numbers[other] == 1), float(d[k]))
            if h not in best or rank < best[h][0]:
                best[h] = (rank, int(k))
    for k in range(len(i)):
        for h in (int(i[k]), int(j[k])):
            if numbers[h] == 1 and best[h][1] != k:
                keep[k] = False
    return np.stack([i[keep], j[keep]], axis=1), s[keep]


def molecules(n: int, pairs: np.ndarray) -> np.ndarray:
    """Molecule number of each atom, (n,), from bonded pairs (b, 2)."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    return connected_components(graph, directed=False)[1]


def molecular_groups(
    numbers: np.ndarray, pairs: np.ndarray, shifts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which atoms form molecules, in the sense that translation, rotation and bonds describe them.

    Not molecular are metal atoms (their bonds by distance are coordination or metallic, so they
    are cut first: sodium in water does not join its hydration shell), single atoms, groups bonded
    to their own periodic image (crystals, polymers), and groups of more than
    ``LARGEST_MOLECULE`` atoms. The cost grows linearly with the number of atoms.

    Args:
        numbers: (n,) atomic numbers.
        pairs: bonds (b, 2), as ``bonds`` returns them.
        shifts: their periodic shifts, (b, 3).

    Returns:
        The number of the molecule of each atom, (n,), from 0, or -1 where it belongs to none;
        and whether each bond lies in a molecule, (b,).
    """
    numbers = np.asarray(numbers)
    n = len(numbers)
    cut = np.isin(numbers[pairs], list(METALS)).any(axis=1)
    kept, kept_shifts = pairs[~cut], shifts[~cut]
    label = molecules(n, kept)
    count = np.bincount(label, minlength=1)
    good = (count > 1) & (count <= LARGEST_MOLECULE)
    image = periodic_images(n, kept, kept_shifts)
    a, b = kept.T
    wraps = (image[b] - image[a] != kept_shifts).any(axis=1)
    good[label[a[wraps]]] = False
    number = np.where(good, np.cumsum(good) - 1, -1)
    of = number[label]
    return of, ~cut & (of[pairs[:, 0]] >= 0)


def periodic_images(n: int, pairs: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Cell shifts (n, 3), integers, that make bonded groups whole where that is possible.

    Adding ``images @ cell`` to positions (n, 3) puts each group next to its first atom, along
    the first path of bonds that is found.
    """
    image = np.zeros((n, 3), dtype=np.int64)
    neighbours: dict[int, list[tuple[int, np.ndarray]]] = {}
    for (a, b), s in zip(pairs, shifts, strict=True):
        neighbours.setdefault(int(a), []).append((int(b), s))
        neighbours.setdefault(int(b), []).append((int(a), -s))
    seen = np.zeros(n, bool)
    for root in neighbours:
        stack = [] if seen[root] else [root]
        seen[root] = True
        while stack:
            a = stack.pop()
            for b, s in neighbours[a]:
                if not seen[b]:
                    seen[b] = True
                    image[b] = image[a] + s
                    stack.append(b)
    return image


def masses_without_hmr(
    masses_amu: np.ndarray, structure: Structure, added_amu: float
) -> np.ndarray:
    """Masses (n,) of a structure before ``added_amu`` was moved to each hydrogen."""
    numbers = structure.numbers
    pairs, _ = bonds(*structure.model_input)
    return repartition_hydrogen_mass(masses_amu, numbers, pairs, -added_amu)


def repartition_hydrogen_mass(
    masses_amu: np.ndarray, numbers: np.ndarray, pairs: np.ndarray, added_amu: float
) -> np.ndarray:
    """HMR: each hydrogen gains ``added_amu``, taken from the heavy atom that it is bonded to.

    Args:
        masses_amu: (n,).
        numbers: (n,).
        pairs: bonds, (b, 2), as ``bonds`` returns them.
        added_amu: mass moved per hydrogen (3.0 in DMTS-NC, DOI 10.1021/acs.jctc.6c00653).

    Raises:
        InputError: a hydrogen has no heavy neighbour, or a heavy atom would get lighter than
            the hydrogens that it carries.
    """
    masses = np.array(masses_amu, float)
    if added_amu == 0:
        return masses
    partner = {int(h): int(x) for x, h in pairs if numbers[h] == 1 and numbers[x] != 1}
    for h in np.flatnonzero(np.asarray(numbers) == 1):
        if int(h) not in partner:
            raise InputError(
                "hmr", f"atom {h} (H)", "has no heavy neighbour to take mass from; use --hmr 0"
            )
        masses[h] += added_amu
        masses[partner[int(h)]] -= added_amu
    light = np.flatnonzero((masses < 1.0) & (np.asarray(numbers) > 1))
    if len(light):
        a = int(light[0])
        raise InputError(
            "hmr",
            f"{added_amu} amu",
            f"leaves atom {a} ({chemical_symbols[numbers[a]]}) with {masses[a]:.2f} amu; "
            + _less_hmr(a, masses, partner, added_amu),
        )
    return masses


def _less_hmr(a: int, masses: np.ndarray, partner: dict[int, int], added_amu: float) -> str:
    """What to write instead where HMR makes a heavy atom lighter than 1 amu."""
    carried = sum(1 for heavy in partner.values() if heavy == a)
    most = int((masses[a] + carried * added_amu - 1.0) / max(carried, 1))
    return f"use --hmr {most} or less" if added_amu > 0 and most > 0 else "use --hmr 0"
