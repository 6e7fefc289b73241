"""Where the unix sockets of a run are: in a folder that only this user can enter, unless a driver
is one of others; our drivers find i-PI at both places."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmts_ipi.core import private
from dmts_ipi.core.errors import InputError
from dmts_ipi.ipi import input_xml as validate
from dmts_ipi.ipi.client import client
from dmts_ipi.ipi.client.client import Endpoint
from dmts_ipi.ipi.input_xml import read_checkpoint
from dmts_ipi.ipi.run_folder.folder import RunFolder
from dmts_ipi.ipi.session import socket_file
from dmts_ipi.ipi.session.session import driver_command
from dmts_ipi.ipi.session.socket_file import free_socket, placed, prefix_of
from run_tools import make


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's folder that is not there yet; its path is short enough for a socket."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        place = Path(folder) / "own"
        for module in (client, socket_file, validate):
            monkeypatch.setattr(module, "user_folder", lambda: place)
        yield place


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return RunFolder(make(tmp_path_factory.mktemp("made") / "run", "--no-model-check"))


def listening(path: Path) -> socket.socket:
    found = socket.socket(socket.AF_UNIX)
    found.bind(str(path))
    found.listen(16)
    return found


def connects_to(at: Endpoint) -> str:
    with at.connect(5.0) as found:
        return str(found.getpeername())


def test_the_folder_is_private_and_named_to_ipi_and_drivers(own: Path, run: RunFolder) -> None:
    sockets = placed(run.spec().sockets, run.settings)
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    assert [at.path.parent for at in sockets.values()] == [own, own]
    assert prefix_of(sockets) == f"{own}/"
    words = driver_command(run.settings, run.spec(), "teacher", sockets["teacher"], python="python")
    assert words[words.index("--sockets-prefix") + 1] == f"{own}/"
    assert "--sockets-prefix" not in driver_command(
        run.settings, run.spec(), "teacher", run.spec().sockets["teacher"], python="python"
    )  # of the scripts: their drivers look at both places
    own.chmod(0o755)
    with pytest.raises(InputError, match="can be entered by other users"):
        placed(run.spec().sockets, run.settings)


def test_drivers_of_others_know_ipis_place_only(own: Path, run: RunFolder) -> None:
    teacher = run.settings.teacher.model_copy(update={"command": "lmp -in in.lammps {address}"})
    models = {**run.settings.models, "teacher": teacher}
    sockets = placed(run.spec().sockets, run.settings.model_copy(update={"models": models}))
    assert prefix_of(sockets) == ""
    assert not own.exists()
    assert sockets["student"].path == Path("/tmp/ipi_" + sockets["student"].address)


def test_a_name_that_is_too_long_for_the_folder(own: Path, run: RunFolder) -> None:
    name = "x" * 90  # with /tmp/ipi_ it fits
    sockets = {"teacher": validate.Socket("unix", name, 0)}
    with pytest.raises(InputError, match="longer than 107 bytes") as error:
        placed(sockets, run.settings)
    assert "address of teacher" in str(error.value)


def test_a_driver_looks_in_the_folder_first(own: Path) -> None:
    name = f"dmts-test-{uuid.uuid4().hex[:10]}"
    by_hand, ours, at = Path(f"/tmp/ipi_{name}"), own / name, Endpoint.anywhere(name)
    with pytest.raises(FileNotFoundError):
        at.connect(1.0)
    try:
        with listening(by_hand):
            assert connects_to(at) == str(by_hand)
            own.mkdir(mode=0o700)
            with listening(ours):
                assert connects_to(at) == str(ours)
                own.chmod(0o755)  # anybody may have made what is in it
                assert connects_to(at) == str(by_hand)
                own.chmod(0o700)
            assert ours.exists()  # left behind, nobody listens
            assert connects_to(at) == str(by_hand)
    finally:
        by_hand.unlink(missing_ok=True)


def test_what_a_killed_ipi_left_is_removed_at_both_places(own: Path) -> None:
    own.mkdir(mode=0o700)
    at = validate.Socket("unix", f"dmts-test-{uuid.uuid4().hex[:10]}", 0)
    by_hand, ours = Path(f"/tmp/ipi_{at.address}"), own / at.address
    try:
        for path in (by_hand, ours):
            listening(path).close()
        free_socket(at)
        assert not by_hand.exists()
        assert not ours.exists()
        with listening(ours), pytest.raises(InputError, match=f"{ours}: is in use"):
            free_socket(at)
    finally:
        by_hand.unlink(missing_ok=True)


def test_the_script_makes_the_folder(run: RunFolder, tmp_path: Path) -> None:
    """Run with an i-PI that only says what it was asked."""
    text = (run.path / "start_ipi.sh").read_text()
    before, _, command = text.partition("exec ")
    assert command.endswith(' -S "$sockets/" "${1:-input.xml}"\n')
    place = tmp_path / "own"
    script = before.replace('cd "$(dirname "$0")" || exit 1\n', "")
    assert "/tmp/dmts-$(id -u)" in script
    script = script.replace("/tmp/dmts-$(id -u)", str(place)) + 'echo "$sockets/"\n'
    for _ in range(2):
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout == f"{place}/\n"
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
        place.chmod(0o755)


def test_a_checkpoint_keeps_the_place(run: RunFolder, tmp_path: Path) -> None:
    text = (run.path / "input.xml").read_text()
    file = tmp_path / "RESTART"
    file.write_text(text.replace("<simulation", "<simulation sockets_prefix='/tmp/dmts-1/'", 1))
    assert read_checkpoint(file).sockets == run.spec().sockets


def test_the_folder_of_a_user() -> None:
    assert private.user_folder() == Path(f"/tmp/dmts-{os.getuid()}")
    assert not private.is_private(Path("/tmp"))
    assert not private.is_private(Path("/no/such"))
