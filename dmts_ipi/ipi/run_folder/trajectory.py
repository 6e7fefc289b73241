"""i-PI's trajectories, in every format that it writes: frame by frame, and where each one ends.

A process that is killed leaves half a frame: it is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from ase import units as ase_units
from ase.cell import Cell

from dmts_ipi.core.errors import InputError
from dmts_ipi.ipi import fixed_width

LONGEST_TITLE = 300  # letters
_TITLE = re.compile(r"Step:\s+(-?\d+)\s+Bead:\s+\d+\s+(\w+)\{([^}]*)\}\s+cell\{([^}]*)\}")
_CELL = re.compile(r"CELL\(abcABC\):((?:\s+[-+.\deE]+){6})")
_LATTICE = re.compile(r'Lattice="([^"]*)"')
_EXTRAS = re.compile(rb"\s*#EXTRAS\w*\([^)]*\)#\s+Step:\s+(\d+)")


@lru_cache(maxsize=64)
def unit_factor(dimension: str, unit: str, wanted: str) -> float:
    """Factor from one of i-PI's units to another."""
    from ipi.utils.units import unit_to_internal

    if dimension == "number" or unit == wanted:
        return 1.0
    return float(unit_to_internal(dimension, unit, 1.0) / unit_to_internal(dimension, wanted, 1.0))


@dataclass(frozen=True)
class TrajectoryFrame:
    """One frame. ``values`` (n, 3) in Angstrom, A/fs or eV/A, ``cell`` (3, 3) Angstrom, rows;
    ``start`` is its offset in the file, ``quantity`` i-PI's name of what is stored."""

    step: int
    quantity: str
    values: np.ndarray
    cell: np.ndarray
    start: int


@lru_cache(maxsize=4)
def _cell(parameters: str) -> np.ndarray:
    """Rows of a cell from its lengths and angles as text; most runs have one cell."""
    return np.asarray(Cell.fromcellpar([float(x) for x in parameters.split()]).array, float)


@lru_cache(maxsize=16)
def _to_inside(quantity: str, unit: str) -> float:
    """Factor from a trajectory's unit to Angstrom (positions), A/fs (velocities) or eV/A."""
    if quantity.startswith("force"):
        return unit_factor("force", unit, "ase")
    if quantity.startswith("v"):
        return unit_factor("velocity", unit, "ase") * float(ase_units.fs)
    return unit_factor("length", unit, "ase")


def iter_trajectory(path: Path, skip_values: bool = False) -> Iterator[TrajectoryFrame]:
    """Frames of an i-PI trajectory, one at a time; its format is read off the file's ending.

    An incomplete last frame ends the iteration. With ``skip_values`` the arrays are empty.

    Raises:
        InputError: the file is absent, of no format of i-PI's, or damaged.
    """
    if path.suffix not in FORMATS:
        raise InputError("file", path, f"must end with one of {', '.join(FORMATS)}")
    try:
        stream = open(path, "rb")  # noqa: SIM115 - closed by the with below
    except FileNotFoundError as error:
        raise InputError("file", path, "does not exist; has the run started?") from error
    with stream:
        while (frame := FORMATS[path.suffix](stream, path, skip_values)) is not None:
            yield frame


def records(path: Path, offset: int = 0) -> Iterator[tuple[int, int, int]]:
    """Start, end and step of every whole record of a trajectory, or of a file of extras.

    Args:
        path: the file.
        offset: where a record begins; of extras 0 only.

    Raises:
        InputError: the file is damaged.
    """
    with open(path, "rb") as stream:
        if path.suffix not in FORMATS:
            yield from _extras(stream)
            return
        stream.seek(offset)
        while (frame := FORMATS[path.suffix](stream, path, True)) is not None:
            yield frame.start, stream.tell(), frame.step


def is_extras(path: Path) -> bool:
    """Whether a file holds texts that i-PI got from a driver."""
    with open(path, "rb") as stream:
        return _EXTRAS.match(stream.readline()) is not None


def _title(text: str, path: Path) -> tuple[int, str, float, float]:
    match = _TITLE.search(text)
    if not match:
        raise InputError("file", path, f"is not a trajectory of i-PI: title {text.strip()[:60]!r}")
    quantity = match[2]
    return (
        int(match[1]),
        quantity,
        _to_inside(quantity, match[3]),
        unit_factor("length", match[4], "ase"),
    )


def _begin(stream: BinaryIO, path: Path) -> tuple[int, str] | None:
    """Number of atoms and comment of a frame of (ext)xyz; None where they are not whole."""
    start = stream.tell()
    head, comment = stream.readline(), stream.readline()
    if not comment.endswith(b"\n"):
        return None
    try:
        return int(head), comment.decode("utf-8", "replace")
    except ValueError as error:
        raise InputError("file", path, f"byte {start} should be a number of atoms") from error


