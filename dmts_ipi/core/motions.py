"""Splits velocities into translation, rotation, stretch and bend of molecules."""

from __future__ import annotations

import numpy as np

from .molecules import bonds, molecules

MOTIONS = ("translation", "rotation", "stretch", "bend")


def whole_molecules(
    positions: np.ndarray, cell: np.ndarray, pairs: np.ndarray, shifts: np.ndarray
) -> np.ndarray:
    """Offsets (n, 3) in A that make molecules whole when added to ``positions`` (n, 3)."""
    offset = np.zeros((len(positions), 3), dtype=np.int64)
    neighbours: dict[int, list[tuple[int, np.ndarray]]] = {}
    for (a, b), s in zip(pairs, shifts, strict=True):
        neighbours.setdefault(int(a), []).append((int(b), s))
        neighbours.setdefault(int(b), []).append((int(a), -s))
    seen = np.zeros(len(positions), bool)
    for root in neighbours:
        stack = [] if seen[root] else [root]
        seen[root] = True
        while stack:
            a = stack.pop()
            for b, s in neighbours[a]:
                if not seen[b]:
                    seen[b] = True
                    offset[b] = offset[a] + s
                    stack.append(b)
    return offset @ np.asarray(cell, float)


def split_velocities(
    velocities: np.ndarray,
    positions: np.ndarray,
    masses_amu: np.ndarray,
    numbers: np.ndarray,
    cell: np.ndarray,
    pbc: np.ndarray | bool,
) -> dict[str, np.ndarray]:
    """Splits velocities by kind of motion; the parts add up and are orthogonal under the masses.

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
    """
    v, x = np.asarray(velocities, float), np.asarray(positions, float)
    pairs, shifts = bonds(numbers, x[0], cell, pbc)
    x = x + whole_molecules(x[0], cell, pairs, shifts)
    of = molecules(len(numbers), pairs)
    parts = {name: np.zeros_like(v) for name in MOTIONS}
    members: dict[tuple[int, tuple[tuple[int, int], ...]], list[np.ndarray]] = {}
    for mol in range(of.max() + 1):
        atoms = np.flatnonzero(of == mol)
        local = {int(a): k for k, a in enumerate(atoms)}
        inside = tuple((local[int(a)], local[int(b)]) for a, b in pairs if int(a) in local)
        members.setdefault((len(atoms), inside), []).append(atoms)
    for (size, inside), groups in members.items():
        index = np.array(groups)  # (g, size): molecules of one shape at a time
        m = np.asarray(masses_amu, float)[index][None, :, :, None]
        xs, vs = x[:, index], v[:, index]  # (t, g, size, 3)
        total = m.sum(axis=2, keepdims=True)
        centre = (m * xs).sum(2, keepdims=True) / total
        translation = np.broadcast_to((m * vs).sum(2, keepdims=True) / total, vs.shape)
        parts["translation"][:, index] = translation
        if size == 1:
            continue
        r, u = xs - centre, vs - translation
        angular = (m * np.cross(r, u)).sum(2)  # (t, g, 3)
        inertia = (m * (r**2).sum(-1, keepdims=True))[..., None] * np.eye(3) - m[..., None] * r[
            ..., :, None
        ] * r[..., None, :]
        omega = np.einsum("...ij,...j->...i", np.linalg.pinv(inertia.sum(2), rcond=1e-8), angular)
        rotation = np.cross(omega[:, :, None, :], r)
        internal = u - rotation
        stretch = np.zeros_like(internal)
        if inside:
            a, b = np.array(inside).T
            d = xs[:, :, b] - xs[:, :, a]
            unit = d / np.linalg.norm(d, axis=-1, keepdims=True)
            rows = np.zeros((*unit.shape[:2], len(a), size, 3))
            k = np.arange(len(a))
            rows[:, :, k, b] = unit
            rows[:, :, k, a] = -unit
            flat = rows.reshape(*rows.shape[:3], size * 3)
            weighted = (rows / m[:, :, None]).reshape(flat.shape)
            gram = flat @ np.swapaxes(weighted, -1, -2)
            rate = np.einsum("tgki,tgi->tgk", flat, internal.reshape(*internal.shape[:2], -1))
            coefficient = np.linalg.solve(gram, rate[..., None])
            stretch = (np.swapaxes(weighted, -1, -2) @ coefficient).reshape(internal.shape)
        parts["rotation"][:, index] = rotation
        parts["stretch"][:, index] = stretch
        parts["bend"][:, index] = internal - stretch
    return parts
