"""The trained parts of the student: networks of one atom and of one near pair.

What they compute of which equation is in ``student``; the fixed functions are in
``basis``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from . import basis
from .architecture import StudentArchitecture

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


class AtomFeatures(nn.Module):
    """What one species computes per atom; two stages around the message. Heads are added below."""

    mean0: Tensor
    scale0: Tensor
    scale1: Tensor
    scale2: Tensor
    message_scale: Tensor

    def __init__(self, a: StudentArchitecture, n_species: int) -> None:
        super().__init__()
        self.a, self.n_species = a, n_species
        blocks = a.blocks(n_species)
        f, m, h = a.radial * blocks, a.messages, a.hidden
        if a.mixed(n_species):
            self.mixing = nn.Parameter(torch.zeros(n_species, blocks))  # w[z_i, s, k]
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

    def whole_mixing(self) -> Tensor:
        """w of every radial function, (s * radial, k * radial): one matrix product mixes."""
        one = torch.eye(self.a.radial, dtype=self.mixing.dtype, device=self.mixing.device)
        return torch.kron(self.mixing, one)

    def mix(self, density: Tensor) -> Tensor:
        """A'[k] = sum_s w[s, k] A[s]: densities by element (n, 9, s * radial) to channels."""
        return density @ self.whole_mixing()

    def unmix(self, g: Tensor, base: Tensor | None) -> Tensor:
        """G[s] = sum_k w[s, k] G'[k]: by channel (n, 9, f + m) to elements (n, 9, s * radial + m).

        ``base`` (n, s * radial + m), if there is one, is added to the l = 0 part.
        """
        by_element = g[..., : self.fixed] @ self.whole_mixing().T
        g = torch.cat([by_element, g[..., self.fixed :]], dim=-1)
        return g if base is None else torch.cat([(g[:, 0] + base)[:, None], g[:, 1:]], dim=1)

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

    def small(self, x: Tensor) -> Tensor:
        """Hidden features as the heads take them."""
        return x * self.a.head_scale if self.a.normalise else x

    def seen(
        self, x: Tensor, density: Tensor, message: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Hidden features after the message, and the scaled l = 1 and 2 parts of all densities."""
        a = self.a
        _, a1, a2 = self.standardise(density)
        if message is None:
            return x, a1, a2
        s0, s1, s2 = self.message_scale.unbind()
        a1 = torch.cat([a1, message[:, 1:4] * s1], dim=-1)
        a2 = torch.cat([a2, message[:, 4:] * s2], dim=-1)
        m0 = message[:, 0] * s0
        m0 = bounded(m0) if a.normalise else m0
        both = torch.cat([x, m0, self.invariants2(a1, a2)], dim=-1)
        x = x + nn.functional.silu(self.lift2(both))
        return self.norm(x + nn.functional.silu(self.dense2(self.norm(x)))), a1, a2

    def add_pair_heads(self) -> None:
        """The layers of ``pair_heads``."""
        a, h = self.a, self.a.hidden
        # One head for each element of the other atom, or one for all of them.
        partners = 1 if a.mixed(self.n_species) else self.n_species
        if a.near_hidden:
            self.near = nn.Linear(h, a.near_hidden * partners)
            self.near_mix1 = nn.Linear(self.all, a.near_channels, bias=False)
            self.near_mix2 = nn.Linear(self.all, a.near_channels, bias=False)
            self.near_gates = nn.Linear(h, 2 * a.near_channels)
        if a.far_bessel:
            self.far = nn.Linear(h, a.far_bessel * partners)

    def pair_heads(self, x: Tensor, a1: Tensor, a2: Tensor) -> list[Tensor]:
        """Near scalars, vectors, tensors; far scalars; each where there are such pairs."""
        small, heads = self.small(x), []
        if self.a.near_hidden:
            g1, g2 = self.near_gates(small).chunk(2, dim=-1)
            heads += [
                self.near(x),
                self.near_mix1(a1) * (1.0 + g1[:, None]),
                self.near_mix2(a2) * (1.0 + g2[:, None]),
            ]
        if self.a.far_bessel:
            heads.append(self.far(small))
        return heads


class AtomNet(AtomFeatures):
    """The features with the heads of direct forces."""

    def __init__(self, a: StudentArchitecture, n_species: int) -> None:
        super().__init__(a, n_species)
        c, t, h = a.head_channels, a.triple_invariants, a.hidden
        self.g0 = nn.Linear(h, self.all)
        self.mix1 = nn.Linear(self.all, c, bias=False)
        self.mix2 = nn.Linear(self.all, c, bias=False)
        self.gates = nn.Linear(h, 2 * c + 2 * t)
        self.out1 = nn.Linear(c + t, self.all, bias=False)
        self.out2 = nn.Linear(c + t, self.all, bias=False)
        self.add_pair_heads()
        # The last layers begin at zero: training starts from the base.
        for layer in [self.g0, self.out1, self.out2] + ([self.far] if a.far_bessel else []):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def second(
        self, x: Tensor, density: Tensor, base: Tensor | None, message: Tensor | None
    ) -> list[Tensor]:
        """Heads: G (n, 9, f + m); near scalars, vectors, tensors; far scalars.

        ``base`` (n, f + m), if there is one, is added to the l = 0 part of G.
        """
        a = self.a
        x, a1, a2 = self.seen(x, density, message)
        c, t = a.head_channels, a.triple_invariants
        small = self.small(x)
        gates = self.gates(small)
        v, w = self.mix1(a1), self.mix2(a2)
        v_out, w_out = v * gates[:, None, :c], w * gates[:, None, c : 2 * c]
        if t:
            vt, wt = v[..., :t].transpose(1, 2), w[..., :t].transpose(1, 2)
            bent = basis.tensor_times_vector(wt, vt).transpose(1, 2)
            square = basis.vectors_to_tensor(vt, vt).transpose(1, 2)
            v_out = torch.cat([v_out, bent * gates[:, None, 2 * c : 2 * c + t]], dim=-1)
            w_out = torch.cat([w_out, square * gates[:, None, 2 * c + t :]], dim=-1)
        g0 = self.g0(small) if base is None else self.g0(small) + base
        g = torch.cat([g0[:, None], self.out1(v_out), self.out2(w_out)], dim=1)
        return [g, *self.pair_heads(x, a1, a2)]


class AtomEnergyNet(AtomFeatures):
    """The features with one energy per atom, and the heads of pair energies."""

    def __init__(self, a: StudentArchitecture, n_species: int) -> None:
        super().__init__(a, n_species)
        self.energy = nn.Linear(a.hidden, 1, bias=False)
        self.add_pair_heads()
        for layer in [self.energy] + ([self.far] if a.far_bessel else []):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def second(self, x: Tensor, density: Tensor, message: Tensor | None) -> list[Tensor]:
        """Heads: energy (n, 1), eV; near scalars, vectors, tensors; far scalars."""
        x, a1, a2 = self.seen(x, density, message)
        return [self.energy(x), *self.pair_heads(x, a1, a2)]


class PairElements(nn.Module):
    """What a student with element channels knows of the elements of a pair.

    Near pairs: p_ij = v[z_j] P(x_i) + v[z_i] P(x_j) + b[{z_i, z_j}] + R[{z_i, z_j}] . bessel(r);
    far pairs: the same with one head of ``far_bessel`` coefficients, without R.
    """

    kind: Tensor

    def __init__(self, a: StudentArchitecture, n_species: int) -> None:
        super().__init__()
        self.n_species = s = n_species
        first, second = torch.triu_indices(s, s)
        kind = torch.zeros(s, s, dtype=torch.int64)
        kind[first, second] = kind[second, first] = torch.arange(len(first))
        self.register_buffer("kind", kind, persistent=False)
        pairs = len(first)
        if a.near_hidden:
            self.near_factor = nn.Parameter(torch.ones(s, a.near_hidden))
            self.near_terms = nn.Parameter(torch.zeros(pairs, 1 + a.near_bessel, a.near_hidden))
        if a.far_bessel:
            self.far_factor = nn.Parameter(torch.ones(s, a.far_bessel))
            self.far_terms = nn.Parameter(torch.zeros(pairs, a.far_bessel))

    def ends(
        self, head: Tensor, factor: Tensor, i: Tensor, j: Tensor, zi: Tensor, zj: Tensor
    ) -> Tensor:
        """v[z_j] P(x_i) + v[z_i] P(x_j), (e, h)."""
        s = self.n_species
        by_partner = (head.unsqueeze(1) * factor).flatten(0, 1)  # (n * s, h)
        return by_partner[i * s + zj] + by_partner[j * s + zi]

    def near(self, p: Tensor, pair: tuple[Tensor, Tensor, Tensor, Tensor], r: Tensor) -> Tensor:
        """p_ij (e, h) from P (n, h), atoms and elements of both ends (e,), bessel(r) (e, b)."""
        _, _, zi, zj = pair
        seen = torch.cat([torch.ones_like(r[:, :1]), r], dim=-1)
        kinds = one_hot(self.kind[zi, zj], len(self.near_terms), r.dtype)
        columns = (kinds.unsqueeze(-1) * seen.unsqueeze(1)).flatten(1)
        return self.ends(p, self.near_factor, *pair) + columns @ self.near_terms.flatten(0, 1)

    def far(self, p: Tensor, pair: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
        """Coefficients (e, far_bessel) of far pairs."""
        kinds = one_hot(self.kind[pair[2], pair[3]], len(self.far_terms), p.dtype)
        return self.ends(p, self.far_factor, *pair) + kinds @ self.far_terms


def one_hot(index: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    """(e,) -> (e, count), 1 at the index."""
    return (index.unsqueeze(-1) == torch.arange(count, device=index.device)).to(dtype)


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
        self.out = nn.Linear(h, self.outputs(a))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    @staticmethod
    def outputs(a: StudentArchitecture) -> int:
        """Width of the readout."""
        return 1 + 2 * a.near_channels

    def read(
        self, u: Tensor, y2: Tensor, radial: Tensor, p: Tensor, ends: tuple[Tensor, ...]
    ) -> Tensor:
        """The readout (e, outputs) of half pairs, from invariants only.

        Args:
            u: unit vectors (e, 3).
            y2: l = 2 harmonics of u (e, 5).
            radial: Bessel functions (e, b).
            p: sum of both ends' scalars (e, h).
            ends: V_i, V_j (e, 3, c), T_i, T_j (e, 5, c).
        """
        vi, vj, ti, tj = ends
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
        return self.out(h)

    def forward(
        self, u: Tensor, y2: Tensor, radial: Tensor, p: Tensor, ends: tuple[Tensor, ...]
    ) -> Tensor:
        """F_ij (e, 3) of half pairs, before cutoff; arguments as of ``read``."""
        vi, vj, ti, tj = ends
        c = vi.shape[-1]
        out = self.read(u, y2, radial, p, ends)
        vector = ((vi - vj) * out[:, None, 1 : 1 + c]).sum(-1)
        tensor = ((ti + tj) * out[:, None, 1 + c :]).sum(-1)
        return u * out[:, :1] + vector + basis.tensor_times_vector(tensor, u)


class NearEnergyNet(NearNet):
    """The pair MLP with an energy as its readout."""

    @staticmethod
    def outputs(a: StudentArchitecture) -> int:
        """Width of the readout."""
        return 1

    def forward(
        self, u: Tensor, y2: Tensor, radial: Tensor, p: Tensor, ends: tuple[Tensor, ...]
    ) -> Tensor:
        """Energy (e,) of half pairs, eV, before cutoff."""
        return self.read(u, y2, radial, p, ends).squeeze(-1)
