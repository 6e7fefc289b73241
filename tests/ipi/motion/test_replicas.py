"""Several systems in one i-PI: they step together, and each message carries all of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from ipi.engine.simulation import Simulation
from ipi.utils.depend import dstrip
from ipi.utils.softexit import softexit

from dmts_ipi.ipi.patches import exchange, lockstep_systems
from exchange_tools import PLAIN, Evaluator, replicas, socket_run
from integrator_tools import Run, simulation_xml

COPIES, STEPS, N = 3, 3, 4


@pytest.fixture
def direct() -> Iterator[None]:
    exchange.install()
    yield
    exchange.remove()


def motions(run: Run) -> list[Any]:
    return [s.motion for s in run.simulation.syslist]


def states(run: Run) -> list[np.ndarray]:
    found = []
    for system in run.simulation.syslist:
        found.append(np.concatenate([dstrip(system.beads.q)[0], dstrip(system.beads.p)[0]]))
    return found


def steps(run: Run, count: int = STEPS) -> list[np.ndarray]:
    assert lockstep_systems.can_step_in_lockstep(motions(run))
    for _ in range(count):
        lockstep_systems.step_in_lockstep(motions(run))
    return states(run)


@pytest.fixture(scope="module")
def wanted() -> list[np.ndarray]:
    """Three systems with a thermostat, without sockets."""
    return steps(Run(replicas(simulation_xml(PLAIN), COPIES)))


def test_together_is_one_after_the_other_where_no_random_number_is_drawn() -> None:
    xml = replicas(simulation_xml("", mode="nve"), COPIES)
    apart = Run(xml)
    for motion in motions(apart):
        for k in range(STEPS):
            motion.step(k)
    run = Run(xml)
    for one, two in zip(steps(run), states(apart), strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(*states(run)[:2])  # each its own velocities
    times = {float(s.ensemble.time) for s in run.simulation.syslist}
    assert times == {float(apart.system.ensemble.time)}


@pytest.mark.parametrize("size", [COPIES, COPIES + 1, 1])
def test_each_message_carries_all_systems(
    size: int, wanted: list[np.ndarray], direct: None
) -> None:
    more = f"<batch_size>{size}</batch_size>" if size > 1 else ""
    with socket_run(more=more, copies=COPIES, drivers=False) as run:
        evaluators = {name: run.driver(name) for name in run.names}
        for one, two in zip(steps(run), wanted, strict=True):
            np.testing.assert_array_equal(one, two)
        for name, evaluations in (("f0", STEPS + 1), ("f1", N * STEPS + 1)):
            counts = run.fields[name].socket.counts
            assert counts.forces == COPIES * evaluations
            assert counts.messages == (evaluations if size > 1 else counts.forces)
            # what fills a batch up is not evaluated; all start from the same positions
            once = COPIES - 1 if size > 1 else 0
            assert evaluators[name].calls == COPIES * evaluations - once


def test_a_driver_that_dies_in_a_batch_is_replaced(wanted: list[np.ndarray], direct: None) -> None:
    with socket_run(more=f"<batch_size>{COPIES}</batch_size>", copies=COPIES, drivers=False) as run:
        run.driver("f0")

        def dies(k: int) -> None:
            if k == 6:  # in the middle of a batch
                run.driver("f1")
                raise RuntimeError("gone")

        run.driver("f1", Evaluator("f1", dies))
        for one, two in zip(steps(run), wanted, strict=True):
            np.testing.assert_array_equal(one, two)
        assert run.fields["f1"].socket.counts.lost == 1


def test_beads_go_out_together(direct: None) -> None:
    """Path integrals: i-PI asks for all beads at once, on the thread that waits."""
    options: dict[str, Any] = {"nbeads": 4, "inside": PLAIN}
    with socket_run(more="<batch_size>4</batch_size>", **options) as run:
        got = run.step(2)
        for name, evaluations in (("f0", 3), ("f1", 2 * N + 1)):
            counts = run.fields[name].socket.counts
            assert (counts.forces, counts.messages) == (4 * evaluations, evaluations)
        plain = Run(simulation_xml(PLAIN, nbeads=4)).step(2)
        np.testing.assert_array_equal(got.q, plain.q)


def test_what_cannot_step_together_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not lockstep_systems.can_step_in_lockstep(motions(Run(simulation_xml(PLAIN))))
    stock = replicas(simulation_xml(PLAIN, splitting="baoab"), 2)
    assert not lockstep_systems.can_step_in_lockstep(motions(Run(stock)))
    beads = replicas(simulation_xml(PLAIN, nbeads=2), 2)
    assert not lockstep_systems.can_step_in_lockstep(motions(Run(beads)))


def test_ipis_loop_steps_them_together(
    monkeypatch: pytest.MonkeyPatch, wanted: list[np.ndarray]
) -> None:
    lockstep_systems.install()
    try:
        run = Run(replicas(simulation_xml(PLAIN), COPIES))
        for k in range(STEPS):
            run.simulation.run_step(k)
        for one, two in zip(states(run), wanted, strict=True):
            np.testing.assert_array_equal(one, two)
    finally:
        lockstep_systems.remove()
    assert Simulation.run_step is lockstep_systems._STOCK
    softexit.flist.clear()
