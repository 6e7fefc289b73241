"""Runs over TCP: who may listen, who may not, where addresses come from."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import zmq

from dmts_ipi.core.errors import InputError, RunFault
from dmts_ipi.core.private import make_private_folder, read_private, write_private
from dmts_ipi.ipi.client.client import Endpoint
from dmts_ipi.ipi.client.driver import main as driver_main
from dmts_ipi.ipi.client.network import (
    IPI,
    AnnouncedEndpoint,
    address_towards,
    announce,
    over_tcp,
    own_address,
)
from dmts_ipi.ipi.client.transport import with_sockets
from dmts_ipi.ipi.input_xml import Socket, parse_xml, read_input, socket_of
from dmts_ipi.ipi.run_folder.folder import RunFolder
from dmts_ipi.ipi.run_folder.resources import inputs_folder
from dmts_ipi.ipi.session.third_party_driver import listens, third_party_command
from dmts_ipi.watchdog.driver_sockets import MAX_REQUEST_BYTES
from dmts_ipi.watchdog.endpoints import Announced, addresses
from dmts_ipi.watchdog.journal import read_events
from dmts_ipi.watchdog.keys import Keys, make_keys, read_keys
from dmts_ipi.watchdog.listener import Listener
from dmts_ipi.watchdog.messages import TOPIC, encode
from dmts_ipi.watchdog.publisher import Publisher, opener
from run_tools import TEACHER, call, make, summary, until

pytestmark = pytest.mark.timeout(1800)  # whole runs: a loaded machine takes its time
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
X = np.zeros((3, 3))
HERE = "tcp://127.0.0.1:0"


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return make_keys(tmp_path / "keys.json")


@pytest.fixture
def teacher(tmp_path: Path, keys: Keys) -> Iterator[Publisher]:
    made = opener("teacher", reference=True)(
        HERE, "", 3, "cpu", tmp_path / "keys.json", tmp_path / "teacher.json"
    )
    assert made is not None
    yield made
    made.close()


def evaluate(publisher: Publisher) -> None:
    publisher.begin()
    publisher.evaluated(X, X, np.eye(3), -1.0, X, 0.01)


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    made: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield made
    made.destroy(linger=0)


STRANGERS = """
import json, os, sys, zmq
events, service, question, *pairs = json.loads(sys.argv[1])
context, socks = zmq.Context(), []
for pair in pairs:
    for kind, at in ((zmq.SUB, events), (zmq.DEALER, service)):
        sock = context.socket(kind)
        sock.linger = 0
        if pair:
            sock.curve_serverkey, sock.curve_publickey, sock.curve_secretkey = map(str.encode, pair)
        sock.connect(at)
        if kind == zmq.SUB:
            sock.subscribe(b"")
        else:
            sock.send_multipart([q.encode() for q in question], zmq.NOBLOCK)
        socks.append(sock)
