"""The bond thermostat: which pairs, which batches; what it conserves and samples, exactly."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import numpy as np
import pytest
from ipi.engine.cell import Cell

from dmts_ipi.core.errors import InputError
from dmts_ipi.ipi.motion.bonds import BondFriction, BondTau, colour
from integrator_tools import BONDS, HHF, SIDE, Run, simulation_xml, thermostat, waters

no_compiler = not any(shutil.which(c) for c in ("cc", "gcc", "clang"))
ANGSTROM = 1.8897261
WATER = (
    BondTau(800.0, ("O", "H"), (1.3 * ANGSTROM, 1.6 * ANGSTROM)),
    BondTau(1200.0, ("H", "H"), (1.7 * ANGSTROM, 2.1 * ANGSTROM)),
)


class Noise:
    """A generator of given numbers."""

    def __init__(self, numbers: Callable[[int], np.ndarray]) -> None:
        self.gvec = numbers


def gauss(seed: int) -> Noise:
    return Noise(np.random.default_rng(seed).standard_normal)


class ByNumPy(BondFriction):
    def _list(self, q: np.ndarray, h: np.ndarray | None) -> None:
        super()._list(q, h)
        self._loops = None


def water_friction(
    cell: Cell | None = None, kind: type[BondFriction] = BondFriction
) -> tuple[BondFriction, np.ndarray, np.ndarray]:
    """Friction, positions (3 n,) and masses (3 n,) of eight waters, some pairs at half weight."""
    names, x = waters()
    x = np.where((np.arange(24) % 5 == 1)[:, None], x + 0.3, x)
    m = np.where(names == "O", 18000.0, 7000.0)
    friction = kind(WATER)
    friction.bind(list(names), m, cell)
    return friction, x.ravel(), np.repeat(m, 3)


def test_momentum_and_angular_momentum_of_a_cluster_are_conserved() -> None:
    friction, q, m = water_friction()
    rng = np.random.default_rng(2)
    p = rng.normal(size=72) * np.sqrt(m * 1e-3)
    x = q.reshape(-1, 3)
    before = p.reshape(-1, 3).copy()
    for k in range(200):
        friction.propagate(p, q, 500.0, 1e-3, gauss(k), k % 2 == 0)
    after = p.reshape(-1, 3)
    scale = np.abs(before).sum()
    assert np.abs(after - before).max() > 0.1 * np.abs(before).max()
    assert np.abs(after.sum(0) - before.sum(0)).max() < 1e-12 * scale
    turned = np.cross(x, after).sum(0) - np.cross(x, before).sum(0)
    assert np.abs(turned).max() < 1e-12 * np.abs(np.cross(x, before)).sum()


def test_heat_is_the_loss_of_kinetic_energy() -> None:
    friction, q, m = water_friction()
    p = np.random.default_rng(4).normal(size=72) * np.sqrt(m * 1e-3)
    before = 0.5 * (p**2 / m).sum()
    heat = friction.propagate(p, q, 900.0, 2e-3, gauss(1), True)
    assert heat == pytest.approx(before - 0.5 * (p**2 / m).sum(), rel=1e-11)


def linear(step: Callable[[np.ndarray, Noise], None], m: np.ndarray, noises: int) -> tuple:
    """Matrices of x' = A x + B g in mass-scaled momenta x = p / sqrt(m kT) (kT = 1)."""
    root, columns_a, columns_b = np.sqrt(m), [], []
    for k in range(len(m)):
        p = np.eye(len(m))[k] * root
        step(p, Noise(lambda n: np.zeros(n)))
        columns_a.append(p / root)
    for k in range(noises):
        p, drawn = np.zeros(len(m)), 0

        def one(n: int, k: int = k) -> np.ndarray:
            nonlocal drawn
            drawn += n
            return (np.arange(drawn - n, drawn) == k).astype(float)

        step(p, Noise(one))
        columns_b.append(p / root)
    return np.array(columns_a).T, np.array(columns_b).T


