"""Which model made a set of labels, and whether it is the one that it is said to be."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dmts_ipi.core.errors import DmtsError, InputError
from dmts_ipi.core.frames import Frame
from dmts_ipi.core.label_files import LABEL_UNITS
from dmts_ipi.core.model import ForceModel, check_structure, compute

log = logging.getLogger(__name__)

Files = Sequence[tuple[Path, Sequence[Frame]]]

# rounding: float32 networks, eight decimals in files
ABSOLUTE_EV_PER_A, RELATIVE = 5e-3, 5e-3
COMPARED = 2  # frames


@dataclass(frozen=True)
class Teacher:
    """The model that made labels: its name for people, and its identity (``ForceModel``)."""

    name: str
    identity: str

    def as_dict(self) -> dict[str, str]:
        """As a student records it."""
        return {"name": self.name, "identity": self.identity}


def teacher_in(files: Files) -> Teacher | None:
    """The model that made all labels which say so; None where none does.

    Raises:
        InputError: two models made them.
    """
    teacher: Teacher | None = None
    where = ""
    for path, frames in files:
        for k, frame in enumerate(frames):
            if not frame.teacher_identity:
                continue
            if teacher is None:
                teacher, where = Teacher(frame.teacher, frame.teacher_identity), f"{path} frame {k}"
            elif not _same(frame.teacher_identity, teacher.identity):
                other = frame.teacher
                if other == teacher.name:
                    other += f" {frame.teacher_identity[:12]}"
                raise InputError(
                    "labels",
                    path,
                    f"frame {k} is labelled by {other}, but {where} by {teacher.name}; a student "
                    "has one teacher: leave a file out, or label all frames by one model "
                    "(dmts-ipi label --teacher MODEL --frames FILE)",
                )
    return teacher


def teacher_of_labels(files: Files, given: str | None, device: str = "cpu") -> Teacher:
    """The teacher that made the labels: as recorded in them, otherwise as given by ``--teacher``.

    If the labels record no teacher and the given one can be loaded on this machine, its forces are
    compared with the labels of one or two frames.

    Args:
        files: label files and their frames.
        given: spec of a model (``models.load``), or None.
        device: where the given teacher is evaluated.

    Raises:
        InputError: labels of several models, of another model than was given, or of an unknown one.
    """
    known = teacher_in(files)
    silent = [
        (path, [f for f in frames if not f.teacher_identity])
        for path, frames in files
        if any(not f.teacher_identity for f in frames)
    ]
    if silent and given is None:
        raise InputError(
            "labels", silent[0][0], "do not record which model made them; give it with --teacher"
        )
    if given is None:
        assert known is not None
        return known
    stated = describe(given)
    if known is not None:
        named = stated.identity == "" and stated.name == known.name
        if not named and not _same(stated.identity, known.identity):
            raise InputError(
                "teacher",
                given,
                f"did not make these labels, which are by {known.name}; leave --teacher out",
            )
        stated = known
    for path, frames in silent:
        _compare_at_hand(path, frames, given, device)
        log.warning("note: %s does not say which model made its labels: taken as %s", path, given)
    return stated


def _same(one: str, other: str) -> bool:
    from dmts_ipi.models.registry import same_identity

    return one == other or same_identity(one, other)


def describe(spec: str) -> Teacher:
    """Name and identity of a model; the identity needs only its record.

    A teacher that is not on this machine has no identity.
    """
    from dmts_ipi.models.load import read_record

    try:
        return Teacher(spec, str(read_record(spec)["identity"]))
    except InputError as error:
        log.warning("warning: the teacher's identity is not recorded (%s)", error)
        return Teacher(spec, "")


def _compare_at_hand(path: Path, frames: Sequence[Frame], spec: str, device: str) -> None:
    from dmts_ipi.models.load import load_model

    try:
        model = load_model(spec, device=device)
    except DmtsError as error:
        log.warning("note: %s: not compared with %s, which does not load: %s", path, spec, error)
        return
    compare_with_teacher(path, frames, model)


def compare_with_teacher(path: Path, frames: Sequence[Frame], model: ForceModel) -> None:
    """Evaluates the first and the last frame by the teacher and refuses other labels than its own.

    Raises:
        InputError: forces differ by far more than rounding; says by how much, and what else they
            would agree with (another unit, the other sign).
        ModelFault: the model fails on one of these frames.
    """
    chosen = sorted({0, len(frames) - 1})[:COMPARED]
    for k in chosen:
        frame = frames[k]
        check_structure(*frame.model_input, model.elements)
        labels = np.asarray(frame.forces, float)
        own = compute(model, frame).forces_eV_per_A
        rms = float(np.sqrt((own**2).mean()))
        off = float(np.sqrt(((labels - own) ** 2).mean()))
        if off <= ABSOLUTE_EV_PER_A + RELATIVE * rms:
            continue
        raise InputError(
            "labels",
            path,
            f"are not those of {model.name}: forces of frame {k} differ by {off:.3g} eV/A (rms, of "
            f"{rms:.3g}); {_reason(labels, own, frame)}",
        )


def _reason(labels: np.ndarray, own: np.ndarray, frame: Frame) -> str:
    """What else would explain a difference, and what to do."""
    limit = ABSOLUTE_EV_PER_A + RELATIVE * float(np.sqrt((own**2).mean()))
    for unit, (_, factor) in LABEL_UNITS.items():
        for sign in (1, -1):
            if unit == "eV/A" and sign == 1:
                continue
            if float(np.sqrt(((sign * factor * labels - own) ** 2).mean())) <= limit:
                if sign == -1:
                    return "they are its gradients (the other sign): turn their sign"
                return f"they are its forces in {unit}: give --label-units {unit}"
    advice = "label them by it: dmts-ipi label --teacher MODEL --frames FILE"
    if not np.any(frame.pbc):
        advice = "the frames have no cell: write it back if it was lost; else " + advice
    return advice