print("there", flush=True)
sys.stdin.readline()
print(sum(bool(sock.poll(0)) for sock in socks), flush=True)
os._exit(0)
"""


def test_a_listener_without_the_keys_hears_nothing(
    tmp_path: Path, keys: Keys, teacher: Publisher
) -> None:
    """The watchdog hears all the time. A stranger without keys, one with other keys, and one that
    overheard the drivers' public key, hear nothing and get no answers."""
    foreign = make_keys(tmp_path / "foreign.json")
    own = [foreign.watchdog_public.decode(), foreign.watchdog_secret.decode()]
    servers = [foreign.drivers_public.decode(), keys.drivers_public.decode()]
    question = [part.decode() for part in encode("ask_status", {})]
    at = teacher.addresses
    say = json.dumps([at.events, at.service, question, [], *([server, *own] for server in servers)])
    strangers = subprocess.Popen(
        [sys.executable, "-c", STRANGERS, say],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert strangers.stdout is not None
    assert strangers.stdout.readline() == "there\n"
    listener = Listener(
        {"teacher": Announced(tmp_path / "teacher.json", keys)}, np.array([8, 1, 1]), {}
    )

    def heard() -> bool:
        evaluate(teacher)
        time.sleep(0.01)
        health = listener.health["teacher"]
        return health.evaluation > 50 and health.last_answer > 0

    until(heard)
    output, _ = strangers.communicate("now\n", timeout=600)
    assert output == "0\n"
    assert listener.counts.bad == 0
    listener.close()


def test_a_listener_follows_a_driver_that_is_announced_elsewhere(
    tmp_path: Path, keys: Keys, teacher: Publisher
) -> None:
    announced = Announced(tmp_path / "later.json", keys)
    assert announced.read() is None
    listener = Listener({"teacher": announced}, np.array([8, 1, 1]), {})
    for _ in range(2):
        where = addresses(HERE, "", tmp_path / "keys.json")
        assert where is not None
        driver = Publisher("teacher", where, 3, "cpu", reference=True)
        driver.evaluation = before = listener.health["teacher"].evaluation + 1000
        driver.addresses.announce(announced.path)

        def heard(driver: Publisher = driver, before: int = before) -> bool:
            evaluate(driver)
            time.sleep(0.01)
            return listener.health["teacher"].evaluation > before

        until(heard)
        driver.close()
    listener.close()
    announced.remove()
    assert not announced.path.exists()


def test_a_frame_that_is_too_large_is_dropped(
    tmp_path: Path, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    where = addresses(f"ipc://{tmp_path}/s", "")
    assert where is not None
    driver = Publisher("student", where, 3, "cpu", reference=False)
    large, small = context.socket(zmq.DEALER), context.socket(zmq.DEALER)
    for sock in (large, small):
        sock.connect(where.service)
    large.send_multipart([TOPIC, bytes(MAX_REQUEST_BYTES + 1)])
    small.send_multipart([TOPIC, b"[", b"x"])
    small.send_multipart(encode("ask_status", {}))
    assert small.poll(60_000)
    until(lambda: driver.bad_requests == 1)
    assert driver.requests == 2  # the large one never arrived
    driver.close()


def test_beyond_loopback_keys_are_needed(tmp_path: Path) -> None:
    for setting in ("tcp://0.0.0.0:0", "tcp://*:5500", "tcp://node7:5500", "tcp://10.0.0.1:5500"):
        with pytest.raises(InputError, match="other machines can reach this address"):
            addresses(setting, "")
        with pytest.raises(InputError, match="does not exist"):
            addresses(setting, "", tmp_path / "keys.json")
    for setting in ("tcp://127.0.0.2:5500", "tcp://localhost:5500", "tcp://[::1]:5500"):
        found = addresses(setting, "")
        assert found is not None
        assert found.keys is None
    make_keys(tmp_path / "keys.json")
    found = addresses("tcp://0.0.0.0:5500", "", tmp_path / "keys.json")
    assert found is not None
    assert found.keys == read_keys(tmp_path / "keys.json")
    assert found.keys.drivers_secret.decode() not in repr(found)


def test_keys_are_for_their_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    make_keys(file)
    assert file.stat().st_mode & 0o777 == 0o600
    for mode in (0o640, 0o604, 0o620):
        file.chmod(mode)
        with pytest.raises(InputError) as error:
            read_keys(file)
        assert str(
            error.value
        ) == f"keys = {file}: can be read by other users (mode {mode:o}); " + (f"chmod 600 {file}")
        assert error.value.status == 2
    file.chmod(0o600)
    for text in ("", "[1]", "{}", '{"version": 1}', "x" * 70_000):
        file.write_text(text)
        with pytest.raises(InputError):
            read_keys(file)
    private = make_private_folder(tmp_path / "network")
    assert private.stat().st_mode & 0o777 == 0o700
    private.chmod(0o750)
    with pytest.raises(InputError, match="can be entered by other users; chmod 700"):
        make_private_folder(private)


def test_a_driver_with_open_keys_ends_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dmts_ipi.models.load import load_model

    structure = make(tmp_path / "run", "--no-model-check") / "structure.extxyz"
    file = tmp_path / "keys.json"
    make_keys(file)
    file.chmod(0o644)
    words = ["--model", TEACHER, "--structure", str(structure), "--unix", "nobody"]
    words += ["--telemetry", "tcp://0.0.0.0:0", "--telemetry-keys", str(file)]
    telemetry = partial(opener, reference=True)
    status = driver_main("nnp_driver", load_model, argv=words, telemetry=telemetry, role="teacher")
    assert status == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(
        f"nnp_driver: error: keys = {file}: can be read by other users (mode 644); chmod"
    )


def test_addresses_of_this_machine() -> None:
    assert own_address("127.0.0.1") == "127.0.0.1"
    if "lo" in (name for _, name in socket.if_nameindex()):
        assert own_address("lo") == "127.0.0.1"
    for wrong in ("no-such-interface-0", "198.51.100.7", "no..name", "x" * 70):
        with pytest.raises(InputError, match="network = "):
            own_address(wrong)
    assert address_towards("127.0.0.1") == "127.0.0.1"
    with pytest.raises(InputError, match=r"network = 255.255.255.255: cannot be reached"):
        address_towards("255.255.255.255")  # not without asking for a broadcast


def test_this_host_may_be_known_to_itself_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostbyname", lambda name: "127.0.1.1")
    with pytest.raises(InputError, match="which no other node reaches; give an interface"):
        own_address("auto")


def test_sockets_are_exchanged_and_come_back() -> None:
    source = (inputs_folder() / "nvt_dmts.xml").read_bytes()
    unix = {n: Socket("unix", f"dmts-{n}", 65535) for n in ("teacher", "student")}
    inet = {n: Socket("inet", "10.1.2.3", 4000 + k) for k, n in enumerate(unix)}
    assert with_sockets(source, source, unix) == source
    moved = with_sockets(source, source, inet)
    assert moved.count(b"10.1.2.3") == 2
    assert b"<latency>1e-4</latency>" in moved
    assert with_sockets(moved, source, unix) == source
    # as i-PI writes a checkpoint: mode and port at their defaults are left out
    bare = b"<simulation><ffsocket name='teacher'><address>a</address></ffsocket></simulation>"
    assert with_sockets(bare, bare, {"teacher": Socket("inet", "a", 65535)}) == bare
    again = with_sockets(bare, source, {"teacher": inet["teacher"]})
    assert b"<latency>1e-4</latency>" in again


def test_where_ipi_is_announced(tmp_path: Path) -> None:
    folder = make(tmp_path / "run", "--no-model-check", "--network", "127.0.0.1")
    keys = folder / "network" / "keys.json"  # made by init
    assert keys.stat().st_mode & 0o777 == 0o600
    spec = over_tcp(RunFolder(folder).spec(), "127.0.0.1")
    announce(folder, spec.sockets)
    at = AnnouncedEndpoint(folder=folder / "network", role="student")
    assert at.lookup() == Endpoint.tcp("127.0.0.1", spec.sockets["student"].port)
    assert len({s.port for s in spec.sockets.values()}) == 2
    with pytest.raises(OSError, match="refused"):  # nobody listens yet
        at.connect(1.0)
    write_private(at.announcement, {"host": socket.gethostname(), "pid": os.getpid()})
    with pytest.raises(OSError, match="refused"):
        at.connect(1.0)
    write_private(at.announcement, {"host": "node9", "pid": 7})
    with pytest.raises(RunFault, match="process 7 on node9 is the student now"):
        at.connect(1.0)
    at.announcement.unlink()
    (folder / "network" / IPI).chmod(0o644)
    with pytest.raises(InputError, match="can be read by other users"):
        at.connect(1.0)
    (folder / "network" / IPI).unlink()
    with pytest.raises(FileNotFoundError):
        at.connect(1.0)
    with pytest.raises(RunFault, match="within 0 s: start the run there"):
        at.wait(0.0, print)


def test_open_keys_end_a_run_before_anything_starts(tmp_path: Path) -> None:
    folder = make(tmp_path / "run", "--no-model-check", "--network", "127.0.0.1")
    file = folder / "network" / "keys.json"
    file.chmod(0o644)
    done = call("run", folder)
    assert done.returncode == 2
    assert done.stderr == (
        f"dmts-ipi run: error: keys = {file}: can be read by other users (mode 644); "
        f"chmod 600 {file}\n"
    )
    assert not (folder / "logs" / "i-pi.log").exists()
    assert not (folder / "network" / IPI).exists()


@linux
def test_a_program_of_others_starts_when_ipi_listens(tmp_path: Path) -> None:
    at = Socket("inet", "127.0.0.1", 1)
    words = third_party_command("lmp -in 'a b' {mode} {port}", ["srun", "-n4"], at, "python")
    assert words[3:] == ["127.0.0.1:1", "--", *("srun", "-n4", "lmp", "-in", "a b", "inet", "1")]
    with pytest.raises(InputError, match="no closing quotation"):
        third_party_command("lmp 'a", [], at, "python")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{server.getsockname()[1]}"
        assert not listens(where)
        server.listen(1)
        assert listens(where)
    with socket.socket(socket.AF_UNIX) as server:
        where = str(tmp_path / "s")
        assert not listens(where)
        server.bind(where)
        assert listens(where)


@linux
def test_a_run_over_tcp_is_watched_and_goes_on_with_unix_sockets(tmp_path: Path) -> None:
    """Both halves of a run are one run: how forces travel is no physics."""
    # slow enough for the watchdog to hear of it, on a loaded machine too
    teacher = TEACHER.replace("}", ', "delay_s": 0.01}')
    folder = make(tmp_path / "run", "--time-ps", 2, "--no-model-check", "--teacher", teacher)
    words = ("--network", "127.0.0.1", "--launch-teacher", "env DMTS_TEST=1")
    done = call("run", folder, *words)
    assert done.returncode == 0, done.stderr
    first = summary(folder)["watchdog"]
    assert first["telemetry"]["pairs"] > 10  # compared, over TCP, with keys
    used = read_private(folder / "network" / IPI, "network")
    assert used["address"] == "127.0.0.1"
    checkpoint = sorted(folder.glob("md.checkpoint_*"))[-1]
    modes = [socket_of(e).mode for e in parse_xml(checkpoint).findall("ffsocket")]
    assert modes == ["inet", "inet"]
    assert read_input(folder / "input.xml").sockets["teacher"].mode == "unix"
    assert "launch: ''" in (folder / "run.yaml").read_text()  # was for that session
    done = call("run", folder, "--time-ps", 2.2)
    assert done.returncode == 0, done.stderr
    assert "resumes at step 500" in done.stderr
    assert RunFolder(folder).properties()["step"].tolist() == list(range(0, 551, 2))
    log = (folder / "logs" / "teacher.log").read_text()
    assert "telemetry listens at 127.0.0.1" in log
    assert f"connected to i-PI at /tmp/dmts-{os.getuid()}/dmts-" in log
    assert [e["kind"] for e in read_events(folder)].count("verdict") == 0
    assert json.loads((folder / "summary.json").read_text())["exit"] == "finished"
