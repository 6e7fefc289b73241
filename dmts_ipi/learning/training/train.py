"""Training of a student on labelled frames."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols
from torch import Tensor, nn

from dmts_ipi.core.durations import duration
from dmts_ipi.core.errors import InputError, RunFault
from dmts_ipi.core.frames import Frame
from dmts_ipi.learning.error_warning import error_warning, more_labels_help
from dmts_ipi.models.devices import resolve_device
from dmts_ipi.models.model_files import pack, write_atomically
from dmts_ipi.students.contract import (
    DIRECT,
    ENERGY,
    FORCES,
    LABEL_OF,
    VIRIAL,
    ArchitectureConfig,
    Batch,
    FrameSet,
)
from dmts_ipi.students.files import read_student, save_student
from dmts_ipi.students.registry import architecture_of, parse_sizes

from .config import TrainConfig
from .loss import student_loss
from .optim import make_optimizers, optimizer_tensors, rate, restore_optimizers
from .parallel import Workers
from .report import Reporter
from .split import BatchSampler, partners, plan_batches, split_frames
from .validate import Validation, Validator

log = logging.getLogger(__name__)

STATE = "training/state.safetensors"
HISTORY = "training/history.json"
CURVE = "training/curve.png"
CACHED_BATCHES = 6000
COMPARED_FRAMES = 16  # of the training, whose error is compared with that of held-out frames
MOST_COMPILED_SHAPES = 4
OVERFITTING = 0.9  # part to which the loss has fallen while the held-out error has not


@dataclass
class Progress:
    """Where a training is; stored with its state."""

    step: int = 0
    elapsed_s: float = 0.0
    best_score: float = math.inf
    best_step: int = -1
    validations: int = 0
    losses: list[float] = field(default_factory=list)  # since the last validation
    history: list[dict[str, float]] = field(default_factory=list)
    warning: str = ""  # of the errors of the best checkpoint
    note: str = ""  # whether more labels would help
    best_mae: float | None = None  # of all validations, eV/A, with its number and the loss then
    best_mae_validation: int = 0
    best_mae_loss: float = 0.0
    ended_early: bool = False


class Trainer:
    """Trains a student, writes checkpoints, resumes.

    Args:
        frames: labelled frames (forces required).
        config: options; of a resumed run they must be those it began with.
        folder: model files go here, everything else into ``training/`` below it.
        teacher: ``name`` and ``identity``, recorded.
        data_sha256: hash of the labels, recorded and compared on resuming.
        workers: processes that share the batches.
        reporter: shows lines and progress.
    """

    def __init__(
        self,
        frames: Sequence[Frame],
        config: TrainConfig,
        folder: Path,
        teacher: Mapping[str, str],
        data_sha256: str,
        workers: Workers | None = None,
        reporter: Reporter | None = None,
    ) -> None:
        config = config.model_copy(update={"device": resolve_device(config.device)})
        self.config, self.folder = config, Path(folder)
        self.teacher, self.data_sha256 = dict(teacher), data_sha256
        self.workers = workers or Workers()
        self.reporter = reporter or Reporter()
        torch.manual_seed(config.seed)
        a = config.architecture
        self.architecture = architecture_of(a)
        self.started_from: dict[str, Any] | None = None
        labelled = sorted({int(z) for f in frames for z in f.numbers})
        if config.start is None:
            self.elements = labelled
            self.student = self.architecture.build(a, self.elements)
        else:
            self.student, self.elements, self.started_from = begin_from(config.start, a, labelled)
        given: Mapping[Any, float] = config.loss_weights or self.architecture.weights(a)
        self.weights = {str(name): weight for name, weight in given.items() if weight > 0}
        kept, held = split_frames(frames, config.validation_fraction, config.seed)
        self.train_set = self.architecture.frames([frames[k] for k in kept], a, self.elements)
        check_labels(self.train_set, self.weights)
        if self.weights.get(ENERGY):
            self.train_set.atom_energies_eV = fit_atom_energies(self.train_set)
        self.validator = Validator([frames[k] for k in held], config, self.elements)
        self.later = (
            partners(self.train_set.frames, range(len(kept)), config.difference_fs)
            if config.difference_weight > 0
            else {}
        )
        self.sizes = (len(kept), len(held))
        # A sum over a batch (energy, virial) has another number of frames in each mixed batch.
        sums = {LABEL_OF[name] for name in self.weights} - {FORCES}
        compiled = config.compile and self.architecture.trains_compiled(a)
        alike = compiled and not sums and not self.later
        groups, sizes, pools = plan_batches(
            self.train_set, config.batch_frames, sums, alike, config.seed
        )
        self.sampler = BatchSampler(groups, sizes, self.workers.world, config.seed, pools)
        self._cache: dict[tuple[int, ...], tuple[Batch, Tensor | None]] = {}
        self.progress = Progress()
        if config.start is None:
            self.prepared = self.architecture.prepare(self.student, self.train_set, config.seed)
        else:
            with torch.no_grad():
                self.prepared = self.architecture.adapt(self.student, self.train_set)
        self._check_outputs()
        self.student.to(config.device)
        self.parameters = dict(self.student.named_parameters())
        self.average = {k: v.detach().clone() for k, v in self.parameters.items()}
        self.optimizers = make_optimizers(
            self.student, config, self.architecture.hidden_matrices(self.student)
        )
        # Each shape of batches is compiled by itself, a minute each: worth it for a few.
        self.shapes = len(groups) + len(pools)
        self._compiled = compiled and self.shapes <= MOST_COMPILED_SHAPES and (alike or not pools)
        self._seen_shapes: set[object] = set()
        self._compiling_s = 0.0
        if self._compiled and pools:
            self.train_set.set_room(pools[0].frames, pools[0].room)
        self._loss = torch.compile(student_loss, dynamic=False) if self._compiled else student_loss

    def _check_outputs(self) -> None:
        """Refuses a weight for what the network does not give."""
        if self.config.loss_weights is None:
            return
        with torch.no_grad():
            outputs = self.architecture.outputs(self.student, self.train_set.batch([0]))
        for name, weight in self.weights.items():
            if name not in outputs:
                raise InputError(
                    f"loss_weights.{name}",
                    weight,
                    f"is not an output of this {self.architecture.name} student; its outputs are "
                    + ", ".join(outputs),
                )

    @property
    def base_rmse(self) -> float:
        """RMSE, in eV/A, of the density student's pair force alone."""
        return self.prepared.figures["base_rmse_eV_per_A"]

    def _batch(self, index: tuple[int, ...]) -> tuple[Batch, Tensor | None]:
        """A batch and the pairs of the same atom in consecutive frames, if wanted."""
        if index in self._cache:
            return self._cache[index]
        device = self.config.device
        frames = list(index)
        pairs: Tensor | None = None
        links = [(b, self.later[k]) for b, k in enumerate(index) if k in self.later]
        frames += [later for _, later in links]
        join = self.train_set.batch if links else self.train_set.padded_batch
        batch = join(frames, device=device)
        if links:
            where = self.train_set.atom_rows(frames)
            first = np.concatenate([where[b] for b, _ in links])
            second = np.concatenate(where[len(index) :])
            pairs = torch.as_tensor(np.stack([first, second]), device=device)
        if len(self._cache) < CACHED_BATCHES:
            self._cache[index] = batch, pairs
        return batch, pairs

    def fraction_done(self) -> float:
        """Progress 0..1 by steps or by the clock."""
        if self.config.steps is not None:
            return self.progress.step / self.config.steps
        return self.progress.elapsed_s / (60.0 * float(self.config.minutes or 1.0))

    def _value_and_gradients(self, batch: Batch, pairs: Tensor | None) -> Tensor:
        c = self.config
        arguments = (
            self.architecture,
            self.student,
            batch,
            self.weights,
            c.huber_eV_per_A,
            pairs,
            c.difference_weight,
        )
        if self._compiled:
            began, shape = time.monotonic(), shape_of(batch, pairs)
            try:
                loss = self._loss(*arguments)
                if shape not in self._seen_shapes:
                    self._seen_shapes.add(shape)
                    self._took_to_compile(time.monotonic() - began)
            except Exception as error:  # no compiler, or one that fails: any exception
                why = " ".join(str(error).split()) or type(error).__name__
                log.warning("warning: trains uncompiled and slower (%s)", why[:200])
                self._compiled, self._loss = False, student_loss
                loss = student_loss(*arguments)
        else:
            loss = student_loss(*arguments)
        loss.backward()
        return loss.detach()

    def step(self) -> Tensor:
        """One optimiser step. Returns the loss."""
        c, p = self.config, self.progress
        batch, pairs = self._batch(self.sampler.batch(p.step, self.workers.rank))
        loss = self._value_and_gradients(batch, pairs)
        done, loss = self.workers.average_gradients(
            self.parameters.values(), self.fraction_done(), loss
        )
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), c.clip)
        usable = bool(torch.isfinite(norm))  # one frame that overflows must not end a night's run
        scale = rate(done, p.step, c)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * scale
            if usable:
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        p.step += 1
        keep = min(c.ema, p.step / (p.step + 10.0))
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.average.values()), list(self.parameters.values()), 1.0 - keep
            )
        return loss

    def run(self, stop_after_steps: int | None = None) -> Progress:
        """Trains to the end (or for some steps, then saves the state: for tests and job limits).

        Raises:
            InputError: a checkpoint cannot be written (the previous one stays good).
            RunFault: the loss is no longer finite.
        """
        p = self.progress
        self._say_start()
        begin, before, first = time.monotonic(), p.elapsed_s, p.step
        losses = [torch.tensor(x) for x in p.losses]
        while not self.workers.agree(self.fraction_done() >= 1.0 or p.ended_early):
            if stop_after_steps is not None and p.step - first >= stop_after_steps:
                p.losses = [float(x) for x in losses]
                self._save_state()
                return p
            losses.append(self.step())
            if p.step == first + 1:
                begin = time.monotonic()  # the first step compiles: it is not training
            else:
                begin += self._compiling_s
            self._compiling_s = 0.0
            p.elapsed_s = before + time.monotonic() - begin
            if self.workers.leads:
                self.reporter.tick(p.step, min(self.fraction_done(), 1.0), p.elapsed_s)
            due = (p.validations + 1) / self.config.validations
            if self.workers.agree(self.fraction_done() >= min(due, 1.0)):
                finite = [float(x) for x in losses if math.isfinite(float(x))]
                loss = math.fsum(finite) / len(finite) if finite else math.nan
                losses, p.losses = [], []
                self._validate(loss)
                p.elapsed_s = before + time.monotonic() - begin
        return p

    def _say_start(self) -> None:
        if not self.workers.leads or self.progress.step:
            return
        count = sum(v.numel() for v in self.parameters.values())
        self.reporter.line(
            f"{count} parameters, {self.sizes[0]} frames to train on, {self.sizes[1]} held out"
            + (f"; {self.prepared.text}" if self.prepared.text else "")
        )
        if self._compiled:
            times = f", for each of {self.shapes} shapes of batches" if self.shapes > 1 else ""
            self.reporter.line(
                f"compiling the training step: a minute or two{times}, not counted as training "
                "(--no-compile trains without, some three times slower)"
            )

    def _took_to_compile(self, seconds: float) -> None:
        self._compiling_s += seconds
        if self.workers.leads:
            self.reporter.line(f"compiled in {duration(seconds)}")

    def _validate(self, loss: float) -> None:
        p = self.progress
        p.validations += 1
        if math.isnan(loss):
            kept = (
                f"the checkpoint in {self.folder} is good" if p.best_step >= 0 else "none is kept"
            )
            raise RunFault(
                f"training: the loss is not finite at step {p.step}; lower the learning rates, and "
                f"look for wrong labels; {kept}"
            )
        if not self.workers.leads:
            return
        now = {k: v.detach().clone() for k, v in self.parameters.items()}
        self._set_weights(self.average)
        result = self.validator(self.student, self._late())
        row = {"step": p.step, "elapsed_s": round(p.elapsed_s, 1), "loss_eV_per_A": loss}
        row.update(result.figures())
        p.history.append(row)
        better = result.score < p.best_score or not math.isfinite(p.best_score)
        if better:
            p.best_score, p.best_step = result.score, int(p.step)
            training_rmse = self.validator.rmse(self.student, self.train_set, COMPARED_FRAMES)
            p.warning = error_warning(result.parts, training_rmse)
            p.note = more_labels_help(result.rmse, training_rmse)
            self._save_model(result, row)
        self._set_weights(now)
        p.ended_early = self._overfits(result.mae, loss)
        self._save_state()
        self._say(row, result, better)
        if p.ended_early:
            self.reporter.line(
                f"ends here: the held-out error has not fallen for {self.config.patience} "
                "validations while that of the training has; more labels would help"
            )

    def _overfits(self, mae: float, loss: float) -> bool:
        """Whether only the training error has fallen for as long as patience allows."""
        p, patience = self.progress, self.config.patience
        if p.best_mae is None or mae < p.best_mae:
            p.best_mae, p.best_mae_validation, p.best_mae_loss = mae, p.validations, loss
        waited = p.validations - p.best_mae_validation
        undecided = bool(self.validator.groups) and not self._late()
        learns = loss < OVERFITTING * p.best_mae_loss
        return bool(patience) and waited >= patience and learns and not undecided

    def _late(self) -> bool:
        """Whether checkpoints already compete by heating (it costs many evaluations)."""
        return self.fraction_done() >= self.config.heating_from

    def _set_weights(self, weights: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(weights[name])

    def _say(self, row: Mapping[str, float], result: Validation, better: bool) -> None:
        done = min(self.fraction_done(), 1.0)
        left = self.progress.elapsed_s * (1.0 / max(done, 1e-9) - 1.0)
        loss = 1e3 * row["loss_eV_per_A"]
        self.reporter.line(
            f"step {self.progress.step} ({100 * done:3.0f} %)  loss {loss:.1f}"
            f"  held-out {result.text()}{' *' if better else '  '}"
            f"  {self.progress.step / max(self.progress.elapsed_s, 1e-9):.1f} steps/s"
            f"  left {duration(left)}"
        )

    def _save_model(self, result: Validation, row: Mapping[str, float]) -> None:
        c = self.config
        self.architecture.finish(self.student, self.train_set)
        energies = self.train_set.atom_energies_eV
        save_student(
            self.folder,
            self.student,
            config=c.architecture,
            elements=self.elements,
            teacher=self.teacher,
            training_data_sha256=self.data_sha256,
            errors=result.figures(),
            extra={
                **({"atom_energies_eV": energies} if energies is not None else {}),
                "training": {
                    "step": row["step"],
                    "frames": self.sizes[0],
                    "held_out_frames": self.sizes[1],
                    "chosen_by": self.validator.chosen_by,
                    **({"started_from": self.started_from} if self.started_from else {}),
                    **self.prepared.figures,
                    "options": c.model_dump(mode="json", exclude={"architecture"}),
                },
            },
        )

    def _save_state(self) -> None:
        if not self.workers.leads:
            return
        p = self.progress
        tensors = {f"weights.{k}": v for k, v in self.student.state_dict().items()}
        tensors.update({f"average.{k}": v for k, v in self.average.items()})
        tensors.update(optimizer_tensors(self.optimizers))
        note = {
            "config": self.config.model_dump_json(),
            "data_sha256": self.data_sha256,
            "teacher": json.dumps(self.teacher),
            "progress": json.dumps({**vars(p), "best_score": _finite(p.best_score)}),
        }
        write_atomically(self.folder / STATE, pack(tensors, note))
        history = {"best_step": p.best_step, "validations": p.history}
        write_atomically(self.folder / HISTORY, (json.dumps(history, indent=1) + "\n").encode())

    def resume(self) -> bool:
        """Continues from the state in the folder, if there is one. Returns whether there was.

        Raises:
            InputError: the state is unreadable, or belongs to other options or labels.
        """
        from safetensors import SafetensorError, safe_open

        path = self.folder / STATE
        if not path.exists():
            return False
        try:
            with safe_open(path, framework="pt") as stream:
                note = stream.metadata() or {}
                tensors = {k: stream.get_tensor(k) for k in stream.keys()}  # noqa: SIM118
            stored = json.loads(note["config"])
            progress = json.loads(note["progress"])
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            raise InputError(
                "state", path, "is unreadable; remove it to start again, or restore a copy"
            ) from error
        wanted = json.loads(self.config.model_dump_json())
        # A state may be older than a field of the options or of the architecture.
        stored = {**{k: f.default for k, f in type(self.config).model_fields.items()}, **stored}
        known = type(self.config.architecture).model_fields
        stored["architecture"] = {
            **{k: f.default for k, f in known.items()}, **stored["architecture"]
        }  # fmt: skip
        for name, value in wanted.items():
            if stored.get(name) != value and name not in ("device", "compile"):
                raise InputError(
                    name, value, f"differs from the training in {self.folder} "
                    f"({stored.get(name)}); use that value, or another folder",
                )  # fmt: skip
        if note.get("data_sha256") != self.data_sha256:
            raise InputError(
                "labels", "", f"differ from those of the training in {self.folder}; use the same"
            )
        weights = {k[8:]: v for k, v in tensors.items() if k.startswith("weights.")}
        self.student.load_state_dict(weights)
        with torch.no_grad():
            for name, value in self.average.items():
                value.copy_(tensors[f"average.{name}"])
        restore_optimizers(self.optimizers, tensors)
        self.progress = Progress(**progress)
        if progress["best_score"] is None:
            self.progress.best_score = math.inf
        return True


def begin_from(
    folder: str, sizes: ArchitectureConfig, labelled: Sequence[int]
) -> tuple[nn.Module, list[int], dict[str, Any]]:
    """A trained student as the start of a training.

    Args:
        folder: of the student.
        sizes: those that are wanted.
        labelled: elements of the labels.

    Returns:
        The network, the elements that it knows, and what is recorded of it.

    Raises:
        InputError: it has other sizes, or lacks an element of the labels.
    """
    network, record = read_student(Path(folder))
    elements = [int(z) for z in record["elements"]]
    missing = sorted(set(labelled) - set(elements))
    name = str(record.get("name") or Path(folder).name)
    if missing:
        known = ", ".join(chemical_symbols[z] for z in elements)
        raise InputError(
            "from", name, f"the student knows {known}, the labels have "
            f"{chemical_symbols[missing[0]]}; train a new student, without --from",
        )  # fmt: skip
    if parse_sizes(record["architecture"], "architecture").model_dump() != sizes.model_dump():
        raise InputError(
            "from", name, "has other sizes than those given; leave out architecture and forces"
        )
    start = {"name": name, "weights_sha256": str(record["weights_sha256"])}
    return network.requires_grad_(True).train(), elements, start


def shape_of(batch: Batch, pairs: Tensor | None) -> tuple[object, ...]:
    """What a compiled training step depends on."""
    layout = getattr(batch, "layout", tuple(batch.positions.shape))
    return layout, None if pairs is None else tuple(pairs.shape)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def check_labels(frames: FrameSet, weights: Mapping[str, float]) -> None:
    """Refuses to train on what the labels do not have.

    Raises:
        InputError: nothing is trained on forces, or no frame has an energy or a virial.
    """
    if not any(weights.get(name) for name in (FORCES, DIRECT)):
        raise InputError("loss_weights", dict(weights), "give forces a weight above 0")
    if weights.get(ENERGY) and all(f.energy_eV is None for f in frames.frames):
        raise InputError("loss_weights.energy", weights[ENERGY], "the labels have no energies")
    if weights.get(VIRIAL) and all(f.virial_eV is None for f in frames.frames):
        raise InputError("loss_weights.virial", weights[VIRIAL], "the labels have no virials")


def fit_atom_energies(frames: FrameSet) -> list[float]:
    """Energy of an atom of each element, eV: least squares on the labels by composition."""
    some = [f for f in frames.frames if f.energy_eV is not None]
    counts = np.array([[(f.numbers == z).sum() for z in frames.elements] for f in some], float)
    energies = np.array([f.energy_eV for f in some], float)
    return [float(e) for e in np.linalg.lstsq(counts, energies, rcond=None)[0]]
