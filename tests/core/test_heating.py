"""The predicted heating against runs whose heating is measured, and the split of velocities."""

import numpy as np
import pytest
from ase.build import bulk
from ase.data import atomic_masses

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.heating import predicted_heating
from dmts_ipi.core.molecules import LARGEST_MOLECULE
from dmts_ipi.core.motions import MOTIONS, split_velocities
from dmts_ipi.core.units import AMU_A2_PER_FS2_IN_EV, KB_EV_PER_K

TEMPERATURE_K = 300.0


class Oscillators:
    """N independent anharmonic bonds of a hydrogen; dF is a weak force of short wavelength."""

    def __init__(self, n, wavelength_A, size_eV_per_A, seed):
        self.n, self.rng = n, np.random.default_rng(seed)
        self.mass = 4.0 * AMU_A2_PER_FS2_IN_EV  # eV fs^2/A^2
        # spread periods: lines broader than the window resolves, as in a liquid
        period_fs = self.rng.uniform(12.0, 22.0, size=(n, 1))
        self.k = self.mass * (2 * np.pi / period_fs) ** 2
        self.wave, self.size = 2 * np.pi / wavelength_A, size_eV_per_A

    def student(self, x):
        return -self.k * x

    def error(self, x):
        return self.size * np.sin(self.wave * x + np.arange(self.n)[:, None])

    def start(self):
        kT = KB_EV_PER_K * TEMPERATURE_K
        x = self.rng.normal(size=(self.n, 3)) * np.sqrt(kT / self.k)
        return x, self.rng.normal(size=(self.n, 3)) * np.sqrt(kT / self.mass)

    def energy(self, x, v):
        """Energy under the teacher: its error is the gradient of a cosine."""
        e = 0.5 * self.k * x**2 + 0.5 * self.mass * v**2
        e += self.size / self.wave * np.cos(self.wave * x + np.arange(self.n)[:, None])
        return e.sum()

    def run(self, x, v, steps, n_inner, record=None, dt=1.0):
        """NVE velocity Verlet RESPA with an inner step of 1 fs."""
        for step in range(steps):
            if step % n_inner == 0:
                v = v + 0.5 * n_inner * dt * self.error(x) / self.mass
            v = v + 0.5 * dt * self.student(x) / self.mass
            x = x + dt * v
            v = v + 0.5 * dt * self.student(x) / self.mass
            if step % n_inner == n_inner - 1:
                v = v + 0.5 * n_inner * dt * self.error(x) / self.mass
            if record is not None:
                record.append((x.copy(), v.copy()))
        return x, v


@pytest.mark.parametrize("n_inner", [4, 6])
def test_predicts_the_measured_heating_of_a_resonant_error(n_inner):
    system = Oscillators(4000, 0.12, 0.15, seed=11)
    x, v = system.start()
    record = []
    system.run(x, v, 80, 1, record)
    error = np.stack([system.error(x) for x, _ in record])[None]
    predicted = predicted_heating(
        error, np.stack([v for _, v in record])[None], outer_fs=(float(n_inner),)
    )
    kept = []
    for _ in range(3):
        x, v = system.start()
        before = system.energy(x, v)
        x, v = system.run(x, v, 60, n_inner)
        after = system.energy(x, v)
        kept.append((after - before) / (3 * system.n * KB_EV_PER_K) / 0.060)
    measured = np.mean(kept)
    assert measured > 0
    # linear response, accuracy of the linear law: a factor of up to three
    assert 1 / 3 < predicted.K_per_ps[0] / measured < 3


def test_zero_error_and_single_step_do_not_heat():
    v = np.random.default_rng(0).normal(size=(2, 32, 5, 3))
    assert np.all(predicted_heating(np.zeros_like(v), v).K_per_ps == 0)
    assert predicted_heating(v, v, outer_fs=(1.0,)).K_per_ps[0] == 0


def test_scales_with_the_square_of_the_error_and_not_with_replicas():
    rng = np.random.default_rng(1)
    f, v = rng.normal(size=(2, 3, 40, 4, 3))
    one = predicted_heating(f, v).K_per_ps
    np.testing.assert_allclose(predicted_heating(2 * f, v).K_per_ps, 4 * one)
    # two copies of a system: w doubles coherently, the power per atom too
    twice = predicted_heating(np.tile(f, (1, 1, 2, 1)), np.tile(v, (1, 1, 2, 1))).K_per_ps
    np.testing.assert_allclose(twice, 2 * one)


def test_short_bursts_are_refused():
    with pytest.raises(InputError, match="8 frames"):
        predicted_heating(np.zeros((1, 8, 2, 3)), np.zeros((1, 8, 2, 3)))


