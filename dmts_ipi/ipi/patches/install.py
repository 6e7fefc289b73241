"""Installs the patches of ``table`` in its order, and says in one line each what is left out."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from dmts_ipi.core.errors import InputError, MissingPackage
from dmts_ipi.ipi.version import REMEDY

from . import switches, table
from .table import Patch

VARIABLE = "DMTS_IPI_NO_PATCHES"  # the same as --no-patches, for processes that others start


def ipi_version() -> str:
    """Version of the installed i-PI.

    Raises:
        MissingPackage: there is none.
    """
    try:
        return version("ipi")
    except PackageNotFoundError as error:
        raise MissingPackage("", "ipi", error) from error


def wanted_off(option: str) -> set[str]:
    """Names of the optional patches that are to be left out.

    Args:
        option: names with commas between them, or ``all``; those of the environment variable
            ``DMTS_IPI_NO_PATCHES`` are added.

    Raises:
        InputError: no optional patch has such a name.
    """
    names: set[str] = set()
    for field, text in (("no-patches", option), (VARIABLE, os.environ.get(VARIABLE, ""))):
        for name in (n.strip() for n in text.split(",")):
            if name == "all":
                names.update(table.OPTIONAL)
            elif name in table.OPTIONAL:
                names.add(name)
            elif name:
                raise InputError(field, name, f"must be all, or of {', '.join(table.OPTIONAL)}")
    return names


def print_line(line: str) -> None:
    """Prints to stderr."""
    print(line, file=sys.stderr, flush=True)


def install_patches(
    off: Collection[str] = (),
    *,
    used: Mapping[str, tuple[Any, ...]] | None = None,
    log: Callable[[str], None] = print_line,
) -> None:
    """Installs every patch that is wanted and that this i-PI can have, in the order of the table.

    Args:
        off: names of optional patches to leave out.
        used: patches that this run asks for, with the arguments of their ``install``.
        log: takes one line for each patch that is left out because i-PI is not as expected.

    Raises:
        MissingPackage: there is no i-PI.
        InputError: i-PI is not as a patch expects that the run cannot do without.
    """
    used = used or {}
    for patch in table.PATCHES:
        asked = patch.name in used
        if patch.name in off or (patch.on_request and not asked):
            switches.switch_off(patch.name)
            continue
        fault = fault_of(patch)
        if not fault:
            switches.switch_on(patch.name)
            patch.install(*used.get(patch.name, ()))
        elif patch.required == "always" or (patch.required == "if used" and asked):
            raise InputError("i-PI", ipi_version(), f"{fault}; {REMEDY}")
        else:
            switches.switch_off(patch.name)
            slower = f"; slower: {patch.gain}" if patch.optional else ""
            log(f"dmts-ipi i-pi: patch {patch.name} is off ({fault}): {patch.fallback}{slower}")


def fault_of(patch: Patch) -> str:
    """Why the installed i-PI cannot have a patch; empty: it can."""
    version = ipi_version()
    if not patch.since <= numbers_of(version) < patch.until:
        low, high = (".".join(map(str, v)) for v in (patch.since, patch.until))
        return f"supported is {low} up to, not including, {high}"
    return next((fault for name in patch.expects if (fault := _fault_of_name(name))), "")


def numbers_of(version: str) -> tuple[int, ...]:
    """A version as numbers: ``3.3.1`` and ``3.3.1.post2`` are (3, 3, 1)."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(x) for x in match.group().split(".")[:3]) if match else ()


def expected_names(patches: Iterable[Patch] = table.PATCHES) -> set[str]:
    """All names that are expected of i-PI, without their arguments."""
    return {name.partition("(")[0] for patch in patches for name in patch.expects}


def _fault_of_name(expected: str) -> str:
    name, _, arguments = expected.partition("(")
    module, _, path = name.partition(":")
    try:
        item: Any = importlib.import_module(module)
    except ImportError:
        return f"{module} is missing"
    *owners, last = path.split(".")
    for part in owners:
        item = getattr(item, part, None)
    if not (hasattr(item, last) if arguments else has_name(item, last)):
        return f"{module}.{path} is missing"
    if arguments:
        wanted = [a.strip() for a in arguments.rstrip(")").split(",")]
        if list(inspect.signature(getattr(item, last)).parameters) != wanted:
            return f"{module}.{path} has other arguments"
    return ""


def has_name(owner: Any, name: str) -> bool:
    """Whether an object or a class has a name; of a class also one of its instances.

    An attribute that only instances have is found in the code of the class: as a name that one of
    its methods uses.
    """
    if owner is None:
        return False
    if hasattr(owner, name):
        return True
    if not inspect.isclass(owner):
        return False
    if any(name in _used_names(base) for base in owner.__mro__):
        return True
    return any(
        name in vars(base).get(table_name, ())
        for base in owner.__mro__
        for table_name in ("fields", "attribs", "dynamic")
    )


def _used_names(owner: type) -> set[str]:
    names: set[str] = set()
    for item in vars(owner).values():
        code = getattr(inspect.unwrap(item) if callable(item) else item, "__code__", None)
        if code is not None:
            names.update(code.co_names)
    return names
