"""Conformance checks of a force model: built-in, third-party, or a driver behind a socket.

``check_model`` runs every check and returns a table; it raises only for wrong input. The tests
of every model use it, and ``dmts-ipi check-driver`` prints the table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

import numpy as np

from .errors import DmtsError, InputError
from .model import ForceModel, ForceResult, check_result, check_structure

PASS, FAIL, SKIP = "pass", "fail", "skip"
STEP_A = 1e-3  # between the points of the smoothness checks
KINK = 0.4  # halving the step scales second differences by 1/4; by 1/2 at a kink, 1 at a jump


@dataclass(frozen=True)
class Check:
    """One row of the table: a measured ``figure`` and its ``limit``, both in ``unit``."""

    name: str
    status: str
    detail: str = ""
    figure: float | None = None
    limit: float | None = None
    unit: str = ""

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Subject:
    """What is checked, and how strictly.

    Args:
        model: the force model.
        numbers, positions, cell, pbc: the structure, as in ``core.model``.
        tolerance_eV_per_A: largest deviation of a force component (1e-3 suits float32 networks;
            take 1e-8 for float64).
        conservative: whether to check forces and virial against the energy; None: as the model
            declares.
        fixed_numbers: elements and number of atoms cannot change (a driver behind a socket).
        seed: seed of the random displacements.
    """

    model: ForceModel
    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    tolerance_eV_per_A: float = 1e-3
    conservative: bool | None = None
    fixed_numbers: bool = False
    seed: int = 0

    def __call__(
        self,
        positions: np.ndarray | None = None,
        cell: np.ndarray | None = None,
        numbers: np.ndarray | None = None,
        pbc: np.ndarray | None = None,
    ) -> ForceResult:
        """The model's validated result; arguments that are None are taken from the structure."""
        z = self.numbers if numbers is None else numbers
        x = self.positions if positions is None else positions
        result = self.model.compute(
            np.array(z),
            np.array(x),
            np.array(self.cell if cell is None else cell),
            np.array(self.pbc if pbc is None else pbc),
        )
        return check_result(result, len(x), self.model.name)

    def generator(self) -> np.random.Generator:
        """A generator with the same seed for every check, so that each check can be run alone."""
        return np.random.default_rng(self.seed)


class Skip(Exception):
    """Raised by a check that does not apply; the text says why."""


def _compare(name: str, figure: float, limit: float, unit: str, detail: str = "") -> Check:
    status = PASS if figure <= limit else FAIL  # a NaN fails
    return Check(name, status, detail, float(figure), float(limit), unit)


def _forces(name: str, s: Subject, a: np.ndarray, b: np.ndarray, detail: str = "") -> Check:
    return _compare(name, np.abs(a - b).max(initial=0.0), s.tolerance_eV_per_A, "eV/A", detail)


def shapes(s: Subject) -> Check:
    """Results have the right shapes and types and are finite; arguments are left unchanged."""
    arguments = [np.array(a) for a in (s.numbers, s.positions, s.cell, s.pbc)]
    copies = [a.copy() for a in arguments]
    r = s.model.compute(*arguments)
    check_result(r, len(s.numbers), s.model.name)
    if any((a != b).any() for a, b in zip(arguments, copies, strict=True)):
        return Check("shapes", FAIL, "compute changes its arguments")
    if r.virial_eV is not None and np.shape(r.virial_eV) != (3, 3):
        return Check("shapes", FAIL, f"virial has shape {np.shape(r.virial_eV)}, expected (3, 3)")
    if r.energy_eV is not None and np.ndim(r.energy_eV) != 0:
        return Check("shapes", FAIL, f"energy has shape {np.shape(r.energy_eV)}")
    what = ["forces"] + ["energy"] * (r.energy_eV is not None)
    what += ["virial"] * (r.virial_eV is not None)
    return Check("shapes", PASS, ", ".join(what))


