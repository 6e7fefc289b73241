"""Loops over the pairs of the bond thermostat, compiled: see bond_step.c."""

from __future__ import annotations

import ctypes

import numpy as np

from .loops import COUNT, NUMBER, POINTER, loops

_SIZES = ("atoms", "listed", "used")
_ARRAYS = {
    **{"listed_at": np.float64, "inverse_mass": np.float64, "i": np.int64, "j": np.int64},
    **{"image": np.float64, "off": np.float64, "slope": np.float64, "active": np.bool_},
    **{"use": np.int64, "mu": np.float64, "d": np.float64, "r": np.float64, "weight": np.float64},
}


class _Bonds(ctypes.Structure):
    """``bonds_t`` of bond_step.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in _SIZES),
        *((name, ctypes.c_void_p) for name in _ARRAYS),
    ]


class BondLoops:
    """The loops over the listed pairs of a system.

    Attributes:
        d, r, weight: (m, 3), (m,), (m,) of the last ``weights``: vectors from j to i, their
            lengths, weights.

    Raises:
        NotCompiled: there is no compiler.
    """

    def __init__(self) -> None:
        self._functions = loops(
            "bond_step.c",
            "bonds_size",
            _Bonds,
            bonds_moved=(NUMBER, POINTER),
            bonds_weights=(COUNT, POINTER),
            bonds_update=(NUMBER, POINTER, POINTER, POINTER, COUNT),
        )
        self._bonds = _Bonds()
        self._at = ctypes.byref(self._bonds)
        self._held_arrays: dict[str, np.ndarray] = {}
        self.d, self.r, self.weight = np.empty((0, 3)), np.empty(0), np.empty(0)

    def set(self, **arrays: np.ndarray) -> None:
        """Sets arrays of ``bonds_t`` in bond_step.c by name; they are kept until set again."""
        for name, a in arrays.items():
            a = self._held_arrays[name] = np.ascontiguousarray(a, _ARRAYS[name])
            setattr(self._bonds, name, a.ctypes.data)
        sizes = {"listed_at": "atoms", "i": "listed", "use": "used"}
        for name in sizes.keys() & arrays.keys():
            setattr(self._bonds, sizes[name], len(self._held_arrays[name]))
        if "i" in arrays:
            m = len(self._held_arrays["i"])
            self.d, self.r, self.weight = np.empty((m, 3)), np.empty(m), np.empty(m)
            self.set(d=self.d, r=self.r, weight=self.weight)

    def moved(self, q: np.ndarray) -> float:
        """Largest squared displacement since the pairs were listed; positions (n, 3)."""
        return float(self._functions.bonds_moved(self._at, q.ctypes.data))

    def weights(self, q: np.ndarray) -> bool:
        """Fills ``d``, ``r``, ``weight``. Returns whether the active pairs are unchanged."""
        return bool(self._functions.bonds_weights(self._at, q.ctypes.data))

    def update(self, p: np.ndarray, loss: np.ndarray, kick: np.ndarray, forward: bool) -> float:
        """Updates momenta (n, 3) in place for the active pairs.

        Returns:
            The energy given to the bath.
        """
        at = p.ctypes.data, loss.ctypes.data, kick.ctypes.data
        return float(self._functions.bonds_update(self._at, *at, forward))
