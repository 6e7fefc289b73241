"""The two ZeroMQ sockets at which a driver speaks: bound, guarded by keys, removed at the end."""

from __future__ import annotations

import contextlib
import os

import zmq
from zmq.auth.thread import ThreadAuthenticator

from dmts_ipi.core.errors import InputError

from .endpoints import Addresses

QUEUE = 32  # messages that may wait in a socket
MAX_REQUEST_BYTES = 1 << 20  # a larger frame ends the connection before it is in memory


class DriverSockets:
    """``events`` (PUB) and ``service`` (ROUTER) of one driver.

    ``addresses`` are those in use: with the ports that were found where none was asked for. Where
    they carry keys, only the watchdog that has its own is let in.

    Raises:
        InputError: the addresses cannot be used.
    """

    def __init__(self, addresses: Addresses) -> None:
        self._context = zmq.Context()
        self._keys = addresses.keys
        self._authenticator = self._authenticate()
        self.events = self._bind(zmq.PUB, addresses.events)
        self.service = self._bind(zmq.ROUTER, addresses.service)
        self.addresses = Addresses(_bound(self.events), _bound(self.service), addresses.keys)
        self._files = {path: os.stat(path).st_ino for path in self.addresses.files()}

    def _authenticate(self) -> ThreadAuthenticator | None:
        """The thread that ZeroMQ asks whether a key is known; before any socket is bound."""
        if self._keys is None:
            return None
        authenticator = ThreadAuthenticator(self._context)
        authenticator.start()
        authenticator.configure_curve_callback("*", self._keys)
        return authenticator

    def _bind(self, kind: int, address: str) -> zmq.Socket[bytes]:
        sock: zmq.Socket[bytes] = self._context.socket(kind)
        sock.setsockopt(zmq.LINGER, 0)
        sock.setsockopt(zmq.SNDHWM, QUEUE)
        sock.setsockopt(zmq.RCVHWM, QUEUE)
        sock.setsockopt(zmq.MAXMSGSIZE, MAX_REQUEST_BYTES)
        if self._keys is not None:
            self._keys.guard_server(sock)
        try:
            sock.bind(address)
        except zmq.ZMQError as error:
            if self._authenticator is not None:
                self._authenticator.stop()
            self._context.destroy(linger=0)
            raise InputError("telemetry", address, f"{error.strerror}; use another") from error
        return sock

    def remove_files(self) -> None:
        """Removes the socket files, for a process that ends without ``close``; not those of another
        driver that has taken the addresses over."""
        for path, inode in self._files.items():
            with contextlib.suppress(OSError):
                if os.stat(path).st_ino == inode:
                    os.unlink(path)

    def close(self) -> None:
        """Ends both; whoever waits at ``service`` gets ``zmq.ContextTerminated`` and closes it."""
        self.events.close(0)
        if self._authenticator is not None:
            self._authenticator.stop()
        self._context.term()


def _bound(sock: zmq.Socket[bytes]) -> str:
    """Where a socket listens, with the port that it was given."""
    endpoint = sock.getsockopt(zmq.LAST_ENDPOINT)
    return endpoint.decode() if isinstance(endpoint, bytes) else ""