def determinism(s: Subject) -> Check:
    """Evaluating a structure again, after a different one, must give the same forces, and must
    not overwrite the arrays returned before. This finds faulty caches."""
    first = s()
    kept = first.forces_eV_per_A.copy()
    s(s.positions + s.generator().normal(scale=0.05, size=s.positions.shape))
    if (first.forces_eV_per_A != kept).any():
        return Check("determinism", FAIL, "a later call overwrites the forces of an earlier one")
    return _forces("determinism", s, s().forces_eV_per_A, kept)


def translation(s: Subject) -> Check:
    """Forces do not change when all atoms are translated together."""
    shift = s.generator().uniform(-3, 3, size=3)
    return _forces("translation", s, s(s.positions + shift).forces_eV_per_A, s().forces_eV_per_A)


def rotation(s: Subject) -> Check:
    """F(R x) = R F(x), and the virial rotates as a tensor."""
    r = random_rotation(s.generator())
    a, b = s(s.positions @ r.T, s.cell @ r.T), s()
    check = _forces("rotation", s, a.forces_eV_per_A, b.forces_eV_per_A @ r.T, f"seed {s.seed}")
    if check.status == PASS and a.virial_eV is not None and b.virial_eV is not None:
        limit = _virial_limit(s, b.virial_eV)
        off = float(np.abs(a.virial_eV - r @ b.virial_eV @ r.T).max())
        if off > limit:
            return _compare("rotation", off, limit, "eV", "of the virial")
    return check


def permutation(s: Subject) -> Check:
    """Permuting atoms permutes the forces. Where elements are fixed, only atoms of the same element
    are exchanged."""
    rng, n = s.generator(), len(s.numbers)
    order = np.arange(n)
    groups = [np.flatnonzero(s.numbers == z) for z in np.unique(s.numbers)]
    for group in groups if s.fixed_numbers else [np.arange(n)]:
        order[group] = rng.permutation(group)
    a = s(s.positions[order], numbers=s.numbers[order]).forces_eV_per_A
    return _forces("permutation", s, a, s().forces_eV_per_A[order])


def net_force(s: Subject) -> Check:
    """Forces sum to zero."""
    total = np.abs(s().forces_eV_per_A.astype(float).sum(axis=0)).max()
    return _compare("net force", total, s.tolerance_eV_per_A, "eV/A")


def parts(s: Subject) -> Check:
    """Forces sum to zero over each of two clusters that are far beyond each other's cutoff."""
    if s.fixed_numbers:
        raise Skip("the number of atoms is fixed")
    n, far = len(s.numbers), float(np.ptp(s.positions[:, 0])) + 50.0
    both = np.concatenate([s.positions, s.positions + np.array([far, 0, 0])])
    f = s(both, numbers=np.concatenate([s.numbers] * 2), pbc=np.zeros(3, bool)).forces_eV_per_A
    sums = [np.abs(half.astype(float).sum(axis=0)).max() for half in (f[:n], f[n:])]
    return _compare("net force of parts", max(sums), s.tolerance_eV_per_A, "eV/A", "two clusters")


def images(s: Subject) -> Check:
    """Forces do not change when atoms are moved by lattice vectors."""
    if not s.pbc.any():
        raise Skip("not periodic")
    hops = s.generator().integers(-1, 2, size=s.positions.shape) * s.pbc
    a = s(s.positions + hops @ s.cell).forces_eV_per_A
    return _forces("periodic images", s, a, s().forces_eV_per_A)


def supercell(s: Subject) -> Check:
    """Doubling the cell along one axis leaves the force on each atom unchanged."""
    if s.fixed_numbers:
        raise Skip("the number of atoms is fixed")
    if not s.pbc.any():
        raise Skip("not periodic")
    axis = int(np.flatnonzero(s.pbc)[0])
    cell = np.array(s.cell, float)
    cell[axis] *= 2
    both = np.concatenate([s.positions, s.positions + s.cell[axis]])
    a = s(both, cell, np.concatenate([s.numbers] * 2)).forces_eV_per_A
    b = s().forces_eV_per_A
    return _forces("supercell", s, a, np.concatenate([b, b]), f"doubled along axis {axis}")


