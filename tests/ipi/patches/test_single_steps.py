"""Single steps, then multiple ones, by one i-PI: as if i-PI had been started twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dmts_ipi.core.errors import InputError
from dmts_ipi.ipi.patches.single_steps import SingleSteps
from dmts_ipi.ipi.session import resume
from integrator_tools import BAROSTAT, HHF, LANGEVIN, Run, simulation_xml, thermostat
from run_tools import call

MULTIPLE = [("teacher", (1.0, 0.0)), ("student", (-1.0, 1.0))]


def named(text: str) -> str:
    for field, name in (("f0", "teacher"), ("f1", "student")):
        text = text.replace(f"'{field}'", f"'{name}'")
    return text


@pytest.mark.parametrize(
    ("inside", "options"),
    [
        (thermostat(HHF), {}),  # on arrays
        ("", {"mode": "nve"}),
        (LANGEVIN + BAROSTAT, {"mode": "npt"}),  # by i-PI's own objects
        (LANGEVIN, {"splitting": "baoab"}),
        (LANGEVIN, {"nbeads": 2}),
    ],
)
def test_one_run_is_two(inside: str, options: dict) -> None:
    text = named(simulation_xml(inside, **options))
    single = resume.edited(text.encode(), 1000, resume.single_step_weights(MULTIPLE), None)
    first = Run(single.decode()).step(5)
    state = resume.edited(first.checkpoint().encode(), 1000, MULTIPLE, None)
    second = Run(state.decode()).step(6)

    run, single_steps = Run(text), SingleSteps(5)
    for _ in range(5):
        single_steps.before(run.simulation, run.done)
        run.step()
    np.testing.assert_allclose(run.q, first.q, rtol=0, atol=1e-11)
    assert resume.single_step_weights(MULTIPLE) == [
        (f.ffield, tuple(f.mts_weights)) for f in run.system.forces.mforces
    ]
    for _ in range(6):
        single_steps.before(run.simulation, run.done)
        run.step()
    np.testing.assert_allclose(run.q, second.q, rtol=0, atol=1e-10 * np.abs(second.q).max())
    np.testing.assert_allclose(run.p, second.p, rtol=0, atol=1e-10 * np.abs(second.p).max())
    assert run.conserved == pytest.approx(second.conserved, abs=1e-10)
    plain = Run(text).step(11)
    assert np.abs(plain.q - run.q).max() > 1e-6  # the weights do something


def test_a_negative_step_is_refused(tmp_path: Path) -> None:
    (tmp_path / "input.xml").write_text(simulation_xml(LANGEVIN))
    done = call("i-pi", tmp_path / "input.xml", "--single-steps-until", "-1")
    assert done.returncode == 2
    line = "dmts-ipi i-pi: error: single-steps-until = -1: must not be negative\n"
    assert done.stderr == line


def test_single_steps_need_a_force_that_acts() -> None:
    """The weights of the teacher sum to one; where those of every force sum to zero, none acts."""
    nothing = Run(simulation_xml(LANGEVIN, weights=("[1, -1]", "[-1, 1]")))
    with pytest.raises(InputError, match="single-steps-until = 5: the mts_weights of every force"):
        SingleSteps(5).before(nothing.simulation, 0)
    SingleSteps(5).before(nothing.simulation, 5)  # nothing is left to do
