"""What the analysis needs of a run, and how to read it from a run folder."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase.formula import Formula

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.files import SUMMARY

from .fragments import fragments

FrameTuple = tuple[int, np.ndarray, np.ndarray, "np.ndarray | None"]
CELL_TOLERANCE = 0.01


@dataclass
class RunInput:
    """One run, ready to be measured. Units in the names; shapes as in ``core.model``.

    ``properties`` are series by name (``ipi.folder.RunFolder.properties``), ``frames`` starts a
    fresh pass over (step, positions_A, cell_A, velocities_A_per_fs or None), ``forces`` one over
    (step, forces_eV_per_A) of the teacher, at some of these steps or none. ``settings`` and
    ``summary`` are run.yaml and summary.json as mappings, for the page's record.
    ``thermostat_mid_drift``: see ``kinetic``; it decides which temperature to expect.
    ``langevin_per_ps``: friction of a Langevin thermostat, None with any other. ``fixed``: atoms
    that do not move. ``not_analysed``: what ``input.xml`` has that the analysis does not look at.
    ``unfollowed``: tags of ``input.xml`` that were edited after the run had begun.
    ``level_steps_fs``: time step of each level, from the innermost.
    ``sampled_model``: name of the model whose ensemble is sampled. ``devices``: on which device
    each model ran. ``init_words``: options of ``dmts-ipi init`` that make the run again. ``label``
    stands in figures: the scheme, with the name where two runs have the same.
    """

    path: Path
    name: str
    mode: str
    ensemble: str
    inner_fs: float
    n_inner: int
    temperature_K: float
    numbers: np.ndarray
    masses_amu: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    properties: dict[str, np.ndarray]
    frames: Callable[[], Iterator[FrameTuple]]
    forces: Callable[[], Iterator[tuple[int, np.ndarray]]] = lambda: iter(())
    fixcom: bool = False
    thermostat_mid_drift: bool = True
    langevin_per_ps: float | None = None
    fixed: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    n_beads: int = 1
    not_analysed: list[str] = field(default_factory=list)
    unfollowed: list[str] = field(default_factory=list)
    sampled_model: str = "teacher"
    devices: dict[str, str] = field(default_factory=dict)
    level_steps_fs: list[float] = field(default_factory=list)
    init_words: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    label: str = ""

    def __post_init__(self) -> None:
        self.label = self.label or self.scheme
        self.properties = complete_properties(self.path, self.properties, self.outer_fs)

    @property
    def outer_fs(self) -> float:
        """Outer time step, fs (the inner one for STS)."""
        return self.inner_fs * (1 if self.mode == "sts" else self.n_inner)

    @property
    def moving(self) -> np.ndarray:
        """Mask (n,) of the atoms that are not fixed."""
        mask = np.ones(len(self.numbers), bool)
        mask[self.fixed] = False
        return mask

    @property
    def degrees_of_freedom(self) -> int:
        """Of the velocities: three for each bead of an atom that moves.

        Three less where the centre of mass is held, which i-PI does not do beside fixed atoms.
        """
        moving = self.moving
        removed = 3 if self.fixcom and moving.all() else 0
        return 3 * int(moving.sum()) * self.n_beads - removed

    @property
    def file_name(self) -> str:
        """The name as the beginning of a file's name."""
        return "".join(ch if ch.isalnum() or ch in "-_." else "_" for ch in self.name)

    @property
    def formula(self) -> str:
        """Chemical formula, such as H128O64."""
        return str(Formula.from_list(_symbols(self.numbers)).format("hill"))

    @property
    def system(self) -> str:
        """In words: ``64 H₂O`` where all molecules (or atoms of a crystal) are alike, else the
        formula."""
        label = fragments(self.numbers, self.positions, self.cell, self.pbc).label
        order = np.lexsort((self.numbers, label))
        groups = np.split(self.numbers[order], np.flatnonzero(np.diff(label[order])) + 1)
        kinds = {tuple(int(z) for z in g) for g in groups}
        if len(kinds) != 1:
            return _subscripts(self.formula)
        one = Formula.from_list(_symbols(np.array(kinds.pop()))).format("hill")
        return _subscripts(str(one)) if len(groups) == 1 else f"{len(groups)} {_subscripts(one)}"

    @property
    def scheme(self) -> str:
        """In words: ``STS 1 fs`` or ``DMTS-NC 1–5 fs``."""
        if self.mode == "sts":
            return f"STS {self.inner_fs:g} fs"
        steps = self.level_steps_fs or [self.inner_fs, self.outer_fs]
        kind = "DMTS-NC" if self.sampled_model else "MTS of a sum"
        return f"{kind} {'–'.join(f'{fs:g}' for fs in steps)} fs"

    @property
    def ns_per_day(self) -> float:
        """Speed from summary.json; NaN where it is not there."""
        value = self.summary.get("ns_per_day")
        return float(value) if isinstance(value, int | float) else math.nan


def complete_properties(
    path: Path, properties: dict[str, np.ndarray], outer_fs: float
) -> dict[str, np.ndarray]:
    """The properties with both ``step`` and ``time_ps``; one of them gives the other.

    Raises:
        InputError: neither is there.
    """
    columns = dict(properties)
    if "step" not in columns and "time_ps" not in columns:
        raise InputError(
            "file",
            path,
            "has neither step nor time among its properties; write "
            "'<properties ...> [ step, time{picosecond}, ... ] </properties>' in input.xml",
        )
    if "time_ps" not in columns:
        columns["time_ps"] = np.asarray(columns["step"], float) * outer_fs / 1000
    if "step" not in columns:
        columns["step"] = np.rint(np.asarray(columns["time_ps"], float) * 1000 / outer_fs).astype(
            int
        )
    return columns


