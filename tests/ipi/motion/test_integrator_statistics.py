"""Ensembles of the integrators against known distributions, at three standard errors, fixed seeds.

Atoms of these models do not see each other, so each gives independent figures and error bars need
no correlation time.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import expm
from scipy.special import ive

from dmts_ipi.core.harmonic import outer_step, stationary
from integrator_tools import (
    AMU,
    BAROSTAT,
    DRIFT_PER_FS,
    FS,
    KELVIN,
    THERMOSTATS,
    Run,
    simulation_xml,
    thermostat,
)

KT = 300 * KELVIN


def oscillators(
    inside: str, forces: tuple[str, ...], amu: tuple[float, float], atoms: int = 300, **options
) -> Run:
    """A run of independent atoms, labels O and H in turn."""
    names = np.array(["O", "H"] * (atoms // 2))
    masses = np.where(names == "O", *amu)
    rng = np.random.default_rng(11)
    system = names, rng.normal(scale=0.1, size=(atoms, 3)), masses
    return Run(
        simulation_xml(inside, forces=forces, pes="integrator_models", system=system, **options)
    )


def check_mean(values: np.ndarray, wanted: float, sigmas: float = 3.0) -> None:
    """Independent values have this mean; values: (n,)."""
    error = values.std(ddof=1) / np.sqrt(len(values))
    assert abs(values.mean() - wanted) < sigmas * error, (values.mean(), wanted, error)
    assert error < 0.03 * abs(wanted)  # sharp enough to say something


@pytest.mark.parametrize("n", [1, 2, 5])
def test_oscillators_have_the_covariance_of_linear_theory(n: int) -> None:
    """Positions and momenta of stiff (O-H like, period 16.6 fs) and soft modes, student unlike the
    teacher, friction by element; n = 1 gives BAOAB's own: <x^2> exact, <v^2> low by (w d)^2/4."""
    amu, periods, off = (4.0, 3.2), (60.0, 16.6), 0.03
    k = [m * AMU * (2 * np.pi / (t * FS)) ** 2 for m, t in zip(amu, periods, strict=True)]
    taus = {"O": 40.0, "H": 15.0}
    inside = thermostat(
        f"<tau units='femtosecond'>{taus['O']}</tau>"
        f"<local_tau names='H' units='femtosecond'>{taus['H']}</local_tau>"
    )
    run = oscillators(
        inside,
        (f"k: {k[0]}, k2: {k[1]}", f"k: {k[0] * (1 - off)}, k2: {k[1] * (1 - off)}"),
        amu,
        levels=f"[1, {n}]",
        outer_fs=float(n),
        seed=20 + n,
    )
    m = run.m
    labels = np.repeat(np.array(run.system.beads.names), 3)
    rng = np.random.default_rng(n)
    wanted = {}
    q, p = run.q[0], run.p[0]
    for label, kk in zip("OH", k, strict=True):
        here = labels == label
        mass, d = float(m[here][0]), FS
        w2 = kk / mass
        theory = stationary(
            *outer_step(w2 * off, w2 * (1 - off), n * d, n, np.exp(-1.0 / taus[label]))
        )
        wanted[label] = theory * np.array([[w2, np.sqrt(w2)], [np.sqrt(w2), 1.0]])
        if n == 1:
            bias = w2 * d * d / 4
            np.testing.assert_allclose(np.diag(wanted[label]), [1.0, 1 - bias], rtol=1e-9)
        start = rng.multivariate_normal([0, 0], theory * KT / mass, size=here.sum())
        q[here], p[here] = start[:, 0], start[:, 1] * mass
    run.set(q, p)
    found = np.zeros((3, len(m)))
    steps = 240 // n
    for _ in range(steps):
        run.step()
        q, p = run.q[0], run.p[0]
        root = np.sqrt(np.where(labels == "O", *k))
        found += np.array([(root * q) ** 2, p**2 / m, root * q * p / np.sqrt(m)]) / KT / steps
    for label in "OH":
        here, c = labels == label, wanted[label]
        check_mean(found[0, here], c[0, 0])
        check_mean(found[1, here], c[1, 1])
        cross = found[2, here]
        assert abs(cross.mean() - c[0, 1]) < 3 * cross.std() / np.sqrt(len(cross))
    assert abs(wanted["H"][1, 1] - 1) > 0.01  # the bias is there to be seen


