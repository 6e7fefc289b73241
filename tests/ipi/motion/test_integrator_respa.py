"""BAOAB-RESPA in i-PI: against a NumPy program of its own, against STS, back in time, restarted."""

from __future__ import annotations

import numpy as np
import pytest

import integrator_pes
from dmts_ipi.core.errors import InputError
from integrator_tools import (
    BAROSTAT,
    BONDS,
    HHF,
    KELVIN,
    LANGEVIN,
    SIDE,
    THERMOSTATS,
    Run,
    simulation_xml,
    thermostat,
)

FORCES = ({"k": 0.5}, {"k": 0.47, "bend": 0.16, "site": 0.011})


def reference(run: Run, steps: int, n: int, tau: np.ndarray, ffl: bool = False) -> tuple:
    """Positions and momenta by Algorithm 1 of DOI 10.1021/acs.jctc.6c00653, in plain NumPy.

    Velocities and accelerations, and the two forces by name: nothing is shared with our classes
    but the random numbers, which are drawn in the same order.
    """
    rng = np.random.Generator(np.random.MT19937())
    rng.bit_generator.state = run.simulation.prng.state[0]
    slow, fast = (integrator_pes.Waters(**f) for f in FORCES)
    cell = np.eye(3) * SIDE
    x, m = run.q[0].reshape(-1, 3), run.m.reshape(-1, 3)
    v = run.p[0].reshape(-1, 3) / m
    big = float(run.motion.dt)
    small = big / n
    gamma = 1.0 / tau.reshape(-1, 3)
    kT = 300 * KELVIN

    def force(model: integrator_pes.Waters) -> np.ndarray:
        return model.compute_structure(cell, x)[1]

    f_nc, f = force(fast), force(slow)
    for _ in range(steps):
        v = v + big / 2 * (f - f_nc) / m
        for _ in range(n):
            v = v + small / 2 * f_nc / m
            x = x + small / 2 * v
            noise = rng.standard_normal(x.size).reshape(x.shape)
            new = np.exp(-gamma * small) * v
            new = new + np.sqrt(kT * (1 - np.exp(-2 * gamma * small)) / m) * noise
            if ffl:
                new = np.linalg.norm(new, axis=1)[:, None] * v / np.linalg.norm(v, axis=1)[:, None]
            v = new
            x = x + small / 2 * v
            f_nc = force(fast)
            v = v + small / 2 * f_nc / m
        f = force(slow)
        v = v + big / 2 * (f - f_nc) / m
    return x.ravel(), (v * m).ravel()


def close(run: Run, other: Run, tolerance: float = 1e-10) -> None:
    """Positions and momenta agree, relative to their size."""
    for a, b in ((run.q, other.q), (run.p, other.p)):
        assert np.abs(a - b).max() < tolerance * np.abs(b).max()


@pytest.mark.parametrize("kind", ["langevin", "hhf", "ffl"])
def test_equals_an_independent_program(kind: str) -> None:
    run = Run(simulation_xml(THERMOSTATS[kind]))
    fs = float(run.motion.dt) / 2
    labels = np.repeat(np.array(run.system.beads.names), 3)
    tau = np.full(len(labels), 200.0 if kind == "langevin" else 1000.0)
    if kind != "langevin":
        tau[labels == "H"] = 100.0
    x, p = reference(run, 100, 4, tau * fs, kind == "ffl")
    start = run.q[0]
    run.step(100)
    assert np.abs(x - start).max() > 0.05  # it went somewhere
    np.testing.assert_allclose(run.q[0], x, rtol=0, atol=1e-10 * np.abs(x).max())
    np.testing.assert_allclose(run.p[0], p, rtol=0, atol=1e-10 * np.abs(p).max())


@pytest.mark.parametrize("kind", ["langevin", "ffl", "bonds", "svr", "gle"])
def test_one_inner_step_is_single_time_stepping(kind: str) -> None:
    inside = THERMOSTATS[kind]
    mts = Run(simulation_xml(inside, levels="[1, 1]", outer_fs=0.5)).step(60)
    sts = Run(
        simulation_xml(inside, levels="[1]", weights=("[1]",), forces=("k: 0.5",), outer_fs=0.5)
    ).step(60)
    close(mts, sts)
    assert mts.conserved == pytest.approx(sts.conserved, abs=1e-10)


@pytest.mark.parametrize("kind", ["hhf", "svr", "gle"])
def test_student_like_teacher_is_single_time_stepping_at_the_inner_step(kind: str) -> None:
    inside = THERMOSTATS[kind]
    mts = Run(simulation_xml(inside, forces=("k: 0.5", "k: 0.5"))).step(15)
    options = {"levels": "[1]", "weights": ("[1]",), "forces": ("k: 0.5",), "outer_fs": 0.5}
    sts = Run(simulation_xml(inside, **options)).step(60)
    close(mts, sts)


