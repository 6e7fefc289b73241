"""Configurational temperature: what the positions say, whatever the velocities read.

In any canonical ensemble of a smooth potential U, over any set of coordinates (integrate
<dU/dx dU/dx> by parts; Rugh, Phys. Rev. Lett. 78, 772 (1997)),

    kB T = < sum (dU/dx)^2 > / < sum d2U/dx2 >

The numerator is the teacher's squared force. The denominator, the trace of the Hessian, comes from
central differences of the forces along random signs z on the atoms of one element in one direction:
z . (F(x - hz) - F(x + hz)) / 2h has the trace as its mean (Hutchinson), and the atoms at the two
ends of an X-H bond, which would spread it most, are never moved together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.model import ForceModel
from dmts_ipi.core.statistics import Estimate
from dmts_ipi.core.units import KB_EV_PER_K

from .run_data import RunInput

STEP_A = 0.002
FEWEST_FRAMES = 4  # for an error bar
Positions = tuple[np.ndarray, np.ndarray]  # (n, 3) A, cell (3, 3) A
Report = Callable[[str], None]


@dataclass(frozen=True)
class Configurational:
    """Temperatures in K, of ``atoms`` and of each element; ``evaluations`` of the model made."""

    temperature_K: dict[str, Estimate]
    frames: int
    evaluations: int


def pick_frames(run: RunInput, skip_ps: float, count: int) -> list[Positions]:
    """``count`` frames, or as many as there are, evenly spread over the time after ``skip_ps``.

    Raises:
        InputError: there is none.
    """
    end = float(run.properties["time_ps"][-1])
    wanted = list(np.linspace(skip_ps, end, count, endpoint=False))
    frames: list[Positions] = []
    for step, positions, cell, _ in run.frames():
        time = step * run.outer_fs / 1000
        if len(frames) < len(wanted) and time >= wanted[len(frames)] - 1e-9:
            frames.append((np.array(positions), np.array(cell)))
    if not frames:
        raise InputError("folder", run.path, f"has no frame after {skip_ps:g} ps; run longer")
    return frames


def configurational(
    model: ForceModel,
    numbers: np.ndarray,
    pbc: np.ndarray,
    frames: Sequence[Positions],
    rng: np.random.Generator,
    probes: int = 1,
    floor_K: float = 0.0,
    report: Report = lambda line: None,
) -> Configurational:
    """Measures the configurational temperature on frames.

    The standard error is that of a jackknife over frames, which takes them as independent: they
    should be a picosecond apart or more. ``floor_K`` is the least that it can be
    (``core.statistics.langevin_floor_K``). The jackknife also takes out the ratio's own bias.

    Args:
        model: with forces that are a gradient.
        numbers: (n,); pbc: (3,).
        frames: see ``pick_frames``.
        rng: of the signs.
        probes: sets of signs per frame.
        floor_K: see above.
        report: a line of progress for each frame.

    Raises:
        InputError: the model's forces are no gradient.
        ModelFault: it failed.
    """
    if not model.conservative:
        raise InputError(
            "teacher",
            model.name,
            "predicts forces directly, so it has no Hessian and no configurational temperature",
        )
    members = {chemical_symbols[z]: np.flatnonzero(numbers == z) for z in np.unique(numbers)}
    squares = np.zeros((len(frames), len(members)))
    traces = np.zeros_like(squares)
    evaluations = 0

    def forces(x: np.ndarray, cell: np.ndarray) -> np.ndarray:
        nonlocal evaluations
        evaluations += 1
        return np.asarray(model.compute(numbers, x, cell, pbc).forces_eV_per_A, float)

    for k, (x, cell) in enumerate(frames):
        report(f"configurational temperature: frame {k + 1} of {len(frames)}")
        at = forces(x, cell)
        for e, atoms in enumerate(members.values()):
            squares[k, e] = float((at[atoms] ** 2).sum())
            for axis in range(3):
                for _ in range(probes):
                    z = np.zeros_like(x)
                    z[atoms, axis] = rng.choice([-1.0, 1.0], len(atoms))
                    change = forces(x - STEP_A * z, cell) - forces(x + STEP_A * z, cell)
                    traces[k, e] += float((z * change).sum()) / (2 * STEP_A * probes)
    temperatures = {"atoms": _ratio(squares.sum(axis=1), traces.sum(axis=1), floor_K)}
    for e, name in enumerate(members):
        temperatures[name] = _ratio(squares[:, e], traces[:, e], floor_K)
    return Configurational(temperatures, len(frames), evaluations)


def _ratio(squares: np.ndarray, traces: np.ndarray, floor_K: float) -> Estimate:
    """Ratio of means in K, its bias taken out and its error found by a jackknife over frames."""
    n = len(squares)
    if traces.sum() <= 0:
        return Estimate(math.nan, math.nan, math.nan, n)
    whole = squares.sum() / traces.sum() / KB_EV_PER_K
    if n < FEWEST_FRAMES:
        return Estimate(float(whole), math.nan, math.nan, n)
    left = (squares.sum() - squares) / (traces.sum() - traces) / KB_EV_PER_K
    mean = n * whole - (n - 1) * left.mean()
    error = math.sqrt((n - 1) * float(np.var(left)))
    return Estimate(float(mean), max(error, floor_K), 1.0, n)