def gradient(s: Subject) -> Check:
    """Forces against central differences of the energy, fourth order, along two directions."""
    _require_energy(s)
    f = s().forces_eV_per_A.astype(float)
    worst = 0.0
    random = s.generator().normal(size=f.shape)
    for direction in (f if np.abs(f).max() > 1e-6 else random, random):
        d = direction / np.sqrt((direction**2).sum(axis=1).mean())

        def energy(h: float, d: np.ndarray = d) -> float:
            return _energy(s(s.positions + h * d))

        # short steps suffer from float32 rounding, long ones from truncation: use the best
        scale = np.linalg.norm(f) * np.linalg.norm(d)
        slope = -float((f * d).sum())
        errors = [abs(_difference(energy, h) - slope) / scale for h in (2e-2, 5e-3, 1e-3)]
        worst = max(worst, float(min(errors)) if scale else 0.0)
    return _compare("gradient", worst, _relative_limit(s, f), "relative")


def virial(s: Subject) -> Check:
    """The virial against -dE/d(strain); without an energy, against the sum of r (x) F of
    the same atoms as an isolated cluster, which is exact for every pairwise virial."""
    r = s()
    if r.virial_eV is None:
        raise Skip("the model has no virial")
    if _claims_energy(s) and r.energy_eV is not None:
        if not s.pbc.all():
            raise Skip("strain derivative needs three periodic directions")
        return _strain(s, r.virial_eV)
    if s.fixed_numbers:
        raise Skip("no energy to differentiate; pass --conservative yes if there is one")
    c = s(pbc=np.zeros(3, bool))
    if c.virial_eV is None:
        raise Skip("the model has no virial for a cluster")
    f = c.forces_eV_per_A.astype(float)
    expected = (s.positions - s.positions.mean(axis=0)).T @ f
    off = np.abs(_symmetric(c.virial_eV) - _symmetric(expected)).max()
    return _compare("virial", off, _virial_limit(s, expected), "eV", "cluster, sum of r (x) F")


def smoothness(s: Subject) -> Check:
    """Forces have no jump or kink along a path on which many pairs cross the cutoff."""
    d = s.generator().normal(size=s.positions.shape)
    d /= np.abs(d).max()
    path = [s(s.positions + k * STEP_A * d).forces_eV_per_A.astype(float) for k in range(33)]
    return _no_jump("smoothness", s, np.array(path))


def cutoff(s: Subject) -> Check:
    """The force between two atoms has no jump or kink and vanishes beyond the cutoff."""
    if s.fixed_numbers:
        raise Skip("the number of atoms is fixed")
    if not s.model.cutoff_A:
        raise Skip("the model states no cutoff")
    z = np.array(sorted({int(z) for z in s.numbers})[:2] * 2)[:2]
    rc, cell, pbc = s.model.cutoff_A, np.zeros((3, 3)), np.zeros(3, bool)
    alone = s(np.array([[0.0, 0, 0], [rc + 20, 0, 0]]), cell, z, pbc).forces_eV_per_A

    def pair(distance: float) -> np.ndarray:
        x = np.array([[0.0, 0, 0], [distance, 0, 0]])
        return s(x, cell, z, pbc).forces_eV_per_A.astype(float) - alone

    beyond = float(np.abs(pair(rc + 1e-6)).max())
    if beyond > s.tolerance_eV_per_A:
        return _compare("cutoff", beyond, s.tolerance_eV_per_A, "eV/A", "beyond the cutoff")
    path = np.array([pair(rc + k * STEP_A) for k in range(-80, 17)])
    return _no_jump("cutoff", s, path)


CHECKS: dict[str, Callable[[Subject], Check]] = {
    "shapes": shapes,
    "determinism": determinism,
    "translation": translation,
    "rotation": rotation,
    "permutation": permutation,
    "net force": net_force,
    "net force of parts": parts,
    "periodic images": images,
    "supercell": supercell,
    "gradient": gradient,
    "virial": virial,
    "smoothness": smoothness,
    "cutoff": cutoff,
}


