"""i-PI's output files: streaming readers, and cutting back to a step.

A process that is killed leaves half a line or half a frame. Readers leave it out and say so; a
file that is cut ends after its last whole record.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from ase import units as ase_units
from ase.cell import Cell

from dmts_ipi.core.errors import InputError

from . import fixed_width

# i-PI's name of a property -> our key, its kind of unit, our unit in i-PI's words
PROPERTIES: dict[str, tuple[str, str, str]] = {
    "step": ("step", "number", ""),
    "time": ("time_ps", "time", "picosecond"),
    "conserved": ("conserved_eV", "energy", "electronvolt"),
    "temperature": ("temperature_K", "temperature", "kelvin"),
    "kinetic_md": ("kinetic_eV", "energy", "electronvolt"),
    "potential": ("potential_eV", "energy", "electronvolt"),
    "pressure_md": ("pressure_bar", "pressure", "bar"),
    "volume": ("volume_A3", "volume", "angstrom3"),
    "density": ("density_g_cm3", "density", "g/cm3"),
}
LONGEST_TITLE = 300  # letters
_HEADER = re.compile(r"#\s*(?:column|cols\.)\s+(\d+)(?:-(\d+))?\s+-->\s+(\S+)")
_TITLE = re.compile(r"Step:\s+(-?\d+)\s+Bead:\s+\d+\s+(\w+)\{([^}]*)\}\s+cell\{([^}]*)\}")
_CELL = re.compile(r"CELL\(abcABC\):((?:\s+[-+.\deE]+){6})")


@lru_cache(maxsize=64)
def _in_unit(dimension: str, unit: str, wanted: str) -> float:
    """Factor from one of i-PI's units to another."""
    from ipi.utils.units import unit_to_internal

    if dimension == "number" or unit == wanted:
        return 1.0
    return float(unit_to_internal(dimension, unit, 1.0) / unit_to_internal(dimension, wanted, 1.0))


@dataclass
class _Column:
    key: str
    first: int
    last: int
    factor: float


@dataclass
class PropertyReader:
    """Reads a properties file as it grows.

    ``read`` returns the whole lines that are new since the call before, as a dictionary of
    arrays: our keys and units for ``PROPERTIES``, i-PI's own name for any other column ((n, k)
    where it has k columns). ``incomplete`` says whether the file ends within a line.
    """

    path: Path
    offset: int = 0
    incomplete: bool = False
    _columns: list[_Column] = field(default_factory=list)

    def read(self) -> dict[str, np.ndarray]:
        """New whole lines; empty before the file exists.

        Raises:
            InputError: a line has too few columns or is no row of numbers.
        """
        rows: list[list[float]] = []
        try:
            with open(self.path, "rb") as stream:
                stream.seek(self.offset)
                block = stream.read()
        except FileNotFoundError:
            return {}
        end = block.rfind(b"\n") + 1
        self.incomplete = end < len(block)
        self.offset += end
        for line in block[:end].decode("utf-8", "replace").splitlines():
            if line.startswith("#"):
                self._header(line)
            elif line.strip():
                rows.append(self._row(line))
        return self._arrays(rows)

    def take(self, line: str, step: int) -> bool:
        """Reads one line; returns whether it is a record after ``step``."""
        if line.startswith("#"):
            self._header(line)
            return False
        if not line.strip():
            return False
        row = self._row(line)
        return any(c.key == "step" and round(row[c.first]) > step for c in self._columns)

    def _header(self, line: str) -> None:
        match = _HEADER.match(line)
        if not match:
            return
        name, _, unit = match[3].rstrip(":").partition("{")
        key, dimension, wanted = PROPERTIES.get(name, (match[3], "number", ""))
        factor = _in_unit(dimension, unit.rstrip("}") or "atomic_unit", wanted)
        first = int(match[1]) - 1
        last = int(match[2]) if match[2] else first + 1
        self._columns = [c for c in self._columns if c.first < first]
        self._columns.append(_Column(key, first, last, factor))

    def _row(self, line: str) -> list[float]:
        try:
            row = [float(word) for word in line.split()]
        except ValueError:
            row = []
        if not self._columns or len(row) < self._columns[-1].last:
            raise InputError(str(self.path), line.strip()[:60], "is not a line of i-PI properties")
        return row

    def _arrays(self, rows: list[list[float]]) -> dict[str, np.ndarray]:
        if not self._columns:
            return {}
        table = np.array(rows, float) if rows else np.zeros((0, self._columns[-1].last))
        out: dict[str, np.ndarray] = {}
        for c in self._columns:
            values = table[:, c.first : c.last] * c.factor
            out[c.key] = values[:, 0] if c.last == c.first + 1 else values
        if "step" in out:
            out["step"] = np.rint(out["step"]).astype(int)
        return out


