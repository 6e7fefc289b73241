"""Reads structure files, so that nothing that a file says is lost without a word.

ASE reads the formats; this module adds what ASE leaves out (the cell in i-PI's comment line,
masses under their usual names, charge and spin) and takes out what only looks like data (the
dummy cell of a PDB file). What is in the file and is not used is logged as a warning, one line
each, which Python prints on stderr unless the program sets up logging otherwise.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.constraints import FixAtoms, FixCartesian, FixScaled
from ase.data import atomic_numbers, chemical_symbols
from ase.geometry import cellpar_to_cell
from ase.io import iread
from ase.io.formats import UnknownFileTypeError, string2index

from .errors import InputError

log = logging.getLogger(__name__)

Note = Callable[[str], None]

VELOCITIES = "velocities_A_per_fs"  # column of our own files
HMR_KEY = "hmr_added_amu"  # in the comment line: mass added to each hydrogen
MASS_COLUMNS = ("masses", "mass", "mass_amu", "masses_amu", "atomic_mass", "atomic_masses")
VELOCITY_COLUMNS = ("velocities", "velocity", "velo", "vel")  # of unknown units
CHARGE_KEYS = ("charge", "total_charge", "tot_charge", "net_charge")
SPIN_KEYS = ("spin", "total_spin", "spin_multiplicity", "multiplicity", "mult")
LENGTHS_A = {"angstrom": 1.0, "atomic_unit": units.Bohr, "bohr": units.Bohr, "nanometer": 10.0}
ISOTOPES = {"D": 2.014, "T": 3.016}
_CELL = re.compile(r"#\s*CELL[\[({](abcABC|H|GENH)[\])}]:\s*([-+0-9.eE\s]+)")
_QUANTITY = re.compile(r"\b(positions|x_centroid)\{(\w+)\}")
_OTHER_QUANTITY = re.compile(r"\b(velocities|momenta|forces|\w+_centroid)\{\w+\}")
_CELL_UNIT = re.compile(r"\bcell\{(\w+)\}")


def read_atoms(path: Path, index: str = ":", field: str = "structure") -> list[Atoms]:
    """Reads structures, with everything that ``Structure`` holds in ASE's own places.

    These are: positions, cell and pbc; masses; velocities in A/fs in the array
    ``velocities_A_per_fs``; total charge and spin multiplicity as ``info["charge"]`` and
    ``info["spin"]``; fixed atoms as one ``FixAtoms``. Labels are left as ASE reads them.

    Args:
        path: any format that ASE knows by name or content, or an xyz trajectory of i-PI.
        index: ASE's index: ``-1``, ``:``, ``::10``.
        field: what an error message calls the file.

    Raises:
        InputError: the file is absent, unreadable or holds no structure.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(field, path, "is a folder; give a structure file")
    notes: dict[str, int] = {}
    out: list[Atoms] = []
    try:
        for atoms in _read(path, index):
            remarks: list[str] = []
            out.append(_complete(atoms, path, remarks.append))
            for text in remarks:
                notes[text] = notes.get(text, 0) + 1
    except InputError as error:
        if error.field != "structure" or field == "structure":
            raise
        raise InputError(field, error.value, error.remedy) from error
    except FileNotFoundError as error:
        raise InputError(field, path, "does not exist") from error
    except Exception as error:  # ASE's readers raise whatever they like
        raise InputError(field, path, _why(error, path)) from error
    if not out:
        at = "" if index in (":", "-1", "0") else f" at index {index}"
        why = f"holds no structure{at}" if at else _why(StopIteration(), path)
        raise InputError(field, path, why)
    for text, count in notes.items():
        several = f" ({count} of {len(out)} frames)" if len(out) > 1 else ""
        log.warning("note: %s: %s%s", path, text, several)
    return out


def _read(path: Path, index: str) -> Iterator[Atoms]:
    if _CELL.match(_second_line(path)):
        frames = list(_ipi_frames(path))
        chosen: Any = string2index(index)
        yield from frames[chosen] if isinstance(chosen, slice) else [frames[chosen]]
        return
    yield from iread(path, index=index)


def _second_line(path: Path) -> str:
    with open(path, "rb") as stream:
        stream.readline(4096)
        return stream.readline(4096).decode("utf-8", "replace").strip()


# ------------------------------------------------------------------- i-PI's own xyz


