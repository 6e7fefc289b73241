"""Command-line options whose errors read like all others: one line, field, value, remedy."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from .errors import InputError

EXPECTED: dict[Any, str] = {int: "must be a whole number", float: "must be a number"}


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
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            option = next((u for u in unknown if u.startswith("-")), unknown[0])
            close = get_close_matches(option, list(self._option_string_actions), 1)
            remedy = f"is not known; did you mean {close[0]}?" if close else "is not known"
            raise InputError("option", option, remedy if close else self._see(remedy))
        return found, unknown

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
        return action.option_strings[-1].lstrip("-").replace("-", "_")
    return str(action.metavar or action.dest).lower()
