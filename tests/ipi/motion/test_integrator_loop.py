"""The loop on arrays: random numbers drawn ahead, and inner steps in C. Nothing may change."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from ipi.utils.prng import Random

from dmts_ipi.core.compiled import NotCompiled
from dmts_ipi.ipi.motion import loops
from dmts_ipi.ipi.motion.inner_step import InnerStep
from dmts_ipi.ipi.patches.prefetched_rng import PrefetchedNormals, prefetched
from integrator_tools import BONDS, HHF, LANGEVIN, Run, simulation_xml, thermostat

needs_compiler = pytest.mark.skipif(
    not any(shutil.which(c) for c in ("cc", "gcc", "clang")), reason="no C compiler"
)


def ahead_of(random: Random) -> PrefetchedNormals:
    found = prefetched(random)
    assert found is not None
    assert prefetched(random) is found
    return found


def state(random: Random) -> str:
    return json.dumps(random.state, default=lambda a: a.tolist())


@pytest.mark.parametrize("seed", range(8))
def test_numbers_and_states_are_those_of_the_generator(seed: int) -> None:
    """Whatever is asked for, in whatever order, whenever numbers are drawn ahead."""
    plain, random = Random(seed=11), Random(seed=11)
    ahead = ahead_of(random)
    choose = np.random.default_rng(seed)
    drawn = 0
    for _ in range(400):
        what = choose.choice(["gvec", "gvec", "gvec", "prepare", "prepare", "u", "g", "state"])
        if what == "gvec":
            shape = [6, 6, 9, (2, 3)][choose.integers(4)]
            np.testing.assert_array_equal(random.gvec(shape), plain.gvec(shape))
        elif what == "prepare":
            ahead.prepare()
            drawn += ahead.ahead
        elif what == "state":
            assert state(random) == state(plain)
        else:
            assert getattr(random, what) == getattr(plain, what)
    assert drawn > 50
    assert state(random) == state(plain)


def test_what_a_step_took_is_drawn_for_the_next_one() -> None:
    random = Random(seed=1)
    ahead = ahead_of(random)
    ahead.prepare()
    assert ahead.ahead == 0
    for _ in range(3):
        random.gvec(6)
    for _ in range(3):
        ahead.prepare()
        assert ahead.ahead == 18
        for left in (12, 6, 0):
            random.gvec(6)
            assert ahead.ahead == left
    ahead.prepare()
    before = state(random)  # puts the generator back
    assert ahead.ahead == 0
    random.state = random.state
    assert state(random) == before
    random.u  # noqa: B018
    random.gvec(6)
    ahead.prepare()
    assert ahead.ahead == 0  # a uniform number came between


def test_numbers_of_several_threads_are_left_alone() -> None:
    random = Random(seed=1, n_threads=2)
    assert prefetched(random) is None


# of each inner step: three of an atom, a coin, one of each pair
@pytest.mark.parametrize(("inside", "drawn"), [(HHF, 72), (HHF + BONDS, 72 + 1 + 24)])
def test_the_integrator_draws_while_it_waits(inside: str, drawn: int) -> None:
    run = Run(simulation_xml(thermostat(inside))).step(3)
    ahead = ahead_of(run.simulation.prng)
    assert ahead.ahead == 4 * drawn  # 24 atoms, 4 inner steps
    text = run.checkpoint()
    again = Run(text)
    run.step(3)
    again.step(3)
    np.testing.assert_array_equal(run.q, again.q)
    assert ahead_of(again.simulation.prng).ahead == ahead.ahead


def by_numpy(
    q: np.ndarray, p: np.ndarray, force: np.ndarray, normal: np.ndarray, factors: tuple,
    kicks: int, ffl: bool,
) -> float:  # fmt: skip
    drift, root, decay, noise = factors
    for _ in range(kicks):
        p += force * 0.3
    q += p * drift
    x = p / root
    new = x * decay + noise * normal
    if ffl:
        old3, new3 = x.reshape(-1, 3), new.reshape(-1, 3)
        was, now = (np.sqrt((a * a).sum(axis=1)) for a in (old3, new3))
        moving = was > 0
        ratio = now / np.where(moving, was, 1.0)
        new3[moving] = old3[moving] * ratio[moving, None]
    p[:] = new * root
    q += p * drift
    return 0.5 * float(x @ x - new @ new)


@needs_compiler
@pytest.mark.parametrize("kicks", [1, 2])
@pytest.mark.parametrize("ffl", [False, True])
def test_inner_steps_in_c_are_those_of_numpy_to_the_last_bit(kicks: int, ffl: bool) -> None:
    rng = np.random.default_rng(5)
    for n in (3, 48, 1002):
        q, p, force, normal = rng.normal(size=(4, n)) * rng.uniform(1e-3, 1e3, n)
        p[:3] = force[:3] = 0.0  # an atom at rest
        mass = np.repeat(rng.uniform(1e3, 3e4, n // 3), 3)
        decay = np.exp(-rng.uniform(0, 0.3, n))
        factors = 20 / mass, np.sqrt(mass), decay, np.sqrt(1e-3 * (1 - decay**2))
        other_q, other_p = q.copy(), p.copy()
        compiled = InnerStep(q, p, *factors, ffl)
        for _ in range(3):
            heat = compiled.step(force, 0.3, kicks, normal)
            expected = by_numpy(other_q, other_p, force, normal, factors, kicks, ffl)
            np.testing.assert_array_equal(q, other_q)
            np.testing.assert_array_equal(p, other_p)
            size = float((p * p / mass).sum()) + abs(expected)
            assert heat == pytest.approx(expected, abs=1e-12 * size)


@needs_compiler
@pytest.mark.parametrize("mode", ["langevin", "ffl", "bonds"])
@pytest.mark.parametrize("levels", ["[1, 4]", "[2, 3]", "[3]"])
def test_a_run_does_not_depend_on_a_compiler(
    mode: str, levels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = ("[1, 0]", "[-1, 1]") if "," in levels else ("[1]", "[0]")
    inside = thermostat(HHF + BONDS) if mode == "bonds" else thermostat(HHF, mode)
    xml = simulation_xml(inside, levels=levels, weights=weights)
    run = Run(xml).step(5)
    assert run.integrator._compiled is not None
    for unit in ("inner_step.c", "bond_step.c"):
        monkeypatch.setitem(loops._found, unit, NotCompiled("no compiler"))
    other = Run(xml).step(5)
    assert other.integrator._compiled is None
    np.testing.assert_array_equal(run.q, other.q)
    np.testing.assert_array_equal(run.p, other.p)
    assert run.conserved == pytest.approx(other.conserved, abs=1e-11)


@pytest.mark.parametrize(
    ("inside", "options"),
    [(HHF + BONDS, {"fixcom": True}), (HHF, {"fixcom": True}), ("", {"mode": "nve"})],
    ids=["bonds", "fixcom", "nve"],
)
def test_other_steps_go_by_numpy(inside: str, options: dict) -> None:
    text = LANGEVIN if options.get("mode") == "nve" else thermostat(inside)
    run = Run(simulation_xml(text, **options)).step(2)
    assert run.integrator._compiled is None


@needs_compiler
def test_arrays_that_c_could_not_read_are_refused() -> None:
    q, p, *factors = np.ones((6, 9))
    for k, wrong in enumerate((factors[0][::-1], factors[1].astype(np.float32), factors[2][:6])):
        given = list(factors)
        given[k] = wrong
        with pytest.raises(NotCompiled, match="is no array of 9 doubles"):
            InnerStep(q, p, *given, False)
