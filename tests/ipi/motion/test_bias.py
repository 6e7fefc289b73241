"""A bias acts in the outermost level, once per kick of that level, in every ensemble."""

from __future__ import annotations

import numpy as np
import pytest

from integrator_tools import BAROSTAT, HHF, LANGEVIN, Run, simulation_xml, thermostat

FORCES = ("k: 0.5", "k: 0.47, bend: 0.16, site: 0.011", "k: 0.02, bend: 0.01, site: 0.003")
TWO, THREE = ("[1, 0]", "[-1, 1]"), ("[1, 0]", "[-1, 1]", "[1, 0]")
BIAS = "<ensemble><bias><force forcefield='f2'></force></bias>"


ENSEMBLES = [
    ("", {"mode": "nve"}),
    (LANGEVIN, {"mode": "nvt"}),
    (thermostat(HHF), {"mode": "nvt"}),
    (LANGEVIN.replace("langevin", "svr"), {"mode": "nvt"}),
    (LANGEVIN + BAROSTAT, {"mode": "npt"}),
]


@pytest.mark.parametrize(
    ("inside", "options", "levels"),
    [(*e, "[1, 4]") for e in ENSEMBLES] + [(*e, "[1]") for e in ENSEMBLES[:-1]],
)
def test_a_bias_is_a_force_of_the_outermost_level(inside: str, options: dict, levels: str) -> None:
    """The same force in <bias> and in <forces> with weights [1, 0]: the same trajectory, and the
    same conserved quantity."""
    if levels == "[1]":
        two, three = ("[1]", "[0]"), ("[1]", "[0]", "[1]")
    else:
        two, three = TWO, THREE
    text = simulation_xml(inside, forces=FORCES, weights=two, levels=levels, **options)
    biased = Run(text.replace("<ensemble>", BIAS))
    force = Run(simulation_xml(inside, forces=FORCES, weights=three, levels=levels, **options))
    assert biased.system.ensemble.has_bias
    assert not biased.integrator.uses_array_loop()
    start = biased.conserved - force.conserved
    biased.step(12)
    force.step(12)
    np.testing.assert_allclose(biased.q, force.q, rtol=0, atol=1e-10)
    np.testing.assert_allclose(biased.p, force.p, rtol=0, atol=1e-9)
    assert biased.conserved - force.conserved == pytest.approx(start, abs=1e-10)
    if options["mode"] == "npt":
        cells = [run.system.cell.h for run in (biased, force)]
        np.testing.assert_allclose(cells[0], cells[1], rtol=1e-12)
    without = Run(text).step(12)
    assert np.abs(without.q - biased.q).max() > 1e-6  # it does something


@pytest.mark.parametrize(("inside", "options"), [e for e in ENSEMBLES if "local" not in e[0]])
def test_with_one_level_a_bias_acts_as_in_ipis_own_integrator(inside: str, options: dict) -> None:
    """Also in NPT, where i-PI's barostat leaves the bias out of the term of second order in the
    time step that couples its momentum to the force of the innermost level."""
    one = {"forces": FORCES, "weights": ("[1]", "[0]"), "levels": "[1]", **options}
    ours, stock = (
        Run(simulation_xml(inside, splitting=name, **one).replace("<ensemble>", BIAS)).step(12)
        for name in ("baoab-respa", "baoab")
    )
    np.testing.assert_allclose(ours.q, stock.q, rtol=0, atol=1e-11)
    assert ours.conserved == pytest.approx(stock.conserved, abs=1e-11)
