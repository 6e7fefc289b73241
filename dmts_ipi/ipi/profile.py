"""Where the wall time of an outer step goes: joins what i-PI and the drivers recorded.

The wall time is that of i-PI's main thread, from the begin of a step to the begin of the next.
Each moment of it belongs to one part: to the innermost span of i-PI that it lies in, and where
i-PI is blocked on a socket, or uses the time until an answer, to what the drivers do meanwhile.
Where both work at once it is the teacher's. What lies in no span is "rest".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dmts_ipi.core.errors import InputError

from .patches import profiler as hooks

Interval = tuple[float, float]
Span = tuple[str, float, float]

TEACHER, STUDENT, IPI = "teacher", "student", "i-pi"
REST = "rest"
# part: what it is, in the order of the table
PARTS: dict[str, str] = {
    "teacher": "teacher: the model",
    "list": "student: neighbour list",
    "network": "student: network",
    "transfer": "student: rest of its model (order of atoms, copies, checks)",
    "exchange": "exchange: messages, units and checks, in i-PI and drivers",
    "waiting": "waiting: i-PI is blocked and no driver is at work",
    "integrator": "integrator, with the thermostats that act in C (langevin, ffl, bonds)",
    "thermostat": "thermostat: by NumPy or i-PI, and random numbers that no driver's time covers",
    "output": "output: properties, frames, checkpoints",
    "telemetry": "telemetry",
    REST: "rest: i-PI's main loop",
}
# Parts of a span by itself, by process.
_OF_IPI = {
    hooks.STEP: "integrator",
    hooks.THERMOSTAT: "thermostat",
    hooks.OUTPUT: "output",
    hooks.MESSAGE: "exchange",
    hooks.BLOCKED: hooks.BLOCKED,
    hooks.AHEAD: hooks.AHEAD,
    hooks.LATE: hooks.LATE,
}
# What i-PI does while drivers work: the drivers' time, as far as they do; the rest is this part's.
_BESIDE_DRIVERS = {hooks.BLOCKED: "waiting", hooks.AHEAD: "thermostat", hooks.LATE: "output"}
_OF_DRIVER = {
    hooks.SERVE: "exchange",
    hooks.EVALUATION: "exchange",
    hooks.TELEMETRY: "telemetry",
    hooks.LIST: "list",
    hooks.NETWORK: "network",
}


@dataclass(frozen=True)
class Process:
    """What one recorder left."""

    name: str
    pid: int
    spans: list[Span]


@dataclass(frozen=True)
class Profile:
    """Milliseconds per outer step by part, and the wall time, over some steps."""

    steps: int
    wall_ms: float
    parts_ms: dict[str, float]

    @property
    def named_ms(self) -> float:
        """Sum of all parts but the rest."""
        return sum(v for k, v in self.parts_ms.items() if k != REST)

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {"outer_steps": self.steps, "wall_ms": self.wall_ms, "parts_ms": self.parts_ms}

    def table(self) -> str:
        """For people."""
        lines = [f"{'ms':>9s}  {'%':>5s}  per outer step, mean of {self.steps}"]
        for part, value in self.parts_ms.items():
            text = PARTS.get(part) or f"{part}: the model"
            lines.append(f"{value:9.3f}  {100 * value / self.wall_ms:5.1f}  {text}")
        lines.append(f"{self.wall_ms:9.3f}  100.0  wall time")
        return "\n".join(lines)


def read_processes(folder: Path) -> list[Process]:
    """What the processes of a profiled run left.

    Raises:
        InputError: i-PI left nothing.
    """
    processes = []
    for file in sorted(folder.glob("*.json")):
        record = json.loads(file.read_text())
        spans = [(str(n), float(a), float(b)) for n, a, b in record["spans"]]
        processes.append(Process(str(record["process"]), int(record["pid"]), spans))
    if not any(p.name == IPI and p.spans for p in processes):
        raise InputError("profile", folder, "i-PI recorded no step")
    return processes


def attribute(processes: Sequence[Process], skip: int) -> Profile:
    """Parts of the wall time of the outer steps after the first ``skip``.

    Raises:
        InputError: fewer than two steps are left.
    """
    ipi = next(p for p in processes if p.name == IPI and p.spans)
    begins = sorted(a for name, a, _ in ipi.spans if name == hooks.STEP)[skip:]
    if len(begins) < 2:
        raise InputError("steps", len(begins), "are too few for a profile")
    window = begins[0], begins[-1]
    inside = [p for p in processes if p.pid == ipi.pid]
    own = _exclusive([(part, a, b) for p in inside for part, a, b in _labelled(p)], window)
    names = _models(processes)
    parts: dict[str, float] = {name: _length(own.get(name, [])) for name in _parts(names)}
    others = [p for p in processes if p.pid != ipi.pid]
    exclusive = [(p.name, _exclusive(_labelled(p), window)) for p in others]
    of_models = [
        (part, intervals.get(part, []))
        for name in names
        for part in _parts_of(name)
        for process, intervals in exclusive
        if process == name
    ]
    of_drivers = [(p, i.get(p, [])) for p in ("telemetry", "exchange") for _, i in exclusive]
    for span, rest in _BESIDE_DRIVERS.items():
        left = own.get(span, [])
        for part, intervals in (*of_models, *of_drivers):
            taken, left = _split(left, intervals)
            parts[part] += _length(taken)
        parts[rest] += _length(left)
    wall, steps = window[1] - window[0], len(begins) - 1
    parts[REST] = wall - sum(parts.values())
    return Profile(steps, 1e3 * wall / steps, {k: 1e3 * v / steps for k, v in parts.items()})


def _models(processes: Sequence[Process]) -> list[str]:
    """Names of models that recorded something: teacher and student, then the others."""
    names = list(dict.fromkeys(p.name for p in processes if p.name != IPI))
    return [TEACHER, STUDENT, *(name for name in names if name not in (TEACHER, STUDENT))]


def _parts_of(name: str) -> tuple[str, ...]:
    """Parts that the time of a model goes to; a model of another name is one part, of its name."""
    if name in (TEACHER, STUDENT):
        return ("teacher", "list", "network", "transfer")
    return (_other(name),)


def _other(name: str) -> str:
    return f"model {name}"


def _parts(names: Sequence[str]) -> list[str]:
    """All parts in the order of the table: further models stand after the student."""
    known = list(PARTS)
    at = known.index("transfer") + 1
    others = [_other(name) for name in names if name not in (TEACHER, STUDENT)]
    return [*known[:at], *others, *known[at:]]


def trace(processes: Sequence[Process]) -> dict[str, Any]:
    """Chrome trace: to be opened in chrome://tracing or https://ui.perfetto.dev."""
    start = min((a for p in processes for _, a, _ in p.spans), default=0.0)
    events: list[dict[str, Any]] = []
    for k, process in enumerate(processes):
        name = {"name": f"{process.name} ({process.pid})"}
        events.append({"name": "process_name", "ph": "M", "pid": k, "tid": 0, "args": name})
        for span, a, b in process.spans:
            at, long = 1e6 * (a - start), 1e6 * (b - a)
            events.append({"name": span, "ph": "X", "ts": at, "dur": long, "pid": k, "tid": 0})
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _labelled(process: Process) -> Iterable[Span]:
    """Spans with the part that they are in the place of their name."""
    if process.name == IPI:
        return ((_OF_IPI[n], a, b) for n, a, b in process.spans)
    parts = _parts_of(process.name)
    model = "transfer" if process.name == STUDENT else parts[0]
    of = {**_OF_DRIVER, hooks.MODEL: model}
    if process.name != STUDENT:  # a list of its own would be part of it
        of.update({hooks.LIST: model, hooks.NETWORK: model})
    return ((of[n], a, b) for n, a, b in process.spans)


