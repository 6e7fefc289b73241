"""The conserved quantity: its slope is the energy that the integrator adds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dmts_ipi.analysis.comparison import ZERO, Comparison, against_value
from dmts_ipi.analysis.figures import INK, Palette, Plot, legend_above, new_figure, to_svg
from dmts_ipi.analysis.formatting import Card, plus_minus, value_and_rest
from dmts_ipi.analysis.measure import Measured
from dmts_ipi.core.statistics import Estimate, slope_stderr
from dmts_ipi.core.units import KB_EV_PER_K

from .base import FEWEST_DRAWN, Column, Observable, Sampler, estimate_record
from .potential import POTENTIAL
from .temperature import TOLERANCE_K

DRIFT_TOLERANCE_MEV = 1.0
DRIFT_UNIT = "meV/atom/ps"
UNKNOWN = Estimate(math.nan, math.nan, math.nan, 0)


@dataclass(frozen=True)
class ConservedQuantity:
    """``series`` (lines,) in meV/atom about its first value after equilibration; ``drift`` in
    meV/atom/ps.

    ``heating_K``: excess temperature at which the thermostat takes out what the integrator puts in.
    The conserved quantity counts the thermostat's heat, so its slope is the integrator's power.
    Langevin friction g removes 2 g (K - K0): a power that would heat 3N kB by P K/ps settles at
    P / g. Known long before the mean temperature is. NaN without an energy, with another
    thermostat, or with several beads, whose modes have frictions of their own.
    ``has_energy``: see ``PotentialEnergy.varies``.
    """

    series: np.ndarray
    drift: Estimate
    heating_K: Estimate
    has_energy: bool


class Conserved(Observable[ConservedQuantity]):
    """Drift in NVE, heating by the integrator with a Langevin thermostat."""

    name = "conserved_quantity"
    page_order = 80

    def measure(self, m: Measured, sampler: Sampler | None) -> ConservedQuantity | None:
        """From the properties; None where they don't hold it."""
        run = m.run
        values = run.properties.get("conserved_eV")
        if values is None:
            m.notes.append(
                "no 'conserved{electronvolt}' among the properties: no drift, no heating"
            )
            return None
        values = np.asarray(values, float)
        per_atom = 1000.0 / len(run.numbers)
        energy = POTENTIAL.get(m)
        has_energy = energy is None or energy.varies
        drift = slope_stderr(m.kept(m.time_ps), m.kept(values) * per_atom)
        heating = UNKNOWN
        if run.langevin_per_ps is not None and has_energy and run.n_beads == 1:
            moving = float(run.moving.mean())
            factor = 1 / (3000 * KB_EV_PER_K * run.langevin_per_ps * moving)
            heating = Estimate(
                drift.mean * factor, drift.stderr * factor, drift.inefficiency, drift.n
            )
        series = (values - m.kept(values)[0]) * per_atom
        return ConservedQuantity(series, drift, heating, has_energy)

    def against_theory(self, m: Measured, reference: Measured | None) -> list[Comparison]:
        """Drift (NVE) or heating against zero."""
        c = self.of(m)
        if m.run.ensemble == "nve":
            if not c.has_energy:
                return []
            name = "drift of the conserved quantity"
            return [against_value(m, name, c.drift, 0.0, DRIFT_TOLERANCE_MEV, DRIFT_UNIT, ZERO)]
        if not math.isfinite(c.heating_K.mean):
            return []
        name = "heating by the integrator"
        return [against_value(m, name, c.heating_K, 0.0, TOLERANCE_K, "K", ZERO)]

    def plots(self, measured: Sequence[Measured], palette: Palette) -> list[Plot]:
        """Over time."""
        shown = [
            (m, c)
            for m, c in self.shown(palette.reference_first(measured))
            if len(m.time_ps) >= FEWEST_DRAWN and c.has_energy
        ]
        if not shown:
            return []
        figure, axes = new_figure()
        for m, c in shown:
            change = c.series - c.series[0]
            axes.plot(m.time_ps, change, color=palette.of(m), linewidth=1.3, label=m.run.label)
        axes.axhline(0, color=INK, alpha=0.25, linewidth=0.7)
        axes.set_xlim(0, max(float(m.time_ps[-1]) for m, _ in shown))
        axes.set_xlabel("time, ps")
        axes.set_ylabel("change, meV/atom")
        legend_above(axes, len(shown))
        return [
            Plot(
                "conserved",
                "Conserved quantity",
                "Its slope is the energy that the integrator adds; the thermostat takes it out in "
                "NVT.",
                to_svg(figure, "conserved", "Conserved quantity over time"),
            )
        ]

    def record(self, m: Measured, arrays: bool) -> dict[str, Any]:
        """Drift and heating."""
        c = self.get(m)
        return {
            "drift_meV_per_atom_ps": estimate_record(c.drift if c is not None else UNKNOWN),
            "heating_K": estimate_record(c.heating_K if c is not None else UNKNOWN),
        }

    def series(self, m: Measured) -> dict[str, np.ndarray]:
        """The quantity per atom."""
        return {"conserved_meV_per_atom": self.of(m).series}

    def columns(self, measured: Sequence[Measured], reference: Measured | None) -> list[Column]:
        """The drift."""
        cells = {
            m.run.name: plus_minus(c.drift.mean, c.drift.stderr, signed=True)
            for m, c in self.shown(measured)
        }
        return [Column("Drift, meV/atom/ps", cells)] if cells else []

    def cards(
        self, m: Measured, reference: Measured | None, comparisons: Sequence[Comparison]
    ) -> list[Card]:
        """The drift, in NVE."""
        drift = next((c for c in comparisons if c.unit == DRIFT_UNIT and c.against == ZERO), None)
        if drift is None:
            return []
        text = plus_minus(drift.value, drift.stderr, drift.unit, signed=True)
        verdict = drift.verdict
        return [Card("Drift", *value_and_rest(text), "", verdict.status, verdict.text)]


CONSERVED = Conserved()
