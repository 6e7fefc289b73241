"""Many independent command lines through Parsl: on this machine, or on a SLURM cluster.

Every task is a process with a log of its own, and goes on where it was when it is given again, so
nothing is kept here between calls. Parsl comes with ``pip install 'dmts-ipi[parallel]'``.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from .config import StrictModel, parse, read_yaml
from .errors import InputError, MissingPackage

PR_SET_PDEATHSIG = 1
STOP_LIMIT_S = 60.0
TICK_S = 1.0
DIED = 4  # exit status that stands for a task without one: it was killed, or its worker was lost
INTERRUPTED, TERMINATED = 130, 143


class TasksConfig(StrictModel):
    """Where tasks run: a YAML file for ``--tasks``. ``docs/clusters.md`` explains the fields.

    ``local``: processes of this machine. ``slurm``: Parsl submits jobs (blocks) with ``sbatch``
    from this machine, which has to stay until all is done, and runs tasks inside them.
    """

    provider: Literal["local", "slurm"] = "local"
    parallel: int = Field(default=1, ge=1)  # tasks at a time: in all, or with slurm on each node
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    walltime: str = Field(default="24:00:00", pattern=r"^\d+:\d\d:\d\d$")  # of a job
    jobs: int = Field(default=1, ge=1)  # SLURM jobs at a time
    nodes_per_job: int = Field(default=1, ge=1)
    cores_per_node: int | None = Field(default=None, ge=1)
    gpus_per_node: int = Field(default=0, ge=0)  # each task sees one: CUDA_VISIBLE_DEVICES
    sbatch_options: str = ""  # further words, such as --gres=gpu:2 --mem=32G
    worker_init: str = ""  # shell lines before the tasks, such as: source /path/.venv/bin/activate
    address: str | None = None  # of this machine as the nodes see it; null: they try all it has

    @model_validator(mode="after")
    def _of_slurm(self) -> TasksConfig:
        if self.provider == "local":
            fields = type(self).model_fields
            for name in self.model_fields_set - {"provider", "parallel"}:
                if getattr(self, name) != fields[name].default:
                    raise ValueError(f"{name} is only allowed with provider slurm")
        if self.gpus_per_node and self.parallel > self.gpus_per_node:
            raise ValueError("parallel must not exceed gpus_per_node: tasks would share a GPU")
        return self


@dataclass(frozen=True)
class Task:
    """A command line. ``name`` is for people; its output is appended to ``log``."""

    name: str
    words: Sequence[str]
    log: Path


class Stopped(BaseException):
    """SIGTERM."""


def read_tasks_config(file: Path | None, parallel: int | None) -> TasksConfig:
    """The configuration of ``--tasks FILE`` and ``--parallel N``, which wins.

    Raises:
        InputError: a field is unknown or wrong.
    """
    if parallel is not None and parallel < 1:
        raise InputError("parallel", parallel, "must be 1 or more")
    config = TasksConfig() if file is None else read_yaml(TasksConfig, file)
    if parallel is None:
        return config
    return parse(TasksConfig, {**config.model_dump(), "parallel": parallel}, "option")


def run_tasks(
    tasks: Sequence[Task],
    config: TasksConfig,
    folder: Path,
    ended: Callable[[Task, int], None] = lambda task, status: None,
    tick: Callable[[int], None] = lambda left: None,
) -> dict[str, int]:
    """Runs all tasks; a task that fails does not end the others.

    On SIGTERM and Ctrl-C the tasks are stopped by SIGTERM and waited for.

    Args:
        tasks: of different names.
        config: where.
        folder: for Parsl's own files.
        ended: is told of each task's end, with its exit status.
        tick: is called about once a second with the number of tasks that have not ended.

    Returns:
        Exit status of each task by name.

    Raises:
        MissingPackage: Parsl is not installed.
        KeyboardInterrupt: Ctrl-C.
        Stopped: SIGTERM.
    """
    kernel, python_app = _kernel(config, folder)
    app = python_app(run_one, data_flow_kernel=kernel)
    statuses: dict[str, int] = {}
    _closing.clear()  # set from a stop until Parsl has ended: its threads take what waits till then
    with _terminable(), kernel:
        left: dict[Future[int], Task] = {}
        try:
            for task in tasks:
                left[app(list(task.words), str(task.log.resolve()), os.getcwd())] = task
            while left:
                done, _ = wait(left, TICK_S, FIRST_COMPLETED)
                for future in done:
                    task = left.pop(future)
                    statuses[task.name] = DIED if future.exception() else future.result()
                    ended(task, statuses[task.name])
                tick(len(left))
        except BaseException:
            _closing.set()
            stop_all()
            raise
    return statuses


_running: set[subprocess.Popen[bytes]] = set()
_lock = threading.Lock()
_closing = threading.Event()  # what waits for its turn is not started any more


def run_one(words: list[str], log: str, folder: str) -> int:
    """One task, to its end; returns its exit status. Runs in a worker of Parsl."""
    with open(log, "ab") as stream, _lock:
        if _closing.is_set():
            return TERMINATED
        process = subprocess.Popen(
            words,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_parent() if sys.platform.startswith("linux") else None,
        )
        _running.add(process)
    try:
        status = process.wait()
    finally:
        with _lock:
            _running.discard(process)
    return status if status >= 0 else 128 - status


def run_here(words: Sequence[str]) -> tuple[int, str]:
    """Runs a command line to its end; what it writes to stderr is seen at once.

    On Ctrl-C and SIGTERM it is stopped by SIGTERM and waited for.

    Returns:
        Its exit status (128 and more: a signal) and what it wrote to stdout.

    Raises:
        KeyboardInterrupt: Ctrl-C.
        Stopped: SIGTERM.
    """
    process = subprocess.Popen(
        list(words),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C comes from us, once
        preexec_fn=_end_with_parent() if sys.platform.startswith("linux") else None,
    )
    with _terminable():
        try:
            output = process.communicate()[0]
        except BaseException:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            raise
    status = process.returncode
    return (status if status >= 0 else 128 - status), output


def _end_with_parent() -> Callable[[], None]:
    """Before exec: the kernel is asked for a SIGTERM when the worker dies, which stops cleanly."""
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def stop_all() -> None:
    """SIGTERM to the tasks of this process, then, after a minute, SIGKILL."""
    with _lock:
        processes = list(_running)
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
    for process in processes:
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM raises ``Stopped`` in here; elsewhere than in the main thread nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: object) -> None:
        raise Stopped

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _kernel(config: TasksConfig, folder: Path) -> tuple[Any, Any]:
    """Parsl's engine, and what makes an app of a function."""
    try:
        from parsl import python_app
        from parsl.config import Config
        from parsl.dataflow.dflow import DataFlowKernel
    except ImportError as error:
        raise MissingPackage("parallel", "parsl", error) from error
    settings = Config(
        executors=[slurm_executor(config) if config.provider == "slurm" else _local(config)],
        run_dir=str(folder),
        strategy="simple" if config.provider == "slurm" else "none",
        max_idletime=30.0,
        initialize_logging=False,
    )
    try:
        return DataFlowKernel(settings), python_app
    except OSError as error:
        raise InputError("folder", folder, f"{error.strerror}") from error


