"""Temperatures and pair distributions of samples whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analysis_runs import jittered, maxwell, water_box
from dmts_ipi.analysis.kinetic import TO_KELVIN, KineticSampler, stretch_frequency_squared
from dmts_ipi.analysis.rdf import PairHistogram, block_stderr, cell_heights, find_pair
from dmts_ipi.core.statistics import langevin_floor_K
from dmts_ipi.core.units import AMU_A2_PER_FS2_IN_EV
from dmts_ipi.ipi.thermostats import thermostat_mid_drift


def sampler_of(atoms, fixcom: bool = False) -> KineticSampler:
    cell = atoms.cell.array, atoms.pbc
    return KineticSampler(
        atoms.numbers, atoms.get_masses(), atoms.positions, *cell, 1.0, 300.0, fixcom
    )


def test_maxwell_velocities_have_their_temperature_everywhere() -> None:
    atoms, rng = water_box(), np.random.default_rng(3)
    sampler = sampler_of(atoms)
    for x, v in jittered(atoms, 300, 310.0, rng):
        sampler.add(x, atoms.cell.array, v)
    found = {"atoms": sampler.atoms().mean()}
    elements, (bond,) = sampler.by_element(), sampler.bond_kinds()
    assert found["atoms"] == pytest.approx(310, abs=3 * 310 * math.sqrt(2 / (81 * 3 * 300)))
    for e in (*elements.values(), bond.temperature):
        assert abs(e.mean - 310) < 3 * e.stderr
    assert (bond.name, bond.bonds, bond.broken) == ("O-H", 54, 0)


def test_held_centre_of_mass_counts_fewer_degrees_of_freedom() -> None:
    atoms, rng = water_box(2), np.random.default_rng(4)
    held = sampler_of(atoms, fixcom=True)
    m = atoms.get_masses()
    for _ in range(2000):
        v = maxwell(m, 300.0, rng)
        held.add(atoms.positions, atoms.cell.array, v - (m @ v) / m.sum())
    assert held.degrees_of_freedom == 69
    assert held.atoms().mean() == pytest.approx(300, rel=0.01)
    for e in held.by_element().values():
        assert abs(e.mean - 300) < 3.5 * e.stderr


def test_bond_temperature_sees_only_the_motion_along_the_bond() -> None:
    atoms = water_box(2)
    sampler = sampler_of(atoms)
    m, v = atoms.get_masses(), np.zeros((len(atoms), 3))
    along = atoms.positions[1] - atoms.positions[0]
    v[1] = 0.01 * along / np.linalg.norm(along)
    across = np.cross(atoms.positions[5] - atoms.positions[3], [0.3, 0.5, 0.7])
    v[5] = 0.02 * across / np.linalg.norm(across)
    sampler.add(atoms.positions, atoms.cell.array, v)
    # Another image of an atom is the same bond.
    sampler.add(atoms.positions + np.eye(3)[0] * atoms.cell[0, 0] * 3, atoms.cell.array, v)
    mu = 1 / (1 / m[0] + 1 / m[1])
    (bond,) = sampler.bond_kinds()
    assert bond.temperature.mean == pytest.approx(mu * 0.01**2 * TO_KELVIN / 16, rel=1e-9)


def verlet(w: float, dt: float, n: int, rng: np.random.Generator) -> tuple[float, float]:
    """<v^2> and <x^2> of velocity Verlet oscillators, averaged over phases."""
    x, v = rng.normal(size=500) / w, rng.normal(size=500)
    v2 = x2 = 0.0
    for _ in range(n):
        v -= 0.5 * dt * w * w * x
        x += dt * v
        v -= 0.5 * dt * w * w * x
        v2 += float(np.mean(v * v)) / n
        x2 += float(np.mean(x * x)) / n
    return v2, x2


def test_stretch_frequency_from_fluctuations_of_a_verlet_trajectory() -> None:
    w = 2 * math.pi / 16.6  # O-H stretch with HMR
    v2, x2 = verlet(w, 1.0, 2000, np.random.default_rng(0))
    found = stretch_frequency_squared(v2 / x2, 1.0)
    assert math.sqrt(found) == pytest.approx(w, rel=1e-3)
    assert 300 * (1 - found / 4) == pytest.approx(289.3, abs=0.2)  # at 1 fs


def langevin_bias(n_inner: int, rng: np.random.Generator) -> float:
    """Kinetic temperature over T of oscillators under stock i-PI's baoab with nmts n_inner."""
    w, dt, gamma = 2 * math.pi / 16.6, 1.0, 0.02
    x, v = rng.normal(size=1000) / w, rng.normal(size=1000)
    c = math.exp(-gamma * dt * n_inner)
    total, count = 0.0, 0
    for step in range(1200):
        for k in range(2 * n_inner):  # halves of inner steps: kick, half drift | half drift, kick
            if k % 2 == 0:
                v -= 0.5 * dt * w * w * x
                x += 0.5 * dt * v
            else:
                x += 0.5 * dt * v
                v -= 0.5 * dt * w * w * x
            if k == n_inner - 1:
                v = c * v + math.sqrt(1 - c * c) * rng.normal(size=1000)
        if step >= 100:
            total, count = total + float(np.mean(v * v)), count + 1
    return total / count


