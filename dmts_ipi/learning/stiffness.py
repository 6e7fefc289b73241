"""How much stiffer a student's X-H stretches are than the teacher's, on labelled bursts.

Heating does not see it: a student that is off by 2 % there heats nothing and still moves the
temperature of bonds by 8 K at 1-6 fs (``core.harmonic.stiffness_bias``, docs/analysis.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols

from dmts_ipi.core.frames import Frame
from dmts_ipi.core.harmonic import stiffness_bias
from dmts_ipi.core.molecules import bonds
from dmts_ipi.core.units import AMU_A2_PER_FS2_IN_EV


@dataclass(frozen=True)
class Stiffness:
    """Stretches of one kind of bond.

    ``stiffer``: (k_student - k_teacher) / k_teacher, ``stderr`` its error over bursts, NaN for one.
    ``period_fs``: under the teacher.
    """

    kind: str
    bonds: int
    period_fs: float
    stiffer: float
    stderr: float

    def shift_K(
        self,
        outer_fs: float,
        inner_fs: float,
        temperature_K: float,
        friction_per_ps: float = 1.0,
    ) -> list[float]:
        """What it adds to the bonds' kinetic temperature, and the error of that.

        Infinite where linear theory finds no stable motion; see ``stiffness_bias``.
        """
        off = self.stiffer, self.stiffer + self.stderr, self.stiffer - self.stderr
        at, high, low = (
            temperature_K * stiffness_bias(x, self.period_fs, outer_fs, inner_fs, friction_per_ps)
            if math.isfinite(x)
            else math.nan
            for x in off
        )
        return [at, abs(high - low) / 2 if math.isfinite(at) else math.inf]


def stretch_stiffness(
    groups: Sequence[Sequence[Frame]], student_forces: Sequence[np.ndarray], masses_amu: np.ndarray
) -> list[Stiffness]:
    """By kind of X-H bond, from the slope of acceleration along bonds against their length.

    Args:
        groups: bursts of one system, with the teacher's forces.
        student_forces: for each burst, (t, n, 3) eV/A; frames beyond t are left out.
        masses_amu: that moved the atoms, (n,).
    """
    samples: dict[str, list[np.ndarray]] = {}  # for each burst (3, t b): r, teacher, difference
    for group, student in zip(groups, student_forces, strict=True):
        numbers, cell = group[0].numbers, np.asarray(group[0].cell, float)
        pairs, shifts = bonds(numbers, group[0].positions, cell, group[0].pbc)
        frames = list(group)[: len(student)]
        x = np.array([f.positions for f in frames])
        d = x[:, pairs[:, 1]] - x[:, pairs[:, 0]] + shifts @ cell
        r = np.linalg.norm(d, axis=-1)

        def along(forces: np.ndarray, pairs=pairs, unit=d / r[..., None]) -> np.ndarray:
            a = forces / masses_amu[:, None] / AMU_A2_PER_FS2_IN_EV  # A/fs^2
            return np.einsum("tbi,tbi->tb", a[:, pairs[:, 1]] - a[:, pairs[:, 0]], unit)

        teacher = np.array([f.forces for f in frames], float)
        rows = np.stack([r, along(teacher), along(np.asarray(student) - teacher)])
        first, second = numbers[pairs].T
        for z in np.unique(first[(second == 1) & (first != 1)]):
            of = rows[:, :, (first == z) & (second == 1)]
            samples.setdefault(f"{chemical_symbols[z]}-H", []).append(of)
    stiffnesses = []
    for kind, several in samples.items():
        w2, stiffer = _slopes(several)
        if w2 > 0:
            count, n = several[0].shape[-1], len(several)
            without = [_slopes(several[:k] + several[k + 1 :])[1] for k in range(n) if n > 1]
            spread = float(np.std(without)) if n > 1 else math.nan
            stderr = math.sqrt(n - 1) * spread
            stiffnesses.append(Stiffness(kind, count, 2 * math.pi / math.sqrt(w2), stiffer, stderr))
    return stiffnesses


def _slopes(several: Sequence[np.ndarray]) -> tuple[float, float]:
    """The teacher's squared frequency, 1/fs^2, and by which part the student's is larger."""
    around = [a - a.mean(axis=1, keepdims=True) for a in several]  # each bond's own mean
    r, teacher, more = np.concatenate([a.reshape(3, -1) for a in around], axis=1)
    k = -float(r @ teacher)
    return k / float(r @ r), -float(r @ more) / k
