"""The search for the outer step: its logic on known heatings, and the command on a toy water."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from dmts_ipi.analysis import tuning
from dmts_ipi.cli import main
from dmts_ipi.commands.tune import shift_line
from dmts_ipi.core.statistics import Estimate
from dmts_ipi.core.units import KB_EV_PER_K
from dmts_ipi.ipi.run_folder.folder import RunFolder
from places import SUPPORT
from toy_water import toy_box

UNKNOWN = Estimate(math.nan, math.nan, math.nan, 0)


def trial(n: int, heating: float, error: float = 0.1) -> tuning.Trial:
    return tuning.Trial(n, float(n), Estimate(heating, error, 1.0, 100), 3.0, UNKNOWN, float(n))


@pytest.mark.parametrize("largest", [1, 3, 5, 8])
@pytest.mark.parametrize("guess", [2, 5, 8])
def test_bracket_finds_the_limit_from_any_guess_in_few_trials(largest: int, guess: int) -> None:
    made: list[int] = []

    def run(n: int) -> tuning.Trial:
        made.append(n)
        return trial(n, 0.1 if n <= largest else math.inf)

    choice = tuning.bracket(range(2, 9), guess, run)
    found = choice.chosen.n_inner if choice.chosen else 1
    assert found == largest
    assert len(made) == len(set(made)) <= abs(largest - guess) + 2
    assert [t.n_inner for t in choice.trials] == sorted(made)


def test_a_heating_within_its_error_of_the_limit_does_not_hold() -> None:
    assert trial(5, 2.0, 0.5).holds
    assert not trial(5, 2.8, 0.5).holds
    assert not trial(5, math.inf).holds
    assert trial(5, -4.0, 0.5).holds


def test_guess_stops_at_the_first_step_that_heats() -> None:
    limits = dict.fromkeys(range(2, 6), 3.0)
    assert tuning.first_guess({2: 0.1, 3: 0.2, 4: 9.0, 5: 0.3}, limits) == 3  # a resonance at 4
    assert tuning.first_guess({2: 50.0, 3: 60.0}, limits) == 2
    assert tuning.first_guess({2: 0.1, 3: 0.2, 4: 9.0, 5: 0.3}, {**limits, 4: 10.0}) == 5


def test_limits_follow_the_friction_where_the_heat_goes_in() -> None:
    masses = np.array([10.0, 4.0, 4.0])
    pairs = np.array([[0, 1], [0, 2]])
    plain = tuning.frictions(np.ones(3), masses, pairs, 0.0)
    assert (plain.stretch_per_ps, plain.atoms_per_ps) == (pytest.approx(1), pytest.approx(1))
    assert plain.limit(3.0, 99.0, 0.7) == pytest.approx(3.0)
    # two stretches of nine degrees of freedom: the heat of all in them makes 4.5 times the mean
    assert plain.limit(3.0, 9.0, 1.0) == pytest.approx(2.0)
    assert plain.bonds(0.5) == pytest.approx(2.25)
    hhf = tuning.frictions(np.array([1.0, 10.0, 10.0]), masses, pairs, 50.0)
    assert hhf.atoms_per_ps == pytest.approx(7.0)
    # the hydrogen moves 10 parts of 14 of a stretch, the oxygen 4
    assert hhf.stretch_per_ps == pytest.approx((10 * 10 + 1 * 4) / 14 + 50)
    assert hhf.limit(3.0, 99.0, 0.0) == pytest.approx(21.0)
    assert hhf.limit(3.0, 99.0, 1.0) == pytest.approx(3.0 * hhf.stretch_per_ps)
    assert hhf.limit(3.0, 99.0, 2.0) == hhf.limit(3.0, 99.0, 1.0)  # parts by motion may cancel
    none = tuning.frictions(np.array([1.0, 3.0]), np.ones(2), np.zeros((0, 2), int), 50.0)
    assert none.limit(2.0, 0.1, 0.5) == pytest.approx(4.0)


def test_the_fastest_setting_is_taken_and_the_first_one_where_it_is_as_fast() -> None:
    def chosen(n: int | None) -> tuning.Choice:
        return tuning.Choice(None if n is None else trial(n, 0.1), [])

    assert tuning.fastest({"own": chosen(20), "hhf": chosen(21)}) == "own"
    assert tuning.fastest({"own": chosen(20), "hhf": chosen(22)}) == "hhf"
    assert tuning.fastest({"own": chosen(None), "hhf": chosen(2)}) == "hhf"
    assert tuning.fastest({"own": chosen(None)}) is None


def test_a_longer_trial_that_does_not_hold_gives_way_to_the_next_smaller() -> None:
    trials = [trial(4, 0.1), trial(5, math.inf), trial(6, 0.2), trial(7, 0.3)]
    choice = tuning.Choice(trials[-1], trials)
    assert choice.confirmed(trial(7, 1.0)).chosen == trial(7, 1.0)
    assert choice.confirmed(trial(7, 9.0)).chosen == trial(6, 0.2)
    assert tuning.Choice(trials[0], trials[:1]).confirmed(trial(4, 9.0)).chosen is None


def test_heating_is_the_slope_of_the_conserved_quantity() -> None:
    rng, n, rate = np.random.default_rng(1), 192, 4.0
    time = np.arange(400) * 0.006
    energy = rate * time * 3 * n * KB_EV_PER_K + rng.normal(size=400) * 0.01
    found = tuning.heating(time, energy, n)
    assert found.mean == pytest.approx(rate, abs=4 * found.stderr)
    assert found.stderr < 0.1
    energy[300] = math.nan
    assert math.isinf(tuning.heating(time, energy, n).mean)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    toy_box(2, 4.0).write(tmp_path / "box.extxyz")
    path = tmp_path / "run"
    arguments = ["init", str(path), "--structure", str(tmp_path / "box.extxyz"), "--n-inner", "2"]
    arguments += ["--teacher", "ase:toy_water.ToyWater"]
    arguments += ["--student", 'ase:toy_water.ToyWater {"strength": 0.15}']
    arguments += ["--time-ps", "1", "--accept-foreign-student", "--no-model-check"]
    assert main(arguments) == 0
    return path


def test_command_tunes_and_writes(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two candidates: a smooth, soft error of the student heats at neither."""
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    capsys.readouterr()
    arguments = ["tune", str(folder), "--n-inner", "2", "3", "--trial-ps", "0.5"]
    arguments += ["--confirm-ps", "0.5", "--tolerance-K", "1000", "--json", "--thermostats", "own"]
    assert main(arguments) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["chosen_n_inner"] == 3
    assert record["written"]
    assert [p["outer_fs"] for p in record["predicted"]] == [2, 3]
    assert all(p["K_per_ps"] >= 0 for p in record["predicted"])
    # all of it in 16 bonds of 72 degrees of freedom would be 4.5 times the mean at 1/ps
    chosen = next(t for t in record["trials"] if t["n_inner"] == 3)
    assert 0 <= record["bonds_K"] <= 4.5 * max(chosen["heating_K_per_ps"], 0) + 1e-9
    (shift,) = record["shifts"]  # the student's bonds are the teacher's
    assert shift["bonds"] == "O-H"
    assert abs(shift["student_stiffer"]) < 1e-3
    assert abs(shift["shift_K"]) < 0.1
    assert all(math.isfinite(t["heating_K_per_ps"]) for t in record["trials"])
    assert (folder / "tune" / "tune.png").stat().st_size > 5000
    assert RunFolder(folder).config.n_inner == 3
    spec = RunFolder(folder).spec()
    assert spec.n_inner == 3
    assert spec.outer_fs == pytest.approx(3.0)
    assert spec.total_steps == 334


