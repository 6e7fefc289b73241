"""i-PI as an object in our process: it says, writes and ends as under i-PI's own script."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dmts_ipi.core.exit_codes import ExitCode
from dmts_ipi.ipi.run_folder.resources import ipi_script
from integrator_tools import LANGEVIN, simulation_xml

PLAIN = [sys.executable, "-u", str(ipi_script())]
OURS = [sys.executable, "-u", "-m", "dmts_ipi.cli", "i-pi"]
STOCK = simulation_xml(LANGEVIN, splitting="baoab", total=8).replace("safe_stride='1000000'", "")
FOREVER = STOCK.replace("<total_steps>8", "<total_steps>100000000")
SOCKET = re.sub(
    r"<ffdirect name='f0'.*?</ffdirect>",
    "<ffsocket name='f0' mode='unix' pbc='False'><address>NAME</address></ffsocket>",
    FOREVER,
    flags=re.S,
)
# What differs from run to run: times, dates, threads, and our lines about patches.
TIMES = re.compile(r"\d+\.\d+e[+-]\d+|Thread\(.*?\)>|started \d+|\d{4}-\d\d-\d\d.*|\d\d:\d\d:\d\d")
BROKEN = """
import errno, os, sys
from ipi.{module} import {owner}

def broken(*args, **options):
    raise {error}

{owner}.{name} = broken
from dmts_ipi.cli import main
sys.exit(main(["i-pi", "input.xml", "--no-patches", "all"]))
"""


def start(command: list[str], folder: Path, text: str) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    (folder / "input.xml").write_text(text)
    return subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.parametrize("verbosity", ["quiet", "low", "medium"])
def test_it_says_and_leaves_what_ipi_does(tmp_path: Path, verbosity: str) -> None:
    said, files = [], []
    for name, command in (("plain", PLAIN), ("ours", OURS)):
        process = start([*command, "-V", verbosity, "input.xml"], tmp_path / name, STOCK)
        out, err = process.communicate(timeout=120)
        assert (process.returncode, err) == (0, "")
        said.append(TIMES.sub("", out).replace(str(tmp_path / name), ""))
        files.append(sorted(p.name for p in (tmp_path / name).iterdir()))
    assert said[0] == said[1]
    assert files[0] == files[1]
    assert "RESTART" in files[0]


@pytest.mark.parametrize("way", ["SIGTERM", "SIGINT", "EXIT"])
def test_a_soft_exit_leaves_a_restart_and_status_0(tmp_path: Path, way: str) -> None:
    process = start([*OURS, "input.xml"], tmp_path, FOREVER)
    deadline = time.monotonic() + 60
    while not (tmp_path / "md.chk").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    if way == "EXIT":
        (tmp_path / "EXIT").touch()
    else:
        process.send_signal(getattr(signal, way))
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, ""), out
    assert "</simulation>" in (tmp_path / "RESTART").read_text()


def test_the_prefix_of_sockets(tmp_path: Path) -> None:
    text = SOCKET.replace("NAME", "here")
    process = start([*OURS, "-S", f"{tmp_path}/prefix_", "input.xml"], tmp_path, text)
    deadline = time.monotonic() + 60
    while not (tmp_path / "prefix_here").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (tmp_path / "prefix_here").is_socket()
    process.kill()
    process.communicate(timeout=60)


THREAD = {"module": "interfaces.sockets", "owner": "InterfaceSocket", "name": "poll"}
WRITE = {"module": "engine.outputs", "owner": "CheckpointOutput", "name": "write"}
FULL = "OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))"


@pytest.mark.parametrize(
    ("place", "error", "code"),
    [
        (THREAD, "ConnectionResetError(errno.ECONNRESET, 'reset')", ExitCode.EXCHANGE_BROKEN),
        (THREAD, FULL, ExitCode.DISK_FULL),
        (WRITE, FULL, ExitCode.DISK_FULL),
        (WRITE, "RuntimeError('nobody expects this')", ExitCode.UNEXPECTED),
    ],
)
def test_a_fault_has_a_status_of_its_own(
    tmp_path: Path, place: dict[str, str], error: str, code: ExitCode
) -> None:
    """i-PI would wait for ever for a thread that has died."""
    text = SOCKET.replace("NAME", f"dmts_{os.getpid()}") if place is THREAD else STOCK
    script = BROKEN.format(**place, error=error)
    process = start([sys.executable, "-c", script], tmp_path, text)
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, out + err
    if place is THREAD:
        assert "Traceback" in err
        assert f"dmts-ipi i-pi: error: {code.meaning}" in err
        assert "</simulation>" in (tmp_path / "RESTART").read_text()
    elif code == ExitCode.DISK_FULL:
        assert (
            err.strip().splitlines()[-1].startswith("dmts-ipi i-pi: error: disk full: [Errno 28]")
        )
