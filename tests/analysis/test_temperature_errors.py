"""Errors of temperatures of few degrees of freedom, on motions whose correlation time is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analysis_runs import water_box
from dmts_ipi.analysis.kinetic import TO_KELVIN, KineticSampler
from dmts_ipi.analysis.relaxation import BLOCK_RELAXATIONS, BlockVariance

T = 300.0
FRAME_PS = 0.02


def velocities(
    masses: np.ndarray, frames: int, rate_per_ps: float, vibrate: bool, rng: np.random.Generator
) -> np.ndarray:
    """(frames, n, 3) A/fs: each coordinate for itself, its energy relaxing at the rate.

    A free particle's velocity is an Ornstein-Uhlenbeck process, of half the rate; a weakly damped
    oscillator's is the real part of a complex one that turns around.
    """
    c = math.exp(-rate_per_ps / 2 * FRAME_PS)
    shape = (len(masses), 3)

    def draw() -> np.ndarray:
        return rng.normal(size=shape) + 1j * rng.normal(size=shape)

    turn = np.exp(1j * rng.uniform(40, 60) * FRAME_PS) if vibrate else 1.0
    z, found = draw(), []
    for _ in range(frames):
        z = (c * z + math.sqrt(1 - c * c) * draw()) * turn
        found.append(z.real)
    return np.array(found) * np.sqrt(T / TO_KELVIN / masses)[:, None]


def sampled(
    molecules: int, time_ps: float, rate_per_ps: float, friction: float, seed: int, vibrate: bool
) -> tuple[KineticSampler, float]:
    """A sampler that has seen a run, and its length."""
    atoms, rng = water_box(molecules), np.random.default_rng(seed)
    frames = round(time_ps / FRAME_PS)
    s = KineticSampler(
        *(atoms.numbers, atoms.get_masses(), atoms.positions, atoms.cell.array, atoms.pbc, 1.0, T)
    )
    s.block_frames = math.ceil(BLOCK_RELAXATIONS / (friction * FRAME_PS))
    v = velocities(atoms.get_masses(), frames, rate_per_ps, vibrate, rng)
    still = np.broadcast_to(atoms.positions, (frames, *atoms.positions.shape))
    s.add(still, np.broadcast_to(atoms.cell.array, (frames, 3, 3)), v)
    return s, frames * FRAME_PS


@pytest.mark.parametrize("vibrate", [False, True])
@pytest.mark.parametrize("time_ps", [4.0, 16.0])
def test_few_degrees_of_freedom_are_within_their_errors(time_ps: float, vibrate: bool) -> None:
    """One water molecule at 1/ps: three degrees of freedom of O, six of H, two of bonds."""
    z: dict[str, list[float]] = {"O": [], "H": [], "O-H": []}
    for seed in range(300):
        rate = 2.0 if not vibrate else 1.0  # the energy of a free particle relaxes at 2 g
        s, time = sampled(1, time_ps, rate, 1.0, seed, vibrate)
        least = s.group_errors(1.0, FRAME_PS, time)
        found = s.by_element() | {k.name: k.temperature for k in s.bond_kinds()}
        for name, e in found.items():
            error = max(least[name], e.stderr) if e.known else least[name]
            z[name].append((e.mean - T) / error)
    for name, values in z.items():
        off = np.abs(values)
        assert 0.6 < np.mean(off < 1) < 0.85, name
        assert 0.93 < np.mean(off < 2) <= 1.0, name
        assert 0.7 < np.std(values) < 1.15, name


def test_series_alone_would_be_too_sure() -> None:
    """What the case few_bonds_error showed: two bonds, 4 ps, error bars of half the scatter."""
    z = []
    for seed in range(300):
        s, _ = sampled(1, 4.0, 1.0, 1.0, seed, True)
        (kind,) = s.bond_kinds()
        if kind.temperature.known:
            z.append((kind.temperature.mean - T) / kind.temperature.stderr)
    assert np.std(z) > 1.3


@pytest.mark.parametrize("rate", [1.0, 6.0])
def test_many_bonds_tell_how_fast_they_relax(rate: float) -> None:
    """27 waters, 8 ps: where energy passes to other modes at once, errors are smaller."""
    errors, values = [], []
    for seed in range(40):
        s, time = sampled(3, 8.0, rate, 1.0, seed, True)
        errors.append(s.group_errors(1.0, FRAME_PS, time)["O-H"])
        values.append(s.bond_kinds()[0].temperature.mean)
    bound = T * math.sqrt(2 / (54 * 1.0 * 8.0))
    error = float(np.mean(errors))
    assert error <= bound * 1.02
    if rate > 1:
        assert error < 0.75 * bound
    # atoms are independent here: without the energy that all share, which group_errors adds
    assert float(np.std(values)) < 1.25 * error


def test_relaxation_rate_from_blocks() -> None:
    rng = np.random.default_rng(1)
    v = velocities(np.ones(200), 400, 3.0, True, rng)
    kelvin = (v[..., 0] ** 2) * TO_KELVIN
    blocks = BlockVariance(np.zeros(200, int), 1)
    for a in range(0, 400, 37):
        blocks.add(kelvin[a : a + 37], 50)
    assert blocks.blocks[0] == 8 * 200
    assert blocks.rate_per_ps(0, 1.0, 50 * FRAME_PS, 0.5) == pytest.approx(3.0, rel=0.25)
    assert blocks.rate_per_ps(0, 1.0, 50 * FRAME_PS, 20.0) == 20.0
    few = BlockVariance(np.zeros(2, int), 1)
    few.add(kelvin[:, :2], 50)
    assert few.rate_per_ps(0, 1.0, 50 * FRAME_PS, 0.5) == 0.5
