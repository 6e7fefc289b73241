"""Error bars on series whose inefficiency is known, and the law of the kinetic temperature."""

import math

import numpy as np
import pytest
from scipy.stats import gamma, norm

from dmts_ipi.core.statistics import (
    compare_temperature,
    mean_stderr,
    slope_stderr,
    statistical_inefficiency,
    temperature_density,
    temperature_std,
)


def autoregressive(n: int, phi: float, seed: int) -> np.ndarray:
    """AR(1) of unit variance; its inefficiency is (1 + phi) / (1 - phi)."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=n) * math.sqrt(1 - phi**2)
    x = np.empty(n)
    x[0] = rng.normal()
    for k in range(1, n):
        x[k] = phi * x[k - 1] + noise[k]
    return x


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_inefficiency_of_an_autoregressive_series(phi: float) -> None:
    expected = (1 + phi) / (1 - phi)
    found = [statistical_inefficiency(autoregressive(20_000, phi, s)) for s in range(12)]
    assert np.median(found) == pytest.approx(expected, rel=0.12)


def test_fast_oscillation_does_not_hide_a_slow_change() -> None:
    """Kinetic temperatures: half of the variance is a vibration, half relaxes slowly."""
    ratio = []
    for seed in range(20):
        slow = autoregressive(2000, 0.98, seed)
        phase = np.cumsum(np.random.default_rng(seed).normal(2.5, 0.3, 2000))
        e = mean_stderr(slow + math.sqrt(2) * np.cos(phase))
        ratio.append(e.stderr / math.sqrt((1 + 0.98) / (1 - 0.98) / 2000))
    assert 0.75 < np.median(ratio) < 1.25


def test_error_bar_covers_the_true_mean_as_often_as_it_says() -> None:
    hits = [
        abs(e.mean) < 2 * e.stderr
        for e in (mean_stderr(autoregressive(1000, 0.8, s)) for s in range(300))
    ]
    assert 0.89 < np.mean(hits) < 0.99  # 0.954 for a Gaussian


def test_short_constant_and_unresolved_series_are_honest() -> None:
    assert math.isnan(mean_stderr([]).mean)
    short = mean_stderr([1.0, 2.0, 3.0])
    assert short.mean == 2.0
    assert math.isnan(short.stderr)
    constant = mean_stderr(np.full(50, 3.5))
    assert (constant.mean, constant.stderr, constant.inefficiency) == (3.5, 0.0, 50)
    trend = mean_stderr(np.linspace(0, 1, 100))
    assert math.isnan(trend.stderr)
    with pytest.raises(ValueError, match="finite"):
        mean_stderr([1.0, math.nan] * 10)


def test_slope_and_its_error() -> None:
    t = np.arange(4000) * 0.01
    z = [
        (e.mean - 0.3) / e.stderr
        for e in (slope_stderr(t, 0.3 * t + autoregressive(4000, 0.9, s)) for s in range(100))
    ]
    assert abs(np.mean(z)) < 0.4
    assert 0.75 < np.std(z) < 1.4
    assert math.isnan(slope_stderr([0.0, 1.0], [0.0, 1.0]).mean)
    assert math.isnan(slope_stderr(t[:12], t[:12]).stderr)
    assert slope_stderr(t, 0 * t).stderr == 0


@pytest.mark.parametrize("noise", [0.0, 3.0])
def test_the_error_of_a_slope_knows_of_wandering(noise: float) -> None:
    """The conserved quantity of MTS is a random walk, and noise, about its trend."""
    t, z = np.arange(1000) * 0.01, []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        walk = np.cumsum(rng.normal(size=1000)) + noise * rng.normal(size=1000)
        e = slope_stderr(t, 0.3 * t + walk)
        z.append((e.mean - 0.3) / e.stderr)
    assert 0.85 < np.std(z) < 1.2
    assert np.mean(np.abs(z) > 2) < 0.1


def kinetic_temperatures(temperature_K: float, d: int, n: int, seed: int) -> np.ndarray:
    return temperature_K / d * np.random.default_rng(seed).chisquare(d, size=n)


def test_exact_law_accepts_the_right_temperature_and_rejects_two_percent() -> None:
    d, n = 576, 2000
    right = [compare_temperature(kinetic_temperatures(300, d, n, s), 300, d) for s in range(20)]
    assert sum(t.accepts() is True for t in right) >= 19
    for wrong in (0.98, 1.02, 1.03):
        tests = [
            compare_temperature(kinetic_temperatures(300 * wrong, d, n, s), 300, d)
            for s in range(5)
        ]
        assert all(t.accepts() is False for t in tests)


def correlated_temperatures(temperature_K: float, d: int, n: int, seed: int) -> np.ndarray:
    """The exact law of d degrees of freedom in a series with an inefficiency of four."""
    normal = autoregressive(n, 0.6, seed)
    return gamma.ppf(norm.cdf(normal), d / 2, scale=2 * temperature_K / d)


def test_exact_law_rejects_one_percent_and_keeps_the_right_at_the_stated_rates() -> None:
    """64 waters without fixcom, 1250 independent samples, 200 seeds; docs/analysis.md says so."""
    d, n, seeds = 576, 5000, 200

    def rejected(temperature_K: float, first: int) -> float:
        series = (correlated_temperatures(temperature_K, d, n, first + s) for s in range(seeds))
        return float(np.mean([compare_temperature(x, 300, d).accepts() is False for x in series]))

    assert rejected(300.0, 0) <= 0.03
    assert rejected(297.0, 1000) >= 0.97
    assert rejected(303.0, 2000) >= 0.97


def test_exact_law_rejects_the_right_mean_with_the_wrong_width() -> None:
    narrow = 300 + 0.5 * (kinetic_temperatures(300, 576, 2000, 1) - 300)
    result = compare_temperature(narrow, 300, 576)
    assert abs(result.z_mean) < 3
    assert result.accepts() is False
    assert result.width_ratio == pytest.approx(0.5, abs=0.03)


def test_too_short_a_series_gives_no_verdict() -> None:
    assert compare_temperature([300.0] * 5, 300, 576).accepts() is None


def test_density_is_normalised_with_the_right_moments() -> None:
    grid = np.linspace(200, 420, 4001)
    density = temperature_density(grid, 300, 576)
    step = grid[1] - grid[0]
    assert density.sum() * step == pytest.approx(1, abs=1e-6)
    mean = (density * grid).sum() * step
    assert mean == pytest.approx(300, abs=1e-3)
    width = math.sqrt((density * (grid - mean) ** 2).sum() * step)
    assert width == pytest.approx(temperature_std(300, 576), rel=1e-3)
