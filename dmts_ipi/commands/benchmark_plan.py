"""What a benchmark will run: its cells, the configuration of each, and what is left out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dmts_ipi.analysis.bench.cell import Cell
from dmts_ipi.core.config import parse
from dmts_ipi.core.errors import InputError
from dmts_ipi.core.levels import STUDENT, TEACHER
from dmts_ipi.ipi.run_folder.config import ModelSettings, RunConfig
from dmts_ipi.ipi.run_folder.folder import CONFIG, RunFolder

from . import init
from .benchmark_config import NAMES, BenchmarkConfig, Integrator, System

# Exchange and integrator beside a force, per evaluation and atom, measured with unix sockets.
EXCHANGE_MS, EXCHANGE_MS_PER_ATOM = 0.5, 1.1e-4
STARTUP_S = 15.0


@dataclass(frozen=True)
class Skipped:
    """A system, or one of its integrators, that cannot be run, and why."""

    system: str
    what: str
    why: str


@dataclass
class Plan:
    """Cells in the order of the file, the configuration of each, and what is skipped."""

    cells: list[Cell] = field(default_factory=list)
    configs: dict[str, RunConfig] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    structures: dict[str, Any] = field(default_factory=dict)  # by system

    def cells_of(self, only: Sequence[str]) -> list[Cell]:
        """Those whose name begins with one of the words, or is of a system of that name.

        Raises:
            InputError: a word that names nothing.
        """
        for word in only:
            if not any(c.name.startswith(word) or c.system == word for c in self.cells):
                names = ", ".join(dict.fromkeys(c.name for c in self.cells[:4]))
                raise InputError(
                    "only", word, f"is not a run of this benchmark; runs are, for example, {names}"
                )
        return [
            c
            for c in self.cells
            if not only or any(c.name.startswith(w) or c.system == w for w in only)
        ]


def make_plan(config: BenchmarkConfig, base: Path, out: Path) -> Plan:
    """Every cell of a benchmark.

    Args:
        config: the file.
        base: folder of the YAML file; structures and models are relative to it.
        out: folder of the runs.

    Raises:
        InputError: a structure cannot be read, a model does not exist, two rows are alike.
    """
    from dmts_ipi.ipi.run_folder.resources import inputs_folder
    from dmts_ipi.ipi.run_folder.structure import read_structure

    models = {
        "teacher": config.teacher,
        "nc": config.students.nc,
        "conservative": config.students.conservative,
    }
    specs = {k: _absolute(m, base) for k, m in models.items() if m is not None}
    if not config.accept_foreign_students:
        _check_students(specs)
    known = {k: _elements(m) for k, m in specs.items()}
    plan = Plan()
    for system in config.systems:
        shipped = inputs_folder() / f"{system.structure}.extxyz"
        file = shipped if shipped.is_file() else base / Path(system.structure).expanduser()
        atoms = read_structure(file)
        plan.structures[system.name] = atoms
        if why := _lacks("teacher", specs, known, atoms):
            plan.skipped.append(Skipped(system.name, "system", why))
            continue
        for integrator in config.integrators:
            role = _role(integrator)
            if role and (why := _lacks(role, specs, known, atoms)):
                plan.skipped.append(Skipped(system.name, NAMES[integrator.kind], why))
                continue
            for cell, made in _cells(config, specs, system, atoms, integrator, out):
                if cell.name in plan.configs:
                    raise InputError(
                        "integrators", cell.name, "is listed twice; give one of them a name"
                    )
                plan.cells.append(cell)
                plan.configs[cell.name] = made
    return plan


def _check_students(specs: dict[str, ModelSettings]) -> None:
    """Refuses a student of another teacher, before anything runs.

    Raises:
        InputError: names it.
    """
    from dmts_ipi.models.load import read_record

    teacher = read_record(specs["teacher"].model)
    for role in ("nc", "conservative"):
        if role in specs:
            try:
                init.check_distilled_from(read_record(specs[role].model), teacher)
            except InputError as error:
                what = error.remedy.partition(" of this run")[0]
                raise InputError(
                    f"students.{role}",
                    error.value,
                    f"{what}; distill one, or set accept_foreign_students: true",
                ) from error


def _role(integrator: Integrator) -> str:
    """Which student an integrator takes; empty: none."""
    return {"sts": "", "dmts": "conservative"}.get(integrator.kind, "nc")


def _absolute(model: ModelSettings, base: Path) -> ModelSettings:
    """The same with a path that is relative to the file made absolute."""
    from dmts_ipi.models.load import absolute_spec

    spec = absolute_spec(model.model, base)
    return model.model_copy(update={"model": init.absolute_spec(spec)})


def _elements(model: ModelSettings) -> frozenset[int] | None:
    """What a model knows, by its record, else by loading it; None: it does not say."""
    from dmts_ipi.models.load import load_model, read_record

    elements = read_record(model.model).get("elements")
    if isinstance(elements, list):
        return frozenset(int(z) for z in elements)
    return load_model(model.model, device=model.device, dtype=model.dtype, compile=False).elements


def _lacks(
    role: str,
    specs: dict[str, ModelSettings],
    known: dict[str, frozenset[int] | None],
    atoms: Any,
) -> str:
    """Says which elements of a structure a model does not know; empty: none."""
    from ase.data import chemical_symbols

    elements = known[role]
    missing = sorted({int(z) for z in atoms.numbers} - elements) if elements is not None else []
    if not missing:
        return ""
    symbols = ", ".join(chemical_symbols[z] for z in missing)
    return f"{role} {specs[role].model} does not know {symbols}"


def group_of(system: System, numbers: np.ndarray) -> str:
    """``water`` where there is nothing else, or as the file says."""
    if system.group is not None:
        return system.group
    counts = {int(z): int((numbers == z).sum()) for z in np.unique(numbers)}
    pure = set(counts) == {1, 8} and counts[1] == 2 * counts[8]
    return "water" if pure else "solvated"


def _cells(
    config: BenchmarkConfig,
    specs: dict[str, ModelSettings],
    system: System,
    atoms: Any,
    integrator: Integrator,
    out: Path,
) -> Iterator[tuple[Cell, RunConfig]]:
    for outer in integrator.outer_fs or [integrator.inner_fs]:
        hmr = config.hmr_of(integrator)
        label = integrator.name or _label(integrator, outer, hmr)
        for seed in config.seeds:
            name = f"{system.name}-{slug(label)}-s{seed}"
            cell = Cell(
                name=name,
                system=system.name,
                atoms=len(atoms),
                group=group_of(system, atoms.numbers),
                kind=integrator.kind,
                inner_fs=integrator.inner_fs,
                outer_fs=outer,
                hmr_amu=hmr,
                label=label,
                seed=seed,
                folder=out / "runs" / name,
                time_ps=config.time_of(integrator),
                rounds=config.rounds,
            )
            yield cell, _config(config, specs, integrator, cell)


def slug(label: str) -> str:
    """A label as part of a folder's name."""
    kept = (ch if ch.isalnum() or ch in ".-" else "-" for ch in label.replace("–", "-").lower())
    return "-".join(p for p in "".join(kept).split("-") if p)