def test_langevin_floor_is_the_error_of_harmonic_runs() -> None:
    """Three hundred runs of thirty oscillators: the scatter of their mean temperatures."""
    rng, runs, d, gamma, steps = np.random.default_rng(8), 300, 30, 0.02, 2000
    w = rng.uniform(0.15, 0.4, d)
    x, v = rng.normal(size=(runs, d)) / w, rng.normal(size=(runs, d))
    c, s, mean = math.exp(-gamma), math.sqrt(1 - math.exp(-2 * gamma)), np.zeros(runs)
    for _ in range(steps):
        v -= 0.5 * w * w * x
        x += 0.5 * v
        v = c * v + s * rng.normal(size=v.shape)
        x += 0.5 * v
        v -= 0.5 * w * w * x
        mean += (v * v).mean(axis=1) / steps
    floor = langevin_floor_K(1.0, d, gamma * 1000, steps / 1000)
    assert float(mean.std()) == pytest.approx(floor, rel=0.15)


@pytest.mark.parametrize("n_inner", [1, 5, 6])
def test_place_of_the_thermostat_decides_the_kinetic_bias(n_inner: int) -> None:
    b = (2 * math.pi / 16.6) ** 2 / 4
    biased = thermostat_mid_drift("baoab", [1, n_inner])
    measured = langevin_bias(n_inner, np.random.default_rng(n_inner))
    assert measured == pytest.approx(1 - b if biased else 1.0, abs=0.01)


def test_expected_temperatures_share_the_bias_among_atoms() -> None:
    atoms, rng = water_box(2), np.random.default_rng(5)
    sampler = sampler_of(atoms)
    for x, v in jittered(atoms, 50, 300.0, rng):
        sampler.add(x, atoms.cell.array, v)
    kinds = sampler.bond_kinds()
    expected = sampler.expected(kinds, True)
    loss = 300 - expected["O-H"]
    assert loss == pytest.approx(300 * kinds[0].bias_fraction)
    assert 300 - expected["atoms"] == pytest.approx(loss * 2 / 9)
    assert expected["H"] < expected["atoms"] < expected["O"]
    assert set(sampler.expected(kinds, False).values()) == {300.0}


def test_forces_tell_the_bias_of_every_mode() -> None:
    """BAOAB of atoms tied to their places, stiffer for hydrogen: no bond vibrates in it."""
    atoms, rng = water_box(4), np.random.default_rng(12)
    sampler, n = sampler_of(atoms), len(atoms)
    w = np.where(atoms.numbers == 1, 0.4, 0.1)[:, None]
    m = atoms.get_masses()[:, None]
    root = np.sqrt(300.0 / TO_KELVIN / m)
    x, v = root / w * rng.normal(size=(n, 3)), root * rng.normal(size=(n, 3))
    c, s = math.exp(-0.2), math.sqrt(1 - math.exp(-0.4))
    for step in range(6000):
        v -= 0.5 * w * w * x
        x += 0.5 * v
        v = c * v + s * root * rng.normal(size=v.shape)
        x += 0.5 * v
        v -= 0.5 * w * w * x
        if step >= 100 and step % 5 == 0:
            sampler.add(atoms.positions + x, atoms.cell.array, v)
        if step >= 100 and step % 40 == 0:
            force = -m * w * w * x * AMU_A2_PER_FS2_IN_EV
            sampler.add_forces(atoms.positions + x, atoms.cell.array, force)
    kinds = sampler.bond_kinds()
    assert sampler.forces_count
    expected = sampler.expected(kinds, True)
    b = {"O": 0.05**2, "H": 0.2**2}
    for name, e in sampler.by_element().items():
        assert expected[name] == pytest.approx(300 * (1 - b[name]), abs=0.5)
        assert abs(e.mean - expected[name]) < 3 * e.stderr
        assert e.stderr < 2
    assert expected["atoms"] == pytest.approx((expected["O"] + 2 * expected["H"]) / 3)
    # along a bond O and H vibrate by themselves: with 1/m each of its reduced mass
    mu = 1 / (1 / m[0, 0] + 1 / m[1, 0])
    along = mu * (b["O"] / m[0, 0] + b["H"] / m[1, 0])
    assert expected["O-H"] == pytest.approx(300 * (1 - along), abs=0.7)
    assert set(sampler.expected(kinds, False).values()) == {300.0}


def test_few_forces_are_not_relied_on() -> None:
    atoms, rng = water_box(2), np.random.default_rng(5)
    sampler = sampler_of(atoms)
    for x, v in jittered(atoms, 50, 300.0, rng):
        sampler.add(x, atoms.cell.array, v)
    before = sampler.expected(sampler.bond_kinds(), True)
    for _ in range(3):
        sampler.add_forces(atoms.positions, atoms.cell.array, rng.normal(size=(len(atoms), 3)))
    assert not sampler.forces_count
    assert sampler.expected(sampler.bond_kinds(), True) == before


