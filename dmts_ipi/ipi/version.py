"""The versions of i-PI that dmts-ipi runs with: the only place in the code that names them.

pyproject.toml must say the same, which ``tests/ipi/test_version.py`` compares. i-PI 3.3.0 lacks
``Simulation._run_loop``, which our output code replaces.
"""

from __future__ import annotations

import re

REQUIREMENT = "ipi>=3.3.1,<3.4"
REMEDY = f"pip install '{REQUIREMENT}'"
_LIMIT = re.compile(r"(>=|<)([\d.]+)")


# The first version that is supported, and the first that is not.
LIMITS = tuple(tuple(int(x) for x in n.split(".")) for _, n in _LIMIT.findall(REQUIREMENT))


def numbers(version: str) -> tuple[int, int, int]:
    """Major, minor and patch number of a version such as ``3.3.1`` or ``3.4.0rc1``.

    Numbers that are not there are 0; what follows them (``rc1``, ``.dev0``) is left out.
    """
    match = re.match(r"(\d+)(?:\.(\d+))?(?:\.(\d+))?", version)
    major, minor, patch = (int(x or 0) for x in match.groups()) if match else (0, 0, 0)
    return major, minor, patch


def is_supported(version: str) -> bool:
    """Whether i-PI of this version satisfies ``REQUIREMENT``."""
    limits = {sign: numbers(number) for sign, number in _LIMIT.findall(REQUIREMENT)}
    return limits[">="] <= numbers(version) < limits["<"]
