"""What a student takes from its training frames before the first step.

Standardisation of features, the distances below which the repulsive wall takes over, and a base
pair force by linear least squares (it settles the stiff stretch at once).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from . import basis
from .batches import DensityBatch, GraphSet
from .energy import EnergyStudent
from .nets import AtomFeatures, Invariants
from .network import Student

SMALLEST_SPREAD = 1e-6
# The wall begins below this part of the shortest sampled distance, and is alone at the other.
WALL_BEGINS, WALL_ALONE = 0.93, 0.70
# Of fit_base: how well pair forces alone may be expected to fit, and their size without data.
FORCE_SPREAD_EV_PER_A = 0.3
PRIOR_EV_PER_A, PRIOR_LENGTH_A, PRIOR_STEP_A = 1.0, 0.2, 0.02
RIDGE = 1e-9
# A base of bond Gaussians alone is held small from this part of the shortest sampled distance on.
SHORT_PRIOR_BEGINS = 0.80
SETUP_FRAMES = 32
SETUP_ATOMS = 64  # of each element, where the frames have so many


def prepare(student: Student, frames: GraphSet, seed: int) -> float | None:
    """Everything in this module, from the frames of a training.

    Args:
        student: untrained, on the CPU.
        frames: those that it trains on.
        seed: of the choice of frames for the fits.

    Returns:
        The RMSE of ``fit_base`` in eV/A; None for a student without a base pair force.
    """
    order = np.random.default_rng([seed, 3]).permutation(len(frames))
    batches = [frames.batch([k]) for k in setup_frames([r.counts for r in frames.rows], order)]
    calibrate(student, batches)
    set_wall(student, (frames.batch([k]) for k in range(len(frames))))
    return None if student.architecture.base == "none" else fit_base(student, batches)


def setup_frames(counts: Sequence[tuple[int, ...]], order: np.ndarray) -> list[int]:
    """The first frames of an order, and further ones for elements that these have too few of.

    Args:
        counts: atoms of each element, of each frame.
        order: (frames,) numbers of all frames.
    """
    table = np.asarray(counts)
    chosen = [int(k) for k in order[:SETUP_FRAMES]]
    atoms = table[chosen].sum(axis=0)
    for k in order[SETUP_FRAMES:]:
        if (table[k][atoms < SETUP_ATOMS] > 0).any():
            chosen.append(int(k))
            atoms += table[k]
    return chosen


def _inverse(spread: Tensor) -> Tensor:
    """1/spread; features that never vary stay small instead of exploding.

    Where none of them varies (an element that is always alone) they are left as they are.
    """
    largest = spread.max()
    if float(largest) < SMALLEST_SPREAD:
        return torch.ones_like(spread)
    floor = torch.clamp(0.02 * largest, min=SMALLEST_SPREAD)
    return 1.0 / spread.clamp(min=floor)


def _standardise(invariants: Invariants, values: Tensor) -> None:
    invariants.mean.copy_(values.mean(0))
    invariants.scale.copy_(_inverse(values.std(0)))


@torch.no_grad()
def calibrate(student: Student, batches: Sequence[DensityBatch]) -> None:
    """Sets means and scales of densities, messages and invariants from a few batches."""
    seen: list[tuple[tuple[int, ...], Tensor, Tensor, Tensor, Tensor]] = []
    for b in batches:
        n = torch.arange(len(b.positions)).unsqueeze(1)
        g = b.graph
        u, r, r2 = student.geometry(b.positions, b.cell, n, g.neighbour, g.shifts, g.pad)
        y = basis.harmonics(u)
        value, _ = student.radial(r, r2)
        by_element = student.densities(value, y, b.layout.columns)
        density = student.mixed(by_element, b.layout.counts)
        seen.append((b.layout.counts, density, y, value, g.neighbour))

    def of_species(k: int, tensors: Sequence[Tensor]) -> Tensor:
        parts = [t.split(s[0])[k] for s, t in zip(seen, tensors, strict=True)]
        return torch.cat(parts)

    nets: list[AtomFeatures] = list(student.atoms)  # type: ignore[arg-type]
    for k, net in enumerate(nets):
        d = of_species(k, [s[1] for s in seen])
        if len(d) < 2:
            continue
        net.mean0.copy_(d[:, 0].mean(0))
        net.scale0.copy_(_inverse(d[:, 0].std(0)))
        net.scale1.copy_(_inverse(d[:, 1:4].square().mean((0, 1)).sqrt()))
        net.scale2.copy_(_inverse(d[:, 4:].square().mean((0, 1)).sqrt()))
        _, a1, a2 = net.standardise(d)
        _standardise(net.invariants1, net.invariants1.raw(a1, a2))
    if not student.architecture.messages:
        return
    messages = []
    for counts, density, y, value, neighbour in seen:
        h = student.by_species(counts, "first", density)
        sent = student.rho(value) * student.send(h, counts)[neighbour]
        messages.append(torch.bmm(y.transpose(1, 2), sent))
    for k, net in enumerate(nets):
        m = of_species(k, messages)
        if len(m) < 2:
            continue
        for part, (first, last) in enumerate(pairwise((0, 1, 4, 9))):
            net.message_scale[part] = _inverse(m[:, first:last].square().mean().sqrt())
        _, a1, a2 = net.standardise(of_species(k, [s[1] for s in seen]))
        a1 = torch.cat([a1, m[:, 1:4] * net.message_scale[1]], -1)
        a2 = torch.cat([a2, m[:, 4:] * net.message_scale[2]], -1)
        _standardise(net.invariants2, net.invariants2.raw(a1, a2))


@torch.no_grad()
def fit_base(student: Student, batches: Sequence[DensityBatch]) -> float:
    """Least-squares pair force of each pair of species. Returns its RMSE, eV/A.

    Minimises over c, with f_pq(r) = sum_n c[p, q, n] R'_n(r) and n over all radial functions or,
    for a short base, over the Gaussians of bonds, the sum of squares

        sum_i |F_i - sum_j f(r_ij) u_ij|^2 / FORCE_SPREAD^2
        + sum_pq integral [f_pq(r) / (1 eV/A + f_ZBL(r))]^2 dr / 0.2 A

    The second term is a prior. It keeps the pair force small at distances of which the frames
    say nothing: without it a pair of elements that is rare in them gets thousands of eV/A. The
    wall must have been set (``set_wall``): the integral begins where it acts alone, for a short
    base somewhat further out. The far part is left to the network.
    """
    a, s = student.architecture, len(student.elements)
    pairs = [(p, q) for p in range(s) for q in range(p, s)]
    first = a.bessel if a.base == "short" else 0
    begins = SHORT_PRIOR_BEGINS / WALL_ALONE if a.base == "short" else 1.0
    width, dtype = a.radial - first, student.base.dtype
    gram = torch.zeros(len(pairs) * width, len(pairs) * width, dtype=torch.float64)
    right = torch.zeros(len(pairs) * width, dtype=torch.float64)
    total, count = 0.0, 0
    for b in batches:
        g, x = b.graph, b.positions
        n = len(x)
        columns = torch.zeros(n, 3, len(pairs) * width, dtype=x.dtype)
        rows = torch.arange(n).unsqueeze(1)
        u, r, r2 = student.geometry(x, b.cell, rows, g.neighbour, g.shifts, g.pad)
        slope = student.radial(r, r2)[1][..., first:]
        kind = torch.minimum(g.species[g.neighbour], g.species.unsqueeze(1)) * s
        kind = kind + torch.maximum(g.species[g.neighbour], g.species.unsqueeze(1))
        for k, (p, q) in enumerate(pairs):
            mask = ((kind == p * s + q) * (1.0 - g.pad)).unsqueeze(-1)
            columns[:, :, k * width : (k + 1) * width] = torch.bmm(u.transpose(1, 2), slope * mask)
        matrix = columns.reshape(3 * n, -1).double()
        target = b.forces.reshape(-1).double()
        gram += matrix.T @ matrix
        right += matrix.T @ target
        total += float(target.square().sum())
        count += len(target)
    normal = gram / FORCE_SPREAD_EV_PER_A**2
    for k, (p, q) in enumerate(pairs):
        r = torch.arange(
            begins * float(student.inner[p, q, 0]), a.cutoff_A, PRIOR_STEP_A, dtype=dtype
        )
        slope = student.radial(r, r * r)[1][..., first:]
        wall = basis.zbl_force(r, student.charges[p, q], student.lengths[p, q])
        matrix = (slope / (PRIOR_EV_PER_A + wall).unsqueeze(-1)).double()
        block = slice(k * width, (k + 1) * width)
        normal[block, block] += matrix.T @ matrix * (PRIOR_STEP_A / PRIOR_LENGTH_A)
    # Gaussians that lie below the wall have no say and no value: a trace of ridge settles them.
    normal += RIDGE * normal.diagonal().max() * torch.eye(len(normal), dtype=torch.float64)
    solution = torch.linalg.solve(normal, right / FORCE_SPREAD_EV_PER_A**2)
    student.base.zero_()
    student.base_far.zero_()
    for k, (p, q) in enumerate(pairs):
        # Each atom of a pair contributes one half.
        half = 0.5 * solution[k * width : (k + 1) * width].to(dtype)
        student.base[p, q, first:] = half
        student.base[q, p, first:] = half
    residual = total - 2 * float(solution @ right) + float(solution @ gram @ solution)
    return max(residual / count, 0.0) ** 0.5


@torch.no_grad()
def set_wall(student: Student, batches: Iterable[DensityBatch]) -> None:
    """Places the repulsive wall below the shortest distance of each species pair."""
    s = len(student.elements)
    shortest = torch.full((s * s,), float("inf"))
    for b in batches:
        g = b.graph
        rows = torch.arange(len(b.positions)).unsqueeze(1)
        _, r, _ = student.geometry(b.positions, b.cell, rows, g.neighbour, g.shifts, g.pad)
        kind = g.species.unsqueeze(1) * s + g.species[g.neighbour]
        real = g.pad == 0
        shortest.scatter_reduce_(0, kind[real], r[real].float(), "amin")
    shortest = shortest.reshape(s, s)
    for p in range(s):
        for q in range(s):
            d = min(float(shortest[p, q]), student.architecture.near_cutoff_A)
            student.inner[p, q, 0] = WALL_ALONE * d
            student.inner[p, q, 1] = WALL_BEGINS * d


@torch.no_grad()
def fit_atom_energies(student: EnergyStudent, frames: GraphSet, most: int = 32) -> None:
    """Sets ``atom_energies_eV`` by least squares on frames with energies; zero without any."""
    chosen = [k for k, f in enumerate(frames.frames) if f.energy_eV is not None][:most]
    student.atom_energies_eV = [0.0] * len(student.elements)
    if not chosen:
        return
    device = next(student.parameters()).device
    missing = []
    for k in chosen:
        b = frames.batch([k], device=str(device))
        energy = student(b.positions, b.cell, b.graph, b.layout)[2]
        missing.append(float(frames.frames[k].energy_eV or 0.0) - float(energy))
    counts = np.array([frames.rows[k].counts for k in chosen], float)
    solution = np.linalg.lstsq(counts, np.array(missing), rcond=None)[0]
    student.atom_energies_eV = [float(e) for e in solution]
