"""Diffusion and velocity spectra of motions whose answer is known, in chunks of any size."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.signal import welch

from analysis_runs import water_box
from dmts_ipi.analysis.kinetic import TO_KELVIN
from dmts_ipi.analysis.rdf import PairHistogram, find_pair
from dmts_ipi.analysis.spectrum import (
    SpectrumSampler,
    VelocitySpectrum,
    find_peaks,
    fold,
    foreign_peaks,
    resonance_lines,
    too_fast_peaks,
)
from dmts_ipi.analysis.transport import Displacements, finite_size_correction, relaxation_ps

ARGON = np.full(40, 18)


def walkers(n: int, frames: int, step_A: float, seed: int) -> np.ndarray:
    """(frames, n, 3) A of independent random walks, D = step^2 / 2 per frame."""
    rng = np.random.default_rng(seed)
    start = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), -1).reshape(-1, 3)[:n] * 5.0
    return start + np.cumsum(rng.normal(size=(frames, n, 3)) * step_A, axis=0)


def displacements(x: np.ndarray, frame_ps: float) -> Displacements:
    numbers = ARGON[: x.shape[1]]
    return Displacements(
        numbers, np.full(len(numbers), 40.0), x[0], np.eye(3) * 25.0, np.ones(3, bool), frame_ps,
        len(x),
    )  # fmt: skip


def msd_by_loops(x: np.ndarray, lags: int) -> np.ndarray:
    x = x - x.mean(axis=1, keepdims=True)
    return np.array(
        [0.0] + [float(((x[t:] - x[:-t]) ** 2).sum(-1).mean()) for t in range(1, lags + 1)]
    )


@pytest.mark.parametrize("size", [1, 37, 1200])
def test_msd_in_chunks_equals_all_origins(size: int) -> None:
    x = walkers(20, 1200, 0.05, 1)
    d = displacements(x, 0.05)
    for a in range(0, len(x), size):
        d.add(x[a : a + size])
    d.flush()
    (found,) = d.results(300.0)
    np.testing.assert_allclose(found.msd_A2, msd_by_loops(x, d.lags), rtol=1e-9, atol=1e-9)
    lag, fit = found.lag_ps, slice(d.first, None)
    slope = np.polyfit(lag[fit], found.msd_A2[fit], 1)[0]
    assert found.D_A2_per_ps.mean == pytest.approx(slope / 6, rel=1e-9)


def test_msd_equals_tidynamics() -> None:
    tidynamics = pytest.importorskip("tidynamics", reason="tidynamics is not installed")
    x = walkers(20, 800, 0.05, 2)
    d = displacements(x, 0.05)
    d.add(x)
    d.flush()
    (found,) = d.results(300.0)
    x = x - x.mean(axis=1, keepdims=True)
    other = np.mean([tidynamics.msd(x[:, k]) for k in range(20)], axis=0)
    np.testing.assert_allclose(found.msd_A2, other[: d.lags + 1], rtol=1e-9, atol=1e-9)


def test_diffusion_of_random_walks_and_its_error() -> None:
    """Twelve systems: right within their errors, and the errors are those of the scatter."""
    frame_ps, D = 0.05, 0.2
    z, errors, values = [], [], []
    for seed in range(12):
        x = walkers(40, 2400, math.sqrt(2 * D * frame_ps), seed)
        d = displacements(x, frame_ps)
        d.add(x)
        d.flush()
        (found,) = d.results(300.0)
        e = found.D_A2_per_ps
        # Removing the centre of mass takes one of forty walkers.
        z.append((e.mean - D * 39 / 40) / e.stderr)
        errors.append(e.stderr)
        values.append(e.mean)
        assert found.exponent == pytest.approx(1, abs=0.15)
        assert (found.kind, found.molecules) == ("Ar", 40)
    assert abs(np.mean(z)) < 1.2
    assert 0.5 < np.std(values) / np.mean(errors) < 1.7


def test_molecules_diffuse_as_wholes_and_by_kind() -> None:
    water = water_box(2)
    numbers = np.concatenate([water.numbers, [11, 17]])
    masses = np.concatenate([water.get_masses(), [23.0, 35.4]])
    start = np.concatenate([water.positions, [[20, 20, 20], [26, 26, 26]]])
    d = Displacements(numbers, masses, start, np.eye(3) * 40, np.ones(3, bool), 0.1, 400)
    rng = np.random.default_rng(3)
    walk = np.cumsum(rng.normal(size=(400, 10, 3)), axis=0) * 0.05
    of = np.concatenate([np.repeat(np.arange(8), 3), [8, 9]])
    inner = rng.normal(size=(400, 26, 3)) * 0.02
    d.add(start + walk[:, of] + inner)
    d.flush()
    found = d.results(300.0)
    assert [(f.kind, f.molecules) for f in found] == [("H2O", 8), ("Na", 1), ("Cl", 1)]
    assert math.isnan(found[1].D_A2_per_ps.stderr)  # one molecule, one block
    assert all(f.D_A2_per_ps.mean > 0 for f in found)


def test_wrapped_positions_are_noticed_and_short_ones_refused() -> None:
    x = walkers(10, 600, 0.3, 4)
    d = displacements(x, 0.05)
    d.add(x % 25.0)
    d.flush()
    assert d.jumps
    assert d.results(300.0) == []
    short = displacements(x[:100], 0.05)
    short.add(x[:100])
    short.flush()
    assert not short.possible
    assert short.results(300.0) == []


def test_gap_in_the_frames_begins_a_new_stretch() -> None:
    x = walkers(20, 1200, 0.05, 5)
    d = displacements(x, 0.05)
    d.add(x[:600])
    d.add(x[600:] + 3.0 * np.arange(20)[:, None], follows=False)  # elsewhere: no such step
    d.flush()
    (found,) = d.results(300.0)
    parts = [msd_by_loops(p, d.lags)[1] for p in (x[:600], x[600:])]
    assert found.msd_A2[1] == pytest.approx(np.mean(parts), rel=1e-9)


def test_finite_size_correction_of_a_water_box() -> None:
    """64 waters, 12.4 A: 0.050 A^2/ps at 1 mPa s, by hand from Yeh and Hummer's equation 12."""
    assert finite_size_correction(np.eye(3) * 12.42, 300.0) == pytest.approx(0.0502, abs=2e-4)
    assert math.isnan(finite_size_correction(np.diag([10.0, 10, 12]), 300.0))


