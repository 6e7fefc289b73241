"""``dmts-ipi run FOLDER``: starts i-PI and the drivers, shows progress, resumes."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from types import TracebackType
from typing import Any

from dmts_ipi.ipi.folder import RunFolder
from dmts_ipi.ipi.session import Outcome, run_session
from dmts_ipi.ipi.supervise import Hooks
from dmts_ipi.ipi.watch import Limits, Progress

from .guarding import guarded


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.epilog = (
        "Exit status: 0 finished; 2 wrong input, nothing was started; 3 stopped by a limit of "
        "the watchdog or the file EXIT; 4 a fault that needs a person; 130 Ctrl-C and 143 SIGTERM, "
        "after a clean stop. A run that ended early goes on where it was. Section watchdog of "
        "run.yaml sets what counts as wrong."
    )
    parser.add_argument("folder", help="run folder made by `dmts-ipi init`")
    parser.add_argument(
        "--time-ps", type=float, default=None, help="new length of the run, ps; extends it"
    )
    parser.add_argument(
        "--report-every-s", type=float, default=10.0, help="between lines without a terminal, s"
    )
    limits = Limits()
    parser.add_argument(
        "--startup-limit-s", type=float, default=limits.startup_s, help="wait for the first step, s"
    )
    parser.add_argument(
        "--stall-limit-s",
        type=float,
        default=limits.stall_s,
        help="longest wait for news, s; None: 60, and 30 times the longest wait so far",
    )
    parser.add_argument(
        "--no-watchdog",
        action="store_true",
        help="the first thing that goes wrong ends the run: no rewinds, no restarts",
    )
    parser.add_argument(
        "--min-free-MB", type=float, default=limits.free_MB, help="stops below this room, MB"
    )
    parser.add_argument("--json", action="store_true", help="print summary.json at the end")


def run(args: argparse.Namespace) -> int:
    """Runs a folder; returns the exit status."""
    folder = RunFolder(args.folder)
    stall_s = args.stall_limit_s or folder.config.watchdog.stall_limit_s
    limits = Limits(args.startup_limit_s, stall_s, args.min_free_MB)
    display: _Lines | _Bar = (
        _Bar() if sys.stderr.isatty() and not args.json else _Lines(args.report_every_s)
    )
    with display:
        hooks = Hooks(say=display.say, progress=display.show)
        guard = None if args.no_watchdog else guarded
        outcome = run_session(folder, hooks, limits, args.time_ps, guard)
    _tell(outcome, args.folder, args.json)
    return outcome.status


def _tell(outcome: Outcome, folder: str, as_json: bool) -> None:
    """The result on stdout; a fault, after the ends of the logs, on stderr."""
    for name, lines in outcome.tails.items():
        for line in lines:
            print(f"  {name}: {line}", file=sys.stderr)
    if as_json:
        print(json.dumps(_finite(outcome.summary), indent=1))
    kind, _, what = outcome.exit.partition(": ")
    if kind in ("fault", "stopped"):
        print(f"dmts-ipi run: error: {folder}: {what}", file=sys.stderr)
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
