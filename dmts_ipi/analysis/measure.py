"""All observables of one run, in one pass over its trajectory."""

from __future__ import annotations

import math
from concurrent.futures import Future, ThreadPoolExecutor
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
    std_stderr,
)
from dmts_ipi.core.units import KB_EV_PER_K

from .configurational import Configurational
from .kinetic import BondKind, KineticSampler
from .rdf import PairDistribution, PairHistogram
from .run_data import RunInput
from .spectrum import ForeignPeak, SpectrumSampler, VelocitySpectrum
from .stream import Chunk, FrameStream, Progress
from .transport import SHORTEST_PS, WINDOW_FRACTION, Diffusion, Displacements, relaxation_ps
from .watchdog_log import Differences, Event, read_differences, read_events

SKIP_FRACTION = 0.2
COARSEST_FRAMES_FS = 10.0  # for spectra, where there is no X-H bond whose period decides
MAX_RDF_FRAMES = 1000  # g(r) is correlated over half a picosecond; 1000 are enough for 1 %


@dataclass
class Measured:
    """What was measured of one run. Energies are per atom, in meV, about ``potential_zero_eV``.

    ``kinetic``: temperature in K of ``atoms``, of each element, of each kind of X-H bond;
    ``expected`` the same names with their theoretical values (BAOAB's bias included), where
    ``expected_by_forces`` of all modes, else of bonds only (``kinetic``);
    ``floor_K``: the error that none of them is below (``statistics.langevin_floor_K``; 0: none).
    ``potential_width``: standard deviation of the potential energy.
    ``drift_meV_per_atom_ps``: slope of the conserved quantity. ``notes``: what the reader must
    know (frames missing, no velocities). ``relaxation_ps``: of the structure (infinite: not known
    yet; NaN: nothing relaxes). ``foreign_peaks``: of the spectra, against the reference (filled in
    by ``compare``). ``differences`` and ``events``: the watchdog's, where there was one.
    ``configurational``: where it was asked for (``configurational`` has the function).
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
    expected_by_forces: bool
    floor_K: float
    bond_kinds: list[BondKind]
    kinetic_bias: bool
    potential: Estimate
    potential_width: Estimate
    drift_meV_per_atom_ps: Estimate
    distributions: list[PairDistribution]
    frames_used: int
    diffusion: list[Diffusion] = field(default_factory=list)
    relaxation_ps: float = math.nan
    spectra: list[VelocitySpectrum] = field(default_factory=list)
    foreign_peaks: list[ForeignPeak] = field(default_factory=list)
    npt: dict[str, Estimate] = field(default_factory=dict)
    density_g_cm3: np.ndarray | None = None
    differences: Differences | None = None
    events: list[Event] = field(default_factory=list)
    configurational: Configurational | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def kept_ps(self) -> float:
        """Time that entered the averages, ps."""
        return float(self.time_ps[-1] - self.skip_ps)

    @property
    def has_energy(self) -> bool:
        """Whether the teacher gives an energy; a constant one is none."""
        return bool(np.ptp(self.potential_meV) > 0) or len(self.potential_meV) < 2

    @property
    def heating_K(self) -> Estimate:
        """Excess temperature at which the thermostat takes out what the integrator puts in, K.

        The conserved quantity counts the thermostat's heat, so its slope is the integrator's power.
        Langevin friction g removes 2 g (K - K0): a power that would heat 3N kB by P K/ps settles at
        P / g. Known long before the mean temperature is. NaN without an energy or with another
        thermostat.
        """
        slope, friction = self.drift_meV_per_atom_ps, self.run.langevin_per_ps
        if friction is None or not self.has_energy:
            return Estimate(math.nan, math.nan, math.nan, 0)
        factor = 1 / (3000 * KB_EV_PER_K * friction)
        return Estimate(slope.mean * factor, slope.stderr * factor, slope.inefficiency, slope.n)

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
        *(run.numbers, run.masses_amu, run.positions, run.cell, run.pbc),
        *(run.inner_fs, run.temperature_K, run.fixcom),
    )
    pairs = PairHistogram(run.numbers, run.positions, run.cell, run.pbc)
    stream = FrameStream(run, skip, progress)
    motion = _read_frames(stream, kinetics, pairs)
    dof = kinetics.degrees_of_freedom
    kept = time >= skip - 1e-9
    temperature = np.asarray(p["temperature_K"], float)
    if "kinetic_eV" in p:
        temperature = 2 * np.asarray(p["kinetic_eV"], float) / (dof * KB_EV_PER_K)
    potential, conserved = (np.asarray(p[k], float) for k in ("potential_eV", "conserved_eV"))
    bias = run.thermostat_mid_drift
    kinds = kinetics.bond_kinds()
    kinetic = {"atoms": mean_stderr(temperature[kept])}
    kinetic.update(kinetics.by_element() if kinetics.frames else {})
    kinetic.update({k.name: k.temperature for k in kinds})
    floor = 0.0
    if run.langevin_per_ps is not None and time[-1] > skip:
        floor = langevin_floor_K(run.temperature_K, dof, run.langevin_per_ps, time[-1] - skip)
    kinetic = {name: not_below(e, floor) for name, e in kinetic.items()}
    expected = kinetics.expected(kinds, bias)
    spectra, spectrum_notes = motion.spectra(kinds)
    diffusion, diffusion_notes = motion.diffusion(run)
    notes = stream.notes() + spectrum_notes + diffusion_notes
    if run.unfollowed:
        edited = ", ".join(run.unfollowed)
        notes.append(f"input.xml was edited after the run had begun: {edited} is not followed")
    for kind in kinds:
        if kind.broken:
            notes.append(f"{kind.broken} {kind.name} bonds broke and are left out")
    if len(time) > 1 and not np.ptp(potential) > 0:
        notes.append("the teacher gives no energy: no potential energy, no conserved quantity")
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
        expected_by_forces=kinetics.forces_count,
        floor_K=floor,
        bond_kinds=kinds,
        kinetic_bias=bias,
        potential=not_below(mean_stderr(potential[kept] * per_atom), 1500.0 * KB_EV_PER_K * floor),
        drift_meV_per_atom_ps=slope_stderr(time[kept], conserved[kept] * per_atom),
        distributions=pairs.results(),
        frames_used=stream.frames,
        potential_width=std_stderr(potential[kept] * per_atom),
        diffusion=diffusion,
        relaxation_ps=motion.relaxation_ps(diffusion),
        spectra=spectra,
        npt={
            key: mean_stderr(np.asarray(p[key], float)[kept])
            for key in ("pressure_bar", "volume_A3", "density_g_cm3")
            if key in p and run.ensemble == "npt"
        },
        density_g_cm3=p.get("density_g_cm3") if run.ensemble == "npt" else None,
        differences=read_differences(run.path, run.summary),
        events=read_events(run.path),
        notes=notes,
    )


@dataclass
class _Motion:
    """What needs evenly spaced frames; both None before the first of them."""

    displacements: Displacements | None = None
    sampler: SpectrumSampler | None = None

    def diffusion(self, run: RunInput) -> tuple[list[Diffusion], list[str]]:
        d = self.displacements
        if d is None or not np.all(run.pbc):
            return [], []
        d.flush()
        if d.jumps:
            return [], ["positions jump from frame to frame (wrapped into the cell?): no diffusion"]
        if not d.possible:
            need = SHORTEST_PS / WINDOW_FRACTION
            return [], [f"no diffusion coefficient: that takes frames over at least {need:g} ps"]
        found = d.results(run.temperature_K)
        slow = [x for x in found if not x.diffusive]
        return found, [
            f"{x.kind} is not diffusive yet (MSD ~ t^{x.exponent:.2f}): D is too large or too small"
            for x in slow
        ]

    def relaxation_ps(self, found: list[Diffusion]) -> float:
        """See ``transport.relaxation_ps``; infinite where the frames are too few to know."""
        d = self.displacements
        if d is not None and np.all(d.pbc) and not d.possible:
            return math.inf
        return relaxation_ps(found)

    def spectra(self, kinds: list[BondKind]) -> tuple[list[VelocitySpectrum], list[str]]:
        s = self.sampler
        if s is None:
            return [], []
        frame_fs = 1000 * s.frame_ps
        period = min((k.period_fs for k in kinds), default=math.nan)
        limit = period / 2 if math.isfinite(period) else COARSEST_FRAMES_FS
        if frame_fs > limit:
            return [], [
                f"velocities every {frame_fs:.3g} fs are too far apart for spectra, which need "
                f"{limit:.2g} fs or less: 'dmts-ipi init --frames-every-fs F'"
            ]
        found = s.results()
        return found, [] if found else ["too few frames for spectra"]


class _Forces:
    """The teacher's forces by step, which are asked for in rising order."""

    def __init__(self, run: RunInput) -> None:
        self._run, self._left = run, run.forces()
        self._next = next(self._left, None)

    def at(self, step: int) -> np.ndarray | None:
        """Those of a step, (n, 3) eV/A; None where there are none.

        Raises:
            InputError: they are not finite.
        """
        while self._next is not None and self._next[0] < step:
            self._next = next(self._left, None)
        if self._next is None or self._next[0] != step:
            return None
        found = self._next[1]
        if not np.isfinite(found).all():
            text = f"forces are not finite at step {step}; the run failed there"
            raise InputError("folder", self._run.path, text)
        return found


