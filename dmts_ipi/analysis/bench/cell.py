"""One run of a benchmark: what it is, and the figures of its folder."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dmts_ipi.analysis.measure import Measured, measure
from dmts_ipi.analysis.observables.conserved import CONSERVED
from dmts_ipi.analysis.observables.diffusion import DIFFUSION
from dmts_ipi.analysis.observables.potential import POTENTIAL
from dmts_ipi.analysis.observables.temperature import TEMPERATURE
from dmts_ipi.analysis.run_data import read_run, read_summary
from dmts_ipi.core.errors import InputError
from dmts_ipi.core.files import EVENTS, read_lines
from dmts_ipi.core.verdicts import kind_of_record

from .stability import FAILED, NO_RUN, Stability, judge_run

Key = tuple[str, float, float]


@dataclass(frozen=True)
class Cell:
    """A system, an integrator and a seed.

    ``kind`` as in the YAML; ``label`` stands in tables; ``group`` is ``water`` or ``solvated``;
    ``folder`` is that of its run, ``time_ps`` its whole length, ``rounds`` how many turns it takes.
    """

    name: str
    system: str
    atoms: int
    group: str
    kind: str
    inner_fs: float
    outer_fs: float
    hmr_amu: float
    label: str
    seed: int
    folder: Path
    time_ps: float
    rounds: int

    @property
    def key(self) -> Key:
        """What a published row is named by."""
        return self.kind, round(self.inner_fs, 6), round(self.outer_fs, 6)

    @property
    def total_steps(self) -> int:
        """Outer steps of the whole run."""
        return max(1, math.ceil(round(self.time_ps * 1000 / self.outer_fs, 6)))


@dataclass
class Result:
    """Figures of one cell; None or NaN: not known. Each pair is (mean, standard error).

    ``kelvin``: (mean, standard error, expected) of ``atoms``, elements and bonds. ``*_std``:
    standard deviation over time, which the paper prints. Energies in meV/atom. ``speeds``: ns/day
    of each round. ``exit``: how the run ended, ``pending`` before it has begun.
    """

    cell: Cell
    exit: str = "pending"
    ps: float = 0.0
    rewinds: int = 0
    stability: Stability = NO_RUN
    speeds: dict[int, float] = field(default_factory=dict)
    kelvin: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    kelvin_std: float = math.nan
    potential_meV: tuple[float, float] = (math.nan, math.nan)
    potential_std_meV: float = math.nan
    heating_K: tuple[float, float] = (math.nan, math.nan)
    diffusion_A2_per_ps: tuple[float, float] | None = None

    @property
    def ns_per_day(self) -> float:
        """Median over the rounds; NaN without any."""
        return float(np.median(list(self.speeds.values()))) if self.speeds else math.nan

    @property
    def done(self) -> bool:
        """Whether it has run to its end, or ended by the watchdog's limits."""
        if ended_for_good(self.exit):
            return True
        return self.exit == "finished" and self.ps >= self.cell.time_ps - 1e-9

    def record(self) -> dict[str, Any]:
        """For ``records.jsonl``: fields as in ``benchmarks/integrators.py``, and more."""
        return {
            "run": self.cell.name,
            "seed": self.cell.seed,
            "system": self.cell.system,
            "atoms": self.cell.atoms,
            "integrator": self.cell.label,
            "inner_fs": self.cell.inner_fs,
            "outer_fs": self.cell.outer_fs,
            "hmr_amu": self.cell.hmr_amu,
            "exit": self.exit,
            "ps": round(self.ps, 3),
            "rewinds": self.rewinds,
            "instabilities": self.stability.word,
            "instabilities_why": self.stability.why,
            "kelvin": {k: list(v) for k, v in self.kelvin.items()},
            "kelvin_std": self.kelvin_std,
            "potential_meV_per_atom": list(self.potential_meV),
            "potential_std_meV_per_atom": self.potential_std_meV,
            "heating_K": list(self.heating_K),
            "diffusion_A2_per_ps": self.diffusion_A2_per_ps and list(self.diffusion_A2_per_ps),
            "ns_per_day": self.ns_per_day,
            "ns_per_day_by_round": {str(k): v for k, v in self.speeds.items()},
        }


def ended_for_good(exit: str) -> bool:
    """Whether the watchdog's limits ended a run; a person who asked for the end did not."""
    return exit.startswith("stopped") and "file EXIT" not in exit


def read_result(cell: Cell) -> Result:
    """Reads and measures the folder of a cell; one that has not begun gives an empty result.

    Raises:
        InputError: ``summary.json`` is damaged.
    """
    if not (cell.folder / "run.yaml").is_file():
        return Result(cell)
    events = read_lines(cell.folder / EVENTS)
    summary = read_summary(cell.folder)
    result = Result(
        cell,
        exit=str(summary.get("exit", "running")),
        ps=float(summary.get("time_ps") or 0.0),
        rewinds=sum(e.get("kind") == "rewind" for e in events),
        speeds=round_speeds(cell),
    )
    measured: Measured | None = None
    try:
        measured = measure(read_run(cell.folder))
    except InputError as error:
        if result.exit == "finished":
            result.stability = Stability(FAILED, str(error))
            return result
    if measured is not None:
        _fill(result, measured)
        result.ps = max(result.ps, float(measured.time_ps[-1]))
    verdicts = [kind_of_record(e) for e in events if e.get("kind") == "verdict"]
    mts = cell.outer_fs > cell.inner_fs * 1.001
    result.stability = judge_run(result.exit, verdicts, measured, mts)
    return result


def _fill(result: Result, m: Measured) -> None:
    if (t := TEMPERATURE.get(m)) is not None:
        result.kelvin = {k: (e.mean, e.stderr, t.expected[k]) for k, e in t.kinetic.items()}
        used = m.kept(t.series_K) if t.series_K is not None else np.zeros(0)
        result.kelvin_std = float(np.std(used, ddof=1)) if len(used) > 1 else math.nan
    if (energy := POTENTIAL.get(m)) is not None and energy.varies:
        result.potential_meV = energy.mean.mean, energy.mean.stderr
        result.potential_std_meV = energy.width.mean
    if (conserved := CONSERVED.get(m)) is not None and conserved.has_energy:
        result.heating_K = conserved.heating_K.mean, conserved.heating_K.stderr
    kinds = d.kinds if (d := DIFFUSION.get(m)) is not None else []
    largest = max(kinds, key=lambda x: x.molecules, default=None)
    if largest is not None:
        result.diffusion_A2_per_ps = largest.D_A2_per_ps.mean, largest.D_A2_per_ps.stderr


def round_speeds(cell: Cell) -> dict[int, float]:
    """ns/day of each round, start-up left out; a round that was interrupted counts as one."""
    steps: dict[int, int] = {}
    seconds: dict[int, float] = {}
    try:
        sessions = json.loads((cell.folder / "sessions.json").read_text())
    except (OSError, ValueError):
        return {}
    for s in sessions if isinstance(sessions, list) else []:
        first, done = int(s.get("first_step", 0)), int(s.get("steady_steps", 0))
        # rounds end on whole steps: the first step of one may lie a step before its place
        turn = min(int((first + 1) / cell.total_steps * cell.rounds), cell.rounds - 1)
        if done > 0 and float(s.get("steady_s", 0.0)) > 0:
            steps[turn] = steps.get(turn, 0) + done
            seconds[turn] = seconds.get(turn, 0.0) + float(s["steady_s"])
    return {k: steps[k] * cell.outer_fs * 1e-6 / seconds[k] * 86400 for k in sorted(steps)}
