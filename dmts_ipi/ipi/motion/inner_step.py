"""The update between two force evaluations of an inner step, as one compiled call.

Kick, drift, thermostat and drift are a dozen calls of NumPy, which cost more than the arithmetic of
a thousand atoms. Positions and momenta are those of NumPy to the last bit, so a run does not depend
on whether there is a compiler.
"""

from __future__ import annotations

import ctypes

import numpy as np

from dmts_ipi.core.compiled import NotCompiled

from .loops import COUNT, NUMBER, POINTER, loops

_ARRAYS = ("q", "p", "drift", "root_mass", "decay", "noise")


class _Inner(ctypes.Structure):
    """``inner_t`` of inner_step.c."""

    _fields_ = [
        ("n", ctypes.c_int64),
        ("fast_forward", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in _ARRAYS),
    ]


class InnerStep:
    """The inner steps of one outer step, on momenta and positions (3 n,) that are changed in place.

    Args:
        q: positions, bohr. p: momenta, atomic units.
        drift: half of the inner step over the mass of each degree of freedom.
        root_mass, decay, noise: sqrt(m), exp(-d / tau) and sqrt(kT (1 - decay^2)) of the O step.
        fast_forward: FFL in the place of Langevin.

    Attributes:
        q, p: as given. n: how many degrees of freedom.

    Raises:
        NotCompiled: there is no compiler, or an array is not as expected.
    """

    def __init__(
        self,
        q: np.ndarray,
        p: np.ndarray,
        drift: np.ndarray,
        root_mass: np.ndarray,
        decay: np.ndarray,
        noise: np.ndarray,
        fast_forward: bool,
    ) -> None:
        self._functions = loops(
            "inner_step.c",
            "inner_size",
            _Inner,
            inner_step=(NUMBER, POINTER, NUMBER, COUNT, POINTER),
            inner_kick_and_drift=(None, POINTER, NUMBER, COUNT),
            inner_atoms=(NUMBER, POINTER),
            inner_drift=(None,),
        )
        self.q, self.p, self.n = q, p, len(q)
        self._arrays = q, p, drift, root_mass, decay, noise  # kept, as C sees their addresses
        for name, a in zip(_ARRAYS, self._arrays, strict=True):
            if a.dtype != np.float64 or a.shape != q.shape or not a.flags.c_contiguous:
                raise NotCompiled(f"{name} is no array of {len(q)} doubles")
        self._inner = _Inner(len(q), fast_forward, *(a.ctypes.data for a in self._arrays))
        self._at = ctypes.byref(self._inner)

    def step(self, force: np.ndarray, half: float, kicks: int, normal: np.ndarray) -> float:
        """Kicks, drift, O, drift.

        Args:
            force: (3 n,), at q. half: time step of a kick.
            kicks: 2 where the step before has not had its second one. normal: (3 n,) random.

        Returns:
            The energy that went to the bath, hartree.
        """
        force = np.ascontiguousarray(force, np.float64)
        at = force.ctypes.data, half, kicks, normal.ctypes.data
        return float(self._functions.inner_step(self._at, *at))

    def kick_and_drift(self, force: np.ndarray, half: float, kicks: int) -> None:
        """The first two parts of ``step``."""
        force = np.ascontiguousarray(force, np.float64)
        self._functions.inner_kick_and_drift(self._at, force.ctypes.data, half, kicks)

    def atoms(self, normal: np.ndarray) -> float:
        """The third one: O of the atoms. Returns the energy that went to the bath, hartree."""
        return float(self._functions.inner_atoms(self._at, normal.ctypes.data))

    def drift(self) -> None:
        """The last one."""
        self._functions.inner_drift(self._at)