@pytest.mark.parametrize("n", [1, 5])
def test_coloured_noise_gives_the_covariance_of_linear_theory(n: int) -> None:
    """As above, O-H like modes only, with a generalised Langevin equation in every inner step."""
    amu, off = 3.2, 0.03
    k = amu * AMU * (2 * np.pi / (16.6 * FS)) ** 2
    run = oscillators(
        THERMOSTATS["gle"],
        (f"k: {k}", f"k: {k * (1 - off)}"),
        (amu, amu),
        levels=f"[1, {n}]",
        outer_fs=float(n),
        seed=40 + n,
    )
    mass = float(run.m[0])
    w2 = k / mass
    map_, noise = outer_step(w2 * off, w2 * (1 - off), n * FS, n, expm(-DRIFT_PER_FS))
    theory = stationary(map_, noise)
    wanted = np.array([theory[0, 0] * w2, theory[1, 1]])
    if n == 1:
        np.testing.assert_allclose(wanted, [1.0, 1 - w2 * FS * FS / 4], rtol=1e-9)
    state = np.random.default_rng(n).multivariate_normal(np.zeros(4), theory * KT, size=len(run.m))
    run.set(state[:, 0] / np.sqrt(mass), state[:, 1] * np.sqrt(mass))
    run.motion.thermostat.s[1:] = state[:, 2:].T
    found = np.zeros((2, len(run.m)))
    steps = 240 // n
    for _ in range(steps):
        run.step()
        found += np.array([k * run.q[0] ** 2, run.p[0] ** 2 / mass]) / KT / steps
    check_mean(found[0], wanted[0])
    check_mean(found[1], wanted[1])
    assert abs(wanted[1] - 1) > 0.01  # what the steps do is there to be seen


@pytest.mark.parametrize("friction_per_ps", [1e-9, 1.0, 10.0])
def test_resonance_is_where_linear_theory_has_it(friction_per_ps: float) -> None:
    """A stiff mode (16.6 fs) in the inner force, a tenth of its stiffness in the outer one."""
    amu, w = 4.0, 2 * np.pi / (16.6 * FS)
    k = amu * AMU * w * w
    unstable = []
    for n in (4, 5, 6, 8, 10):
        tau = 1000.0 / friction_per_ps
        run = oscillators(
            thermostat(f"<tau units='femtosecond'>{tau}</tau>"),
            (f"k: {1.1 * k}", f"k: {k}"),
            (amu, amu),
            atoms=2,
            levels=f"[1, {n}]",
            outer_fs=float(n),
            kelvin=1e-30,
        )
        mass = float(run.m[0])
        state = np.array([[0.1, -0.05, 0.02], [0.0, 1e-3, -2e-3]])
        run.set(np.tile(state[0], 2), np.tile(state[1] * mass, 2))
        m, _ = outer_step(0.1 * k / mass, k / mass, n * FS, n, np.exp(-1.0 / tau))
        run.step(60)
        wanted = np.linalg.matrix_power(m, 60) @ state
        np.testing.assert_allclose(
            run.q[0][:3], wanted[0], rtol=0, atol=1e-8 * np.abs(wanted[0]).max()
        )
        radius = np.abs(np.linalg.eigvals(m)).max()
        unstable.append(radius > 1 + 1e-6)
        # what a run shows: the amplitude grows without bound, or it does not
        run.step(140)
        grown = np.abs(run.q[0]).max() / 0.1
        if abs(200 * np.log(radius)) > 3:
            assert (grown > 10) == (radius > 1), (n, radius, grown)
    assert unstable[3]  # 8 fs, at half the period
    assert unstable[:3] == [False] * 3  # 4, 5, 6 fs


@pytest.mark.parametrize("mode", ["langevin", "ffl"])
def test_barriers_are_populated_as_boltzmann_says(mode: str) -> None:
    diffusion_and_cosine(mode, 600, 1500)


