"""Where templates and driver scripts are: in a wheel, or beside an editable install."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path

import dmts_ipi
from dmts_ipi.core.errors import InputError
from dmts_ipi.ipi.version import REMEDY

_PACKAGE = Path(dmts_ipi.__file__).resolve().parent
_IN_WHEEL = {"ipi_inputs": _PACKAGE / "ipi" / "inputs", "drivers": _PACKAGE / "drivers"}


def resource_folder(name: str) -> Path:
    """``ipi_inputs`` or ``drivers``.

    Raises:
        InputError: the installation lacks it.
    """
    for folder in (_IN_WHEEL[name], _PACKAGE.parent / name):
        if folder.is_dir():
            return folder
    raise InputError("installation", name, "is missing; install dmts-ipi again")


def inputs_folder() -> Path:
    """Folder of the i-PI templates."""
    return resource_folder("ipi_inputs")


def driver_script(accurate: bool) -> Path:
    """Driver of the model that is sampled (``accurate``), or of one that is faster."""
    return resource_folder("drivers") / ("nnp_driver.py" if accurate else "nc_driver.py")


def ipi_script() -> Path:
    """i-PI's own executable: the one of this Python, else the first on the path.

    Raises:
        InputError: there is none.
    """
    own = Path(sysconfig.get_path("scripts")) / "i-pi"
    program = own if own.is_file() else shutil.which("i-pi")
    if not program:
        raise InputError("i-pi", "", f"is not installed in this environment; {REMEDY}")
    return Path(program)


def ipi_command(ours: bool) -> list[str]:
    """Command that runs an i-PI input, which is its next word.

    Args:
        ours: the input uses splittings or thermostats that only ``dmts-ipi i-pi`` knows.

    Raises:
        InputError: i-PI is not installed.
    """
    if ours:
        return [sys.executable, "-u", "-m", "dmts_ipi.cli", "i-pi"]
    return [sys.executable, "-u", str(ipi_script())]
