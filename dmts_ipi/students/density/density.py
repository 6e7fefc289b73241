"""The density student behind the seam of architectures: see ``students.contract``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dmts_ipi.core.frames import Frame
from dmts_ipi.students.contract import ENERGY, FORCES, VIRIAL, Architecture, FrameSet, Prepared

from .architecture import NEW_STUDENT, StudentArchitecture
from .batches import DensityBatch, GraphSet
from .energy import EnergyStudent, new_student
from .network import Student
from .prepare import fit_atom_energies, prepare, set_wall

if TYPE_CHECKING:
    from dmts_ipi.core.model import ForceModel

# Output layers and biases stay with AdamW, as Muon's authors advise.
OUTPUT_LAYERS = ("g0", "energy", "out", "out1", "out2", "far", "gates", "near_gates")
# Tables by element are no layers: each row is used for its element alone.
ELEMENT_TABLES = ("mixing", "near_factor", "far_factor", "far_terms")


class Density(Architecture):
    """Antisymmetric pair forces from densities of neighbours, direct or from an energy."""

    name, config = "density", StudentArchitecture

    @property
    def new(self) -> StudentArchitecture:
        """The sizes that ``distill`` trains."""
        return NEW_STUDENT

    def build(self, config: StudentArchitecture, elements: list[int]) -> Student:
        """See ``Architecture.build``."""
        return new_student(config, elements)

    def frames(
        self, frames: Sequence[Frame], config: StudentArchitecture, elements: list[int]
    ) -> GraphSet:
        """Frames as padded neighbour rows."""
        return GraphSet(frames, config, elements)

    def prepare(self, network: nn.Module, frames: FrameSet, seed: int) -> Prepared:
        """Scales of features, the wall, and a pair force by least squares where one is wanted."""
        assert isinstance(network, Student)
        assert isinstance(frames, GraphSet)
        rmse = prepare(network, frames, seed)
        if rmse is None:
            return Prepared()
        text = f"base pair force alone: RMSE {1e3 * rmse:.0f} meV/A"
        return Prepared(text, {"base_rmse_eV_per_A": rmse})

    def adapt(self, network: nn.Module, frames: FrameSet) -> Prepared:
        """Lowers the wall where the new frames come closer; scales and the base stay."""
        assert isinstance(network, Student)
        assert isinstance(frames, GraphSet)
        before = network.inner.clone()
        set_wall(network, (frames.batch([k]) for k in range(len(frames))))
        network.inner.copy_(torch.minimum(before, network.inner))
        return Prepared()

    def outputs(self, network: nn.Module, batch: DensityBatch) -> dict[str, Tensor]:
        """Forces, and the sums over the batch of virial and (of a conservative one) energy."""
        forces, virial, *energy = network(batch.positions, batch.cell, batch.graph, batch.layout)
        found = {FORCES: forces, VIRIAL: virial.unsqueeze(0)}
        if energy:
            found[ENERGY] = energy[0].reshape(1)
        return found

    def hidden_matrices(self, network: nn.Module) -> set[str]:
        """All matrices but those of output layers."""
        return {
            name
            for name, p in network.named_parameters()
            if p.ndim == 2
            and name.split(".")[-2] not in OUTPUT_LAYERS
            and name.split(".")[-1] not in ELEMENT_TABLES
        }

    def trains_compiled(self, config: StudentArchitecture) -> bool:
        """torch.compile does not differentiate twice, which a conservative student needs."""
        return not config.energy

    def finish(self, network: nn.Module, frames: FrameSet) -> None:
        """Forces fix an energy up to those of the atoms: these come from the labels."""
        if isinstance(network, EnergyStudent):
            assert isinstance(frames, GraphSet)
            fit_atom_energies(network, frames)

    def record(self, network: nn.Module) -> dict[str, Any]:
        """The energies of the atoms of a conservative student."""
        if not isinstance(network, EnergyStudent):
            return {}
        return {"atom_energies_eV": network.atom_energies_eV}

    def restore(self, network: nn.Module, record: Mapping[str, Any]) -> None:
        """See ``record``.

        Raises:
            ValueError: there is not one energy for each element.
        """
        if isinstance(network, EnergyStudent):
            given = record.get("atom_energies_eV")
            if not isinstance(given, list) or len(given) != len(network.elements):
                raise ValueError("field 'atom_energies_eV' is wrong")
            network.atom_energies_eV = [float(e) for e in given]

    def force_model(
        self,
        network: nn.Module,
        config: StudentArchitecture,
        name: str,
        record: Mapping[str, Any],
        *,
        device: str,
        dtype: str | None,
        compile: bool,
    ) -> ForceModel:
        """C kernels on a CPU, ``torch.compile`` elsewhere."""
        from .model import StudentModel

        assert isinstance(network, Student)
        return StudentModel(
            network,
            name,
            str(record["weights_sha256"]),
            device=device,
            dtype=dtype,
            compile=compile,
        )


DENSITY = Density()