def _label(integrator: Integrator, outer: float, hmr: float) -> str:
    name = NAMES[integrator.kind]
    if integrator.kind == "sts":
        return f"{name}{'-HMR' if hmr else ''} {integrator.inner_fs:g} fs"
    return f"{name} {integrator.inner_fs:g}–{outer:g} fs"


def _config(
    config: BenchmarkConfig,
    specs: dict[str, ModelSettings],
    integrator: Integrator,
    cell: Cell,
) -> RunConfig:
    """The configuration from which the folder of a cell is made.

    Raises:
        InputError: a value that no run can have.
    """
    i, role = integrator, _role(integrator)
    skip = config.equilibration_ps
    fields: dict[str, Any] = {
        "ensemble": config.ensemble,
        "mode": "dmts" if role else "sts",
        "inner_fs": i.inner_fs,
        "n_inner": round(cell.outer_fs / i.inner_fs),
        "time_ps": float(f"{cell.time_ps:.12g}"),
        "temperature_K": config.temperature_K,
        "friction_per_ps": i.friction_per_ps or config.friction_per_ps,
        "hmr_amu": cell.hmr_amu,
        "seed": cell.seed,
        "equilibration_ps": min(5.0, round(0.2 * cell.time_ps, 6)) if skip is None else skip,
        "properties_every_fs": config.properties_every_fs,
        "frames_every_fs": config.frames_every_fs,
        "checkpoints_every_fs": config.checkpoints_every_fs,
        "splitting": i.splitting or ("baoab-respa" if role else "baoab"),
        "trajectory_format": "bin" if cell.atoms > init.LARGE else "xyz",
        TEACHER: specs["teacher"],
        STUDENT: specs[role] if role else None,
    }
    if i.kind in ("hhf", "hhf-ffl"):
        fields["friction_by_element_per_ps"] = {"H": i.hydrogen_friction_per_ps}
    if i.kind == "hhf-ffl":
        fields["thermostat"] = "ffl"
    if i.kind == "bond":
        fields["bond_friction_per_ps"] = i.bond_friction_per_ps
    return parse(RunConfig, fields, "benchmark")


