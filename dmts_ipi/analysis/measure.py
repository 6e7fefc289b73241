"""All observables of one run, in one pass over its trajectory."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.statistics import (
    DistributionTest,
    Estimate,
    compare_temperature,
    langevin_floor_K,
    mean_stderr,
    not_below,
    slope_stderr,
)
from dmts_ipi.core.units import KB_EV_PER_K

from .kinetic import BondKind, KineticSampler
from .rdf import PairDistribution, PairHistogram
from .source import RunInput

SKIP_FRACTION = 0.2
MAX_RDF_FRAMES = 400
Progress = Callable[[str, int, int], None]


@dataclass
class Measured:
    """What was measured of one run. Energies are per atom, in meV, about ``potential_zero_eV``.

    ``kinetic``: temperature in K of ``atoms``, of each element, of each kind of X-H bond;
    ``expected`` the same names with their theoretical values (BAOAB's bias included);
    ``floor_K``: the error that none of them is below (``statistics.langevin_floor_K``; 0: none).
    ``drift_meV_per_atom_ps``: slope of the conserved quantity. ``notes``: what the reader must
    know (frames missing, no velocities).
    """

    run: RunInput
    skip_ps: float
    time_ps: np.ndarray
    temperature_K: np.ndarray
    potential_meV: np.ndarray
    conserved_meV: np.ndarray
    degrees_of_freedom: int
    temperature_test: DistributionTest
    kinetic: dict[str, Estimate]
    expected: dict[str, float]
    floor_K: float
    bond_kinds: list[BondKind]
    kinetic_bias: bool
    potential: Estimate
    potential_std: float
    drift_meV_per_atom_ps: Estimate
    distributions: list[PairDistribution]
    frames_used: int
    npt: dict[str, Estimate] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def kept_ps(self) -> float:
        """Time that entered the averages, ps."""
        return float(self.time_ps[-1] - self.skip_ps)

    @property
    def used(self) -> np.ndarray:
        """Mask (n,) of the samples after equilibration."""
        return self.time_ps >= self.skip_ps - 1e-9


def automatic_skip_ps(run: RunInput) -> float:
    """The first fifth of the run, or its ``equilibration_ps`` where that is longer; ps."""
    end = float(run.properties["time_ps"][-1])
    asked = float(run.settings.get("equilibration_ps") or 0.0)
    return max(SKIP_FRACTION * end, asked if asked < end else 0.0)


def measure(
    run: RunInput, skip_ps: float | None = None, progress: Progress | None = None
) -> Measured:
    """Measures one run.

    Args:
        run: see ``source.read_run``.
        skip_ps: equilibration to leave out, ps; None: ``automatic_skip_ps``.
        progress: called with (name, frames done, frames expected).

    Raises:
        InputError: ``skip_ps`` leaves nothing, or the output holds NaN.
    """
    p = run.properties
    time = np.asarray(p["time_ps"], float)
    skip = automatic_skip_ps(run) if skip_ps is None else skip_ps
    if not 0 <= skip < time[-1] or (time >= skip).sum() < 1:
        raise InputError(
            "--skip-ps",
            f"{skip:g}",
            f"must lie between 0 and {time[-1]:g} ps, the end of {run.name}",
        )
    for key in ("temperature_K", "potential_eV", "conserved_eV"):
        if not np.isfinite(p[key]).all():
            step = int(p["step"][np.argmin(np.isfinite(p[key]))])
            raise InputError(
                "folder", run.path, f"{key} is not finite from step {step} on; the run failed there"
            )
    n = len(run.numbers)
    kinetics = KineticSampler(
        run.numbers, run.masses_amu, run.positions, run.cell, run.pbc, run.fixcom
    )
    pairs = PairHistogram(run.numbers, run.positions, run.cell, run.pbc)
    notes = _read_frames(run, skip, kinetics, pairs, progress)
    dof = kinetics.degrees_of_freedom
    kept = time >= skip - 1e-9
    temperature = np.asarray(p["temperature_K"], float)
    if "kinetic_eV" in p:
        temperature = 2 * np.asarray(p["kinetic_eV"], float) / (dof * KB_EV_PER_K)
    potential, conserved = (np.asarray(p[k], float) for k in ("potential_eV", "conserved_eV"))
    bias = run.thermostat_mid_drift
    kinds = kinetics.bond_kinds(run.inner_fs)
    kinetic = {"atoms": mean_stderr(temperature[kept])}
    kinetic.update(kinetics.by_element() if kinetics.frames else {})
    kinetic.update({k.name: k.temperature for k in kinds})
    floor = 0.0
    if run.langevin_per_ps is not None and time[-1] > skip:
        floor = langevin_floor_K(run.temperature_K, dof, run.langevin_per_ps, time[-1] - skip)
    kinetic = {name: not_below(e, floor) for name, e in kinetic.items()}
    expected = kinetics.expected(run.temperature_K, kinds, bias)
    for kind in kinds:
        if kind.broken:
            notes.append(f"{kind.broken} {kind.name} bonds broke and are left out")
    per_atom = 1000.0 / n
    return Measured(
        run=run,
        skip_ps=skip,
        time_ps=time,
        temperature_K=temperature,
        potential_meV=potential * per_atom,
        conserved_meV=(conserved - conserved[kept][0]) * per_atom,
        degrees_of_freedom=dof,
        temperature_test=compare_temperature(temperature[kept], expected["atoms"], dof),
        kinetic=kinetic,
        expected=expected,
        floor_K=floor,
        bond_kinds=kinds,
        kinetic_bias=bias,
        potential=not_below(mean_stderr(potential[kept] * per_atom), 1500.0 * KB_EV_PER_K * floor),
        potential_std=float(np.std(potential[kept] * per_atom)) if kept.sum() > 1 else math.nan,
        drift_meV_per_atom_ps=slope_stderr(time[kept], conserved[kept] * per_atom),
        distributions=pairs.results(),
        frames_used=max(pairs.frames, kinetics.frames),
        npt={
            key: mean_stderr(np.asarray(p[key], float)[kept])
            for key in ("pressure_bar", "volume_A3", "density_g_cm3")
            if key in p and run.ensemble == "npt"
        },
        notes=notes,
    )


def _read_frames(
    run: RunInput,
    skip_ps: float,
    kinetics: KineticSampler,
    pairs: PairHistogram,
    progress: Progress | None,
) -> list[str]:
    """Feeds the frames after equilibration; returns notes."""
    step, time = run.properties["step"], run.properties["time_ps"]
    ps_per_step = run.outer_fs / 1000.0
    if len(step) > 1 and step[-1] > step[0]:
        ps_per_step = float(time[-1] - time[0]) / float(step[-1] - step[0])
    start = float(time[0]) - float(step[0]) * ps_per_step
    end_step = int(step[-1])
    notes: list[str] = []
    first: int | None = None
    last = -1
    stride = thin = 0
    kept = 0
    without_velocities = False
    for at, positions, cell, velocities in run.frames():
        if not stride and first is not None:
            stride = max(1, at - first)
        first = at if first is None else first
        last = at
        if progress is not None:
            progress(run.name, at, end_step)
        if start + at * ps_per_step < skip_ps - 1e-9:
            continue
        if not thin and stride:
            thin = max(1, math.ceil((end_step - at) / stride / MAX_RDF_FRAMES))
        if not np.isfinite(positions).all():
            raise InputError(
                "folder", run.path, f"positions are not finite at step {at}; the run failed there"
            )
        if kept % max(1, thin) == 0:
            pairs.add(positions, cell)
        if velocities is None:
            without_velocities = True
        else:
            kinetics.add(positions, cell, velocities)
        kept += 1
    if without_velocities or not kinetics.frames:
        notes.append("no velocities in the trajectory: no temperature by element or bond")
    if kept == 0:
        notes.append("no frame after equilibration: no structure")
    elif stride and end_step - last >= 2 * stride:
        notes.append(
            f"the trajectory ends at step {last}, the properties at {end_step}: "
            "its whole part is used"
        )
    return notes
