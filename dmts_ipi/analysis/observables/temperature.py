"""Kinetic temperatures of all atoms, of elements and of X-H bonds (``analysis.kinetic``)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dmts_ipi.analysis.comparison import Comparison, against_value, difference
from dmts_ipi.analysis.figures import (
    INK,
    Palette,
    Plot,
    legend_above,
    mark_left_out,
    new_figure,
    to_svg,
)
from dmts_ipi.analysis.formatting import Card, estimate_text, value_and_rest, with_dash
from dmts_ipi.analysis.kinetic import BondKind, KineticSampler
from dmts_ipi.analysis.measure import Measured
from dmts_ipi.analysis.relaxation import BLOCK_RELAXATIONS
from dmts_ipi.analysis.run_data import RunInput
from dmts_ipi.analysis.stream import Chunk
from dmts_ipi.core.statistics import (
    DistributionTest,
    Estimate,
    compare_temperature,
    mean_stderr,
    not_below,
    temperature_density,
    temperature_std,
)
from dmts_ipi.core.units import KB_EV_PER_K

from .base import FEWEST_DRAWN, MOST_BINS, Column, Observable, Sampler, Table, estimate_record

ATOMS = "atoms"
TOLERANCE_K = 3.0
ELEMENT_TOLERANCE_K = 5.0


@dataclass(frozen=True)
class Temperatures:
    """Temperatures of a run in K.

    ``series_K`` (lines,) of all atoms, from the properties; None where they don't hold it, and
    then ``law``, its test against the exact distribution, is None too. ``kinetic``: of ``atoms``,
    of each element, of each kind of X-H bond; ``expected`` the same names with their theoretical
    values (BAOAB's bias included), ``expected_by_forces`` of all modes, else of bonds only.
    ``kinetic_bias``: whether the integrator has the kinetic temperature read low.
    """

    degrees_of_freedom: int
    series_K: np.ndarray | None
    law: DistributionTest | None
    kinetic: dict[str, Estimate]
    expected: dict[str, float]
    expected_by_forces: bool
    bond_kinds: list[BondKind]
    kinetic_bias: bool
    floor_K: float

    @property
    def error_K(self) -> float:
        """Error of the temperature of all atoms for its comparison with theory."""
        if self.law is None:
            return self.kinetic[ATOMS].stderr
        return max(self.law.stderr, self.floor_K)


class _KineticFrames:
    """Feeds a ``KineticSampler``."""

    in_background = False

    def __init__(self, run: RunInput) -> None:
        self.run = run
        self.frame_ps = 0.0
        self.kinetics = KineticSampler(
            *(run.numbers, run.masses_amu, run.positions, run.cell, run.pbc),
            *(run.inner_fs, run.temperature_K, run.fixcom, ~run.moving),
        )

    def add(self, chunk: Chunk) -> None:
        k = self.kinetics
        if not k.frames:
            self.frame_ps = chunk.frame_ps
            k.block_frames = self._block_frames()
        for x, cell, forces in zip(chunk.positions, chunk.cells, chunk.forces, strict=True):
            if forces is not None:
                k.add_forces(x, cell, forces)
        if chunk.velocities is not None and self.run.n_beads == 1:
            k.add(chunk.positions, chunk.cells, chunk.velocities, chunk.follows)

    def _block_frames(self) -> int:
        friction = self.run.langevin_per_ps
        if friction is None or self.frame_ps <= 0:
            return 0
        return math.ceil(BLOCK_RELAXATIONS / (friction * self.frame_ps))


class Temperature(Observable[Temperatures]):
    """Kinetic temperatures against theory and against the reference."""

    name = "temperature"
    page_order = 20

    def sampler(self, run: RunInput) -> _KineticFrames:
        """Of frames with velocities."""
        return _KineticFrames(run)

    def measure(self, m: Measured, sampler: Sampler | None) -> Temperatures | None:
        """Temperatures with the errors that they can't be below."""
        assert isinstance(sampler, _KineticFrames)
        run, kinetics = m.run, sampler.kinetics
        series = _series(run)
        kinds = kinetics.bond_kinds()
        kinetic: dict[str, Estimate] = {}
        if series is not None:
            kinetic[ATOMS] = mean_stderr(m.kept(series))
        elif kinetics.frames:
            kinetic[ATOMS] = mean_stderr(kinetics.atoms())
            m.notes.append("no temperature among the properties: it is that of the frames")
        if run.n_beads > 1:
            m.notes.append(
                f"{run.n_beads} beads: no temperature of elements and bonds, no spectra, no "
                "diffusion, as these are analysed for classical nuclei only; g(r) is that of one "
                "bead"
            )
        kinetic.update(kinetics.by_element() if kinetics.frames else {})
        kinetic.update({k.name: k.temperature for k in kinds})
        if not kinetic:
            m.notes.append(
                "no temperature: neither 'temperature{kelvin}' among the properties nor velocities"
            )
            return None
        kinetic = {name: not_below(e, m.floor_K) for name, e in kinetic.items()}
        if kinetics.frames and run.langevin_per_ps is not None:
            least = kinetics.group_errors(run.langevin_per_ps, sampler.frame_ps, m.kept_ps)
            kinetic = {name: not_below(e, least.get(name, 0.0)) for name, e in kinetic.items()}
        expected = kinetics.expected(kinds, run.thermostat_mid_drift and run.n_beads == 1)
        for kind in kinds:
            if kind.broken:
                m.notes.append(f"{kind.broken} {kind.name} bonds broke and are left out")
        law = None
        if series is not None:
            law = compare_temperature(m.kept(series), expected[ATOMS], run.degrees_of_freedom)
        return Temperatures(
            degrees_of_freedom=run.degrees_of_freedom,
            series_K=series,
            law=law,
            kinetic=kinetic,
            expected=expected,
            expected_by_forces=kinetics.forces_count,
            bond_kinds=kinds,
            kinetic_bias=run.thermostat_mid_drift,
            floor_K=m.floor_K,
        )

    def against_theory(self, m: Measured, reference: Measured | None) -> list[Comparison]:
        """Each against its expected value, where there is a thermostat."""
        t = self.of(m)
        if m.run.ensemble == "nve":
            return []
        return [
            against_value(
                *(m, f"temperature of {_label(name)}", e, t.expected[name], _tolerance(name), "K"),
                stderr=t.error_K if name == ATOMS else None,
            )
            for name, e in t.kinetic.items()
        ]

    def against_reference(self, m: Measured, reference: Measured) -> list[Comparison]:
        """Each against that of the reference.

        Where two runs' expected kinetic temperatures differ (an even n_inner with the thermostat
        once per outer step, see ``kinetic``), the difference is taken after subtracting each its
        own.
        """
        t, ref = self.of(m), self.of(reference)
        return [
            difference(
                *(m, reference, f"temperature of {_label(name)}", e, ref.kinetic[name]),
                *(_tolerance(name), "K"),
                shift=t.expected[name] - ref.expected[name],
            )
            for name, e in t.kinetic.items()
            if name in ref.kinetic
        ]

    def plots(self, measured: Sequence[Measured], palette: Palette) -> list[Plot]:
        """The exact law, by element and bond, over time."""
        below = self.shown(palette.reference_first(measured))
        figures = [
            _law_plot(below, palette),
            _kinetic_plot(self.shown(measured), palette),
            _time_plot(below, palette),
        ]
        return [p for p in figures if p is not None]

    def record(self, m: Measured, arrays: bool) -> dict[str, Any]:
        """Temperatures, their expected values, the law, bonds."""
        t = self.get(m)
        if t is None:
            return {"degrees_of_freedom": m.run.degrees_of_freedom, "temperature_K": {}}
        law = t.law
        nan = math.nan
        return {
            "degrees_of_freedom": t.degrees_of_freedom,
            "temperature_K": {k: estimate_record(e) for k, e in t.kinetic.items()},
            "temperature_expected_K": t.expected,
            "temperature_expected_from": "forces" if t.expected_by_forces else "bonds",
            "temperature_law": {
                "stderr_K": law.stderr if law else nan,
                "z_mean": law.z_mean if law else nan,
                "p_value": law.p_value if law else nan,
                "width_ratio": law.width_ratio if law else nan,
                "accepted": law.accepts() if law else None,
            },
            "bonds": [
                {
                    "kind": k.name,
                    "bonds": k.bonds,
                    "broken": k.broken,
                    "length_A": k.length_A,
                    "length_std_A": k.length_std_A,
                    "period_fs": k.period_fs,
                    "integrator_bias_K": m.run.temperature_K * k.bias_fraction * t.kinetic_bias,
                }
                for k in t.bond_kinds
            ],
        }

    def series(self, m: Measured) -> dict[str, np.ndarray]:
        """Temperature of all atoms."""
        values = self.of(m).series_K
        return {} if values is None else {"temperature_K": values}

    def tables(self, measured: Sequence[Measured]) -> Iterable[Table]:
        """One table of all."""
        rows: list[list[object]] = [
            [m.run.name, name, e.mean, e.stderr, t.expected[name]]
            for m, t in self.shown(measured)
            for name, e in t.kinetic.items()
        ]
        return [("temperatures", ["run", "of", "mean_K", "stderr_K", "expected_K"], rows)]

    def columns(self, measured: Sequence[Measured], reference: Measured | None) -> list[Column]:
        """Of atoms and of the first kind of bond."""
        shown = self.shown(measured)
        bond = next((k.name for _, t in shown for k in t.bond_kinds), None)
        columns = []
        for name, title in ((ATOMS, "Temperature"), (bond, f"{with_dash(bond or '')} bonds")):
            if name is not None:
                of = {m.run.name: t.kinetic.get(name) for m, t in shown}
                cells = {run: estimate_text(e) for run, e in of.items() if e is not None}
                columns.append(Column(f"{title}, K", cells))
        return columns

    def cards(
        self, m: Measured, reference: Measured | None, comparisons: Sequence[Comparison]
    ) -> list[Card]:
        """Of atoms and of the first kind of bond."""
        t = self.of(m)
        cards = [_card(self, ATOMS, m, reference, comparisons)] if ATOMS in t.kinetic else []
        cards += [_card(self, k.name, m, reference, comparisons) for k in t.bond_kinds[:1]]
        return cards

    def terminal(self, m: Measured, reference: Measured | None) -> list[str]:
        """Of atoms and of bonds."""
        t = self.of(m)
        parts = [f"T {estimate_text(t.kinetic[ATOMS], 'K')}"] if ATOMS in t.kinetic else []
        for k in t.bond_kinds:
            text = f"{k.name} bonds {estimate_text(t.kinetic[k.name], 'K')}"
            if m.run.ensemble != "nve":
                text += f" (expected {t.expected[k.name]:.0f})"
            parts.append(text)
        return parts


def _series(run: RunInput) -> np.ndarray | None:
    """Temperature of all atoms by lines of properties, K; None where they don't hold it."""
    p = run.properties
    if "kinetic_eV" in p and run.n_beads == 1:
        energy = np.asarray(p["kinetic_eV"], float)
        return np.asarray(2 * energy / (run.degrees_of_freedom * KB_EV_PER_K))
    return np.asarray(p["temperature_K"], float) if "temperature_K" in p else None


def is_element(name: str) -> bool:
    """Whether a name of ``Temperatures.kinetic`` is that of an element."""
    return name != ATOMS and "-" not in name


def _tolerance(name: str) -> float:
    return ELEMENT_TOLERANCE_K if is_element(name) else TOLERANCE_K


def _label(name: str) -> str:
    return name if name == ATOMS or is_element(name) else f"{with_dash(name)} bonds"


def _card(
    observable: Temperature,
    name: str,
    m: Measured,
    reference: Measured | None,
    comparisons: Sequence[Comparison],
) -> Card:
    t, ref = observable.of(m), observable.get(reference)
    what = "Temperature" if name == ATOMS else f"Temperature of {_label(name)}"
    of = [c for c in comparisons if c.observable == f"temperature of {_label(name)}"]
    # What deviates comes first, then the comparison with the reference.
    of.sort(key=lambda c: (c.verdict.status != "deviates", c.against == "theory"))
    detail = f"expected {t.expected[name]:.1f} K" if m.run.ensemble != "nve" else ""
    if ref is not None and m is not reference and name in ref.kinetic:
        text = f"STS {estimate_text(ref.kinetic[name], 'K')}"
        detail = f"{text}; {detail}" if detail else text
    value, small = value_and_rest(estimate_text(t.kinetic[name], "K"))
    if not of:
        return Card(what, value, small, detail, None, "")
    return Card(what, value, small, detail, of[0].verdict.status, of[0].verdict.text)


def _law_plot(runs: Sequence[tuple[Measured, Temperatures]], palette: Palette) -> Plot | None:
    canonical = [
        (m, t, m.kept(t.series_K))
        for m, t in runs
        if m.run.ensemble != "nve" and t.series_K is not None and m.used.sum() >= FEWEST_DRAWN
    ]
    if not canonical:
        return None
    figure, axes = new_figure()
    first, t0, _ = canonical[0]
    target, d = first.run.temperature_K, t0.degrees_of_freedom
    width = temperature_std(target, d)
    low = max(0.0, min(target - 4.2 * width, *(float(x.min()) for *_, x in canonical)))
    high = max(target + 4.2 * width, *(float(x.max()) for *_, x in canonical))
    grid = np.linspace(low, high, 400)
    density = temperature_density(grid, target, d)
    top = float(density[np.isfinite(density)].max())
    for m, _, series in canonical:
        bins = int(np.clip(math.sqrt(len(series)), 10, MOST_BINS))
        counts, edges = np.histogram(series, bins=bins, range=(low, high), density=True)
        grey = palette.is_reference(m)
        top = max(top, float(counts.max()))
        axes.stairs(
            counts,
            edges,
            color=palette.of(m),
            fill=grey,
            alpha=0.45 if grey else 1,
            linewidth=1.6,
            label=m.run.label,
        )
    axes.plot(grid, density, color=INK, linewidth=1.2, linestyle=(0, (4, 2)), label="exact law")
    axes.set_xlabel("kinetic temperature of all atoms, K")
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_ylim(0, 1.05 * top)
    legend_above(axes, len(canonical) + 1)
    caption = f"Dashed: (T/d) χ²(d) with d = {d} at {target:g} K, with nothing fitted."
    reads = min(t.expected[ATOMS] for _, t, _ in canonical)
    if target - reads >= 0.1:
        caption += (
            f" BAOAB with an inner step of {first.run.inner_fs:g} fs reads {target - reads:.1f} K "
            "low here; that is no cooling."
        )
    return Plot(
        "temperature-law",
        "Temperature and its exact law",
        caption,
        to_svg(figure, "tlaw", "Histogram of the temperature with the exact law"),
    )


def _kinetic_plot(runs: Sequence[tuple[Measured, Temperatures]], palette: Palette) -> Plot | None:
    names = list(dict.fromkeys(name for _, t in runs for name in t.kinetic))
    shown = [(m, t) for m, t in runs if len(t.kinetic) > 1]
    if not shown:
        return None
    figure, axes = new_figure(1.0 + 0.3 * len(names) + 0.14 * len(names) * len(shown))
    spread = 0.6 / max(1, len(shown))
    named: set[str] = set()
    for row, name in enumerate(names):
        for k, (m, t) in enumerate(shown):
            if name not in t.kinetic:
                continue
            y = row + (k - (len(shown) - 1) / 2) * spread
            e = t.kinetic[name]
            axes.errorbar(
                e.mean,
                y,
                # Two standard errors: what the verdicts use.
                xerr=2 * e.stderr if e.known and e.stderr else None,
                fmt="o",
                markersize=5.5,
                color=palette.of(m),
                markerfacecolor=palette.of(m) if e.known else "none",
                elinewidth=1.6,
                label=None if m.run.name in named else m.run.label,
            )
            named.add(m.run.name)
            if m.run.ensemble != "nve":
                ends = [y - spread * 0.42, y + spread * 0.42]
                axes.plot([t.expected[name]] * 2, ends, color=INK, lw=1.4)
    axes.plot([], [], color=INK, lw=1.4, label="expected")
    labels = [with_dash(n) + ("" if n == ATOMS or is_element(n) else " bonds") for n in names]
    axes.set_yticks(range(len(names)), labels)
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("kinetic temperature, K (bars: two standard errors)")
    axes.grid(axis="x", color=INK, alpha=0.12, linewidth=0.6)
    legend_above(axes, len(shown) + 1)
    bonds = any(t.bond_kinds for _, t in shown)
    heat = (
        "Heat from multiple time stepping shows first in the X–H bonds (relative velocity along "
        "the bond). "
        if bonds
        else ""
    )
    return Plot(
        "kinetic",
        "Temperature by element" + (" and of bonds" if bonds else ""),
        f"{heat}Ticks: the expected value, the integrator's own bias included.",
        to_svg(figure, "kinetic", "Temperatures by element with expected values"),
    )


def _time_plot(runs: Sequence[tuple[Measured, Temperatures]], palette: Palette) -> Plot | None:
    shown = [
        (m, t.series_K)
        for m, t in runs
        if t.series_K is not None and len(m.time_ps) >= FEWEST_DRAWN
    ]
    if not shown:
        return None
    figure, axes = new_figure()
    for m, temperature in shown:
        window = max(1, len(m.time_ps) // 60)
        n = len(m.time_ps) // window * window
        time = m.time_ps[:n].reshape(-1, window).mean(axis=1)
        series = temperature[:n].reshape(-1, window).mean(axis=1)
        axes.plot(time, series, color=palette.of(m), linewidth=1.4, label=m.run.label)
    target = shown[0][0].run.temperature_K
    axes.axhline(target, color=INK, linewidth=1.0, linestyle=(0, (4, 2)))
    mark_left_out(axes, max(m.skip_ps for m, _ in shown))
    axes.set_xlim(0, max(float(m.time_ps[-1]) for m, _ in shown))
    axes.set_xlabel("time, ps")
    axes.set_ylabel("temperature, K")
    legend_above(axes, len(shown))
    return Plot(
        "temperature-time",
        "Temperature over time",
        "Averages over a sixtieth of the run. A run that heats climbs here. Grey: left out.",
        to_svg(figure, "ttime", "Temperature over time"),
    )


TEMPERATURE = Temperature()
