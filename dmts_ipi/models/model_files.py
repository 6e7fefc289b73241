"""Model folders: ``model.json`` and ``model.safetensors``, whatever the model. No pickle."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.files import replace_file

if TYPE_CHECKING:  # torch takes a second to import, and not every command needs it
    from torch import Tensor

RECORD, WEIGHTS = "model.json", "model.safetensors"
STUDENT, MACE = "dmts-ipi-student", "dmts-ipi-mace"
FORMATS = {MACE: 1, STUDENT: 1}  # our own, and the newest version that is read and written


def read_folder(
    folder: Path, kind: str | None = None, versions: Mapping[str, int] = FORMATS
) -> dict[str, Any]:
    """The record of a model folder, its weights checked as far as their header tells.

    Args:
        folder: holds ``model.json`` and ``model.safetensors``.
        kind: the format that is wanted; None: any that is known.
        versions: newest version that is read, by format.

    Raises:
        InputError: a file is absent, the record is no JSON, of another format or of a newer
            version, the weights are truncated or a pickle.
    """
    path = folder / RECORD
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise InputError("model", folder, f"has no {RECORD}; give a model's folder") from error
    except (OSError, ValueError) as error:
        raise InputError("model", path, f"is not JSON ({error}); copy it again") from error
    said = record.get("format") if isinstance(record, dict) else None
    wanted = [kind] if kind else list(versions)
    if said not in wanted:
        raise InputError("model", path, f"format {said!r} is not one of {', '.join(wanted)}")
    version = record.get("version")
    if not isinstance(version, int) or version > versions[said]:
        raise InputError(
            "model", path, f"version {version} is newer than {versions[said]}; upgrade dmts-ipi"
        )
    check_safetensors(folder / WEIGHTS)
    return record


def check_safetensors(path: Path) -> None:
    """Refuses a missing, truncated or foreign weights file, from its header alone.

    Raises:
        InputError: says which.
    """
    try:
        with open(path, "rb") as stream:
            head = stream.read(8)
            length = int.from_bytes(head, "little")
            raw = stream.read(length) if length < 100_000_000 else b""
    except OSError as error:
        raise InputError("model", path, "is missing; copy the whole folder again") from error
    if head[:2] == b"PK" or head[:1] == b"\x80":
        raise InputError(
            "model", path, "is a pickle, which is never loaded; give a safetensors file"
        )
    try:
        tensors = json.loads(raw)
        end = max(
            (t["data_offsets"][1] for k, t in tensors.items() if k != "__metadata__"), default=0
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError("model", path, "is not a safetensors file; copy it again") from error
    if path.stat().st_size != 8 + length + end:
        raise InputError("model", path, "is truncated; copy it again")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def check_can_write(folder: Path) -> None:
    """Refuses a folder that could not be written, before the work is done.

    Raises:
        InputError: it is a file, or it or the folder above it is not writable.
    """
    above = folder.absolute()
    while not above.exists():
        above = above.parent
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise InputError("out", folder, f"{above} is not a folder that can be written")


def pack(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Tensors as safetensors bytes, on the CPU."""
    from safetensors.torch import save

    plain = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    return bytes(save(plain, metadata=dict(metadata or {})))


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that a crash or a full disk leaves the old one intact.

    Raises:
        InputError: the folder is not writable or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content, sync=True)
    except OSError as error:
        raise InputError(
            "file",
            path,
            f"cannot be written ({error.strerror or error}); free space or choose another folder",
        ) from error
