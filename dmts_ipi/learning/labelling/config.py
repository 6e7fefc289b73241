"""Options of ``dmts-ipi label``: one strict model for YAML files and the command line."""

from __future__ import annotations

from pydantic import Field, model_validator

from dmts_ipi.core.config import StrictModel


class LabelConfig(StrictModel):
    """What to sample and how. The descriptions are the manual of the command line."""

    teacher: str = Field(description="model that labels (see 'dmts-ipi models --help')")
    structures: list[str] = Field(
        [],
        description="structure files to sample from: the last frame of FILE, or the frames of "
        "FILE@INDEX or FILE@::10",
    )
    frames: list[str] = Field([], description="files whose frames are labelled as they are")
    sampler: str | None = Field(
        None, description="cheaper model that drives the sampling; the teacher only labels"
    )
    temperatures_K: list[float] = Field(
        [300.0, 350.0], description="temperatures of the sampling, one run at each, K"
    )
    cell_scales: list[float] = Field(
        [],
        description="linear factors by which the cell is scaled, in addition to 1; molecules are "
        "not deformed",
    )
    time_ps: float = Field(1.0, ge=0, description="length of each run, ps; 0: only bursts")
    equilibrate_ps: float = Field(0.2, ge=0, description="equilibration before the first frame, ps")
    every_fs: float = Field(20.0, gt=0, description="time between frames, fs")
    step_fs: float = Field(1.0, gt=0, le=5, description="time step of the sampler, fs")
    hmr_amu: float = Field(3.0, ge=0, description="mass added to each hydrogen, amu")
    friction_per_ps: float = Field(10.0, gt=0, description="friction of the sampler, 1/ps")
    rattle_A: float = Field(0.02, ge=0, description="standard deviation of random displacements, A")
    rattle_every: int = Field(
        4, ge=0, description="displace the atoms in a copy of every N-th frame; 0: none"
    )
    stretch_low: float = Field(
        0.88, gt=0.5, description="smallest factor by which an X-H bond is scaled"
    )
    stretch_high: float = Field(
        1.2, lt=2.0, description="largest factor by which an X-H bond is scaled"
    )
    stretch_fraction: float = Field(
        0.2, gt=0, le=1, description="fraction of the X-H bonds that are scaled"
    )
    stretch_every: int = Field(
        4, ge=0, description="scale X-H bonds in a copy of every N-th frame; 0: none"
    )
    share_longest_A: float = Field(
        2.6, gt=2.3, description="longest X...Y distance at which a proton is moved between them, A"
    )
    share_fraction: float = Field(
        0.1, gt=0, le=1, description="fraction of the X-H...Y whose proton is moved"
    )
    share_every: int = Field(
        0,
        ge=0,
        description="move protons between X and Y in a copy of every N-th frame; 0: none",
    )
    bursts: int = Field(
        0,
        ge=0,
        description="number of bursts (consecutive frames with velocities) per structure",
    )
    burst_frames: int = Field(60, ge=16, description="frames per burst")
    burst_step_fs: float = Field(
        1.0,
        gt=0,
        le=10,
        description="time step of bursts, and time between their frames, fs; it must resolve the "
        "fastest vibration",
    )
    burst_gap_fs: float = Field(200.0, ge=0, description="time between bursts, fs")
    burst_temperature_K: float = Field(300.0, gt=0, description="temperature of bursts, K")
    force_limit_eV_per_A: float = Field(
        20.0, gt=0, description="a frame with a larger force is dropped, eV/A"
    )
    shortest_A: float = Field(
        0.5, ge=0.3, description="a frame with atoms closer than this is dropped, A"
    )
    temperature_band: float = Field(
        0.4,
        gt=0,
        description="a run stops when its temperature, averaged over 50 fs, deviates from the "
        "target by more than this fraction",
    )
    seed: int = Field(1, ge=0, description="seed; results repeat exactly on the same machine")
    device: str = Field("auto", description="auto (the GPU if torch sees one), cpu, cuda or cuda:N")
    dtype: str | None = Field(None, description="float32 or float64; default: the model's own")

    @model_validator(mode="after")
    def _something_to_do(self) -> LabelConfig:
        if not self.structures and not self.frames:
            raise ValueError("give structures to sample from (--structure) or frames (--frames)")
        if any(t <= 0 for t in self.temperatures_K) or any(s <= 0 for s in self.cell_scales):
            raise ValueError("temperatures_K and cell_scales must be positive")
        if self.stretch_high <= self.stretch_low:
            raise ValueError("stretch_high must exceed stretch_low")
        return self
