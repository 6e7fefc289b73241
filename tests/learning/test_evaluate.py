"""Errors against hand-made ones, JSON keys, smoothness, the list of models, wrong input."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from dmts_ipi.cli import main
from dmts_ipi.commands.evaluate import two_digits
from dmts_ipi.core.errors import InputError
from dmts_ipi.core.frames import Frame, write_frames
from dmts_ipi.core.harmonic import stiffness_bias
from dmts_ipi.core.model import ForceResult
from dmts_ipi.core.units import AMU_A2_PER_FS2_IN_EV
from dmts_ipi.learning import smoothness
from dmts_ipi.learning.evaluate import evaluate
from dmts_ipi.learning.labelling.sampler import Langevin, hmr_masses, thermal_velocities
from dmts_ipi.models.load import load_model
from toy_water import BOND_A, STIFF_EV_PER_A2, toy_box

TOY = "ase:toy_water.ToyWater"


class Shifted:
    """A model whose forces are another's plus a constant field per element."""

    name, identity, elements, cutoff_A, conservative = "shifted", "x", frozenset({1, 8}), None, True

    def __init__(self, error: np.ndarray | float) -> None:
        self.inner, self.error = load_model(TOY), error

    def compute(self, numbers, positions, cell, pbc) -> ForceResult:
        result = self.inner.compute(numbers, positions, cell, pbc)
        return replace(result, forces_eV_per_A=result.forces_eV_per_A + self.error)


@pytest.fixture(scope="module")
def labels() -> list[Frame]:
    """Six frames and two bursts of 32, labelled by the toy model."""
    model, rng = load_model(TOY), np.random.default_rng(0)
    start = Frame.from_atoms(toy_box())
    masses = hmr_masses(start, 3.0)
    md = Langevin(model, start, masses, thermal_velocities(masses, 300.0, rng), rng, 1.0)
    out = []
    for k in range(40):
        md.step(300.0, 50.0)
        if k >= 34:
            out.append(frame_of(md, -1, 0.0))
    for burst in range(2):
        for _ in range(20):
            md.step(300.0, 50.0)
        for t in range(32):
            md.step(300.0, 0.0)
            out.append(frame_of(md, burst, float(t)))
    return out


def frame_of(md: Langevin, burst: int, time_fs: float) -> Frame:
    return replace(
        md.frame,
        positions=md.positions.copy(),
        velocities_A_per_fs=md.velocities.copy(),
        forces=md.result.forces_eV_per_A,
        energy_eV=md.result.energy_eV,
        burst="" if burst < 0 else str(burst),
        time_fs=time_fs,
        info={"hmr_amu": 3.0, "temperature_K": 300.0},
    )


def test_perfect_model(labels: list[Frame]) -> None:
    figures = evaluate(load_model(TOY), [labels]).as_dict()
    assert figures["n_frames"] == 70
    assert figures["force_mae_eV_per_A"] == 0
    assert max(figures["predicted_heating_K_per_ps"].values()) == pytest.approx(0, abs=1e-12)
    assert figures["n_bursts"] == 2


def test_known_errors(labels: list[Frame]) -> None:
    """0.3 eV/A along z on every hydrogen, -0.1 on every oxygen."""
    error = np.zeros((24, 3))
    error[:, 2] = np.where(labels[0].numbers == 1, 0.3, -0.1)
    result = evaluate(Shifted(error), [labels])
    figures = result.as_dict()
    assert figures["by_element"]["H"]["mae_eV_per_A"] == pytest.approx(0.1)
    assert figures["by_element"]["O"]["rmse_eV_per_A"] == pytest.approx(0.1 / np.sqrt(3))
    assert figures["force_mae_eV_per_A"] == pytest.approx((2 * 0.1 + 0.1 / 3) / 3)
    along, across = figures["along_XH_bonds"], figures["across_XH_bonds"]
    assert along["rmse_eV_per_A"] ** 2 + 2 * across["rmse_eV_per_A"] ** 2 == pytest.approx(0.09)
    assert figures["net_force_of_molecules"]["mae_eV_per_A"] == pytest.approx(0.5 / 3)
    assert figures["worst_atoms"][0]["element"] == "H"
    assert figures["worst_atoms"][0]["error_eV_per_A"] == pytest.approx(0.3)
    # a constant force has no power at the harmonics of the outer step, but for the window's
    assert figures["predicted_heating_K_per_ps"]["4"] < 1.0


