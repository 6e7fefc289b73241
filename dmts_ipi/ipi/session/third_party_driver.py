"""Starts a third-party driver once i-PI listens.

``python -m dmts_ipi.ipi.session.third_party_driver WHERE -- COMMAND``:

LAMMPS's ``fix ipi``, i-PI's own drivers and most others try to connect once and give up. This
waits, on i-PI's node, and then becomes the command. WHERE is a socket file, or ``HOST:PORT``.
"""

from __future__ import annotations

import os
import shlex
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from dmts_ipi.core.errors import InputError
from dmts_ipi.ipi.input_xml import Socket

LIMIT_S, LOOK_S = 900.0, 0.1
LISTEN = "0A"  # of /proc/net/tcp
TABLE = Path("/proc/net/tcp")
PLACES = ("mode", "address", "port")


def third_party_command(command: str, launch: Sequence[str], at: Socket, python: str) -> list[str]:
    """Command line, as words, that starts a third-party driver for a socket of i-PI.

    Args:
        command: its command line; ``{mode}`` (unix or inet), ``{address}`` and ``{port}`` in it
            stand for those of the socket.
        launch: words before it.
        at: where i-PI listens.
        python: interpreter of the one that waits.

    Raises:
        InputError: the command is empty, or a quotation mark is missing.
    """
    for place in PLACES:
        command = command.replace("{" + place + "}", str(getattr(at, place)))
    words = split(command, "command")
    where = str(at.path) if at.mode == "unix" else f"{at.address}:{at.port}"
    return [python, "-m", "dmts_ipi.ipi.session.third_party_driver", where, "--", *launch, *words]


def split(command: str, name: str) -> list[str]:
    """Words of a command line, as a shell sees them.

    Raises:
        InputError: a quotation mark is missing, or there is no word.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InputError(name, command, f"{str(error).lower()}; correct its quotes") from error
    if not words:
        raise InputError(name, repr(command), "is empty; leave it out, or give a command")
    return words


def listens(where: str) -> bool:
    """Whether a process listens there. Looked up, not tried: i-PI would take that for a driver."""
    if where.startswith("/"):
        return Path(where).is_socket()
    host, _, port = where.rpartition(":")
    if not TABLE.is_file():
        return True  # not Linux: the command must see to it
    address = socket.inet_aton(socket.gethostbyname(host))[::-1].hex().upper()
    wanted = (f"{address}:{int(port):04X}", f"00000000:{int(port):04X}")
    rows = [line.split() for line in TABLE.read_text().splitlines()[1:]]
    return any(row[1] in wanted and row[3] == LISTEN for row in rows)


def main(argv: Sequence[str]) -> int:
    """Waits, then becomes the command; returns only if that fails."""
    where, _, *command = argv
    deadline = time.monotonic() + LIMIT_S
    while not listens(where):
        if time.monotonic() > deadline:
            print(f"error: no i-PI at {where} within {LIMIT_S:g} s", file=sys.stderr)
            return 4
        time.sleep(LOOK_S)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"error: command = {command[0]}: {error.strerror}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
