"""How far the forces of a model are from a gradient, and what that does.

Bigi, Langer and Ceriotti, "The dark side of the forces", ICML 2025 (arXiv:2412.11569): the
asymmetry of the Jacobian (eq. 7) and its profile, work along closed loops (appendix D), geometry
optimisation (appendix E). Every function takes any ``core.model.ForceModel``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from dmts_ipi.core.frames import Frame
from dmts_ipi.core.model import ForceModel
from dmts_ipi.core.molecules import bonds, molecules
from dmts_ipi.core.motions import whole_molecules

Report = Callable[[str], None]
# Liquid water, arXiv:2412.11569: section 4.2, figure 4, section 4.4.
PUBLISHED_LAMBDA = {"PET-NC": 0.004, "ORB": 0.015, "Equiformer": 0.017, "SOAP-BPNN-NC": 0.032}
PUBLISHED_LOOP_MEV = {"ORB": 15, "PET-NC": 132, "Equiformer": -241, "SOAP-BPNN-NC": -410}
PROFILE_EDGES_A = (0.01, 1.2, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)


def forces_of(model: ForceModel, frame: Frame, positions: np.ndarray) -> np.ndarray:
    """Forces (n, 3) eV/A of a frame with other positions (n, 3) A."""
    result = model.compute(frame.numbers, positions, frame.cell, frame.pbc)
    return np.asarray(result.forces_eV_per_A, float)


@dataclass(frozen=True)
class Asymmetry:
    """Jacobian asymmetry over a block of atoms.

    ``lambda_`` is |J - J^T| / (2 |J|), Frobenius norms (eq. 7); 0 for a gradient. ``profile``:
    (r_low, r_high, rms |J_ij|, its asymmetric part, their ratio), in A and eV/A^2, by the distance
    of the pair; ``onsite`` the ratio within the blocks of single atoms. ``error`` bounds what the
    finite step and rounding add to ``lambda_``.
    """

    atoms: int
    lambda_: float
    error: float
    onsite: float
    profile: list[tuple[float, float, float, float, float]]


def asymmetry(
    model: ForceModel,
    frame: Frame,
    atoms: int = 24,
    step_A: float = 0.005,
    report: Report = lambda line: None,
) -> Asymmetry:
    """Jacobian of the forces by central differences, over whole molecules around one of them.

    Args:
        model: any.
        frame: structure.
        atoms: how many (rounded up to whole molecules); 12 evaluations each.
        step_A: displacement; a second one is twice as long (Richardson).
        report: receives progress.
    """
    chosen = cluster(frame, atoms)
    blocks = []
    for length in (step_A, 2 * step_A):
        J = np.zeros((3 * len(chosen), 3 * len(chosen)))
        for k, atom in enumerate(chosen):
            report(f"{model.name}: Jacobian, atom {k + 1} of {len(chosen)}")
            for axis in range(3):
                moved = []
                for sign in (1, -1):
                    x = np.array(frame.positions, float)
                    x[atom, axis] += sign * length
                    moved.append(forces_of(model, frame, x)[chosen])
                J[:, 3 * k + axis] = ((moved[0] - moved[1]) / (2 * length)).ravel()
        blocks.append(J)
    # Central differences of a gradient are asymmetric by h^2 / 6 d^3 f_i / dx_j^3: take it out.
    J = (4 * blocks[0] - blocks[1]) / 3
    anti, rough = (J - J.T) / 2, (blocks[0] - blocks[0].T) / 2
    norm = float(np.linalg.norm(J))
    return Asymmetry(
        len(chosen),
        float(np.linalg.norm(anti)) / norm,
        float(np.linalg.norm(anti - rough)) / norm,
        *_profile(frame, chosen, J, anti),
    )


def cluster(frame: Frame, atoms: int) -> np.ndarray:
    """At least ``atoms`` atoms: whole molecules, nearest to that of atom 0 first."""
    pairs, _ = bonds(frame.numbers, frame.positions, frame.cell, frame.pbc)
    of = molecules(len(frame.numbers), pairs)
    distance = _distances(frame, np.array([0]), np.arange(len(frame.numbers)))[0]
    order: list[int] = []
    for atom in np.argsort(distance, kind="stable"):
        if atom not in order:
            if len(order) >= atoms:
                break
            order += [int(a) for a in np.flatnonzero(of == of[atom])]
    return np.sort(np.array(order))


def _distances(frame: Frame, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    d = frame.positions[b][None] - frame.positions[a][:, None]
    periodic = np.broadcast_to(np.asarray(frame.pbc, bool), (3,))
    if periodic.any():
        box = np.where(periodic[:, None], frame.cell, np.eye(3) * 1e6)
        d = d - (np.rint(d @ np.linalg.inv(box)) * periodic) @ box
    return np.asarray(np.linalg.norm(d, axis=-1))


def _profile(
    frame: Frame, chosen: np.ndarray, J: np.ndarray, anti: np.ndarray
) -> tuple[float, list[tuple[float, float, float, float, float]]]:
    n = len(chosen)
    size, odd = (
        (M.reshape(n, 3, n, 3) ** 2).sum(axis=(1, 3)) for M in (J, anti)
    )  # squares of the 3 x 3 blocks
    r = _distances(frame, chosen, chosen)
    rows = []
    for low, high in pairwise(PROFILE_EDGES_A):
        here = (r >= low) & (r < high)
        if here.any():
            whole, part = (float(np.sqrt(M[here].mean())) for M in (size, odd))
            rows.append((low, high, whole, part, part / whole if whole > 0 else 0.0))
    own = np.eye(n, dtype=bool)
    return float(np.sqrt(odd[own].sum() / size[own].sum())), rows


def loop_work_meV(
    model: ForceModel,
    frame: Frame,
    loops: int = 6,
    points: int = 32,
    seed: int = 1,
    report: Report = lambda line: None,
) -> np.ndarray:
    """Work along closed loops of one molecule each, all other atoms fixed; meV, (loops,).

    The molecule turns by up to 0.5 rad about one axis and about a second one a quarter of a period
    later, while its size changes by up to 5 %: rotation and deformation, as in appendix D of the
    paper (whose path is not published). The trapezoid rule on a smooth loop converges
    exponentially.
    """
    rng = np.random.default_rng(seed)
    pairs, shifts = bonds(frame.numbers, frame.positions, frame.cell, frame.pbc)
    of = molecules(len(frame.numbers), pairs)
    start = frame.positions + whole_molecules(frame.positions, frame.cell, pairs, shifts)
    sizes = np.bincount(of)
    able = np.flatnonzero(sizes > 1) if (sizes > 1).any() else np.arange(len(sizes))
    shown = []
    for k in range(loops):
        report(f"{model.name}: closed loop {k + 1} of {loops}")
        atoms = np.flatnonzero(of == rng.choice(able))
        axes = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        centre = start[atoms].mean(axis=0)
        s = 2 * np.pi * np.arange(points) / points
        path = np.stack([_turned(start[atoms] - centre, axes, p) for p in s]) + centre
        if len(atoms) == 1:
            path += 0.2 * np.stack([np.cos(s) - 1, np.sin(s), 0 * s], axis=-1)[:, None] @ axes
        force = []
        for x in path:
            positions = start.copy()
            positions[atoms] = x
            force.append(forces_of(model, frame, positions)[atoms])
        # dx/ds of a periodic path, exact for its Fourier series.
        frequency = np.fft.fftfreq(points, 1 / points)
        frequency[points // 2] = 0
        velocity = np.fft.ifft(1j * frequency[:, None, None] * np.fft.fft(path, axis=0), axis=0)
        shown.append(1000 * float((np.array(force) * velocity.real).sum()) * 2 * np.pi / points)
    return np.array(shown)


def _turned(x: np.ndarray, axes: np.ndarray, s: float) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    turn = Rotation.from_rotvec(0.5 * np.sin(s) * axes[0]) * Rotation.from_rotvec(
        0.5 * (1 - np.cos(s)) * axes[1]
    )
    return np.asarray(turn.apply(x) * (1 + 0.05 * np.sin(s + 0.7) - 0.05 * np.sin(0.7)))


@dataclass(frozen=True)
class NetForce:
    """What must vanish: the force on the whole system, and on a molecule alone in vacuum.

    ``system_eV_per_A``: |sum of F|. ``alone_eV_per_A`` and ``torque_alone_eV``: rms over molecules.
    """

    system_eV_per_A: float
    alone_eV_per_A: float
    torque_alone_eV: float
    molecules: int


def net_forces(model: ForceModel, frame: Frame, most: int = 8) -> NetForce:
    """Net force of the frame, and net force and torque of its molecules taken out of it."""
    pairs, shifts = bonds(frame.numbers, frame.positions, frame.cell, frame.pbc)
    of = molecules(len(frame.numbers), pairs)
    x = frame.positions + whole_molecules(frame.positions, frame.cell, pairs, shifts)
    total = np.linalg.norm(forces_of(model, frame, frame.positions).sum(axis=0))
    force2, torque2 = [], []
    for mol in range(min(most, of.max() + 1)):
        a = np.flatnonzero(of == mol)
        alone = Frame(frame.numbers[a], x[a], np.zeros((3, 3)), np.zeros(3, bool))
        f = forces_of(model, alone, alone.positions)
        arm = alone.positions - alone.positions.mean(axis=0)
        force2.append(float((f.sum(axis=0) ** 2).sum()))
        torque2.append(float((np.cross(arm, f).sum(axis=0) ** 2).sum()))
    return NetForce(
        float(total), float(np.sqrt(np.mean(force2))), float(np.sqrt(np.mean(torque2))), len(force2)
    )


@dataclass(frozen=True)
class Optimisation:
    """A relaxation by FIRE: whether it converged, in how many steps, and what force was left."""

    converged: bool
    steps: int
    fmax_eV_per_A: float
    lowest_fmax_eV_per_A: float


def optimise(
    model: ForceModel, frame: Frame, fmax_eV_per_A: float = 0.02, max_steps: int = 300
) -> Optimisation:
    """Relaxes the atoms in a fixed cell by ASE's FIRE, which follows forces and needs no energy."""
    from ase import Atoms
    from ase.calculators.calculator import Calculator, all_changes
    from ase.optimize import FIRE

    class Wrapped(Calculator):  # type: ignore[misc]
        implemented_properties = ["energy", "forces"]  # noqa: RUF012

        def calculate(
            self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes
        ) -> None:
            super().calculate(atoms, properties, system_changes)
            # FIRE only prints the energy.
            self.results = {"energy": 0.0, "forces": forces_of(model, frame, atoms.positions)}

    atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
    atoms.calc = Wrapped()
    lowest = [np.inf]
    run = FIRE(atoms, logfile=None)

    def remember() -> None:
        lowest.append(float(np.linalg.norm(atoms.get_forces(), axis=1).max()))

    run.attach(remember)
    converged = bool(run.run(fmax=fmax_eV_per_A, steps=max_steps))
    return Optimisation(converged, int(run.nsteps), lowest[-1], min(lowest))
