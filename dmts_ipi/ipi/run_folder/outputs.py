"""i-PI's output files: streaming readers, and cutting back to a step.

A process that is killed leaves half a line or half a frame. Readers leave it out and say so; a
file that is cut ends after its last whole record.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dmts_ipi.core.errors import InputError

from .trajectory import FORMATS, TrajectoryFrame, is_extras, iter_trajectory, records, unit_factor

__all__ = ["TrajectoryFrame", "iter_trajectory"]

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
TAIL_BYTES = 256  # by which a file is known again
_HEADER = re.compile(r"#\s*(?:column|cols\.)\s+(\d+)(?:-(\d+))?\s+-->\s+(\S+)")


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

    def step_of(self, line: str) -> int | None:
        """Reads one line; its step, None where it is no record or has none."""
        if line.startswith("#"):
            self._header(line)
            return None
        if not line.strip():
            return None
        row = self._row(line)
        return next((round(row[c.first]) for c in self._columns if c.key == "step"), None)

    def _header(self, line: str) -> None:
        match = _HEADER.match(line)
        if not match:
            return
        name, _, unit = match[3].rstrip(":").partition("{")
        key, dimension, wanted = PROPERTIES.get(name, (match[3], "number", ""))
        scale = unit_factor(dimension, unit.rstrip("}") or "atomic_unit", wanted)
        first = int(match[1]) - 1
        last = int(match[2]) if match[2] else first + 1
        self._columns = [c for c in self._columns if c.first < first]
        self._columns.append(_Column(key, first, last, scale))

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


class _Index:
    """Where the records of a file end, and their steps; read on from where the last look ended.

    A run of a week writes gigabytes: a rewind must not read them all again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.inode = path.stat().st_ino
        self.end = 0  # of what has been read: whole records and headers
        self.damage: InputError | None = None
        self._tail = b""  # the last bytes before ``end``
        self._steps, self._ends = array("q"), array("q")
        self._reader = PropertyReader(path)

    def still_of(self, path: Path) -> bool:
        """Whether the file is the one that was read, perhaps longer."""
        about = path.stat()
        if about.st_ino != self.inode or about.st_size < self.end:
            return False
        with open(path, "rb") as stream:
            stream.seek(self.end - len(self._tail))
            return stream.read(len(self._tail)) == self._tail

    def read(self) -> None:
        """Takes what is new; what is damaged ends it."""
        self.damage = None
        try:
            for end, step in self._records() if self._in_frames() else self._lines():
                self._set_end(end, step)
        except InputError as error:
            self.damage = error
        self._see_tail()

    def cut(self, step: int) -> None:
        """Drops what comes after a step, in the file too.

        Raises:
            InputError: the file is damaged before that.
        """
        self.end = self.end_of(step)
        k = bisect_right(self._steps, step)
        del self._steps[k:], self._ends[k:]
        if self.end < self.path.stat().st_size:
            with open(self.path, "r+b") as stream:
                stream.truncate(self.end)
        self._see_tail()

    def _see_tail(self) -> None:
        with open(self.path, "rb") as stream:
            stream.seek(max(self.end - TAIL_BYTES, 0))
            self._tail = stream.read(self.end - stream.tell())

    def _set_end(self, end: int, step: int | None) -> None:
        self.end = end
        if step is not None:
            self._steps.append(step)
            self._ends.append(end)

    def _in_frames(self) -> bool:
        return self.path.suffix in FORMATS

    def _records(self) -> Iterator[tuple[int, int]]:
        for _, end, step in records(self.path, self.end):
            yield end, step

    def _lines(self) -> Iterator[tuple[int, int | None]]:
        with open(self.path, "rb") as stream:
            stream.seek(self.end)
            end = self.end
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                end += len(line)
                yield end, self._reader.step_of(line.decode("utf-8", "replace"))

    @property
    def last(self) -> int | None:
        """Step of the last record."""
        return self._steps[-1] if self._steps else None

    def end_of(self, step: int) -> int:
        """Where the last record at or before a step ends; headers of lines are kept in any case.

        Raises:
            InputError: the file is damaged before that.
        """
        k = bisect_right(self._steps, step)
        if k == len(self._steps):
            if self.damage is not None:
                raise self.damage
            return self.end
        if k:
            return self._ends[k - 1]
        return 0 if self._in_frames() else self._end_of_headers()

    def _end_of_headers(self) -> int:
        with open(self.path, "rb") as stream:
            return self._ends[0] - len(stream.read(self._ends[0]).splitlines(True)[-1])


_indexes: dict[Path, _Index] = {}


def _index(path: Path) -> _Index:
    at = path.resolve()
    known = _indexes.get(at)
    if known is None or not known.still_of(at):
        known = _indexes[at] = _Index(at)
    known.read()
    return known


def last_step(path: Path) -> int | None:
    """Step of the last whole record of a properties file or a trajectory; None: there is none.

    Raises:
        InputError: the file is damaged.
    """
    if not path.is_file():
        return None
    if _is_texts(path):
        return max((step for _, _, step in records(path)), default=None)
    index = _index(path)
    if index.damage is not None:
        raise index.damage
    return index.last


def cut(path: Path, step: int) -> None:
    """Drops every record after ``step``, and an incomplete one at the end.

    Args:
        path: properties file or trajectory; an absent one is left alone.
        step: last step that is kept.

    Raises:
        InputError: the file is damaged before that.
    """
    if not path.is_file():
        return
    if not _is_texts(path):
        _index(path).cut(step)
        return
    end = _end_of_texts(path, step)
    if end < path.stat().st_size:
        with open(path, "r+b") as stream:
            stream.truncate(end)


def _is_texts(path: Path) -> bool:
    return path.suffix not in FORMATS and is_extras(path)


def _end_of_texts(path: Path, step: int) -> int:
    end = 0
    for _, after, at in records(path):
        if at > step:
            break
        end = after
    return end
