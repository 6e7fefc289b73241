"""Lennard-Jones argon as LAMMPS's ``lj/cut`` computes it: sharp cutoff, no shift."""

from __future__ import annotations

import numpy as np
from ase.calculators.calculator import Calculator, all_changes

from dmts_ipi.core.neighbours import neighbour_pairs


class LennardJones(Calculator):
    """Energies in eV, lengths in A; the defaults are those of ``ipi_inputs/teacher.lmp``."""

    implemented_properties = ("energy", "forces", "stress")

    def __init__(
        self, epsilon_eV: float = 0.0103, sigma_A: float = 3.40, cutoff_A: float = 6.0
    ) -> None:
        super().__init__()
        self.epsilon, self.sigma, self.cutoff = epsilon_eV, sigma_A, cutoff_A

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        x, h = self.atoms.positions, self.atoms.cell.array
        i, j, s = neighbour_pairs(x, h, self.atoms.pbc, self.cutoff, full=False)
        d = x[j] - x[i] + s @ h
        r2 = (d**2).sum(1)
        q = (self.sigma**2 / r2) ** 3
        g = (24 * self.epsilon * (2 * q * q - q) / r2)[:, None] * d
        f = np.zeros_like(x)
        np.add.at(f, j, g)
        np.add.at(f, i, -g)
        energy = float((4 * self.epsilon * (q * q - q)).sum())
        stress = -(d.T @ g) / self.atoms.get_volume()
        self.results = {
            "energy": energy,
            "forces": f,
            "stress": stress.ravel()[[0, 4, 8, 5, 2, 1]],
        }