def _next_xyz(stream: BinaryIO, path: Path, skip: bool) -> TrajectoryFrame | None:
    start = stream.tell()
    if (first := _begin(stream, path)) is None:
        return None
    n, text = first
    body = stream.tell()
    block = stream.read(n * fixed_width.LINE)
    values = None if skip else fixed_width.parse(block, n)
    if values is None and not (skip and block.count(b"\n") == n and block.endswith(b"\n")):
        stream.seek(body)
        lines = [stream.readline() for _ in range(n)]
        if n and not lines[-1].endswith(b"\n"):
            return None
        words = b"".join(lines).split()
        values = np.array(words[1::4] + words[2::4] + words[3::4]).astype(float).reshape(3, n).T
    step, quantity, factor, cell_factor = _title(text, path)
    if skip or values is None:
        return TrajectoryFrame(step, quantity, np.zeros((0, 3)), np.zeros((3, 3)), start)
    match = _CELL.search(text)
    cell = np.zeros((3, 3))
    if match:
        cell = _cell(match[1]) * cell_factor
    return TrajectoryFrame(step, quantity, values * factor, cell, start)


def _next_bin(stream: BinaryIO, path: Path, skip: bool) -> TrajectoryFrame | None:
    """i-PI's binary frame: h (9 doubles), n, 3n doubles, length, names and title in UTF-32."""
    start = stream.tell()
    head = stream.read(80)
    if len(head) < 80:
        return None
    h = np.frombuffer(head, float, 9).reshape(3, 3)
    n = int(np.frombuffer(head, np.int64, 1, 72)[0])
    if not 0 < n < 10**9:
        raise InputError("file", path, f"byte {start} should be the start of a binary frame")
    data = stream.read(24 * n)
    size = stream.read(8)
    names = stream.read(4 * int(np.frombuffer(size, np.int64)[0])) if len(size) == 8 else b""
    after = stream.tell()
    tail = stream.read(4 * LONGEST_TITLE)
    cell = tail.find("cell{".encode("utf-32-le"))
    end = tail.find("}".encode("utf-32-le"), cell) + 4
    if cell < 0 or end < 4:
        return None
    title = tail[:end].decode("utf-32-le", "replace")
    stream.seek(after + end)
    if not names:
        return None
    step, quantity, factor, cell_factor = _title(title, path)
    if skip:
        return TrajectoryFrame(step, quantity, np.zeros((0, 3)), np.zeros((3, 3)), start)
    values = np.frombuffer(data, float).reshape(n, 3) * factor
    return TrajectoryFrame(step, quantity, values, h.T * cell_factor, start)


def _next_extxyz(stream: BinaryIO, path: Path, skip: bool) -> TrajectoryFrame | None:
    """ASE's extended xyz, with i-PI's title in its comment; the quantity is in the last columns."""
    start = stream.tell()
    if (first := _begin(stream, path)) is None:
        return None
    n, text = first
    lines = [stream.readline() for _ in range(n)]
    if n and not lines[-1].endswith(b"\n"):
        return None
    step, quantity, factor, cell_factor = _title(text, path)
    if skip:
        return TrajectoryFrame(step, quantity, np.zeros((0, 3)), np.zeros((3, 3)), start)
    values = np.array([line.split()[-3:] for line in lines], float).reshape(n, 3)
    match = _LATTICE.search(text)
    cell = np.array(match[1].split(), float).reshape(3, 3) if match else np.zeros((3, 3))
    return TrajectoryFrame(step, quantity, values * factor, cell * cell_factor, start)


def _next_pdb(stream: BinaryIO, path: Path, skip: bool) -> TrajectoryFrame | None:
    """i-PI's PDB frame: TITLE, CRYST1, ATOM lines, END."""
    start = stream.tell()
    title = stream.readline().decode("utf-8", "replace")
    lines = []
    while (line := stream.readline()) != b"END\n":
        if not line.endswith(b"\n"):
            return None
        lines.append(line)
    step, quantity, factor, cell_factor = _title(title, path)
    if skip:
        return TrajectoryFrame(step, quantity, np.zeros((0, 3)), np.zeros((3, 3)), start)
    atoms = [line for line in lines if line.startswith(b"ATOM")]
    columns = [[float(line[k : k + 8]) for k in (31, 39, 47)] for line in atoms]
    cell = np.zeros((3, 3))
    if lines and lines[0].startswith(b"CRYST1"):
        cell = _cell(lines[0][6:54].decode()) * cell_factor
    values = np.array(columns, float).reshape(len(atoms), 3) * factor
    return TrajectoryFrame(step, quantity, values, cell, start)


def _extras(stream: BinaryIO) -> Iterator[tuple[int, int, int]]:
    """Texts of any length, each below its title. A last one of fewer lines than the one before
    it may have been cut short: it is left out."""
    begun: tuple[int, int] | None = None  # start and step
    lines, usual, at = 0, 0, 0
    for line in stream:
        if (match := _EXTRAS.match(line)) is not None:
            if begun is not None:
                yield begun[0], at, begun[1]
                usual = lines
            begun, lines = (at, int(match[1])), 0
        at += len(line)
        lines += 1
        whole = line.endswith(b"\n")
    if begun is not None and whole and lines >= max(usual, 2):
        yield begun[0], at, begun[1]


FORMATS: dict[str, Callable[[BinaryIO, Path, bool], TrajectoryFrame | None]] = {
    ".xyz": _next_xyz,
    ".bin": _next_bin,
    ".extxyz": _next_extxyz,
    ".pdb": _next_pdb,
}
