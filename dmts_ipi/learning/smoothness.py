"""How smooth a teacher is where it is stiff: along X-H bonds.

A rough teacher heats an MTS run whatever the student (docs/heating.md). Three figures tell:
the stiffness along one bond, what a polynomial leaves of the forces over 6 fs, and how fast the
spectrum of the stretch force falls. ANI-1ccx leaves 0.012 eV/A, a MACE network 0.00015.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.model import ForceModel, compute
from dmts_ipi.core.molecules import bonds
from dmts_ipi.core.structure import Structure

from .labelling.sampler import Langevin, hmr_masses, relax, thermal_velocities

SMOOTH_RESIDUAL_EV_PER_A = 0.002  # between MACE (0.00015) and ANI (0.012)


@dataclass(frozen=True)
class BondScan:
    """Stiffness k(r) = -dF/dr along one bond: r in A, k in eV/A^2.

    ``roughness`` is the rms of k minus a polynomial of degree 5 in r; ``largest_jump`` the
    largest change of that remainder within 0.02 A.
    """

    atoms: tuple[int, int]
    r_A: np.ndarray
    stiffness_eV_per_A2: np.ndarray
    roughness_eV_per_A2: float
    largest_jump_eV_per_A2: float


@dataclass(frozen=True)
class Spectrum:
    """Power spectrum of the force along X-H bonds, and its slope beyond the stretch.

    ``slope`` is n of a fit ``f^-n`` from twice the frequency of the stretch upwards.
    """

    frequency_per_fs: np.ndarray
    power: np.ndarray
    slope: float


@dataclass(frozen=True)
class Smoothness:
    """The three figures together."""

    scan: BondScan
    polynomial_residual_eV_per_A: float
    spectrum: Spectrum

    @property
    def smooth(self) -> bool:
        """Whether the polynomial leaves little enough for outer steps of 5 fs and more."""
        return self.polynomial_residual_eV_per_A < SMOOTH_RESIDUAL_EV_PER_A

    def as_dict(self) -> dict[str, object]:
        """For JSON: figures, and the curves as lists."""
        scan, spectrum = asdict(self.scan), asdict(self.spectrum)
        for part in (scan, spectrum):
            for key, value in part.items():
                if isinstance(value, np.ndarray):
                    part[key] = value.tolist()
        return {
            "polynomial_residual_eV_per_A": self.polynomial_residual_eV_per_A,
            "smooth": self.smooth,
            "bond_scan": scan,
            "stretch_force_spectrum": spectrum,
        }


def hydrogen_bonds_of(frame: Structure) -> tuple[np.ndarray, np.ndarray]:
    """X-H bonds, (b, 2) with X first, and their shifts (b, 3).

    Raises:
        InputError: there are none.
    """
    pairs, shifts = bonds(*frame.model_input)
    keep = [k for k, (a, h) in enumerate(pairs) if frame.numbers[h] == 1 != frame.numbers[a]]
    if not keep:
        raise InputError("structure", "no X-H bond", "smoothness is measured along X-H bonds")
    return pairs[keep], shifts[keep]


def bond_scan(
    model: ForceModel,
    frame: Structure,
    bond: int = 0,
    width_A: float = 0.2,
    step_A: float = 0.002,
) -> BondScan:
    """Moves the hydrogen of one X-H bond along it, from -width/2 to +width/2.

    Raises:
        InputError: no X-H bond, or fewer than ``bond + 1``.
    """
    pairs, shifts = hydrogen_bonds_of(frame)
    if bond >= len(pairs):
        raise InputError("bond", bond, f"the structure has {len(pairs)} X-H bonds")
    a, h = (int(k) for k in pairs[bond])
    vector = frame.positions[h] - frame.positions[a] + shifts[bond] @ np.asarray(frame.cell, float)
    length = float(np.linalg.norm(vector))
    u = vector / length
    offsets = np.arange(-width_A / 2, width_A / 2 + step_A / 2, step_A)
    along = np.empty(len(offsets))
    for k, d in enumerate(offsets):
        x = np.array(frame.positions, float)
        x[h] += d * u
        along[k] = compute(model, frame.at(x)).forces_eV_per_A[h] @ u
    stiffness = -(along[1:] - along[:-1]) / step_A
    middle = length + 0.5 * (offsets[1:] + offsets[:-1])
    scaled = (middle - middle.mean()) / width_A
    left = stiffness - np.polynomial.Polynomial.fit(scaled, stiffness, 5)(scaled)
    span = max(1, round(0.02 / step_A))
    jump = max(float(np.ptp(left[k : k + span + 1])) for k in range(len(left) - span))
    return BondScan((a, h), middle, stiffness, float(np.sqrt((left**2).mean())), jump)


def polynomial_residual(
    model: ForceModel,
    frame: Structure,
    velocities: np.ndarray,
    time_fs: float = 6.0,
    points: int = 31,
    degree: int = 5,
) -> float:
    """What a polynomial in time leaves of the forces along x + v t, rms over components, eV/A.

    Args:
        model: the teacher.
        frame: start.
        velocities: (n, 3) A/fs.
        time_fs: length of the path.
        points: evaluations along it.
        degree: of the polynomial.
    """
    t = np.linspace(0.0, time_fs, points)
    forces = np.array(
        [
            compute(model, frame.at(frame.positions + s * velocities)).forces_eV_per_A.ravel()
            for s in t
        ]
    )
    basis = np.polynomial.chebyshev.chebvander(2 * t / time_fs - 1, degree)
    fit = basis @ np.linalg.lstsq(basis, forces, rcond=None)[0]
    return float(np.sqrt(((forces - fit) ** 2).mean()))


def stretch_spectrum(
    forces: np.ndarray,
    positions: np.ndarray,
    pairs: np.ndarray,
    shifts: np.ndarray,
    cell: np.ndarray,
    frame_fs: float,
) -> Spectrum:
    """Spectrum of the force along X-H bonds in a burst, averaged over bonds.

    A Blackman-Harris window: its leakage (-92 dB) lies below what a smooth network shows.

    Args:
        forces: (t, n, 3) eV/A.
        positions: (t, n, 3) A, continuous in time.
        pairs: bonds (b, 2), X first.
        shifts: (b, 3).
        cell: (3, 3) A.
        frame_fs: time between frames.
    """
    from scipy.signal.windows import blackmanharris

    a, h = pairs.T
    bond = positions[:, h] - positions[:, a] + shifts @ np.asarray(cell, float)
    u = bond / np.linalg.norm(bond, axis=-1, keepdims=True)
    s = ((forces[:, h] - forces[:, a]) * u).sum(-1)  # (t, b)
    window = blackmanharris(len(s), sym=False)[:, None]
    transformed = np.fft.rfft((s - s.mean(0)) * window, axis=0)
    power = (np.abs(transformed) ** 2).mean(1) * frame_fs / float((window**2).sum())
    f = np.fft.rfftfreq(len(s), frame_fs)
    lowest = 5  # beyond the window's main lobe around zero
    peak = f[lowest + int(power[lowest:].argmax())]
    tail = (f >= 2.0 * peak) & (f < f[-1])
    slope = -float(np.polyfit(np.log(f[tail]), np.log(power[tail]), 1)[0]) if tail.sum() > 2 else 0
    return Spectrum(f, power, slope)


def measure(
    model: ForceModel,
    frame: Structure,
    temperature_K: float = 300.0,
    hmr_amu: float = 3.0,
    seed: int = 1,
    burst_frames: int = 128,
    frame_fs: float = 1.0,
    report: Callable[[str], None] = lambda line: None,
) -> Smoothness:
    """All three figures; some 400 evaluations of the model.

    Args:
        model: the teacher.
        frame: a structure; a short relaxation and 100 fs of dynamics come first.
        temperature_K: of the dynamics.
        hmr_amu: mass added to hydrogens, as in the runs.
        seed: of velocities and noise.
        burst_frames: frames of the burst.
        frame_fs: time between them.
        report: receives a line before each part.

    Raises:
        InputError: the structure has no X-H bond.
        ModelFault: the model failed.
    """
    pairs, shifts = hydrogen_bonds_of(frame)
    rng = np.random.default_rng(seed)
    report(f"{model.name}: 100 fs at {temperature_K:g} K")
    masses = hmr_masses(frame, hmr_amu)
    start = frame.at(relax(model, frame, 8.0, 200))
    velocities = thermal_velocities(masses, temperature_K, rng, frame.fixed)
    md = Langevin(model, start, masses, velocities, rng, frame_fs)
    for _ in range(round(100 / frame_fs)):
        md.step(temperature_K, 50.0)
    now = frame.at(md.positions.copy())
    report("burst for the spectrum of the stretch force")
    velocities = md.velocities.copy()
    x, f = [], []
    for _ in range(burst_frames):
        md.step(temperature_K, 0.0)
        x.append(md.positions.copy())
        f.append(md.result.forces_eV_per_A)
    spectrum = stretch_spectrum(np.array(f), np.array(x), pairs, shifts, frame.cell, frame_fs)
    report("polynomial over 6 fs, and stiffness along one bond")
    residual = polynomial_residual(model, now, velocities)
    return Smoothness(bond_scan(model, now), residual, spectrum)
