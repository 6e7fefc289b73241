"""Geometries derived from sampled ones: scaled cells, rattled atoms, stretched X-H bonds and
protons shared between two molecules."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.frames import Frame
from dmts_ipi.core.molecules import bonds, molecules
from dmts_ipi.core.motions import whole_molecules
from dmts_ipi.core.neighbours import neighbour_pairs

ACCEPTORS = (7, 8, 9, 15, 16, 17)
HYDROGEN_BOND_A, SHORTEST_HEAVY_A = 2.3, 2.3


def bare(frame: Frame, source: str) -> Frame:
    """A copy of the structure without labels, velocities and burst."""
    return replace(
        frame,
        positions=np.array(frame.positions, float),
        forces=None,
        energy_eV=None,
        virial_eV=None,
        velocities_A_per_fs=None,
        source=source,
        burst="",
        time_fs=0.0,
        teacher="",
        teacher_identity="",
        info={},
    )


def scale_cell(frame: Frame, scale: float) -> Frame:
    """Scales the cell and the centres of molecules; molecules stay rigid.

    In a network that is bonded through the periodic boundary (a crystal, a polymer), each atom is
    scaled affinely instead.

    Raises:
        InputError: the structure is not periodic in three directions.
    """
    if not np.all(frame.pbc):
        raise InputError("cell_scales", scale, "needs a structure that is periodic along x, y, z")
    cell = np.asarray(frame.cell, float)
    pairs, shifts = bonds(frame.numbers, frame.positions, cell, frame.pbc)
    n = len(frame.numbers)
    x = frame.positions + whole_molecules(frame.positions, cell, pairs, shifts)
    of = molecules(n, pairs) if len(pairs) else np.arange(n)
    if len(pairs):
        a, b = pairs.T
        wanted = frame.positions[b] - frame.positions[a] + shifts @ cell
        broken = np.linalg.norm(x[b] - x[a] - wanted, axis=1) > 0.01
        alone = np.isin(of, of[a[broken]])
        of = np.where(alone, of.max() + 1 + np.arange(n), of)
    _, of = np.unique(of, return_inverse=True)
    count = np.bincount(of)[:, None]
    centre = np.stack([np.bincount(of, x[:, k]) for k in range(3)], axis=1) / count
    scaled = bare(frame, f"cell x {scale:g}")
    return replace(scaled, positions=x + (scale - 1.0) * centre[of], cell=cell * scale)


def rattle(frame: Frame, sigma_A: float, rng: np.random.Generator) -> Frame:
    """Adds Gaussian noise of standard deviation ``sigma_A`` (Angstrom) to every coordinate."""
    moved = bare(frame, f"rattled {sigma_A:g} A")
    return replace(
        moved, positions=moved.positions + rng.normal(0.0, sigma_A, moved.positions.shape)
    )


def stretch_bonds(
    frame: Frame, low: float, high: float, fraction: float, rng: np.random.Generator
) -> Frame:
    """Scales a random ``fraction`` of the X-H bonds (at least one) to ``low``...``high`` times
    their length. Only the hydrogen moves, along the bond."""
    pairs, shifts = bonds(*frame.model_input)
    has_h = frame.numbers[pairs[:, 1]] == 1 if len(pairs) else np.zeros(0, bool)
    pairs, shifts = pairs[has_h], shifts[has_h]
    stretched = bare(frame, f"X-H bonds x {low:g}-{high:g}")
    if len(pairs) == 0:
        return stretched
    chosen = rng.random(len(pairs)) < fraction
    chosen[rng.integers(len(pairs))] = True
    a, h = pairs[chosen].T
    x = stretched.positions
    bond = x[h] - x[a] + shifts[chosen] @ np.asarray(frame.cell, float)
    x[h] += bond * (rng.uniform(low, high, len(h)) - 1.0)[:, None]
    return stretched


def share_protons(
    frame: Frame, fraction: float, longest_A: float, rng: np.random.Generator
) -> Frame:
    """Shortens a random ``fraction`` of the hydrogen bonds X-H...Y (at least one) to an X...Y
    distance of 2.3 to ``longest_A``, and moves the hydrogen towards the middle.

    The molecule of Y moves rigidly. Each molecule takes part in at most one shared proton. Such
    geometries occur at most once in some ten picoseconds of dynamics, so a student that was not
    trained on them makes large errors there.
    """
    cell, numbers = np.asarray(frame.cell, float), frame.numbers
    shared = bare(frame, f"shared protons, X...Y below {longest_A:g} A")
    pairs, shifts = bonds(numbers, frame.positions, cell, frame.pbc)
    if len(pairs) == 0:
        return shared
    x, of = shared.positions, molecules(len(numbers), pairs)
    donor = {int(h): (int(a), s @ cell) for (a, h), s in zip(pairs, shifts, strict=True)}
    i, j, s = neighbour_pairs(x, cell, frame.pbc, HYDROGEN_BOND_A, full=True)
    contact = (numbers[i] == 1) & np.isin(numbers[j], ACCEPTORS) & (of[i] != of[j])
    places = np.flatnonzero(contact)
    wanted = max(1, round(fraction * len(places)))
    used: set[int] = set()
    for k in rng.permutation(places):
        h, y = int(i[k]), int(j[k])
        if wanted == 0 or h not in donor or {int(of[h]), int(of[y])} & used:
            continue
        a, shift = donor[h]
        to_h = x[h] - x[a] + shift
        to_y = to_h + x[y] - x[h] + s[k] @ cell
        long, bond = float(np.linalg.norm(to_y)), float(np.linalg.norm(to_h))
        if to_h @ to_y < 0.8 * long * bond:  # X-H...Y is strongly bent: no proton transfer
            continue
        short = min(long, rng.uniform(SHORTEST_HEAVY_A, longest_A))
        x[of == of[y]] += (short / long - 1.0) * to_y
        x[h] += rng.uniform(min(bond, short / 2), short / 2) * to_y / long - to_h
        used |= {int(of[h]), int(of[y])}
        wanted -= 1
    return shared
