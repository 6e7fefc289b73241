"""What ``tune`` measures: heating predicted from bursts of the teacher, and short runs."""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dmts_ipi.analysis import tuning
from dmts_ipi.core.errors import InputError, RunFault
from dmts_ipi.core.statistics import Estimate, langevin_floor_K, mean_stderr, not_below

if TYPE_CHECKING:
    from dmts_ipi.learning.stiffness import Stiffness

TOO_HOT, TOO_HOT_SIGMAS = 0.6, 6.0  # a trial hotter by this part, and this unlikely, is ended
BURST_FRAMES, BURSTS, SETTLE_FS = 60, 3, 100.0


@dataclass(frozen=True)
class Predicted:
    """Predicted heating at an outer step: mean, error, and what of it goes into bonds, K/ps."""

    K_per_ps: float
    stderr_K_per_ps: float
    stretch_K_per_ps: float

    @property
    def stretch_part(self) -> float:
        """Of the heating, 0 to 1."""
        if not self.K_per_ps > 0:
            return 0.0
        return min(max(self.stretch_K_per_ps / self.K_per_ps, 0.0), 1.0)


@dataclass(frozen=True)
class Setting:
    """What is varied beside the outer step.

    Attributes:
        name: for people.
        slug: of the folders of its trials; empty: the run's own.
        changes: of the folder's settings.
        inner_fs: inner step.
        candidates: n_inner.
        frictions: what takes the heat out.
    """

    name: str
    slug: str
    changes: dict[str, Any]
    inner_fs: float
    candidates: list[int]
    frictions: tuning.Frictions


def say(line: str) -> None:
    """A line for people, beside the result."""
    print(line, file=sys.stderr, flush=True)


def predict(
    args: argparse.Namespace, folder: Any, outer_fs: list[float]
) -> tuple[dict[float, Predicted], list[Stiffness]]:
    """Predicted heating at every outer step, and how stiff the student's stretches are."""
    from dmts_ipi.core.frames import bursts
    from dmts_ipi.core.heating import heating_of_bursts
    from dmts_ipi.core.label_files import read_labels
    from dmts_ipi.learning.stiffness import stretch_stiffness
    from dmts_ipi.models.load import load_model

    config = folder.config
    numbers, masses, *_ = folder.structure()
    if args.labels is not None:
        frames = read_labels(args.labels)
        groups = [g for g in bursts(frames) if np.array_equal(g[0].numbers, numbers)]
        if not groups:
            raise InputError("labels", args.labels, "contains no bursts of the folder's system")
    else:
        groups = _bursts(folder)
    s = config.student
    student = load_model(s.model, device=s.device, dtype=s.dtype, compile=False)
    forces = [
        np.stack(
            [student.compute(f.numbers, f.positions, f.cell, f.pbc).forces_eV_per_A for f in group]
        )
        for group in groups
    ]
    predicted = heating_of_bursts(groups, forces, masses, outer_fs, config.temperature_K)
    stretch = predicted.by_motion.get("stretch", np.zeros(len(outer_fs)))  # absent: no molecules
    values = zip(predicted.K_per_ps, predicted.stderr_K_per_ps, stretch, strict=True)
    heating = {
        outer: Predicted(*(float(x) for x in three))
        for outer, three in zip(outer_fs, values, strict=True)
    }
    return heating, stretch_stiffness(groups, forces, masses)


def _bursts(folder: Any) -> list[list[Any]]:
    """Consecutive frames of the teacher, 1 fs apart, from the folder's structure."""
    from dmts_ipi.core.frames import Frame
    from dmts_ipi.learning.labelling.sampler import Langevin, thermal_velocities
    from dmts_ipi.models.load import load_model

    config = folder.config
    numbers, masses, positions, cell, pbc = folder.structure()
    t = config.teacher
    teacher = load_model(t.model, device=t.device, dtype=t.dtype)
    rng = np.random.default_rng(config.seed)
    start = Frame(numbers, positions, cell, pbc)
    velocities = thermal_velocities(masses, config.temperature_K, rng)
    md = Langevin(teacher, start, masses, velocities, rng, 1.0)
    groups = []
    for b in range(BURSTS):
        say(f"burst {b + 1} of {BURSTS} with the teacher")
        for _ in range(round(SETTLE_FS)):
            md.step(config.temperature_K, 50.0)
        group = []
        for k in range(BURST_FRAMES):
            md.step(config.temperature_K, 0.0)
            group.append(
                Frame(
                    numbers,
                    md.positions.copy(),
                    cell,
                    pbc,
                    forces=md.result.forces_eV_per_A,
                    velocities_A_per_fs=md.velocities.copy(),
                    burst=str(b),
                    time_fs=float(k),
                )
            )
        groups.append(group)
    return groups


