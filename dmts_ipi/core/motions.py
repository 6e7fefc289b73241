"""Splits velocities into translation, rotation, stretch and bend of molecules."""

from __future__ import annotations

import numpy as np
from ase.data import chemical_symbols

from .molecules import bonds, molecular_groups, periodic_images

MOTIONS = ("translation", "rotation", "stretch", "bend")
MOST_NUMBERS = 5_000_000  # of bond rows held at a time


def whole_molecules(
    positions: np.ndarray, cell: np.ndarray, pairs: np.ndarray, shifts: np.ndarray
) -> np.ndarray:
    """Offsets (n, 3) in A that make molecules whole when added to ``positions`` (n, 3)."""
    return periodic_images(len(positions), pairs, shifts) @ np.asarray(cell, float)


def split_velocities(
    velocities: np.ndarray,
    positions: np.ndarray,
    masses_amu: np.ndarray,
    numbers: np.ndarray,
    cell: np.ndarray,
    pbc: np.ndarray | bool,
) -> dict[str, np.ndarray]:
    """Splits velocities by kind of motion; the parts add up and are orthogonal under the masses.

    Molecules have the four kinds of ``MOTIONS``. Atoms that belong to no molecule (metals, ions,
    crystals: ``core.molecules.molecular_groups`` has the rule) are reported by element, under
    their chemical symbol. The cost grows linearly with the number of atoms.

    Bonds are found by distance in the first frame. Stretch is the projection on the span of
    ``M^-1 B^T`` with B the bond-length rows of Wilson's matrix (it reproduces the rate of every
    bond length and carries neither momentum nor angular momentum); bend is what remains inside
    the molecule.

    Args:
        velocities: (t, n, 3) A/fs.
        positions: (t, n, 3) A, continuous in time.
        masses_amu: (n,).
        numbers: (n,) atomic numbers.
        cell: (3, 3) A, rows.
        pbc: periodic or not.

    Returns:
        Velocities (t, n, 3) by kind: those of ``MOTIONS`` where there are molecules, then the
        elements of atoms outside molecules.
    """
    v, x = np.asarray(velocities, float), np.asarray(positions, float)
    pairs, shifts = bonds(numbers, x[0], cell, pbc)
    of, in_molecule = molecular_groups(numbers, pairs, shifts)
    pairs, shifts = pairs[in_molecule], shifts[in_molecule]
    x = x + whole_molecules(x[0], cell, pairs, shifts)
    parts: dict[str, np.ndarray] = {}
    if of.max(initial=-1) >= 0:
        parts = {name: np.zeros_like(v) for name in MOTIONS}
    alone = of < 0
    for z in np.unique(np.asarray(numbers)[alone]):
        mask = alone & (numbers == z)
        parts[chemical_symbols[z]] = np.where(mask[:, None], v, 0.0)
    for (_, inside), groups in _by_shape(of, pairs).items():
        index = np.array(groups)  # (g, size): molecules of one shape at a time
        at_once = max(1, MOST_NUMBERS // (3 * len(v) * index.shape[1] * len(inside)))
        for k in range(0, len(index), at_once):
            some = index[k : k + at_once]
            m = np.asarray(masses_amu, float)[some]
            for name, part in zip(MOTIONS, _split(v[:, some], x[:, some], m, inside), strict=True):
                parts[name][:, some] = part
    return parts


def _split(
    v: np.ndarray, x: np.ndarray, masses_amu: np.ndarray, inside: tuple[tuple[int, int], ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Translation, rotation, stretch and bend of g molecules of one shape.

    Args:
        v, x: velocities A/fs and positions A, (t, g, size, 3).
        masses_amu: (g, size).
        inside: bonds, as pairs of places in the molecule.
    """
    m = masses_amu[None, :, :, None]
    size = m.shape[2]
    total = m.sum(axis=2, keepdims=True)
    centre = (m * x).sum(2, keepdims=True) / total
    translation = np.broadcast_to((m * v).sum(2, keepdims=True) / total, v.shape)
    r, u = x - centre, v - translation
    angular = (m * np.cross(r, u)).sum(2)  # (t, g, 3)
    inertia = (m * (r**2).sum(-1, keepdims=True))[..., None] * np.eye(3) - m[..., None] * r[
        ..., :, None
    ] * r[..., None, :]
    omega = np.einsum("...ij,...j->...i", np.linalg.pinv(inertia.sum(2), rcond=1e-8), angular)
    rotation = np.cross(omega[:, :, None, :], r)
    internal = u - rotation
    a, b = np.array(inside).T
    d = x[:, :, b] - x[:, :, a]
    unit = d / np.linalg.norm(d, axis=-1, keepdims=True)
    rows = np.zeros((*unit.shape[:2], len(a), size, 3))  # Wilson's B
    k = np.arange(len(a))
    rows[:, :, k, b] = unit
    rows[:, :, k, a] = -unit
    flat = rows.reshape(*rows.shape[:3], size * 3)
    weighted = (rows / m[:, :, None]).reshape(flat.shape)
    gram = flat @ np.swapaxes(weighted, -1, -2)
    rate = np.einsum("tgki,tgi->tgk", flat, internal.reshape(*internal.shape[:2], -1))
    if len(inside) == size - 1:  # bonds of a tree are independent
        coefficient = np.linalg.solve(gram, rate[..., None])
    else:  # those of a braced ring need not be
        coefficient = np.linalg.pinv(gram, rcond=1e-8, hermitian=True) @ rate[..., None]
    stretch = (np.swapaxes(weighted, -1, -2) @ coefficient).reshape(internal.shape)
    return translation, rotation, stretch, internal - stretch


def _by_shape(
    of: np.ndarray, pairs: np.ndarray
) -> dict[tuple[int, tuple[tuple[int, int], ...]], list[np.ndarray]]:
    """Atoms of each molecule, grouped by size and bonds (in numbers within the molecule)."""
    if not len(pairs):
        return {}
    order = np.argsort(of, kind="stable")
    order = order[of[order] >= 0]
    starts = np.flatnonzero(np.diff(of[order], prepend=-1))
    place = np.empty(len(of), dtype=np.int64)  # of an atom within its molecule
    place[order] = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    bonds_of: list[list[tuple[int, int]]] = [[] for _ in starts]
    for a, b in pairs:
        bonds_of[of[a]].append((int(place[a]), int(place[b])))
    members: dict[tuple[int, tuple[tuple[int, int], ...]], list[np.ndarray]] = {}
    for atoms, inside in zip(np.split(order, starts[1:]), bonds_of, strict=True):
        members.setdefault((len(atoms), tuple(inside)), []).append(atoms)
    return members