def _read_frames(stream: FrameStream, kinetics: KineticSampler, pairs: PairHistogram) -> _Motion:
    """Feeds the frames after equilibration; pair distances are counted on a second thread."""
    motion = _Motion()
    forces = _Forces(stream.run)
    thin, count = 1, 0
    with ThreadPoolExecutor(max_workers=1) as pool:
        counted: Future[None] | None = None
        for chunk in stream.chunks():
            if not count:
                thin = stream.thinning(MAX_RDF_FRAMES)
            if motion.displacements is None and stream.stride:
                motion = _motion_of(stream)
            chosen = range((-count) % thin, len(chunk), thin)
            if counted is not None:
                counted.result()  # one chunk is waiting at most
            counted = pool.submit(_count_pairs, pairs, chunk, chosen)
            count += len(chunk)
            if motion.displacements is not None:
                motion.displacements.add(chunk.positions, chunk.follows)
            for k, step in enumerate(chunk.steps):
                if (found := forces.at(int(step))) is not None:
                    kinetics.add_forces(chunk.positions[k], chunk.cells[k], found)
            if chunk.velocities is not None:
                kinetics.add(chunk.positions, chunk.cells, chunk.velocities)
                if motion.sampler is not None:
                    motion.sampler.add(chunk.velocities, chunk.follows)
        if counted is not None:
            counted.result()
    if not kinetics.frames:
        motion.sampler = None
    return motion


def _count_pairs(pairs: PairHistogram, chunk: Chunk, chosen: range) -> None:
    for k in chosen:
        pairs.add(chunk.positions[k], chunk.cells[k])


def _motion_of(stream: FrameStream) -> _Motion:
    run = stream.run
    return _Motion(
        Displacements(
            run.numbers,
            run.masses_amu,
            run.positions,
            run.cell,
            run.pbc,
            stream.frame_ps,
            stream.expected,
        ),
        SpectrumSampler(run.numbers, run.masses_amu, stream.frame_ps, stream.expected),
    )
