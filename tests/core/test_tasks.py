"""Many command lines by Parsl: local processes, ``run A B``, ``label --shards``, wrong input."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.io import write

from dmts_ipi.core import tasks as tasks_module
from dmts_ipi.core.errors import InputError
from dmts_ipi.core.frames import read_frames
from dmts_ipi.core.tasks import DIED, Task, TasksConfig, read_tasks_config, run_tasks
from run_tools import alive, call, direct, environment, make, summary, until
from toy_water import toy_box

pytest.importorskip("parsl", reason="needs Parsl: pip install 'dmts-ipi[parallel]'")
pytestmark = pytest.mark.timeout(1800)  # whole runs: a loaded machine takes its time
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def shell(folder: Path, name: str, line: str) -> Task:
    return Task(name, ["sh", "-c", line], folder / f"{name}.log")


def test_tasks_run_beside_each_other_and_fail_alone(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    line = f"echo begin >> {marks}; echo hello; sleep 0.1; echo end >> {marks}"
    todo = [shell(tmp_path, f"t{k}", line) for k in range(4)]
    todo += [shell(tmp_path, "bad", "exit 3"), shell(tmp_path, "killed", "kill -9 $$")]
    seen: dict[str, int] = {}
    left: list[int] = []
    found = run_tasks(
        todo,
        TasksConfig(parallel=2),
        tmp_path / "parsl",
        lambda task, status: seen.update({task.name: status}),
        left.append,
    )
    assert found == {**{f"t{k}": 0 for k in range(4)}, "bad": 3, "killed": 137}
    assert seen == found
    assert left[-1] == 0
    assert (tmp_path / "t2.log").read_text() == "hello\n"
    depth = np.cumsum([1 if mark == "begin" else -1 for mark in marks.read_text().split()])
    assert depth.max() <= 2


def test_a_task_that_cannot_start_is_a_failed_one(tmp_path: Path) -> None:
    todo = [Task("none", ["/no/such/program"], tmp_path / "none.log")]
    assert run_tasks(todo, TasksConfig(), tmp_path / "parsl") == {"none": DIED}


PARENT = """
import sys
from pathlib import Path
from dmts_ipi.core.tasks import Stopped, Task, TasksConfig, run_tasks
here = Path(sys.argv[1])
line = f"trap 'echo clean > {here}/$0; exit 0' TERM; echo $$ > {here}/$0.pid; "
line += "while :; do sleep 0.1; done"
todo = [Task(n, ["sh", "-c", line, n], here / f"{n}.log") for n in ("a", "b", "waits")]
try:
    run_tasks(todo, TasksConfig(parallel=2), here / "parsl")
except Stopped:
    sys.exit(143)
"""


@linux
def test_sigterm_stops_the_tasks_cleanly(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], env=environment(), stderr=subprocess.PIPE
    )
    until(lambda: all((tmp_path / f"{n}.pid").is_file() for n in "ab"), 600)
    until(lambda: all((tmp_path / f"{n}.pid").read_text().strip() for n in "ab"), 600)
    pids = [int((tmp_path / f"{n}.pid").read_text()) for n in "ab"]
    parent.terminate()
    _, err = parent.communicate(timeout=600)
    assert parent.returncode == 143, err
    assert [(tmp_path / n).read_text() for n in "ab"] == ["clean\n"] * 2
    assert not any(alive(pid) for pid in pids)
    assert not (tmp_path / "waits.pid").exists()  # what waited for its turn was not started


def test_what_waits_is_not_started_while_all_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However late Parsl's threads come to it: as where a process is gone before its own thread
    has seen that."""
    mark = tmp_path / "mark"
    first = shell(tmp_path, "first", "exec sleep 600")
    todo = [first, *(shell(tmp_path, f"t{k}", f"echo >> {mark}") for k in range(3))]

    def interrupt(left: int) -> None:
        if tasks_module._running:
            raise KeyboardInterrupt

    def without_waiting() -> None:
        for process in list(tasks_module._running):
            process.terminate()

    monkeypatch.setattr(tasks_module, "stop_all", without_waiting)
    with pytest.raises(KeyboardInterrupt):
        run_tasks(todo, TasksConfig(), tmp_path / "parsl", tick=interrupt)
    assert not mark.exists()


@linux
def test_tasks_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], env=environment())
    until(lambda: all((tmp_path / f"{n}.pid").is_file() for n in "ab"), 600)
    until(lambda: all((tmp_path / f"{n}.pid").read_text().strip() for n in "ab"), 600)
    pids = [int((tmp_path / f"{n}.pid").read_text()) for n in "ab"]
    parent.kill()
    parent.wait(60)
    until(lambda: not any(alive(pid) for pid in pids), 600)
    assert (tmp_path / "a").read_text() == "clean\n"


