"""A student architecture from outside with two outputs: an energy, and forces of its own.

``docs/extending/student_architecture.md`` shows this file as its worked example.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from dmts_ipi.students.contract import DIRECT, ENERGY, Architecture, ArchitectureConfig
from dmts_ipi.students.pairs import PairGraph


class TwoHeadsConfig(ArchitectureConfig):
    """Sizes of the network. The descriptions are the manual of the architecture."""

    kind: Literal["two_heads"] = "two_heads"
    cutoff_A: float = Field(default=4.0, gt=0.5, description="reach of the pair functions")
    hidden: int = Field(default=32, ge=1, description="width of the pair network")

    @property
    def reach_A(self) -> float:
        return self.cutoff_A


class TwoHeads(nn.Module):
    """A network of one pair of atoms, with a head for its energy and one for its force."""

    def __init__(self, config: TwoHeadsConfig, elements: list[int]) -> None:
        super().__init__()
        self.cutoff_A, self.elements = config.cutoff_A, elements
        count = len(elements)
        self.of_pair = nn.Embedding(count * count, config.hidden)
        self.of_distance = nn.Linear(16, config.hidden)
        self.hidden = nn.Linear(config.hidden, config.hidden)
        self.energy = nn.Linear(config.hidden, 1)
        self.force = nn.Linear(config.hidden, 1)
        self.register_buffer("centres", torch.linspace(0.7, config.cutoff_A, 16))

    def forward(self, positions: Tensor, numbers: Tensor, graph: PairGraph) -> dict[str, Tensor]:
        i, j = graph.first, graph.second
        known = torch.tensor(self.elements, device=numbers.device)
        kind = torch.searchsorted(known, numbers)
        low, high = torch.minimum(kind[i], kind[j]), torch.maximum(kind[i], kind[j])
        d = positions[j] + graph.shifts_A - positions[i]
        r = d.norm(dim=-1)
        basis = torch.exp(-(((r.unsqueeze(-1) - self.centres) / 0.25) ** 2))
        x = self.of_distance(basis) * (1.0 + self.of_pair(low * len(self.elements) + high))
        x = torch.tanh(self.hidden(torch.tanh(x)))
        fade = (1.0 - (r / self.cutoff_A) ** 2).clamp(min=0.0) ** 3
        pair_energy = self.energy(x).squeeze(-1) * fade
        f = d / r.unsqueeze(-1) * self.force(x) * fade.unsqueeze(-1)  # on i; its opposite on j
        energy = positions.new_zeros(graph.n_frames).index_add(0, graph.frame[i], pair_energy)
        forces = torch.zeros_like(positions).index_add(0, i, f).index_add(0, j, -f)
        return {ENERGY: energy, DIRECT: forces}


class TwoHeadsArchitecture(Architecture):
    """The row of the registry."""

    name, config = "two_heads", TwoHeadsConfig

    def build(self, config: TwoHeadsConfig, elements: list[int]) -> TwoHeads:
        return TwoHeads(config, elements)

    def weights(self, config: TwoHeadsConfig) -> dict[str, float]:
        return {DIRECT: 1.0, ENERGY: 1.0}

    def hidden_matrices(self, network: nn.Module) -> set[str]:
        return {"hidden.weight"}


ARCHITECTURE = TwoHeadsArchitecture()
