"""Verdicts: a measured difference, its error, and what a user may tolerate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ase.data import chemical_symbols

from dmts_ipi.core.statistics import Estimate

from .measure import Measured
from .rdf import PairDistribution, find_pair

AGREES, DEVIATES, SHORT = "agrees", "deviates", "too short"
TEMPERATURE_TOLERANCE_K = 3.0
ELEMENT_TOLERANCE_K = 5.0
ENERGY_TOLERANCE_MEV = 0.5
PEAK_TOLERANCE_PERCENT = 5.0
DRIFT_TOLERANCE_MEV = 1.0


@dataclass(frozen=True)
class Verdict:
    """``status`` is ``agrees``, ``deviates`` or ``too short``; ``text`` says why, in words.

    ``longer`` is by what factor the run must be longer for two standard errors to fall below
    the tolerance (NaN where that is not known or not needed).
    """

    status: str
    text: str
    longer: float = math.nan


@dataclass(frozen=True)
class Comparison:
    """One observable of one run against theory or against the reference run."""

    run: str
    observable: str
    against: str
    value: float
    stderr: float
    expected: float
    difference: float
    difference_stderr: float
    unit: str
    verdict: Verdict


def judge(difference: float, stderr: float, tolerance: float, unit: str, kept_ps: float) -> Verdict:
    """Deviates where the difference exceeds both the tolerance and three standard errors.

    Too short to tell where two standard errors exceed the tolerance, or where a difference above
    the tolerance lies between two and three standard errors: with a dozen comparisons in a report
    such a one turns up by chance. The error falls as the square root of the length.
    """
    if not math.isfinite(difference) or not math.isfinite(stderr):
        return Verdict(SHORT, "too short for an error bar")
    size = abs(difference)
    if size > max(tolerance, 3 * stderr):
        how = f"{size / stderr:.1f} standard errors" if stderr else f"{difference:+.2g} {unit}"
        return Verdict(DEVIATES, f"off by {how}")
    if size > max(tolerance, 2 * stderr):
        longer = max(1.5, (3 * stderr / size) ** 2, (2 * stderr / tolerance) ** 2)
        text = f"{size / stderr:.1f} standard errors off; {_ps(longer * kept_ps)} would tell"
        return Verdict(SHORT, text, longer)
    if 2 * stderr > tolerance:
        longer = (2 * stderr / tolerance) ** 2
        text = f"consistent so far; {_ps(longer * kept_ps)} would settle {tolerance:g} {unit}"
        return Verdict(SHORT, text, longer)
    inside = "2 standard errors" if size <= 2 * stderr else f"{tolerance:g} {unit}"
    return Verdict(AGREES, f"within {inside}")


def _ps(ps: float) -> str:
    digits = 10 ** max(0, math.floor(math.log10(ps)) - 1) if ps > 0 else 1
    rounded = math.ceil(ps / digits) * digits
    return f"about {rounded / 1000:.2g} ns" if rounded >= 1000 else f"about {rounded:.0f} ps"


def _difference(a: Estimate, b: Estimate) -> tuple[float, float]:
    return a.mean - b.mean, math.hypot(a.stderr, b.stderr)


def against_theory(m: Measured) -> list[Comparison]:
    """Kinetic temperatures against theory (NVT, NPT), drift against zero (NVE)."""
    found = []
    if m.run.ensemble != "nve":
        for name, estimate in m.kinetic.items():
            tolerance = ELEMENT_TOLERANCE_K if _is_element(name) else TEMPERATURE_TOLERANCE_K
            expected = m.expected[name]
            stderr = estimate.stderr
            if name == "atoms":
                stderr = max(m.temperature_test.stderr, m.floor_K)
            difference = estimate.mean - expected
            found.append(
                Comparison(
                    m.run.name,
                    f"temperature of {_label(name)}",
                    "theory",
                    estimate.mean,
                    stderr,
                    expected,
                    difference,
                    stderr,
                    "K",
                    judge(difference, stderr, tolerance, "K", m.kept_ps),
                )
            )
    else:
        slope = m.drift_meV_per_atom_ps
        unit = "meV/atom/ps"
        verdict = judge(slope.mean, slope.stderr, DRIFT_TOLERANCE_MEV, unit, m.kept_ps)
        found.append(
            Comparison(
                m.run.name,
                "drift of the conserved quantity",
                "zero",
                slope.mean,
                slope.stderr,
                0.0,
                slope.mean,
                slope.stderr,
                unit,
                verdict,
            )
        )
    return found


def against_reference(m: Measured, ref: Measured) -> list[Comparison]:
    """Temperatures, potential energy and first peaks against the STS run.

    Where two runs' expected kinetic temperatures differ (an even n_inner with the thermostat once
    per outer step, see ``kinetic``), the difference is taken after subtracting each its own.
    """
    found = []
    short = min(m.kept_ps, ref.kept_ps)

    def add(name: str, a: Estimate, b: Estimate, tolerance: float, unit: str, shift: float) -> None:
        difference, stderr = _difference(a, b)
        difference -= shift
        found.append(
            Comparison(
                m.run.name,
                name,
                ref.run.name,
                a.mean,
                a.stderr,
                b.mean,
                difference,
                stderr,
                unit,
                judge(difference, stderr, tolerance, unit, short),
            )
        )

    for name, estimate in m.kinetic.items():
        if name in ref.kinetic:
            tolerance = ELEMENT_TOLERANCE_K if _is_element(name) else TEMPERATURE_TOLERANCE_K
            shift = m.expected[name] - ref.expected[name]
            label = f"temperature of {_label(name)}"
            add(label, estimate, ref.kinetic[name], tolerance, "K", shift)
    if m.run.ensemble == ref.run.ensemble:
        add("potential energy", m.potential, ref.potential, ENERGY_TOLERANCE_MEV, "meV/atom", 0.0)
        for key, tolerance, unit in (("density_g_cm3", 0.01, "g/cm³"), ("pressure_bar", 50, "bar")):
            if key in m.npt and key in ref.npt:
                add(key.split("_")[0], m.npt[key], ref.npt[key], tolerance, unit, 0.0)
    for d in m.distributions:
        other = find_pair(ref.distributions, d.pair)
        if other is not None and d.peak is not None and other.peak is not None:
            found.append(_peak(m, ref, d, other, short))
    return found


def _peak(
    m: Measured, ref: Measured, d: PairDistribution, other: PairDistribution, kept_ps: float
) -> Comparison:
    a, b = d.peak, other.peak
    assert a is not None
    assert b is not None
    percent = 100 * (a.height / b.height - 1)
    error = 100 * a.height / b.height * math.hypot(a.stderr / a.height, b.stderr / b.height)
    return Comparison(
        m.run.name,
        f"first {d.pair} peak",
        ref.run.name,
        a.height,
        a.stderr,
        b.height,
        percent,
        error,
        "%",
        judge(percent, error, PEAK_TOLERANCE_PERCENT, "%", kept_ps),
    )


def compare(measured: Sequence[Measured], reference: Measured | None) -> list[Comparison]:
    """Every comparison of every run, theory first."""
    found = []
    for m in measured:
        found += against_theory(m)
        if reference is not None and m is not reference:
            found += against_reference(m, reference)
    return found


def headline_pair(m: Measured) -> str | None:
    """The pair that stands for the structure: of the most common heavy element with itself."""
    heavy = [d for d in m.distributions if d.peak is not None and "H" not in d.pair.split("-")]
    alike = [d for d in heavy if len(set(d.pair.split("-"))) == 1] or heavy
    if not alike:
        return None
    symbols = [chemical_symbols[int(z)] for z in m.run.numbers]
    return max(alike, key=lambda d: symbols.count(d.pair.split("-")[0])).pair


def speedup(m: Measured, ref: Measured | None) -> float:
    """ns/day over that of the reference; NaN where a speed is missing."""
    return m.run.ns_per_day / ref.run.ns_per_day if ref is not None else math.nan


def _is_element(name: str) -> bool:
    return name != "atoms" and "-" not in name


def _label(name: str) -> str:
    return name if name in ("atoms",) or _is_element(name) else f"{name.replace('-', '–')} bonds"
