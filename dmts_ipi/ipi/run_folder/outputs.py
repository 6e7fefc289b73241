"""i-PI's output files: streaming readers, and cutting back to a step.

A process that is killed leaves half a line or half a frame. Readers leave it out and say so; a
file that is cut ends after its last whole record.
"""

from __future__ import annotations

import re
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


def last_step(path: Path) -> int | None:
    """Step of the last whole record of a properties file or a trajectory; None: there is none."""
    if not path.is_file():
        return None
    if path.suffix in FORMATS or is_extras(path):
        return max((step for _, _, step in records(path)), default=None)
    columns = PropertyReader(path).read()
    return int(columns["step"][-1]) if len(columns.get("step", ())) else None


def cut(path: Path, step: int) -> None:
    """Drops every record after ``step``, and an incomplete one at the end.

    Args:
        path: properties file or trajectory; an absent one is left alone.
        step: last step that is kept.
    """
    if not path.is_file():
        return
    trajectory = path.suffix in FORMATS or is_extras(path)
    end = 0
    if trajectory:
        for _, after, at in records(path):
            if at > step:
                break
            end = after
    else:
        end = _end_of_lines(path, step)
    if end < path.stat().st_size:
        with open(path, "r+b") as stream:
            stream.truncate(end)


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