@pytest.mark.parametrize("dt", [1.0, 40.0, 5000.0])
def test_momenta_stay_canonical_exactly_and_the_two_orders_are_adjoint(dt: float) -> None:
    """For a linear Gaussian step x' = A x + B g: invariance of N(0, 1) is A A^T + B B^T = 1, and
    the adjoint chain has the matrix A^T: forward and backward order must be transposes."""
    friction, q, m = water_friction()
    matrices = []
    for forward in (True, False):
        a, b = linear(
            lambda p, noise, f=forward: friction.propagate(p, q, dt, 1.0, noise, f), m, 24
        )
        assert np.abs(a @ a.T + b @ b.T - np.eye(72)).max() < 1e-12
        matrices.append(a)
    assert np.abs(matrices[0] - matrices[1].T).max() < 1e-12
    assert np.abs(matrices[0] - matrices[1]).max() > 1e-8 * min(dt, 100) ** 2  # not symmetric


def test_with_the_friction_of_atoms_too() -> None:
    run = Run(simulation_xml(thermostat(HHF + BONDS), kelvin=300))
    thermo, q = run.motion.thermostat, run.q[0]
    kT = float(thermo.temp)
    matrices = []
    for coin in (-0.1, 0.9):  # atoms first, or bonds first

        def step(p: np.ndarray, noise: Noise, coin: float = coin) -> None:
            thermo.prng = Noise(lambda n: np.array([coin]) if n == 1 else noise.gvec(n))
            thermo.propagate(p, q)

        a, b = linear(step, run.m, 72 + 24)
        assert np.abs(a @ a.T + b @ b.T / kT - np.eye(72)).max() < 1e-10
        matrices.append(a)
    assert np.abs(matrices[0] - matrices[1].T).max() < 1e-12