def check_unchanged(cell: Cell, config: RunConfig) -> None:
    """Refuses a folder that was made with other settings than the file now says.

    Raises:
        InputError: names the first that differs.
    """
    if not (cell.folder / CONFIG).is_file():
        return
    wanted, made = config.model_dump(), RunFolder(cell.folder).config.model_dump()
    for name in ("time_ps", "versions", "watchdog", "equilibration_ps", "keep_checkpoints"):
        wanted.pop(name), made.pop(name)
    for record in (wanted, made):
        for model in record["models"].values():
            model.pop("identity", None)
    p, frames, checkpoints = config.strides  # what the times between outputs became in steps
    for name, stride in (
        ("properties_every_fs", p),
        ("frames_every_fs", frames),
        ("checkpoints_every_fs", checkpoints),
    ):
        wanted[name] = float(f"{stride * config.outer_fs:.9g}")
    for name, value in wanted.items():
        if made[name] != value:
            raise InputError(
                f"benchmark: {name}",
                value,
                f"{cell.folder} was made with {made[name]}; choose another --out, or remove it",
            )


def evaluation_times_ms(
    config: BenchmarkConfig, base: Path, plan: Plan, cells: Sequence[Cell]
) -> dict[str, float]:
    """Time of one evaluation of each model per atom, ms, on the smallest system that runs."""
    from dmts_ipi.models.load import load_model

    if not cells:
        return {}
    smallest = min(cells, key=lambda c: c.atoms)
    atoms = plan.structures[smallest.system]
    roles = {"teacher", *(("conservative" if c.kind == "dmts" else "nc") for c in cells
                          if c.kind != "sts")}  # fmt: skip
    ms_per_atom = {}
    for role in sorted(roles):
        given = config.teacher if role == "teacher" else getattr(config.students, role)
        m = _absolute(given, base)
        model = load_model(m.model, device=m.device, dtype=m.dtype)
        model.compute(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)
        best = float("inf")
        for _ in range(3):
            start = time.perf_counter()
            model.compute(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)
            best = min(best, time.perf_counter() - start)
        ms_per_atom[role] = 1000 * best / smallest.atoms
    return ms_per_atom


def estimate_s(cell: Cell, per_atom_ms: dict[str, float], done_ps: float = 0.0) -> float:
    """Wall time that a cell still needs, s: forces in proportion to the atoms, and i-PI's own."""
    inner = round(cell.outer_fs / cell.inner_fs)
    exchange = EXCHANGE_MS + EXCHANGE_MS_PER_ATOM * cell.atoms
    step = cell.atoms * per_atom_ms["teacher"] + exchange
    if cell.kind != "sts":
        role = "conservative" if cell.kind == "dmts" else "nc"
        step += inner * (cell.atoms * per_atom_ms[role] + exchange)
    left = max(0.0, cell.time_ps - done_ps)
    turns = round(cell.rounds * left / cell.time_ps + 0.499)
    return left * 1000 / cell.outer_fs * step / 1000 + turns * STARTUP_S
