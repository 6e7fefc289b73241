"""The server's side of a test of drivers, and programs that end with the test."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator

import numpy as np
from ase import Atoms

from dmts_ipi.ipi.client.check_server import Connection, Server, posdata

LIMIT_S = 100.0  # of every wait; far beyond what a busy machine needs
Start = Callable[..., subprocess.Popen[str]]


def accept(server: Server) -> Connection:
    link = server.accept(LIMIT_S, reply_s=LIMIT_S)
    assert link.status() == "NEEDINIT"
    link.initialise()
    assert link.status() == "READY"
    return link


def ask(link: Connection, atoms: Atoms) -> tuple[float, np.ndarray, np.ndarray, str]:
    link.send(posdata(atoms.positions, atoms.cell.array) + b"GETFORCE".ljust(12))
    return link.forces(len(atoms))


@contextlib.contextmanager
def programs() -> Iterator[Start]:
    """Starts programs, and ends by pid whatever is left of them."""
    running: list[subprocess.Popen[str]] = []

    def run(*command: object, **options: object) -> subprocess.Popen[str]:
        words = [str(part) for part in command]
        process = subprocess.Popen(words, text=True, **options)  # type: ignore[call-overload]
        running.append(process)
        return process

    try:
        yield run
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
            process.communicate()