@linux
def test_replicas(tmp_path: Path) -> None:
    folders = [direct(make(tmp_path / n, "--no-model-check", "--time-ps", 0.04)) for n in "ab"]
    done = call("run", *folders, "--parallel", 2, "--time-ps", 0.06)
    assert done.returncode == 0, done.stderr
    assert [summary(folder)["outer_steps"] for folder in folders] == [15, 15]
    assert f"{folders[0]}: done: {folders[0]}: finished; 0.06 ps" in done.stderr
    (folders[1] / "input.xml").write_text("<simulation>")
    done = call("run", *folders, "--parallel", 2)
    assert done.returncode == 2  # before anything is started
    assert done.stderr.count("\n") == 1
    done = call("run", folders[0], tmp_path / "b" / ".." / "a")
    assert done.returncode == 2
    assert "is named twice" in done.stderr


@linux
def test_a_replica_that_fails_is_named(tmp_path: Path) -> None:
    good, bad = (direct(make(tmp_path / n, "--no-model-check", "--time-ps", 0.02)) for n in "ab")
    text = (bad / "input.xml").read_text()
    (bad / "input.xml").write_text(text.replace("{k: 0.02}", "{k: 0.02, fault: invalid, at: 2}"))
    done = call("run", good, bad, "--parallel", 2, "--no-watchdog")
    assert done.returncode == 4
    assert done.stderr.splitlines()[-1] == (
        f"dmts-ipi run: error: 1 of 2 did not finish: {bad}; see their logs"
    )
    assert summary(good)["exit"] == "finished"


def test_all_shards_are_the_whole(tmp_path: Path) -> None:
    box = tmp_path / "box.extxyz"
    write(box, toy_box())
    words = ("label", "--teacher", "ase:toy_water.ToyWater", "--structure", box)
    words += ("--time-ps", 0.02, "--equilibrate-ps", 0, "--every-fs", 10)
    done = call(*words, "--out", tmp_path / "whole.extxyz")
    assert done.returncode == 0, done.stderr
    done = call(*words, "--out", tmp_path / "part.extxyz", "--shards", 2, "--parallel", 2)
    assert done.returncode == 0, done.stderr
    parts = [tmp_path / f"part-{k}of2.extxyz" for k in (1, 2)]
    assert done.stdout == f"labels: {parts[0]} {parts[1]}\n"
    found = [f for part in parts for f in read_frames(part, ":")]
    whole = read_frames(tmp_path / "whole.extxyz", ":")
    assert len(found) == len(whole) > 3
    for a, b in zip(found, whole, strict=True):
        np.testing.assert_allclose(a.positions, b.positions, rtol=0, atol=1e-8)
    assert "frames labelled by" in (tmp_path / "part-1of2.extxyz.log").read_text()


def test_wrong_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "tasks.yaml"
    for text, line in (
        ("jobs: 4", "jobs is only allowed with provider slurm"),
        ("provider: pbs", "input should be 'local' or 'slurm'"),
        ("partitoin: gpu", "unknown field; did you mean partition?"),
        ("provider: slurm\nwalltime: 1 day", "walltime"),
        ("provider: slurm\ngpus_per_node: 1\nparallel: 2", "tasks would share a GPU"),
    ):
        file.write_text(text + "\n")
        with pytest.raises(InputError, match=line):
            read_tasks_config(file, None)
    with pytest.raises(InputError, match="parallel = 0: must be 1 or more"):
        read_tasks_config(None, 0)
    file.write_text("provider: slurm\nparallel: 4\n")
    assert read_tasks_config(file, 2).parallel == 2
    file.write_text("provider: slurm\ngpus_per_node: 1\n")
    with pytest.raises(InputError, match="tasks would share a GPU"):
        read_tasks_config(file, 2)
    base = ("label", "--teacher", "x", "--structure", "y", "--out", tmp_path / "l.extxyz")
    for words in (("--parallel", 2), ("--shards", 0), ("--shards", 2, "--shard", "1/2")):
        done = call(*base, *words)
        assert done.returncode == 2
        assert "give --shards N instead of --shard" in done.stderr
    monkeypatch.setitem(sys.modules, "parsl", None)
    done = call(*base, "--shards", 2)
    assert done.returncode == 2
    assert "package 'parsl' is missing" in done.stderr
    assert "pip install 'dmts-ipi[parallel]'" in done.stderr


def test_jobs_of_slurm_are_described_as_asked() -> None:
    config = TasksConfig(
        provider="slurm",
        parallel=2,
        partition="gpu",
        jobs=3,
        gpus_per_node=2,
        cores_per_node=16,
        walltime="12:00:00",
        sbatch_options="--mem=32G --gres=gpu:2",
        worker_init="source env",
    )
    executor = tasks_module.slurm_executor(config)
    provider = executor.provider
    assert (provider.partition, provider.walltime, provider.max_blocks) == ("gpu", "12:00:00", 3)
    assert "#SBATCH --mem=32G\n#SBATCH --gres=gpu:2" in provider.scheduler_options
    assert executor.max_workers_per_node == 2
    assert list(executor.available_accelerators) == ["0", "1"]
    assert executor.encrypted
