"""The conservative student: the same architecture with an energy readout, forces by autograd.

It is what DMTS-NC is compared with in DOI 10.1021/acs.jctc.6c00653, section 3. Densities, message,
invariants and near pairs are those of ``student``; the readout is

    E = sum_i [e(x_i) + base . A0_i] + sum over near pairs [fade e(pair) + wall]
        + sum over far pairs [radial energy with coefficients of both ends]

and forces are its derivatives by the vectors between atoms. The base pair force of a direct student
is the gradient of this base energy, so both begin their training from the same least-squares fit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import basis
from .architecture import StudentArchitecture
from .graph import Graph, PaddedShape
from .nets import AtomEnergyNet, NearEnergyNet
from .network import Student, _GatherRows, _PairSum


class EnergyStudent(Student):
    """The network. ``forward`` gives forces, virial and energy.

    ``atom_energies_eV``: of each element, added by ``model`` in double precision; the
    forces fix the energy only up to these.
    """

    atom_net = AtomEnergyNet
    near_net = NearEnergyNet

    def __init__(self, architecture: StudentArchitecture, elements: list[int]) -> None:
        super().__init__(architecture, elements)
        self.atom_energies_eV = [0.0] * len(elements)

    def far_slope(self, r: Tensor, r2: Tensor) -> Tensor:
        """Radial functions of the far force: slopes of those of the energy."""
        return basis.bessel(r, r2, self.architecture.far_cutoff_A, self.architecture.far_bessel)[1]

    def forward(  # type: ignore[override]
        self, x: Tensor, cell: Tensor, graph: Graph, layout: PaddedShape
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Forces (n, 3) eV/A, virial (3, 3) eV, and energy (), eV, without ``atom_energies_eV``.

        Arguments as of ``Student.forward``. Where gradients are on, forces can be differentiated
        once more, by the weights.
        """
        g, again = graph, torch.is_grad_enabled()
        rows = torch.arange(len(x), device=x.device).unsqueeze(1)
        vectors = [
            x[g.neighbour] - x[rows] + g.shifts @ cell,
            x[g.near[1]] - x[g.near[0]] + g.near_shifts @ cell,
        ]
        if self.architecture.far_bessel:
            vectors.append(x[g.far[1]] - x[g.far[0]] + g.far_shifts @ cell)
        vectors = [v.detach().requires_grad_(True) for v in vectors]
        with torch.enable_grad():
            energy = self.energy(vectors, g, layout)
            slopes = torch.autograd.grad(energy, vectors, create_graph=again)
        # d = x_j - x_i, so the slope by d is the force on i.
        total = _PairSum.apply(slopes[0], g.neighbour, g.reverse)
        virial = -(vectors[0].reshape(-1, 3).T @ slopes[0].reshape(-1, 3))
        for index, f, d in zip((g.near, g.far), slopes[1:], vectors[1:], strict=False):
            total, virial = self.add_pairs(total, virial, index, f, d)
        return total, 0.5 * (virial + virial.T), energy.detach()

    def energy(self, vectors: list[Tensor], g: Graph, layout: PaddedShape) -> Tensor:
        """Energy () in eV from vectors of rows (n, k, 3), near (e, 3) and far pairs (e, 3)."""
        a, s = self.architecture, len(self.elements)
        u, r, r2 = self.polar(vectors[0], g.pad)
        y = basis.harmonics(u)
        kind = g.species.unsqueeze(1) * s + g.species[g.neighbour]
        low, high = self.inner.reshape(-1, 2)[kind].unbind(-1)
        learned = basis.smooth_step(r, low, high) * (1.0 - g.pad)
        value = self.radial(r, r2)[0] * learned.unsqueeze(-1)
        by_element = self.densities(value, y, layout.columns)
        density = self.mixed(by_element, layout.counts)
        h = self.by_species(layout.counts, "first", density)
        message = None
        if a.messages:
            q = _GatherRows.apply(self.send(h, layout.counts), g.neighbour, g.reverse)
            message = torch.bmm(y.transpose(1, 2), self.rho(value) * q)
        heads = self.by_species(layout.counts, "second", h, density, message)
        base = (self.base.reshape(s, -1)[g.species] * by_element[:, 0]).sum()
        total = heads[0].sum() + base + self.near_energy(vectors[1], g, heads[1:4])
        return total + self.far_energy(vectors[2], g, heads[-1]) if a.far_bessel else total

    def polar(self, d: Tensor, pad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As ``geometry``, from vectors."""
        r2 = (d * d).sum(-1) + pad * (100.0 * self.architecture.reach_A**2)
        r = r2.sqrt()
        return d / r.unsqueeze(-1), r, r2

    def near_energy(self, d: Tensor, g: Graph, heads: list[Tensor]) -> Tensor:
        """Energy of all near pairs, wall included."""
        a = self.architecture
        i, j = g.near.unbind(0)
        u, r, r2 = self.polar(d, g.near_pad)
        zi, zj = g.species[i], g.species[j]
        low, high = self.inner[zi, zj].unbind(-1)
        learned = basis.smooth_step(r, low, high)
        wall = basis.zbl_energy(
            r.clamp(max=a.near_cutoff_A), self.charges[zi, zj], self.lengths[zi, zj]
        )
        total = (wall * (1.0 - learned) * (1.0 - g.near_pad)).sum()
        if not a.near_hidden:
            return total
        value, _ = basis.bessel(r, r2, a.near_cutoff_A, a.near_bessel)
        p, v, t = heads
        both = self.near_scalars(p, (i, j, zi, zj), value)
        y2 = basis.harmonics(u)[:, 4:]
        fade = learned * basis.cutoff_and_slope(r2, a.near_cutoff_A)[0]
        return total + (self.pair(u, y2, value, both, (v[i], v[j], t[i], t[j])) * fade).sum()

    def far_energy(self, d: Tensor, g: Graph, head: Tensor) -> Tensor:
        """Energy of all far pairs."""
        a = self.architecture
        i, j = g.far.unbind(0)
        _, r, r2 = self.polar(d, g.far_pad)
        zi, zj = g.species[i], g.species[j]
        value, _ = basis.bessel(r, r2, a.far_cutoff_A, a.far_bessel)
        both = self.far_coefficients(head, (i, j, zi, zj))
        low, high = self.inner[zi, zj].unbind(-1)
        return ((value * both).sum(-1) * basis.smooth_step(r, low, high)).sum()


def new_student(architecture: StudentArchitecture, elements: list[int]) -> Student:
    """An untrained network of the kind that the architecture says."""
    kind = EnergyStudent if architecture.energy else Student
    return kind(architecture, elements)