def test_batches_have_no_atom_twice_and_depend_on_the_set_of_pairs_only() -> None:
    rng = np.random.default_rng(5)
    for n, m in ((3, 3), (40, 60), (300, 900)):
        key = rng.choice(n * n, size=m * 3, replace=False)
        key = np.unique(np.sort(np.stack([key // n, key % n]), axis=0), axis=1).T
        pairs = key[key[:, 0] != key[:, 1]][:m]
        batches = colour(pairs[:, 0], pairs[:, 1], n)
        assert sorted(np.concatenate(batches)) == list(range(len(pairs)))
        for batch in batches:
            assert len(np.unique(pairs[batch])) == 2 * len(batch)
        most = np.bincount(pairs.ravel()).max()
        assert len(batches) <= 2 * most - 1
        mixed = rng.permutation(len(pairs))
        again = colour(pairs[mixed, 0], pairs[mixed, 1], n)
        assert [{*map(tuple, pairs[b])} for b in batches] == [
            {*map(tuple, pairs[mixed][b])} for b in again
        ]
    chain = np.arange(5000)  # a polymer: a few batches, in few rounds
    assert len(colour(chain, chain + 1, 5001)) == 3


def weighted(friction: BondFriction, x: np.ndarray) -> tuple:
    """Pairs with a weight: i, j, unit vectors from j to i, rates."""
    d, r, weight = friction._weights(x)
    use = friction._use
    rate = weight[use] * friction._rate[use]
    return friction._i[use], friction._j[use], d[use] / r[use, None], rate


def in_order(pairs: tuple) -> tuple:
    """Pairs sorted by their atoms."""
    order = np.lexsort((pairs[1], pairs[0]))
    return tuple(a[order] for a in pairs)


def brute_force(x: np.ndarray, names: np.ndarray, h: np.ndarray) -> dict[tuple[int, int], float]:
    """Weight over tau of every pair, by a double loop over atoms and images."""
    found = {}
    for i in range(len(x)):
        for j in range(i + 1, len(x)):
            d = x[i] - x[j] + np.array(np.meshgrid(*[[-2, -1, 0, 1, 2]] * 3)).reshape(3, -1).T @ h.T
            r = np.sqrt((d * d).sum(1)).min()
            for e in WATER:
                if sorted(e.names) == sorted((names[i], names[j])):
                    t = np.clip((e.range[1] - r) / (e.range[1] - e.range[0]), 0, 1)
                    if t > 0:
                        found[(i, j)] = t * t * (3 - 2 * t) / e.tau
    return found


def test_pairs_are_those_of_a_double_loop_while_atoms_and_cell_move() -> None:
    cell = Cell(np.array([[SIDE, 1.0, 0.0], [0.0, SIDE - 1, 0.5], [0.0, 0.0, SIDE]]))
    friction, q, _ = water_friction(cell)
    names, x = waters()[0], q.reshape(-1, 3).copy()
    rng, lists = np.random.default_rng(3), 0
    for k in range(60):
        x += rng.normal(scale=0.06, size=x.shape)
        if k % 7 == 3:
            x[k % 24] += np.array(cell.h)[:, k % 3]  # a whole cell vector: the same place
        if k % 10 == 5:
            cell.h *= 0.99
            x *= 0.99
        before = friction._listed_at
        i, j, u, rate = in_order(weighted(friction, x))
        lists += before is not friction._listed_at
        wanted = brute_force(x, names, np.array(cell.h))
        assert list(zip(i.tolist(), j.tolist(), strict=True)) == sorted(wanted)
        np.testing.assert_allclose(rate, [wanted[key] for key in sorted(wanted)], rtol=1e-9)
        np.testing.assert_allclose((u * u).sum(1), 1, rtol=1e-12)
    assert 2 <= lists < 60  # the list was kept for some steps, and made again


@pytest.mark.skipif(no_compiler, reason="no C compiler")
def test_loops_in_c_are_those_of_numpy_to_the_last_bit() -> None:
    cell = Cell(np.eye(3) * SIDE)
    friction, q, m = water_friction(cell)
    other, *_ = water_friction(cell, ByNumPy)
    rng, orders = np.random.default_rng(6), set()
    p = rng.normal(size=72) * np.sqrt(m * 1e-3)
    p_other = p.copy()
    for k in range(80):
        q = q + rng.normal(scale=0.03, size=72)
        if k == 40:
            cell.h *= 0.99
        heat = friction.propagate(p, q, 500.0, 1e-3, gauss(k), k % 3 == 0)
        expected = other.propagate(p_other, q, 500.0, 1e-3, gauss(k), k % 3 == 0)
        assert friction._loops is not None
        assert other._loops is None
        np.testing.assert_array_equal(p, p_other)
        assert heat == pytest.approx(expected, abs=1e-12)
        orders.add(friction._use.tobytes())
    assert len(orders) > 3  # pairs came and went


def test_the_weight_has_no_corners() -> None:
    friction = BondFriction([BondTau(100.0, ("O", "H"), (2.0, 3.0))])
    friction.bind(["O", "H"], np.ones(2), None)

    def rate(r: float) -> float:
        found = weighted(friction, np.array([[0.0, 0, 0], [r, 0, 0]]))[3]
        return float(found.sum()) * 100

    assert rate(1.0) == rate(2.0) == 1.0
    assert rate(3.0) == rate(3.5) == 0.0
    assert rate(2.5) == pytest.approx(0.5)
    r = np.linspace(1.8, 3.2, 1401)
    values = np.array([rate(x) for x in r])
    slope = np.diff(values) / np.diff(r)
    assert (slope <= 1e-12).all()
    assert np.abs(np.diff(slope)).max() < 0.01  # a corner would jump by the slope itself, 1.5


def test_listed_pairs_win_and_need_no_range() -> None:
    entries = [WATER[0], BondTau(50.0, pairs=np.array([[1, 0], [3, 20]]))]
    friction = BondFriction(entries)
    names, x = waters()
    friction.bind(list(names), np.ones(24), Cell(np.eye(3) * SIDE))
    i, j, _, rate = in_order(weighted(friction, x))
    found = dict(zip(zip(i.tolist(), j.tolist(), strict=True), rate.tolist(), strict=True))
    assert len(found) == 17
    assert found[(0, 1)] == found[(3, 20)] == 1 / 50
    assert found[(0, 2)] == pytest.approx(1 / 800)


def test_wrong_pairs_are_told() -> None:
    for pairs in ([[0, 24]], [[-1, 0]], [[3, 3]]):
        friction = BondFriction([BondTau(50.0, pairs=np.array(pairs))])
        with pytest.raises(InputError, match=r"two different atoms of 0 to 23"):
            friction.bind(list(waters()[0]), np.ones(24), None)
    friction = BondFriction(WATER)
    friction.bind(list(waters()[0]), np.ones(24), Cell(np.eye(3) * 6.0))
    with pytest.raises(InputError, match="half the width of the cell"):
        weighted(friction, waters()[1])
