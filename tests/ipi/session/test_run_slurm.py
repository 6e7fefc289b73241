"""The launch scripts: under SLURM, by a stand-in for it, and by hand. Real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmts_ipi.ipi.run_folder.folder import RunFolder
from places import ROOT, SUPPORT
from run_tools import direct, environment, held, lines, make, summary, until

SCRIPTS = ROOT / "run_scripts"
# Whole runs, some of them twice: a loaded machine takes its time.
pytestmark = pytest.mark.timeout(1800)
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a cluster runs Linux")


_started: list[subprocess.Popen[str]] = []


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Environment of a user: SLURM's commands, and ``dmts-ipi`` of this Python."""
    tools = tmp_path / "bin"
    tools.mkdir()
    standin = f"exec {sys.executable} {SUPPORT / 'slurm_standin.py'}"
    commands = {name: f'{standin} {name} "$@"' for name in ("sbatch", "srun", "scontrol")}
    commands["dmts-ipi"] = f'exec {sys.executable} -m dmts_ipi.cli "$@"'
    for name, body in commands.items():
        (tools / name).write_text(f"#!/bin/sh\n{body}\n")
        (tools / name).chmod(0o755)
    path = f"{tools}:{os.environ['PATH']}"
    yield {
        **environment(),
        "PATH": path,
        "SLURM_STANDIN": str(tmp_path),
        "DMTS_VENV": str(tmp_path),
    }
    for process in _started:
        if process.poll() is None:  # a test failed: nothing may stay behind
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(60)
    _started.clear()