def _ipi_frames(path: Path) -> Iterator[Atoms]:
    """Frames of an xyz trajectory written by i-PI, whose comment line holds the cell."""
    with open(path) as stream:
        while head := stream.readline().strip():
            n, comment = int(head), stream.readline()
            cell = _CELL.search(comment)
            if cell is None:
                raise InputError(
                    "structure", path, "a frame has no cell in i-PI's format; write the file again"
                )
            quantity, cell_unit = _QUANTITY.search(comment), _CELL_UNIT.search(comment)
            if quantity is None:
                other = _OTHER_QUANTITY.search(comment)
                what = f"holds {other[1]}, not positions" if other else "does not say its units"
                how = "give the positions" if other else "add positions{angstrom} cell{angstrom}"
                raise InputError("structure", path, f"{what}; {how} (in the comment line)")
            rows = [stream.readline().split() for _ in range(n)]
            if any(len(row) < 4 for row in rows):
                raise InputError("structure", path, "ends within a frame; cut the last frame off")
            length = _length(quantity[2], path)
            cell_length = _length(cell_unit[1], path) if cell_unit else length
            yield Atoms(
                [row[0] for row in rows],
                np.array([row[1:4] for row in rows], float) * length,
                cell=_ipi_cell(cell, cell_length),
                pbc=True,
            )


def _length(unit: str, path: Path) -> float:
    if unit not in LENGTHS_A:
        known = ", ".join(LENGTHS_A)
        raise InputError("structure", path, f"unknown unit {unit} in its comment; known: {known}")
    return LENGTHS_A[unit]


def _ipi_cell(match: re.Match[str], length_A: float) -> np.ndarray:
    numbers = np.array(match[2].split(), float)
    if match[1] == "abcABC":
        return np.asarray(cellpar_to_cell([*numbers[:3] * length_A, *numbers[3:6]]))
    return numbers[:9].reshape(3, 3).T * length_A  # i-PI's cell vectors are columns


# ------------------------------------------------------------------- what a file says


def _complete(atoms: Atoms, path: Path, note: Note) -> Atoms:
    """Puts everything into its place (``read_atoms``); in place."""
    unknown = np.flatnonzero(atoms.numbers == 0)
    if len(unknown):
        raise InputError(
            "structure", path, f"atom {unknown[0]} has no known element; write its symbol"
        )
    _set_cell(atoms, path, note)
    _set_masses(atoms, note)
    _set_velocities(atoms, note)
    _set_charge(atoms, path, note)
    _set_fixed(atoms, note)
    _note_occupancies(atoms, note)
    return atoms


def _set_cell(atoms: Atoms, path: Path, note: Note) -> None:
    comment = str(atoms.info.get("ipi_comment", ""))
    if (quantity := _QUANTITY.search(comment)) is not None:  # i-PI's trajectories in ASE's format
        unit = _CELL_UNIT.search(comment)
        atoms.positions *= _length(quantity[2], path)
        atoms.set_cell(atoms.cell.array * _length(unit[1] if unit else quantity[2], path))
    pdb = path.suffix.lower() in (".pdb", ".ent")
    if pdb and np.allclose(atoms.cell.array, np.eye(3)):
        atoms.set_cell(np.zeros((3, 3)))
        atoms.pbc = False
        note("its cell (CRYST1) of 1 A is the dummy of structures without one, and is not used")
    if pdb and _lacks_elements(path):
        elements = ", ".join(sorted(set(atoms.get_chemical_symbols())))
        note(f"elements are guessed from atom names (columns 77-78 are empty): {elements}")
    has_cell = atoms.cell.rank == 3
    if has_cell and not atoms.pbc.any() and HMR_KEY not in atoms.info:
        note('has a cell, but pbc="F F F": it is not periodic; write pbc="T T T" if it is')


def _lacks_elements(path: Path) -> bool:
    with open(path, errors="replace") as stream:
        return any(
            not line[76:78].strip() for line in stream if line.startswith(("ATOM  ", "HETATM"))
        )


def _set_masses(atoms: Atoms, note: Note) -> None:
    columns = [c for c in MASS_COLUMNS if c in atoms.arrays]
    if not columns:
        return
    masses = np.asarray(atoms.arrays[columns[0]], float)
    for column in columns:
        if column != "masses":
            del atoms.arrays[column]
    if len(columns) > 1:
        note(f"masses are those of column {columns[0]}; {', '.join(columns[1:])} not used")
    atoms.set_masses(masses)


def _set_velocities(atoms: Atoms, note: Note) -> None:
    if VELOCITIES not in atoms.arrays and atoms.has("momenta"):
        # per mass by hand: get_velocities would do, but masses may have come from another column
        velocities = atoms.arrays["momenta"] / atoms.get_masses()[:, None] * units.fs
        if np.any(velocities):
            atoms.arrays[VELOCITIES] = velocities
    if atoms.has("momenta"):
        del atoms.arrays["momenta"]
    columns = [c for c in VELOCITY_COLUMNS if c in atoms.arrays]
    if columns and VELOCITIES not in atoms.arrays:
        note(
            f"column {columns[0]} is not used: its unit is not known; name it {VELOCITIES} and "
            "give A/fs, or write momenta by ASE"
        )


