"""The observables, by name, in the order in which they are measured and compared."""

from __future__ import annotations

from typing import Any

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.registry import Registry

from .base import Observable

_HERE = __package__

OBSERVABLES: Registry[Observable[Any]] = Registry(
    "observables",
    "observable",
    {
        "speed": f"{_HERE}.speed:SPEED",
        "temperature": f"{_HERE}.temperature:TEMPERATURE",
        "configurational_temperature": f"{_HERE}.configurational:CONFIGURATIONAL",
        "potential_energy": f"{_HERE}.potential:POTENTIAL",
        "conserved_quantity": f"{_HERE}.conserved:CONSERVED",
        "constant_pressure": f"{_HERE}.constant_pressure:CONSTANT_PRESSURE",
        "diffusion": f"{_HERE}.diffusion:DIFFUSION",
        "velocity_spectrum": f"{_HERE}.velocity_spectrum:VELOCITY_SPECTRUM",
        "pair_distribution": f"{_HERE}.pair_distribution:PAIR_DISTRIBUTION",
        "force_difference": f"{_HERE}.force_difference:FORCE_DIFFERENCE",
    },
)


def observables() -> list[Observable[Any]]:
    """All observables: ours, then those of other packages by name.

    Raises:
        InputError: one of another package cannot be imported, or is no ``Observable``.
    """
    rows = []
    for name, row in OBSERVABLES.rows().items():
        if not isinstance(row, Observable):
            raise InputError("observable", name, "must be an object of a subclass of Observable")
        if row.name != name:
            raise InputError(
                "observable",
                name,
                f"is registered under another name than its own, {row.name!r}; use one name",
            )
        rows.append(row)
    return rows


def page_order() -> list[Observable[Any]]:
    """All observables in the order in which a reader meets them.

    Raises:
        InputError: as ``observables``.
    """
    return sorted(observables(), key=lambda o: o.page_order)
