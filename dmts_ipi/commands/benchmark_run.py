"""Runs the cells of a benchmark by turns, as ``init`` and ``run`` would."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from dmts_ipi.analysis.bench.cell import Cell, Result, ended_for_good, read_result
from dmts_ipi.core.errors import DmtsError, InputError
from dmts_ipi.ipi.run_folder.folder import CONFIG, RunFolder
from dmts_ipi.ipi.session.session import Hooks, run_session
from dmts_ipi.ipi.session.watch import Limits, Progress

from . import init
from .benchmark_plan import Plan
from .build_watchdog import guarded
from .run import figures

Say = Callable[[str], None]
SIGNALLED = (130, 143)


class Interrupted(Exception):
    """Ctrl-C or SIGTERM, after a clean stop; ``status`` is the exit status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def run_cells(plan: Plan, cells: Sequence[Cell], say: Say, every_s: float = 10.0) -> None:
    """Takes every cell a round further, then the next round, until all are done.

    Round after round all integrators of all systems take their turn, so that what else the machine
    does falls on all alike. What is done already is not done again.

    Raises:
        Interrupted: by a signal; the next call goes on.
        InputError: a folder cannot be made.
    """
    rounds = max((c.rounds for c in cells), default=0)
    ended: set[str] = set()
    for turn in range(rounds):
        for number, cell in enumerate(cells, 1):
            if cell.name in ended or turn >= cell.rounds:
                continue
            target = cell.time_ps * (turn + 1) / cell.rounds
            before = read_exit(cell)
            if ended_for_good(before):
                ended.add(cell.name)
                continue
            if before == "finished" and reached_ps(cell) >= target - 1e-6:
                continue
            say(f"round {turn + 1}/{rounds}, run {number}/{len(cells)}: {cell.name} "
                f"to {target:g} ps")  # fmt: skip
            if not _turn(plan, cell, target, say, every_s):
                ended.add(cell.name)


def _turn(plan: Plan, cell: Cell, target_ps: float, say: Say, every_s: float) -> bool:
    """One turn of a cell; whether it may have another."""
    if not (cell.folder / CONFIG).is_file():
        atoms = plan.structures[cell.system]
        init.create(cell.folder, plan.configs[cell.name], atoms, True, no_model_check=True)
    hooks = Hooks(say=say, progress=_Lines(cell.name, say, every_s))
    try:
        outcome = run_session(RunFolder(cell.folder), hooks, Limits(), target_ps, guarded)
    except DmtsError as error:
        if isinstance(error, InputError):
            raise
        say(f"{cell.name}: {error}")
        return False
    if outcome.status in SIGNALLED:
        raise Interrupted(outcome.status)
    if outcome.status:
        say(f"{cell.name}: {outcome.exit}")
        for name, lines in outcome.tails.items():
            for line in lines[-3:]:
                say(f"  {name}: {line}")
    return outcome.status == 0


class _Lines:
    """Progress of a run as a line now and then."""

    def __init__(self, name: str, say: Say, every_s: float) -> None:
        self.name, self.say, self.every_s = name, say, every_s
        self._last = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._last >= self.every_s:
            self._last = now
            self.say(f"  {figures(progress)}")


def read_exit(cell: Cell) -> str:
    """How the last session of a cell ended; empty before one has."""
    if not (cell.folder / CONFIG).is_file():
        return ""
    return str((RunFolder(cell.folder).summary() or {}).get("exit", ""))


def reached_ps(cell: Cell) -> float:
    """How far a cell is, by its summary; 0 before a session has ended."""
    if not (cell.folder / CONFIG).is_file():
        return 0.0
    return float((RunFolder(cell.folder).summary() or {}).get("time_ps") or 0.0)


def read_results(cells: Sequence[Cell], say: Say) -> list[Result]:
    """Measures every cell that has begun."""
    results, spoke = [], time.monotonic()
    for number, cell in enumerate(cells, 1):
        if time.monotonic() - spoke > 5.0:
            spoke = time.monotonic()
            say(f"reading {number}/{len(cells)}: {cell.name}")
        results.append(read_result(cell))
    return results


def make_out(out: Path) -> None:
    """Makes the folder of a benchmark.

    Raises:
        InputError: it cannot be written.
    """
    try:
        (out / "runs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError("out", out, f"{error.strerror}") from error