def diffusion_and_cosine(mode: str, atoms: int, steps: int) -> tuple[float, float]:
    """Free motion over barriers of 2 kT; checks <cos>, returns D in A^2/ps and its error."""
    period, height = 6.0, 2 * KT
    run = oscillators(
        thermostat("<tau units='femtosecond'>50</tau>", mode),
        (f"kind: cosine, period: {period}, height: {height}",),
        (16.0, 16.0),
        atoms=atoms,
        levels="[1]",
        weights=("[1]",),
        outer_fs=4.0,
        seed=8,
    )
    w, cosine = 2 * np.pi / period, 0.0
    rng = np.random.default_rng(4)  # begins in equilibrium: by rejection
    x = rng.uniform(0, period, size=30 * atoms)
    x = x[rng.uniform(size=len(x)) < np.exp(np.cos(w * x) - 1)]
    run.set(x[: 3 * atoms])
    start, used, kinetic = run.q[0], 0, 0.0
    for k in range(steps):
        run.step()
        if k % 5 == 0:
            cosine, used = cosine + np.cos(w * run.q[0]), used + 1
            kinetic = kinetic + run.p[0] ** 2 / run.m / KT
    # one figure per atom: FFL couples its three components
    boltzmann = ive(1, 1.0) / ive(0, 1.0)  # I1(h / 2 kT) / I0(h / 2 kT)
    check_mean((cosine / used).reshape(-1, 3).mean(axis=1), boltzmann)
    check_mean((kinetic / used).reshape(-1, 3).mean(axis=1), 1.0)
    moved = ((run.q[0] - start) * 0.529177) ** 2 / (2 * steps * 4e-3)
    moved = moved.reshape(-1, 3).mean(axis=1)
    return float(moved.mean()), float(moved.std() / np.sqrt(len(moved)))


def test_ffl_diffuses_faster_at_the_same_friction() -> None:
    langevin, error = diffusion_and_cosine("langevin", 300, 1000)
    ffl, other = diffusion_and_cosine("ffl", 300, 1000)
    assert ffl - langevin > 5 * np.hypot(error, other)


def test_dimers_under_the_bond_thermostat() -> None:
    """Bond lengths are distributed as r^2 exp(-U/kT), momenta as they should, and the motion of the
    centres of mass knows nothing of the friction along bonds."""
    rng = np.random.default_rng(1)
    pairs, side, r0, k = 200, 300.0, 2.0, 0.25
    centre = rng.uniform(0, side, size=(pairs, 1, 3))
    arm = rng.normal(size=(pairs, 1, 3))
    arm *= r0 / 2 / np.linalg.norm(arm, axis=-1, keepdims=True)
    x = (centre + np.concatenate([arm, -arm], axis=1)).reshape(-1, 3)
    names = np.array(["O", "H"] * pairs)
    system = names, x, np.where(names == "O", 12.0, 4.0)
    bonds = (
        "<tau units='femtosecond'>100</tau><bonds names='O, H'><tau units='femtosecond'>5</tau>"
        "<range units='angstrom'>[1.3, 1.6]</range></bonds>"
    )
    run = Run(
        simulation_xml(
            thermostat(bonds),
            forces=(f"kind: dimers, k: {k}, r0: {r0}", f"kind: dimers, k: {0.97 * k}, r0: {r0}"),
            pes="integrator_models",
            system=system,
            side=side,
            levels="[1, 3]",
            outer_fs=1.5,
        )
    )
    run.step(150)
    m = run.m.reshape(pairs, 2, 3)
    com = lambda v: (m * v).sum(1) / m.sum(1)  # noqa: E731
    start = com(run.q[0].reshape(pairs, 2, 3))
    lengths, kinetic, used, steps = 0.0, 0.0, 0, 600
    for step in range(steps):
        run.step()
        if step % 6 == 0:
            pair = run.q[0].reshape(pairs, 2, 3)
            r = np.linalg.norm(pair[:, 0] - pair[:, 1], axis=1)
            lengths = lengths + np.stack([r, (r - r0) ** 2])
            kinetic, used = kinetic + run.p[0] ** 2 / run.m / KT, used + 1
    r = np.linspace(0.5, 3.5, 20001)
    weight = r * r * np.exp(-0.5 * k * (r - r0) ** 2 / KT)
    check_mean(lengths[0] / used, float((r * weight).sum() / weight.sum()))
    check_mean(lengths[1] / used, float(((r - r0) ** 2 * weight).sum() / weight.sum()))
    # of the six velocities of a dimer one is along the bond: BAOAB's bias there, none elsewhere
    w2 = k / (3.0 * AMU)
    along = w2 * (0.5 * FS) ** 2 / 4 / 6
    check_mean((kinetic / used).reshape(pairs, 6).mean(axis=1), 1 - along)
    # a free Langevin particle of the dimer's mass: <dx^2> = 2 kT/(M g^2) (g t - 1 + exp(-g t))
    g, t = 1 / (100 * FS), steps * 1.5 * FS
    wanted = 2 * KT / (16 * AMU * g * g) * (g * t - 1 + np.exp(-g * t))
    moved = (com(run.q[0].reshape(pairs, 2, 3)) - start) ** 2
    error = moved.std() / np.sqrt(moved.size)
    assert abs(moved.mean() - wanted) < 3 * error
    assert error < 0.1 * wanted


