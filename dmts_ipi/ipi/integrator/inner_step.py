"""What lies between two forces of an inner step, as one compiled call.

Kick, drift, thermostat and drift are a dozen calls of NumPy, which cost more than the arithmetic of
a thousand atoms. Positions and momenta are those of NumPy to the last bit, so a run does not depend
on whether there is a compiler.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dmts_ipi.core.compiled import NotCompiled, library

# no contraction: a fused multiply-add rounds once where NumPy rounds twice
EXACT = ("-fno-math-errno", "-ffp-contract=off", "-fopenmp-simd")
FLAGS = ("-std=gnu11", "-O3", *EXACT, "-fPIC", "-c")
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
        function = _function()
        if isinstance(function, NotCompiled):
            raise function
        self._step = function
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
        return float(self._step(self._at, force.ctypes.data, half, kicks, normal.ctypes.data))


@functools.cache
def _function() -> Callable[..., float] | NotCompiled:
    """``inner_step`` of inner_step.c, or why there is none: looked for once."""
    try:
        loaded = library("inner-step", [Path(__file__).with_name("inner_step.c")], FLAGS)
    except NotCompiled as error:
        return error
    loaded.inner_size.restype = ctypes.c_int64
    if loaded.inner_size() != ctypes.sizeof(_Inner):
        return NotCompiled("its record does not fit the compiled one")
    function: Callable[..., float] = loaded.inner_step
    pointer = ctypes.c_void_p
    loaded.inner_step.argtypes = [pointer, pointer, ctypes.c_double, ctypes.c_int64, pointer]
    loaded.inner_step.restype = ctypes.c_double
    return function
