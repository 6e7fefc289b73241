"""Models by name: one spec string for teachers, students and foreign calculators.

====================================  ======================================================
spec                                  model
====================================  ======================================================
``water-teacher``, ``water-student``  shipped (``dmts_ipi/pretrained/NAME``)
``FOLDER``                            a folder with ``model.json``; its ``format`` decides
``mace:FILE`` or ``mace:NAME``        mace-torch's own file, or a MACE foundation model
``fennol:FILE.fnx``                   FeNNol (JAX)
``metatomic:FILE.pt``                 an exported metatomic model
``ase:module.Class {"key": 1}``       any ASE calculator
====================================  ======================================================

A path that ends in ``.fnx`` or ``.model`` needs no prefix. Keywords are JSON after the spec.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.model import ForceModel

from .devices import resolve_device
from .model_files import MACE, RECORD, STUDENT, WEIGHTS, file_sha256, read_folder

PRETRAINED = Path(__file__).resolve().parent.parent / "pretrained"
KINDS = ("mace", "fennol", "metatomic", "ase")
SUFFIXES = {".fnx": "fennol", ".model": "mace"}
HOW = "give a shipped name, a model folder, mace:FILE, fennol:FILE, metatomic:FILE or ase:PATH"


@dataclass(frozen=True)
class Spec:
    """A parsed spec: ``kind`` is ``folder`` or one of ``KINDS``; ``target`` a path or a name."""

    kind: str
    target: str
    keywords: dict[str, Any] = field(default_factory=dict)


def shipped() -> list[str]:
    """Names of the models that ship with the package."""
    return sorted(p.parent.name for p in PRETRAINED.glob("*/model.json"))


def parse_spec(spec: str) -> Spec:
    """Takes a spec apart; reads no model file.

    Raises:
        InputError: nothing of that name is there, or the keywords are no JSON object.
    """
    text, keywords = spec.strip(), {}
    brace = text.find("{")
    if brace >= 0:
        try:
            keywords = json.loads(text[brace:])
        except json.JSONDecodeError as error:
            raise InputError("model keywords", text[brace:], f"is not JSON ({error})") from error
        text = text[:brace].strip()
    kind, colon, target = text.partition(":")
    if colon and kind in KINDS:
        return Spec(kind, target.strip(), keywords)
    if keywords:
        raise InputError("model", spec, "keywords need a prefix: " + ", ".join(KINDS))
    path = Path(text).expanduser()
    if path.suffix in SUFFIXES and path.is_file():
        return Spec(SUFFIXES[path.suffix], str(path))
    if (path / RECORD).is_file():
        return Spec("folder", str(path))
    if text in shipped():
        return Spec("folder", str(PRETRAINED / text))
    if path.is_dir():
        raise InputError("model", spec, "the folder has no model.json; " + HOW)
    if path.is_file():
        raise InputError("model", spec, "a file of unknown kind; " + HOW)
    raise InputError("model", spec, f"does not exist (shipped: {', '.join(shipped())}); {HOW}")


def read_record(spec: str) -> dict[str, Any]:
    """What is known of a model without loading it: its ``model.json``, and its identity.

    Returns:
        The record of a model folder, or a short one for foreign models; always with ``format``,
        ``name``, ``identity`` (a hash that tells two models apart) and ``source`` (the path).

    Raises:
        InputError: no such model, broken JSON, unknown format, or a newer version.
    """
    parsed = parse_spec(spec)
    if parsed.kind == "folder":
        return _folder_record(Path(parsed.target))
    path = Path(parsed.target).expanduser()
    text = f"{parsed.kind}:{parsed.target}"
    if parsed.keywords:
        text += json.dumps(parsed.keywords, sort_keys=True)
    known = parsed.kind != "ase" and path.is_file()
    return {
        "format": parsed.kind,
        "name": path.stem if known else text,
        "identity": file_sha256(path) if known else text,
        "source": str(path) if known else parsed.target,
    }


def _folder_record(folder: Path) -> dict[str, Any]:
    record = read_folder(folder)
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
    if record["format"] == STUDENT:
        from dmts_ipi.students.density.model import load_student

        return load_student(Path(parsed.target), device=device, dtype=dtype, compile=compile)
    if record["format"] == MACE:
        from .mace import load_folder

        return load_folder(Path(parsed.target), device, dtype)
    if parsed.kind == "mace":
        from .mace import load_mace_torch

        return load_mace_torch(parsed.target, parsed.keywords, device, dtype)
    if parsed.kind == "fennol":
        from .fennol import load_fennol

        return load_fennol(Path(parsed.target).expanduser(), parsed.keywords, device, dtype)
    if parsed.kind == "metatomic":
        from .metatomic import load_metatomic

        return load_metatomic(Path(parsed.target).expanduser(), parsed.keywords, device, dtype)
    from .ase import load_ase

    return load_ase(parsed.target, parsed.keywords, device, dtype)
