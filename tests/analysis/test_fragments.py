"""Molecules, and crystals that are none: fragments, g(r), displacements, words."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk

from analysis_runs import water_box
from dmts_ipi.analysis.figures import STYLE, palette_of
from dmts_ipi.analysis.fragments import fragments
from dmts_ipi.analysis.measure import Measured
from dmts_ipi.analysis.observables.diffusion import DIFFUSION, Displaced
from dmts_ipi.analysis.observables.force_difference import _ticks
from dmts_ipi.analysis.rdf import PairHistogram
from dmts_ipi.analysis.run_data import RunInput
from dmts_ipi.analysis.transport import Displacements, relaxation_ps


def of(atoms: Atoms) -> tuple[int, int]:
    """Fragments, and atoms that are alone."""
    found = fragments(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)
    return int(found.label.max()) + 1, int(found.single.sum())


def test_molecules_and_networks() -> None:
    water, copper = water_box(2), bulk("Cu", cubic=True) * (3, 3, 3)
    assert of(water) == (8, 0)
    assert of(copper) == (108, 108)
    assert of(bulk("Si", cubic=True) * (2, 2, 2)) == (64, 64)
    assert of(bulk("NaCl", "rocksalt", a=5.64, cubic=True) * (2, 2, 2)) == (64, 64)
    one = Atoms("OH2", [[0, 0, 0], [0.97, 0, 0], [-0.24, 0.94, 0]], cell=[10.0] * 3, pbc=True)
    assert of(one) == (1, 0)
    one.positions -= 0.3  # across the boundary
    one.wrap()
    assert of(one) == (1, 0)


def test_a_crystal_has_a_first_peak() -> None:
    copper, rng = bulk("Cu", cubic=True) * (3, 3, 3), np.random.default_rng(1)
    pairs = PairHistogram(copper.numbers, copper.positions, copper.cell.array, copper.pbc)
    for _ in range(40):
        x = copper.positions + rng.normal(size=(108, 3)) * 0.08
        pairs.add(x, copper.cell.array)
    (d,) = pairs.results()
    assert d.peak is not None
    assert abs(d.peak.position_A - 3.61 / math.sqrt(2)) < 0.05
    np.testing.assert_array_equal(d.outside, d.g)


def vibrating(atoms: Atoms, frames: int = 400) -> Displacements:
    rng = np.random.default_rng(2)
    d = Displacements(
        *(atoms.numbers, atoms.get_masses(), atoms.positions, atoms.cell.array),
        *(np.ones(3, bool), 0.1, frames),
    )
    d.add(atoms.positions + rng.normal(size=(frames, len(atoms), 3)) * 0.08)
    d.flush()
    return d


def test_what_does_not_diffuse_is_not_compared(tmp_path: Path) -> None:
    import matplotlib

    copper = bulk("Cu", cubic=True) * (3, 3, 3)
    found = vibrating(copper).results(300.0)
    (d,) = found
    assert (d.kind, d.molecules, d.caged, d.single) == ("Cu", 108, True, True)
    assert math.isnan(relaxation_ps(found))  # nothing has to relax
    several = []
    for name in ("sts", "mts"):
        run = RunInput(
            *(tmp_path / name, name, "sts", "nvt", 4.0, 1, 300.0, copper.numbers),
            *(copper.get_masses(), copper.positions, copper.cell.array, copper.pbc),
            {"step": np.arange(3), "time_ps": np.arange(3.0)},
            lambda: iter(()),
        )
        several.append(Measured(run, 0.0, run.properties["time_ps"]))
        several[-1].results["diffusion"] = Displaced(found)
    assert DIFFUSION.against_reference(several[1], several[0]) == []
    assert DIFFUSION.terminal(several[1], several[0]) == []
    with matplotlib.rc_context(STYLE):
        (plot,) = DIFFUSION.plots(several, palette_of(several, several[0]))
    assert plot.caption.startswith("Of atoms")
    assert "nothing diffuses" in plot.caption
    assert several[0].run.system == "108 Cu"


def test_ticks_of_a_logarithmic_axis_do_not_meet() -> None:
    for low, high in ((1e-4, 3e-4), (1e-5, 2.0), (2e-7, 3e2), (0.021, 0.029), (1.3, 1.4)):
        ticks = np.array(_ticks(low, high))
        assert 1 <= len(ticks) <= 9
        assert (ticks >= low).all()
        assert (ticks <= high).all()
        assert np.diff(np.log10(ticks), prepend=-99).min() > 0.25
