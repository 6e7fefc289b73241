"""Architectures of students: the seam ``student_architectures``, one folder or file for each.

An architecture is a subclass of ``Architecture`` and brings a network, its sizes, how frames
become batches, and how a trained network becomes a force model. Training, ``evaluate`` and the
drivers know no more of a network than this class says. A package outside ours adds one by an
entry point::

    [project.entry-points."dmts_ipi.student_architectures"]
    my_kind = "my_package.student:ARCHITECTURE"

and trains it by ``dmts-ipi distill --architecture my_kind``; a worked example is in
``docs/extending.md``. Ours is ``density`` (``students/density``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dmts_ipi.core.config import parse
from dmts_ipi.core.errors import InputError
from dmts_ipi.core.registry import Registry

from .contract import Architecture, ArchitectureConfig

DEFAULT = "density"
student_architectures: Registry[Architecture] = Registry(
    "student_architectures",
    "student architecture",
    {DEFAULT: "dmts_ipi.students.density.density:DENSITY"},
)


def architecture_of(config: ArchitectureConfig) -> Architecture:
    """The architecture to which some sizes belong.

    Raises:
        InputError: it is not known here.
    """
    return student_architectures.get(config.kind)


def kind_of(sizes: object) -> str:
    """The architecture named by stored or given hyperparameters; the oldest files name none."""
    return str(sizes.get("kind", DEFAULT)) if isinstance(sizes, Mapping) else DEFAULT


def parse_sizes(sizes: Mapping[str, Any], where: str) -> ArchitectureConfig:
    """Validates the sizes in a model's record.

    Raises:
        InputError: an unknown kind, or a wrong field.
    """
    try:
        architecture = student_architectures.get(kind_of(sizes))
    except InputError as error:
        raise InputError(
            f"{where}: kind",
            kind_of(sizes),
            f"{error.remedy}; install the package that provides it",
        ) from error
    return parse(architecture.config, dict(sizes), where)