def _number(atoms: Atoms, keys: tuple[str, ...], path: Path) -> float | None:
    for key in keys:
        if key in atoms.info:
            value = atoms.info[key]
            try:
                number = float(value)
            except (TypeError, ValueError):
                number = float("nan")
            if not np.isfinite(number):
                raise InputError("structure", path, f"{key} = {value} must be a number")
            return number
    return None


def _set_charge(atoms: Atoms, path: Path, note: Note) -> None:
    charge, spin = _number(atoms, CHARGE_KEYS, path), _number(atoms, SPIN_KEYS, path)
    charges, moments = (
        np.asarray(atoms.arrays.get(name, 0.0), float).sum()
        for name in ("initial_charges", "initial_magmoms")
    )
    if charge is None and charges:
        charge = float(round(charges, 6))
        note(f"total charge {charge:g}: the sum of initial charges, which are not used otherwise")
    if spin is None and moments:
        spin = float(round(abs(moments), 6)) + 1
        note(f"spin multiplicity {spin:g}: by the sum of initial magnetic moments")
    for key, value in (("charge", charge), ("spin", spin)):
        if value is not None:
            atoms.info[key] = int(value) if value.is_integer() else value


def _set_fixed(atoms: Atoms, note: Note) -> None:
    fixed: set[int] = set()
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            fixed.update(int(k) for k in constraint.index)
            continue
        if isinstance(constraint, FixCartesian | FixScaled):
            mask = np.broadcast_to(np.asarray(constraint.mask, bool), (3,))
            if mask.all():
                fixed.update(int(k) for k in np.atleast_1d(constraint.index))
                continue
        note(f"constraint {type(constraint).__name__} is not used; only whole atoms can be fixed")
    atoms.set_constraint(FixAtoms(sorted(fixed)) if fixed else None)


def fixed_atoms(atoms: Atoms) -> np.ndarray:
    """Indices of atoms that a ``FixAtoms`` holds, (k,), sorted."""
    fixed = [np.asarray(c.index) for c in atoms.constraints if isinstance(c, FixAtoms)]
    return np.unique(np.concatenate(fixed)).astype(int) if fixed else np.zeros(0, int)


def _note_occupancies(atoms: Atoms, note: Note) -> None:
    values: list[float] = []
    if "occupancy" in atoms.arrays:
        values = [float(x) for x in atoms.arrays["occupancy"]]
    elif isinstance(atoms.info.get("occupancy"), dict):
        sites: dict[Any, Any] = atoms.info["occupancy"]
        values = [float(x) for site in sites.values() for x in dict(site).values()]
    partly = sum(0 < x < 1 for x in values)
    if partly:
        note(f"{partly} sites are occupied in part: each counts as a whole atom; choose which stay")


# ------------------------------------------------------------------- why a reader failed


def _why(error: Exception, path: Path) -> str:
    line = (str(error).splitlines() or [""])[0]
    symbol = str(error.args[0]) if isinstance(error, KeyError) and error.args else ""
    if symbol and symbol not in atomic_numbers and re.fullmatch(r"[A-Z][A-Za-z0-9]{0,3}", symbol):
        if symbol in ISOTOPES:
            how = f"write H, and {ISOTOPES[symbol]} in a column masses (docs/structures.md)"
        elif symbol[:1] in chemical_symbols:
            how = f"write element symbols instead of atom names, such as {symbol[:1]}"
        else:
            how = "write element symbols"
        return f"unknown element {symbol}; {how}"
    text = _start_of(path)
    if not text.strip():
        return "is empty"
    if re.search(r"^\s*\d+\s+atoms\b", text, re.M) and "LAMMPS" in text + path.name.upper():
        return (
            "is a LAMMPS data file, which has no elements; convert it: "
            f"ase convert -i lammps-data {path.name} {path.stem}.extxyz"
        )
    if path.suffix == ".bin":
        return "is a binary trajectory; give the run's folder for its last checkpoint, or an xyz"
    if isinstance(error, UnknownFileTypeError | StopIteration | UnicodeDecodeError) or not line:
        return (
            "its format is not recognised; give extended xyz, PDB, CIF, POSCAR or another that "
            "'ase info --formats' lists, with its usual ending"
        )
    return f"cannot be read ({line})"


def _start_of(path: Path) -> str:
    try:
        with open(path, "rb") as stream:
            return stream.read(2000).decode("utf-8", "replace")
    except OSError:
        return ""
