"""Means with honest error bars, and the exact distribution of the kinetic temperature.

A simulation is a correlated series: n samples count as n/g independent ones, with g the
statistical inefficiency, g = 1 + 2 sum_t (1 - t/n) C(t) (Chodera et al., J. Chem. Theory
Comput. 3, 26 (2007), eqs. 20-22). pymbar has the same estimator, but it brings numexpr (and
JAX where it is found) for forty lines, and it is misled by fast oscillations, which every
temperature has (see ``statistical_inefficiency``). physical_validation needs pymbar too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

MIN_SAMPLES = 10
LOWEST = 32  # frequencies that the error of a slope is made of
MIN_INDEPENDENT = 4.0
MIN_BLOCKS = 32


@dataclass(frozen=True)
class Estimate:
    """A mean of a correlated series.

    ``mean`` and ``stderr`` have the unit of the series. ``inefficiency`` is g, in samples
    (NaN where it is not known), ``n`` the number of samples. ``stderr`` is NaN where the series
    is too short for an error bar; ``mean`` is NaN only where there are no samples.
    """

    mean: float
    stderr: float
    inefficiency: float
    n: int

    @property
    def independent(self) -> float:
        """Number of independent samples, n/g; NaN where g is not known."""
        return self.n / self.inefficiency

    @property
    def known(self) -> bool:
        """Whether there is an error bar."""
        return math.isfinite(self.stderr)


def statistical_inefficiency(series: ArrayLike) -> float:
    """Statistical inefficiency g >= 1 of a stationary series (n,), in samples.

    The sum over C(t) ends where C(t) first becomes zero or negative. Where a fast oscillation
    lies on top of a slow change, as in every temperature of a molecular system, C(t) crosses zero
    long before it has decayed; so the same sum is done for means of 2, 4, 8, ... consecutive
    samples too, as in Flyvbjerg and Petersen, J. Chem. Phys. 91, 461 (1989), and a larger g is
    taken where it is larger by more than three of its own standard errors.

    NaN below ``MIN_SAMPLES`` samples; n for a constant series (one independent sample).

    Raises:
        ValueError: the series is not one-dimensional or holds NaN or infinities.
    """
    x = np.asarray(series, dtype=float)
    if x.ndim != 1 or not np.isfinite(x).all():
        raise ValueError("a series must be one-dimensional and finite")
    n = len(x)
    if n < MIN_SAMPLES:
        return math.nan
    largest = float(np.max(np.abs(x)))
    x = x - x.mean()
    variance = float(x @ x) / n
    if variance <= 1e-24 * max(1.0, largest**2):
        return float(n)
    g, size = _correlation_sum(x), 2
    while n // size >= MIN_BLOCKS:
        blocks = x[n % size :].reshape(-1, size).mean(axis=1)
        within = _correlation_sum(blocks - blocks.mean())
        coarse = size * float(np.var(blocks)) / variance * within
        if coarse > g * (1.0 + 3.0 * math.sqrt(2.0 * within / len(blocks))):
            g = coarse
        size *= 2
    return min(g, float(n))


def _correlation_sum(x: np.ndarray) -> float:
    """1 + 2 sum_t (1 - t/n) C(t) of a series of zero mean, up to the first zero of C."""
    n = len(x)
    padded = np.fft.rfft(x, 2 * n)
    sums = np.fft.irfft(padded * padded.conj(), 2 * n)[:n]
    if sums[0] <= 0:
        return 1.0
    correlation = sums / np.arange(n, 0, -1) / (sums[0] / n)
    beyond = np.flatnonzero(correlation[1:] <= 0)
    last = int(beyond[0]) + 1 if len(beyond) else n
    t = np.arange(1, last)
    return max(1.0, 1.0 + 2.0 * float(((1.0 - t / n) * correlation[1:last]).sum()))


def mean_stderr(series: ArrayLike) -> Estimate:
    """Mean and standard error of a correlated series.

    The standard error is s sqrt(g/n), s the standard deviation. It is NaN where there are fewer
    than ``MIN_SAMPLES`` samples or than ``MIN_INDEPENDENT`` independent ones: the correlation
    time is then not resolved, and any figure would look too good. It is zero for a constant
    series, which has no spread.

    Args:
        series: (n,), equally spaced in time, any unit.

    Raises:
        ValueError: the series is not one-dimensional or holds NaN or infinities.
    """
    x = np.asarray(series, dtype=float)
    if x.size == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    n, mean = len(x), float(np.mean(x))
    g = statistical_inefficiency(x)
    if not math.isfinite(g):
        return Estimate(mean, math.nan, math.nan, n)
    if g >= n and np.ptp(x) <= 1e-12 * max(1.0, abs(mean)):
        return Estimate(mean, 0.0, g, n)
    if n / g < MIN_INDEPENDENT:
        return Estimate(mean, math.nan, g, n)
    return Estimate(mean, float(np.std(x, ddof=1) * math.sqrt(g / n)), g, n)


def std_stderr(series: ArrayLike) -> Estimate:
    """Standard deviation of a correlated series, with its standard error, in its unit.

    Half of the relative error of the variance, which is the mean of the squared deviations: their
    own statistical inefficiency counts.

    Raises:
        ValueError: as ``mean_stderr``.
    """
    x = np.asarray(series, dtype=float)
    if len(x) < 2:
        return Estimate(math.nan, math.nan, math.nan, len(x))
    std = float(np.std(x, ddof=1))
    squares = mean_stderr((x - x.mean()) ** 2)
    error = 0.5 * squares.stderr / std if std > 0 else math.nan
    return Estimate(std, error, squares.inefficiency, len(x))


def slope_stderr(time: ArrayLike, series: ArrayLike) -> Estimate:
    """Least-squares slope of a series of equal steps, with an error for residuals that wander.

    What is conserved but for an integrator's error fluctuates about its trend, and wanders: a
    random walk of the work done in each step. Residuals that wander have errors several times
    those of as many independent ones. Their spectrum at the lowest ``LOWEST`` frequencies k/T is
    taken for S0 + W / (2 pi k/T)^2, S0 and W by Whittle's likelihood (Ark. Mat. 2, 423 (1953));
    the slope's variance is then 12 S0 / T^3 + 6 W / (5 T).

    Returns an ``Estimate`` whose ``mean`` is the slope (unit of the series per unit of time).

    Raises:
        ValueError: shapes differ, or values are not finite.
    """
    t, x = np.asarray(time, float), np.asarray(series, float)
    if t.shape != x.shape:
        raise ValueError("time and series must have the same shape")
    n = len(x)
    if n < 3 or np.ptp(t) == 0:
        return Estimate(math.nan, math.nan, math.nan, n)
    centred = t - t.mean()
    slope = float(centred @ (x - x.mean()) / (centred @ centred))
    residual = x - x.mean() - slope * centred
    g = statistical_inefficiency(residual)
    k = np.arange(1, min(LOWEST, n // 4) + 1)
    if not math.isfinite(g) or len(k) < 4:
        return Estimate(slope, math.nan, g, n)
    power = np.abs(np.fft.rfft(residual))[k] ** 2
    if not power.any():
        return Estimate(slope, 0.0, g, n)
    share = np.concatenate([[0.0], np.geomspace(0.03, 1e5, 60)])  # W (T / 2 pi)^2 / S0
    shape = 1 + share[:, None] / k**2
    level = (power / shape).mean(axis=1)
    best = int((len(k) * np.log(level) + np.log(shape).sum(axis=1)).argmin())
    length = float(np.ptp(t))
    variance = level[best] * length / n**2 * (12 + 1.2 * (2 * math.pi) ** 2 * share[best])
    return Estimate(slope, math.sqrt(variance / length**3), g, n)


def temperature_density(
    grid_K: ArrayLike, temperature_K: float, degrees_of_freedom: int
) -> np.ndarray:
    """Exact canonical density of the kinetic temperature, 1/K, on a grid (m,) in K.

    T_kin = 2 K / (d kB) follows (T/d) chi^2(d), a gamma law of shape d/2 and scale 2T/d: mean T,
    standard deviation T sqrt(2/d).
    """
    from scipy.stats import gamma

    d = degrees_of_freedom
    return gamma.pdf(np.asarray(grid_K, float), d / 2, scale=2 * temperature_K / d)


def temperature_std(temperature_K: float, degrees_of_freedom: float) -> float:
    """Standard deviation T sqrt(2/d) of the kinetic temperature, in K."""
    return temperature_K * math.sqrt(2.0 / degrees_of_freedom)


@dataclass(frozen=True)
class DistributionTest:
    """A series of kinetic temperatures against (T/d) chi^2(d).

    ``stderr``: that of the mean with the exact width, T sqrt(2/d) sqrt(g/n).
    ``z_mean``: (mean - T) in these standard errors. ``p_value``: Kolmogorov-Smirnov test on samples
    that are ``inefficiency`` apart. ``width_ratio``: observed over exact standard deviation.
    NaN where the series is too short.
    """

    estimate: Estimate
    stderr: float
    z_mean: float
    p_value: float
    width_ratio: float

    def accepts(self, sigmas: float = 3.0, significance: float = 0.003) -> bool | None:
        """Whether mean and shape agree; None where the series is too short to tell."""
        if not math.isfinite(self.z_mean):
            return None
        return abs(self.z_mean) <= sigmas and not self.p_value < significance


def compare_temperature(
    series_K: ArrayLike, temperature_K: float, degrees_of_freedom: int
) -> DistributionTest:
    """Tests a series of kinetic temperatures (n,), K, against its exact canonical law.

    The standard error of the mean uses the exact width T sqrt(2/d) and the measured g, so a run
    whose fluctuations are too small does not look more certain than it is.

    Raises:
        ValueError: the series is not one-dimensional or not finite.
    """
    from scipy.stats import gamma, kstest

    x = np.asarray(series_K, float)
    estimate = mean_stderr(x)
    if not estimate.known or estimate.stderr == 0:
        return DistributionTest(estimate, math.nan, math.nan, math.nan, math.nan)
    d = degrees_of_freedom
    exact = temperature_std(temperature_K, d)
    stderr = exact * math.sqrt(estimate.inefficiency / estimate.n)
    z = (estimate.mean - temperature_K) / stderr
    apart = x[:: max(1, math.ceil(estimate.inefficiency))]
    p = float(kstest(apart, gamma(d / 2, scale=2 * temperature_K / d).cdf).pvalue)
    return DistributionTest(estimate, stderr, float(z), p, float(np.std(x, ddof=1) / exact))


def langevin_floor_K(
    temperature_K: float, degrees_of_freedom: int, friction_per_ps: float, kept_ps: float
) -> float:
    """Standard error of a mean kinetic temperature that a Langevin run can't be below, K.

    The thermostat exchanges the total energy at the rate of the friction g: d<E>/dt = -2 g (K -
    K0), and in a harmonic system half of an excess is kinetic, so the total energy relaxes as
    exp(-g t). Half of the variance 2 T^2 / d of the temperature follows it, and averages over t to
    2 T^2 / (d g t). A short run that happens to explore little of this slow mode measures a
    correlation time that is too short; this floor does not depend on luck. It holds for every
    element and bond too, as they share the slow mode. In units of energy per atom, times 3 kB / 2,
    it holds for the potential energy.
    """
    return temperature_K * math.sqrt(2.0 / (degrees_of_freedom * friction_per_ps * kept_ps))


def not_below(estimate: Estimate, floor: float) -> Estimate:
    """The estimate with a standard error of at least ``floor``; NaN stays NaN."""
    if not estimate.known or estimate.stderr >= floor:
        return estimate
    return replace(estimate, stderr=floor)
