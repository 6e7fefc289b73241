"""A student architecture with two outputs: an energy by pairs, and forces read off directly.

Both heads are a few Gaussians of the distance. The energy is trained on the labels' energies, the
direct forces on the labels' forces; a run is driven by the direct forces.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from dmts_ipi.students.contract import (
    DIRECT,
    ENERGY,
    Architecture,
    ArchitectureConfig,
)


class ToyConfig(ArchitectureConfig):
    """Sizes of the toy."""

    kind: str = "toy"
    cutoff_A: float = Field(default=4.5, gt=0, description="distance at which pairs end, A")
    gaussians: int = Field(default=8, ge=2, description="Gaussians of the distance")

    @property
    def reach_A(self) -> float:
        """The cutoff."""
        return self.cutoff_A


class TwoHeads(nn.Module):
    """``network(positions, numbers, graph)`` -> named outputs."""

    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.cutoff_A = config.cutoff_A
        centres = torch.linspace(2.0, config.cutoff_A, config.gaussians)
        self.register_buffer("centres", centres)
        self.energy = nn.Parameter(torch.zeros(config.gaussians))
        self.force = nn.Parameter(torch.zeros(config.gaussians))

    def forward(self, positions: Tensor, numbers: Tensor, graph: Any) -> dict[str, Tensor]:
        """Energy of each frame (f,) and a force on every atom (m, 3)."""
        d = positions[graph.second] + graph.shifts_A - positions[graph.first]
        r = d.norm(dim=-1, keepdim=True)
        width = self.cutoff_A / len(self.centres)
        smooth = (1 - (r / self.cutoff_A) ** 2).clamp(min=0) ** 3
        basis = torch.exp(-(((r - self.centres) / width) ** 2)) * smooth
        pair_energy = basis @ self.energy
        frames = graph.frame[graph.first]
        energy = positions.new_zeros(graph.n_frames).index_add(0, frames, pair_energy)
        pair_force = (basis @ self.force)[:, None] * d / r
        forces = torch.zeros_like(positions)
        forces = forces.index_add(0, graph.second, pair_force)
        forces = forces.index_add(0, graph.first, -pair_force)
        return {ENERGY: energy, DIRECT: forces}


class ToyArchitecture(Architecture):
    """The row of the registry."""

    name = "toy"
    config = ToyConfig

    def build(self, config: Any, elements: list[int]) -> nn.Module:
        """An untrained network."""
        return TwoHeads(config)

    def weights(self, config: Any) -> dict[str, float]:
        """Both heads are trained."""
        return {DIRECT: 1.0, ENERGY: 0.01}


ARCHITECTURE = ToyArchitecture()
