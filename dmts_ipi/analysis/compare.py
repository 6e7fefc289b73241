"""Every observable of a run against theory and against the reference run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ase.data import chemical_symbols

from dmts_ipi.core.statistics import MIN_INDEPENDENT, Estimate

from .measure import Measured
from .rdf import PairDistribution, find_pair
from .spectrum import foreign_peaks, too_fast_peaks
from .transport import SHORTEST_PS, WINDOW_FRACTION, Diffusion
from .verdict import AGREES, DEVIATES, SHORT, Verdict, about_ps, judge

TEMPERATURE_TOLERANCE_K = 3.0
ELEMENT_TOLERANCE_K = 5.0
ENERGY_TOLERANCE_MEV = 0.5
PEAK_TOLERANCE_PERCENT = 5.0
DRIFT_TOLERANCE_MEV = 1.0
WIDTH_TOLERANCE_PERCENT = 10.0
DIFFUSION_TOLERANCE_PERCENT = 10.0
RELAXATIONS = 2.0 * MIN_INDEPENDENT  # an independent structure takes two relaxation times


@dataclass(frozen=True)
class Comparison:
    """One observable of one run against theory or against the reference run.

    ``unit`` is that of ``difference``; ``value_unit`` that of ``value`` and ``expected``, "" where
    it is the same or there is none.
    """

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
    value_unit: str = ""


def judge_structure(
    m: Measured, ref: Measured, difference: float, stderr: float, tolerance: float, unit: str
) -> Verdict:
    """As ``judge``, for what depends on the structure of a liquid: energy, peaks, diffusion.

    In less than ``RELAXATIONS`` relaxation times of either run a spread over time says nothing of
    the spread between structures, and two runs from one start can differ for no other reason.
    """
    slow = max((m, ref), key=_open_relaxations)
    if math.isinf(slow.relaxation_ps):
        return Verdict(
            SHORT, f"{SHORTEST_PS / WINDOW_FRACTION:g} ps of frames would show how fast it relaxes"
        )
    if (factor := _open_relaxations(slow)) > 1:
        text = (
            f"the structure of {slow.run.name} relaxes in {about_ps(slow.relaxation_ps)}; "
            f"{about_ps(factor * slow.kept_ps)} would tell"
        )
        return Verdict(SHORT, text, factor)
    return judge(difference, stderr, tolerance, unit, min(m.kept_ps, ref.kept_ps))


def _open_relaxations(m: Measured) -> float:
    """By what factor a run is too short for its structure; 0 where nothing has to relax."""
    tau = m.relaxation_ps
    return 0.0 if math.isnan(tau) else RELAXATIONS * tau / m.kept_ps


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
        if m.configurational is not None:
            found.append(_configurational(m, m.configurational.temperature_K["atoms"]))
        heat = m.heating_K
        if math.isfinite(heat.mean):
            verdict = judge(heat.mean, heat.stderr, TEMPERATURE_TOLERANCE_K, "K", m.kept_ps)
            found.append(
                Comparison(
                    m.run.name,
                    "heating by the integrator",
                    "zero",
                    heat.mean,
                    heat.stderr,
                    0.0,
                    heat.mean,
                    heat.stderr,
                    "K",
                    verdict,
                )
            )
    elif m.has_energy:
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


def _configurational(m: Measured, e: Estimate) -> Comparison:
    """The configurational temperature: T where the positions are those of BAOAB, else T/(1 - b).

    b is that of the stiffest X-H stretch, which rules the squared force (``kinetic``).
    """
    expected = m.run.temperature_K
    if not m.kinetic_bias:
        expected /= 1 - max((k.bias_fraction for k in m.bond_kinds), default=0.0)
    off = e.mean - expected
    return Comparison(
        m.run.name,
        "configurational temperature",
        "theory",
        e.mean,
        e.stderr,
        expected,
        off,
        e.stderr,
        "K",
        judge(off, e.stderr, TEMPERATURE_TOLERANCE_K, "K", m.kept_ps),
    )


def against_reference(m: Measured, ref: Measured) -> list[Comparison]:
    """Temperatures, potential energy and first peaks against the STS run.

    Where two runs' expected kinetic temperatures differ (an even n_inner with the thermostat once
    per outer step, see ``kinetic``), the difference is taken after subtracting each its own.
    """
    found = []

    def add(
        name: str, a: Estimate, b: Estimate, tolerance: float, unit: str, shift: float | None
    ) -> None:
        difference, stderr = _difference(a, b)
        difference -= shift or 0.0
        if shift is None:
            verdict = judge_structure(m, ref, difference, stderr, tolerance, unit)
        else:
            verdict = judge(difference, stderr, tolerance, unit, min(m.kept_ps, ref.kept_ps))
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
                verdict,
            )
        )

    for name, estimate in m.kinetic.items():
        if name in ref.kinetic:
            tolerance = ELEMENT_TOLERANCE_K if _is_element(name) else TEMPERATURE_TOLERANCE_K
            shift = m.expected[name] - ref.expected[name]
            label = f"temperature of {_label(name)}"
            add(label, estimate, ref.kinetic[name], tolerance, "K", shift)
    if m.run.ensemble == ref.run.ensemble and m.has_energy and ref.has_energy:
        add("potential energy", m.potential, ref.potential, ENERGY_TOLERANCE_MEV, "meV/atom", None)
        found += _ratio(
            m, ref, "width of the potential energy", m.potential_width, ref.potential_width,
            WIDTH_TOLERANCE_PERCENT, "meV/atom",
        )  # fmt: skip
    if m.run.ensemble == ref.run.ensemble:
        for key, tolerance, unit in (("density_g_cm3", 0.01, "g/cm³"), ("pressure_bar", 50, "bar")):
            if key in m.npt and key in ref.npt:
                add(key.split("_")[0], m.npt[key], ref.npt[key], tolerance, unit, None)
    for mine in m.diffusion:
        for its in ref.diffusion:
            if its.kind == mine.kind:
                found += _ratio(
                    m, ref, f"diffusion of {mine.kind}", mine.D_A2_per_ps, its.D_A2_per_ps,
                    DIFFUSION_TOLERANCE_PERCENT, "Å²/ps", _not_diffusive((m, mine), (ref, its)),
                )  # fmt: skip
    found += _spectra(m, ref)
    for d in m.distributions:
        other = find_pair(ref.distributions, d.pair)
        if other is not None and d.peak is not None and other.peak is not None:
            found.append(_peak(m, ref, d, other))
    return found


def _not_diffusive(*pairs: tuple[Measured, Diffusion]) -> Verdict | None:
    """Too short, where a slope is still that of molecules in their cages; else None."""
    for m, d in pairs:
        if not d.diffusive:
            text = f"{d.kind} is not diffusive yet in {m.run.name} (MSD ~ t^{d.exponent:.2f})"
            return Verdict(SHORT, text)
    return None


def _ratio(
    m: Measured,
    ref: Measured,
    name: str,
    a: Estimate,
    b: Estimate,
    tolerance: float,
    unit: str,
    verdict: Verdict | None = None,
) -> list[Comparison]:
    """A positive quantity against that of the reference, in percent; nothing without a value.

    ``verdict`` is of those who know that the errors don't cover the difference.
    """
    if not (math.isfinite(a.mean) and math.isfinite(b.mean) and a.mean > 0 and b.mean > 0):
        return []
    percent = 100 * (a.mean / b.mean - 1)
    error = 100 * a.mean / b.mean * math.hypot(a.stderr / a.mean, b.stderr / b.mean)
    verdict = verdict or judge_structure(m, ref, percent, error, tolerance, "%")
    return [
        Comparison(
            m.run.name,
            name,
            ref.run.name,
            a.mean,
            a.stderr,
            b.mean,
            percent,
            error,
            "%",
            verdict,
            unit,
        )
    ]


def _spectra(m: Measured, ref: Measured) -> list[Comparison]:
    """Peaks that the reference does not have, by element; also stored in ``m.foreign_peaks``."""
    m.foreign_peaks = foreign_peaks(m.spectra, ref.spectra, m.run.outer_fs)
    known = {s.element for s in ref.spectra}
    found = []
    for s in m.spectra:
        if s.element not in known:
            continue
        strays = [p for p in m.foreign_peaks if p.element == s.element]
        text = "; ".join(f"{p.frequency_THz:.1f} THz, {p.meaning}" for p in strays)
        verdict = Verdict(DEVIATES, text) if strays else Verdict(AGREES, "every peak is in STS too")
        n = float(len(strays))
        name = f"foreign peaks in the spectrum of {s.element}"
        found.append(
            Comparison(m.run.name, name, ref.run.name, n, 0.0, 0.0, n, 0.0, "peaks", verdict)
        )
    return found


def _too_fast(m: Measured) -> list[Comparison]:
    """Peaks above the fastest X-H bond, of a run without a reference; stored as ``_spectra`` does.

    Only where there are any: that none is there says little without a reference.
    """
    fastest = max((1000 / k.period_fs for k in m.bond_kinds), default=math.nan)
    if not math.isfinite(fastest):
        return []
    m.foreign_peaks = too_fast_peaks(m.spectra, fastest, m.run.outer_fs)
    found = []
    for element in dict.fromkeys(p.element for p in m.foreign_peaks):
        strays = [p for p in m.foreign_peaks if p.element == element]
        text = "; ".join(f"{p.frequency_THz:.1f} THz, {p.meaning}" for p in strays)
        n = float(len(strays))
        name = f"unphysical peaks in the spectrum of {element}"
        verdict = Verdict(DEVIATES, text)
        found.append(
            Comparison(m.run.name, name, "the fastest bond", n, 0.0, 0.0, n, 0.0, "peaks", verdict)
        )
    return found


def _peak(m: Measured, ref: Measured, d: PairDistribution, other: PairDistribution) -> Comparison:
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
        judge_structure(m, ref, percent, error, PEAK_TOLERANCE_PERCENT, "%"),
    )


def compare(measured: Sequence[Measured], reference: Measured | None) -> list[Comparison]:
    """Every comparison of every run, theory first."""
    found = []
    for m in measured:
        found += against_theory(m)
        if reference is None:
            found += _too_fast(m)
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
