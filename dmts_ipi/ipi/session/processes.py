"""Which processes belong to a run that others started: found by its sockets, in ``/proc``.

i-PI is who holds the listening socket. A driver is who is connected to it (TCP), or names it on
its command line (unix: the kernel does not say who is at the other end).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from dmts_ipi.ipi.input_xml import Socket

PROC = Path("/proc")
LISTENS, CONNECTED = "0A", "01"  # of /proc/net/tcp
UNIX_LISTENS = 1 << 16  # flag of /proc/net/unix: somebody waits for connections
# they start a program and wait for its end; seen only where the program itself is not
STARTERS = {"sh", "bash", "dash", "srun", "mpirun", "mpiexec", "timeout", "nohup", "sudo", "strace"}


def visible() -> bool:
    """Whether processes can be looked up here (Linux)."""
    return (PROC / "net" / "unix").is_file()


def find_ipi(folder: Path, sockets: Mapping[str, Socket]) -> int | None:
    """Process of the i-PI that serves these sockets; without sockets, of the one in this folder.

    Args:
        folder: of the run.
        sockets: of its ``input.xml``.
    """
    inodes: set[int] = set()
    for at in sockets.values():
        inodes |= _unix(at.paths) if at.mode == "unix" else _tcp(at.port, local=True)
    found = _holders(inodes) if sockets else _programs("i-pi")
    own = [pid for pid in found if folder_of(pid) == folder.resolve()]
    return min(own or (found if sockets else []), default=None)


def find_driver(at: Socket, ipi: int | None) -> int | None:
    """Process of the driver of a socket, on this machine; None: not seen.

    Args:
        at: the socket.
        ipi: process of i-PI, which holds the socket too.
    """
    found = [] if at.mode == "unix" else _holders(_tcp(at.port, local=False))
    if not found:
        words = {at.address, *map(str, at.paths)} if at.mode == "unix" else {str(at.port)}
        found = [pid for pid in _pids() if words & set(_words(pid)[1:])]
    found = [pid for pid in found if pid not in (ipi, os.getpid())]
    programs = [pid for pid in found if _program(pid) not in STARTERS]
    return min(programs or found, default=None)


def input_of(pid: int) -> Path | None:
    """The input or checkpoint that an i-PI was started with; None: its command does not say."""
    where = folder_of(pid)
    for word in reversed(_words(pid)[1:]) if where is not None else ():
        path = (where or Path()) / word
        try:
            with open(path, "rb") as stream:
                if b"<simulation" in stream.read(4096):
                    return path
        except OSError:
            continue
    return None


def folder_of(pid: int) -> Path | None:
    """Current folder of a process; None: it has ended, or is somebody else's."""
    try:
        return Path(os.readlink(PROC / str(pid) / "cwd"))
    except OSError:
        return None


def log_of(pid: int) -> Path | None:
    """The file that a process writes its messages to; None: a terminal, a pipe, unknown."""
    try:
        path = Path(os.readlink(PROC / str(pid) / "fd" / "2"))
    except OSError:
        return None
    return path if path.is_file() else None


def resident_MB(pid: int) -> float:
    """Resident memory of a process, MB; 0: not known."""
    try:
        pages = int((PROC / str(pid) / "statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def ended(pid: int) -> bool:
    """Whether a process is no more, or a zombie that nobody has asked for its status yet."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (OSError, IndexError):
        return not visible() or not (PROC / str(pid)).exists()


def _pids() -> list[int]:
    return sorted(int(name) for name in os.listdir(PROC) if name.isdigit())


def _words(pid: int) -> list[str]:
    """Command line of a process; empty where it has ended."""
    try:
        raw = (PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return []
    return raw.decode("utf-8", "replace").rstrip("\0").split("\0") if raw else []


def _program(pid: int) -> str:
    words = _words(pid)
    return Path(words[0]).name if words else ""


def _programs(name: str) -> list[int]:
    """Python processes with a word of this name on their command line."""
    return [
        pid
        for pid in _pids()
        if _program(pid).startswith("python") and name in (Path(w).name for w in _words(pid)[1:])
    ]


def _unix(paths: Iterable[Path]) -> set[int]:
    """Inodes of the listening sockets of some paths."""
    found, wanted = set(), {str(path) for path in paths}
    for line in _lines(PROC / "net" / "unix"):
        words = line.split(maxsplit=7)
        if len(words) == 8 and words[7] in wanted and int(words[3], 16) & UNIX_LISTENS:
            found.add(int(words[6]))
    return found


def _tcp(port: int, local: bool) -> set[int]:
    """Inodes of who listens on a port, or (not ``local``) of who is connected to it from here."""
    found = set()
    for name in ("tcp", "tcp6"):
        for line in _lines(PROC / "net" / name):
            words = line.split()
            if len(words) < 10 or not re.fullmatch(r"\d+:", words[0]):
                continue
            here, there = (int(words[k].rpartition(":")[2], 16) for k in (1, 2))
            if local and here == port and words[3] == LISTENS:
                found.add(int(words[9]))
            if not local and there == port and words[3] == CONNECTED:
                found.add(int(words[9]))
    return found


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", "replace").splitlines()[1:]
    except OSError:
        return []


def _holders(inodes: Iterable[int]) -> list[int]:
    """Processes of this user that hold one of these sockets."""
    wanted = {f"socket:[{inode}]" for inode in inodes if inode}
    return [pid for pid in _pids() if wanted and wanted & _files(pid)]


def _files(pid: int) -> set[str]:
    folder = PROC / str(pid) / "fd"
    found = set()
    try:
        for name in os.listdir(folder):
            try:
                found.add(os.readlink(folder / name))
            except OSError:
                continue
    except OSError:
        pass
    return found
