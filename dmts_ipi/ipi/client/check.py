"""Conformance check of a driver: what i-PI asks of it, and how it takes i-PI's end."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import threading
import time
from collections.abc import Callable, Iterable

import numpy as np

from dmts_ipi.core.conformance import CHECKS, FAIL, PASS, SKIP, Check, Subject, check_model
from dmts_ipi.core.errors import InputError

from .check_server import Connection, DriverFault, RemoteModel, Server, posdata, to_result
from .client import Endpoint

END_S = 5.0  # a driver should end, or let go of a connection, within this
DRIVER_CHECKS = (
    "handshake",
    "stepwise exchange",
    "joined messages",
    "messages in pieces",
    "end on EXIT",
    "reconnect after EXIT",
    "reconnect after a crash",
    "SIGTERM",
)


@dataclasses.dataclass
class DriverCheck:
    """Checks whoever connects to ``endpoint``.

    Args:
        endpoint: where to listen.
        subject: structure and tolerance (its model is replaced by the driver).
        command: starts the driver; None: somebody starts it by hand.
        connect_timeout_s: limit of the wait for the first connection.
        reply_timeout_s: limit for every answer.
        reconnect_timeout_s: limit of the wait for the driver to come back.
        skip: names of checks to leave out.
        progress: called with every finished check.
    """

    endpoint: Endpoint
    subject: Subject
    command: list[str] | None = None
    connect_timeout_s: float = 120.0
    reply_timeout_s: float = 60.0
    reconnect_timeout_s: float = 10.0
    skip: Iterable[str] = ()
    progress: Callable[[Check], None] = lambda check: None

    def __post_init__(self) -> None:
        unknown = sorted(set(self.skip) - set(CHECKS) - set(DRIVER_CHECKS))
        if unknown:
            known = ", ".join([*DRIVER_CHECKS, *CHECKS])
            raise InputError("skip", unknown[0], f"is not the name of a check; known: {known}")
        self._table: list[Check] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._server: Server | None = None
        self._link: Connection | None = None
        n = len(self.subject.numbers)
        self._n, self._message = n, posdata(self.subject.positions, self.subject.cell)

    def run(self) -> list[Check]:
        """Runs every check; ends the driver that it started, whatever happens.

        Raises:
            InputError: the address is in use, the command cannot be started, or the structure
                is no good.
        """
        try:
            self._server = Server(self.endpoint)
            if self.command:
                try:
                    self._process = subprocess.Popen(self.command, stdout=2)
                except OSError as error:
                    raise InputError("command", self.command[0], str(error)) from error
            if self._add("handshake", self._handshake):
                exchanges = [
                    self._add("stepwise exchange", self._stepwise),
                    self._add("joined messages", self._joined),
                    self._add("messages in pieces", self._pieces),
                ]
                if all(exchanges):
                    self._model_checks()
                self._add("end on EXIT", self._exit)
                self._add("reconnect after EXIT", self._reconnect)
                self._add("reconnect after a crash", self._crash)
                self._add("SIGTERM", self._terminate)
            return self._table
        finally:
            self._close()

    def _add(self, name: str, check: Callable[[], str]) -> bool:
        """``check`` returns a detail, or raises ``DriverFault``. True unless it failed."""
        if name in self.skip:
            row = Check(name, SKIP, "as told")
        elif name == "SIGTERM" and self._process is None:
            row = Check(name, SKIP, "needs --command")
        else:
            try:
                row = Check(name, PASS, check())
            except DriverFault as fault:
                row = Check(name, FAIL, str(fault))
        self._table.append(row)
        self.progress(row)
        return row.status != FAIL

    def _accept(self, timeout_s: float) -> Connection:
        assert self._server is not None
        link = self._server.accept(timeout_s, self._alive, self.reply_timeout_s)
        self._link = link
        return link

    def _alive(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            raise DriverFault(f"the driver ended with status {self._process.returncode}")

    def _initialised(self, timeout_s: float) -> Connection:
        link = self._accept(timeout_s)
        status = link.status()
        if status == "NEEDINIT":
            link.initialise()
            status = link.status()
        if status != "READY":
            raise DriverFault(f"status after INIT is {status!r}, expected READY")
        return link

    def _handshake(self) -> str:
        self._initialised(self.connect_timeout_s)
        return "NEEDINIT, INIT, READY"

    def _stepwise(self) -> str:
        link = self._connection()
        link.send(self._message)
        status = link.status()
        if status != "HAVEDATA":
            raise DriverFault(f"status after POSDATA is {status!r}, expected HAVEDATA")
        link.command("GETFORCE")
        self._first = link.forces(self._n)
        status = link.status()
        if status not in ("READY", "NEEDINIT"):
            raise DriverFault(f"status after GETFORCE is {status!r}, expected READY")
        return "POSDATA, HAVEDATA, GETFORCE, READY"

    def _joined(self) -> str:
        link = self._connection()
        link.send(self._message + b"GETFORCE".ljust(12))
        return self._same(link)

    def _pieces(self) -> str:
        link, data = self._connection(), self._message + b"GETFORCE".ljust(12)
        pause, cuts = threading.Event(), [0, 5, 12, 100, 160, len(data) - 20, len(data)]
        for a, b in itertools.pairwise(cuts):
            link.send(data[a:b])
            pause.wait(0.01)  # so that the pieces arrive as pieces
        return self._same(link)

    def _same(self, link: Connection) -> str:
        a, b = to_result(*link.forces(self._n)), to_result(*self._first)
        off = float(np.abs(a.forces_eV_per_A - b.forces_eV_per_A).max())
        if not off <= self.subject.tolerance_eV_per_A:
            raise DriverFault(f"forces differ from the first exchange by {off:.2g} eV/A")
        return f"same forces within {off:.1g} eV/A"

    def _model_checks(self) -> None:
        name = f"driver at {self.endpoint}"
        subject = dataclasses.replace(
            self.subject, model=RemoteModel(self._connection(), name), fixed_numbers=True
        )
        try:
            self._table += check_model(subject, set(self.skip) & set(CHECKS), self.progress)
        except DriverFault as fault:
            row = Check("model", FAIL, str(fault))
            self._table.append(row)
            self.progress(row)

    def _exit(self) -> str:
        link = self._connection()
        start = time.monotonic()
        link.command("EXIT")
        if not link.wait_for_end(END_S):
            raise DriverFault(f"the connection is still open {END_S:g} s after EXIT")
        link.close()
        return f"closed after {time.monotonic() - start:.2f} s"

    def _reconnect(self) -> str:
        start = time.monotonic()
        link = self._initialised(self.reconnect_timeout_s)
        took_s = time.monotonic() - start
        link.send(self._message + b"GETFORCE".ljust(12))
        return f"back after {took_s:.2f} s, {self._same(link)}"

    def _crash(self) -> str:
        assert self._server is not None
        self._connection().close()
        self._server.close()
        self._server = Server(self.endpoint)
        return self._reconnect()

    def _terminate(self) -> str:
        assert self._process is not None
        self._alive()
        start = time.monotonic()
        self._process.terminate()
        try:
            status = self._process.wait(END_S)
        except subprocess.TimeoutExpired as error:
            raise DriverFault(f"still there {END_S:g} s after SIGTERM") from error
        return f"ended after {time.monotonic() - start:.2f} s with status {status}"

    def _connection(self) -> Connection:
        if self._link is None:
            raise DriverFault("there is no connection")
        return self._link

    def _close(self) -> None:
        if self._link is not None:
            self._link.close()
        if self._server is not None:
            self._server.close()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
