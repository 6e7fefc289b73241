"""A small sampler on any force model: BAOAB Langevin dynamics, and a relaxation before it.

Runs of record belong to i-PI; this one only makes configurations and bursts to be labelled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.data import atomic_masses

from dmts_ipi.core.model import ForceModel, ForceResult, compute
from dmts_ipi.core.molecules import bonds, repartition_hydrogen_mass
from dmts_ipi.core.structure import Structure
from dmts_ipi.core.units import AMU_A2_PER_FS2_IN_EV, KB_EV_PER_K


def hmr_masses(frame: Structure, added_amu: float) -> np.ndarray:
    """A structure's own masses, or those of its elements, after hydrogen mass repartitioning.

    Returns:
        (n,) amu.

    Raises:
        InputError: a hydrogen has no heavy neighbour, or a heavy atom would get too light.
    """
    pairs, _ = bonds(*frame.model_input)
    own = frame.masses_amu if frame.masses_amu is not None else atomic_masses[frame.numbers]
    return repartition_hydrogen_mass(own, frame.numbers, pairs, added_amu)


def thermal_velocities(
    masses_amu: np.ndarray,
    temperature_K: float,
    rng: np.random.Generator,
    fixed: np.ndarray | None = None,
) -> np.ndarray:
    """Maxwell-Boltzmann velocities, (n, 3) A/fs: without net momentum, or with atoms at rest.

    Args:
        masses_amu: (n,).
        temperature_K: of the velocities.
        rng: random numbers.
        fixed: indices of atoms that do not move, (k,).
    """
    m = np.asarray(masses_amu, float)[:, None]
    v = rng.normal(size=(len(m), 3)) * np.sqrt(
        KB_EV_PER_K * temperature_K / (m * AMU_A2_PER_FS2_IN_EV)
    )
    if fixed is not None and len(fixed):
        v[fixed] = 0.0
        return v
    return v - (m * v).sum(0) / m.sum() if len(m) > 1 else v


def kinetic_temperature_K(
    velocities: np.ndarray, masses_amu: np.ndarray, n_fixed: int = 0
) -> float:
    """Temperature of the 3 (n - ``n_fixed``) degrees of freedom of the atoms that move, K."""
    twice = (np.asarray(masses_amu)[:, None] * velocities**2).sum() * AMU_A2_PER_FS2_IN_EV
    return float(twice / (max(velocities.size - 3 * n_fixed, 1) * KB_EV_PER_K))


def relax(model: ForceModel, frame: Structure, below_eV_per_A: float, max_steps: int) -> np.ndarray:
    """Walks downhill until no force exceeds a limit; a thermal structure is left as it is.

    Steps follow the force and move no atom by more than 0.05 A; the step length grows while the
    largest force falls and shrinks where it rises. Fixed atoms stay, and their forces do not count.

    Returns:
        Positions (n, 3), the best that were found.
    """
    x = np.array(frame.positions, float)
    best, best_force, gain = x.copy(), np.inf, 0.01
    for _ in range(max_steps + 1):
        f = compute(model, frame.at(x)).forces_eV_per_A
        if len(frame.fixed):
            f = np.array(f)
            f[frame.fixed] = 0.0
        largest = float(np.linalg.norm(f, axis=1).max())
        if largest < best_force:
            best, best_force, gain = x.copy(), largest, gain * 1.1
        else:
            gain *= 0.6
        if largest <= below_eV_per_A:
            break
        norm = np.linalg.norm(f, axis=1, keepdims=True)
        x = x + gain * f * np.minimum(1.0, 0.05 / np.maximum(gain * norm, 1e-12))
    return best


@dataclass
class Langevin:
    """BAOAB (Leimkuhler and Matthews 2013, DOI 10.1063/1.4802990); friction 0: velocity Verlet.

    Positions (n, 3) A, velocities (n, 3) A/fs, masses (n,) amu; ``result`` holds the forces at
    the present positions. Atoms that the structure fixes do not move.
    """

    model: ForceModel
    frame: Structure
    masses_amu: np.ndarray
    velocities: np.ndarray
    rng: np.random.Generator
    step_fs: float

    def __post_init__(self) -> None:
        self.positions = np.array(self.frame.positions, float)
        self._per_mass = 1.0 / (np.asarray(self.masses_amu, float)[:, None] * AMU_A2_PER_FS2_IN_EV)
        if len(self.frame.fixed):  # as if they were infinitely heavy
            self._per_mass[self.frame.fixed] = 0.0
            self.velocities = np.array(self.velocities)
            self.velocities[self.frame.fixed] = 0.0
        self.result = self._forces()

    def _forces(self) -> ForceResult:
        return compute(self.model, self.frame.at(self.positions))

    def step(self, temperature_K: float, friction_per_ps: float) -> None:
        """One step.

        Raises:
            ModelFault: the model failed; positions are those at which it did.
        """
        h = 0.5 * self.step_fs
        self.velocities = self.velocities + h * self.result.forces_eV_per_A * self._per_mass
        self.positions = self.positions + h * self.velocities
        if friction_per_ps > 0:
            c = np.exp(-friction_per_ps * 1e-3 * self.step_fs)
            width = np.sqrt((1 - c * c) * KB_EV_PER_K * temperature_K * self._per_mass)
            noise = self.rng.normal(size=self.velocities.shape)
            self.velocities = c * self.velocities + width * noise
        self.positions = self.positions + h * self.velocities
        self.result = self._forces()
        self.velocities = self.velocities + h * self.result.forces_eV_per_A * self._per_mass

    @property
    def temperature_K(self) -> float:
        """Kinetic temperature now."""
        return kinetic_temperature_K(self.velocities, self.masses_amu, len(self.frame.fixed))
