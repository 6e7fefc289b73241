"""Where telemetry is spoken: two ZeroMQ addresses for each driver, private by default.

``events``: the driver publishes (PUB). ``service``: it answers questions (ROUTER). Unix sockets
in a folder that only this user can enter, or two neighbouring TCP ports.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from dmts_ipi.core.errors import InputError

OFF, AUTO = "off", "auto"
MAX_IPC_PATH = 107  # bytes of sockaddr_un.sun_path, less the final zero
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Addresses:
    """ZeroMQ addresses of one driver."""

    events: str
    service: str

    def remove(self) -> None:
        """Removes the socket files of drivers that have ended; nothing for TCP."""
        for address in (self.events, self.service):
            if address.startswith("ipc://"):
                with contextlib.suppress(OSError):
                    os.unlink(address.removeprefix("ipc://"))


def private_folder() -> Path:
    """Folder of the unix sockets, mode 0700, made if it is absent: ``/tmp/dmts-UID``.

    It is beside i-PI's own sockets, so it does not depend on TMPDIR, which often differs between
    the processes of a job.

    Raises:
        InputError: something else has this name, or others may enter it.
    """
    folder = Path(f"/tmp/dmts-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise InputError("telemetry", folder, f"{error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise InputError("telemetry", folder, "is not a folder of yours; remove it")
    if found.st_mode & 0o077:
        raise InputError("telemetry", folder, f"is open to others; chmod 700 {folder}")
    return folder


def addresses(setting: str, name: str) -> Addresses | None:
    """Addresses of a driver, None where telemetry is off.

    Args:
        setting: ``off``, ``auto``, ``ipc://PATH``, or ``tcp://HOST:PORT`` (PORT + 1 as well).
        name: of i-PI's socket, ``NAME`` or ``HOST-PORT``: what ``auto`` is made from.

    Raises:
        InputError: a wrong setting, or an interface that others can reach.
    """
    if setting == OFF:
        return None
    if setting == AUTO:
        return _ipc(private_folder() / re.sub(r"[^\w.+-]", "-", name))
    if setting.startswith("ipc:///"):
        return _ipc(Path(setting.removeprefix("ipc://")))
    match = re.fullmatch(r"tcp://(\[[0-9a-fA-F:]+\]|[\w.-]+):(\d{1,5})", setting)
    if not match or not 1 <= int(match[2]) < 65535:
        raise InputError(
            "telemetry", setting, "must be auto, off, ipc:///PATH or tcp://HOST:PORT (below 65535)"
        )
    host, port = match[1], int(match[2])
    return Addresses(f"tcp://{host}:{port}", f"tcp://{host}:{port + 1}")


def _ipc(path: Path) -> Addresses:
    if len(os.fsencode(path)) + len(".service") > MAX_IPC_PATH:
        raise InputError(
            "telemetry", path, f"is longer than {MAX_IPC_PATH - 8} bytes; use a shorter one"
        )
    return Addresses(f"ipc://{path}.events", f"ipc://{path}.service")