def _local(config: TasksConfig) -> Any:
    """Threads that do nothing but wait for the process of their task."""
    from parsl.executors import ThreadPoolExecutor

    return ThreadPoolExecutor(label="local", max_threads=config.parallel)


def slurm_executor(config: TasksConfig) -> Any:
    """Workers inside SLURM jobs; what they say to us is encrypted (CURVE)."""
    from parsl.executors import HighThroughputExecutor
    from parsl.launchers import SrunLauncher
    from parsl.providers import SlurmProvider

    words = shlex.split(config.sbatch_options)
    optional = {
        name: value
        for name in ("partition", "account", "qos", "constraint")
        if (value := getattr(config, name)) is not None
    }
    provider = SlurmProvider(
        **optional,
        nodes_per_block=config.nodes_per_job,
        cores_per_node=config.cores_per_node,
        init_blocks=1,
        min_blocks=0,
        max_blocks=config.jobs,
        walltime=config.walltime,
        scheduler_options="\n".join(f"#SBATCH {word}" for word in words),
        worker_init=config.worker_init,
        launcher=SrunLauncher(),
        exclusive=False,
    )
    return HighThroughputExecutor(
        label="slurm",
        provider=provider,
        address=config.address,
        max_workers_per_node=config.parallel,
        available_accelerators=config.gpus_per_node,
        encrypted=True,
    )
