"""Finds the processes of a run that we did not start, by its sockets (psutil).

i-PI is the process that holds the listening socket. A driver is the one that is connected to it
(TCP), or that names it on its command line (unix sockets: the kernel does not say who is at the
other end). A process is identified by its id and the time of its creation (``psutil.Process``), so
that an id which the system gives to another process later is not taken for the same one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil

from dmts_ipi.ipi.input_xml import Socket

UNIX_SOCKETS = Path("/proc/net/unix")
UNIX_LISTENS = 1 << 16  # flag in that file: the socket waits for connections
# they start a program and wait for its end; taken only where the program itself is not found
STARTERS = {"sh", "bash", "dash", "srun", "mpirun", "mpiexec", "timeout", "nohup", "sudo", "strace"}


def visible() -> bool:
    """Whether processes can be found by their sockets here (Linux)."""
    return sys.platform.startswith("linux") and UNIX_SOCKETS.is_file()


def find_ipi(folder: Path, sockets: Mapping[str, Socket]) -> int | None:
    """Process of the i-PI that serves these sockets; without sockets, of the one in this folder.

    Args:
        folder: of the run.
        sockets: of its ``input.xml``.
    """
    servers: set[int] = set()
    for at in sockets.values():
        servers |= _servers_of_files(at.paths) if at.mode == "unix" else _servers_of_port(at.port)
    if not sockets:
        servers = set(_python_programs("i-pi"))
    own = [pid for pid in servers if folder_of(pid) == folder.resolve()]
    return min(own or (servers if sockets else []), default=None)


def find_driver(at: Socket, ipi: int | None) -> int | None:
    """Process of the driver of a socket, on this machine; None: not seen.

    Args:
        at: the socket.
        ipi: process of i-PI, which holds the socket too.
    """
    candidates = [] if at.mode == "unix" else sorted(_clients_of_port(at.port))
    if not candidates:
        words = {at.address, *map(str, at.paths)} if at.mode == "unix" else {str(at.port)}
        candidates = [pid for pid in psutil.pids() if words & set(_command_line(pid)[1:])]
    candidates = [pid for pid in candidates if pid not in (ipi, os.getpid())]
    programs = [pid for pid in candidates if _program(pid) not in STARTERS]
    return min(programs or candidates, default=None)


def input_of(pid: int) -> Path | None:
    """The input or checkpoint that an i-PI was started with; None: its command does not say."""
    where = folder_of(pid)
    for word in reversed(_command_line(pid)[1:]) if where is not None else ():
        path = (where or Path()) / word
        try:
            with open(path, "rb") as stream:
                if b"<simulation" in stream.read(4096):
                    return path
        except OSError:
            continue
    return None


def folder_of(pid: int) -> Path | None:
    """Working directory of a process; None: it has ended, or belongs to another user."""
    try:
        return Path(psutil.Process(pid).cwd())
    except psutil.Error:
        return None


def log_of(pid: int) -> Path | None:
    """The file that a process writes its messages to; None: a terminal, a pipe, or not known."""
    try:
        files = psutil.Process(pid).open_files()
    except psutil.Error:
        return None
    return next((Path(file.path) for file in files if file.fd == 2), None)


def resident_MB(pid: int) -> float:
    """Resident memory of a process, MB; 0: not known."""
    try:
        return float(psutil.Process(pid).memory_info().rss) / 1e6
    except psutil.Error:
        return 0.0


def ended(process: psutil.Process | int) -> bool:
    """Whether a process is no more, or a zombie that nobody has asked for its status yet."""
    try:
        handle = psutil.Process(process) if isinstance(process, int) else process
        return not handle.is_running() or handle.status() in (
            psutil.STATUS_ZOMBIE,
            psutil.STATUS_DEAD,
        )
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:  # it belongs to another user
        return False


def _command_line(pid: int) -> list[str]:
    """Command line of a process; empty where it has ended."""
    try:
        return psutil.Process(pid).cmdline()
    except psutil.Error:
        return []


def _program(pid: int) -> str:
    words = _command_line(pid)
    return Path(words[0]).name if words else ""


def _python_programs(name: str) -> list[int]:
    """Python processes with a word of this name on their command line."""
    return [
        pid
        for pid in psutil.pids()
        if _program(pid).startswith("python")
        and name in (Path(w).name for w in _command_line(pid)[1:])
    ]


def _servers_of_files(paths: Iterable[Path]) -> set[int]:
    """Processes of this user that hold a socket of one of these paths, where somebody listens."""
    listening = {str(path) for path in paths} & _listening_files()
    if not listening:
        return set()
    connections = psutil.net_connections(kind="unix")
    return {c.pid for c in connections if c.pid is not None and c.laddr in listening}


def _listening_files() -> set[str]:
    """Paths of the unix sockets that wait for connections; psutil does not tell these apart."""
    try:
        lines = UNIX_SOCKETS.read_text("utf-8", "replace").splitlines()[1:]
    except OSError:
        return set()
    rows = (line.split(maxsplit=7) for line in lines)
    return {row[7] for row in rows if len(row) == 8 and int(row[3], 16) & UNIX_LISTENS}


def _servers_of_port(port: int) -> set[int]:
    """Processes of this user that listen on a TCP port."""
    return {
        c.pid
        for c in psutil.net_connections(kind="tcp")
        if c.pid is not None and c.status == psutil.CONN_LISTEN and c.laddr.port == port
    }


def _clients_of_port(port: int) -> set[int]:
    """Processes of this user that are connected to a TCP port."""
    return {
        c.pid
        for c in psutil.net_connections(kind="tcp")
        if c.pid is not None
        and c.status == psutil.CONN_ESTABLISHED
        and c.raddr
        and c.raddr.port == port
    }
