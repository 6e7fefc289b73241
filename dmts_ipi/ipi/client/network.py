"""Runs over TCP: i-PI on one node, drivers on others. Addresses are exchanged by private files.

``FOLDER/network/`` has mode 0700, its files 0600: ``i-pi.json`` says where i-PI listens, and is
written before it is started; ``teacher.json`` and ``student.json`` say where the telemetry of the
drivers listens; ``keys.json`` holds the keys of the telemetry. i-PI's own protocol knows no keys:
whoever can reach its ports can send forces. ``docs/clusters.md``.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from dmts_ipi.core.errors import InputError, RunFault
from dmts_ipi.core.private import make_private_folder, read_private, write_private
from dmts_ipi.ipi.input_xml import InputSpec, Socket

from .client import Endpoint

NETWORK, IPI, KEYS = "network", "i-pi.json", "keys.json"
AUTO = "auto"
SIOCGIFADDR = 0x8915  # Linux: address of an interface
LOOK_S = 0.2


def own_address(setting: str) -> str:
    """IPv4 address of this machine at which others reach it.

    Args:
        setting: ``auto`` (what the host name stands for), an interface such as ``ib0``, a host
            name, or an address.

    Raises:
        InputError: it is not an address of this machine, or with ``auto`` one that other machines
            cannot reach.
    """
    if setting in (name for _, name in socket.if_nameindex()):
        address = _of_interface(setting)
    else:
        name = socket.gethostname() if setting == AUTO else setting
        try:
            address = socket.gethostbyname(name)
        except (OSError, UnicodeError) as error:  # the latter: no name can look like this
            remedy = "is neither an interface nor a host; give --network an address or interface"
            raise InputError("network", name, remedy) from error
    if setting == AUTO and address.startswith("127."):
        raise InputError(
            "network",
            AUTO,
            f"the name of this host stands for {address}, which no other node reaches; give an "
            "interface such as ib0, or an address",
        )
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError as error:
            what = (
                "is not an address of this machine"
                if address == setting
                else (f"stands for {address}, which is not an address of this machine")
            )
            raise InputError("network", setting, what) from error
    return address


def _of_interface(name: str) -> str:
    if not sys.platform.startswith("linux"):
        raise InputError("network", name, "interfaces are known on Linux only; give an address")
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            reply = fcntl.ioctl(probe, SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
        except OSError as error:
            raise InputError("network", name, "this interface has no IPv4 address") from error
    return socket.inet_ntoa(reply[20:24])


def address_towards(host: str) -> str:
    """Own IPv4 address on the way to another host. Nothing is sent.

    Raises:
        InputError: there is no way.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 9))
        except OSError as error:
            raise InputError("network", host, f"cannot be reached ({error.strerror})") from error
        return str(probe.getsockname()[0])


def over_tcp(spec: InputSpec, setting: str) -> InputSpec:
    """The spec of a run whose sockets are free TCP ports of this node.

    Args:
        spec: of its ``input.xml``.
        setting: see ``own_address``.

    Raises:
        InputError: the address is no good.
    """
    host = own_address(setting)
    sockets = {name: Socket("inet", host, port) for name, port in _ports(host, spec).items()}
    return replace(spec, sockets=sockets)


def announce(folder: Path, sockets: Mapping[str, Socket]) -> None:
    """Says where i-PI is going to listen, by model; what earlier drivers said is removed.

    Args:
        folder: the run.
        sockets: of ``over_tcp``.

    Raises:
        InputError: the private folder is open to others, or cannot be written.
    """
    private = make_private_folder(folder / NETWORK)
    for name in sockets:
        (private / f"{name}.json").unlink(missing_ok=True)  # of drivers that are gone
    ports = {name: at.port for name, at in sockets.items()}
    host = next((at.address for at in sockets.values()), "")
    write_private(private / IPI, {"address": host, "ports": ports, "pid": os.getpid()})


def _ports(host: str, spec: InputSpec) -> dict[str, int]:
    """Free ports. Between here and i-PI's start another may take one: i-PI then ends, and the
    watchdog starts it again."""
    with contextlib.ExitStack() as stack:
        ports = {}
        for name in spec.sockets:
            probe = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            probe.bind((host, 0))
            ports[name] = int(probe.getsockname()[1])
        return ports


@dataclass(frozen=True)
class AnnouncedEndpoint(Endpoint):
    """Where i-PI listens, as a private file says: looked up again for every connection, because
    i-PI may come back at another place.

    Attributes:
        folder: ``FOLDER/network`` of the run.
        role: ``teacher`` or ``student``.
    """

    folder: Path = Path()
    role: str = ""

    def lookup(self) -> Endpoint:
        """Where i-PI listens now.

        Raises:
            FileNotFoundError: nowhere yet.
            InputError: the file is open to others, or damaged.
        """
        fields = read_private(self.folder / IPI, "network")
        ports = fields.get("ports")
        port = ports.get(self.role) if isinstance(ports, Mapping) else None
        host = fields.get("address")
        if not isinstance(host, str) or type(port) is not int:
            raise InputError(
                "network", self.folder / IPI, f"has no port for '{self.role}'; is it a model of "
                "this run?"
            )  # fmt: skip
        return Endpoint.tcp(host, port)

    def _check_place(self) -> None:
        """A driver that hung and was replaced must not come back beside its successor."""
        with contextlib.suppress(FileNotFoundError):
            now = read_private(self.announcement, "network")
            if (now.get("host"), now.get("pid")) != (socket.gethostname(), os.getpid()):
                raise RunFault(
                    f"process {now.get('pid')} on {now.get('host')} is the {self.role} now"
                )

    @property
    def announcement(self) -> Path:
        """Where this driver's telemetry is announced."""
        return self.folder / f"{self.role}.json"

    @property
    def keys(self) -> Path:
        """Keys of the telemetry."""
        return self.folder / KEYS

    def wait(self, limit_s: float, say: Callable[[str], None]) -> Endpoint:
        """The first place that is announced.

        Raises:
            RunFault: none within the limit.
        """
        deadline, said = time.monotonic() + limit_s, False
        while True:
            with contextlib.suppress(FileNotFoundError):
                return self.lookup()
            if time.monotonic() > deadline:
                raise RunFault(f"no i-PI at {self} within {limit_s:g} s: {self.hint()}")
            if not said:
                say(f"waiting at most {limit_s:g} s for {self}")
                said = True
            time.sleep(LOOK_S)

    def connect(self, timeout_s: float) -> socket.socket:
        """See ``Endpoint``.

        Raises:
            OSError: nobody listens, or nothing is announced.
            RunFault: another driver has taken this one's place.
        """
        self._check_place()
        return self.lookup().connect(timeout_s)

    def __str__(self) -> str:
        return str(self.folder / IPI)

    def hint(self) -> str:
        """See ``Endpoint``."""
        return "start the run there: dmts-ipi run FOLDER --network ADDRESS"
