"""Writes a new run folder, all of it or nothing."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dmts_ipi.core.config import write_yaml
from dmts_ipi.core.errors import InputError
from dmts_ipi.core.structure_files import fixed_atoms

from .input_xml import read_input
from .run_folder.bond_pairs import bond_pairs
from .run_folder.folder import CONFIG, INPUT, LOGS, STRUCTURE, RunConfig, RunFolder
from .run_folder.render import render
from .run_folder.resources import ipi_command
from .run_folder.structure import write_structure
from .session.session import driver_command
from .session.socket_file import is_private

PRIVATE = """# i-PI's sockets are where nobody else can reach them; our drivers look there first.
sockets=/tmp/dmts-$(id -u)
mkdir -p -m 700 "$sockets" && [ -O "$sockets" ] && chmod 700 "$sockets" || exit 1
"""


def check_target(path: Path) -> None:
    """Refuses a folder that cannot become a run.

    Raises:
        InputError: a run is there already, other files are, or it cannot be written.
    """
    if (path / CONFIG).exists():
        raise InputError(
            "folder", path, "contains a run already, which is never overwritten: remove it"
        )
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError("folder", path, "exists and is not empty; choose another")
    above = path.absolute()
    while not above.exists():
        above = above.parent
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise InputError("folder", path, f"{above} is not writable; choose another")


def create_folder(path: Path, config: RunConfig, atoms: Any) -> RunFolder:
    """Makes a run folder from a checked configuration and a prepared structure.

    Everything is written beside the folder first and then put in place by one rename.

    Args:
        path: absent, or an empty folder.
        config: the run.
        atoms: ASE Atoms as ``structure.prepare_structure`` returns them.

    Raises:
        InputError: the folder cannot be written.
    """
    check_target(path)
    addresses = socket_names(path, config)
    pairs = []
    if config.bond_friction_per_ps:
        pairs = bond_pairs(
            *(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc),
            config.bond_friction_per_ps,
        )
    check_elements(config, atoms.get_chemical_symbols())
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.absolute().parent))
    except OSError as error:
        raise InputError("folder", path, f"{error.strerror}") from error
    try:
        work.chmod(0o755)
        (work / LOGS).mkdir()
        write_structure(work / STRUCTURE, atoms)
        (work / INPUT).write_text(render(config, addresses, pairs, fixed_atoms(atoms).tolist()))
        write_yaml(config.settings, work / CONFIG)
        spec = read_input(work / INPUT)
        starts = "i-PI; after a stop give it RESTART"
        private = is_private(config.settings)
        before = PRIVATE if private else ""
        _script(work / "start_ipi.sh", starts, _ipi_command(spec.ours, private), before)
        for name, at in spec.sockets.items():
            command = driver_command(config.settings, spec, name, at, python=sys.executable)
            _script(work / f"start_{name}.sh", f"the {name}'s driver", shlex.join(command))
        work.rename(path)
    except OSError as error:
        raise InputError("folder", path, f"{error.strerror}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return RunFolder(path)


def socket_names(path: Path, config: RunConfig) -> dict[str, str]:
    """Unix socket name of each model, different for every folder."""
    mark = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:10]
    return {name: f"dmts-{mark}-{name}" for name in config.levels}


def check_elements(config: RunConfig, symbols: Sequence[str]) -> None:
    """Refuses frictions of elements that a structure lacks.

    Raises:
        InputError: names the first.
    """
    for name in config.friction_by_element_per_ps:
        if name not in symbols:
            known = ", ".join(sorted(set(symbols)))
            raise InputError(
                "friction_by_element_per_ps", name, f"is not in the structure, which has {known}"
            )


def _ipi_command(ours: bool, private: bool) -> str:
    prefix = ' -S "$sockets/"' if private else ""
    return f'{shlex.join(ipi_command(ours))}{prefix} "${{1:-input.xml}}"'


def _script(file: Path, what: str, command: str, before: str = "") -> None:
    """A launch script for people who start the processes by hand or with srun."""
    file.write_text(
        f'#!/bin/sh\n# Starts {what}.\ncd "$(dirname "$0")" || exit 1\n{before}exec {command}\n'
    )
    file.chmod(0o755)
