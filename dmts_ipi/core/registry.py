"""Registries: the seams at which another package adds its own rows, by entry points.

A registry maps names to objects. Our own rows are given as ``"module:attribute"`` and imported
when they are first asked for. A package outside ours adds rows by entry points of the group
``dmts_ipi.<seam>`` in its ``pyproject.toml``::

    [project.entry-points."dmts_ipi.model_kinds"]
    harmonic = "my_package.harmonic:KIND"

``docs/extending.md`` has one worked example for each seam.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar, cast

from .errors import InputError

Row = TypeVar("Row")
GROUP = "dmts_ipi"


class Registry(Generic[Row]):
    """Rows of one seam, by name.

    Args:
        seam: what it holds; the entry points' group is ``dmts_ipi.<seam>``.
        what: the word for one row in messages, such as ``model kind``.
        own: our rows, as objects or as ``"module:attribute"``.
    """

    def __init__(self, seam: str, what: str, own: Mapping[str, Row | str]) -> None:
        self.seam, self.what = seam, what
        self._own: dict[str, Row | str] = dict(own)
        self._found: dict[str, EntryPoint] | None = None
        self._loaded: dict[str, Row] = {}

    def _foreign(self) -> dict[str, EntryPoint]:
        if self._found is None:
            group = entry_points(group=f"{GROUP}.{self.seam}")
            self._found = {e.name: e for e in group if e.name not in self._own}
        return self._found

    def names(self) -> tuple[str, ...]:
        """All names: our own in their order, then those of other packages, sorted."""
        return (*self._own, *sorted(self._foreign()))

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self._foreign()

    def get(self, name: str) -> Row:
        """The row of a name, imported if need be.

        Raises:
            InputError: there is no such row, or its package cannot be imported.
        """
        if name in self._loaded:
            return self._loaded[name]
        row: Row | str
        if name in self._own:
            row = self._own[name]
            if isinstance(row, str):
                module, _, attribute = row.partition(":")
                row = cast(Row, getattr(importlib.import_module(module), attribute))
        elif name in self._foreign():
            row = self._import(self._foreign()[name])
        else:
            raise InputError(self.what, name, f"is not known; there are {', '.join(self.names())}")
        self._loaded[name] = row
        return row

    def _import(self, entry: EntryPoint) -> Row:
        try:
            return cast(Row, entry.load())
        except Exception as error:  # a foreign module may raise anything while it is imported
            package = entry.dist.name if entry.dist is not None else entry.value
            text = " ".join(str(error).split()) or type(error).__name__
            raise InputError(
                self.what, entry.name, f"of the package {package} cannot be imported ({text})"
            ) from error

    def rows(self) -> dict[str, Row]:
        """Every row by name; imports all of them.

        Raises:
            InputError: as ``get``.
        """
        return {name: self.get(name) for name in self.names()}

    def add(self, name: str, row: Row | str) -> None:
        """Adds or replaces a row in this process only (tests, notebooks)."""
        self._own[name] = row
        self._loaded.pop(name, None)