def _subscripts(formula: str) -> str:
    return formula.translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


def _symbols(numbers: np.ndarray) -> list[str]:
    from ase.data import chemical_symbols

    return [chemical_symbols[int(z)] for z in numbers]


def read_run(path: Path) -> RunInput:
    """Reads a run folder.

    Raises:
        InputError: the folder is absent, holds no run, or the run has written nothing yet.
    """
    from dmts_ipi.ipi.run_folder.config import beyond_options, config_of, option_words
    from dmts_ipi.ipi.run_folder.folder import RunFolder

    if not path.is_dir():
        raise InputError("folder", path, "does not exist; give folders made by 'dmts-ipi init'")
    if not (path / "run.yaml").is_file():
        raise InputError(
            "folder", path, "holds no run (no run.yaml); make one with 'dmts-ipi init'"
        )
    folder = RunFolder(path)
    spec = folder.ran_spec()
    numbers, masses, positions, cell, pbc = folder.structure()
    try:
        properties = folder.properties()
    except FileNotFoundError as error:
        raise InputError("folder", path, f"has no output; type 'dmts-ipi run {path}'") from error
    if not any(len(column) for column in properties.values()):
        raise InputError("folder", path, f"has no output yet; type 'dmts-ipi run {path}'")
    config = config_of(spec, folder.settings)
    return RunInput(
        path=path,
        name=path.resolve().name,
        mode=spec.mode,
        ensemble=spec.ensemble,
        inner_fs=config.inner_fs,
        n_inner=spec.n_inner,
        temperature_K=config.temperature_K,
        numbers=np.asarray(numbers),
        masses_amu=np.asarray(masses, float),
        positions=np.asarray(positions, float),
        cell=np.asarray(cell, float),
        pbc=np.broadcast_to(np.asarray(pbc, bool), (3,)),
        properties=properties,
        frames=folder.frames,
        forces=folder.forces,
        fixcom=spec.fixcom,
        fixed=np.asarray(spec.fixed_atoms, int),
        n_beads=spec.n_beads,
        thermostat_mid_drift=spec.thermostat_mid_drift,
        langevin_per_ps=spec.one_langevin_friction_per_ps,
        settings=config.model_dump(mode="json"),
        summary=read_summary(path),
        sampled_model=spec.reference,
        devices=read_summary(path).get("devices") or {},
        level_steps_fs=spec.level_steps_fs,
        not_analysed=beyond_options(spec),
        unfollowed=folder.unfollowed_edits(),
        init_words=option_words(config),
    )


def read_summary(folder: Path) -> dict[str, Any]:
    """``summary.json`` of a run folder; empty where no session has ended.

    Raises:
        InputError: it is damaged.
    """
    path = folder / SUMMARY
    try:
        summary = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(
            "file", path, f"is not valid JSON ({error}); delete it or finish the run"
        ) from error
    return summary if isinstance(summary, dict) else {}


def read_runs(paths: Sequence[Path]) -> list[RunInput]:
    """Reads several folders and gives each run a name of its own.

    Raises:
        InputError: as ``read_run``; a folder is given twice; the systems differ.
    """
    resolved = [p.resolve() for p in paths]
    for k, path in enumerate(resolved):
        if path in resolved[:k]:
            raise InputError("folder", paths[k], "is given twice; name each run once")
    runs = [read_run(p) for p in paths]
    names = [r.name for r in runs]
    for run, path in zip(runs, paths, strict=True):
        if names.count(run.name) > 1:
            run.name = str(path)
    schemes = [r.scheme for r in runs]
    for run in runs:
        if schemes.count(run.scheme) > 1:
            run.label = f"{run.scheme} ({run.name})"
    check_comparable(runs)
    return runs


def check_comparable(runs: Sequence[RunInput]) -> None:
    """Refuses runs that do not sample the same ensemble of the same system.

    Raises:
        InputError: names the first difference in atoms, periodicity, temperature or density.
            Masses may differ: structure and temperatures do not depend on them.
    """
    first = runs[0]
    for run in runs[1:]:
        both = f"{first.name} and {run.name}"
        if not np.array_equal(first.numbers, run.numbers):
            if first.formula == run.formula:
                raise InputError("folders", both, "list their atoms in different orders")
            raise InputError(
                "folders",
                f"{first.name} ({first.formula}) and {run.name} ({run.formula})",
                "are different systems; compare runs of one system",
            )
        if not np.array_equal(first.pbc, run.pbc):
            raise InputError("folders", both, "differ in periodicity; compare runs of one system")
        if first.temperature_K != run.temperature_K:
            raise InputError(
                "folders",
                f"{first.name} ({first.temperature_K:g} K) and {run.name} "
                f"({run.temperature_K:g} K)",
                "differ in temperature; compare runs at one temperature",
            )
        fixed = "npt" not in (first.ensemble, run.ensemble)
        if fixed and first.pbc.all():
            a, b = abs(np.linalg.det(first.cell)), abs(np.linalg.det(run.cell))
            if abs(a - b) > CELL_TOLERANCE * a:
                raise InputError(
                    "folders", both, f"have cells of {a:.1f} and {b:.1f} A^3; compare one density"
                )


def reference_of(runs: Sequence[RunInput]) -> RunInput | None:
    """The run that others are compared with: the first STS run."""
    return next((r for r in runs if r.mode == "sts"), None)