class Stiffer(Shifted):
    """A student whose O-H springs are stiffer by a part of the toy model's."""

    by = 0.0

    def compute(self, numbers, positions, cell, pbc) -> ForceResult:
        self.error = np.zeros((len(numbers), 3))
        for h, o in [(a, a - a % 3) for a in np.flatnonzero(numbers == 1)]:
            d = positions[h] - positions[o]
            d -= np.diag(cell) * np.round(d / np.diag(cell))
            r = np.linalg.norm(d)
            pull = -self.by * STIFF_EV_PER_A2 * (r - BOND_A) * d / r
            self.error[h] += pull
            self.error[o] -= pull
        return super().compute(numbers, positions, cell, pbc)


@pytest.mark.parametrize("by", [0.02, -0.02])
def test_student_with_another_stiffness(labels: list[Frame], by: float) -> None:
    """The period is that of k = 40 + 8 * 0.6 eV/A^2 and HMR +3 amu."""
    student = Stiffer(0.0)
    student.by = by
    found = evaluate(student, [labels], outer_fs=[1, 4, 6]).as_dict()["student_stretches"]["O-H"]
    reduced = 1 / (1 / 4.008 + 1 / 9.999) * AMU_A2_PER_FS2_IN_EV
    assert found["period_fs"] == pytest.approx(2 * np.pi * np.sqrt(reduced / 44.8), rel=0.05)
    assert found["student_stiffer"] == pytest.approx(by * 40 / 44.8, rel=0.1)
    assert found["stderr"] < 0.1 * abs(by)
    shift = found["shift_K"]
    assert shift["1"] == pytest.approx(0.0, abs=1e-9)  # one inner step: STS
    assert abs(shift["6"]) > 2 * abs(shift["4"]) > 1.0
    assert np.sign(shift["6"]) == np.sign(by)
    assert found["shift_stderr_K"]["6"] < 0.1 * abs(shift["6"])


def test_stiffness_bias_of_linear_theory() -> None:
    """A stretch of 16.6 fs, as in docs/heating.md; at half a period it runs away."""
    assert stiffness_bias(0.0, 16.6, 6.0) == 0
    assert 300 * stiffness_bias(0.02, 16.6, 6.0) == pytest.approx(8.7, abs=0.1)
    assert stiffness_bias(0.02, 16.6, 8.3) == stiffness_bias(-0.02, 16.6, 8.3) == np.inf


def test_bursts_of_two_files_do_not_mix(labels: list[Frame]) -> None:
    one = evaluate(Shifted(0.05), [labels]).as_dict()
    two = evaluate(Shifted(0.05), [labels, labels]).as_dict()
    assert two["n_bursts"] == 2 * one["n_bursts"]
    assert two["predicted_heating_K_per_ps"] == pytest.approx(one["predicted_heating_K_per_ps"])


def test_short_bursts_are_left_out(labels: list[Frame]) -> None:
    assert evaluate(Shifted(0.05), [labels[:-20]]).as_dict()["n_bursts"] == 1


def test_labels_without_bursts(labels: list[Frame]) -> None:
    assert evaluate(Shifted(0.05), [labels[:6]]).as_dict()["predicted_heating_K_per_ps"] is None


