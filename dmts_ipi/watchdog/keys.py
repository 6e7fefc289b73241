"""CURVE keys of a run's telemetry: without them nothing is received and nothing accepted.

One file for a run, mode 0600: a pair of keys for its drivers, which listen, and one for its
watchdog, which connects. All of them are processes of one user.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import zmq

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.private import read_private, write_private

KEYS = "keys.json"
VERSION = 1
KEY_LENGTH = 40  # characters of Z85: 32 bytes


@dataclass(frozen=True)
class Keys:
    """Public keys and, never printed, secret ones; each 40 characters of Z85."""

    drivers_public: bytes
    watchdog_public: bytes
    drivers_secret: bytes = field(repr=False)
    watchdog_secret: bytes = field(repr=False)

    def guard_server(self, sock: zmq.Socket[bytes]) -> None:
        """Before ``bind``: a driver's socket."""
        sock.setsockopt(zmq.CURVE_SERVER, 1)
        sock.setsockopt(zmq.CURVE_PUBLICKEY, self.drivers_public)
        sock.setsockopt(zmq.CURVE_SECRETKEY, self.drivers_secret)

    def guard_client(self, sock: zmq.Socket[bytes]) -> None:
        """Before ``connect``: the watchdog's socket."""
        sock.setsockopt(zmq.CURVE_SERVERKEY, self.drivers_public)
        sock.setsockopt(zmq.CURVE_PUBLICKEY, self.watchdog_public)
        sock.setsockopt(zmq.CURVE_SECRETKEY, self.watchdog_secret)

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether a client with this public key is let in (pyzmq's credentials provider)."""
        return key == self.watchdog_public


def make_keys(path: Path) -> Keys:
    """Makes new keys and writes them, mode 0600.

    Raises:
        InputError: the file cannot be written, or this ZeroMQ has no CURVE.
    """
    if not zmq.has("curve"):
        raise InputError(
            "keys", path, "this ZeroMQ was built without CURVE; install pyzmq from PyPI"
        )
    drivers, watchdog = zmq.curve_keypair(), zmq.curve_keypair()
    fields: dict[str, int | str] = {"version": VERSION}
    for name, (public, secret) in (("drivers", drivers), ("watchdog", watchdog)):
        fields[f"{name}_public"], fields[f"{name}_secret"] = public.decode(), secret.decode()
    write_private(path, fields)
    return read_keys(path)


def read_keys(path: Path) -> Keys:
    """The keys in a file.

    Raises:
        InputError: it is absent, open to others, or holds something else.
    """
    try:
        fields = read_private(path, "keys")
    except FileNotFoundError as error:
        raise InputError(
            "keys", path, "does not exist; `dmts-ipi init --network ADDRESS` makes it"
        ) from error
    names = ("drivers_public", "watchdog_public", "drivers_secret", "watchdog_secret")
    keys = [fields.get(name) for name in names]
    if fields.get("version") != VERSION:
        raise InputError("keys", path, f"is not of version {VERSION}; remove it and run again")
    if not all(isinstance(key, str) and len(key) == KEY_LENGTH for key in keys):
        raise InputError("keys", path, "is damaged; remove it and run again")
    return Keys(*(str(key).encode() for key in keys))
