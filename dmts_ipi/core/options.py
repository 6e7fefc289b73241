"""Command-line options whose errors read like all others: one line, field, value, remedy."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Literal, NoReturn, get_args, get_origin

from pydantic import BaseModel

from .errors import InputError

EXPECTED: dict[Any, str] = {int: "must be a whole number", float: "must be a number"}


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, except where there is none or the help text gives it."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help or ""
        if action.default in (None, False, "", []) or "(default" in text:
            return text
        return super()._get_help_string(action)


class OptionParser(argparse.ArgumentParser):
    """``ArgumentParser`` that raises ``InputError`` instead of printing its usage and exiting.

    ``time_ps = x: must be a number; see dmts-ipi run --help``. Subparsers are of this class too.
    ``_get_value`` and ``_check_value`` are argparse's own names: no public hook knows an option
    and its value together. ``tests/commands/test_wrong_input.py`` notices if a Python renames them.
    """

    def error(self, message: str) -> NoReturn:
        """Missing, ambiguous or contradictory options.

        Raises:
            InputError: always.
        """
        missing = message.partition("arguments are required: ")[2]
        if missing:
            raise InputError(missing, "", self._see("must be given"))
        if message.startswith("argument "):
            name, _, what = message.removeprefix("argument ").partition(": ")
            raise InputError(name, "", self._see(what))
        raise InputError("option", "", self._see(message))

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse's, but an unknown option is an error here, where the others are known.

        Raises:
            InputError: an unknown option, with the one that looks most like it.
        """
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            option = next((u for u in unknown if u.startswith("-")), unknown[0])
            close = get_close_matches(option, list(self._option_string_actions), 1)
            remedy = f"is not known; did you mean {close[0]}?" if close else "is not known"
            raise InputError("option", option, remedy if close else self._see(remedy))
        return parsed, unknown

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        try:
            return super()._get_value(action, arg_string)  # type: ignore[misc]
        except argparse.ArgumentError as error:
            remedy = EXPECTED.get(action.type, error.message)
            raise InputError(name_of(action), arg_string, self._see(remedy)) from error

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)  # type: ignore[misc]
        except argparse.ArgumentError as error:
            remedy = "must be one of " + ", ".join(str(c) for c in action.choices or ())
            raise InputError(name_of(action), value, remedy) from error

    def _see(self, remedy: str) -> str:
        return f"{remedy}; see {self.prog} --help"


def name_of(action: argparse.Action) -> str:
    """An option as its field is called everywhere else: ``--time-ps`` is ``time_ps``."""
    if action.option_strings:
        long = [name for name in action.option_strings if name.startswith("--")]
        return (long or action.option_strings)[0].lstrip("-").replace("-", "_")
    return str(action.metavar or action.dest).lower()


def add_fields(
    parser: Any,
    model: type[BaseModel],
    *,
    only: Sequence[str] | None = None,
    defaults: Mapping[str, Any] | None = None,
    also: Mapping[str, Sequence[str]] | None = None,
    more_help: Mapping[str, str] | None = None,
) -> None:
    """Options from the fields of a configuration: one vocabulary for both.

    A field ``time_ps`` is the option ``--time-ps``; its description is the help. Values stay text,
    so that the configuration checks and converts them all alike, wherever they come from.

    Args:
        parser: a parser or a group of one.
        model: the configuration.
        only: fields, in this order; None: all.
        defaults: other defaults than the fields have, such as ``auto``.
        also: further spellings of an option, such as those of earlier versions.
        more_help: what is added to a description.
    """
    for name in only if only is not None else model.model_fields:
        info = model.model_fields[name]
        flags = ["--" + name.replace("_", "-"), *(also or {}).get(name, ())]
        text = (info.description or "") + (more_help or {}).get(name, "")
        default = (defaults or {}).get(name, info.get_default(call_default_factory=True))
        text = text.replace("%", "%%")
        if info.annotation is bool:
            parser.add_argument(*flags, dest=name, action="store_true", help=text)
            continue
        mapping = "dict" in str(info.annotation)
        parser.add_argument(
            *flags,
            dest=name,
            default=None if mapping else str(default),
            metavar="LIST" if mapping else _metavar(name, info.annotation),
            help=text,
        )


def _metavar(name: str, annotation: Any) -> str:
    """What stands for the value in a usage: the choices, the unit, or what kind it is."""
    if get_origin(annotation) is Literal:
        return "{" + ",".join(str(x) for x in get_args(annotation)) + "}"
    if name.endswith("_per_ps"):
        return "PER_PS"
    unit = name.rpartition("_")[2]
    if annotation is float and unit in ("fs", "ps", "K", "bar", "amu"):
        return unit.upper()
    return "N" if annotation in (int, float) else "NAME"


def mapping_of(name: str, text: str | None, example: str) -> dict[str, str]:
    """``H=10,O=2`` as a mapping in the same order; numbers stay text.

    Args:
        name: of the option.
        text: what was given; None: nothing.
        example: of the remedy, such as ``H=10,O=2``.

    Raises:
        InputError: it is none.
    """
    if text is None:
        return {}
    settings: dict[str, str] = {}
    for part in text.replace(";", ",").split(","):
        key, equals, value = part.strip().partition("=")
        if not (key.strip() and equals and value.strip()) or key.strip() in settings:
            raise InputError(name, text, f"must be such as {example}")
        settings[key.strip()] = value.strip()
    return settings
