"""A student's files: ``model.safetensors`` and ``model.json`` in one folder; no pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.model import ForceModel
from dmts_ipi.models.model_files import (
    FORMATS,
    RECORD,
    STUDENT,
    WEIGHTS,
    pack,
    read_folder,
    write_atomically,
)

from .contract import ArchitectureConfig
from .registry import architecture_of, parse_sizes

REQUIRED = ("architecture", "elements", "cutoff_A", "precision", "teacher", "weights_sha256")


def save_student(
    folder: Path,
    student: nn.Module,
    *,
    config: ArchitectureConfig | None = None,
    elements: list[int] | None = None,
    teacher: Mapping[str, str],
    training_data_sha256: str,
    errors: Mapping[str, Any],
    extra: Mapping[str, Any] | None = None,
    weights: Mapping[str, Tensor] | None = None,
) -> dict[str, Any]:
    """Writes a student. Returns its record.

    Args:
        folder: made if absent.
        student: the network; ``weights`` replace its own where given (an average of weights).
        config: its sizes; None: ``student.architecture``.
        elements: atomic numbers that it knows; None: ``student.elements``.
        teacher: ``name`` and ``identity`` of the teacher.
        training_data_sha256: hash of the labels.
        errors: figures of the training (units in their names).
        extra: more fields for the record.

    Raises:
        InputError: the folder cannot be written; an earlier model there stays as it was.
    """
    sizes: ArchitectureConfig = config or student.architecture  # type: ignore[assignment]
    content = pack({**student.state_dict(), **(weights or {})})
    record = {
        "format": STUDENT,
        "version": FORMATS[STUDENT],
        "architecture": sizes.model_dump(mode="json"),
        "elements": elements or student.elements,
        "cutoff_A": sizes.reach_A,
        "precision": "float32",
        "teacher": dict(teacher),
        "training_data_sha256": training_data_sha256,
        "errors": dict(errors),
        **(extra or {}),
        **architecture_of(sizes).record(student),
        "weights_sha256": hashlib.sha256(content).hexdigest(),
    }
    folder = Path(folder)
    write_atomically(folder / WEIGHTS, content)
    write_atomically(folder / RECORD, (json.dumps(record, indent=1) + "\n").encode())
    return record


def read_student_record(folder: Path) -> dict[str, Any]:
    """The JSON of a student.

    Raises:
        InputError: as ``model_files.read_folder``, or a field is missing.
    """
    record = read_folder(Path(folder), STUDENT)
    for key in REQUIRED:
        if key not in record:
            path = Path(folder) / RECORD
            raise InputError("model", path, f"field '{key}' is missing; copy it again")
    return record


def read_student(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Rebuilds a student in float32 on the CPU. Returns it with its record.

    Raises:
        InputError: as ``read_student_record``; weights absent, truncated, a pickle, or not
            those of the record.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    record = read_student_record(folder)
    path = Path(folder) / WEIGHTS
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError("model", path, "is missing or unreadable; copy it again") from error
    if hashlib.sha256(content).hexdigest() != record["weights_sha256"]:
        raise InputError(
            "model", path, f"is damaged or does not belong to its {RECORD}; copy both again"
        )
    sizes = parse_sizes(record["architecture"], f"{RECORD}: architecture")
    architecture = architecture_of(sizes)
    student = architecture.build(sizes, [int(z) for z in record["elements"]])
    try:
        student.load_state_dict(load(content))
    except (SafetensorError, RuntimeError) as error:
        line = str(error).splitlines()[0]
        raise InputError("model", path, f"does not fit its model.json ({line})") from error
    try:
        architecture.restore(student, record)
    except ValueError as error:
        raise InputError("model", Path(folder) / RECORD, str(error)) from error
    return student.eval().requires_grad_(False), record


def load_student(
    folder: Path | str,
    *,
    device: str = "cpu",
    dtype: str | None = None,
    compile: bool = True,
) -> ForceModel:
    """Loads a student's folder as a force model.

    Raises:
        InputError: the files are absent, truncated, newer, a pickle; or the device or dtype is
            not available.
    """
    network, record = read_student(Path(folder))
    name = str(record.get("name") or Path(folder).name)
    sizes = parse_sizes(record["architecture"], f"{RECORD}: architecture")
    return architecture_of(sizes).force_model(
        network, sizes, name, record, device=device, dtype=dtype, compile=compile
    )


def parse_dtype(dtype: str | None) -> torch.dtype:
    """float32 (default) or float64.

    Raises:
        InputError: anything else.
    """
    kinds = {None: torch.float32, "float32": torch.float32, "float64": torch.float64}
    if dtype not in kinds:
        raise InputError("dtype", dtype, "a student runs in float32 or float64")
    return kinds[dtype]
