"""Kinds of models: the seam ``model_kinds``, at which another package adds a kind of its own.

A model is named by a *spec*: ``PREFIX:TARGET {"keyword": value}``, or a folder with
``model.json``, whose ``format`` is the name of a kind. One ``ModelKind`` says everything about a
kind: how its spec is written, how it is loaded, and what tells two of its models apart. A package
outside ours adds one by an entry point::

    [project.entry-points."dmts_ipi.model_kinds"]
    harmonic = "my_package.harmonic:KIND"

``docs/extending.md`` has a worked example.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.registry import Registry

from .model_files import MACE, STUDENT, WEIGHTS, file_sha256

if TYPE_CHECKING:
    from dmts_ipi.core.model import ForceModel

# Keywords that leave the forces as they are to rounding, as calculators usually name them.
NEUTRAL = frozenset(
    {
        *("device", "dtype", "default_dtype", "compile", "compile_mode", "enable_cueq"),
        *("verbose", "verbosity", "quiet", "silent", "log", "logfile", "log_file", "txt"),
        *("directory", "threads", "n_threads", "nthreads", "num_threads"),
    }
)


@dataclass(frozen=True)
class LoadOptions:
    """How a model is loaded.

    Attributes:
        device: ``cpu``, ``cuda`` or ``cuda:N``; it has been checked.
        dtype: ``float32``, ``float64``, or None: the model's own choice.
        compile: whether the model may be compiled.
    """

    device: str = "cpu"
    dtype: str | None = None
    compile: bool = True


@dataclass(frozen=True)
class ModelKind:
    """One kind of model.

    Attributes:
        name: the prefix of its specs; of a folder kind the ``format`` in ``model.json``.
        usage: how a spec is written, for help texts, such as ``mace:FILE``.
        description: what such a model is, in a few words.
        load: takes target, keywords and ``LoadOptions`` and returns a ``ForceModel``; of a folder
            the target is its path. It raises ``InputError`` for a model that is not there or an
            option that it does not take, ``MissingPackage`` where its package is not installed.
            The identity of the model is set by ``load_model``.
        suffixes: endings of files that need no prefix.
        in_folder: whether it is a folder with ``model.json`` and ``model.safetensors``.
        version: of a folder kind, the newest ``version`` of ``model.json`` that is read.
        target_is_path: whether ``TARGET`` may be a file: then its content, not its name, tells
            two models apart, and a relative path is made absolute where a run folder keeps it.
        neutral: keywords that do not change the forces: a student that was distilled from the
            same model with other values of them is not a student of another teacher.
    """

    name: str
    usage: str
    description: str
    load: Callable[[str, dict[str, Any], LoadOptions], ForceModel]
    suffixes: tuple[str, ...] = ()
    in_folder: bool = False
    version: int = 1
    target_is_path: bool = True
    neutral: frozenset[str] = field(default=NEUTRAL)

    def identity(self, target: str, keywords: Mapping[str, Any]) -> str:
        """What tells two models of this kind apart.

        The SHA-256 of the file (of a folder: of its weights) where there is one, else
        ``PREFIX:TARGET``; and the keywords that change the forces, as canonical JSON.
        """
        path = Path(target).expanduser()
        if self.in_folder:
            return file_sha256(path / WEIGHTS)
        physics = {k: v for k, v in keywords.items() if k not in self.neutral}
        suffix = json.dumps(physics, sort_keys=True) if physics else ""
        if self.target_is_path and path.is_file():
            return file_sha256(path) + suffix
        return f"{self.name}:{target}{suffix}"

    def record(self, target: str, keywords: Mapping[str, Any]) -> dict[str, Any]:
        """What is known of a model that is not in a folder without loading it.

        Returns:
            ``format`` (the kind's name), ``name``, ``identity`` and ``source``.
        """
        path = Path(target).expanduser()
        known = self.target_is_path and path.is_file()
        text = json.dumps(dict(keywords), sort_keys=True) if keywords else ""
        return {
            "format": self.name,
            "name": path.stem if known else f"{self.name}:{target}{text}",
            "identity": self.identity(target, keywords),
            "source": str(path) if known else target,
        }


def _load_mace(target: str, keywords: dict[str, Any], options: LoadOptions) -> ForceModel:
    from .mace import load_mace_torch

    return load_mace_torch(target, keywords, options.device, options.dtype)


def _load_fennol(target: str, keywords: dict[str, Any], options: LoadOptions) -> ForceModel:
    from .fennol import load_fennol

    return load_fennol(Path(target).expanduser(), keywords, options.device, options.dtype)


def _load_metatomic(target: str, keywords: dict[str, Any], options: LoadOptions) -> ForceModel:
    from .metatomic import load_metatomic

    return load_metatomic(Path(target).expanduser(), keywords, options.device, options.dtype)


def _load_ase(target: str, keywords: dict[str, Any], options: LoadOptions) -> ForceModel:
    from .ase import load_ase

    return load_ase(target, keywords, options.device, options.dtype)


def _load_student(target: str, keywords: dict[str, Any], options: LoadOptions) -> ForceModel:
    from dmts_ipi.students.files import load_student

    return load_student(Path(target), **vars(options))


def _load_mace_folder(target: str, keywords: dict[str, Any], options: LoadOptions) -> ForceModel:
    from .mace import load_folder

    return load_folder(Path(target), options.device, options.dtype)


_ROWS = (
    ModelKind(
        "mace",
        "mace:FILE",
        "mace-torch's own file, or by mace:NAME a MACE foundation model",
        _load_mace,
        suffixes=(".model",),
    ),
    ModelKind("fennol", "fennol:FILE", "FeNNol (JAX)", _load_fennol, suffixes=(".fnx",)),
    ModelKind(
        "metatomic",
        "metatomic:FILE",
        "an exported metatomic model (.pt)",
        _load_metatomic,
        neutral=NEUTRAL | {"extensions_directory"},
    ),
    ModelKind(
        "ase",
        "ase:PATH",
        'any ASE calculator: ase:module.Class {"key": 1}',
        _load_ase,
        target_is_path=False,
    ),
    ModelKind(STUDENT, "FOLDER", "a student that distill made", _load_student, in_folder=True),
    ModelKind(MACE, "FOLDER", "a MACE model in our own format", _load_mace_folder, in_folder=True),
)
model_kinds: Registry[ModelKind] = Registry("model_kinds", "model kind", {k.name: k for k in _ROWS})


def usable_kinds() -> dict[str, ModelKind]:
    """Every kind by name, but for those of other packages that cannot be imported."""
    usable = {}
    for name in model_kinds.names():
        try:
            usable[name] = model_kinds.get(name)
        except InputError:  # it is named when a model of it is asked for
            continue
    return usable


def kind_of_prefix(prefix: str) -> ModelKind | None:
    """The kind whose specs begin with this prefix; None: it is no prefix.

    Raises:
        InputError: its package cannot be imported.
    """
    if prefix not in model_kinds:
        return None
    kind = model_kinds.get(prefix)
    return None if kind.in_folder else kind


def kind_of_file(path: Path) -> ModelKind | None:
    """The kind that a file's ending tells."""
    return next((k for k in usable_kinds().values() if path.suffix in k.suffixes), None)


def folder_versions() -> dict[str, int]:
    """Newest version of ``model.json`` that is read, for each format of a model folder."""
    return {k.name: k.version for k in usable_kinds().values() if k.in_folder}


def prefixes() -> tuple[str, ...]:
    """All prefixes of specs."""
    return tuple(k.name for k in usable_kinds().values() if not k.in_folder)


def how_to_name() -> str:
    """The remedy for a spec that names no model."""
    *most, last = [k.usage for k in usable_kinds().values() if not k.in_folder]
    return f"give a shipped name, a model folder, {', '.join(most)} or {last}"


def table_of_specs() -> str:
    """How specs are written, a line for each kind, for help texts."""
    rows = [("NAME", "a model that ships: dmts-ipi models lists them")]
    rows.append(("FOLDER", "a folder with model.json, such as distill writes"))
    rows += [(k.usage, k.description) for k in usable_kinds().values() if not k.in_folder]
    return "\n".join(f"{usage:18s}{text}" for usage, text in rows)


def same_identity(one: str, other: str) -> bool:
    """Whether two identities are of one model; an older one may name neutral keywords as well."""
    return _canonical(one) == _canonical(other)


def _canonical(identity: str) -> str:
    prefix, colon, rest = identity.partition(":")
    target, brace, text = rest.partition("{")
    kind = usable_kinds().get(prefix) if colon and brace else None
    if kind is None:
        return identity
    try:
        return kind.identity(target.strip(), json.loads(brace + text))
    except ValueError:
        return identity