def read_properties(path: Path) -> dict[str, np.ndarray]:
    """All whole lines of a properties file (keys and units: ``PropertyReader``).

    Raises:
        InputError: the file is absent or is no properties file.
    """
    if not path.is_file():
        raise InputError("file", path, "does not exist; has the run started?")
    columns = PropertyReader(path).read()
    if "step" not in columns:
        raise InputError("file", path, "has no column 'step'; is it a properties file of i-PI?")
    return columns


@dataclass(frozen=True)
class TrajectoryFrame:
    """One frame. ``values`` (n, 3) in Angstrom or A/fs, ``cell`` (3, 3) Angstrom, rows;
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
    """Factor from a trajectory's unit to Angstrom (positions) or A/fs (velocities)."""
    if quantity.startswith("v"):
        return _in_unit("velocity", unit, "ase") * float(ase_units.fs)
    return _in_unit("length", unit, "ase")


def iter_trajectory(path: Path, skip_values: bool = False) -> Iterator[TrajectoryFrame]:
    """Frames of an i-PI trajectory (``xyz`` or ``bin``, by the file's ending), one at a time.

    An incomplete last frame ends the iteration. With ``skip_values`` the arrays are empty.

    Raises:
        InputError: the file is absent, or is no trajectory of i-PI.
    """
    try:
        stream = open(path, "rb")  # noqa: SIM115 - closed by the with below
    except FileNotFoundError as error:
        raise InputError("file", path, "does not exist; has the run started?") from error
    with stream:
        frame = _next_bin if path.suffix == ".bin" else _next_xyz
        while (found := frame(stream, path, skip_values)) is not None:
            yield found


def _title(text: str, path: Path) -> tuple[int, str, float, float]:
    match = _TITLE.search(text)
    if not match:
        raise InputError("file", path, f"is no trajectory of i-PI: title {text.strip()[:60]!r}")
    quantity = match[2]
    return (
        int(match[1]),
        quantity,
        _to_inside(quantity, match[3]),
        _in_unit("length", match[4], "ase"),
    )


def _next_xyz(stream: BinaryIO, path: Path, skip: bool) -> TrajectoryFrame | None:
    start = stream.tell()
    head, comment = stream.readline(), stream.readline()
    if not comment.endswith(b"\n"):
        return None
    try:
        n = int(head)
    except ValueError as error:
        raise InputError("file", path, f"byte {start} should be a number of atoms") from error
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
    text = comment.decode("utf-8", "replace")
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


def last_step(path: Path) -> int | None:
    """Step of the last whole record of a properties file or a trajectory; None: there is none."""
    if not path.exists():
        return None
    if path.suffix in (".xyz", ".bin"):
        last = None
        for frame in iter_trajectory(path, skip_values=True):
            last = frame.step
        return last
    columns = PropertyReader(path).read()
    return int(columns["step"][-1]) if len(columns.get("step", ())) else None


def cut(path: Path, step: int) -> None:
    """Drops every record after ``step``, and an incomplete one at the end. Other files: nothing.

    Args:
        path: properties file or trajectory; an absent one is left alone.
        step: last step that is kept.
    """
    if not path.is_file():
        return
    end = (
        _end_of_trajectory(path, step)
        if path.suffix in (".xyz", ".bin")
        else _end_of_lines(path, step)
    )
    if end < path.stat().st_size:
        with open(path, "r+b") as stream:
            stream.truncate(end)


def _end_of_trajectory(path: Path, step: int) -> int:
    frames = iter_trajectory(path, skip_values=True)
    end, previous = 0, None
    for frame in frames:
        if frame.step > step:
            return frame.start
        previous = frame
    if previous is not None:  # the end of the last whole frame is one frame length further
        with open(path, "rb") as stream:
            stream.seek(previous.start)
            (_next_bin if path.suffix == ".bin" else _next_xyz)(stream, path, True)
            end = stream.tell()
    return end


def _end_of_lines(path: Path, step: int) -> int:
    reader, end = PropertyReader(path), 0
    with open(path, "rb") as stream:
        for line in stream:
            if not line.endswith(b"\n"):
                break
            if reader.take(line.decode("utf-8", "replace"), step):
                break
            end += len(line)
    return end