def oscillators(frames: int, frame_fs: float, f_THz: dict[int, float], seed: int) -> np.ndarray:
    """Velocities (frames, 20, 3) A/fs at 300 K: 10 O and 10 H, a frequency for each element."""
    rng = np.random.default_rng(seed)
    t = np.arange(frames) * frame_fs / 1000
    v = np.zeros((frames, 20, 3))
    for k, (z, f) in enumerate(f_THz.items()):
        mass = {8: 16.0, 1: 1.0}[z]
        phase = rng.uniform(0, 2 * math.pi, (10, 3))
        size = math.sqrt(2 * 300 / TO_KELVIN / mass)
        v[:, 10 * k : 10 * k + 10] = size * np.cos(2 * math.pi * f * t[:, None, None] + phase)
    return v


def spectra_of(v: np.ndarray, frame_fs: float, size: int = 700) -> list[VelocitySpectrum]:
    numbers = np.repeat([8, 1], 10)
    s = SpectrumSampler(numbers, np.repeat([16.0, 1.0], 10), frame_fs / 1000, len(v))
    for a in range(0, len(v), size):
        s.add(v[a : a + size])
    return s.results()


def test_oscillators_peak_at_their_frequency_and_hold_their_temperature() -> None:
    truth = {8: 21.3, 1: 60.2}
    found = spectra_of(oscillators(16000, 2.0, truth, 1), 2.0)
    for s, f in zip(found, truth.values(), strict=True):
        (peak,) = s.peaks_THz
        assert abs(peak - f) < s.resolution_THz
        assert s.density_K_per_THz.sum() * s.resolution_THz == pytest.approx(300, rel=1e-3)
    assert [s.element for s in found] == ["O", "H"]


def test_spectrum_equals_scipy_and_does_not_depend_on_chunks() -> None:
    v = np.random.default_rng(7).normal(size=(4000, 20, 3))
    (o, h) = spectra_of(v, 2.0, 333)
    (o2, _) = spectra_of(v, 2.0, 4000)
    np.testing.assert_allclose(o.density_K_per_THz, o2.density_K_per_THz, rtol=1e-6)
    n = 2 * (len(h.frequency_THz) - 1)
    f, p = welch(
        v[:, 10:].reshape(4000, -1), fs=500.0, nperseg=n, axis=0, detrend=False, window="hann"
    )
    np.testing.assert_allclose(h.frequency_THz, f, rtol=1e-12)
    np.testing.assert_allclose(h.density_K_per_THz, p.mean(1) * TO_KELVIN, rtol=1e-5)


