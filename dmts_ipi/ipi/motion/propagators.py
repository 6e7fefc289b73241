"""The registry of propagators: what ``<dynamics splitting='NAME'>`` may name, and what each is.

Our own rows are integrators of i-PI and ours for i-PI (``Splitting``): described here, made by
``respa.RespaDynamics``. A package outside ours adds rows by entry points of the group
``dmts_ipi.propagators``, classes that meet ``core.propagator.Propagator``:
``docs/extending/propagator.md``.
"""

from __future__ import annotations

from dataclasses import dataclass

from dmts_ipi.core.propagator import Propagator
from dmts_ipi.core.registry import Registry
from dmts_ipi.ipi.thermostats import RESPA


@dataclass(frozen=True)
class Splitting:
    """An integrator of i-PI's, or of ours for i-PI; attributes as of ``Propagator``."""

    label: str
    symplectic: bool
    reversible: bool
    conserves: str
    ensembles: tuple[str, ...]


_ENERGY = "energy in nve, else energy and heat (i-PI's conserved quantity), but for the time step"
_ALL = ("nve", "nvt", "npt", "nst", "sc", "scnpt", "nvt-cc")

PROPAGATORS: Registry[type[Propagator] | Splitting] = Registry(
    "propagators",
    "dynamics splitting",
    {
        "obabo": Splitting(
            "i-PI's OBABO: the thermostat twice per outer step, velocity Verlet RESPA in between",
            True,
            True,
            _ENERGY,
            _ALL,
        ),
        "baoab": Splitting(
            "i-PI's BAOAB: the thermostat once per outer step, in the middle of it",
            True,
            True,
            _ENERGY,
            _ALL,
        ),
        RESPA: Splitting(
            "BAOAB-RESPA (Algorithm 1 of DOI 10.1021/acs.jctc.6c00653): the thermostat in the "
            "middle of every inner drift",
            True,
            True,
            _ENERGY,
            ("nve", "nvt", "npt"),
        ),
    },
)