def _exclusive(spans: Iterable[Span], window: Interval) -> dict[str, list[Interval]]:
    """Sorted intervals by part, where it is the innermost span. Spans are nested or apart."""
    intervals: dict[str, list[Interval]] = {}
    stack: list[tuple[str, float]] = []  # part and end
    at = window[0]

    def until(time: float) -> None:
        nonlocal at
        if stack and time > at:
            intervals.setdefault(stack[-1][0], []).append((at, min(time, window[1])))
        at = max(at, time)

    for part, begin, end in sorted(spans, key=lambda s: (s[1], -s[2])):
        if end <= window[0] or begin >= window[1]:
            continue
        while stack and stack[-1][1] <= begin:
            until(stack[-1][1])
            stack.pop()
        until(max(begin, window[0]))
        stack.append((part, end))
    while stack:
        until(min(stack[-1][1], window[1]))
        stack.pop()
    return intervals


def _split(intervals: list[Interval], by: list[Interval]) -> tuple[list[Interval], list[Interval]]:
    """The parts of sorted intervals inside others, and outside them."""
    inside: list[Interval] = []
    outside: list[Interval] = []
    k = 0
    for begin, end in intervals:
        while k < len(by) and by[k][1] <= begin:
            k += 1
        at, here = begin, k
        while here < len(by) and by[here][0] < end:
            a, b = max(by[here][0], at), min(by[here][1], end)
            if a > at:
                outside.append((at, a))
            if b > a:
                inside.append((a, b))
            at = max(at, b)
            here += 1
        if at < end:
            outside.append((at, end))
    return inside, outside


def _length(intervals: list[Interval]) -> float:
    return float(np.sum([b - a for a, b in intervals])) if intervals else 0.0
