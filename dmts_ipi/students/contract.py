"""The interface of a student architecture, with defaults for everything that is optional.

Outputs of a network, by name. A network returns those that it has:

===========================  ==========  =====  ==================================================
name                         shape       unit   trained on
===========================  ==========  =====  ==================================================
``forces``                   (m, 3)      eV/A   the labels' forces
``non_conservative_forces``  (m, 3)      eV/A   the labels' forces, beside an energy
``energy``                   (f,)        eV     the labels' energies without those of the atoms
``virial``                   (f, 3, 3)   eV     the labels' virials
===========================  ==========  =====  ==================================================

m: atoms of all frames of a batch; f: frames, or 1 where the network gives one sum for the whole
batch, which is compared with the sum of the labels. ``forces`` drive a run, or
``non_conservative_forces`` where there are none.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from dmts_ipi.core.config import StrictModel
from dmts_ipi.core.frames import Frame

if TYPE_CHECKING:
    from dmts_ipi.core.model import ForceModel

FORCES, DIRECT, ENERGY, VIRIAL = "forces", "non_conservative_forces", "energy", "virial"
OUTPUTS = (FORCES, DIRECT, ENERGY, VIRIAL)
LABEL_OF = {FORCES: FORCES, DIRECT: FORCES, ENERGY: ENERGY, VIRIAL: VIRIAL}


class ArchitectureConfig(StrictModel):
    """Hyperparameters of a network, which its model file stores beside the weights.

    Subclasses give ``kind`` the architecture's name as default, and each field a description:
    they are its manual.
    """

    kind: str

    @property
    def reach_A(self) -> float:
        """The largest distance, in Angstrom, at which an atom acts on another."""
        raise NotImplementedError

    @property
    def conservative(self) -> bool:
        """Whether the forces that drive a run are the gradient of an energy."""
        return False


@dataclass
class Batch:
    """Frames joined for one evaluation, m atoms in all.

    Attributes:
        positions: (m, 3), Angstrom.
        numbers: (m,) atomic numbers.
        graph: neighbours, as the architecture's network reads them.
        n_frames: how many frames were joined.
        targets: labels by ``LABEL_OF``'s names: ``forces`` (m, 3); ``energy`` (frames,) and
            ``virial`` (frames, 3, 3), NaN for frames without.
        weight: (m,), 0 for rows that are no atom but fill the batch up; None: all are atoms.
    """

    positions: Tensor
    numbers: Tensor
    graph: Any
    n_frames: int
    targets: dict[str, Tensor]
    weight: Tensor | None = field(default=None, kw_only=True)

    @property
    def forces(self) -> Tensor:
        """The labels' forces, (m, 3)."""
        return self.targets[FORCES]