@pytest.mark.parametrize("levels", ["[1]", "[3]"])
@pytest.mark.parametrize("nbeads", [1, 4])
@pytest.mark.parametrize("kind", ["langevin", "svr", "gle"])
def test_one_level_is_baoab_of_ipi(levels: str, nbeads: int, kind: str) -> None:
    # i-PI's own with one level acts every nmts steps, so one step of a third is the same
    options = {"weights": ("[1]",), "forces": ("k: 0.5",), "nbeads": nbeads, "fixcom": True}
    n = int(levels[1])
    inside = THERMOSTATS[kind]
    ours = Run(simulation_xml(inside, levels=levels, outer_fs=0.5 * n, **options)).step(30 // n)
    options["splitting"] = "baoab"
    stock = Run(simulation_xml(inside, levels="[1]", outer_fs=0.5, **options)).step(30)
    close(ours, stock)
    assert ours.conserved == pytest.approx(stock.conserved, abs=1e-10)


@pytest.mark.parametrize("fixcom", [False, True])
@pytest.mark.parametrize("levels", ["[1, 4]", "[2, 3]", "[1, 2, 2]"])
def test_nve_is_that_of_ipi(levels: str, fixcom: bool) -> None:
    options = {"mode": "nve", "levels": levels, "fixcom": fixcom}
    if levels.count(",") == 2:
        options["weights"] = ("[1, 0, 0]", "[-1, 1, 0]", "[0, -1, 1]")
        options["forces"] = ("k: 0.5", "k: 0.5, site: 0.011", "k: 0.47")
    ours = Run(simulation_xml("", **options)).step(20)
    stock = Run(simulation_xml("", splitting="obabo", **options)).step(20)
    close(ours, stock)
    assert ours.integrator is not stock.integrator
    assert type(ours.integrator) is not type(stock.integrator)


@pytest.mark.parametrize("fixcom", [False, True])
@pytest.mark.parametrize("kind", ["hhf", "ffl", "bonds", "svr", "gle"])
def test_the_loop_on_arrays_is_the_general_one(
    kind: str, fixcom: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a swirl pushes the centre of mass, so that holding it matters
    text = simulation_xml(
        THERMOSTATS[kind], fixcom=fixcom, forces=("k: 0.5, swirl: 1e-3", "k: 0.47"), levels="[1, 2]"
    )
    fast = Run(text).step(25)
    general = Run(text)
    monkeypatch.setattr(general.integrator, "uses_array_loop", lambda: False)
    general.step(25)
    close(fast, general)
    assert fast.conserved == pytest.approx(general.conserved, abs=1e-10)
    com = fast.p[0].reshape(-1, 3).sum(axis=0)
    assert (np.abs(com).max() < 1e-10) == fixcom


@pytest.mark.parametrize("ensemble", ["nve", "nvt", "npt"])
def test_back_in_time(ensemble: str) -> None:
    # friction zero (an age-long tau and no heat): the map itself must be reversible
    forever = thermostat("<tau units='femtosecond'>1e300</tau>")
    inside = {"nve": "", "nvt": forever, "npt": forever + BAROSTAT.replace(">100<", ">1e300<")}
    run = Run(simulation_xml(inside[ensemble], mode=ensemble, outer_fs=2.0))
    start, volume = run.q, float(run.system.cell.V)
    run.step(100)
    assert np.abs(run.q - start).max() > 0.05
    run.system.beads.p = -run.p
    if ensemble == "npt":
        assert abs(float(run.system.cell.V) / volume - 1) > 1e-6
        run.motion.barostat.p = -np.array(run.motion.barostat.p)
    run.step(100)
    assert np.abs(run.q - start).max() < 1e-8
    assert float(run.system.cell.V) == pytest.approx(volume, rel=1e-8)


@pytest.mark.parametrize("ensemble", ["nvt", "npt"])
@pytest.mark.parametrize("kind", ["langevin", "hhf", "ffl", "bonds, ffl", "svr", "gle"])
def test_a_restart_goes_on_as_if_there_were_none(ensemble: str, kind: str) -> None:
    inside = THERMOSTATS[kind] + (BAROSTAT if ensemble == "npt" else "")
    check_restart(inside, ensemble, fixcom=kind == "hhf")


def test_a_restart_without_a_thermostat_goes_on_as_if_there_were_none() -> None:
    check_restart("", "nve")


def check_restart(inside: str, ensemble: str, fixcom: bool = False) -> None:
    run = Run(simulation_xml(inside, mode=ensemble, fixcom=fixcom)).step(7)
    text = run.checkpoint()
    again = Run(text)
    assert again.done == 7
    run.step(13)
    again.step(13)
    close(again, run)
    assert again.conserved == pytest.approx(run.conserved, abs=1e-10)
    assert again.checkpoint().count("local_tau") == text.count("local_tau")
    assert type(again.motion.thermostat) is type(run.motion.thermostat)


def test_the_conserved_quantity_counts_all_heat() -> None:
    # The error of the conserved quantity goes as the square of the step: what is left out of the
    # books (heat of the bonds, of the centre of mass) would not.
    def drift(inner_fs: float) -> float:
        run = Run(
            simulation_xml(
                thermostat(HHF + BONDS, "ffl"),
                outer_fs=2 * inner_fs,
                levels="[1, 2]",
                forces=("k: 0.5", "k: 0.5"),
                fixcom=True,
                seed=5,
            )
        )
        first, worst = run.conserved, 0.0
        for _ in range(round(12 / inner_fs)):
            worst = max(worst, abs(run.step().conserved - first))
        assert abs(run.motion.thermostat.ethermo) > 1e-3
        return worst

    coarse, fine = drift(0.5), drift(0.125)
    assert fine < coarse / 6
    assert fine < 1e-5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": "[1, 2, 2]"}, r"nmts = \[1, 2, 2\]: has 3 levels, mts_weights have 2"),
        ({"mode": "nst"}, "dynamics mode = nst"),
        ({"dynamics": thermostat(HHF.replace("H'", "He'"))}, "local_tau = He: no such atom"),
        ({"dynamics": thermostat(HHF.replace(">100<", ">-1<"))}, "local_tau = -1 fs: .*positive"),
        ({"dynamics": thermostat(HHF.replace("names='H'", "atoms='24'"))}, "atom 24: .* 0 to 23"),
        ({"dynamics": thermostat(HHF.replace("names='H'", "atoms='x'"))}, "indices such as"),
        ({"dynamics": thermostat(HHF.replace(" names='H'", ""))}, "selects no atoms"),
        ({"dynamics": thermostat(HHF, "svr")}, "thermostat mode = svr"),
        ({"dynamics": thermostat(HHF, "ffl"), "mode": "nve"}, "thermostat = ffl: mode='nve'"),
        ({"dynamics": thermostat(HHF + BONDS.replace("O, H", "O, X"))}, "bonds: names = X"),
        ({"dynamics": thermostat(HHF + BONDS.replace("O, H", "O"))}, "bonds: names = O"),
        ({"dynamics": thermostat(HHF + BONDS.replace(">20<", ">0<"))}, "bonds: tau = 0"),
        ({"dynamics": thermostat(HHF + BONDS.replace("[1.3, 1.6]", "[1.6]"))}, "bonds: range"),
        ({"dynamics": thermostat(HHF + BONDS.replace("1.6]", "1.2]"))}, "bonds: range"),
        ({"dynamics": thermostat(HHF + BONDS), "nbeads": 2}, "take one bead"),
        ({"dynamics": LANGEVIN, "mode": "npt"}, "barostat = Barostat"),
        (
            {"dynamics": LANGEVIN + BAROSTAT.replace("isotropic", "flexible"), "mode": "npt"},
            "mode='isotropic' only",
        ),
    ],
)
def test_wrong_inputs_are_told_in_one_line(options: dict, message: str) -> None:
    options = {"dynamics": LANGEVIN, **options}
    with pytest.raises(InputError, match=message) as caught:
        Run(simulation_xml(**options)).step()
    assert "\n" not in str(caught.value)


def test_npt_without_a_virial_is_refused() -> None:
    forces = ("k: 0.5", "k: 0.47, virial: 0")
    run = Run(simulation_xml(LANGEVIN + BAROSTAT, mode="npt", forces=forces))
    with pytest.raises(InputError, match=r"virial = f1: .*no virial, which NPT needs"):
        run.step()


def test_weights_that_sample_something_else_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    text = simulation_xml(LANGEVIN, weights=("[1, 0]", "[-1, 1.2]"))
    Run(text.replace("verbosity='quiet'", "verbosity='low'"))
    assert "1 f0 + 0.2 f1; that potential is sampled" in capsys.readouterr().out
    Run(simulation_xml(LANGEVIN).replace("verbosity='quiet'", "verbosity='low'"))
    assert "is sampled" not in capsys.readouterr().out


def test_fixed_atoms_stay() -> None:
    run = Run(simulation_xml(thermostat(HHF), extra="<fixatoms>[0, 5]</fixatoms>"))
    start = run.q[0].reshape(-1, 3)
    moved = np.abs(run.step(20).q[0].reshape(-1, 3) - start).max(axis=1)
    assert moved[[0, 5]].max() == 0
    assert np.delete(moved, [0, 5]).min() > 1e-3
