"""Models by name: one spec string for teachers, students and foreign calculators.

A spec is the name of a model that ships (``dmts_ipi/pretrained/NAME``), a folder with
``model.json``, or ``PREFIX:TARGET {"keyword": value}``, where the prefix is one of the kinds in
``models.registry`` and the keywords are JSON. A file whose ending tells its kind (``.fnx``,
``.model``) needs no prefix.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.model import ForceModel

from .devices import resolve_device
from .model_files import RECORD, WEIGHTS, file_sha256, read_folder
from .registry import (
    LoadOptions,
    folder_versions,
    how_to_name,
    kind_of_file,
    kind_of_prefix,
    model_kinds,
    prefixes,
)

PRETRAINED = Path(__file__).resolve().parent.parent / "pretrained"
FOLDER = "folder"


@dataclass(frozen=True)
class Spec:
    """A parsed spec: ``kind`` is ``folder`` or a prefix; ``target`` a path or a name."""

    kind: str
    target: str
    keywords: dict[str, Any] = field(default_factory=dict)


def shipped() -> list[str]:
    """Names of the models that ship with the package."""
    return sorted(p.parent.name for p in PRETRAINED.glob("*/model.json"))


def _split(spec: str) -> Spec:
    """Prefix (empty: none), target and keywords; looks at no file.

    Raises:
        InputError: the keywords are no JSON object, or stand behind what takes none.
    """
    text, keywords = spec.strip(), {}
    brace = text.find("{")
    if brace >= 0:
        try:
            keywords = json.loads(text[brace:])
        except json.JSONDecodeError as error:
            raise InputError("model keywords", text[brace:], f"is not JSON ({error})") from error
        text = text[:brace].strip()
    prefix, colon, target = text.partition(":")
    if colon and kind_of_prefix(prefix) is not None:
        return Spec(prefix, target.strip(), keywords)
    if keywords:
        raise InputError("model", spec, "keywords need a prefix: " + ", ".join(prefixes()))
    return Spec("", text)


def parse_spec(spec: str) -> Spec:
    """Takes a spec apart; reads no model file.

    Raises:
        InputError: nothing of that name is there, or the keywords are no JSON object.
    """
    parsed = _split(spec)
    if parsed.kind:
        return parsed
    text = parsed.target
    path = Path(text).expanduser()
    if path.is_file():
        kind = kind_of_file(path)
        if kind is None:
            raise InputError("model", spec, "is a file of unknown kind; " + how_to_name())
        return Spec(kind.name, str(path))
    if (path / RECORD).is_file():
        return Spec(FOLDER, str(path))
    if text in shipped():
        return Spec(FOLDER, str(PRETRAINED / text))
    if path.is_dir():
        raise InputError("model", spec, "the folder has no model.json; " + how_to_name())
    raise InputError(
        "model", spec, f"does not exist (shipped: {', '.join(shipped())}); {how_to_name()}"
    )


def absolute_spec(spec: str, base: Path | None = None) -> str:
    """A spec that means the same from any folder: a path that is there is made absolute.

    Args:
        spec: see the module's docstring.
        base: the folder that a relative path counts from; None: the working directory.

    Raises:
        InputError: as ``_split``.
    """
    parsed = _split(spec)
    path = (base or Path()) / Path(parsed.target).expanduser()
    if parsed.kind:
        if not model_kinds.get(parsed.kind).target_is_path or not path.is_file():
            return spec
        keywords = f" {json.dumps(parsed.keywords)}" if parsed.keywords else ""
        return f"{parsed.kind}:{path.resolve()}{keywords}"
    if path.is_file():
        kind = kind_of_file(path)
        return f"{kind.name}:{path.resolve()}" if kind is not None else str(path.resolve())
    return str(path.resolve()) if (path / RECORD).is_file() else spec


def read_record(spec: str) -> dict[str, Any]:
    """What is known of a model without loading it: its ``model.json``, and its identity.

    Returns:
        The record of a model folder, or a short one for foreign models; always with ``format``,
        ``name``, ``identity`` (a hash that tells two models apart) and ``source`` (the path).

    Raises:
        InputError: no such model, broken JSON, unknown format, or a newer version.
    """
    parsed = parse_spec(spec)
    if parsed.kind == FOLDER:
        return _folder_record(Path(parsed.target))
    return model_kinds.get(parsed.kind).record(parsed.target, parsed.keywords)


def _folder_record(folder: Path) -> dict[str, Any]:
    record = read_folder(folder, versions=folder_versions())
    card = record.get("card") or {}
    record.setdefault("name", card.get("name") or folder.name)
    record.setdefault("elements", (record.get("architecture") or {}).get("elements"))
    record["identity"] = file_sha256(folder / WEIGHTS)
    record["source"] = str(folder)
    return record


def load_model(
    spec: str, *, device: str = "cpu", dtype: str | None = None, compile: bool = True
) -> ForceModel:
    """Loads a model.

    Args:
        spec: see the module's docstring.
        device: ``auto`` (the GPU where torch sees one), ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: ``float32`` or ``float64``; None is the model's own choice.
        compile: whether a student is compiled by torch (slow first call, fast after).

    Raises:
        InputError: no such model, unreadable, or an option that the machine lacks.
        MissingPackage: the teacher's package is not installed; says which extra brings it.
    """
    if dtype not in (None, "float32", "float64"):
        raise InputError("dtype", dtype, "must be float32 or float64")
    parsed = parse_spec(spec)
    record = read_record(spec)
    device = resolve_device(device)
    kind = model_kinds.get(record["format"])
    model = kind.load(parsed.target, parsed.keywords, LoadOptions(device, dtype, compile))
    model.identity = str(record["identity"])  # that of labels and students, too
    return model
