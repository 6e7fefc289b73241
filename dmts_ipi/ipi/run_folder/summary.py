"""``summary.json`` of a run, and the record of its sessions from which its speed follows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

import dmts_ipi
from dmts_ipi.core.errors import InputError
from dmts_ipi.core.files import SUMMARY, write_json
from dmts_ipi.core.statistics import Estimate, langevin_floor_K, mean_stderr, not_below
from dmts_ipi.core.units import AMU_A2_PER_FS2_IN_EV, KB_EV_PER_K

from .folder import RunFolder
from .settings import ModelSettings

SESSIONS = "sessions.json"


def versions() -> dict[str, str]:
    """Versions of what a run's result depends on."""
    versions = {"dmts-ipi": dmts_ipi.__version__}
    for package in ("ipi", "numpy", "torch", "ase", "mace-torch"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def read_sessions(folder: Path) -> list[dict[str, Any]]:
    """Earlier sessions of a run; a damaged record counts as none."""
    try:
        sessions = json.loads((folder / SESSIONS).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return []
    return sessions if isinstance(sessions, list) else []


def kinetic_temperatures_K(
    velocities_A_per_fs: np.ndarray, masses_amu: np.ndarray, numbers: np.ndarray
) -> dict[str, float]:
    """Kinetic temperature of each element, over 3 N degrees of freedom (``fixcom`` False).

    Args:
        velocities_A_per_fs: (n, 3).
        masses_amu: (n,), HMR included.
        numbers: (n,).
    """
    kinetic = 0.5 * masses_amu * (velocities_A_per_fs**2).sum(axis=1) * AMU_A2_PER_FS2_IN_EV
    return {
        chemical_symbols[z]: float(2 * kinetic[numbers == z].mean() / (3 * KB_EV_PER_K))
        for z in sorted(set(int(z) for z in numbers))
    }


def write_summary(
    folder: RunFolder, exit: str, outer_steps: int, more: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Writes ``summary.json`` from what is on disk, and returns it.

    Means leave out ``equilibration_ps``; a NaN (null in the file) is a figure that the run was
    too short for.

    Args:
        folder: the run.
        exit: ``finished``, ``interrupted``, ``terminated``, or what went wrong.
        outer_steps: how many were done.
        more: what else it is to carry (the watchdog's record).
    """
    spec, settings = folder.ran_spec(), folder.settings
    columns: dict[str, np.ndarray] = {}
    by_element: dict[str, list[float]] = {}
    try:
        columns = folder.properties()
        by_element = _by_element(folder)
    except InputError:
        pass  # ended before the first line: the summary says so by its nulls
    step = columns.get("step", np.zeros(0, int))
    kept = step * spec.outer_fs >= settings.equilibration_ps * 1000
    numbers = folder.structure().numbers
    kept_ps = outer_steps * spec.outer_fs / 1000 - settings.equilibration_ps
    floor = 0.0
    friction = spec.one_langevin_friction_per_ps
    if friction is not None and kept_ps > 0:
        dof = max(3 * len(numbers) - spec.removed_degrees_of_freedom, 1)
        floor = langevin_floor_K(spec.temperature_K or 0.0, dof, friction, kept_ps)
    temperature = not_below(_estimate(columns.get("temperature_K", np.zeros(0))[kept]), floor)
    potential = _estimate(columns.get("potential_eV", np.zeros(0))[kept])
    elements = {z: not_below(_estimate(np.array(t)), floor) for z, t in by_element.items()}
    sessions = read_sessions(folder.path)
    steady_s = sum(s.get("steady_s", 0.0) for s in sessions)
    steady_steps = sum(s.get("steady_steps", 0) for s in sessions)
    fs = steady_steps * spec.outer_fs
    record: dict[str, Any] = {
        "exit": exit,
        "ensemble": spec.ensemble,
        "mode": spec.mode,
        "inner_fs": _short(spec.inner_fs),
        "n_inner": spec.n_inner,
        "outer_fs": _short(spec.outer_fs),
        "levels": [{"steps": x.steps, "forces": dict(x.forces)} for x in spec.levels],
        "thermostat": spec.thermostat.mode if spec.thermostat is not None else None,
        "friction_per_ps": friction,
        "outer_steps": outer_steps,
        "time_ps": round(outer_steps * spec.outer_fs / 1000, 9),
        "equilibration_ps": settings.equilibration_ps,
        "temperature_mean_K": temperature.mean,
        "temperature_stderr_K": temperature.stderr,
        "temperature_by_element_K": {z: e.mean for z, e in elements.items()},
        "temperature_by_element_stderr_K": {z: e.stderr for z, e in elements.items()},
        "potential_mean_eV": potential.mean,
        "potential_stderr_eV": potential.stderr,
        "ns_per_day": fs * 1e-6 / steady_s * 86400 if steady_s > 0 else math.nan,
        "wall_s": sum(s.get("wall_s", 0.0) for s in sessions),
        "sessions": len(sessions),
        "atoms": len(numbers),
        "models": {k: m.model_dump(mode="json") for k, m in settings.models.items()},
        "devices": _devices(settings.models, more or {}),
        "versions": versions(),
        **(more or {}),
    }
    write_json(folder.path / SUMMARY, record)
    return record


def _devices(models: Mapping[str, ModelSettings], more: Mapping[str, Any]) -> dict[str, str]:
    """On which device each model ran: as its driver said, else as it was asked for."""
    heard = (more.get("watchdog") or {}).get("drivers") or {}
    return {
        name: str((heard.get(name) or {}).get("device") or model.device)
        for name, model in models.items()
    }


def _short(value: float) -> float:
    return float(f"{value:.9g}")


def _estimate(series: np.ndarray) -> Estimate:
    """Mean and standard error of what comes before the first NaN (a run may end with some)."""
    bad = np.flatnonzero(~np.isfinite(series))
    return mean_stderr(series[: bad[0]] if len(bad) else series)


def _by_element(folder: RunFolder) -> dict[str, list[float]]:
    """Series of kinetic temperatures by element, from the velocity frames."""
    numbers, masses, *_ = folder.structure()
    spec = folder.ran_spec()
    first = folder.settings.equilibration_ps * 1000 / spec.outer_fs
    series: dict[str, list[float]] = {}
    output = spec.output("trajectory", "velocities")
    if output is None:
        return series
    from .outputs import iter_trajectory

    for frame in iter_trajectory(folder.path / output.filename):
        if frame.step < first:
            continue
        moving = np.setdiff1d(np.arange(len(numbers)), spec.fixed_atoms)
        values = (frame.values[moving], masses[moving], numbers[moving])
        for element, value in kinetic_temperatures_K(*values).items():
            series.setdefault(element, []).append(value)
    return series
