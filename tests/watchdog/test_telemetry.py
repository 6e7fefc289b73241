"""Telemetry: messages, a driver's side, the watchdog's side. Real ZeroMQ sockets, no i-PI."""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import zmq

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.force_comparison import Distribution, ForceComparison, difference
from dmts_ipi.watchdog import endpoints
from dmts_ipi.watchdog.driver_sockets import QUEUE
from dmts_ipi.watchdog.endpoints import Addresses, addresses
from dmts_ipi.watchdog.listener import BUNCH_S, Listener
from dmts_ipi.watchdog.messages import decode, digest, encode
from dmts_ipi.watchdog.publisher import Publisher, opener
from telemetry_tools import EVALUATION, wrong_messages

NUMBERS = np.array([8, 1, 1])
PAIRS = (("teacher", "student"),)
RNG = np.random.default_rng(4)
LIMIT_S = 60.0


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


@pytest.fixture
def at(tmp_path: Path) -> dict[str, Addresses]:
    found = {r: addresses(f"ipc://{tmp_path}/{r}", "") for r in ("teacher", "student")}
    return {role: a for role, a in found.items() if a is not None}


def publisher(name: str, where: Addresses) -> Publisher:
    return Publisher(name, where, 3, "cpu", reference=name == "teacher")


@pytest.fixture
def publishers(at: dict[str, Addresses]) -> Iterator[dict[str, Publisher]]:
    made = {name: publisher(name, where) for name, where in at.items()}
    yield made
    for driver in made.values():
        driver.close()


@pytest.fixture
def listener(at: dict[str, Addresses]) -> Iterator[Listener]:
    listener = Listener(at, NUMBERS, keep_above_eV_per_A=dict.fromkeys(PAIRS, 1.0))
    yield listener
    listener.close()


def rings(listener: Listener) -> bool:
    """Whether there is something to judge at once."""
    return bool(select.select([listener.alarm], [], [], 0)[0])


def evaluate(publisher: Publisher, x: np.ndarray, forces: np.ndarray, energy: float = -1.0) -> None:
    publisher.begin()
    publisher.evaluated(x, x * 0.5, np.eye(3) * 9, energy, forces, 0.01)


def test_pairs_count_again_once_the_student_moves_atoms_again(
    publishers: dict[str, Publisher], listener: Listener
) -> None:
    """After a rewind: single steps, where it is not asked, then a new connection to i-PI."""
    student, teacher = publishers["student"], publishers["teacher"]
    x, f = RNG.normal(size=(3, 3)), np.zeros((3, 3))

    def heard() -> bool:  # subscriptions take a moment: the first messages may be lost
        student.connected()
        evaluate(student, x, f)
        return listener.health["student"].connection > 0

    until(heard)
    last = student.connection
    until(lambda: listener.health["student"].connection == last)
    listener.comparing = False
    listener.forget()
    before = listener.counts.pairs
    evaluate(student, x, 100 * np.ones((3, 3)))  # a spike: on its way when i-PI was stopped
    until(lambda: listener.health["student"].evaluation == 2)

    def paired() -> bool:
        evaluate(teacher, x, f)  # the student knows this structure from before
        return listener.counts.pairs > before

    until(paired)
    until(lambda: listener.health["teacher"].evaluation == teacher.evaluation)
    until(lambda: not listener._waiting)
    assert not listener.comparing
    student.connected()
    evaluate(student, 3 * x, f)
    until(lambda: listener.comparing)
    assert listener.take() == []


