"""The configurational temperature, where it was asked for (``analysis.configurational``)."""

from __future__ import annotations

from typing import Any

from dmts_ipi.analysis.comparison import Comparison, against_value
from dmts_ipi.analysis.configurational import Configurational
from dmts_ipi.analysis.formatting import estimate_text
from dmts_ipi.analysis.measure import Measured

from .base import Observable, Sampler, estimate_record
from .temperature import ATOMS, TEMPERATURE, TOLERANCE_K


class ConfigurationalTemperature(Observable[Configurational]):
    """It needs evaluations of the model: ``dmts-ipi analyze --configurational`` stores a result."""

    name = "configurational_temperature"
    page_order = 25

    def measure(self, m: Measured, sampler: Sampler | None) -> Configurational | None:
        """None: see ``store``."""
        return None

    def store(self, m: Measured, result: Configurational) -> None:
        """Keeps what was measured with a model."""
        m.results[self.name] = result

    def against_theory(self, m: Measured, reference: Measured | None) -> list[Comparison]:
        """T where the positions are those of BAOAB, else T/(1 - b).

        b is that of the stiffest X-H stretch, which rules the squared force (``kinetic``).
        """
        if m.run.ensemble == "nve":
            return []
        expected = m.run.temperature_K
        temperatures = TEMPERATURE.get(m)
        if temperatures is not None and not temperatures.kinetic_bias:
            bias = max((k.bias_fraction for k in temperatures.bond_kinds), default=0.0)
            expected /= 1 - bias
        e = self.of(m).temperature_K[ATOMS]
        return [against_value(m, "configurational temperature", e, expected, TOLERANCE_K, "K")]

    def record(self, m: Measured, arrays: bool) -> dict[str, Any]:
        """Of atoms and of elements; null where it was not asked for."""
        result = self.get(m)
        if result is None:
            return {"configurational_K": None}
        return {
            "configurational_K": {k: estimate_record(e) for k, e in result.temperature_K.items()}
        }

    def terminal(self, m: Measured, reference: Measured | None) -> list[str]:
        """Of atoms."""
        return [f"T of positions {estimate_text(self.of(m).temperature_K[ATOMS], 'K')}"]


CONFIGURATIONAL = ConfigurationalTemperature()
