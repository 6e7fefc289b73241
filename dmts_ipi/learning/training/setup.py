"""What a student takes from its training frames before the first step.

Standardisation of features, a base pair force by linear least squares (it settles the stiff
stretch at once), and the distances below which the repulsive wall takes over.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from dmts_ipi.students.density import basis
from dmts_ipi.students.density.energy import EnergyStudent
from dmts_ipi.students.density.nets import AtomFeatures, Invariants
from dmts_ipi.students.density.network import Student

from .data import Batch, GraphSet

SMALLEST_SPREAD = 1e-6
# The wall begins below this part of the shortest sampled distance, and is alone at the other.
WALL_BEGINS, WALL_ALONE = 0.93, 0.70
RIDGE = 1e-7


def _inverse(spread: Tensor) -> Tensor:
    """1/spread; features that never vary stay small instead of exploding."""
    floor = torch.clamp(0.02 * spread.max(), min=SMALLEST_SPREAD)
    return 1.0 / spread.clamp(min=floor)


def _standardise(invariants: Invariants, values: Tensor) -> None:
    invariants.mean.copy_(values.mean(0))
    invariants.scale.copy_(_inverse(values.std(0)))


@torch.no_grad()
def calibrate(student: Student, batches: Sequence[Batch]) -> None:
    """Sets means and scales of densities, messages and invariants from a few batches."""
    seen: list[tuple[tuple[int, ...], Tensor, Tensor, Tensor, Tensor]] = []
    for b in batches:
        n = torch.arange(len(b.positions)).unsqueeze(1)
        g = b.graph
        u, r, r2 = student.geometry(b.positions, b.cell, n, g.neighbour, g.shifts, g.pad)
        y = basis.harmonics(u)
        value, _ = student.radial(r, r2)
        density = student.densities(value, y, b.layout.columns)
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
def fit_base(student: Student, batches: Sequence[Batch]) -> float:
    """Least-squares pair force per species pair on the radial basis. Returns its RMSE, eV/A.

    Solves for c in F_i = sum_j sum_n c[s_i, s_j, n] R'_n(r_ij) u_ij, and the same with the far
    basis, by normal equations with a small ridge.
    """
    a, s = student.architecture, len(student.elements)
    pairs = [(p, q) for p in range(s) for q in range(p, s)]
    near, far = a.radial, a.far_bessel
    width = near + far
    gram = torch.zeros(len(pairs) * width, len(pairs) * width, dtype=torch.float64)
    right = torch.zeros(len(pairs) * width, dtype=torch.float64)
    total, count = 0.0, 0
    for b in batches:
        g, x = b.graph, b.positions
        n = len(x)
        columns = torch.zeros(n, 3, len(pairs) * width, dtype=x.dtype)
        rows = torch.arange(n).unsqueeze(1)
        u, r, r2 = student.geometry(x, b.cell, rows, g.neighbour, g.shifts, g.pad)
        _, slope = student.radial(r, r2)
        kind = torch.minimum(g.species[g.neighbour], g.species.unsqueeze(1)) * s
        kind = kind + torch.maximum(g.species[g.neighbour], g.species.unsqueeze(1))
        for k, (p, q) in enumerate(pairs):
            mask = ((kind == p * s + q) * (1.0 - g.pad)).unsqueeze(-1)
            columns[:, :, k * width : k * width + near] = torch.bmm(u.transpose(1, 2), slope * mask)
        if far:
            i, j = g.far.unbind(0)
            u, r, r2 = student.geometry(x, b.cell, i, j, g.far_shifts, g.far_pad)
            value = student.far_slope(r, r2)
            both = torch.minimum(g.species[i], g.species[j]) * s
            both = both + torch.maximum(g.species[i], g.species[j])
            for k, (p, q) in enumerate(pairs):
                mask = ((both == p * s + q) * (1.0 - g.far_pad)).unsqueeze(-1)
                f = u.unsqueeze(-1) * (value * mask).unsqueeze(1)
                part = torch.zeros(n, 3, far, dtype=x.dtype)
                part.index_add_(0, i, f).index_add_(0, j, -f)
                columns[:, :, k * width + near : (k + 1) * width] = part
        matrix = columns.reshape(3 * n, -1).double()
        target = b.forces.reshape(-1).double()
        gram += matrix.T @ matrix
        right += matrix.T @ target
        total += float(target.square().sum())
        count += len(target)
    gram /= count
    right /= count
    scale = gram.diagonal().sqrt().clamp(min=SMALLEST_SPREAD)
    scaled = gram / scale / scale.unsqueeze(1)
    scaled += RIDGE * torch.eye(len(scale), dtype=torch.float64)
    solution = torch.linalg.solve(scaled, right / scale) / scale
    for k, (p, q) in enumerate(pairs):
        c = solution[k * width : (k + 1) * width].to(student.base.dtype)
        for one, two in ((p, q), (q, p)):
            # Each atom of a pair contributes one half.
            student.base[one, two] = 0.5 * c[:near]
            if far:
                student.base_far[one, two] = 0.5 * c[near:]
    residual = total / count - 2 * float(solution @ right) + float(solution @ gram @ solution)
    return max(residual, 0.0) ** 0.5


@torch.no_grad()
def set_wall(student: Student, batches: Iterable[Batch]) -> None:
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