def test_command_json_and_plot(
    labels: list[Frame], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_frames(tmp_path / "labels.extxyz", labels)
    plot = tmp_path / "parity.png"
    base = ["evaluate", "--model", TOY + '{"strength": 0.3}', "--labels"]
    command = [*base, str(tmp_path / "labels.extxyz"), "--plot", str(plot), "--outer-fs", "3", "5"]
    assert main([*command, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    needed = {"force_mae_eV_per_A", "force_rmse_eV_per_A", "n_frames", "by_element"}
    assert needed <= set(figures)
    assert set(figures["predicted_heating_K_per_ps"]) == {"3", "5"}
    assert set(figures["predicted_heating_by_motion_K_per_ps"]) >= {"stretch", "bend"}
    assert plot.read_bytes()[:4] == b"\x89PNG"
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "net force of molecules" in printed
    assert "predicted heating" in printed
    assert "O-H stretches, period" in printed


def test_smoothness_tells_rough_from_smooth() -> None:
    """The same model, and with a ripple of 0.02 A along every coordinate."""
    rng = np.random.default_rng(1)
    frame = Frame.from_atoms(toy_box())
    frame.positions[:] += rng.normal(0, 0.02, frame.positions.shape)

    class Rippled(Shifted):
        def compute(self, numbers, positions, cell, pbc) -> ForceResult:
            self.error = 0.05 * np.sin(2 * np.pi * positions / 0.02)
            return super().compute(numbers, positions, cell, pbc)

    smooth = smoothness.measure(Shifted(0.0), frame, burst_frames=96)
    rough = smoothness.measure(Rippled(0.0), frame, burst_frames=96)
    assert smooth.smooth
    assert not rough.smooth
    assert rough.polynomial_residual_eV_per_A > 50 * smooth.polynomial_residual_eV_per_A
    assert rough.scan.roughness_eV_per_A2 > 50 * smooth.scan.roughness_eV_per_A2
    assert rough.spectrum.slope < smooth.spectrum.slope
    r, k = smooth.scan.r_A, smooth.scan.stiffness_eV_per_A2
    assert r[0] < 0.96 < r[-1]
    assert k.mean() == pytest.approx(40 + 8 * 0.6, rel=0.1)  # O-H, and H-H at its angle
    json.dumps(rough.as_dict())


def test_figures_are_readable() -> None:
    assert [two_digits(v) for v in (0.0123, 1.04, 99.7, -160.4)] == ["0.012", "1", "100", "-160"]


def test_smoothness_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_frames(tmp_path / "box.extxyz", [Frame.from_atoms(toy_box())])
    options = ["--teacher-smoothness", str(tmp_path / "box.extxyz")]
    assert main(["evaluate", "--model", TOY, *options]) == 0
    assert "smooth" in capsys.readouterr().out


def test_smoothness_needs_hydrogen() -> None:
    from ase.build import bulk

    with pytest.raises(InputError, match="X-H"):
        smoothness.hydrogen_bonds_of(Frame.from_atoms(bulk("Cu", cubic=True)))


def test_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    for card in json.loads(capsys.readouterr().out):
        assert {"name", "kind", "elements", "cutoff_A", "identity", "errors"} <= set(card)
    assert main(["models"]) == 0


def test_a_crystal_is_reported_by_element(tmp_path: Path, capsys) -> None:
    model, rng = load_model("ase:ase.calculators.emt.EMT"), np.random.default_rng(0)
    start = Frame.from_atoms(bulk("Cu", cubic=True) * (2, 2, 2))
    masses = hmr_masses(start, 0.0)
    md = Langevin(model, start, masses, thermal_velocities(masses, 300.0, rng), rng, 1.0)
    frames = []
    for t in range(16):
        md.step(300.0, 0.0)
        frames.append(frame_of(md, 0, float(t)))
    write_frames(tmp_path / "labels.extxyz", frames)
    command = ["evaluate", "--model", "ase:ase.calculators.lj.LennardJones"]
    assert main([*command, "--labels", str(tmp_path / "labels.extxyz"), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    by_motion = figures["predicted_heating_by_motion_K_per_ps"]
    assert list(by_motion) == ["Cu"]
    assert by_motion["Cu"] == pytest.approx(figures["predicted_heating_K_per_ps"])
    assert figures["net_force_of_molecules"] is None
