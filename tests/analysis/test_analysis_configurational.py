"""The configurational temperature: exact where BAOAB's kinetic temperature reads low."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from analysis_runs import water_box, write_folder
from dmts_ipi.analysis.configurational import configurational, pick_frames
from dmts_ipi.analysis.kinetic import TO_KELVIN
from dmts_ipi.analysis.run_data import read_run
from dmts_ipi.cli import main
from dmts_ipi.core.errors import InputError
from dmts_ipi.core.model import ForceResult
from dmts_ipi.core.units import AMU_A2_PER_FS2_IN_EV, KB_EV_PER_K
from places import SUPPORT
from toy_water import toy_box

T, DT = 300.0, 1.0
CELL, FREE = np.eye(3), np.zeros(3, bool)


class Springs:
    """Each atom on its own spring to the origin: stiffness by element, eV/A^2."""

    name = identity = "springs"
    elements = None
    cutoff_A = None

    def __init__(self, stiffness: dict[int, float], cubic: float = 0.0) -> None:
        self.stiffness, self.cubic, self.conservative = stiffness, cubic, True

    def compute(self, numbers, positions, cell, pbc) -> ForceResult:
        k = np.array([self.stiffness[int(z)] for z in numbers])[:, None]
        f = -k * positions - 4 * self.cubic * positions**3
        return ForceResult(0.0, f, None)


def baoab(masses: np.ndarray, k: np.ndarray, steps: int, every: int, rng: np.random.Generator):
    """Frames and the mean kinetic temperature of independent oscillators under BAOAB."""
    m, k = masses[:, None] * AMU_A2_PER_FS2_IN_EV, k[:, None]
    shape, c = (len(masses), 3), math.exp(-0.02 * DT)
    x = rng.normal(size=shape) * np.sqrt(KB_EV_PER_K * T / k)
    v = rng.normal(size=shape) * np.sqrt(KB_EV_PER_K * T / m)
    frames, kinetic = [], []
    for step in range(steps):
        v = v - 0.5 * DT * k * x / m
        x = x + 0.5 * DT * v
        v = c * v + math.sqrt(1 - c * c) * np.sqrt(KB_EV_PER_K * T / m) * rng.normal(size=shape)
        x = x + 0.5 * DT * v
        v = v - 0.5 * DT * k * x / m
        if step % every == 0:
            frames.append((x.copy(), CELL))
            kinetic.append(float((masses[:, None] * v**2).mean()) * TO_KELVIN)
    return frames, float(np.mean(kinetic))


def test_harmonic_bonds_under_baoab() -> None:
    """O-H stretch with HMR (16.6 fs) at 1 fs: 289 K of 300 by velocities, 300 by positions."""
    rng = np.random.default_rng(3)
    n = 400
    numbers = np.array([1, 8] * (n // 2))
    masses = np.where(numbers == 1, 4.0, 10.0)
    omega = 2 * math.pi / 16.6
    k = masses * AMU_A2_PER_FS2_IN_EV * omega**2
    frames, kinetic = baoab(masses, k, 2500, 125, rng)
    springs = Springs({1: float(k[0]), 8: float(k[1])})
    found = configurational(springs, numbers, FREE, frames, rng)
    atoms = found.temperature_K["atoms"]
    low = T * (1 - (omega * DT) ** 2 / 4)
    assert found.evaluations == len(frames) * 13
    assert low == pytest.approx(289.3, abs=0.1)
    # 1200 coordinates, 20 frames of which each is new: sqrt(2 / 24000) of 300 K
    assert atoms.stderr == pytest.approx(T * math.sqrt(2 / 24000), rel=0.6)
    assert atoms.mean == pytest.approx(T, abs=4 * 2.74)
    assert kinetic == pytest.approx(low, abs=4 * 2.74)
    assert atoms.mean - kinetic == pytest.approx(T - low, abs=8)
    for name in ("H", "O"):
        assert found.temperature_K[name].mean == pytest.approx(T, abs=4 * 4)


def test_anharmonic_and_coupled() -> None:
    """A quartic well sampled exactly, and a Hessian with large elements beside its diagonal."""
    rng = np.random.default_rng(4)
    grid = np.linspace(-2, 2, 20001)
    k, c = 0.5, 2.0
    weight = np.exp(-(0.5 * k * grid**2 + c * grid**4) / (KB_EV_PER_K * T))
    draw = rng.choice(grid, size=(30, 300, 3), p=weight / weight.sum())
    numbers = np.ones(300, int)
    found = configurational(Springs({1: k}, c), numbers, FREE, [(x, CELL) for x in draw], rng)
    e = found.temperature_K["atoms"]
    assert abs(e.mean - T) < 4 * e.stderr
    assert e.stderr < 6

    class Bonds(Springs):
        def compute(self, numbers, positions, cell, pbc) -> ForceResult:
            d = positions[1::2] - positions[::2]
            f = np.empty_like(positions)
            f[::2], f[1::2] = 30.0 * d, -30.0 * d
            return ForceResult(0.0, f, None)

    d = rng.normal(size=(20, 200, 3)) * math.sqrt(KB_EV_PER_K * T / 30.0)
    frames = []
    for one in d:
        x = np.repeat(rng.normal(size=(200, 3)), 2, axis=0)
        x[1::2] += one
        frames.append((x, CELL))
    e = configurational(Bonds({}), np.array([8, 1] * 200), FREE, frames, rng).temperature_K["atoms"]
    assert abs(e.mean - T) < 4 * e.stderr
    assert e.stderr < 6  # with O and H moved at once it would be 12


def test_refusals() -> None:
    springs = Springs({1: 1.0})
    frames = [(np.ones((2, 3)), CELL)] * 3
    rng = np.random.default_rng(0)
    few = configurational(springs, np.ones(2, int), FREE, frames, rng).temperature_K["atoms"]
    assert math.isfinite(few.mean)
    assert math.isnan(few.stderr)
    springs.conservative = False
    with pytest.raises(InputError, match="predicts forces directly"):
        configurational(springs, np.ones(2, int), FREE, frames, rng)


def test_frames_are_spread(tmp_path: Path) -> None:
    run = read_run(write_folder(tmp_path / "a", water_box(2), time_ps=2.0))
    assert len(pick_frames(run, 0.4, 5)) == 5
    assert len(pick_frames(run, 1.8, 500)) == 5  # every 50 fs from 1.8 to 2 ps
    with pytest.raises(InputError, match="no frame"):
        pick_frames(run, 3.0, 5)


def test_option_of_analyze(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    atoms = toy_box(2, 4.0)
    atoms.set_masses(atoms.get_masses())  # a column of its own, as in a run folder
    folder = write_folder(tmp_path / "a", atoms, time_ps=1.0)
    text = (folder / "run.yaml").read_text()
    (folder / "run.yaml").write_text(text.replace("water-teacher", "ase:toy_water.ToyWater"))
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    words = ["analyze", str(folder), "--out", str(tmp_path / "r.html"), "--configurational", "4"]
    assert main([*words, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    found = record["runs"][0]["configurational_K"]
    # atoms displaced by 0.02 A on springs of 80 eV/A^2 and the like: hot, and not by little
    assert found["atoms"]["mean"] > 300
    assert set(found) == {"atoms", "O", "H"}
    names = [c["observable"] for c in record["comparisons"]]
    assert "configurational temperature" in names
    assert "configurational temperature" in (tmp_path / "r.html").read_text()
    assert main([*words[:-1], "-1"]) == 2
    assert "configurational = -1" in capsys.readouterr().err
