"""``dmts-ipi status FOLDER``: the state of a run, from its files; the run is not disturbed."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from dmts_ipi.core.files import LIVE, plain, read_record
from dmts_ipi.core.levels import STUDENT, TEACHER
from dmts_ipi.ipi.run_folder.config import beyond_options
from dmts_ipi.ipi.run_folder.folder import BEGUN, RunFolder
from dmts_ipi.ipi.session.lock import LOCK
from dmts_ipi.watchdog.journal import read_events

from .run import clock

LATEST = 8  # events that are shown


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.epilog = "Exit status: 0 the run is alive or finished; 3 it is neither; 2 wrong input."
    parser.add_argument("folder", help="run folder made by `dmts-ipi init`")
    parser.add_argument(
        "--follow",
        action="store_true",
        help="repeat the output every --every-s until the run ends",
    )
    parser.add_argument("--every-s", type=float, default=2.0, help="time between two outputs, s")
    parser.add_argument(
        "--json", action="store_true", help="print JSON, one object for each output"
    )


def run(args: argparse.Namespace) -> int:
    """Shows the state; returns the exit status."""
    folder = RunFolder(args.folder)
    while True:
        state = read_state(folder)
        if args.json:
            print(json.dumps(plain(state)), flush=True)
        else:
            print("\n".join(format_state(state)), flush=True)
        if not (args.follow and state["alive"]):
            return 0 if state["alive"] or state["exit"] == "finished" else 3
        time.sleep(max(args.every_s, 0.1))
        if not args.json:
            print("\033[2J\033[H" if sys.stdout.isatty() else "", end="\n", flush=True)


def read_state(folder: RunFolder) -> dict[str, Any]:
    """State of a run: ``alive``, ``exit`` of its last session, live figures, latest events."""
    live = read_record(folder.path / LIVE)
    running = alive(folder.path)
    summary = folder.summary() or {}
    at = summary.get("watchdog", {}) if not running else {}
    figures = {**live, **(at if isinstance(at, dict) else {})}
    for name in ("limits", "telemetry", "drivers"):
        figures.setdefault(name, {})
    figures.setdefault("comparisons", _of_earlier_version(figures))
    spec = folder.ran_spec()
    events = read_events(folder.path)
    ended = _how_it_ended(folder, summary, events)
    if not running and (step := int(summary.get("outer_steps") or 0)) > figures.get("step", step):
        # the last look at a short run may be older than its end
        figures.update(step=step, time_ps=step * spec.outer_fs / 1000)
    return {
        "folder": str(folder.path),
        "alive": running,
        "exit": "" if running else ended,
        **figures,
        "outer_fs": spec.outer_fs,
        "sampled": spec.sampled,
        "not_analysed": beyond_options(spec),
        "edited_since_the_start": folder.unfollowed_edits(),
        "sts_ps": sts_ps(events, spec.outer_fs),
        "events": events[-LATEST:],
    }


KILLED = "ended without a word (killed, or the machine went down); `dmts-ipi run` takes it up"


def _how_it_ended(folder: RunFolder, summary: dict[str, Any], events: list[dict[str, Any]]) -> str:
    """Of the last session; one that was killed has left neither a summary nor an ``end``."""
    last = next((e["kind"] for e in reversed(events) if e.get("kind") in ("start", "end")), "")
    if last == "start" or (not summary and (folder.path / BEGUN).is_file()):
        return KILLED
    return str(summary.get("exit", "not started"))


def _of_earlier_version(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """The comparison of teacher and student, as it was recorded before there were several."""
    fields = ("difference_max_eV_per_A", "difference_rms_eV_per_A")
    if not all(isinstance(figures.get(field), dict) for field in fields):
        return []
    largest, rms = (figures["limits"].get(field) for field in fields)
    allowed = {"allowed_max_eV_per_A": largest, "allowed_rms_eV_per_A": rms}
    models = {"accurate": TEACHER, "fast": STUDENT}
    return [{**models, **{field: figures[field] for field in fields}, **allowed}]


def alive(folder: Path) -> bool:
    """Whether somebody holds the folder's lock."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def sts_ps(events: list[dict[str, Any]], outer_fs: float) -> float:
    """Simulated time in single steps that the outputs hold, ps: from the starts in the journal."""
    single: list[tuple[int, int]] = []
    begin: int | None = None
    for event in events:
        step = int(event.get("step", 0))
        if event.get("kind") in ("start", "end"):
            if begin is not None and step > begin:
                single.append((begin, step))
            begin = None
        if event.get("kind") == "start":
            single = [(a, min(b, step)) for a, b in single if a < step]
            if "single steps" in str(event.get("text", "")):
                begin = step
    return round(sum(b - a for a, b in single) * outer_fs / 1000, 6)


def format_state(s: dict[str, Any]) -> list[str]:
    """The state as lines of text."""
    state = s.get("state", "") if s["alive"] else s["exit"]
    lines = [f"{s['folder']}: {'alive, ' if s['alive'] else ''}{state}"]
    if s.get("total_steps"):
        lines.append(
            f"  step {s['step']}/{s['total_steps']}, {s['time_ps']:.3f} ps, "
            f"{_figure(s['ns_per_day'], '.3g')} ns/day, {_figure(s['temperature_K'], '.1f')} K, "
            f"left {clock(s['remaining_s']) if s['remaining_s'] is not None else '?'}"
        )
    if s["not_analysed"]:
        lines.append(f"  not analysed in input.xml: {', '.join(s['not_analysed'])}")
    if s["edited_since_the_start"]:
        edits = ", ".join(s["edited_since_the_start"])
        lines.append(f"  edited in input.xml since the run began, and not followed: {edits}")
    for c in s["comparisons"]:
        largest, rms = c["difference_max_eV_per_A"], c["difference_rms_eV_per_A"]
        if not largest["count"]:
            continue
        lines.append(
            f"  |{c['accurate']} - {c['fast']}|, worst atom: last {_figure(largest['last'])}, "
            f"median {_figure(largest['median'])}, 99 % below {_figure(largest['p99'])}, largest "
            f"{_figure(largest['largest'])} eV/A of {largest['count']} outer steps; "
            f"allowed {_figure(c.get('allowed_max_eV_per_A'))}"
        )
        lines.append(
            f"  the same, RMS: last {_figure(rms['last'])}, median {_figure(rms['median'])}"
        )
    lines.append(
        f"  rewinds {s.get('rewinds', 0)}, restarts in the last hour "
        f"{s.get('restarts_last_hour', 0)}, {s['sts_ps']:g} ps in single steps"
    )
    for name, d in s["drivers"].items():
        if d["pid"]:
            lines.append(
                f"  {name}: process {d['pid']} on {d['device'] or '?'}, "
                f"{_figure(d['evaluation_s'], '.4f')} s per evaluation, {d['memory_MB']:.0f} MB"
            )
    for event in s["events"]:
        lines.append(
            f"  {event.get('time', '')[:19]}  {event.get('kind', ''):8} {event.get('text', '')}"
        )
    return lines


def _figure(value: float | None, form: str = ".3f") -> str:
    return "?" if value is None or value != value else format(value, form)
