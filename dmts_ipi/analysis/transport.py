"""Mean-square displacement and diffusion, streaming, over all time origins.

MSD(t) = <|r(s + t) - r(s)|^2> over molecules' centres of mass and all origins s, minus the motion
of the centre of mass of the whole system: a Langevin thermostat lets that diffuse on its own, with
kT/(M g), as fast as a molecule in a box of 64 waters at 1/ps. Sums over origins are correlations,
done by FFT block by block (Calandrini et al., Ecole thematique SFN 12, 201 (2011), section 2);
nothing is thinned but frames closer than ``CLOSEST_PS``. D is a sixth of the slope (Einstein).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from ase.data import chemical_symbols
from ase.formula import Formula

from dmts_ipi.core.statistics import Estimate
from dmts_ipi.core.units import KB_EV_PER_K

from .fragments import fragments

CLOSEST_PS = 0.02
LONGEST_PS, SHORTEST_PS = 10.0, 2.0  # end of the fit
FIT_FROM = 0.2  # of its end; not before FIT_FROM_PS
FIT_FROM_PS = 1.0
WINDOW_FRACTION = 0.25  # the fit ends at this part of the trajectory at most
BLOCK_FRAMES = 256
MIN_BLOCKS = 8
BATCH_NUMBERS = 2_000_000
RELAXED_A2 = 1.2  # 6 / k^2
DIFFUSIVE = 0.85  # exponent of MSD ~ t^exponent below which a slope is no diffusion coefficient
CAGED = 0.3  # exponent below which displacements that are small stay level
SOLID = 0.05  # exponent below which nothing diffuses
XI = 2.837297  # of a cubic box, Yeh and Hummer, J. Phys. Chem. B 108, 15873 (2004)
JOULE_PER_EV = 1.602176634e-19


@dataclass(frozen=True)
class Diffusion:
    """One kind of molecule.

    ``lag_ps`` (m,), ``msd_A2`` (m,); ``D_A2_per_ps`` from the slope between ``fit_ps``;
    ``exponent`` of MSD ~ t^exponent there: diffusive is 1. ``correction_A2_per_ps`` is what Yeh and
    Hummer add for the periodic images, at a viscosity of 1 mPa s (it goes as its inverse); NaN in
    cells that are not cubic. It is no part of D, and too large where a thermostat damps the flow
    around a molecule, as Langevin's does over sqrt(viscosity / (density friction)), 1 nm for water
    at 1/ps. ``single``: the "molecules" are atoms, free or of a crystal or another network.
    """

    kind: str
    molecules: int
    lag_ps: np.ndarray
    msd_A2: np.ndarray
    fit_ps: tuple[float, float]
    D_A2_per_ps: Estimate
    exponent: float
    correction_A2_per_ps: float
    single: bool = False

    @property
    def caged(self) -> bool:
        """Whether the displacements stay level, as in a crystal: there is nothing to fit."""
        return self.exponent < CAGED and float(self.msd_A2[-1]) < RELAXED_A2

    @property
    def diffusive(self) -> bool:
        """Whether the slope is a diffusion coefficient."""
        return self.exponent >= DIFFUSIVE


def relaxation_ps(kinds: Sequence[Diffusion]) -> float:
    """Time in which the structure of a liquid forgets itself, ps; NaN without displacements.

    That of the most numerous kind until MSD = ``RELAXED_A2``, where a density wave of the first
    peak of the structure factor (2 pi / 2.8 A) has decayed to 1/e in the Gaussian approximation,
    exp(-k^2 MSD / 6). Beyond the longest lag it goes on with the slope of the fit. NaN too where
    nothing diffuses (``SOLID``): a crystal need not.
    """
    if not kinds:
        return math.nan
    d = max(kinds, key=lambda x: x.molecules)
    beyond = np.flatnonzero(d.msd_A2 >= RELAXED_A2)
    if len(beyond):
        return float(d.lag_ps[beyond[0]])
    slope = 6 * d.D_A2_per_ps.mean
    if d.exponent < SOLID or slope <= 0 or (d.single and d.caged):
        return math.nan
    return float(d.lag_ps[-1] + (RELAXED_A2 - d.msd_A2[-1]) / slope)


def finite_size_correction(cell: np.ndarray, temperature_K: float) -> float:
    """xi kT / (6 pi eta L) for eta = 1 mPa s, in A^2/ps; NaN where the cell is not cubic."""
    box = np.asarray(cell, float)
    length = float(box[0, 0])
    if not np.allclose(box, length * np.eye(3), atol=1e-3 * abs(length) + 1e-9) or length <= 0:
        return math.nan
    metres = 1e-10 * length
    d = XI * KB_EV_PER_K * temperature_K * JOULE_PER_EV / (6 * math.pi * 1e-3 * metres)
    return d * 1e8  # m^2/s -> A^2/ps


@dataclass
class Displacements:
    """Collects displacements.

    Args:
        numbers, masses_amu: (n,).
        positions: (n, 3) A of the first structure: defines the molecules.
        cell: (3, 3) A; pbc: (3,).
        frame_ps: time between frames.
        expected: frames that will come; sets the longest lag.
        fixed: mask (n,) of atoms that are held; None: no atom is. Molecules that hold one are left
            out, and the motion of the centre of mass is then part of what is measured.

    Each atom of a crystal, or of another network, counts as a molecule.
    """

    numbers: np.ndarray
    masses_amu: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    frame_ps: float
    expected: int
    fixed: np.ndarray | None = None
    jumps: bool = False
    _buffer: list[np.ndarray] = field(default_factory=list, repr=False)
    _blocks: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self.every = max(1, round(CLOSEST_PS / self.frame_ps)) if self.frame_ps > 0 else 1
        self.lag_ps = self.every * self.frame_ps
        total = self.expected * self.frame_ps
        end = min(LONGEST_PS, WINDOW_FRACTION * total)
        self.lags = int(end / self.lag_ps + 1e-9) if self.lag_ps > 0 else 0
        begin = max(FIT_FROM_PS, FIT_FROM * end)
        self.first = math.ceil(begin / self.lag_ps - 1e-9) if self.lag_ps > 0 else 0
        periodic = bool(np.all(self.pbc))
        self.possible = periodic and end >= SHORTEST_PS and self.lags - self.first >= 3
        parts = fragments(self.numbers, self.positions, self.cell, self.pbc)
        label, fixed = parts.label, self.fixed
        held = np.zeros(len(label), bool) if fixed is None else np.isin(label, label[fixed])
        self._free = not held.any()
        self._order = np.flatnonzero(~held)[np.argsort(label[~held], kind="stable")]
        self._starts = np.flatnonzero(np.diff(label[self._order], prepend=-1))
        self._single = parts.single[self._order][self._starts]
        self.possible = self.possible and len(self._order) > 0
        self._mass = np.asarray(self.masses_amu, float)[self._order]
        self._total = np.add.reduceat(self._mass, self._starts) if len(self._order) else self._mass
        groups = np.split(np.asarray(self.numbers)[self._order], self._starts[1:])
        names = [_formula(g) for g in groups]
        self.kinds = list(dict.fromkeys(names))
        self._kind = np.array([self.kinds.index(n) for n in names])
        self._block = max(BLOCK_FRAMES, self.lags)
        self._sum = np.zeros((len(groups), self.lags + 1))
        self._count = np.zeros(self.lags + 1)
        self._seen = 0
        self._last: np.ndarray | None = None

    def centres(self, positions: np.ndarray) -> np.ndarray:
        """Centres of mass (c, m, 3) A, about that of the system."""
        weighted = positions[:, self._order] * self._mass[:, None]
        sums = np.add.reduceat(weighted, self._starts, axis=1)
        if not self._free:
            return np.asarray(sums / self._total[:, None])
        whole = sums.sum(axis=1, keepdims=True) / self._mass.sum()
        return sums / self._total[:, None] - whole

    def add(self, positions: np.ndarray, follows: bool = True) -> None:
        """Adds consecutive frames (c, n, 3) A, not wrapped into the cell.

        ``follows``: they come right after the ones before; else a new stretch begins.
        """
        if not self.possible or self.jumps:
            return
        if not follows:
            self.flush()
            self._seen, self._last = 0, None
        chosen = positions[(-self._seen) % self.every :: self.every]
        self._seen += len(positions)
        if not len(chosen):
            return
        x = self.centres(chosen)
        self._look_for_jumps(x)
        self._buffer.append(x)
        while sum(len(b) for b in self._buffer) >= self._block + self.lags:
            joined = np.concatenate(self._buffer)
            self._correlate(joined[: self._block + self.lags], self._block)
            self._buffer = [joined[self._block :]]

    def _look_for_jumps(self, x: np.ndarray) -> None:
        series = x if self._last is None else np.concatenate([self._last[None], x])
        self._last = x[-1]
        limit = 0.4 * float(np.linalg.norm(self.cell, axis=1).min())
        self.jumps = bool(len(series) > 1 and np.abs(np.diff(series, axis=0)).max() > limit)

    def flush(self) -> None:
        """Uses the frames that are left as origins too; call it once at the end."""
        if self._buffer:
            joined = np.concatenate(self._buffer)
            self._buffer = []
            self._correlate(joined, len(joined))

    def _correlate(self, x: np.ndarray, origins: int) -> None:
        """Adds |x(s + t) - x(s)|^2 for s < origins and every lag t that ``x`` (f, m, 3) holds."""
        from scipy.fft import irfft, next_fast_len, rfft

        frames, m, _ = x.shape
        lags = min(self.lags, frames - 1)
        count = np.minimum(origins, frames - np.arange(lags + 1)).astype(float)
        size = next_fast_len(frames + lags, real=True)
        sums = np.zeros((m, lags + 1))
        x = x - x[0]
        batch = max(1, BATCH_NUMBERS // (3 * size))
        for a in range(0, m, batch):
            part = x[:, a : a + batch]
            square = np.concatenate(
                [np.zeros((1, part.shape[1])), np.cumsum((part**2).sum(-1), axis=0)]
            )  # (f + 1, m)
            t = np.arange(lags + 1)
            ends = np.minimum(origins, frames - t)
            late = square[t + ends] - square[t]
            early = square[ends]
            left = rfft(part[:origins], size, axis=0)
            right = rfft(part, size, axis=0) if origins < frames else left
            cross = irfft((left.conj() * right).sum(-1), size, axis=0)[: lags + 1]
            sums[a : a + batch] = (late + early - 2 * cross).T
        self._sum[:, : lags + 1] += sums
        self._count[: lags + 1] += count
        if origins == self._block and lags == self.lags:
            by_kind = np.zeros((len(self.kinds), lags + 1))
            np.add.at(by_kind, self._kind, sums)
            self._blocks.append((by_kind, count))

    def results(self, temperature_K: float) -> list[Diffusion]:
        """One per kind of molecule; empty where the trajectory is too short, or not continuous."""
        if not self.possible or self.jumps or self._count[self.lags] < 1:
            return []
        results = []
        for k, kind in enumerate(self.kinds):
            of = self._kind == k
            msd = self._sum[of].sum(axis=0) / (self._count * of.sum())
            lag = np.arange(self.lags + 1) * self.lag_ps
            fit = slice(self.first, self.lags + 1)
            slope = _slope(lag[fit], msd[fit])
            exponent = _slope(np.log(lag[fit]), np.log(np.maximum(msd[fit], 1e-300)))
            each = _slope(lag[fit], (self._sum[of] / self._count)[:, fit].T) / 6
            results.append(
                Diffusion(
                    kind,
                    int(of.sum()),
                    lag,
                    msd,
                    (float(lag[self.first]), float(lag[-1])),
                    self._estimate(float(slope) / 6, np.atleast_1d(each), k, lag[fit], fit),
                    float(exponent),
                    finite_size_correction(self.cell, temperature_K),
                    bool(self._single[of].all()),
                )
            )
        return results

    def _estimate(
        self, D: float, each: np.ndarray, kind: int, lag: np.ndarray, fit: slice
    ) -> Estimate:
        """Standard error: from molecules, or from blocks in time if that is larger."""
        n = len(each)
        error = float(each.std(ddof=1) / math.sqrt(n)) if n >= 4 else math.nan
        if len(self._blocks) >= MIN_BLOCKS:
            slopes = [
                _slope(lag, (sums[kind] / count)[fit]) / (6 * n) for sums, count in self._blocks
            ]
            blocks = float(np.std(slopes, ddof=1) / math.sqrt(len(slopes)))
            error = blocks if math.isnan(error) else max(error, blocks)
        return Estimate(D, error, math.nan, n)


def _slope(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Least-squares slope of y (m,) or (m, k) against x (m,)."""
    centred = x - x.mean()
    return np.asarray(centred @ y / (centred @ centred))


def _formula(numbers: np.ndarray) -> str:
    return str(Formula.from_list([chemical_symbols[int(z)] for z in numbers]).format("hill"))
