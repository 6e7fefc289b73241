"""Diagnostics of forces whose curl, work and optimum are known."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from analysis_runs import water_box
from dmts_ipi.analysis import nonconservativity as direct
from dmts_ipi.cli import main
from dmts_ipi.commands.diagnose_text import verdict_of
from dmts_ipi.core.frames import Frame
from dmts_ipi.core.model import ForceResult


@dataclass
class Springs:
    """Harmonic and cubic springs to fixed places, plus ``curl`` times a rotation of every atom."""

    origin: np.ndarray
    curl: float = 0.0
    cubic: float = 3.0
    drift: float = 0.0
    name: str = "springs"
    identity: str = "springs"
    elements: frozenset[int] | None = None
    cutoff_A: float | None = None
    conservative: bool = True

    def compute(
        self, numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray
    ) -> ForceResult:
        d = positions - self.origin[: len(positions)]
        turned = np.stack([-d[:, 1], d[:, 0], 0 * d[:, 2]], axis=1)
        f = -2.0 * d - self.cubic * (d**2).sum(1, keepdims=True) * d + self.curl * turned
        f[:, 0] += self.drift
        energy = float((d**2).sum() + 0.25 * self.cubic * ((d**2).sum(1) ** 2).sum())
        return ForceResult(energy, f, None)


def thermal(seed: int = 1) -> tuple[Frame, np.ndarray]:
    atoms = water_box(2)
    x = atoms.positions + np.random.default_rng(seed).normal(size=(24, 3)) * 0.05
    return Frame(atoms.numbers, x, atoms.cell.array, atoms.pbc), atoms.positions.copy()


def test_gradient_is_symmetric_to_rounding() -> None:
    frame, origin = thermal()
    found = direct.asymmetry(Springs(origin), frame, 9)
    assert found.atoms == 9
    assert found.lambda_ < 1e-9  # cubic springs: without Richardson's step 1e-6
    assert np.abs(direct.loop_work_meV(Springs(origin), frame, 3)).max() < 1e-9


def test_asymmetry_of_a_known_curl() -> None:
    """J = -2 + c R in each block: lambda = sqrt(2) c / sqrt(12 + 2 c^2)."""
    frame, origin = thermal()
    c = 0.3
    found = direct.asymmetry(Springs(origin, curl=c, cubic=0.0), frame, 6)
    expected = np.sqrt(2) * c / np.sqrt(12 + 2 * c * c)
    assert found.lambda_ == pytest.approx(expected, rel=1e-6)
    assert found.onsite == pytest.approx(expected, rel=1e-6)
    assert found.error < 1e-6
    assert all(part == pytest.approx(0, abs=1e-9) for *_, part, _ in found.profile)


def test_work_of_a_loop_is_the_integral_of_the_curl() -> None:
    """By Stokes: 2 c times the area that the loop encloses in the plane, summed over the atoms."""
    frame, origin = thermal()
    one, two = (
        direct.loop_work_meV(Springs(origin, curl=c), frame, 4, points=32) for c in (0.1, 0.2)
    )
    np.testing.assert_allclose(two, 2 * one, rtol=1e-9)
    assert np.abs(one).min() > 0.01
    fine = direct.loop_work_meV(Springs(origin, curl=0.1), frame, 4, points=64)
    np.testing.assert_allclose(one, fine, rtol=1e-6)


def test_cluster_takes_whole_molecules_nearest_first() -> None:
    frame, _ = thermal()
    assert direct.cluster(frame, 1).tolist() == [0, 1, 2]
    assert len(direct.cluster(frame, 7)) == 9
    assert direct.cluster(frame, 500).tolist() == list(range(24))


def test_net_force_is_seen() -> None:
    frame, _ = thermal()
    with_drift = direct.net_forces(Springs(frame.positions, drift=0.01), frame)
    assert with_drift.system_eV_per_A == pytest.approx(0.24)
    assert with_drift.molecules == 8
    assert direct.net_forces(Springs(frame.positions), frame).system_eV_per_A < 1e-12


def test_optimisation_converges_on_a_gradient_and_not_with_a_strong_curl() -> None:
    frame, origin = thermal()
    good = direct.optimise(Springs(origin), frame, 0.01, 200)
    assert good.converged
    assert good.fmax_eV_per_A <= 0.01
    bad = direct.optimise(Springs(origin, curl=30.0), frame, 0.01, 40)
    assert not bad.converged
    assert bad.lowest_fmax_eV_per_A > 0.01


def files(tmp: Path) -> tuple[str, Path]:
    """A model spec and a structure file. Without its repulsion, which jumps at half a cell."""
    atoms = water_box(2)
    path = tmp / "box.extxyz"
    Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True).write(path)
    return 'ase:toy_water.ToyWater {"strength": 0.0}', path


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec, path = files(tmp_path)
    small = ["--atoms", "3", "--loops", "1", "--nve-ps", "0.05", "--optimise-steps", "5",
             "--thermostat-ps", "0.05", "--step-fs", "0.5"]  # fmt: skip
    arguments = ["diagnose", "--model", spec, "--structure", str(path), *small]
    assert main([*arguments, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    found = record["models"][spec]
    assert found["jacobian"]["lambda_"] < 1e-5
    assert abs(found["loop_work_rms_meV"]) < 1e-9
    assert set(found["nve"]["by_element_K"]) == {"O", "H"}
    assert "strong" in " ".join(found)
    assert record["published"]["jacobian_asymmetry_lambda"]["PET-NC"] == 0.004
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "Jacobian asymmetry lambda" in text
    assert "published lambda" in text
    assert "X-H stiffness" in text


def test_verdict_names_who_limits_the_outer_step() -> None:
    def model(name: str, heating: float | None = None, smooth: bool | None = None) -> dict:
        found: dict = {"name": name}
        if heating is not None:
            found["labels"] = {"predicted_heating_K_per_ps": {"6": heating}}
        if smooth is not None:
            found["smoothness"] = {"smooth": smooth}
        return found

    rough = verdict_of({"t": model("t", smooth=False), "s": model("s", 50.0)}, 6.0)
    assert rough.startswith("t is rough")
    fine = verdict_of({"t": model("t", smooth=True), "s": model("s", 0.4)}, 6.0)
    assert "a student limits" in fine
    assert "s holds at 6 fs" in fine
    assert "heats" in verdict_of({"t": model("t"), "s": model("s", 40.0)}, 6.0)
    assert "--labels" in verdict_of({"t": model("t")}, 6.0)


def test_wrong_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec, path = files(tmp_path)
    for arguments, what in (
        (["--model", spec, "--structure", str(tmp_path / "no.xyz")], "does not exist"),
        (["--model", "nothing", "--structure", str(path)], "does not exist"),
        (["--model", spec, spec, "--structure", str(path)], "given twice"),
        (["--model", spec, "--structure", str(path), "--nve-ps", "-1"], "zero or positive"),
        (["--model", spec, "--structure", str(path), "--atoms", "0"], "must be positive"),
    ):
        assert main(["diagnose", *arguments]) == 2
        message = capsys.readouterr().err
        assert what in message
        assert message.count("\n") == 1
