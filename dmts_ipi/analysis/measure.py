"""All observables of one run, in one pass over its trajectory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.statistics import langevin_floor_K

from .observables import Sampler, observables
from .run_data import RunInput
from .stream import FrameStream, Progress

SKIP_FRACTION = 0.2


@dataclass
class Measured:
    """What was measured of one run.

    ``results``: by name of the observable; ``OBSERVABLE.of(m)`` reads them with their type.
    ``time_ps`` (lines,) of the properties. ``frames_used``: after equilibration.
    ``relaxation_ps``: in which the structure forgets itself (infinite: not known yet; NaN: nothing
    relaxes); the observable of diffusion sets it. ``notes``: what the reader must know (frames
    missing, no velocities).
    """

    run: RunInput
    skip_ps: float
    time_ps: np.ndarray
    frames_used: int = 0
    relaxation_ps: float = math.nan
    results: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def kept_ps(self) -> float:
        """Time that entered the averages, ps."""
        return float(self.time_ps[-1] - self.skip_ps)

    @property
    def used(self) -> np.ndarray:
        """Mask (lines,) of the lines of properties after equilibration."""
        return self.time_ps >= self.skip_ps - 1e-9

    def kept(self, values: np.ndarray) -> np.ndarray:
        """The part of a series (lines,) after equilibration."""
        return np.asarray(values, float)[self.used]

    @property
    def floor_K(self) -> float:
        """Error that no mean temperature is below (``statistics.langevin_floor_K``); 0: none."""
        run = self.run
        if run.langevin_per_ps is None or self.kept_ps <= 0:
            return 0.0
        return langevin_floor_K(
            run.temperature_K, run.degrees_of_freedom, run.langevin_per_ps, self.kept_ps
        )


def automatic_skip_ps(run: RunInput) -> float:
    """The first fifth of the run, or its ``equilibration_ps`` where that is longer; ps."""
    end = float(run.properties["time_ps"][-1])
    asked = float(run.settings.get("equilibration_ps") or 0.0)
    return max(SKIP_FRACTION * end, asked if asked < end else 0.0)


def measure(
    run: RunInput, skip_ps: float | None = None, progress: Progress | None = None
) -> Measured:
    """Measures one run.

    Args:
        run: see ``run_data.read_run``.
        skip_ps: equilibration to leave out, ps; None: ``automatic_skip_ps``.
        progress: called with (name, frames done, frames expected).

    Raises:
        InputError: ``skip_ps`` leaves nothing, or the output holds NaN.
    """
    time = np.asarray(run.properties["time_ps"], float)
    skip = automatic_skip_ps(run) if skip_ps is None else skip_ps
    if not 0 <= skip < time[-1] or (time >= skip).sum() < 1:
        raise InputError(
            "--skip-ps",
            f"{skip:g}",
            f"must lie between 0 and {time[-1]:g} ps, the end of {run.name}",
        )
    _check_finite(run)
    rows = observables()
    samplers = {o.name: o.sampler(run) for o in rows}
    stream = FrameStream(run, skip, progress)
    _read_frames(stream, [s for s in samplers.values() if s is not None])
    m = Measured(run, skip, time, stream.frames, notes=stream.notes())
    if run.unfollowed:
        edited = ", ".join(run.unfollowed)
        m.notes.append(f"input.xml was edited after the run had begun: {edited} is not followed")
    for o in rows:
        result = o.measure(m, samplers[o.name])
        if result is not None:
            m.results[o.name] = result
    return m


def _check_finite(run: RunInput) -> None:
    for key in ("temperature_K", "potential_eV", "conserved_eV"):
        values = run.properties.get(key)
        if values is not None and not np.isfinite(values).all():
            step = int(run.properties["step"][np.argmin(np.isfinite(values))])
            raise InputError(
                "folder", run.path, f"{key} is not finite from step {step} on; the run failed there"
            )


def _read_frames(stream: FrameStream, samplers: Sequence[Sampler]) -> None:
    """Feeds the frames after equilibration; some samplers work on a second thread."""
    here = [s for s in samplers if not s.in_background]
    there = [s for s in samplers if s.in_background]

    with ThreadPoolExecutor(max_workers=1) as pool:
        before: list[Future[None]] = []
        for chunk in stream.chunks():
            for future in before:
                future.result()  # one chunk is waiting at most
            before = [pool.submit(s.add, chunk) for s in there]
            for s in here:
                s.add(chunk)
        for future in before:
            future.result()
