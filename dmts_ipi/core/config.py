"""Strict configuration: an unknown or wrong field is an error that names it."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import InputError


class StrictModel(BaseModel):
    """Base of every configuration: no unknown field, no silent conversion of types."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


M = TypeVar("M", bound=StrictModel)


def parse(kind: type[M], fields: object, where: str) -> M:
    """Validates a mapping.

    Raises:
        InputError: names the first wrong field, its value and what is allowed.
    """
    if not isinstance(fields, dict):
        raise InputError(where, repr(fields), "must be a mapping of field: value")
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or where
        if first["type"] == "extra_forbidden":
            known = ", ".join(sorted(kind.model_fields))
            raise InputError(f"{where}: {field}", "", f"unknown field; known: {known}") from error
        value = "" if first["type"] == "missing" else repr(first["input"])
        raise InputError(f"{where}: {field}", value, first["msg"].lower()) from error


def read_yaml(kind: type[M], path: Path) -> M:
    """Reads and validates a YAML file.

    Raises:
        InputError: the file is absent, is no YAML, or a field is wrong.
    """
    try:
        fields = yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        raise InputError("file", path, "does not exist") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = str(error).replace("\n", " ")
        raise InputError("file", path, f"is not valid YAML: {line}") from error
    return parse(kind, fields, str(path))


def write_yaml(config: StrictModel, path: Path) -> None:
    """Writes a configuration, in the order of its fields."""
    path.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
