"""The SLURM script under a stand-in ``scontrol``: time limit, requeue, array, wrong input."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from run_tools import TESTS, direct, environment, lines, make, summary, until

SCRIPT = TESTS.parent / "run_scripts" / "slurm.sh"
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a cluster runs Linux")


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, str]:
    """Environment of a job: ``dmts-ipi`` of this Python, and a ``scontrol`` that takes notes."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, body in (
        ("scontrol", f'echo "$@" >> {tmp_path}/scontrol.log'),
        ("dmts-ipi", f'exec {sys.executable} -m dmts_ipi.cli "$@"'),
    ):
        (tools / name).write_text(f"#!/bin/sh\n{body}\n")
        (tools / name).chmod(0o755)
    path = f"{tools}:{os.environ['PATH']}"
    return {**environment(), "PATH": path, "SLURM_JOB_ID": "42", "DMTS_VENV": str(tmp_path)}


def job(env: dict[str, str], *folders: object) -> subprocess.Popen[str]:
    """What SLURM starts."""
    return subprocess.Popen(
        ["bash", str(SCRIPT), *map(str, folders)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=env,
    )


@linux
def test_a_job_stops_before_its_limit_is_queued_again_and_goes_on(
    cluster: dict[str, str], tmp_path: Path
) -> None:
    folder = direct(make(tmp_path / "run", "--no-model-check"))
    text = (folder / "input.xml").read_text()
    (folder / "input.xml").write_text(text.replace("{k: 0.02}", "{k: 0.02, delay_s: 0.05}"))
    first = job({**cluster, "SLURM_ARRAY_TASK_ID": "1"}, "not-this-one", folder)
    until(lambda: lines(folder) > 4)
    first.send_signal(signal.SIGTERM)  # --signal=B:TERM@180
    output, _ = first.communicate(timeout=200)
    assert first.returncode == 0, output
    assert "is not finished: job 42 is queued again" in output
    assert (tmp_path / "scontrol.log").read_text() == "requeue 42\n"
    assert summary(folder)["exit"] == "terminated"
    (folder / "input.xml").write_text(text)
    second = job(cluster, folder)
    output, _ = second.communicate(timeout=200)
    assert second.returncode == 0, output
    assert "resumes at step" in output
    assert summary(folder)["outer_steps"] == 100
    assert (tmp_path / "scontrol.log").read_text().count("requeue") == 1


@pytest.mark.parametrize(
    ("folders", "index", "words"),
    [
        ([], "0", "give a run folder"),
        (["a", "b"], "2", "array index 2: only 2 folders are given (0 to 1)"),
        (["nothing-here"], "0", "has no run.yaml; make it with `dmts-ipi init`"),
    ],
)
def test_wrong_input(cluster: dict[str, str], folders: list[str], index: str, words: str) -> None:
    done = job({**cluster, "SLURM_ARRAY_TASK_ID": index}, *folders)
    output, _ = done.communicate(timeout=100)
    assert done.returncode == 2
    assert words in output
    assert output.count("\n") == 1