def test_friction_and_inner_step_are_chosen_and_written(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    monkeypatch.setattr(tuning, "fastest", lambda choices: list(choices)[-1])
    capsys.readouterr()
    arguments = ["tune", str(folder), "--n-inner", "2", "--trial-ps", "0.2", "--confirm-ps", "0.2"]
    arguments += ["--tolerance-K", "1000", "--thermostats", "hhf", "bonds", "--inner-fs", "1", "2"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "bonds 50/ps, inner 2 fs, n_inner 2, outer step 4 fs: heating within" in said
    assert f"written into {folder}" in said
    assert "O-H bonds: the student is" in said
    for slug in ("hhf-n02", "hhf-2fs-n02", "bonds-n02", "bonds-2fs-n02"):
        assert (folder / "tune" / slug / "summary.json").is_file()
    config = RunFolder(folder).config
    assert (config.inner_fs, config.n_inner, config.bond_friction_per_ps) == (2.0, 2, 50.0)
    assert config.friction_by_element_per_ps == {}
    text = (folder / "input.xml").read_text()
    assert "<bonds names='O, H'>" in text.replace('"', "'")
    assert RunFolder(folder).spec().outer_fs == pytest.approx(4.0)
    capsys.readouterr()
    assert main(["run", str(folder), "--time-ps", "0.02"]) == 0  # i-PI takes what was written


def test_a_shift_of_bonds_beyond_the_tolerance_is_told() -> None:
    of = {"bonds": "O-H", "student_stiffer": -0.02, "shift_K": -17.2, "shift_stderr_K": math.nan}
    assert shift_line(of, 20.0) == (
        "O-H bonds: the student is softer by 2 %, which shifts them by -17 K without heating"
    )
    assert shift_line(of, 10.0).endswith(
        "more than 10 K: take a smaller outer step, or distil again"
    )


def test_wrong_input(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    sts = tmp_path / "sts"
    structure = str(tmp_path / "box.extxyz")
    main(["init", str(sts), "--mode", "sts", "--structure", structure, "--no-model-check",
          "--teacher", "ase:toy_water.ToyWater"])  # fmt: skip
    capsys.readouterr()
    for arguments, what in (
        ([str(tmp_path / "none")], "run.yaml"),
        ([str(sts)], "only runs of mode dmts"),
        ([str(folder), "--tolerance-K", "0"], "must be positive"),
        ([str(folder), "--n-inner", "0"], "from 1 to 100"),
        ([str(folder), "--inner-fs", "0"], "inner_fs = 0.0: must be positive"),
        ([str(folder), "--labels", str(tmp_path / "no.extxyz")], "does not exist"),
    ):
        assert main(["tune", *arguments]) == 2
        message = capsys.readouterr().err
        assert what in message
        assert message.count("\n") == 1
    assert not (folder / "tune").exists()
