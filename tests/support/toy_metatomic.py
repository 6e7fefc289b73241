"""A pair potential in metatomic's exported format, for tests: e(r) = 0.3 (1 - r^2/16)^3 eV."""

# TorchScript reads these annotations: no postponed evaluation, typing's own names.
from pathlib import Path
from typing import Dict, List, Optional  # noqa: UP035

import torch
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatomic.torch import (
    AtomisticModel,
    ModelCapabilities,
    ModelMetadata,
    ModelOutput,
    NeighborListOptions,
    System,
)


class Pair(torch.nn.Module):
    """Sum of the pair energy within 4 A."""

    def __init__(self) -> None:
        super().__init__()
        self._list = NeighborListOptions(cutoff=4.0, full_list=False, strict=True)

    def requested_neighbor_lists(self) -> List[NeighborListOptions]:  # noqa: UP006
        return [self._list]

    def forward(
        self,
        systems: List[System],  # noqa: UP006
        outputs: Dict[str, ModelOutput],  # noqa: UP006
        selected_atoms: Optional[Labels],  # noqa: UP045
    ) -> Dict[str, TensorMap]:  # noqa: UP006
        energies: List[torch.Tensor] = []  # noqa: UP006
        for system in systems:
            d = system.get_neighbor_list(self._list).values.reshape(-1, 3)
            energies.append((0.3 * (1 - (d * d).sum(dim=1) / 16.0) ** 3).sum())
        one = torch.zeros((1, 1), dtype=torch.int32)
        block = TensorBlock(
            values=torch.stack(energies).reshape(-1, 1),
            samples=Labels(["system"], torch.arange(len(systems)).reshape(-1, 1)),
            components=torch.jit.annotate(List[Labels], []),  # noqa: UP006
            properties=Labels(["energy"], one),
        )
        return {"energy": TensorMap(Labels(["_"], one), [block])}


def export(path: Path) -> None:
    """Writes the exported model."""
    capabilities = ModelCapabilities(
        outputs={"energy": ModelOutput(quantity="energy", unit="eV", per_atom=False)},
        atomic_types=[1, 8],
        interaction_range=4.0,
        length_unit="angstrom",
        supported_devices=["cpu"],
        dtype="float64",
    )
    AtomisticModel(Pair().eval(), ModelMetadata(name="pair"), capabilities).save(str(path))