def test_broken_bond_is_left_out_and_counted() -> None:
    atoms = water_box(2)
    sampler = sampler_of(atoms)
    far = atoms.positions.copy()
    far[1] += 0.7 * (far[1] - far[0])
    sampler.add(far, atoms.cell.array, np.zeros((len(atoms), 3)))
    (bond,) = sampler.bond_kinds()
    assert (bond.bonds, bond.broken) == (15, 1)


def test_ideal_gas_has_g_of_one() -> None:
    rng = np.random.default_rng(11)
    n, cell = 200, np.diag([12.0, 13.0, 14.0])
    numbers = np.repeat([2, 10], [120, 80])
    grid = np.stack(np.meshgrid(*[np.arange(6)] * 3, indexing="ij"), -1).reshape(-1, 3)[:n] * 2.2
    pairs = PairHistogram(numbers, grid, cell, np.ones(3, bool), range_A=6.0, bin_A=0.5)
    for _ in range(60):
        pairs.add(rng.random((n, 3)) @ cell, cell)
    results = pairs.results()
    assert [d.pair for d in results] == ["Ne-Ne", "Ne-He", "He-He"]
    for d in results:
        beyond = d.r_A > 1.0
        z = (d.g[beyond] - 1) / d.stderr[beyond]
        assert abs(d.g[beyond] - 1).max() < 0.1
        assert np.sqrt((z**2).mean()) < 2


def brute_force(numbers, x, cell, a, b, edges) -> np.ndarray:
    """g_ab by images in plain loops, once per unordered pair."""
    counts = np.zeros(len(edges) - 1)
    shifts = np.stack(np.meshgrid(*[np.arange(-3, 4)] * 3, indexing="ij"), -1).reshape(-1, 3) @ cell
    for i in range(len(x)):
        for j in range(i + 1, len(x)):
            if {numbers[i], numbers[j]} == {a, b}:
                d = np.linalg.norm(x[j] - x[i] + shifts, axis=1)
                counts += np.histogram(d, edges)[0]
    na, nb = (numbers == a).sum(), (numbers == b).sum()
    number = na * (na - 1) / 2 if a == b else na * nb
    shell = 4 / 3 * math.pi * np.diff(edges**3)
    return counts / number * abs(np.linalg.det(cell)) / shell


def test_triclinic_cell_against_brute_force() -> None:
    rng = np.random.default_rng(12)
    cell = np.array([[7.0, 0.3, 0.0], [2.5, 6.5, 0.4], [-1.5, 2.0, 7.5]])
    numbers = np.array([8] * 12 + [1] * 9)
    start = rng.random((21, 3)) @ cell
    pairs = PairHistogram(numbers, start, cell, np.ones(3, bool), bin_A=0.25)
    assert pairs.range_A <= cell_heights(cell).min() / 2
    frames = [rng.random((21, 3)) @ cell + rng.integers(0, 2, (21, 3)) @ cell for _ in range(3)]
    for x in frames:
        pairs.add(x, cell)
    edges = np.arange(pairs.bins + 1) * 0.25
    for d in pairs.results():
        a, b = ({"O": 8, "H": 1}[s] for s in d.pair.split("-"))
        expected = np.mean([brute_force(numbers, x, cell, a, b, edges) for x in frames], axis=0)
        np.testing.assert_allclose(d.g, expected, rtol=1e-5)
        assert np.isnan(d.stderr).all()  # three frames make no error bar


def test_first_peak_between_molecules() -> None:
    atoms, rng = water_box(), np.random.default_rng(13)
    pairs = PairHistogram(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)
    for x, _ in jittered(atoms, 60, 300.0, rng):
        pairs.add(x, atoms.cell.array)
    d = find_pair(pairs.results(), "O-O")
    assert d is not None
    assert d.peak is not None
    assert d.peak.position_A == pytest.approx(3.2, abs=0.05)
    assert d.peak.height == pytest.approx(d.g.max(), rel=0.08)
    assert 0 < d.peak.stderr < 0.05 * d.peak.height
    oh = find_pair(pairs.results(), "O-H")
    assert oh is not None
    assert oh.g[19] > 0  # 0.97 A: within the molecule
    assert oh.outside[19] == 0


def test_molecule_in_vacuum_gives_a_density_of_distances() -> None:
    atoms = water_box(1)
    pairs = PairHistogram(atoms.numbers, atoms.positions, np.zeros((3, 3)), np.zeros(3, bool))
    for x, _ in jittered(atoms, 20, 300.0, np.random.default_rng(1)):
        pairs.add(x, np.zeros((3, 3)))
    for d in pairs.results():
        assert not d.periodic
        assert d.peak is None
        assert (d.g * 0.05).sum() == pytest.approx(1)


def test_block_errors_match_independent_frames() -> None:
    frames = np.random.default_rng(2).normal(size=(400, 300))
    assert block_stderr(frames, 400).mean() == pytest.approx(1 / 20, rel=0.1)
    assert np.isnan(block_stderr(frames[:6], 6)).all()
    assert np.isnan(block_stderr(frames, math.nan)).all()