class FrameSet(ABC):
    """Frames and their neighbours, from which batches are made.

    Attributes:
        mixes: whether a batch may join frames of different groups.
    """

    mixes: bool = False
    frames: list[Frame]
    elements: list[int]
    # Of each element, eV; taken from the labels' energies. None: energies are not trained on.
    atom_energies_eV: list[float] | None = None

    def __len__(self) -> int:
        return len(self.frames)

    def groups(self) -> list[list[int]]:
        """Frame numbers that may share a batch in any case; by default those of one composition."""
        groups: dict[bytes, list[int]] = {}
        for k, frame in enumerate(self.frames):
            groups.setdefault(np.sort(frame.numbers).tobytes(), []).append(k)
        return list(groups.values())

    def needs(self, index: Sequence[int]) -> np.ndarray:
        """What frames need of the room of a batch: (frames, kinds of things), atoms first."""
        return np.array([[len(self.frames[k].numbers)] for k in index])

    def set_room(self, index: Sequence[int], room: np.ndarray) -> None:  # noqa: B027
        """Makes room, (kinds of things,) as of ``needs``, for batches of these frames.

        ``padded_batch`` fills all of them up to it: for a training step that is compiled.
        """

    def padded_batch(
        self, index: Sequence[int], dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Batch:
        """``batch``, filled up to the shape of ``set_room`` where there is one."""
        return self.batch(index, dtype, device)

    @abstractmethod
    def batch(
        self, index: Sequence[int], dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Batch:
        """Joins frames of one group; of any group where ``mixes``."""

    @abstractmethod
    def atom_rows(self, index: Sequence[int]) -> list[np.ndarray]:
        """Rows (n,) of a batch at which each of its frames has its atoms, in the frame's order."""

    def frame_targets(
        self, index: Sequence[int], dtype: torch.dtype, device: str
    ) -> dict[str, Tensor]:
        """``energy`` and ``virial`` of some frames, for ``Batch.targets``."""
        nan = float("nan")
        energies, virials = [], []
        for k in index:
            f = self.frames[k]
            energies.append(nan if f.energy_eV is None else f.energy_eV - self._of_atoms(f))
            virials.append(np.full((3, 3), nan) if f.virial_eV is None else f.virial_eV)
        return {
            ENERGY: torch.as_tensor(np.array(energies), dtype=dtype, device=device),
            VIRIAL: torch.as_tensor(np.array(virials), dtype=dtype, device=device),
        }

    def _of_atoms(self, frame: Frame) -> float:
        if self.atom_energies_eV is None:
            return 0.0
        table = dict(zip(self.elements, self.atom_energies_eV, strict=True))
        return float(sum(table[int(z)] for z in frame.numbers))


@dataclass(frozen=True)
class Prepared:
    """What an architecture fitted before the first training step.

    Attributes:
        text: for the first line of the training; empty: nothing.
        figures: for the record of the model, with units in their names.
    """

    text: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)


class Architecture(ABC):
    """One architecture of students. Everything has a default but ``config`` and ``build``.

    Attributes:
        name: in the registry, and ``kind`` of its sizes.
        config: class of its sizes.
    """

    name: str
    config: type[ArchitectureConfig]

    @property
    def new(self) -> ArchitectureConfig:
        """Default hyperparameters of a student."""
        return self.config()  # type: ignore[call-arg]

    @abstractmethod
    def build(self, config: Any, elements: list[int]) -> nn.Module:
        """An untrained network for some elements (atomic numbers, ascending)."""

    def frames(self, frames: Sequence[Frame], config: Any, elements: list[int]) -> FrameSet:
        """Frames with their neighbours; by default pairs closer than ``config.reach_A``."""
        from .pairs import PairFrames

        return PairFrames(frames, elements, config.reach_A)

    def prepare(self, network: nn.Module, frames: FrameSet, seed: int) -> Prepared:
        """Fits to the training frames the parameters that are not trained, such as scales."""
        return Prepared()

    def adapt(self, network: nn.Module, frames: FrameSet) -> Prepared:
        """What a trained network takes from new frames before it is trained further on them."""
        return Prepared()

    def outputs(self, network: nn.Module, batch: Any) -> dict[str, Tensor]:
        """Outputs of the network by name; differentiable by the weights where gradients are on."""
        outputs: dict[str, Tensor] = network(batch.positions, batch.numbers, batch.graph)
        return outputs

    def weights(self, config: Any) -> dict[str, float]:
        """Default loss weights of the trained outputs."""
        return {FORCES: 1.0}

    def hidden_matrices(self, network: nn.Module) -> set[str]:
        """Names of the parameters that Muon updates; AdamW takes the others."""
        return set()

    def trains_compiled(self, config: Any) -> bool:
        """Whether the training step may be compiled by ``torch.compile``."""
        return False

    def finish(self, network: nn.Module, frames: FrameSet) -> None:  # noqa: B027
        """What is fitted to the frames once more before a checkpoint is written."""

    def record(self, network: nn.Module) -> dict[str, Any]:
        """Fields of ``model.json`` beside those that every student has."""
        return {}

    def restore(self, network: nn.Module, record: Mapping[str, Any]) -> None:  # noqa: B027
        """Restores the fields of ``record``.

        Raises:
            ValueError: one is missing or wrong; the text says which.
        """

    def force_model(
        self,
        network: nn.Module,
        config: Any,
        name: str,
        record: Mapping[str, Any],
        *,
        device: str,
        dtype: str | None,
        compile: bool,
    ) -> ForceModel:
        """A trained network as a force model; override this to use kernels of your own."""
        from .network_model import NetworkModel

        return NetworkModel(self, network, config, name, record, device, dtype)


def driving_forces(outputs: Mapping[str, Tensor]) -> Tensor:
    """The forces that drive a run."""
    return outputs[FORCES] if FORCES in outputs else outputs[DIRECT]
