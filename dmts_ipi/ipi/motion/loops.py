"""Compiled loops of the integrator: those of inner_step.c and of bond_step.c."""

from __future__ import annotations

import ctypes
from pathlib import Path

from dmts_ipi.core.compiled import NotCompiled, fits, library

# no contraction: a fused multiply-add rounds once where NumPy rounds twice
EXACT = ("-fno-math-errno", "-ffp-contract=off", "-fopenmp-simd")
FLAGS = ("-std=gnu11", "-O3", *EXACT, "-fPIC", "-c")
POINTER, NUMBER, COUNT = ctypes.c_void_p, ctypes.c_double, ctypes.c_int64

_found: dict[str, ctypes.CDLL | NotCompiled] = {}


def loops(unit: str, size: str, record: type[ctypes.Structure], **functions: tuple) -> ctypes.CDLL:
    """Compiles and loads the functions of a C file in this folder, at most once per process.

    Args:
        unit: the file.
        size: its function that returns the bytes of its record.
        record: whose address every other function takes first.
        functions: by name, what each returns and takes after that address.

    Raises:
        NotCompiled: there is no compiler, or the record is another one.
    """
    if unit not in _found:
        try:
            _found[unit] = _declared(Path(__file__).with_name(unit), size, record, functions)
        except NotCompiled as error:
            _found[unit] = error
    compiled = _found[unit]
    if isinstance(compiled, NotCompiled):
        raise compiled
    return compiled


def _declared(
    unit: Path, size: str, record: type[ctypes.Structure], functions: dict[str, tuple]
) -> ctypes.CDLL:
    compiled = library(unit.stem.replace("_", "-"), [unit], FLAGS)
    fits(compiled, size, record)
    for name, (result, *after) in functions.items():
        function = getattr(compiled, name)
        function.argtypes, function.restype = [POINTER, *after], result
    return compiled