def test_noise_has_no_peaks_and_errors_that_fit() -> None:
    v = np.random.default_rng(8).normal(size=(20000, 20, 3))
    (o, _) = spectra_of(v, 2.0)
    inside = slice(2, -2)
    flat = o.density_K_per_THz[inside]
    assert o.peaks_THz == ()
    assert np.std(flat) == pytest.approx(np.mean(o.stderr_K_per_THz[inside]), rel=0.35)


def test_foreign_peak_is_found_and_named() -> None:
    truth = {8: 21.3, 1: 40.0}
    reference = spectra_of(oscillators(8000, 2.0, truth, 1), 2.0)
    v = oscillators(8000, 2.0, truth, 2)
    assert foreign_peaks(spectra_of(v, 2.0), reference, 8.0) == []
    t = np.arange(8000) * 0.002
    extra = np.cos(2 * math.pi * 125.0 * t)[:, None, None] * 0.005  # 1 / (8 fs)
    (peak,) = foreign_peaks(spectra_of(v + extra * (np.arange(20) >= 10)[:, None], 2.0),
                            reference, 8.0)  # fmt: skip
    assert peak.element == "H"
    assert peak.frequency_THz == pytest.approx(125, abs=0.5)
    assert peak.meaning == "at 1/outer step"
    assert peak.excess_K == pytest.approx(0.005**2 / 2 * TO_KELVIN, rel=0.1)
    # without a reference: what lies above the fastest bond
    found = spectra_of(v + extra * (np.arange(20) >= 10)[:, None], 2.0)
    (fast,) = too_fast_peaks(found, 40.0, 8.0)
    assert (fast.element, fast.meaning) == ("H", "above every bond, at 1/outer step")
    assert fast.excess_K == pytest.approx(peak.excess_K, rel=0.1)
    assert too_fast_peaks(spectra_of(v, 2.0), 40.0, 8.0) == []


def test_alias_of_a_reference_peak_is_no_foreign_one() -> None:
    """60 THz in velocities that are 10 fs apart shows at 40 THz."""
    truth = {8: 21.3, 1: 60.0}
    fine = spectra_of(oscillators(16000, 2.0, truth, 1), 2.0)
    coarse = spectra_of(oscillators(3200, 10.0, truth, 2), 10.0)
    assert coarse[1].peaks_THz[0] == pytest.approx(40, abs=0.5)
    assert fold(60.0, 10.0) == pytest.approx(40)
    assert foreign_peaks(coarse, fine, 10.0) == []


def test_resonance_lines() -> None:
    found = resonance_lines(8.0, 130.0)
    assert [round(f, 3) for f, _ in found] == [62.5, 125.0]
    assert [name for _, name in found] == ["1/(2 outer steps)", "1/outer step"]
    assert find_peaks(np.arange(50.0), np.ones(50), np.zeros(50)) == ()


def test_rdf_equals_ase() -> None:
    """Against ASE's own implementation, on the same frames."""
    from ase.geometry.rdf import get_rdf

    atoms, rng = water_box(4), np.random.default_rng(9)
    pairs = PairHistogram(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)
    expected = []
    for _ in range(3):
        frame = atoms.copy()
        frame.positions += rng.normal(size=(len(atoms), 3)) * 0.1
        pairs.add(frame.positions, frame.cell.array)
        g, r = get_rdf(frame, pairs.range_A, pairs.bins, elements=(8, 8))
        expected.append(g)
    found = find_pair(pairs.results(), "O-O")
    assert found is not None
    np.testing.assert_allclose(found.r_A, r, rtol=1e-9)
    n = int((atoms.numbers == 8).sum())  # ASE divides by N^2, we by N (N - 1)
    np.testing.assert_allclose(found.g * (n - 1) / n, np.mean(expected, 0), rtol=1e-6)


def test_structure_relaxes_when_molecules_have_moved_by_a_wave_length() -> None:
    frame_ps, D = 0.05, 0.02
    x = walkers(40, 2400, math.sqrt(2 * D * frame_ps), 1)
    d = displacements(x, frame_ps)
    d.add(x)
    d.flush()
    found = d.results(300.0)
    assert relaxation_ps(found) == pytest.approx(1.2 / (6 * D), rel=0.25)  # 10 ps, within the lags
    slow = displacements(x[:600], frame_ps)  # lags up to 7.5 ps: extrapolated
    slow.add(x[:600])
    slow.flush()
    assert relaxation_ps(slow.results(300.0)) == pytest.approx(1.2 / (6 * D), rel=0.4)
    solid = displacements(x, frame_ps)
    solid.add(x[0] + np.random.default_rng(1).normal(size=x.shape) * 0.1)
    solid.flush()
    assert math.isnan(relaxation_ps(solid.results(300.0)))
    assert math.isnan(relaxation_ps([]))