def test_a_student_that_knows_the_period_is_not_asked(
    publishers: dict[str, Publisher], listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that has lost it, or whose message was lost, is asked again."""
    teacher, student = publishers["teacher"], publishers["student"]
    for p in publishers.values():
        p.connected()
    monkeypatch.setattr("dmts_ipi.watchdog.publisher.LISTENER_S", 1e9)
    asked: list[int] = []
    see = student._period.asked
    monkeypatch.setattr(student._period, "asked", lambda n: (asked.append(n), see(n)))
    f = RNG.normal(size=(3, 3))

    def outer_step(distance: int = 6, known: bool = False) -> None:
        """An outer step that is paired before the next one; the teacher takes its time."""
        x, pairs = RNG.normal(size=(3, 3)), listener.counts.pairs
        evaluate(student, x, f)
        until(lambda: not known or digest(x) in listener._ahead["student"])
        evaluate(teacher, x, f + 0.25)
        until(lambda: listener.counts.pairs > pairs)
        for k in range(1, distance):
            evaluate(student, x + k, f)

    def heard() -> bool:  # subscriptions take a moment
        x = RNG.normal(size=(3, 3))
        for p in publishers.values():
            evaluate(p, x, f)
        time.sleep(0.02)
        return listener.counts.pairs > 0

    until(lambda: heard() and not listener._waiting)
    for p in publishers.values():
        p.connected()  # what was asked for until now is no period
    for _ in range(6):
        outer_step()
    learnt = len(asked)
    for _ in range(20):
        outer_step(known=True)
    assert len(asked) == learnt
    with monkeypatch.context() as lost:
        lost.setattr(student, "_send", lambda frames: None)
        outer_step()
    assert len(asked) > learnt
    for p in publishers.values():
        p.connected()  # another n_inner
    for _ in range(6):
        outer_step(4)
    assert student._period._predicted is not None
    assert student._period._predicted[1] == 4
    x = RNG.normal(size=(3, 3))
    evaluate(student, x, f)
    for _ in range(2):
        evaluate(student, x + 1, f)  # between outer steps: not kept
    assert student._recent is not None
    assert student._recent.find(digest(x + 1)) is None
    evaluate(teacher, x + 1, f)  # a prediction that turned out to be wrong
    until(lambda: not student._period.known)
    found = listener.take()
    assert all(p.difference.largest == pytest.approx(0.25 * 3**0.5, rel=1e-6) for p in found[-26:])
    assert listener.counts.bad == 0


def test_figures_of_a_difference() -> None:
    teacher = RNG.normal(size=(3, 3))
    student = teacher.copy()
    student[1] += [0.3, 0, -0.4]
    d = difference(teacher, student)
    assert (d.largest, d.atom) == (pytest.approx(0.5), 1)
    assert d.rms == pytest.approx(np.sqrt(0.25 / 9))
    student[2, 0] = np.nan
    assert difference(teacher, student).largest == np.inf
    assert difference(teacher, student).atom == 2


def test_the_distribution_goes_on_from_its_record() -> None:
    values = np.exp(RNG.normal(size=2000))
    d = Distribution()
    for v in values:
        d.add(float(v))
    again = Distribution.from_record(json.loads(json.dumps(d.record())))
    assert again == d
    for p in (0.5, 0.99):  # a bin is a factor 10^(1/8) wide
        assert 1 <= again.quantile(p) / np.quantile(values, p) < 1.34
    d.add(float("inf"))
    assert Distribution.from_record(json.loads(json.dumps(d.record()))).largest == np.inf
    assert Distribution.from_record({"bins": [1]}).count == 0


def test_forces_at_equal_positions_are_paired(
    publishers: dict[str, Publisher], listener: Listener
) -> None:
    """Every outer step is seen, whichever of the two is the later one."""
    teacher, student = publishers["teacher"], publishers["student"]
    for p in publishers.values():
        p.connected()
    x, f = RNG.normal(size=(3, 3)), RNG.normal(size=(3, 3))
    seen: list[ForceComparison] = []

    def paired() -> bool:  # subscriptions take a moment: the first messages may be lost
        evaluate(student, x, f)
        evaluate(teacher, x, f + 0.01)
        time.sleep(0.02)
        seen.extend(listener.take())
        return bool(seen)

    until(paired)
    seen.extend(listener.take())
    assert not rings(listener)
    before = teacher.evaluation
    xs = [RNG.normal(size=(3, 3)) for _ in range(20)]
    for k, y in enumerate(xs):
        order = [(teacher, 2.0 * (k == 13)), (student, 0.0)]
        for driver, shift in order if k % 2 else order[::-1]:
            evaluate(driver, y, f + shift * np.eye(3)[0])
        evaluate(student, y + 1, f)  # an inner step
    found = [p for p in seen if p.evaluation > before]

    def all_there() -> bool:
        found.extend(p for p in listener.take() if p.evaluation > before)
        return len(found) >= len(xs)

    until(all_there)
    until(lambda: rings(listener))  # of the one that differs
    found.sort(key=lambda p: p.evaluation)
    assert [p.evaluation for p in found] == list(range(before + 1, before + 21))
    assert {p.connection for p in found} == {1}
    worst = found.pop(13)
    assert worst.difference.largest == pytest.approx(2)
    assert all(p.difference.largest < 1e-6 and p.positions_A is None for p in found)
    assert worst.positions_A is not None
    assert listener.latest is not None  # of any difference: what a spike between outer steps keeps
    latest = listener.latest.positions_A
    assert any(np.array_equal(latest, x * 0.5) for x in xs)
    np.testing.assert_allclose(worst.positions_A, xs[13] * 0.5)
    np.testing.assert_allclose(worst.forces_eV_per_A["student"], f, rtol=1e-6)
    assert listener.counts.bad == 0
    until(lambda: listener.health["student"].last_answer > 0)
    assert listener.health["student"].pid == os.getpid()
    assert listener.health["teacher"].evaluation == teacher.evaluation


def test_a_spike_of_the_student_is_told_at_once(
    publishers: dict[str, Publisher], listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between outer steps too, where nobody asks for its forces."""
    student = publishers["student"]
    student.connected()
    x, f = RNG.normal(size=(3, 3)), np.ones((3, 3))

    def heard() -> bool:
        evaluate(student, x, f)
        time.sleep(0.02)
        return "student" in listener.take_peaks()

    until(heard)
    monkeypatch.setattr("dmts_ipi.watchdog.publisher.MIN_INTERVAL_S", 1e9)
    before = student.evaluation
    evaluate(student, x, 1.9 * f)  # twice as large is a spike, this is none
    spike = f.copy()
    spike[1, 2] = -40.0
    evaluate(student, x, spike)
    peaks: dict[str, tuple[float, int]] = {}

    def told() -> bool:
        peaks.update(listener.take_peaks())
        return peaks.get("student", (0.0, 0))[0] > 2

    until(told)
    assert peaks["student"] == (pytest.approx(np.hypot(40.0, np.sqrt(2))), 1)
    assert student.evaluation == before + 2
    evaluate(student, x, spike)  # it is known by now
    student.connected()  # i-PI was started again: what was usual before does not count
    evaluate(student, x, spike)
    until(lambda: "student" in listener.take_peaks())


def test_a_driver_never_waits(publishers: dict[str, Publisher], at: dict[str, Addresses]) -> None:
    """Nobody listens; then somebody who never reads; then that one is gone."""
    teacher = publishers["teacher"]
    x = np.zeros((3, 3))
    for _ in range(50):
        evaluate(teacher, x, x)
    assert teacher.dropped == 0
    context = zmq.Context()
    slow: zmq.Socket[bytes] = context.socket(zmq.SUB)
    slow.setsockopt(zmq.RCVHWM, 1)
    slow.setsockopt(zmq.SUBSCRIBE, b"")
    slow.connect(at["teacher"].events)

    def heard() -> bool:
        evaluate(teacher, x, x)
        return bool(slow.poll(20))

    until(heard)
    for _ in range(100 * QUEUE):
        evaluate(teacher, x, x)
    context.destroy(linger=0)
    for _ in range(50):
        evaluate(teacher, x, x)
    assert teacher.evaluation >= 100 * QUEUE + 100


def test_malformed_questions_are_counted_and_change_nothing(
    publishers: dict[str, Publisher], at: dict[str, Addresses]
) -> None:
    student = publishers["student"]
    x = RNG.normal(size=(3, 3))
    evaluate(student, x, x)
    context = zmq.Context()
    sock: zmq.Socket[bytes] = context.socket(zmq.DEALER)
    sock.connect(at["student"].service)
    bad = [*wrong_messages().values(), encode("evaluation", EVALUATION), encode("forces", {})]
    for frames in bad[1:]:
        sock.send_multipart(frames)
    sock.send_multipart(encode("ask_forces", {"digest": digest(x)}))
    assert sock.poll(int(LIMIT_S * 1000))
    answer = decode(sock.recv_multipart())
    np.testing.assert_array_equal(answer.arrays["forces_eV_per_A"], x.astype(np.float32))
    assert student.bad_requests == len(bad) - 1
    context.destroy(linger=0)


def test_a_listener_drops_what_is_not_of_its_run(
    listener: Listener, publishers: dict[str, Publisher], at: dict[str, Addresses], tmp_path: Path
) -> None:
    other = Listener({"teacher": at["teacher"]}, np.ones(4, int), dict.fromkeys(PAIRS, 1.0))
    x = np.zeros((3, 3))

    def refused() -> bool:
        evaluate(publishers["teacher"], x, x)
        time.sleep(0.01)
        return other.counts.bad > 0

    until(refused)
    assert other.health["teacher"].last_news < 0
    other.close()


def test_an_answer_that_comes_late_counts_nothing_back(listener: Listener) -> None:
    health = listener.health["teacher"]
    health.pid, health.connection, health.evaluation = 7, 2, 22
    fields = {"role": "teacher", "pid": 7, "connection": 2, "evaluation": 3, "memory_MB": 5.0}
    for other, expected in (({}, 22), ({"evaluation": 23}, 23), ({"connection": 3}, 3)):
        answer = encode("status", {**fields, "evaluating_s": None, **other})
        listener._take(decode(answer), 1.0, "teacher", asked=True)
        assert health.evaluation == expected
    assert (health.connection, health.memory_MB, health.last_answer) == (3, 5.0, 1.0)


def test_a_listener_survives_the_death_of_a_driver(
    publishers: dict[str, Publisher], listener: Listener, at: dict[str, Addresses]
) -> None:
    x = np.zeros((3, 3))

    def heard(publisher: Publisher) -> Callable[[], bool]:
        def condition() -> bool:
            evaluate(publisher, x, x)
            time.sleep(5 * BUNCH_S)
            return listener.health["teacher"].evaluation == publisher.evaluation

        return condition

    until(heard(publishers["teacher"]))
    publishers["teacher"].close()
    publishers["teacher"] = publisher("teacher", at["teacher"])
    publishers["teacher"].evaluation = 1000
    until(heard(publishers["teacher"]))


def test_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert addresses("off", "x") is None
    assert opener("student", reference=False)("off", "x", 3, "cpu") is None
    assert addresses("tcp://127.0.0.1:5000", "x") == Addresses(
        "tcp://127.0.0.1:5000", "tcp://127.0.0.1:5001"
    )
    auto = addresses("auto", "localhost-31400")
    assert auto is not None
    folder = Path(f"/tmp/dmts-{os.getuid()}")
    assert auto.events == f"ipc://{folder}/localhost-31400.events"
    assert folder.stat().st_mode & 0o777 == 0o700
    wrong = ("", "on", "tcp://host", "tcp://h:65535", "tcp://*:5", "ipc://" + "/long" * 30)
    for setting in wrong:
        with pytest.raises(InputError):
            addresses(setting, "x")
    (tmp_path / "open").mkdir(mode=0o755)
    for name, word in (("open", "can be entered by other users"), ("file", "File exists")):
        (tmp_path / "file").touch()
        with monkeypatch.context() as patch:
            patch.setattr(endpoints, "user_folder", lambda name=name: tmp_path / name)
            with pytest.raises(InputError, match=word):
                endpoints.private_folder()
    taken = addresses("ipc:///nonexistent/x", "")
    assert taken is not None
    with pytest.raises(InputError, match="telemetry = ipc:///nonexistent"):
        publisher("teacher", taken)


def test_a_driver_that_ends_leaves_no_files(at: dict[str, Addresses]) -> None:
    """But those of its successor, which has taken the same addresses over."""
    files = [Path(p) for p in at["student"].files()]
    first = publisher("student", at["student"])
    assert all(p.is_socket() for p in files)
    second = publisher("student", at["student"])
    first.leave()
    assert all(p.is_socket() for p in files)
    second.leave()
    assert not any(p.exists() for p in files)
    for driver in (first, second):
        driver.close()


def test_every_pair_of_three_models_is_compared(tmp_path: Path) -> None:
    """At the structures of the reference, also where one driver answers late or not at all."""
    where = {n: addresses(f"ipc://{tmp_path}/{n}", "") for n in ("slow", "middle", "quick")}
    at = {name: a for name, a in where.items() if a is not None}
    drivers = {n: Publisher(n, a, 3, "cpu", reference=n == "slow") for n, a in at.items()}
    pairs = {("slow", "middle"): 1.0, ("middle", "quick"): 0.1}
    listener = Listener(at, NUMBERS, pairs)
    for driver in drivers.values():
        driver.connected()
    f = RNG.normal(size=(3, 3))
    shifts = {"slow": 0.0, "middle": 0.05, "quick": 0.25}
    seen: list[ForceComparison] = []

    def compared(names: tuple[str, ...], wanted: int) -> Callable[[], bool]:
        def condition() -> bool:
            x = RNG.normal(size=(3, 3))
            for name in names:
                evaluate(drivers[name], x, f + shifts[name] * np.eye(3)[0])
            time.sleep(0.02)
            seen.extend(listener.take())
            return len(seen) >= wanted

        return condition

    until(compared(("quick", "middle", "slow"), 8))
    by_pair = {pair: [c for c in seen if c.pair == pair] for pair in pairs}
    for pair, expected in ((("slow", "middle"), 0.05), (("middle", "quick"), 0.2)):
        assert by_pair[pair]
        for c in by_pair[pair]:
            assert c.reference == "slow"
            assert c.difference.largest == pytest.approx(expected, rel=1e-5)
    kept = by_pair["middle", "quick"][-1]  # above its own limit
    assert set(kept.forces_eV_per_A) == {"slow", "middle", "quick"}
    np.testing.assert_array_equal(kept.forces_eV_per_A["slow"], f)
    assert by_pair["slow", "middle"][-1].positions_A is None
    until(lambda: rings(listener))
    peaks: set[str] = set()

    def all_heard() -> bool:  # the first messages may be lost, and fast models send five a second
        compared(("quick", "middle", "slow"), 0)()
        peaks.update(listener.take_peaks())
        return peaks == set(at)

    until(all_heard)
    assert listener.counts.bad == 0
    listener.close()
    for driver in drivers.values():
        driver.close()


def test_a_model_that_is_missing_leaves_the_other_comparisons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dmts_ipi.watchdog.listener.RETRY_FOR_S", 0.3)
    where = {n: addresses(f"ipc://{tmp_path}/{n}", "") for n in ("slow", "middle", "quick")}
    at = {name: a for name, a in where.items() if a is not None}
    drivers = {n: Publisher(n, at[n], 3, "cpu", reference=n == "slow") for n in ("slow", "middle")}
    listener = Listener(at, NUMBERS, {("slow", "middle"): 1.0, ("middle", "quick"): 1.0})
    x, f = RNG.normal(size=(3, 3)), np.zeros((3, 3))

    def compared() -> bool:
        moved = x + RNG.normal()
        for driver in drivers.values():
            evaluate(driver, moved, f)
        time.sleep(0.02)
        return any(c.pair == ("slow", "middle") for c in listener.take())

    until(compared)
    assert listener.counts.unpaired > 0
    listener.close()
    unheard = Listener({"middle": at["middle"]}, NUMBERS, {("slow", "middle"): 1.0})
    evaluate(drivers["middle"], x, f)
    unheard.close()
    assert unheard.counts.bad == 0
    for driver in drivers.values():
        driver.close()
