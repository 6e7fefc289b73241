"""Attribution of wall time on made-up spans; hooks that are not there if nobody asks; a toy run."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.recorder import PROFILE, Recorder, recorder
from dmts_ipi.ipi.client.driver_model import AtomicUnitsModel
from dmts_ipi.ipi.patches import profiler as hooks
from dmts_ipi.ipi.profile import PARTS, Process, Span, attribute, read_processes, trace
from driver_models import PairModel
from run_tools import TEACHER, call, command, environment, make


def outer_step(at: float) -> tuple[list[Span], list[Span], list[Span]]:
    """An outer step of 100 ms, in s: spans of i-PI, of the teacher, of the student."""
    ms = 1e-3

    def spans(*parts: tuple[str, float, float]) -> list[Span]:
        return [(name, at + a * ms, at + b * ms) for name, a, b in parts]

    ipi = spans(
        (hooks.THERMOSTAT, 2, 5),
        (hooks.BLOCKED, 10, 88),
        (hooks.MESSAGE, 8, 90),
        (hooks.STEP, 0, 92),
        (hooks.OUTPUT, 92, 97),
    )
    teacher = spans((hooks.MODEL, 22, 80), (hooks.EVALUATION, 21, 82), (hooks.SERVE, 20, 83))
    student = spans(
        (hooks.LIST, 13, 15),
        (hooks.NETWORK, 15, 19),
        (hooks.MODEL, 12, 23),
        (hooks.TELEMETRY, 24, 25),
        (hooks.EVALUATION, 12, 26),
        (hooks.SERVE, 11, 27),
    )
    return ipi, teacher, student


def test_every_moment_belongs_to_one_part() -> None:
    steps = [outer_step(7.0 + 0.1 * k) for k in range(6)]
    names = ("i-pi", "teacher", "student")
    processes = [
        Process(name, k, [s for step in steps for s in step[k]]) for k, name in enumerate(names)
    ]
    found = attribute(processes, skip=2)
    assert found.steps == 3
    assert found.wall_ms == pytest.approx(100)
    expected = {
        "teacher": 58.0,  # 22 to 80, also where the student works
        "list": 2.0,
        "network": 4.0,
        "transfer": 1.0 + 3.0,  # 12-13, 19-22
        # in i-PI 8-10, 88-90; then what is left of 11-12 and 80-83
        "exchange": 4.0 + 1.0 + 3.0,
        "telemetry": 0.0,  # while the teacher worked
        "waiting": 1.0 + 5.0,  # 10-11, 83-88
        "integrator": 2.0 + 3.0 + 2.0,
        "thermostat": 3.0,
        "output": 5.0,
        "rest": 3.0,
    }
    assert list(found.parts_ms) == list(PARTS)
    assert found.parts_ms == pytest.approx(expected)
    assert sum(found.parts_ms.values()) == pytest.approx(found.wall_ms)
    assert found.named_ms == pytest.approx(97.0)
    assert "58.000   58.0  teacher: the model" in found.table()


def test_a_student_within_ipi_takes_from_its_spans() -> None:
    steps = [outer_step(0.1 * k) for k in range(4)]
    ipi = Process("i-pi", 5, [s for step in steps for s in step[0]])
    inside = [("model", 0.001, 0.004), ("network", 0.002, 0.003), ("evaluation", 0.0, 0.005)]
    student = Process("student", 5, [(n, 0.1 + a, 0.1 + b) for n, a, b in inside])
    found = attribute([ipi, student], skip=1)
    parts = found.parts_ms
    assert found.steps == 2
    # the thermostat's span of 2 to 5 ms crosses the student's: only sums are defined then
    assert sum(parts.values()) == pytest.approx(100)
    assert parts["waiting"] == pytest.approx(78)
    assert parts["network"] > 0


def test_what_ipi_does_while_a_driver_works_is_the_drivers_time() -> None:
    steps = [outer_step(0.1 * k) for k in range(4)]
    used = [(hooks.AHEAD, 0.0100, 0.0125), (hooks.LATE, 0.0700, 0.0850)]
    ipi = []
    for k, (spans, _, _) in enumerate(steps):
        at = 0.1 * k
        blocked = (hooks.BLOCKED, at + 0.0125, at + 0.0700)
        rest = (hooks.BLOCKED, at + 0.0850, at + 0.0880)
        ipi += [s for s in spans if s[0] != hooks.BLOCKED] + [blocked, rest]
        ipi += [(name, at + a, at + b) for name, a, b in used]
    teacher, student = (
        Process(name, k, [s for step in steps for s in step[k]])
        for k, name in ((1, "teacher"), (2, "student"))
    )
    parts = attribute([Process("i-pi", 0, ipi), teacher, student], skip=1).parts_ms
    assert parts["teacher"] == pytest.approx(58.0)  # late outputs up to 80 take nothing from it
    assert parts["transfer"] == pytest.approx(4.0)  # so numbers ahead from 12 on
    # before any driver was at work, and after the last one
    assert parts["thermostat"] == pytest.approx(3.0 + 1.0)
    assert parts["output"] == pytest.approx(5.0 + 2.0)
    assert parts["exchange"] == pytest.approx(4.0 + 1.0 + 3.0)
    assert parts["waiting"] == pytest.approx(3.0)
    assert sum(parts.values()) == pytest.approx(100)


def test_random_nested_spans_add_up() -> None:
    rng = np.random.default_rng(4)
    spans: list[Span] = []
    for k in range(20):
        cuts = np.sort(rng.uniform(size=8)) + k
        spans += [
            (hooks.STEP, k, k + 1),
            (hooks.MESSAGE, cuts[0], cuts[5]),
            (hooks.BLOCKED, cuts[1], cuts[2]),
            (hooks.BLOCKED, cuts[3], cuts[4]),
            (hooks.THERMOSTAT, cuts[6], cuts[7]),
        ]
    at = np.sort(rng.uniform(0, 20, size=80)).reshape(-1, 2)
    teacher = [(hooks.MODEL, a, b) for a, b in at.tolist()]
    found = attribute([Process("i-pi", 1, spans), Process("teacher", 2, teacher)], skip=0)
    assert sum(found.parts_ms.values()) == pytest.approx(1000, rel=1e-9)
    assert min(found.parts_ms.values()) >= -1e-9
    blocked = sum(b - a for n, a, b in spans if n == hooks.BLOCKED and b <= 19)
    seen = found.parts_ms["teacher"] + found.parts_ms["waiting"]
    assert seen * 19 / 1e3 == pytest.approx(blocked, rel=1e-9)


def test_too_few_steps_are_told() -> None:
    process = Process("i-pi", 1, outer_step(0.0)[0])
    with pytest.raises(InputError, match="too few"):
        attribute([process], skip=0)


def test_files_are_read_and_traced(tmp_path: Path) -> None:
    found = Recorder("i-pi", tmp_path)
    work = found.recorded(lambda x: x + 1, hooks.STEP)
    assert [work(k) for k in range(3)] == [1, 2, 3]
    found.write()
    (process,) = read_processes(tmp_path)
    assert [n for n, *_ in process.spans] == [hooks.STEP] * 3
    events = trace([process])["traceEvents"]
    assert [e["ph"] for e in events] == ["M", "X", "X", "X"]
    assert events[1]["ts"] == 0
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="recorded no step"):
        read_processes(tmp_path / "empty")


def test_nothing_is_there_when_nobody_asks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from ipi.engine.simulation import Simulation

    from dmts_ipi.ipi.client.client_session import Session

    monkeypatch.delenv(PROFILE, raising=False)
    assert recorder("i-pi") is None
    evaluator = AtomicUnitsModel(PairModel(), np.array([8, 1, 1]), False)
    hooks.install()
    hooks.profile_driver(evaluator, "student")()
    hooks.profile_inside(evaluator, "student")
    assert "compute" not in vars(evaluator)
    assert "compute" not in vars(evaluator.model)
    for method in (Simulation.run_step, Simulation.write_outputs, Session._evaluate):
        assert not hasattr(method, "__wrapped__")
    monkeypatch.setenv(PROFILE, str(tmp_path))
    found = recorder("student")
    assert found is not None
    hooks.hook_evaluator(found, evaluator)
    evaluator.compute(np.eye(3) * 30, np.array([[0.0, 0, 0], [1.8, 0, 0], [0, 1.8, 0]]))
    assert [n for n, *_ in found.spans] == [hooks.MODEL, hooks.EVALUATION]


@pytest.mark.timeout(1300)
@pytest.mark.parametrize("thermostat", ["langevin", "svr"])
def test_profile_of_a_run_adds_up(tmp_path: Path, thermostat: str) -> None:
    # a teacher that takes its time: what the machine does besides is little next to it
    teacher = TEACHER.replace("}", ', "delay_s": 0.1}')
    options = ("--no-model-check", "--teacher", teacher, "--thermostat", thermostat)
    folder = make(tmp_path / "run", *options)
    before = sorted(p.name for p in folder.iterdir())
    done = subprocess.run(
        command("profile", folder, "--steps", 10, "--trace", tmp_path / "trace.json", "--json"),
        capture_output=True,
        text=True,
        env=environment(),
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    parts = record["parts_ms"]
    assert record["outer_steps"] == 10
    assert set(parts) == set(PARTS)
    # what has a name is all but a few percent, also on a machine that does other things
    assert sum(v for k, v in parts.items() if k != "rest") > 0.8 * record["wall_ms"]
    assert sum(parts.values()) == pytest.approx(record["wall_ms"], rel=1e-6)
    assert min(parts.values()) >= -1e-6 * record["wall_ms"]
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    names = {e["name"] for e in events}
    surely = {"teacher", "transfer", "exchange", "integrator"}
    if thermostat == "svr":  # i-PI's, and outputs are written at once
        surely |= {"thermostat", "output"}
        assert {hooks.THERMOSTAT, hooks.OUTPUT} <= names
    else:  # the teacher's time may cover all of both
        assert {hooks.AHEAD, hooks.LATE} <= names
    for part in surely:
        assert parts[part] > 0, part
    steps = [e for e in events if e["name"] == hooks.STEP]
    assert len(steps) == 16
    assert len([e for e in events if e["name"] == hooks.MODEL]) == 17 + 4 * 16 + 1
    assert sorted(p.name for p in folder.iterdir()) == before  # the run is as it was


def test_wrong_input_is_told(tmp_path: Path) -> None:
    folder = make(tmp_path / "run", "--no-model-check")
    for options, words in (
        (("--steps", 1), "steps = 1: must be 2 or more"),
        (("--trace", tmp_path / "no" / "t.json"), "its folder does not exist"),
        (("--trace", tmp_path), "is a folder"),
    ):
        done = call("profile", folder, *options)
        assert done.returncode == 2
        assert words in done.stderr
    done = call("profile", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")


def test_models_of_other_names_have_rows_of_their_own() -> None:
    steps = [outer_step(0.1 * k) for k in range(4)]
    ipi, accurate, fast = (
        Process(name, k, [s for step in steps for s in step[k]])
        for k, name in enumerate(("i-pi", "teacher", "small"))
    )
    found = attribute([ipi, accurate, fast], skip=1)
    names = list(found.parts_ms)
    assert names[names.index("transfer") + 1] == "model small"
    assert found.parts_ms["model small"] == pytest.approx(10.0)  # list, network and transfer
    assert found.parts_ms["network"] == 0.0
    assert sum(found.parts_ms.values()) == pytest.approx(100)
    assert "model small: the model" in found.table()
    alone = attribute([ipi, Process("long", 1, accurate.spans)], skip=1).parts_ms
    assert alone["model long"] == pytest.approx(58.0)