def water_dimer():
    rng = np.random.default_rng(4)
    one = np.array([[0, 0, 0], [0.76, 0.59, 0], [-0.76, 0.59, 0]], float)
    numbers = np.array([8, 1, 1, 8, 1, 1, 10])  # and a lone atom
    x = np.concatenate([one, one @ np.linalg.qr(rng.normal(size=(3, 3)))[0] + 4, [[8, 0, 0]]])
    return numbers, x, rng


def test_parts_add_up_and_are_orthogonal_under_the_masses():
    numbers, x, rng = water_dimer()
    masses = atomic_masses[numbers]
    v = rng.normal(size=(5, 7, 3))
    xs = x + 0.02 * rng.normal(size=(5, 7, 3))
    parts = split_velocities(v, xs, masses, numbers, np.eye(3) * 30, False)
    np.testing.assert_allclose(sum(parts.values()), v, atol=1e-12)
    for a in MOTIONS:
        for b in MOTIONS:
            if a != b:
                dot = np.einsum("n,tni,tni->t", masses, parts[a], parts[b])
                np.testing.assert_allclose(dot, 0, atol=1e-9)


def test_a_stretch_is_a_stretch_across_the_boundary():
    numbers, x, _ = water_dimer()
    masses = atomic_masses[numbers]
    cell = np.eye(3) * 12.0
    u = x[1] - x[0]
    v = np.zeros((1, 7, 3))
    v[0, 1], v[0, 0] = u * masses[0], -u * masses[1]  # no net momentum
    wrapped = (x + np.array([0.1, 11.7, 0.0])) % 12.0
    parts = split_velocities(v, wrapped[None], masses, numbers, cell, True)
    kinetic = {k: float(np.einsum("n,tni,tni->", masses, p, p)) for k, p in parts.items()}
    assert kinetic["translation"] < 1e-20
    assert kinetic["stretch"] > 0.9 * sum(kinetic.values())


@pytest.mark.parametrize("name", ["NaCl", "Cu", "Si", "MgO"])
def test_motion_in_a_crystal_is_reported_by_element(name: str):
    lattice, edge = {"NaCl": ("rocksalt", 5.64), "MgO": ("rocksalt", 4.21)}.get(name, (None, None))
    crystal = bulk(name, lattice, a=edge, cubic=True) * (2, 2, 2)
    rng = np.random.default_rng(0)
    x = crystal.positions + 0.05 * rng.normal(size=(3, len(crystal), 3))
    v = rng.normal(size=x.shape)
    masses, cell = crystal.get_masses(), crystal.cell.array
    parts = split_velocities(v, x, masses, crystal.numbers, cell, True)
    assert set(parts) == set(crystal.get_chemical_symbols())
    np.testing.assert_array_equal(sum(parts.values()), v)


def test_metal_atoms_do_not_join_the_molecules_around_them():
    numbers, x, rng = water_dimer()
    numbers[-1], x = 11, x - x[0] + [0, 0, 2.0]  # sodium 2 A from the first oxygen
    x[-1] = 0
    v = rng.normal(size=(1, 7, 3))
    with_sodium = split_velocities(v, x[None], atomic_masses[numbers], numbers, np.eye(3), False)
    assert list(with_sodium) == [*MOTIONS, "Na"]
    water = split_velocities(
        v[:, :6], x[None, :6], atomic_masses[numbers[:6]], numbers[:6], np.eye(3), False
    )
    for kind in MOTIONS:
        np.testing.assert_allclose(with_sodium[kind][:, :6], water[kind], atol=1e-12)


def test_a_ring_with_more_bonds_than_can_stretch_apart():
    numbers = np.full(4, 6)  # a flat square of carbon with both diagonals: 6 bonds, 5 stretches
    x = np.array([[0, 0, 0], [1.3, 0, 0], [1.3, 1.3, 0], [0, 1.3, 0]], float)
    v = np.random.default_rng(0).normal(size=(1, 4, 3))
    parts = split_velocities(v, x[None], np.full(4, 12.0), numbers, np.eye(3), False)
    assert np.abs(parts["stretch"]).max() < 5
    np.testing.assert_allclose(parts["bend"][..., :2], 0, atol=1e-9)  # only out of the plane


def test_groups_too_large_for_a_molecule_are_reported_by_element():
    n = LARGEST_MOLECULE + 1
    for size, kinds in ((n - 1, set(MOTIONS)), (n, {"C"})):
        numbers, x = np.full(size, 6), np.arange(size)[:, None] * [1.5, 0, 0]
        v = np.ones((1, size, 3))
        parts = split_velocities(v, x[None], np.full(size, 12.0), numbers, np.eye(3), False)
        assert set(parts) == kinds