def trial(
    args: argparse.Namespace, folder: Any, setting: Setting, n: int, limit: float, ps: float
) -> tuning.Trial:
    """Runs one candidate, or goes on with it to ``ps``; what it measured."""
    from dmts_ipi.ipi.session.session import Hooks, run_session
    from dmts_ipi.ipi.session.watch import Limits

    run = _trial_folder(args, folder, setting, n)
    width = math.sqrt(2 / (3 * len(folder.structure().numbers)))
    hot = folder.config.temperature_K * (1 + max(TOO_HOT, TOO_HOT_SIGMAS * width))

    def watch(progress: Any) -> None:
        if progress.temperature_K > hot:
            raise RunFault(f"{progress.temperature_K:.0f} K at {progress.time_ps:.2f} ps")

    outer = f"{n * run.spec().inner_fs:g} fs ({setting.name})"
    say(f"{outer}: trial of {ps:g} ps")
    outcome = run_session(run, Hooks(progress=watch), Limits(), ps)
    if outcome.status in (130, 143):
        raise KeyboardInterrupt
    trial = _measured(run, n, limit, outcome.exit if outcome.status else "")
    e = trial.heating_K_per_ps
    say(f"{outer}: heating {e.mean:.2g} +- {e.stderr:.1g} K/ps".replace("nan", "?"))
    return trial


def _trial_folder(args: argparse.Namespace, folder: Any, setting: Setting, n: int) -> Any:
    """``FOLDER/tune/SLUGnNN``, made from the folder's settings where it is not there yet."""
    from ase.io import read

    from dmts_ipi.ipi.create import create_folder
    from dmts_ipi.ipi.run_folder.folder import CONFIG, STRUCTURE, RunFolder

    path = folder.path / "tune" / f"{setting.slug}n{n:02d}"
    if (path / CONFIG).is_file():
        return RunFolder(path)
    config = folder.config.changed(
        **setting.changes,
        n_inner=n,
        time_ps=args.trial_ps,
        equilibration_ps=0.0,
        checkpoints_every_fs=500.0,
    )
    path.parent.mkdir(exist_ok=True)
    return create_folder(path, config, read(folder.path / STRUCTURE, format="extxyz"))


def _measured(run: Any, n: int, limit: float, fault: str) -> tuning.Trial:
    outer = n * run.spec().inner_fs
    unknown = Estimate(math.nan, math.nan, math.nan, 0)
    if fault.startswith("fault"):
        blown = Estimate(math.inf, math.nan, math.nan, 0)
        return tuning.Trial(n, outer, blown, limit, unknown, math.nan, fault)
    columns = run.properties()
    if np.ptp(columns["potential_eV"]) == 0:
        raise InputError(
            "teacher",
            run.config.teacher.model,
            "gives no energy, which tune needs to measure heating",
        )
    numbers = run.structure().numbers
    time, config = columns["time_ps"], run.config
    kept = time >= tuning.SKIP * time[-1]
    floor = langevin_floor_K(
        config.temperature_K, 3 * len(numbers), config.friction_per_ps, float(np.ptp(time[kept]))
    )
    speed = (run.summary() or {}).get("ns_per_day")
    return tuning.Trial(
        n,
        outer,
        tuning.heating(time, columns["conserved_eV"], len(numbers)),
        limit,
        not_below(mean_stderr(columns["temperature_K"][kept]), floor),
        math.nan if speed is None else float(speed),
    )