def start(env: dict[str, str], *words: object) -> subprocess.Popen[str]:
    """A command, from the repository."""
    process = subprocess.Popen(
        list(map(str, words)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=env,
        cwd=ROOT,
        start_new_session=True,
    )
    _started.append(process)
    return process


def asked(tmp_path: Path) -> list[list[str]]:
    """What was asked of srun and scontrol."""
    file = tmp_path / "slurm.log"
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


@linux
def test_a_job_stops_before_its_limit_is_queued_again_and_goes_on(
    cluster: dict[str, str], tmp_path: Path
) -> None:
    folder = direct(make(tmp_path / "run", "--no-model-check", "--time-ps", 0.2))
    hold = held(folder, at=8)
    job = start(cluster, "sbatch", SCRIPTS / "slurm.sh", folder)
    until(lambda: lines(folder) > 4, 800)
    job.send_signal(signal.SIGUSR1)  # --signal=B:TERM@180
    until(lambda: bool(asked(tmp_path)) or job.poll() is not None, 800)
    hold.unlink()
    output, _ = job.communicate(timeout=800)
    assert job.returncode == 0, output
    assert f"slurm.sh: {folder} is not finished: job 42 is queued again" in output
    assert "resumes at step" in output
    assert asked(tmp_path) == [["scontrol", "requeue", "42"]]
    assert summary(folder)["outer_steps"] == 50
    assert summary(folder)["sessions"] == 2
    assert RunFolder(folder).properties()["step"].tolist() == list(range(0, 51, 2))


@linux
def test_an_array_of_replicas(cluster: dict[str, str], tmp_path: Path) -> None:
    folders = [
        direct(make(tmp_path / name, "--no-model-check", "--time-ps", 0.04)) for name in "ab"
    ]
    job = start(cluster, "sbatch", "--array=0-1", SCRIPTS / "slurm.sh", *folders)
    output, _ = job.communicate(timeout=800)
    assert job.returncode == 0, output
    assert [summary(folder)["exit"] for folder in folders] == ["finished", "finished"]


@linux
def test_drivers_on_other_nodes(cluster: dict[str, str], tmp_path: Path) -> None:
    """By srun over TCP, watched; stops before the limit, and goes on."""
    hold = tmp_path / "hold"
    hold.touch()
    slow = {"strength": 1.0, "delay_s": 0.1, "hold": str(hold), "hold_at": 8}
    teacher = f"ase:run_tools.Pair {json.dumps(slow)}"
    folder = make(tmp_path / "run", "--no-model-check", "--time-ps", 0.2, "--teacher", teacher)
    env = {**cluster, "DMTS_NETWORK": "127.0.0.1"}
    words = (SCRIPTS / "slurm_nodes.sh", folder, "--", "--report-every-s", 1)
    job = start(env, "sbatch", *words)
    until(lambda: lines(folder) > 4, 800)
    job.send_signal(signal.SIGUSR1)
    until(lambda: any(w[0] == "scontrol" for w in asked(tmp_path)) or job.poll() is not None, 800)
    hold.unlink()
    output, _ = job.communicate(timeout=800)
    assert job.returncode == 0, output
    assert "is queued again" in output
    assert "resumes at step" in output
    steps = [words for words in asked(tmp_path) if words[0] == "srun"]
    nodes = {(Path(words[3]).name, words[1]) for words in steps}
    assert nodes == {("nnp_driver.py", "1"), ("nc_driver.py", "0")}
    assert len(steps) == 4
    assert all("--network" in words for words in steps)
    assert RunFolder(folder).properties()["step"].tolist() == list(range(0, 51, 2))
    assert summary(folder)["watchdog"]["telemetry"]["pairs"] > 5
    assert (folder / "network").stat().st_mode & 0o777 == 0o700


@linux
def test_three_processes_by_hand(cluster: dict[str, str], tmp_path: Path) -> None:
    folder = make(tmp_path / "run", "--no-model-check", "--time-ps", 0.04)
    job = start(cluster, SCRIPTS / "local.sh", folder)
    output, _ = job.communicate(timeout=800)
    assert job.returncode == 0, output
    assert RunFolder(folder).properties()["step"].tolist() == list(range(0, 11, 2))
    assert "ended by SIGTERM" in (folder / "logs" / "student.log").read_text()


@pytest.mark.parametrize(
    ("script", "words", "env", "line"),
    [
        ("slurm.sh", [], {}, "slurm.sh: give a run folder, made by dmts-ipi init"),
        ("slurm.sh", ["--", "--json"], {}, "slurm.sh: give a run folder, made by dmts-ipi init"),
        (
            "slurm.sh",
            ["a", "b"],
            {"SLURM_ARRAY_TASK_ID": "2"},
            "slurm.sh: array index 2: only 2 folders are given (0 to 1)",
        ),
        ("slurm.sh", ["nothing-here"], {}, "has no run.yaml; make it with `dmts-ipi init`"),
        ("slurm_nodes.sh", ["a"], {"SLURM_JOB_NUM_NODES": "1"}, "slurm_nodes.sh: 1 node; submit"),
        (
            "slurm_nodes.sh",
            ["a"],
            {"SLURM_JOB_NUM_NODES": "2", "SLURM_SUBMIT_DIR": "/nowhere"},
            "/nowhere/run_scripts/slurm.sh is not there; set DMTS_SCRIPTS to its folder",
        ),
        ("slurm_nodes.sh", [], {"SLURM_JOB_NUM_NODES": "2"}, "slurm.sh: give a run folder"),
        ("local.sh", [], {}, "local.sh: no folder: give a run folder, made by dmts-ipi init"),
    ],
)
def test_wrong_input(
    cluster: dict[str, str], script: str, words: list[str], env: dict[str, str], line: str
) -> None:
    job = start({**cluster, **env}, "bash", SCRIPTS / script, *words)
    output, _ = job.communicate(timeout=800)
    assert job.returncode == 2
    assert line in output
    assert output.count("\n") == 1


def test_an_option_that_slurm_lacks_is_noticed(cluster: dict[str, str], tmp_path: Path) -> None:
    """So a stand-in that takes everything does not hide a mistake."""
    script = tmp_path / "wrong.sh"
    script.write_text("#!/bin/bash\n#SBATCH --node=2\n")
    job = start(cluster, "sbatch", script)
    output, _ = job.communicate(timeout=100)
    assert job.returncode == 1
    assert "unrecognized option '--node'" in output
