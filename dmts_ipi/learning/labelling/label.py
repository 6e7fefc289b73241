"""Sampling with a teacher (or a cheaper model) and labelling by the teacher.

Tasks are independent and seeded by their index, so that shards cover the same work whatever
their number, and a resumed run gives the frames of an unbroken one.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from dmts_ipi.core.durations import duration
from dmts_ipi.core.errors import InputError, ModelFault, RunFault
from dmts_ipi.core.frames import Frame, read_frames
from dmts_ipi.core.model import ForceModel, ForceResult, check_structure, compute
from dmts_ipi.core.neighbours import neighbour_pairs

from .config import LabelConfig
from .geometry import bare, rattle, scale_cell, share_protons, stretch_bonds
from .sampler import Langevin, hmr_masses, relax, thermal_velocities
from .store import LabelStore
from .tasks import Schedule, Task, plan

RELAX_BELOW_EV_PER_A = 8.0  # a thermal structure stays as it is
RELAX_STEPS = 200
BAND_WINDOW_FS = 50.0

Report = Callable[[str], None]


@dataclass
class Progress:
    """Counts of one call; ``stopped`` says which runs ended early, and why."""

    written: int = 0
    dropped: int = 0
    tasks_done: int = 0
    stopped: list[str] = field(default_factory=list)


def read_structures(specs: Sequence[str], name: str = "structure") -> list[Frame]:
    """Reads ``FILE`` (its last frame) or ``FILE@INDEX`` (ASE's index: ``3`` or ``::10``).

    Raises:
        InputError: a file is absent, unreadable or holds nothing there.
    """
    out: list[Frame] = []
    for spec in specs:
        path, at, index = spec.rpartition("@")
        if not at or Path(spec).exists():
            path, index = spec, "-1"
        out.extend(read_frames(Path(path), index, name))
    for k, frame in enumerate(out):
        if not np.isfinite(frame.positions).all():
            raise InputError(name, f"number {k + 1}", "has NaN in its positions; correct it")
    return out


def fingerprint(config: LabelConfig, identity: str, frames: Sequence[Frame], shard: str) -> str:
    """Hash of all that decides the output: options, teacher, structures, shard."""
    digest = hashlib.sha256()
    options = config.model_dump(exclude={"device", "structures", "frames"})
    if options["burst_step_fs"] == 1.0:  # as before it was an option: labels begun then go on
        del options["burst_step_fs"]
    digest.update(json.dumps([options, identity, shard], sort_keys=True).encode())
    for f in frames:
        for a in (f.numbers, f.positions, f.cell, f.pbc):
            digest.update(np.ascontiguousarray(a).tobytes())
    return digest.hexdigest()


def groups_to_relabel(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Frames to label as they are: single ones, and whole bursts together."""
    groups: list[list[Frame]] = []
    for frame in frames:
        last = groups[-1][-1] if groups else None
        if last is not None and frame.burst and frame.burst == last.burst:
            groups[-1].append(frame)
        else:
            groups.append([frame])
    return groups


class Labeller:
    """Runs the tasks of one shard and writes their frames."""

    def __init__(
        self,
        config: LabelConfig,
        teacher: ForceModel,
        structures: Sequence[Frame],
        frames: Sequence[Frame],
        out: Path,
        sampler: ForceModel | None = None,
        shard: tuple[int, int] = (1, 1),
        report: Report = lambda line: None,
        every_s: float = 5.0,
    ) -> None:
        """Checks the structures and opens the output; nothing is computed yet.

        Args:
            config: what to do.
            teacher: labels.
            structures: to sample from.
            frames: to label as they are.
            out: extended XYZ file.
            sampler: drives the dynamics; None: the teacher does.
            shard: this part of how many, from 1.
            report: receives a line of progress at most every ``every_s`` seconds, and warnings.

        Raises:
            InputError: a structure that a model cannot take, or an output of other options.
        """
        self.config, self.teacher, self.sampler = config, teacher, sampler or teacher
        self.structures = list(structures)
        self.groups = groups_to_relabel(frames)
        for f in [*self.structures, *frames]:
            for m in {id(m): m for m in (self.teacher, self.sampler)}.values():
                check_structure(*f.model_input, m.elements)
        if any(s != 1 for s in config.cell_scales):
            for f in self.structures:
                scale_cell(f, 1.0)
        if len(self.structures) == 1:  # one of several that has no such masses is left out
            hmr_masses(self.structures[0], config.hmr_amu)
        tasks = plan(config, len(self.structures), len(self.groups))
        k, n = shard
        self.tasks = tasks[k - 1 :: n]
        identity = teacher.identity + (sampler.identity if sampler is not None else "")
        everything = [*self.structures, *frames]
        # without the shard: bursts have the same names however the work is divided
        self._bursts_of = fingerprint(config, identity, everything, "")[:12]
        self.store = LabelStore(out, fingerprint(config, identity, everything, f"{k}/{n}"))
        self.progress = Progress()
        self._report, self._every_s = report, every_s
        self._counts = dict(self.store.state.get("counts", {}))

    @property
    def total_frames(self) -> int:
        """Frames in the file, including those of earlier calls."""
        return int(self._counts.get("written", 0))

    def run(self) -> Progress:
        """Does what is left.

        Raises:
            RunFault: the disk is full, or not one frame could be labelled.
        """
        start = int(self.store.state.get("task", 0))
        self._begin_clock(start)
        for place in range(start, len(self.tasks)):
            task = self.tasks[place]
            try:
                if task.kind == "relabel":
                    self._relabel(task)
                else:
                    self._sample(task, place)
            except ModelFault as error:
                self._stop(task, str(error))
            self._save(place + 1, {}, {})
            self.progress.tasks_done += 1
        if self.total_frames == 0 and self.tasks:
            reasons = self.progress.stopped[:1] or ["every frame failed the checks"]
            raise RunFault(f"no frame could be labelled: {reasons[0]}")
        return self.progress

    # ---------------------------------------------------------------- tasks

    def _relabel(self, task: Task) -> None:
        group = self.groups[task.structure]
        labelled = []
        for frame in group:
            labelled.append(self._with_labels(frame, compute(self.teacher, frame)))
        self._write(labelled, whole=len(group) > 1)
        self._tick(task, steps=len(group))

    def _sample(self, task: Task, place: int) -> None:
        c, schedule = self.config, Schedule(self.config, task)
        rng = np.random.default_rng([c.seed, task.index])
        frame = bare(self.structures[task.structure], "")
        if task.cell_scale != 1.0:
            frame = scale_cell(frame, task.cell_scale)
        try:
            masses = hmr_masses(self.structures[task.structure], c.hmr_amu)
        except InputError as error:  # of one structure among several: see __init__
            self._stop(task, str(error))
            return
        stored = self.store.state.get("inside") if self.store.state.get("task") == place else None
        if stored:
            first = int(stored["step"])
            frame = replace(frame, positions=self.store.arrays["positions"])
            velocities, history = self.store.arrays["velocities"], list(stored["history"])
            rng.bit_generator.state = stored["rng"]
        else:
            first, history = 0, []
            relaxed = relax(self.sampler, frame, RELAX_BELOW_EV_PER_A, RELAX_STEPS)
            frame = replace(frame, positions=relaxed)
            velocities = thermal_velocities(masses, task.temperature_K, rng, frame.fixed)
        md = Langevin(self.sampler, frame, masses, velocities, rng, schedule.step_fs)
        window = max(1, round(BAND_WINDOW_FS / schedule.step_fs))
        burst: list[Frame] = []
        emitted = sum(schedule.at(k).emit for k in range(first))
        for k in range(first, schedule.total):
            step = schedule.at(k)
            md.step(task.temperature_K, step.friction_per_ps)
            history = [*history[-window + 1 :], md.temperature_K]
            if not step.equilibrating:
                self._check_temperature(history, window, task)
            if step.emit:
                emitted += 1
                sampled = self._label_now(md, frame, task, step.burst, step.time_fs)
                if step.burst < 0:
                    self._write([sampled], fatal=True)
                    self._write_variants(sampled, emitted, rng)
                else:
                    burst.append(sampled)
                    if step.last_of_burst:
                        self._write(burst, whole=True, fatal=True)
                        burst = []
            self._tick(task, steps=1, temperature_K=float(np.mean(history)))
            if step.emit and schedule.saves_after(k):
                inside = {"step": k + 1, "history": history, "rng": rng.bit_generator.state}
                arrays = {"positions": md.positions, "velocities": md.velocities}
                self._save(place, inside, arrays)

    def _check_temperature(self, history: list[float], window: int, task: Task) -> None:
        n = 3 * len(self.structures[task.structure].numbers)
        width = max(self.config.temperature_band, 5.0 * np.sqrt(2.0 / n))
        mean = float(np.mean(history))
        if len(history) >= window and abs(mean / task.temperature_K - 1.0) > width:
            raise ModelFault(
                f"the run at {task.temperature_K:g} K is at {mean:.0f} K; the model may not hold "
                "there: fewer kelvin, or a smaller change of the cell"
            )

    def _label_now(
        self, md: Langevin, frame: Frame, task: Task, burst: int, time_fs: float
    ) -> Frame:
        frame = replace(
            frame,
            positions=md.positions.copy(),
            velocities_A_per_fs=md.velocities.copy() if burst >= 0 else None,
            source=f"{task.kind} {task.temperature_K:g} K cell x {task.cell_scale:g}",
            burst=f"{self._bursts_of}#{burst}" if burst >= 0 else "",
            time_fs=time_fs,
            info={"temperature_K": task.temperature_K, "hmr_amu": self.config.hmr_amu},
        )
        result = md.result
        if self.sampler is not self.teacher:
            result = compute(self.teacher, frame)
        return self._with_labels(frame, result)

    def _write_variants(self, sampled: Frame, emitted: int, rng: np.random.Generator) -> None:
        c, made = self.config, []
        if c.rattle_every and c.rattle_A > 0 and emitted % c.rattle_every == 0:
            made.append(rattle(sampled, c.rattle_A, rng))
        if c.stretch_every and (emitted + 1) % c.stretch_every == 0:
            made.append(
                stretch_bonds(sampled, c.stretch_low, c.stretch_high, c.stretch_fraction, rng)
            )
        if c.share_every and (emitted + 2) % c.share_every == 0:
            made.append(share_protons(sampled, c.share_fraction, c.share_longest_A, rng))
        for frame in made:
            try:
                result = compute(self.teacher, frame)
            except ModelFault:
                self._count("dropped", 1)
                continue
            self._write([self._with_labels(frame, result)])

    def _with_labels(self, frame: Frame, result: ForceResult) -> Frame:
        return replace(
            frame,
            forces=result.forces_eV_per_A,
            energy_eV=result.energy_eV,
            virial_eV=result.virial_eV,
            teacher=self.teacher.name,
            teacher_identity=self.teacher.identity,
        )

    # ------------------------------------------------------- output, progress

    def _write(self, frames: list[Frame], whole: bool = False, fatal: bool = False) -> None:
        """Writes what passes the checks. A burst (``whole``) passes or fails as one; after a bad
        frame of the dynamics itself (``fatal``) the run ends, since what follows is bad too."""
        faults = [self._fault_of(f) for f in frames]
        good = [f for f, fault in zip(frames, faults, strict=True) if fault is None]
        if whole and len(good) < len(frames):
            good = []
        self.store.append(good)
        self._count("written", len(good))
        self._count("dropped", len(frames) - len(good))
        first = next((fault for fault in faults if fault), None)
        if first and fatal:
            raise ModelFault(first)

    def _fault_of(self, frame: Frame) -> str | None:
        c = self.config
        assert frame.forces is not None
        if frame.energy_eV is not None and not np.isfinite(frame.energy_eV):
            return f"the energy is {frame.energy_eV}"
        largest = float(np.linalg.norm(frame.forces, axis=1).max())
        if not largest <= c.force_limit_eV_per_A:
            return f"a force is {largest:.0f} eV/A, above {c.force_limit_eV_per_A:g}"
        if len(neighbour_pairs(frame.positions, frame.cell, frame.pbc, c.shortest_A, False).i):
            return f"two atoms are closer than {c.shortest_A:g} A"
        return None

    def _count(self, what: str, n: int) -> None:
        self._counts[what] = int(self._counts.get(what, 0)) + n
        setattr(self.progress, what, getattr(self.progress, what) + n)

    def _save(self, place: int, inside: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        self.store.save({"task": place, "inside": inside, "counts": self._counts}, arrays)

    def _stop(self, task: Task, reason: str) -> None:
        line = f"{task.title} stopped: {reason}"
        self.progress.stopped.append(line)
        self._report("warning: " + line)

    def _begin_clock(self, start: int) -> None:
        def cost(task: Task) -> int:
            if task.kind == "relabel":
                return len(self.groups[task.structure])
            return Schedule(self.config, task).total

        costs = [cost(t) for t in self.tasks]
        self._ends = list(np.cumsum(costs))
        self._steps_left = sum(costs[start:])
        inside = self.store.state.get("inside") or {}
        self._steps_left -= int(inside.get("step", 0))
        self._done, self._spoke = 0, time.monotonic()
        self._began: float | None = None

    def _tick(self, task: Task, steps: int, temperature_K: float | None = None) -> None:
        now = time.monotonic()
        if self._began is None:  # the first call compiles: no measure of what is left
            self._began, self._steps_left = now, self._steps_left - steps
            return
        self._done += steps
        if now - self._spoke < self._every_s:
            return
        self._spoke = now
        each = (now - self._began) / max(self._done, 1)
        left = each * max(self._steps_left - self._done, 0)
        warm = "" if temperature_K is None else f"  {temperature_K:.0f} K"
        self._report(
            f"{task.title}{warm}  {self.total_frames} frames  {each * 1e3:.1f} ms/step  "
            f"left {duration(left)}"
        )
