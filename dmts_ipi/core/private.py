"""What only this user may enter, read or write: sockets, keys, and addresses that are trusted."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import stat
from pathlib import Path
from typing import Any

from .errors import InputError
from .files import replace_file

MAX_BYTES = 1 << 16
OTHERS = stat.S_IRWXG | stat.S_IRWXO


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine only. Other names than localhost are not:
    what they stand for may change."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return host == "localhost"


def user_folder() -> Path:
    """Folder of this user's unix sockets, ``/tmp/dmts-UID``: see ``make_private_folder``.

    Always there, whatever TMPDIR and XDG_RUNTIME_DIR say: these often differ between the processes
    of a job, and the second is removed when its user logs out, under a run that goes on.
    """
    return Path(f"/tmp/dmts-{os.getuid()}")


def is_private(path: Path) -> bool:
    """Whether a folder is there, is this user's, and nobody else may enter it."""
    try:
        status = path.lstat()
    except OSError:
        return False
    owned = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
    return owned and not status.st_mode & OTHERS


def make_private_folder(path: Path, name: str = "network") -> Path:
    """A folder of mode 0700, made if it is absent.

    Args:
        path: its parent exists.
        name: what messages call it.

    Raises:
        InputError: something else has this name, it is another user's, or others may enter it.
    """
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        status = path.lstat()
    except OSError as error:
        raise InputError(name, path, f"{error.strerror}") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise InputError(name, path, "is not a folder that you own; remove it")
    if status.st_mode & OTHERS:
        raise InputError(name, path, f"can be entered by other users; chmod 700 {path}")
    return path


def write_private(path: Path, fields: dict[str, Any]) -> None:
    """Writes JSON with mode 0600, in one step: whoever reads it sees all of it or nothing.

    Raises:
        InputError: it cannot be written.
    """
    try:
        replace_file(path, json.dumps(fields), sync=True, mode=0o600)
    except OSError as error:
        raise InputError("file", path, f"{error.strerror}") from error


def read_private(path: Path, name: str) -> dict[str, Any]:
    """What ``write_private`` wrote, if nobody else can have changed or read it.

    Args:
        path: the file.
        name: what messages call it.

    Raises:
        FileNotFoundError: it is not there (yet).
        InputError: it is open to others, another user's, or damaged.
    """
    try:
        with open(path, "rb") as stream:
            status = os.fstat(stream.fileno())
            raw = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InputError(name, path, f"cannot be read ({error.strerror})") from error
    mode = stat.S_IMODE(status.st_mode)
    if mode & OTHERS:
        raise InputError(
            name, path, f"can be read by other users (mode {mode:o}); chmod 600 {path}"
        )
    if status.st_uid != os.getuid():
        raise InputError(name, path, "belongs to another user; remove it")
    try:
        fields = json.loads(raw) if len(raw) <= MAX_BYTES else None
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise InputError(name, path, "is damaged; remove it and start again")
    return fields
