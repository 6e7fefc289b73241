"""Addresses of telemetry: two ZeroMQ addresses for each driver, private by default.

``events``: the driver publishes (PUB). ``service``: it answers requests (ROUTER). Unix sockets
in a folder that only this user can enter, or two TCP ports: without keys on loopback only, with
CURVE keys on any interface. A driver on another node writes where it listens into a file.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.private import (
    is_loopback,
    make_private_folder,
    read_private,
    user_folder,
    write_private,
)

from .keys import Keys, read_keys

OFF, AUTO = "off", "auto"
MAX_IPC_PATH = 107  # bytes of sockaddr_un.sun_path, less the final zero
TCP = re.compile(r"tcp://(\[[0-9a-fA-F:]+\]|\*|[\w.-]+):(\d{1,5})")


@dataclass(frozen=True)
class Addresses:
    """ZeroMQ addresses of one driver, and the keys that they require; None: no keys."""

    events: str
    service: str
    keys: Keys | None = None

    def files(self) -> list[str]:
        """The socket files; none for TCP."""
        both = (self.events, self.service)
        return [a.removeprefix("ipc://") for a in both if a.startswith("ipc://")]

    def remove(self) -> None:
        """Removes the socket files of drivers that have ended; nothing for TCP."""
        for path in self.files():
            with contextlib.suppress(OSError):
                os.unlink(path)

    def announce(self, path: Path, **about: Any) -> None:
        """Writes them into a private file, for ``Announced``.

        Raises:
            InputError: the file cannot be written.
        """
        write_private(path, {"events": self.events, "service": self.service, **about})


@dataclass(frozen=True)
class Announced:
    """Addresses that a driver announces once it listens, and again when it is started anew."""

    path: Path
    keys: Keys

    def read(self) -> Addresses | None:
        """What the driver wrote last; None: nothing yet.

        Raises:
            InputError: the file is open to others, or holds something else.
        """
        try:
            fields = read_private(self.path, "telemetry")
        except FileNotFoundError:
            return None
        events, service = str(fields.get("events")), str(fields.get("service"))
        if not TCP.fullmatch(events) or not TCP.fullmatch(service):
            raise InputError("telemetry", self.path, "is damaged; remove it")
        return Addresses(events, service, self.keys)

    def remove(self) -> None:
        """Removes the file: its driver has ended."""
        self.path.unlink(missing_ok=True)


def private_folder() -> Path:
    """Folder of the unix sockets, mode 0700, made if it is absent: see ``user_folder``.

    Raises:
        InputError: something else has this name, or others may enter it.
    """
    return make_private_folder(user_folder(), "telemetry")


def addresses(setting: str, name: str, keys: Path | None = None) -> Addresses | None:
    """Addresses of a driver, None where telemetry is off.

    Args:
        setting: ``off``, ``auto``, ``ipc://PATH``, or ``tcp://HOST:PORT`` (PORT + 1 as well; with
            PORT 0 any two that are free).
        name: of i-PI's socket, ``NAME`` or ``HOST-PORT``: what ``auto`` is made from.
        keys: file of CURVE keys; needed where others can reach the address.

    Raises:
        InputError: a wrong setting, keys that are missing or open to others.
    """
    if setting == OFF:
        return None
    if setting == AUTO:
        return _ipc(private_folder() / re.sub(r"[^\w.+-]", "-", name))
    if setting.startswith("ipc:///"):
        return _ipc(Path(setting.removeprefix("ipc://")))
    match = TCP.fullmatch(setting)
    if not match or not int(match[2]) < 65535:
        raise InputError(
            "telemetry", setting, "must be auto, off, ipc:///PATH or tcp://HOST:PORT (below 65535)"
        )
    host, port = match[1], int(match[2])
    if keys is None and not is_loopback(host):
        raise InputError(
            "telemetry",
            setting,
            "other machines can reach this address: give --telemetry-keys FILE (made by "
            "`dmts-ipi init --network`), or use 127.0.0.1",
        )
    endpoints = Addresses(f"tcp://{host}:{port}", f"tcp://{host}:{port and port + 1}")
    return endpoints if keys is None else replace(endpoints, keys=read_keys(keys))


def _ipc(path: Path) -> Addresses:
    if len(os.fsencode(path)) + len(".service") > MAX_IPC_PATH:
        raise InputError(
            "telemetry", path, f"is longer than {MAX_IPC_PATH - 8} bytes; use a shorter one"
        )
    return Addresses(f"ipc://{path}.events", f"ipc://{path}.service")
