"""Strict configuration: an unknown or wrong field is an error that names it."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import InputError
from .files import replace_file


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
        field = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            value, remedy = repr(first["input"]), _unknown(kind, first["loc"])
        elif not field:  # fields that contradict each other
            raise InputError(where, "", str(first["ctx"]["error"])) from error
        else:
            value = "" if first["type"] == "missing" else repr(first["input"])
            said = first["msg"].removeprefix("Value error, ").partition(", unable to parse")[0]
            remedy = said.lower()
        raise InputError(f"{where}: {field}", value, remedy) from error


def _unknown(kind: type[BaseModel], place: tuple[int | str, ...]) -> str:
    """What an unknown field may have been meant for; all known ones if nothing is like it."""
    for part in place[:-1]:
        inner = kind.model_fields[str(part)].annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return "unknown field"
        kind = inner
    known = sorted(kind.model_fields)
    close = get_close_matches(str(place[-1]), known, 1)
    return "unknown field; " + (
        f"did you mean {close[0]}?" if close else "known: " + ", ".join(known)
    )


class _Loader(yaml.SafeLoader):
    """Refuses a field that is written twice, of which YAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping.

        Raises:
            yaml.MarkedYAMLError: a key is there twice.
        """
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                problem = f"{key.value} is given twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_fields(path: Path, name: str = "file") -> dict[str, Any]:
    """The mapping in a YAML file, not validated yet; an empty file is an empty mapping.

    Raises:
        InputError: the file is absent or unreadable, is no YAML, or holds no mapping; ``name``
            is what the message calls it.
    """
    try:
        fields = yaml.load(path.read_text(), _Loader)
    except OSError as error:
        remedy = "does not exist" if isinstance(error, FileNotFoundError) else "cannot be read"
        raise InputError(name, path, remedy) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(name, path, f"is not valid YAML: {_yaml_fault(error)}") from error
    if fields is None:
        return {}
    if not isinstance(fields, dict):
        raise InputError(name, path, "must be a mapping of field: value")
    return fields


def _yaml_fault(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return " ".join(str(error).split())
    return f"{getattr(error, 'problem', '')} (line {mark.line + 1})"


def read_yaml(kind: type[M], path: Path) -> M:
    """Reads and validates a YAML file.

    Raises:
        InputError: the file is absent, is no YAML, or a field is wrong.
    """
    return parse(kind, read_fields(path), str(path))


def write_yaml(config: StrictModel, path: Path) -> None:
    """Replaces a file by a configuration, its fields in their order (``replace_file``)."""
    replace_file(path, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
