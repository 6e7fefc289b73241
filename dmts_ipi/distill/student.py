"""The student: a direct-force network of antisymmetric pair forces. No autograd at inference.

It starts from section 2.1 of seeds/000 (pair forces built from scalar and tensor embeddings of
both atoms, antisymmetrised, with a short-range repulsion) and takes the shapes that worked
better for us:

====================  =======================================================================
A_i[s, n, lm]         fixed densities, sum over neighbours of species s of R_n(r) Y_lm(u), l <= 2
x_i                   per-species MLP on A0 and on invariants V.V', T:T', V.T.V'
B_i[c, lm]            message: sum over neighbours of q_c(x_j) rho_c(r) Y_lm, then a second MLP
G_i . grad(R Y)       gradient-shaped head: the force that a gradient would have, its
                      coefficients G_i given by the network instead of differentiated
near pairs            pair MLP on invariants of both ends: a u + sum b (V_i - V_j) + (T_i + T_j) u
far pairs             radial force with coefficients of both ends, to a wider cutoff
base, wall            least-squares pair force per species pair; ZBL below the sampled distances
====================  =======================================================================

Every force is a sum of F_ij with F_ji = -F_ij, so it vanishes over each connected component.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from dmts_ipi.core.config import StrictModel

from . import student_basis as basis
from .student_graph import Graph, Layout


class StudentArchitecture(StrictModel):
    """Sizes of the student. Stored in its model file.

    Distances in Angstrom. A width of 0 switches a part off.
    """

    cutoff_A: float = Field(default=4.5, gt=1.0, description="reach of densities and gradient head")
    near_cutoff_A: float = Field(default=3.0, gt=0.5, description="reach of pair MLP and wall")
    far_cutoff_A: float = Field(default=5.5, gt=1.0, description="reach of the radial far part")
    bessel: int = Field(default=10, ge=1)
    gaussians: int = Field(default=8, ge=2, description="for bonds, between the two centres")
    gaussian_first_A: float = 0.75
    gaussian_last_A: float = 2.1
    gaussian_width_A: float = Field(default=0.2, gt=0.0)
    invariants: int = Field(default=32, ge=1, description="bilinear invariants of each order")
    triple_invariants: int = Field(default=16, ge=0, description="V.T.V' invariants")
    hidden: int = Field(default=96, ge=1, description="width of the atoms' MLPs")
    messages: int = Field(default=24, ge=0, description="channels of the message layer")
    head_channels: int = Field(default=24, ge=1, description="vector and tensor channels of G")
    near_hidden: int = Field(default=48, ge=0, description="width of the pair MLP")
    near_channels: int = Field(default=8, ge=1, description="vectors and tensors of the pair MLP")
    near_bessel: int = Field(default=8, ge=1)
    far_bessel: int = Field(default=8, ge=0)

    normalise: bool = Field(default=False, description="hidden features normalised, bounded")

    head_scale: float = Field(default=0.02, gt=0, description="of normalised features at the heads")

    @property
    def radial(self) -> int:
        """Number of radial functions."""
        return self.bessel + self.gaussians

    @property
    def cutoffs_A(self) -> tuple[float, float, float]:
        """Of rows, near pairs (they carry the wall), far pairs; 0: no far part."""
        return (
            self.cutoff_A,
            self.near_cutoff_A,
            self.far_cutoff_A if self.far_bessel else 0.0,
        )

    @property
    def reach_A(self) -> float:
        """The largest cutoff."""
        return max(self.cutoffs_A)


class _GatherRows(torch.autograd.Function):
    """q[neighbour], with a backward pass that gathers along the reverse edges (no scatter)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, neighbour: Tensor, reverse: Tensor) -> Tensor:
        ctx.save_for_backward(reverse)
        return q[neighbour]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (reverse,) = ctx.saved_tensors
        grad = grads[0]
        return grad.reshape(-1, grad.shape[-1])[reverse].sum(1), None, None