def volumes(gpa: float, steps: int, seed: int) -> tuple[np.ndarray, float, float]:
    """Volumes, kinetic and potential energies (3, steps) of a run in NPT with MTS, and mean and
    variance of the distribution of volumes.

    The potential is springs to sites that move with the cell, and a parabola in the volume, so
    volumes are Gaussian: mean V0 (1 - P / K), variance kT V0 / K. Springs of the student are
    softer, and its parabola stiffer, than the teacher's.
    """
    side, atoms = 12.0, 27
    v0, stiff, k = side**3, 40 * KT / side**3 * 10, 0.02
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), -1).reshape(-1, 3)
    system = np.array(["O"] * atoms), grid * side / 3, np.full(atoms, 16.0)
    baro = BAROSTAT.replace(">200<", ">15<").replace(">100<", ">20<")
    run = Run(
        simulation_xml(
            thermostat("<tau units='femtosecond'>20</tau>") + baro,
            mode="npt",
            forces=(
                f"kind: volume, k: {k}, stiff: {stiff}, v0: {v0}",
                f"kind: volume, k: {0.9 * k}, stiff: {1.2 * stiff}, v0: {v0}",
            ),
            pes="integrator_models",
            system=system,
            side=side,
            levels="[1, 2]",
            outer_fs=2.0,
            bar=gpa * 1e4,
            seed=seed,
        )
    )
    run.step(100)
    pressure = float(run.system.ensemble.pext)
    found = np.empty((3, steps))
    for k in range(steps):
        run.step()
        kinetic = 0.5 * float((run.p[0] ** 2 / run.m).sum())
        found[:, k] = float(run.system.cell.V), kinetic, float(run.system.forces.pot)
    return found, v0 * (1 - pressure / stiff), KT * v0 / stiff


def check_volumes(found: np.ndarray, mean: float, variance: float, accuracy: float) -> None:
    """Mean and variance at three standard errors, from blocks longer than the correlation."""
    blocks = found[: len(found) // 20 * 20].reshape(20, -1)
    error = blocks.mean(axis=1).std(ddof=1) / np.sqrt(20)
    assert abs(found.mean() - mean) < 3 * error
    assert error < accuracy * np.sqrt(variance)
    spread = ((blocks - mean) ** 2).mean(axis=1)
    assert abs(spread.mean() - variance) < 3 * spread.std(ddof=1) / np.sqrt(20)


def test_volumes_of_npt_with_mts() -> None:
    found, mean, variance = volumes(0.0001, 1200, 1)
    check_volumes(found[0], mean, variance, 0.2)


def physical(found: np.ndarray, gpa: float) -> object:
    """A run as ``physical_validation`` takes it; its conversions are to GROMACS' units."""
    pv = pytest.importorskip("physical_validation")
    units = pv.data.UnitData(
        kb=KELVIN,
        energy_str="hartree",
        energy_conversion=2625.49963,
        length_str="bohr",
        length_conversion=0.0529177211,
        volume_str="bohr^3",
        volume_conversion=0.0529177211**3,
        temperature_str="K",
        temperature_conversion=1.0,
        pressure_str="bar",
        pressure_conversion=1.0,
        time_str="fs",
        time_conversion=1e-3,
    )
    atoms = 27
    system = pv.data.SystemData(
        natoms=atoms,
        nconstraints=0,
        ndof_reduction_tra=0,
        ndof_reduction_rot=0,
        mass=np.full(atoms, 16.0),
    )
    ensemble = pv.data.EnsembleData("NPT", natoms=atoms, temperature=300.0, pressure=gpa * 1e4)
    seen = pv.data.ObservableData(
        kinetic_energy=found[1], potential_energy=found[2], volume=found[0]
    )
    return pv.data.SimulationData(
        units=units, dt=2.0, system=system, ensemble=ensemble, observables=seen
    )


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_volumes_of_npt_at_two_pressures() -> None:
    """Minutes: means, widths, and by physical_validation the ratio of two volume distributions,
    which needs no model, and the kinetic energies."""
    pv = pytest.importorskip("physical_validation")
    runs = []
    for gpa in (0.0001, 0.4):
        found, mean, variance = volumes(gpa, 20000, 2)
        check_volumes(found[0], mean, variance, 0.06)
        runs.append(physical(found, gpa))
    slope = pv.ensemble.check(*runs, total_energy=False, verbosity=1)
    assert abs(slope[0]) < 3
    for run in runs:
        assert max(abs(x) for x in pv.kinetic_energy.distribution(run, strict=False)) < 3
