"""A long-lived client of i-PI: connects, serves, and waits for i-PI to come back.

The model stays loaded and compiled through every restart of i-PI. Waits have limits, say once
what they wait for, and end at once when ``stop`` is called from another thread.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from dmts_ipi.core.errors import InputError, RunFault
from dmts_ipi.core.private import is_private, user_folder
from dmts_ipi.ipi.input_xml import SOCKET_PREFIX

from .client_session import ConnectionLost, Evaluator, ProtocolFault, Session, close_cleanly

MAX_UNIX_PATH = 107  # bytes of sockaddr_un.sun_path, less the final zero
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 0.1
MAX_PROTOCOL_FAULTS = 3  # in a row, without an evaluation between them


@dataclass(frozen=True)
class Endpoint:
    """Where i-PI listens: a unix socket ``path``, or ``host`` and ``port``.

    ``private``: another path, in a folder of this user, where i-PI is looked for first.
    """

    path: str = ""
    host: str = "127.0.0.1"
    port: int = 0
    private: str = ""

    @classmethod
    def unix(cls, name: str, prefix: str = SOCKET_PREFIX) -> Endpoint:
        """The unix socket of ``<address>name</address>``.

        Raises:
            InputError: the path would be too long for a socket, or its folder does not exist.
        """
        path = prefix + name
        if not name or "\0" in name:
            raise InputError("unix", repr(name), "give the name that is in <address> of the XML")
        if len(os.fsencode(path)) > MAX_UNIX_PATH:
            raise InputError(
                "unix",
                name,
                f"the socket path {path} is longer than {MAX_UNIX_PATH} bytes; use a shorter name",
            )
        if not Path(path).parent.is_dir():
            raise InputError("unix", name, f"there is no folder {Path(path).parent} for {path}")
        return cls(path=path)

    @classmethod
    def anywhere(cls, name: str) -> Endpoint:
        """The unix socket of ``<address>name</address>`` where i-PI was started by ``dmts-ipi run``
        or a run's ``start_ipi.sh`` (in ``user_folder``), else by hand (``SOCKET_PREFIX``).

        Raises:
            InputError: the path would be too long for a socket.
        """
        private = str(user_folder() / name)
        fits = len(os.fsencode(private)) <= MAX_UNIX_PATH
        return replace(cls.unix(name), private=private if fits else "")

    @classmethod
    def tcp(cls, host: str, port: int) -> Endpoint:
        """A TCP address.

        Raises:
            InputError: the port is none.
        """
        if not 1 <= port <= 65535:
            raise InputError("port", port, "must be between 1 and 65535, as in the XML")
        return cls(host=host, port=port)

    def __str__(self) -> str:
        address = self.path or f"{self.host}:{self.port}"
        return f"{address} or {self.private}" if self.private else address

    def connect(self, timeout_s: float) -> socket.socket:
        """One attempt. The socket returned blocks without limit: i-PI may think for hours.

        Raises:
            OSError: nobody listens.
        """
        if self.path:
            sock = self._connect_unix(timeout_s)
        else:
            sock = socket.create_connection((self.host, self.port), timeout_s)
            # Small messages must not wait for others, and a peer whose machine died be noticed.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.settimeout(None)
        return sock

    def _connect_unix(self, timeout_s: float) -> socket.socket:
        if self.private and is_private(Path(self.private).parent):
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                return _connected(self.private, timeout_s)
        return _connected(self.path, timeout_s)

    def hint(self) -> str:
        """What a person should look at when nobody answers."""
        if not self.path:
            return "start i-PI there, or correct --address and --port"
        if any(path and Path(path).exists() for path in (self.path, self.private)):
            return "the file is there but nobody answers; if a killed i-PI left it, remove it"
        return "start i-PI with this <address>, or correct --unix"


def _connected(path: str, timeout_s: float) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout_s)
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock


def _other_end(sock: socket.socket) -> str:
    """Path of the unix socket that a connection goes to; empty: it has none."""
    with contextlib.suppress(OSError):
        peer = sock.getpeername()
        return peer if isinstance(peer, str) else ""
    return ""


class Client:
    """Serves an evaluator to i-PI until it is stopped or i-PI stays away.

    Args:
        endpoint: where i-PI listens.
        evaluator: answers structures (``AtomicUnitsModel``).
        connect_timeout_s: limit of the wait for the first connection.
        reconnect_timeout_s: limit of the wait after a connection has ended; 0: none.
        say: takes one line of news.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        evaluator: Evaluator,
        *,
        connect_timeout_s: float = 120.0,
        reconnect_timeout_s: float = 600.0,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.endpoint = endpoint
        self.connections = 0
        self._evaluator = evaluator
        self._connect_timeout_s = connect_timeout_s
        self._reconnect_timeout_s = reconnect_timeout_s
        self._say = say
        self._stop = threading.Event()
        self._sock: socket.socket | None = None

    def stop(self) -> None:
        """Ends ``serve`` from another thread, even in the middle of an evaluation."""
        self._stop.set()
        sock = self._sock
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_WR)
                # What i-PI has sent: left unread it would become a reset. A socket with a timeout
                # waits for it, whatever the flags of recv: so it is looked for first.
                while select.select([sock], [], [], 0)[0] and sock.recv(1 << 16):
                    pass
            except (OSError, ValueError):  # closed meanwhile
                pass
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RD)

    def serve(self) -> None:
        """Connects, answers, reconnects. Returns after ``stop``, or when i-PI said EXIT and
        stayed away for the limit.

        Raises:
            RunFault: i-PI was not there within the limit, or went without EXIT and stayed away.
            ProtocolFault: the server speaks something else.
            DmtsError: the evaluator failed; i-PI has seen a clean end of connection.
        """
        limit_s, ended, faults = self._connect_timeout_s, "", 0
        since, pause_s = time.monotonic(), FIRST_PAUSE_S
        while not self._stop.is_set():
            sock = self._wait_for_server(limit_s, since)
            if sock is None:
                if self._stop.is_set() or ended == "EXIT":
                    return
                raise RunFault(
                    f"no i-PI at {self.endpoint} within {limit_s:g} s: {self.endpoint.hint()}"
                )
            self._sock, where = sock, _other_end(sock) or str(self.endpoint)
            session = Session(
                sock,
                self._evaluator,
                greeting_s=since + limit_s - time.monotonic(),
                greeted=partial(self._say, f"connected to i-PI at {where}"),
            )
            try:
                session.run()
                ended = "EXIT"
            except ConnectionLost as error:
                ended = f"lost ({error})" if session.heard else ended
            except ProtocolFault as fault:
                faults = 1 if session.evaluations else faults + 1
                if faults >= MAX_PROTOCOL_FAULTS:
                    raise
                ended = f"broken off ({fault})"
            finally:
                self._sock = None
                close_cleanly(sock)
            if session.heard:
                self.connections += 1
                limit_s = self._reconnect_timeout_s or float("inf")
                since = time.monotonic()
                if not self._stop.is_set():
                    self._say(self._news(session.evaluations, ended, limit_s))
            # A server that takes connections only to drop them must not make us spin.
            pause_s = FIRST_PAUSE_S if session.evaluations else min(2 * pause_s, LONGEST_PAUSE_S)
            self._stop.wait(pause_s)

    def _news(self, evaluations: int, ended: str, limit_s: float) -> str:
        how = "i-PI said EXIT" if ended == "EXIT" else f"connection to i-PI {ended}"
        wait = "" if limit_s == float("inf") else f"at most {limit_s:g} s "
        return (
            f"{how} after {evaluations} evaluations; waiting {wait}"
            f"for i-PI to come back at {self.endpoint} (Ctrl-C ends)"
        )

    def _wait_for_server(self, limit_s: float, since: float) -> socket.socket | None:
        pause_s, said = FIRST_PAUSE_S, self.connections > 0
        while not self._stop.is_set():
            left_s = since + limit_s - time.monotonic()
            if left_s <= 0:
                return None
            try:
                return self.endpoint.connect(min(left_s, 5.0))
            except socket.gaierror as error:
                raise InputError(
                    "address", self.endpoint.host, f"is not a known host ({error.strerror})"
                ) from error
            except PermissionError as error:
                raise InputError(
                    "unix",
                    self.endpoint,
                    "no permission to use this socket; does the i-PI belong to another user?",
                ) from error
            except OSError:
                if not said:
                    self._say(f"waiting at most {limit_s:g} s for i-PI at {self.endpoint}")
                    said = True
                self._stop.wait(min(pause_s, left_s))
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        return None
