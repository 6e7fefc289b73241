"""Fixed atoms, beads, and properties that are not there: right, or left out with a word."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from analysis_runs import maxwell, water_box, write_folder
from dmts_ipi.analysis.compare import compare
from dmts_ipi.analysis.kinetic import TO_KELVIN, KineticSampler
from dmts_ipi.analysis.measure import measure
from dmts_ipi.analysis.observables.conserved import CONSERVED
from dmts_ipi.analysis.observables.temperature import TEMPERATURE
from dmts_ipi.analysis.run_data import RunInput, read_run
from dmts_ipi.analysis.spectrum import SpectrumSampler
from dmts_ipi.analysis.transport import Displacements
from dmts_ipi.analysis.verdict import DEVIATES
from dmts_ipi.cli import main
from dmts_ipi.core.units import AMU_A2_PER_FS2_IN_EV, KB_EV_PER_K

FIXED = np.arange(12)  # four of eight waters


def edit(folder: Path, pattern: str, text: str) -> None:
    """Replaces in ``input.xml``."""
    path = folder / "input.xml"
    before = path.read_text()
    after = re.sub(pattern, text, before)
    assert after != before
    path.write_text(after)


def half_fixed(run: RunInput) -> RunInput:
    """As i-PI writes it: no velocity of fixed atoms, and half of the kinetic energy."""
    frames = run.frames
    still = np.ones(len(run.numbers))
    still[FIXED] = 0.0
    run.frames = lambda: ((s, x, c, v * still[:, None]) for s, x, c, v in frames())
    p = dict(run.properties)
    p["kinetic_eV"] = p["temperature_K"] * run.degrees_of_freedom * KB_EV_PER_K / 2
    run.properties = p
    return run


def test_fixed_atoms_are_no_degrees_of_freedom(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "run", water_box(2), time_ps=8.0)
    free = read_run(folder)
    edit(folder, r"<fixcom>.*?</fixcom>", lambda m: m[0] + f"<fixatoms>{FIXED.tolist()}</fixatoms>")
    run = read_run(folder)
    np.testing.assert_array_equal(np.flatnonzero(~run.moving), FIXED)
    assert (free.degrees_of_freedom, run.degrees_of_freedom) == (72, 36)
    m = measure(half_fixed(run))
    t = TEMPERATURE.of(m)
    assert t.degrees_of_freedom == 36
    for name, e in t.kinetic.items():
        assert abs(e.mean - 300) < 4 * e.stderr, name
    assert t.bond_kinds[0].bonds == 8
    found = [c for c in compare([m], None) if c.observable.startswith("temperature")]
    assert len(found) == 4
    assert all(c.verdict.status != DEVIATES for c in found)
    # the same power heats half as many atoms twice as much
    twice = CONSERVED.of(m).heating_K.mean / CONSERVED.of(measure(free)).heating_K.mean
    assert twice == pytest.approx(2.0)


def test_fixed_centre_of_mass_beside_fixed_atoms(tmp_path: Path) -> None:
    """i-PI does not hold the centre of mass then."""
    run = read_run(write_folder(tmp_path / "run", water_box(1), time_ps=0.1))
    run.fixcom = True
    assert run.degrees_of_freedom == 6
    run.fixed = np.array([0])
    assert run.degrees_of_freedom == 6
    run.n_beads = 4
    assert run.degrees_of_freedom == 24


def test_bond_to_a_fixed_atom_has_the_mass_of_the_other() -> None:
    atoms, rng = water_box(2), np.random.default_rng(5)
    fixed = atoms.numbers == 8
    s = KineticSampler(
        *(atoms.numbers, atoms.get_masses(), atoms.positions, atoms.cell.array, atoms.pbc),
        *(1.0, 300.0, False, fixed),
    )
    for _ in range(3000):
        v = maxwell(atoms.get_masses(), 300.0, rng) * ~fixed[:, None]
        s.add(atoms.positions, atoms.cell.array, v)
    assert s.degrees_of_freedom == 48
    (kind,) = s.bond_kinds()
    assert abs(kind.temperature.mean - 300) < 4 * kind.temperature.stderr
    assert set(s.by_element()) == {"H"}
    # forces on fixed atoms do no work: b = dt^2 <F^2/m> / (4 kT) of the hydrogens only
    force = np.zeros_like(atoms.positions)
    force[:, 0] = np.where(fixed, 1e3, 0.5)
    for _ in range(80):
        s.add_forces(atoms.positions, atoms.cell.array, force)
    assert s.forces_count
    mass = atoms.get_masses()[1]
    lost = 0.25 / (mass * AMU_A2_PER_FS2_IN_EV) / 4 / (3 * KB_EV_PER_K)
    assert s.expected([], True)["H"] == pytest.approx(300 - lost, rel=1e-6)


def test_fixed_atoms_do_not_slow_diffusion_or_spectra() -> None:
    atoms, rng = water_box(2), np.random.default_rng(6)
    fixed = np.zeros(24, bool)
    fixed[:3] = True
    d = Displacements(
        *(atoms.numbers, atoms.get_masses(), atoms.positions, atoms.cell.array * 4),
        *(np.ones(3, bool), 0.1, 400, fixed),
    )
    walk = np.cumsum(rng.normal(size=(400, 7, 3)), axis=0) * 0.05
    moved = np.concatenate([np.zeros((400, 3, 3)), np.repeat(walk, 3, axis=1)], axis=1)
    d.add(atoms.positions + moved)
    d.flush()
    (found,) = d.results(300.0)
    assert (found.kind, found.molecules) == ("H2O", 7)
    lag = 5
    own = np.mean(((walk[lag:] - walk[:-lag]) ** 2).sum(-1))
    assert found.msd_A2[lag] == pytest.approx(own, rel=1e-9)

    s = SpectrumSampler(atoms.numbers, atoms.get_masses(), 0.002, 2000, atoms.numbers == 8)
    masses = atoms.get_masses()
    s.add(np.array([maxwell(masses, 300.0, rng) for _ in range(2000)]))
    (hydrogen,) = s.results()
    area = float(hydrogen.density_K_per_THz.sum() * hydrogen.resolution_THz)
    assert (hydrogen.element, area) == ("H", pytest.approx(300, rel=0.05))


def test_beads_are_counted_and_what_is_classical_is_left_out(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "run", water_box(2), time_ps=8.0)
    edit(folder, r'nbeads="1"', 'nbeads="4"')
    run = read_run(folder)
    assert (run.n_beads, run.degrees_of_freedom) == (4, 288)
    frames = run.frames
    # velocities of one bead are at four times the temperature, i-PI's own column is right
    run.frames = lambda: ((s, x, c, 2 * v) for s, x, c, v in frames())
    m = measure(run)
    t = TEMPERATURE.of(m)
    assert set(t.kinetic) == {"atoms"}
    assert t.expected == {k: 300.0 for k in t.expected}
    assert abs(t.kinetic["atoms"].mean - 300) < 4 * t.kinetic["atoms"].stderr
    assert any(note.startswith("4 beads") for note in m.notes)
    assert math.isnan(CONSERVED.of(m).heating_K.mean)
    assert not {"diffusion", "velocity_spectrum"} & set(m.results)
    assert "pair_distribution" in m.results
    assert all(c.verdict.status != DEVIATES for c in compare([m], None))


COLUMNS = {
    "potential": "no 'potential{electronvolt}'",
    "conserved": "no 'conserved{electronvolt}'",
    "kinetic_md": "",
    "time": "",
    "temperature": "",
}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_less_is_done_without(tmp_path: Path, name: str) -> None:
    folder = write_folder(tmp_path / "run", water_box(2), time_ps=2.0)
    whole = measure(read_run(folder))
    without(folder, name)
    out = tmp_path / "r.html"
    assert main(["analyze", str(folder), "--out", str(out)]) == 0
    (run,) = json.loads(out.with_suffix(".json").read_text())["runs"]
    assert COLUMNS[name] in "; ".join(run["notes"])
    np.testing.assert_allclose(run["series"]["time_ps"], whole.time_ps, rtol=1e-9, atol=1e-9)
    mean = TEMPERATURE.of(whole).kinetic["atoms"].mean
    assert run["temperature_K"]["atoms"]["mean"] == pytest.approx(mean, rel=1e-6)
    assert ("potential_meV_per_atom" in run["series"]) == (name != "potential")


def test_no_temperature_at_all_is_that_of_the_frames(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "run", water_box(2), time_ps=2.0)
    without(folder, "temperature")
    without(folder, "kinetic_md")
    m = measure(read_run(folder))
    t = TEMPERATURE.of(m)
    assert t.series_K is None
    assert abs(t.kinetic["atoms"].mean - 300) < 4 * t.kinetic["atoms"].stderr
    assert any("that of the frames" in note for note in m.notes)
    run = read_run(folder)
    run.frames = lambda: iter(())
    m = measure(run)
    assert "temperature" not in m.results
    assert any("neither 'temperature{kelvin}'" in note for note in m.notes)
    out = tmp_path / "r.html"
    for name in ("md.velocities_0.xyz", "md.positions_0.xyz"):
        (folder / name).write_text("")
    assert main(["analyze", str(folder), "--out", str(out)]) == 0


def without(folder: Path, name: str) -> None:
    """Takes a column out of the properties file."""
    path = folder / "md.properties"
    lines = path.read_text().splitlines()
    head = [x for x in lines if x.startswith("#")]
    keep = [k for k, x in enumerate(head) if f"--> {name}" not in x]
    assert len(keep) == len(head) - 1
    text = [f"# column   {n + 1}     --> {head[k].split('--> ')[1]}" for n, k in enumerate(keep)]
    rows = [" ".join(x.split()[k] for k in keep) for x in lines if not x.startswith("#")]
    path.write_text("\n".join(text + rows) + "\n")


def test_temperature_of_a_maxwell_frame_is_in_kelvin() -> None:
    masses = np.full(4000, 12.0)
    v = maxwell(masses, 300.0, np.random.default_rng(1))
    assert float((masses[:, None] * v**2).mean()) * TO_KELVIN == pytest.approx(300, rel=0.05)
