"""Exported metatomic models (``.pt``) as teachers, through metatomic's own ASE calculator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dmts_ipi.core.errors import InputError, MissingPackage

from .ase import AseTeacher
from .model_files import file_sha256

KEYWORDS = ("extensions_directory", "non_conservative", "variants")


def load_metatomic(
    path: Path, keywords: dict[str, Any], device: str = "cpu", dtype: str | None = None
) -> AseTeacher:
    """Loads an exported model. It is TorchScript: read only because the user named it.

    Args:
        path: the ``.pt`` file.
        keywords: ``extensions_directory``, ``variants`` (``{"energy": "PBE"}``) and
            ``non_conservative`` of ``metatomic_ase.MetatomicCalculator``.
        device: torch device.
        dtype: the model's own only, since it is fixed when a model is exported.

    Raises:
        InputError: the file is absent or does not load, or a dtype or keyword does not fit.
        MissingPackage: metatomic-torch is not installed.
    """
    unknown = sorted(set(keywords) - set(KEYWORDS))
    if unknown:
        raise InputError("metatomic keywords", unknown[0], f"known: {', '.join(KEYWORDS)}")
    if not path.is_file():
        raise InputError("model", path, "does not exist")
    try:
        from metatomic.torch import load_atomistic_model
        from metatomic_ase import MetatomicCalculator
    except ImportError as error:
        raise MissingPackage("metatomic", "metatomic-torch", error) from error
    try:
        model = load_atomistic_model(str(path), keywords.get("extensions_directory"))
        calculator = MetatomicCalculator(model, device=device, **keywords)
    except Exception as error:  # torch and metatomic raise whatever they like
        line = next((x for x in str(error).splitlines() if x.strip()), type(error).__name__)
        raise InputError(
            "model", path, f"cannot be loaded as a metatomic model ({line})"
        ) from error
    capabilities = model.capabilities()
    if dtype is not None and dtype != capabilities.dtype:
        raise InputError("dtype", dtype, f"this model was exported for {capabilities.dtype}")
    teacher = AseTeacher(
        calculator,
        model.metadata().name or path.stem,
        file_sha256(path) + (json.dumps(keywords, sort_keys=True) if keywords else ""),
    )
    teacher.elements = frozenset(int(z) for z in capabilities.atomic_types)
    teacher.cutoff_A = float(capabilities.engine_interaction_range("angstrom"))
    teacher.conservative = keywords.get("non_conservative", False) is False
    return teacher
