"""Several command lines of ours at once, for ``run A B C`` and ``label --shards N``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from dmts_ipi.core.errors import RunFault
from dmts_ipi.core.tasks import (
    INTERRUPTED,
    TERMINATED,
    Stopped,
    Task,
    TasksConfig,
    read_tasks_config,
    run_tasks,
)

REPORT_EVERY_S = 30.0


def add_options(parser: argparse.ArgumentParser, what: str) -> None:
    """``--parallel`` and ``--tasks``, for commands that have several ``what`` to do."""
    group = parser.add_argument_group(f"several {what} at once (Parsl, docs/clusters.md)")
    group.add_argument(
        "--parallel", type=int, default=None, metavar="N", help=f"{what} at a time; None: 1"
    )
    group.add_argument(
        "--tasks",
        type=Path,
        default=None,
        metavar="YAML",
        help="where they run: this machine, or jobs of SLURM",
    )


def ours(*words: object) -> list[str]:
    """A command line of dmts-ipi, for this Python."""
    return [sys.executable, "-m", "dmts_ipi.cli", *[str(w) for w in words]]


def config_of(args: argparse.Namespace) -> TasksConfig:
    """What ``--parallel`` and ``--tasks`` say.

    Raises:
        InputError: a field is unknown or wrong.
    """
    return read_tasks_config(args.tasks, args.parallel)


def run_all(
    command: str,
    tasks: Sequence[Task],
    config: TasksConfig,
    folder: Path,
    every_s: float = REPORT_EVERY_S,
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> int:
    """Runs tasks and says how they do; returns the exit status: the largest of theirs.

    Args:
        command: name, for messages.
        tasks: of different names.
        config: where.
        folder: for Parsl's own files.
        every_s: between lines of progress.
        say: takes a line.

    Raises:
        MissingPackage: Parsl is not installed.
    """
    statuses: dict[str, int] = {}
    last = time.monotonic()

    def ended(task: Task, status: int) -> None:
        statuses[task.name] = status
        how = "done" if status == 0 else f"exit status {status}"
        say(f"{task.name}: {how}: {last_line(task.log)}")

    def tick(left: int) -> None:
        nonlocal last
        if left and time.monotonic() - last >= every_s:
            last = time.monotonic()
            say(f"{len(statuses)} of {len(tasks)} have ended")

    say(f"{len(tasks)} tasks, {config.parallel} at a time ({config.provider}); logs: NAME.log")
    try:
        run_tasks(tasks, config, folder, ended, tick)
    except KeyboardInterrupt:
        say(f"dmts-ipi {command}: interrupted; the same command goes on")
        return INTERRUPTED
    except Stopped:
        say(f"dmts-ipi {command}: stopped; the same command goes on")
        return TERMINATED
    failed = [name for name, status in statuses.items() if status]
    if failed:
        status = max(statuses.values())
        text = f"{len(failed)} of {len(tasks)} did not finish: {', '.join(failed)}; see their logs"
        error = RunFault(text)
        error.status = status
        raise error
    return 0


def last_line(log: Path) -> str:
    """The last line that a task said, for people."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return "no log"
    return next((line.strip() for line in reversed(lines) if line.strip()), "nothing in its log")
