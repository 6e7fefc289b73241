"""Sockets of an earlier i-PI: files that it left behind, ports that somebody holds."""

from __future__ import annotations

import contextlib
import errno
import socket
import time

from dmts_ipi.core.errors import InputError

from .validate import Socket

SOCKET_LIMIT_S = 2.0


def free_socket(at: Socket) -> None:
    """Removes the socket file that a killed i-PI left; refuses one that somebody listens on.

    A process that was just killed still takes connections until its last thread is gone, and
    then drops them: that end is waited for. A living i-PI keeps the connection.
    """
    deadline = time.monotonic() + SOCKET_LIMIT_S
    if at.mode != "unix":
        _free_port(at, deadline)
        return
    while at.path.exists():
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(SOCKET_LIMIT_S)
            try:
                probe.connect(str(at.path))
                dying = _dropped(probe, deadline)
            except ConnectionRefusedError:
                with contextlib.suppress(FileNotFoundError):
                    at.path.unlink()
                return
            except FileNotFoundError:
                return
            except OSError as error:
                raise InputError("socket", at.path, f"{error.strerror}; remove it") from error
        if not dying or time.monotonic() > deadline:
            raise InputError(
                "socket", at.path, "is in use; stop that i-PI, or change <address> in input.xml"
            )


def _free_port(at: Socket, deadline: float) -> None:
    """Refuses a port of this machine that somebody listens on until the deadline."""
    while True:
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as i-PI does
                probe.bind((at.address, at.port))
            return
        except OSError as error:  # of another kind: i-PI says what is wrong with the address
            if error.errno != errno.EADDRINUSE:
                return
        if time.monotonic() > deadline:
            remedy = "is in use; stop that program, or change <port> in input.xml"
            raise InputError("port", f"{at.address}:{at.port}", remedy)
        time.sleep(0.1)


def _dropped(probe: socket.socket, deadline: float) -> bool:
    """Whether the other end closed the connection before the deadline without a word."""
    probe.settimeout(max(deadline - time.monotonic(), 0.01))
    try:
        return probe.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True
