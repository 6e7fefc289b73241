"""Places of a run's sockets, socket files that an earlier i-PI left, and ports that are in use.

By default i-PI puts its unix sockets at ``/tmp/ipi_NAME``. `dmts-ipi run` and `start_ipi.sh` of a
run give it another place, ``/tmp/dmts-UID/NAME`` (its option -S), in a folder that only this user
can enter. Third-party drivers (LAMMPS, ASE) know only i-PI's default, so runs with one use that.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.private import make_private_folder, user_folder
from dmts_ipi.ipi.client.client import MAX_UNIX_PATH
from dmts_ipi.ipi.input_xml import SOCKET_PREFIX, Socket
from dmts_ipi.ipi.run_folder.settings import RunSettings

SOCKET_LIMIT_S = 2.0


def is_private(settings: RunSettings) -> bool:
    """Whether i-PI's sockets are in this user's folder: not with third-party drivers."""
    return not any(model.command for model in settings.models.values())


def placed(sockets: Mapping[str, Socket], settings: RunSettings) -> dict[str, Socket]:
    """The sockets of ``input.xml`` where i-PI is to open them; the folder is made.

    Raises:
        InputError: the folder is open to others, or a path is too long for a socket.
    """
    if not is_private(settings) or not any(at.mode == "unix" for at in sockets.values()):
        return dict(sockets)
    prefix = f"{make_private_folder(user_folder(), 'sockets')}/"
    placed = {name: replace(at, prefix=prefix) for name, at in sockets.items()}
    for name, at in placed.items():
        if at.mode == "unix" and len(os.fsencode(at.path)) > MAX_UNIX_PATH:
            remedy = f"the path {at.path} is longer than {MAX_UNIX_PATH} bytes; use a shorter name"
            raise InputError(f"input.xml: address of {name}", at.address, remedy)
    return placed


def prefix_of(sockets: Mapping[str, Socket]) -> str:
    """The prefix for i-PI's option -S; empty: i-PI uses its default."""
    prefixes = {at.prefix for at in sockets.values() if at.mode == "unix"} - {SOCKET_PREFIX}
    return next(iter(prefixes), "")


def free_socket(at: Socket) -> None:
    """Removes the socket file that a killed i-PI left; refuses one on which a process listens.

    A process that was just killed still accepts connections until its last thread has ended, and
    then drops them; this function waits for that. A running i-PI keeps the connection.
    """
    deadline = time.monotonic() + SOCKET_LIMIT_S
    if at.mode != "unix":
        _free_port(at, deadline)
        return
    for path in dict.fromkeys(at.paths):
        _free_file(path, deadline)


def _free_file(path: Path, deadline: float) -> None:
    while path.exists():
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(SOCKET_LIMIT_S)
            try:
                probe.connect(str(path))
                dying = _dropped(probe, deadline)
            except ConnectionRefusedError:
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()
                return
            except FileNotFoundError:
                return
            except OSError as error:
                raise InputError("socket", path, f"{error.strerror}; remove it") from error
        if not dying or time.monotonic() > deadline:
            raise InputError(
                "socket", path, "is in use; stop that i-PI, or change <address> in input.xml"
            )


def _free_port(at: Socket, deadline: float) -> None:
    """Refuses a port of this machine that somebody listens on until the deadline."""
    while True:
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as i-PI does
                probe.bind((at.address, at.port))
            return
        except OSError as error:  # of another kind: i-PI says what is wrong with the address
            if error.errno != errno.EADDRINUSE:
                return
        if time.monotonic() > deadline:
            remedy = "is in use; stop that program, or change <port> in input.xml"
            raise InputError("port", f"{at.address}:{at.port}", remedy)
        time.sleep(0.1)


def _dropped(probe: socket.socket, deadline: float) -> bool:
    """Whether the other end closed the connection before the deadline without a word."""
    probe.settimeout(max(deadline - time.monotonic(), 0.01))
    try:
        return probe.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True