class _PairSum(torch.autograd.Function):
    """F_i = sum_j (f_ij - f_ji) from directed edges f (n, k, 3)."""

    @staticmethod
    def forward(ctx: Any, f: Tensor, neighbour: Tensor, reverse: Tensor) -> Tensor:
        ctx.save_for_backward(neighbour)
        return (f - f.reshape(-1, 3)[reverse]).sum(1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (neighbour,) = ctx.saved_tensors
        grad = grads[0]
        return grad.unsqueeze(1) - grad[neighbour], None, None


FEATURE_BOUND = 12.0  # standard deviations at which features saturate, smoothly
NORM_FLOOR = 1e-2


def bounded(z: Tensor) -> Tensor:
    """z, saturating smoothly: invariants are cubic, and a rare geometry would overflow."""
    return z * torch.rsqrt(1.0 + (z * (1.0 / FEATURE_BOUND)) ** 2)


def normalised(x: Tensor) -> Tensor:
    """x over its root mean square: no layer can make its output large by itself."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + NORM_FLOOR)


class Invariants(nn.Module):
    """Bilinear invariants of equivariant features (n, 3 or 5, f), standardised."""

    mean: Tensor
    scale: Tensor

    def __init__(self, features: int, count: int, triples: int) -> None:
        super().__init__()
        self.triples = triples
        self.mix1 = nn.Linear(features, 2 * count, bias=False)
        self.mix2 = nn.Linear(features, 2 * count, bias=False)
        self.size = 2 * count + triples
        self.register_buffer("mean", torch.zeros(self.size))
        self.register_buffer("scale", torch.ones(self.size))

    def raw(self, a1: Tensor, a2: Tensor) -> Tensor:
        """V.V', T:T', V.T.V' before standardisation: (n, size)."""
        p, q = self.mix1(a1).chunk(2, dim=-1)
        s, t = self.mix2(a2).chunk(2, dim=-1)
        parts = [(p * q).sum(1), (s * t).sum(1)]
        if self.triples:
            k = self.triples
            pk, qk = p[..., :k].transpose(1, 2), q[..., :k].transpose(1, 2)
            parts.append((basis.vectors_to_tensor(pk, qk) * s[..., :k].transpose(1, 2)).sum(-1))
        return torch.cat(parts, dim=-1)

    def forward(self, a1: Tensor, a2: Tensor) -> Tensor:
        return bounded((self.raw(a1, a2) - self.mean) * self.scale)


class AtomNet(nn.Module):
    """All that one species computes per atom; two stages around the message."""

    mean0: Tensor
    scale0: Tensor
    scale1: Tensor
    scale2: Tensor
    message_scale: Tensor

    def __init__(self, a: StudentArchitecture, n_species: int) -> None:
        super().__init__()
        self.a, self.n_species = a, n_species
        f, m, h = a.radial * n_species, a.messages, a.hidden
        self.fixed, self.all = f, f + m
        for name, size in (("mean0", f), ("scale0", f), ("scale1", f), ("scale2", f)):
            start = torch.zeros(size) if name == "mean0" else torch.ones(size)
            self.register_buffer(name, start)
        self.register_buffer("message_scale", torch.ones(3))
        self.invariants1 = Invariants(f, a.invariants, a.triple_invariants)
        self.lift1 = nn.Linear(f + self.invariants1.size, h)
        self.dense1 = nn.Linear(h, h)
        if m:
            self.send = nn.Linear(h, m)
            self.invariants2 = Invariants(f + m, a.invariants, a.triple_invariants)
            self.lift2 = nn.Linear(h + m + self.invariants2.size, h)
            self.dense2 = nn.Linear(h, h)
        c, t = a.head_channels, a.triple_invariants
        self.g0 = nn.Linear(h, f + m)
        self.mix1 = nn.Linear(f + m, c, bias=False)
        self.mix2 = nn.Linear(f + m, c, bias=False)
        self.gates = nn.Linear(h, 2 * c + 2 * t)
        self.out1 = nn.Linear(c + t, f + m, bias=False)
        self.out2 = nn.Linear(c + t, f + m, bias=False)
        if a.near_hidden:
            self.near = nn.Linear(h, a.near_hidden * n_species)
            self.near_mix1 = nn.Linear(f + m, a.near_channels, bias=False)
            self.near_mix2 = nn.Linear(f + m, a.near_channels, bias=False)
            self.near_gates = nn.Linear(h, 2 * a.near_channels)
        if a.far_bessel:
            self.far = nn.Linear(h, a.far_bessel * n_species)
        # The last layers begin at zero: training starts from the base.
        for layer in [self.g0, self.out1, self.out2] + ([self.far] if a.far_bessel else []):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def standardise(self, density: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Densities (n, 9, f) -> scaled l = 0 (n, f), 1 (n, 3, f), 2 (n, 5, f)."""
        return (
            (density[:, 0] - self.mean0) * self.scale0,
            density[:, 1:4] * self.scale1,
            density[:, 4:] * self.scale2,
        )

    def first(self, density: Tensor) -> Tensor:
        """x_i (n, hidden) from fixed densities (n, 9, f)."""
        a0, a1, a2 = self.standardise(density)
        if self.a.normalise:
            a0 = bounded(a0)
        x = nn.functional.silu(self.lift1(torch.cat([a0, self.invariants1(a1, a2)], dim=-1)))
        return self.norm(x + nn.functional.silu(self.dense1(self.norm(x))))

    def norm(self, x: Tensor) -> Tensor:
        """Hidden features, normalised where the architecture says so."""
        return normalised(x) if self.a.normalise else x

    def second(
        self, x: Tensor, density: Tensor, base: Tensor, message: Tensor | None
    ) -> list[Tensor]:
        """Heads: G (n, 9, f + m); near scalars, vectors, tensors; far scalars.

        ``base`` (n, f + m) is added to the l = 0 part of G.
        """
        a = self.a
        _, a1, a2 = self.standardise(density)
        if message is not None:
            s0, s1, s2 = self.message_scale.unbind()
            a1 = torch.cat([a1, message[:, 1:4] * s1], dim=-1)
            a2 = torch.cat([a2, message[:, 4:] * s2], dim=-1)
            m0 = message[:, 0] * s0
            m0 = bounded(m0) if a.normalise else m0
            seen = torch.cat([x, m0, self.invariants2(a1, a2)], dim=-1)
            x = x + nn.functional.silu(self.lift2(seen))
            x = self.norm(x + nn.functional.silu(self.dense2(self.norm(x))))
        c, t = a.head_channels, a.triple_invariants
        small = x * a.head_scale if a.normalise else x
        gates = self.gates(small)
        v, w = self.mix1(a1), self.mix2(a2)
        v_out, w_out = v * gates[:, None, :c], w * gates[:, None, c : 2 * c]
        if t:
            vt, wt = v[..., :t].transpose(1, 2), w[..., :t].transpose(1, 2)
            bent = basis.tensor_times_vector(wt, vt).transpose(1, 2)
            square = basis.vectors_to_tensor(vt, vt).transpose(1, 2)
            v_out = torch.cat([v_out, bent * gates[:, None, 2 * c : 2 * c + t]], dim=-1)
            w_out = torch.cat([w_out, square * gates[:, None, 2 * c + t :]], dim=-1)
        heads = [
            torch.cat([(self.g0(small) + base)[:, None], self.out1(v_out), self.out2(w_out)], dim=1)
        ]
        if a.near_hidden:
            g1, g2 = self.near_gates(small).chunk(2, dim=-1)
            heads += [
                self.near(x),
                self.near_mix1(a1) * (1.0 + g1[:, None]),
                self.near_mix2(a2) * (1.0 + g2[:, None]),
            ]
        if a.far_bessel:
            heads.append(self.far(small))
        return heads


class NearNet(nn.Module):
    """Pair MLP on invariants that are symmetric under exchange of the two atoms."""

    scale: Tensor

    def __init__(self, a: StudentArchitecture, n_species: int) -> None:
        super().__init__()
        c, h = a.near_channels, a.near_hidden
        self.bound = a.normalise
        self.radial = nn.Linear(a.near_bessel, h, bias=False)
        self.lift = nn.Linear(6 * c, h, bias=False)
        self.dense = nn.Linear(h, h)
        self.out = nn.Linear(h, 1 + 2 * c)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(
        self, u: Tensor, y2: Tensor, radial: Tensor, p: Tensor, ends: tuple[Tensor, ...]
    ) -> Tensor:
        """F_ij (e, 3) of half pairs, before cutoff.

        Args:
            u: unit vectors (e, 3).
            y2: l = 2 harmonics of u (e, 5).
            radial: Bessel functions (e, b).
            p: sum of both ends' scalars (e, h).
            ends: V_i, V_j (e, 3, c), T_i, T_j (e, 5, c).
        """
        vi, vj, ti, tj = ends
        c = vi.shape[-1]
        along_i = (vi * u.unsqueeze(-1)).sum(1)
        along_j = -(vj * u.unsqueeze(-1)).sum(1)
        quad_i = (ti * y2.unsqueeze(-1)).sum(1)
        quad_j = (tj * y2.unsqueeze(-1)).sum(1)
        seen = torch.cat(
            [
                along_i + along_j,
                along_i * along_j,
                (vi * vj).sum(1),
                quad_i + quad_j,
                quad_i * quad_j,
                (ti * tj).sum(1),
            ],
            dim=-1,
        )
        if self.bound:
            seen = bounded(seen)
        h = nn.functional.silu(p + self.radial(radial) + self.lift(seen))
        h = h + nn.functional.silu(self.dense(h))
        out = self.out(h)
        vector = ((vi - vj) * out[:, None, 1 : 1 + c]).sum(-1)
        tensor = ((ti + tj) * out[:, None, 1 + c :]).sum(-1)
        return u * out[:, :1] + vector + basis.tensor_times_vector(tensor, u)


class Student(nn.Module):
    """The network. ``forward`` maps positions of sorted atoms and a graph to forces and virial."""

    centres: Tensor
    base: Tensor
    base_far: Tensor
    inner: Tensor
    charges: Tensor
    lengths: Tensor

    def __init__(self, architecture: StudentArchitecture, elements: list[int]) -> None:
        super().__init__()
        a = self.architecture = architecture
        self.elements = list(elements)
        s = len(elements)
        self.register_buffer(
            "centres", torch.linspace(a.gaussian_first_A, a.gaussian_last_A, a.gaussians)
        )
        self.register_buffer("base", torch.zeros(s, s, a.radial))
        self.register_buffer("base_far", torch.zeros(s, s, max(a.far_bessel, 1)))
        # Below inner[..., 1] the learned force of a pair fades into the wall, gone at [..., 0].
        self.register_buffer("inner", torch.tensor([0.3, 0.5]).expand(s, s, 2).clone())
        z = [float(e) for e in elements]
        self.register_buffer("charges", torch.tensor([[p * q for q in z] for p in z]))
        self.register_buffer(
            "lengths", torch.tensor([[basis.zbl_length(p, q) for q in z] for p in z])
        )
        self.atoms = nn.ModuleList(AtomNet(a, s) for _ in elements)
        if a.messages:
            self.rho = nn.Linear(a.radial, a.messages, bias=False)
        if a.near_hidden:
            self.pair = NearNet(a, s)

    def radial(self, r: Tensor, r2: Tensor) -> tuple[Tensor, Tensor]:
        """Radial basis and its derivative, (..., radial)."""
        a = self.architecture
        b, db = basis.bessel(r, r2, a.cutoff_A, a.bessel)
        g, dg = basis.gaussians(r, r2, a.cutoff_A, self.centres, a.gaussian_width_A)
        return torch.cat([b, g], dim=-1), torch.cat([db, dg], dim=-1)

    def densities(self, values: Tensor, y: Tensor, columns: tuple[int, ...]) -> Tensor:
        """A (n, 9, species * radial) from radial values (n, k, b) and harmonics (n, k, 9)."""
        blocks = zip(y.split(columns, dim=1), values.split(columns, dim=1), strict=True)
        return torch.cat([torch.bmm(yb.transpose(1, 2), vb) for yb, vb in blocks], dim=-1)

    def by_species(self, counts: tuple[int, ...], method: str, *inputs: Tensor | None) -> Any:
        """Runs a method of each species' net on its atoms and joins the results."""
        results = []
        start = 0
        for net, count in zip(self.atoms, counts, strict=True):
            if count:
                part = [None if x is None else x[start : start + count] for x in inputs]
                results.append(getattr(net, method)(*part))
            start += count
        if isinstance(results[0], list):
            return [torch.cat(group) for group in zip(*results, strict=True)]
        return torch.cat(results)

    def geometry(
        self, x: Tensor, cell: Tensor, i: Tensor, j: Tensor, shifts: Tensor, pad: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Unit vectors from i to j, distances and their squares; padding is far away."""
        d = x[j] - x[i] + shifts @ cell
        r2 = (d * d).sum(-1) + pad * (100.0 * self.architecture.reach_A**2)
        r = r2.sqrt()
        return d / r.unsqueeze(-1), r, r2

    def forward(
        self, x: Tensor, cell: Tensor, graph: Graph, layout: Layout
    ) -> tuple[Tensor, Tensor]:
        """Forces (n, 3) eV/A of sorted atoms and the pair virial (3, 3) eV.

        Args:
            x: positions (n, 3) Angstrom, sorted by species, not wrapped.
            cell: (3, 3) Angstrom, rows.
            graph: neighbours.
            layout: its sizes.

        The virial is seeds/000 section 2.7: -sum over pairs of r_ij (x) F_ij, made symmetric.
        """
        a, g = self.architecture, graph
        s = len(self.elements)
        rows = torch.arange(len(x), device=x.device).unsqueeze(1)
        u, r, r2 = self.geometry(x, cell, rows, g.neighbour, g.shifts, g.pad)
        y = basis.harmonics(u)
        value, slope = self.radial(r, r2)
        density = self.densities(value, y, layout.columns)
        h = self.by_species(layout.counts, "first", density)
        message = sent = sent_slope = None
        if a.messages:
            q = _GatherRows.apply(self.send(h, layout.counts), g.neighbour, g.reverse)
            sent, sent_slope = self.rho(value) * q, self.rho(slope) * q
            message = torch.bmm(y.transpose(1, 2), sent)
        base = nn.functional.pad(self.base.reshape(s, -1), (0, a.messages))[g.species]
        heads = self.by_species(layout.counts, "second", h, density, base, message)

        along = self.contract(heads[0], slope, sent_slope, layout.columns)
        across = self.contract(heads[0][:, 1:], value, sent, layout.columns)
        kind = g.species.unsqueeze(1) * s + g.species[g.neighbour]
        low, high = self.inner.reshape(-1, 2)[kind].unbind(-1)
        learned = basis.smooth_step(r, low, high) * (1.0 - g.pad)
        f = self.gradient_shape(along, across / r.unsqueeze(-1), u, y) * learned.unsqueeze(-1)
        total = _PairSum.apply(f, g.neighbour, g.reverse)
        d = u * r.unsqueeze(-1)
        virial = -(d.reshape(-1, 3).T @ f.reshape(-1, 3))
        pairs = self.near_forces(x, cell, g, heads[1:4])
        total, virial = self.add_pairs(total, virial, g.near, *pairs)
        if a.far_bessel:
            pairs = self.far_forces(x, cell, g, heads[-1])
            total, virial = self.add_pairs(total, virial, g.far, *pairs)
        return total, 0.5 * (virial + virial.T)

    def send(self, h: Tensor, counts: tuple[int, ...]) -> Tensor:
        """Messages q_c of each atom, (n, m)."""
        parts = h.split(counts)
        return torch.cat(
            [net.get_submodule("send")(p) for net, p in zip(self.atoms, parts, strict=True)]
        )

    def contract(
        self, heads: Tensor, fixed: Tensor, sent: Tensor | None, columns: tuple[int, ...]
    ) -> Tensor:
        """sum_n G[s_j, n, lm] R_n(r) on every directed edge: (n, k, 9 or 8).

        Args:
            heads: G (n, 9 or 8, f + m).
            fixed: radial functions (n, k, radial); ``sent``: those of the message (n, k, m).
            columns: of each species' block.
        """
        width = self.architecture.radial
        blocks = [
            torch.bmm(block, heads[..., b * width : (b + 1) * width].transpose(1, 2))
            for b, block in enumerate(fixed.split(columns, 1))
        ]
        c = torch.cat(blocks, dim=1)
        if sent is None:
            return c
        return c + torch.bmm(sent, heads[..., width * len(columns) :].transpose(1, 2))

    @staticmethod
    def gradient_shape(along: Tensor, across: Tensor, u: Tensor, y: Tensor) -> Tensor:
        """The gradient of sum_lm c_lm(r) Y_lm(u) with respect to r u: (n, k, 3).

        Args:
            along: dc/dr of each lm, (n, k, 9).
            across: c / r of l = 1 and 2, (n, k, 8).
            u: unit vectors; y: their harmonics.
        """
        v, t = across[..., :3], across[..., 3:]
        radial = (along * y).sum(-1) - (v * u).sum(-1) - 2.0 * (t * y[..., 4:]).sum(-1)
        return u * radial.unsqueeze(-1) + v + 2.0 * basis.tensor_times_vector(t, u)

    def near_forces(
        self, x: Tensor, cell: Tensor, g: Graph, heads: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Force on i of each near pair (e, 3), wall included, and the vector from i to j."""
        a, s = self.architecture, len(self.elements)
        i, j = g.near.unbind(0)
        u, r, r2 = self.geometry(x, cell, i, j, g.near_shifts, g.near_pad)
        zi, zj = g.species[i], g.species[j]
        low, high = self.inner[zi, zj].unbind(-1)
        learned = basis.smooth_step(r, low, high)
        wall = basis.zbl_force(
            r.clamp(max=a.near_cutoff_A), self.charges[zi, zj], self.lengths[zi, zj]
        )
        f = -u * (wall * (1.0 - learned) * (1.0 - g.near_pad)).unsqueeze(-1)
        if a.near_hidden:
            value, _ = basis.bessel(r, r2, a.near_cutoff_A, a.near_bessel)
            p, v, t = heads
            p = p.reshape(-1, a.near_hidden)
            both = p[i * s + zj] + p[j * s + zi]
            y2 = basis.harmonics(u)[:, 4:]
            fade = learned * basis.cutoff_and_slope(r2, a.near_cutoff_A)[0]
            f = f + self.pair(u, y2, value, both, (v[i], v[j], t[i], t[j])) * fade.unsqueeze(-1)
        return f, u * r.unsqueeze(-1)

    def far_forces(self, x: Tensor, cell: Tensor, g: Graph, head: Tensor) -> tuple[Tensor, Tensor]:
        """Force on i of each far pair (e, 3), and the vector from i to j."""
        a, s = self.architecture, len(self.elements)
        i, j = g.far.unbind(0)
        u, r, r2 = self.geometry(x, cell, i, j, g.far_shifts, g.far_pad)
        zi, zj = g.species[i], g.species[j]
        value, _ = basis.bessel(r, r2, a.far_cutoff_A, a.far_bessel)
        head = head.reshape(-1, a.far_bessel)
        both = head[i * s + zj] + head[j * s + zi] + 2.0 * self.base_far[zi, zj]
        low, high = self.inner[zi, zj].unbind(-1)
        size = (value * both).sum(-1) * basis.smooth_step(r, low, high)
        return u * size.unsqueeze(-1), u * r.unsqueeze(-1)

    @staticmethod
    def add_pairs(
        total: Tensor, virial: Tensor, index: Tensor, f: Tensor, d: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Adds half pairs: F_i += f, F_j -= f, virial -= d (x) f."""
        total = total.index_add(0, index[0], f).index_add(0, index[1], -f)
        return total, virial - d.T @ f
