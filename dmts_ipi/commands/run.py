"""``dmts-ipi run FOLDER``: starts i-PI and the drivers, shows progress, resumes."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.levels import STUDENT, TEACHER
from dmts_ipi.core.tasks import Task
from dmts_ipi.ipi.run_folder.folder import LOGS, NetworkSettings, RunFolder, RunSettings
from dmts_ipi.ipi.session.session import Outcome, run_session
from dmts_ipi.ipi.session.supervise import Hooks
from dmts_ipi.ipi.session.watch import Progress

from . import many
from .build_watchdog import add_limits, guarded, limits_of


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.epilog = (
        "Exit status: 0 finished; 2 wrong input, nothing was started; 3 stopped by a limit of "
        "the watchdog or the file EXIT; 4 a fault that needs a person; 130 Ctrl-C and 143 SIGTERM, "
        "after a clean stop. A run that ended early continues from its last good state. The "
        "limits of the watchdog are set in section watchdog of run.yaml."
    )
    parser.add_argument(
        "folder",
        nargs="+",
        help="run folder made by `dmts-ipi init`; several folders (replicas) are run as tasks",
    )
    parser.add_argument(
        "--time-ps", type=float, default=None, help="new total length of the run, ps, to extend it"
    )
    parser.add_argument(
        "--no-watchdog",
        action="store_true",
        help="no rewinds and no restarts: the run ends when anything goes wrong",
    )
    add_limits(parser)
    nodes = parser.add_argument_group("several nodes, for this session only (docs/clusters.md)")
    nodes.add_argument(
        "--network",
        metavar="ADDRESS",
        default=None,
        help="use TCP instead of unix sockets: auto, or an interface (ib0), host name or address "
        "of this node (default: the setting in run.yaml)",
    )
    nodes.add_argument(
        "--launch",
        metavar="NAME=WORDS",
        action="append",
        help="command that launches the driver of a model, such as teacher='srun --nodes=1 "
        "--ntasks=1 --relative=1'; may be given for every model",
    )
    for name in (TEACHER, STUDENT):
        nodes.add_argument(
            f"--launch-{name}",
            metavar="WORDS",
            default=None,
            help=f"the same as --launch {name}=WORDS (default: the setting in run.yaml)",
        )
    parser.add_argument(
        "--no-patches",
        metavar="NAMES",
        default=None,
        help="accelerations of i-PI that are off in this session: names as in `dmts-ipi i-pi "
        "--help`, or all (default: the setting in run.yaml)",
    )
    many.add_options(parser, "runs")
    parser.add_argument("--json", action="store_true", help="print summary.json at the end")


def run(args: argparse.Namespace) -> int:
    """Runs a folder, or several; returns the exit status."""
    if len(args.folder) > 1 or args.tasks is not None:
        return _run_many(args)
    args.folder = args.folder[0]
    folder = RunFolder(args.folder)
    limits = limits_of(args, folder.settings.watchdog)
    with display(args.report_every_s, args.json) as shown:
        hooks = Hooks(say=shown.say, progress=shown.show)
        guard = None if args.no_watchdog else guarded
        adapt = partial(_adapted, args)
        outcome = run_session(folder, hooks, limits, args.time_ps, guard, adapt)
    tell("run", outcome, args.folder, args.json)
    return outcome.status


PASSED = (
    *("time_ps", "startup_limit_s", "stall_limit_s", "min_free_MB"),
    *("network", "no_patches", "launch_teacher", "launch_student"),
)


def _run_many(args: argparse.Namespace) -> int:
    """Every folder by a ``dmts-ipi run`` of its own.

    Raises:
        InputError: a folder is none, or named twice; nothing has been started then.
    """
    config = many.config_of(args)
    folders = [Path(folder) for folder in args.folder]
    options = ["--report-every-s", args.report_every_s, *["--no-watchdog"] * args.no_watchdog]
    for name in PASSED:
        if (value := getattr(args, name)) is not None:
            options.append(f"--{name.replace('_', '-')}={value}")
    options += [f"--launch={text}" for text in args.launch or ()]
    for folder in folders:
        RunFolder(folder).spec()
        if sum(folder.resolve() == other.resolve() for other in folders) > 1:
            raise InputError("folder", folder, "is named twice; name every run once")
    tasks = []
    for folder in folders:
        (folder / LOGS).mkdir(exist_ok=True)
        words = many.ours("run", folder, *options)
        tasks.append(Task(str(folder), words, folder / LOGS / "run.log"))
    work = folders[0].resolve().parent / ".parsl"
    try:
        return many.run_all("run", tasks, config, work, max(args.report_every_s, 1.0))
    finally:
        if args.json:
            summaries = {str(folder): RunFolder(folder).summary() for folder in folders}
            print(json.dumps(_finite(summaries), indent=1))


def _adapted(args: argparse.Namespace, settings: RunSettings) -> RunSettings:
    """The run as this session starts it; ``run.yaml`` stays as it is.

    Raises:
        InputError: ``--launch`` names no model of the run.
    """
    changed: dict[str, Any] = {}
    if args.network is not None:
        changed["network"] = NetworkSettings(address=args.network)
    if args.no_patches is not None:
        changed["no_patches"] = args.no_patches
    models = dict(settings.models)
    for name, words in launches(args).items():
        if name not in models:
            known = ", ".join(models)
            raise InputError("launch", name, f"is not a model of this run, which has {known}")
        models[name] = models[name].model_copy(update={"launch": words})
    return settings.model_copy(update={**changed, "models": models})


def launches(args: argparse.Namespace) -> dict[str, str]:
    """Words before the drivers' commands, by model.

    Raises:
        InputError: ``--launch`` is not NAME=WORDS.
    """
    given = {}
    for text in args.launch or ():
        name, equals, words = text.partition("=")
        if not (name.strip() and equals):
            raise InputError("launch", text, "must be NAME=WORDS, such as teacher='srun --nodes=1'")
        given[name.strip()] = words
    for name in (TEACHER, STUDENT):
        if (words := getattr(args, f"launch_{name}")) is not None:
            given[name] = words
    return given


def display(every_s: float, as_json: bool) -> _Lines | _Bar:
    """What shows the progress: one line that changes in a terminal, else a line now and then."""
    return _Bar() if sys.stderr.isatty() and not as_json else _Lines(every_s)


def tell(command: str, outcome: Outcome, folder: str, as_json: bool) -> None:
    """The result on stdout; a fault, after the ends of the logs, on stderr."""
    for name, lines in outcome.tails.items():
        for line in lines:
            print(f"  {name}: {line}", file=sys.stderr)
    if as_json:
        print(json.dumps(_finite(outcome.summary), indent=1))
    kind, _, what = outcome.exit.partition(": ")
    if kind in ("fault", "stopped"):
        print(f"dmts-ipi {command}: error: {folder}: {what}", file=sys.stderr)
    elif not as_json:
        print(f"{folder}: {outcome.exit}; {describe(outcome.summary)}")


def describe(summary: dict[str, Any]) -> str:
    """One line of a summary."""
    mean, error = summary.get("temperature_mean_K"), summary.get("temperature_stderr_K")
    parts = [f"{summary.get('time_ps', 0):g} ps in {summary.get('outer_steps')} outer steps"]
    if mean is not None and math.isfinite(mean):
        known = error is not None and math.isfinite(error)
        parts.append(f"{mean:.1f} K" + (f" +- {error:.1f}" if known else ""))
    speed = summary.get("ns_per_day")
    if speed is not None and math.isfinite(speed):
        parts.append(f"{speed:.3g} ns/day")
    return ", ".join(parts)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def clock(seconds: float) -> str:
    """Wall time for people, such as 1:02:03; ``?`` where unknown."""
    if not math.isfinite(seconds):
        return "?"
    minutes, s = divmod(round(seconds), 60)
    h, m = divmod(minutes, 60)
    return f"{h}:{m:02d}:{s:02d}" if h else f"{m}:{s:02d}"


def figures(p: Progress) -> str:
    """The live figures of a run, in one line."""
    if not math.isfinite(p.temperature_K):
        return "starting: models are loaded"
    return (
        f"step {p.step}/{p.total_steps}  {p.time_ps:.3f} ps  {p.ns_per_day:.3g} ns/day  "
        f"T {p.temperature_K:.0f} K  E {p.potential_eV:.4f} eV  left {clock(p.remaining_s)}"
    ).replace("nan", "?")


class _Lines:
    """Progress as a line now and then, for logs."""

    def __init__(self, every_s: float) -> None:
        self.every_s, self._last = every_s, -math.inf

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *unused: object) -> None:
        return None

    def say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    def show(self, p: Progress) -> None:
        now = time.monotonic()
        if now - self._last >= self.every_s:
            self._last = now
            self.say(figures(p))


class _Bar:
    """Progress as one line that changes, for a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %  {task.description}"),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task("starting", total=None)

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def say(self, line: str) -> None:
        self._bar.console.print(line, highlight=False, soft_wrap=True)

    def show(self, p: Progress) -> None:
        self._bar.update(self._task, total=p.total_steps, completed=p.step, description=figures(p))
