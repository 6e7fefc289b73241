"""Sizes of the density student: what its model file stores beside the weights."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dmts_ipi.students.contract import ArchitectureConfig


class StudentArchitecture(ArchitectureConfig):
    """Sizes of the student. Stored in its model file.

    Distances in Angstrom. A width of 0 switches a part off.
    """

    kind: Literal["density"] = "density"
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

    energy: bool = Field(default=False, description="energy readout, forces by autograd")

    channels: int = Field(
        default=0,
        ge=0,
        description="channels in which each atom mixes the densities of its neighbours' elements, "
        "of a student that knows more elements than this; 0: one block for each element",
    )

    base: Literal["none", "short", "gaussians"] = Field(
        default="gaussians",
        description="pair force fitted by least squares before training. none; short: on the "
        "Gaussians of bonds alone; gaussians: on all radial functions",
    )

    @property
    def radial(self) -> int:
        """Number of radial functions."""
        return self.bessel + self.gaussians

    def mixed(self, n_elements: int) -> int:
        """Channels that a student of so many elements has; 0: a block for each element."""
        return self.channels if self.channels < n_elements else 0

    def blocks(self, n_elements: int) -> int:
        """Blocks of ``radial`` densities that an atom's network reads."""
        return self.mixed(n_elements) or n_elements

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

    @property
    def conservative(self) -> bool:
        """Whether forces are the gradient of an energy."""
        return self.energy


# The defaults of the fields are those of files written before a field existed.
NEW_STUDENT = StudentArchitecture(
    bessel=8,
    gaussians=5,
    gaussian_width_A=0.3,
    normalise=True,
    head_scale=0.02,
    channels=3,
    base="short",
)
