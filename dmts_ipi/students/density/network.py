"""The student: a direct-force network of antisymmetric pair forces. No autograd at inference.

It starts from section 2.1 of DOI 10.1021/acs.jctc.6c00653 (pair forces built from scalar and tensor
embeddings of both atoms, antisymmetrised, with a short-range repulsion) and takes the shapes that
worked better for us:

====================  =======================================================================
A_i[s, n, lm]         fixed densities, sum over neighbours of species s of R_n(r) Y_lm(u), l <= 2
x_i                   per-species MLP on A0 and on invariants V.V', T:T', V.T.V'
B_i[c, lm]            message: sum over neighbours of q_c(x_j) rho_c(r) Y_lm, then a second MLP
G_i . grad(R Y)       gradient-shaped head: the force that a gradient would have, its
                      coefficients G_i given by the network instead of differentiated
channels              A' = sum_s w[z_i, s, k] A_i[s], and G_i[s] = sum_k w[z_i, s, k] G'_i[k]: with
                      many elements the atom's network works on few learned mixtures of them
near pairs            pair MLP on invariants of both ends: a u + sum b (V_i - V_j) + (T_i + T_j) u
far pairs             radial force with coefficients of both ends, to a wider cutoff
base, wall            least-squares pair force per species pair; ZBL below the sampled distances
====================  =======================================================================

Every force is a sum of F_ij with F_ji = -F_ij, so it vanishes over each connected component.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from . import basis
from .architecture import StudentArchitecture
from .graph import Graph, PaddedShape
from .nets import AtomFeatures, AtomNet, NearNet, PairElements


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


def start_of_channels(elements: list[int], channels: int) -> Tensor:
    """w[s, k] before training, (elements, channels).

    Hydrogen has the first one alone, and the others tell heavy elements apart by signs.
    """
    w = torch.zeros(len(elements), channels)
    alone = 1 if 1 in elements and channels > 1 else 0
    heavy = [k for k, z in enumerate(elements) if not (alone and z == 1)]
    if alone:
        w[elements.index(1), 0] = 1.0
    for place, k in enumerate(heavy):
        for bit in range(channels - alone):
            w[k, channels - 1 - bit] = -1.0 if place >> bit & 1 else 1.0
    return w


class Student(nn.Module):
    """The network. ``forward`` maps positions of sorted atoms and a graph to forces and virial."""

    centres: Tensor
    base: Tensor
    base_far: Tensor
    inner: Tensor
    charges: Tensor
    lengths: Tensor
    atom_net: type[AtomFeatures] = AtomNet
    near_net: type[NearNet] = NearNet

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
        self.atoms = nn.ModuleList(self.atom_net(a, s) for _ in elements)
        self.mixes = a.mixed(s) > 0
        if self.mixes:
            self.pair_elements = PairElements(a, s)
            start = start_of_channels(self.elements, a.blocks(s))
            with torch.no_grad():
                for net in self.atoms:
                    net.get_parameter("mixing").copy_(start)
        if a.messages:
            self.rho = nn.Linear(a.radial, a.messages, bias=False)
        if a.near_hidden:
            self.pair = self.near_net(a, s)

    def radial(self, r: Tensor, r2: Tensor) -> tuple[Tensor, Tensor]:
        """Radial basis and its derivative, (..., radial)."""
        a = self.architecture
        b, db = basis.bessel(r, r2, a.cutoff_A, a.bessel)
        g, dg = basis.gaussians(r, r2, a.cutoff_A, self.centres, a.gaussian_width_A)
        return torch.cat([b, g], dim=-1), torch.cat([db, dg], dim=-1)

    def far_slope(self, r: Tensor, r2: Tensor) -> Tensor:
        """Radial functions of the far force, (..., far_bessel)."""
        return basis.bessel(r, r2, self.architecture.far_cutoff_A, self.architecture.far_bessel)[0]

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
        self, x: Tensor, cell: Tensor, graph: Graph, layout: PaddedShape
    ) -> tuple[Tensor, Tensor]:
        """Forces (n, 3) eV/A of sorted atoms and the pair virial (3, 3) eV.

        Args:
            x: positions (n, 3) Angstrom, sorted by species, not wrapped.
            cell: (3, 3) Angstrom, rows.
            graph: neighbours.
            layout: its sizes.

        The virial is -sum over pairs of r_ij (x) F_ij, made symmetric (section 2.7 there).
        """
        a, g = self.architecture, graph
        s = len(self.elements)
        rows = torch.arange(len(x), device=x.device).unsqueeze(1)
        u, r, r2 = self.geometry(x, cell, rows, g.neighbour, g.shifts, g.pad)
        y = basis.harmonics(u)
        value, slope = self.radial(r, r2)
        density = self.densities(value, y, layout.columns)
        density = self.mixed(density, layout.counts)
        h = self.by_species(layout.counts, "first", density)
        message = sent = sent_slope = None
        if a.messages:
            q = _GatherRows.apply(self.send(h, layout.counts), g.neighbour, g.reverse)
            sent, sent_slope = self.rho(value) * q, self.rho(slope) * q
            message = torch.bmm(y.transpose(1, 2), sent)
        base: Tensor | None = None
        if a.base != "none":
            base = nn.functional.pad(self.base.reshape(s, -1), (0, a.messages))[g.species]
        early = None if self.mixes else base  # with channels it is added by element, after them
        heads = self.by_species(layout.counts, "second", h, density, early, message)
        if self.mixes:
            heads[0] = self.by_species(layout.counts, "unmix", heads[0], base)

        radial_coeff = self.contract(heads[0], slope, sent_slope, layout.columns)
        tangential_coeff = self.contract(heads[0][:, 1:], value, sent, layout.columns)
        kind = g.species.unsqueeze(1) * s + g.species[g.neighbour]
        low, high = self.inner.reshape(-1, 2)[kind].unbind(-1)
        learned = basis.smooth_step(r, low, high) * (1.0 - g.pad)
        f = self.gradient_shape(
            radial_coeff, tangential_coeff / r.unsqueeze(-1), u, y
        ) * learned.unsqueeze(-1)
        total = _PairSum.apply(f, g.neighbour, g.reverse)
        d = u * r.unsqueeze(-1)
        virial = -self.outer_sum(d.reshape(-1, 3), f.reshape(-1, 3))
        pairs = self.near_forces(x, cell, g, heads[1:4])
        total, virial = self.add_pairs(total, virial, g.near, *pairs)
        if a.far_bessel:
            pairs = self.far_forces(x, cell, g, heads[-1])
            total, virial = self.add_pairs(total, virial, g.far, *pairs)
        return total, 0.5 * (virial + virial.T)

    def mixed(self, density: Tensor, counts: tuple[int, ...]) -> Tensor:
        """Densities as the atoms' networks read them, (n, 9, blocks * radial)."""
        return self.by_species(counts, "mix", density) if self.mixes else density

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
    def gradient_shape(
        radial_coeff: Tensor, tangential_coeff: Tensor, u: Tensor, y: Tensor
    ) -> Tensor:
        """The gradient of sum_lm c_lm(r) Y_lm(u) with respect to r u: (n, k, 3).

        Args:
            radial_coeff: dc/dr of each lm, (n, k, 9).
            tangential_coeff: c / r of l = 1 and 2, (n, k, 8).
            u: unit vectors; y: their harmonics.
        """
        v, t = tangential_coeff[..., :3], tangential_coeff[..., 3:]
        radial = (radial_coeff * y).sum(-1) - (v * u).sum(-1) - 2.0 * (t * y[..., 4:]).sum(-1)
        return u * radial.unsqueeze(-1) + v + 2.0 * basis.tensor_times_vector(t, u)

    def near_forces(
        self, x: Tensor, cell: Tensor, g: Graph, heads: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Force on i of each near pair (e, 3), wall included, and the vector from i to j."""
        a = self.architecture
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
            both = self.near_scalars(p, (i, j, zi, zj), value)
            y2 = basis.harmonics(u)[:, 4:]
            fade = learned * basis.cutoff_and_slope(r2, a.near_cutoff_A)[0]
            f = f + self.pair(u, y2, value, both, (v[i], v[j], t[i], t[j])) * fade.unsqueeze(-1)
        return f, u * r.unsqueeze(-1)

    def near_scalars(
        self, p: Tensor, pair: tuple[Tensor, Tensor, Tensor, Tensor], radial: Tensor
    ) -> Tensor:
        """What both ends of near pairs tell the pair MLP, (e, near_hidden).

        ``pair``: atoms i, j and their elements (e,); ``radial``: Bessel functions (e, b).
        """
        a, s = self.architecture, len(self.elements)
        if self.mixes:
            return self.pair_elements.near(p, pair, radial)
        i, j, zi, zj = pair
        p = p.reshape(-1, a.near_hidden)
        return p[i * s + zj] + p[j * s + zi]

    def far_coefficients(self, head: Tensor, pair: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
        """Coefficients of the far part, (e, far_bessel)."""
        a, s = self.architecture, len(self.elements)
        i, j, zi, zj = pair
        if self.mixes:
            return self.pair_elements.far(head, pair) + 2.0 * self.base_far[zi, zj]
        head = head.reshape(-1, a.far_bessel)
        return head[i * s + zj] + head[j * s + zi] + 2.0 * self.base_far[zi, zj]

    def far_forces(self, x: Tensor, cell: Tensor, g: Graph, head: Tensor) -> tuple[Tensor, Tensor]:
        """Force on i of each far pair (e, 3), and the vector from i to j."""
        a = self.architecture
        i, j = g.far.unbind(0)
        u, r, r2 = self.geometry(x, cell, i, j, g.far_shifts, g.far_pad)
        zi, zj = g.species[i], g.species[j]
        value, _ = basis.bessel(r, r2, a.far_cutoff_A, a.far_bessel)
        both = self.far_coefficients(head, (i, j, zi, zj))
        low, high = self.inner[zi, zj].unbind(-1)
        size = (value * both).sum(-1) * basis.smooth_step(r, low, high)
        return u * size.unsqueeze(-1), u * r.unsqueeze(-1)

    @staticmethod
    def add_pairs(
        total: Tensor, virial: Tensor, index: Tensor, f: Tensor, d: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Adds half pairs: F_i += f, F_j -= f, virial -= d (x) f."""
        total = total.index_add(0, index[0], f).index_add(0, index[1], -f)
        return total, virial - Student.outer_sum(d, f)

    @staticmethod
    def outer_sum(d: Tensor, f: Tensor) -> Tensor:
        """sum of d (x) f, (3, 3), in float64: large parts of it cancel."""
        return d.double().T @ f.double()