def check_model(
    subject: Subject,
    skip: Iterable[str] = (),
    progress: Callable[[Check], None] = lambda check: None,
) -> list[Check]:
    """Runs ``CHECKS`` in their order. A check fails if the model raises an exception.

    Args:
        subject: the model, structure and tolerance.
        skip: names of checks to leave out.
        progress: called with every finished check.

    Raises:
        InputError: the structure cannot be used at all, or ``skip`` names no check.
    """
    unknown = sorted(set(skip) - set(CHECKS))
    if unknown:
        raise InputError(
            "skip", unknown[0], f"is not the name of a check; known: {', '.join(CHECKS)}"
        )
    elements = None if subject.fixed_numbers else subject.model.elements
    check_structure(subject.numbers, subject.positions, subject.cell, subject.pbc, elements)
    table = []
    for name, check in CHECKS.items():
        if name in skip:
            row = Check(name, SKIP, "as told")
        else:
            try:
                row = check(subject)
            except Skip as reason:
                row = Check(name, SKIP, str(reason))
            except ConnectionError:
                raise
            except DmtsError as error:
                row = Check(name, FAIL, str(error))
            except Exception as error:  # a model can raise anything
                row = Check(name, FAIL, f"{type(error).__name__}: {error}")
        table.append(row)
        progress(row)
        if name == "shapes" and row.status == FAIL:
            break  # nothing else can be computed
    return table


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    """A proper rotation matrix (3, 3), drawn uniformly."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else q[:, [1, 0, 2]]


def _claims_energy(s: Subject) -> bool:
    return s.model.conservative if s.conservative is None else s.conservative


def _require_energy(s: Subject) -> None:
    if not _claims_energy(s):
        raise Skip("forces are not said to be a gradient")
    if s().energy_eV is None:
        raise Skip("the model has no energy")


def _energy(result: ForceResult) -> float:
    if result.energy_eV is None:
        raise Skip("the model has no energy")
    return float(result.energy_eV)


def _difference(f: Callable[[float], float], h: float) -> float:
    return (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h)


def _strain(s: Subject, w: np.ndarray) -> Check:
    worst, rng = 0.0, s.generator()
    scale = max(float(np.linalg.norm(w)), 0.1 * math.sqrt(len(s.numbers)))
    for _ in range(2):
        e = _symmetric(rng.normal(size=(3, 3)))
        e /= np.linalg.norm(e)

        def energy(h: float, e: np.ndarray = e) -> float:
            t = np.eye(3) + h * e
            return _energy(s(s.positions @ t, s.cell @ t))

        slope = -float((_symmetric(w) * e).sum())
        errors = [abs(_difference(energy, h) - slope) / scale for h in (5e-3, 1e-3, 2e-4)]
        worst = max(worst, min(errors))
    limit = _relative_limit(s, s().forces_eV_per_A)
    return _compare("virial", worst, limit, "relative", "-dE/d(strain)")


def _relative_limit(s: Subject, forces: np.ndarray) -> float:
    """The force tolerance relative to the RMS force, at least the error of finite differences."""
    typical = float(np.sqrt((np.asarray(forces, float) ** 2).mean()))
    return max(s.tolerance_eV_per_A / max(typical, 0.1), 1e-6)


def _virial_limit(s: Subject, w: np.ndarray) -> float:
    return s.tolerance_eV_per_A * max(math.sqrt(len(s.numbers)), float(np.abs(w).max()))


def _symmetric(a: np.ndarray) -> np.ndarray:
    return 0.5 * (np.asarray(a, float) + np.asarray(a, float).T)


def _no_jump(name: str, s: Subject, path: np.ndarray) -> Check:
    """``path``: forces (points, n, 3) at equal steps."""
    fine = float(np.abs(path[2:] - 2 * path[1:-1] + path[:-2]).max())
    coarse = float(np.abs(path[4:] - 2 * path[2:-2] + path[:-4]).max())
    limit = max(s.tolerance_eV_per_A, KINK * coarse)
    return _compare(name, fine, limit, "eV/A", f"second difference over {STEP_A:g} A")
