"""Kinetic temperatures of all atoms, of elements and of X-H bonds, and what they should be.

A bond's temperature is T = mu v^2 / kB, v the relative velocity along it, mu its reduced mass:
one degree of freedom, with mean T in any canonical ensemble, whatever the potential. Energy that
multiple time stepping puts into a system shows there first.

**What they should be.** A harmonic mode of frequency w, with the velocity Verlet inner step dt,
moves on the ellipse of a shadow energy on which m <v^2> / (m w^2 <x^2>) = 1 - b, b = (w dt)^2 / 4.
The thermostat sets which of the two is right (Leimkuhler and Matthews, J. Chem. Phys. 138, 174102
(2013), for the first case):

* in the middle of the drift (BAOAB; STS, every inner step, or once per outer step with an odd
  n_inner): <x^2> is exact, the kinetic temperature reads T (1 - b);
* between two full inner steps (once per outer step, even n_inner, as stock i-PI 3.3 does it):
  the kinetic temperature is exact, <x^2> is too large by 1 / (1 - b).

This is no heating, and it is why 300 K in the bonds of a BAOAB run would mean heating.

The bias is measured. With the teacher's forces F of some frames b = dt^2 <F^2/m> / (4 kT), for any
coordinate and all modes at once, as <F^2> = kT <d2U/dx2>. Without them bonds alone are known, by
R = <v^2> / <(r - <r>)^2>, which equals w^2 (1 - b) in both cases and at any temperature, so
w^2 = 2 (1 - sqrt(1 - R dt^2)) / dt^2. Slow changes of <r> with a bond's surroundings enter
<(r - <r>)^2> and make w too small by a few percent. In water with HMR at 1 fs and 300 K forces say
297.1 K for atoms and 288.8 K for bonds, and bonds alone 297.9 K and 290.5 K.

A student whose stretch is stiffer or softer than the teacher's adds a bias of its own, as the last
half kick of the slow force comes right before the output: with a student 2 % too soft, harmonic
bonds of 16.6 fs read 287 K instead of 300 K at 1-6 fs, and 316 K if 2 % too stiff, without any
heating. It is not in the expected values, as the stiffness error isn't known here. Heating raises
<(r - <r>)^2> in proportion to <v^2>; this bias does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from ase.data import chemical_symbols

from dmts_ipi.core.molecules import bonds
from dmts_ipi.core.statistics import (
    Estimate,
    langevin_floor_K,
    mean_stderr,
    not_below,
    temperature_std,
)
from dmts_ipi.core.units import AMU_A2_PER_FS2_IN_EV, KB_EV_PER_K

from .relaxation import BlockVariance

TO_KELVIN = AMU_A2_PER_FS2_IN_EV / KB_EV_PER_K  # amu A^2/fs^2 -> K
BROKEN_FACTOR = 1.5  # longer than this times its first length: the bond is no longer that bond
# Atoms times frames with forces from which the bias is read off them: in water it is then known
# to 0.2 K of 3 K for atoms, and to 0.5 K of 10 K for bonds.
ENOUGH_FORCES = 1500


@dataclass(frozen=True)
class BondKind:
    """X-H bonds of one kind.

    ``temperature``: K. ``frequency_per_fs``: angular frequency of the stretch, rad/fs.
    ``bias_fraction``: b, the part that BAOAB takes from its kinetic temperature.
    """

    name: str
    bonds: int
    temperature: Estimate
    length_A: float
    length_std_A: float
    frequency_per_fs: float
    bias_fraction: float
    broken: int

    @property
    def period_fs(self) -> float:
        """Period of the stretch in fs."""
        return 2 * math.pi / self.frequency_per_fs if self.frequency_per_fs > 0 else math.nan


@dataclass
class KineticSampler:
    """Collects kinetic temperatures from frames with velocities.

    Args:
        numbers, masses_amu: (n,); masses as integrated (HMR included).
        positions: (n, 3) A of the first structure, which defines the bonds.
        cell: (3, 3) A; pbc: (3,).
        inner_fs, temperature_K: of the inner step and of the thermostat.
        fixcom: whether the integrator removes the motion of the centre of mass (i-PI does not
            where atoms are fixed).
        fixed: mask (n,) of atoms that are held; None: no atom is.
        block_frames: frames of a block for ``group_errors``; 0: none are made.

    Fixed atoms count as infinitely heavy: they have no degree of freedom, and a bond to one has the
    mass of its other atom.
    """

    numbers: np.ndarray
    masses_amu: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    inner_fs: float
    temperature_K: float
    fixcom: bool = False
    fixed: np.ndarray | None = None
    block_frames: int = 0
    _atoms: list[np.ndarray] = field(default_factory=list, repr=False)
    _elements: list[np.ndarray] = field(default_factory=list, repr=False)
    _bonds: list[np.ndarray] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self.numbers = np.asarray(self.numbers)
        self.masses_amu = np.asarray(self.masses_amu, float)
        mobile = np.ones(len(self.numbers), bool) if self.fixed is None else ~self.fixed
        self.fixcom = self.fixcom and bool(mobile.all())
        self.elements = sorted(set(int(z) for z in self.numbers[mobile]), reverse=True)
        self._inverse_mass = np.where(mobile, 1.0 / self.masses_amu, 0.0)
        removed = self.masses_amu / self.masses_amu.sum() if self.fixcom else 0 * self.masses_amu
        # With the centre of mass at rest, <m v^2> = 3 kB T (1 - m/M).
        self._dof = 3.0 * (1.0 - removed) * mobile
        self._members = [np.flatnonzero((self.numbers == z) & mobile) for z in self.elements]
        pairs, _ = bonds(self.numbers, self.positions, self.cell, self.pbc)
        of_hydrogen = (self.numbers[pairs[:, 1]] == 1) & (self.numbers[pairs[:, 0]] > 1)
        self.bonds = pairs[of_hydrogen & mobile[pairs].any(axis=1)]
        self._start = np.linalg.norm(self._vectors(self.positions, self.cell), axis=1)
        self._reduced = 1.0 / self._inverse_mass[self.bonds].sum(axis=1)
        self._heavy = self.numbers[self.bonds[:, 0]]
        self._kinds = sorted(set(int(z) for z in self._heavy), reverse=True)
        self._whole = np.ones(len(self.bonds), bool)
        # Sums over the frames, of each bond: length - _zero, its square, speed along it squared.
        self._sums = np.zeros((3, len(self.bonds)))
        self._zero = float(self._start.mean()) if len(self.bonds) else 0.0
        # Sums over the frames with forces: F^2/m of each atom, the same along each bond, eV/fs^2.
        self._squares = np.zeros(len(self.numbers)), np.zeros(len(self.bonds))
        self._with_forces = 0
        of_element = np.array([self.elements.index(int(z)) for z in self.numbers[mobile]])
        of_kind = np.array([self._kinds.index(int(z)) for z in self._heavy], int)
        self._mobile = np.flatnonzero(mobile)
        self._element_blocks = BlockVariance(of_element, len(self.elements))
        self._bond_blocks = BlockVariance(of_kind, len(self._kinds))

    @property
    def degrees_of_freedom(self) -> int:
        """Three for each atom that moves; three less where the centre of mass is held."""
        return 3 * len(self._mobile) - (3 if self.fixcom else 0)

    def _vectors(self, positions: np.ndarray, cell: np.ndarray) -> np.ndarray:
        """Bonds (..., b, 3) of positions (..., n, 3), nearest image."""
        d = positions[..., self.bonds[:, 1], :] - positions[..., self.bonds[:, 0], :]
        periodic = np.asarray(self.pbc, bool)
        if periodic.any() and len(self.bonds):
            box = np.where(periodic[:, None], cell, np.eye(3) * 1e6)
            s = np.rint(d @ np.linalg.inv(box))
            d = d - (s * periodic) @ box
        return d

    def add(
        self,
        positions: np.ndarray,
        cell: np.ndarray,
        velocities: np.ndarray,
        follows: bool = True,
    ) -> None:
        """Adds one frame, or a chunk of them with a first axis more.

        Args:
            positions: (n, 3) A, in any image.
            cell: (3, 3) A.
            velocities: (n, 3) A/fs.
            follows: they come one stride after the frames before.
        """
        if positions.ndim == 2:
            positions, cell, velocities = positions[None], cell[None], velocities[None]
        twice = self.masses_amu * np.einsum("cni,cni->cn", velocities, velocities) * TO_KELVIN
        self._atoms.append(twice.sum(axis=1) / self.degrees_of_freedom)
        self._elements.append(
            np.stack([twice[:, k].sum(axis=1) / self._dof[k].sum() for k in self._members], axis=1)
        )
        if self.block_frames:
            if not follows:
                self._element_blocks.interrupt()
                self._bond_blocks.interrupt()
            each = twice[:, self._mobile] / self._dof[self._mobile]
            self._element_blocks.add(each, self.block_frames)
        if len(self.bonds):
            self._add_bonds(self._vectors(positions, cell), velocities)

    def add_forces(self, positions: np.ndarray, cell: np.ndarray, forces: np.ndarray) -> None:
        """Adds one frame of the teacher's forces.

        Args:
            positions: (n, 3) A, in any image. cell: (3, 3) A. forces: (n, 3) eV/A.
        """
        self._with_forces += 1
        a = forces * (self._inverse_mass / AMU_A2_PER_FS2_IN_EV)[:, None]  # A/fs^2
        of_atoms, of_bonds = self._squares
        of_atoms += AMU_A2_PER_FS2_IN_EV * self.masses_amu * (a**2).sum(axis=1)
        if len(self.bonds):
            d = self._vectors(positions, cell)
            along = ((a[self.bonds[:, 1]] - a[self.bonds[:, 0]]) * d).sum(axis=1)
            of_bonds += AMU_A2_PER_FS2_IN_EV * self._reduced * along**2 / (d**2).sum(axis=1)

    @property
    def forces_count(self) -> bool:
        """Whether there are forces enough to read the integrator's bias off them."""
        return self._with_forces * len(self.numbers) >= ENOUGH_FORCES

    def _lost(self, squares: np.ndarray) -> np.ndarray:
        """Sum of b over degrees of freedom, from sums of F^2/m over frames."""
        kT = KB_EV_PER_K * self.temperature_K
        return np.asarray(squares * self.inner_fs**2 / (4 * kT * self._with_forces))

    def _add_bonds(self, d: np.ndarray, velocities: np.ndarray) -> None:
        length = np.sqrt(np.einsum("cbi,cbi->cb", d, d))
        v = velocities[:, self.bonds[:, 1]] - velocities[:, self.bonds[:, 0]]
        speed2 = (np.einsum("cbi,cbi->cb", v, d) / length) ** 2
        alive = length < BROKEN_FACTOR * self._start
        if not alive.all() or not self._whole.all():
            alive = np.logical_and.accumulate(alive & self._whole, axis=0)
        self._whole = self._whole & alive[-1]
        off = (length - self._zero) * alive
        speed2 = speed2 * alive
        self._sums += np.array([off.sum(axis=0), (off**2).sum(axis=0), speed2.sum(axis=0)])
        twice = self._reduced * speed2 * TO_KELVIN
        if self.block_frames:
            self._bond_blocks.add(twice, self.block_frames)
        of = [self._heavy == z for z in self._kinds]
        count = np.stack([alive[:, k].sum(axis=1) for k in of], axis=1)
        total = np.stack([twice[:, k].sum(axis=1) for k in of], axis=1)
        self._bonds.append(total / np.maximum(count, 1))

    @property
    def frames(self) -> int:
        """Frames added so far."""
        return sum(len(a) for a in self._atoms)

    def atoms(self) -> np.ndarray:
        """Series (frames,) of the temperature of all atoms, K."""
        return np.concatenate(self._atoms) if self._atoms else np.zeros(0)

    def by_element(self) -> dict[str, Estimate]:
        """Temperature of each element, K."""
        series = np.concatenate(self._elements)
        dof = [float(self._dof[k].sum()) for k in self._members]
        return {
            chemical_symbols[z]: self._estimate(series[:, k], dof[k])
            for k, z in enumerate(self.elements)
        }

    def _estimate(self, series: np.ndarray, dof: float) -> Estimate:
        """Mean of a temperature, with the exact width T sqrt(2/d) where the series' is smaller.

        With few degrees of freedom a run that is cold by chance has a narrow distribution too.
        """
        e = mean_stderr(series)
        width = temperature_std(self.temperature_K, dof) if self.temperature_K > 0 else 0.0
        return not_below(e, width * math.sqrt(e.inefficiency / e.n)) if e.stderr else e

    def group_errors(
        self, langevin_per_ps: float, frame_ps: float, kept_ps: float
    ) -> dict[str, float]:
        """Standard error that the temperature of each element and kind of bond is not below, K.

        Langevin friction g makes the energy of a mode relax at the rate g or faster: at
        l = g + k, where it passes energy to other modes at the rate k. Half of a mode's energy is
        kinetic, so the mean temperature of d of D degrees of freedom over a time t has the variance

            2 T^2 / t ((1/d - 1/D) / l + 1 / (D g)),

        the second term that of the energy which all share (``core.statistics.langevin_floor_K``).
        l is measured by the variance of the means of blocks of each atom or bond by itself, which
        in a liquid are many, taken high by its own error. Where they are few, nothing is known of
        k and l = g: 2 T^2 / (d g t). A frame every ``frame_ps`` adds the sampling of the other,
        oscillating half.
        """
        errors = {}
        D, T = float(self.degrees_of_freedom), self.temperature_K
        shared = langevin_floor_K(T, self.degrees_of_freedom, langevin_per_ps, kept_ps) ** 2
        block_ps = self.block_frames * frame_ps
        groups = [
            (chemical_symbols[z], self._element_blocks, k, float(self._dof[members].sum()), 3.0)
            for k, (z, members) in enumerate(zip(self.elements, self._members, strict=True))
        ]
        groups += [
            (f"{chemical_symbols[z]}-H", self._bond_blocks, k, float((self._heavy == z).sum()), 1.0)
            for k, z in enumerate(self._kinds)
        ]
        for name, blocks, k, d, each in groups:
            rate = langevin_per_ps
            if self.block_frames:
                rate = blocks.rate_per_ps(k, each, block_ps, langevin_per_ps)
            time_ps = max(1 / rate + frame_ps / 2, frame_ps)
            own = 2 * T**2 * max(1 / d - 1 / D, 0.0) * time_ps / kept_ps
            errors[name] = math.sqrt(own + shared)
        return errors

    def bond_kinds(self) -> list[BondKind]:
        """Temperature and stretch frequency of each kind of X-H bond; empty without frames.

        A bond that breaks (proton transfer) is left out from then on, and counted.
        """
        if not self._bonds:
            return []
        series, frames = np.concatenate(self._bonds), self.frames
        kinds = []
        for k, z in enumerate(self._kinds):
            of_kind = self._heavy == z
            keep = of_kind & self._whole
            if not keep.any():
                continue
            off, off2, speed2 = self._sums[:, keep].mean(axis=1) / frames
            # Each bond about its own mean would lose the slow part, but also 1/n of the fast one.
            spread = float(off2 - off**2)
            ratio = float(speed2) / spread if spread > 0 else 0.0
            w2 = stretch_frequency_squared(ratio, self.inner_fs)
            bias = w2 * self.inner_fs**2 / 4
            if self.forces_count:
                bias = float(self._lost(self._squares[1][keep]).mean())
            kinds.append(
                BondKind(
                    f"{chemical_symbols[z]}-H",
                    int(keep.sum()),
                    self._estimate(series[:, k], float(keep.sum())),
                    self._zero + float(off),
                    math.sqrt(max(spread, 0.0)),
                    math.sqrt(w2),
                    bias,
                    int((of_kind & ~self._whole).sum()),
                )
            )
        return kinds

    def expected(self, kinds: Sequence[BondKind], kinetic_bias: bool) -> dict[str, float]:
        """Expected kinetic temperature, K, of ``atoms``, each element and each kind of bond.

        Without forces, what bonds lose is shared by their two atoms as mu/m, and bends and slower
        modes, which lose 0.8 K of all atoms in water, are left out.
        """
        names = [chemical_symbols[z] for z in self.elements]
        expected = {name: self.temperature_K for name in ("atoms", *names)}
        lost = np.zeros(len(self.numbers))
        if kinetic_bias and self.forces_count:
            lost = self.temperature_K * self._lost(self._squares[0])
        for kind in kinds:
            bias = self.temperature_K * kind.bias_fraction if kinetic_bias else 0.0
            expected[kind.name] = self.temperature_K - bias
            if self.forces_count:
                continue
            heavy = chemical_symbols.index(kind.name.split("-")[0])
            of_kind = self.numbers[self.bonds[:, 0]] == heavy
            for side in (0, 1):
                atoms = self.bonds[of_kind, side]
                share = self._reduced[of_kind] * self._inverse_mass[atoms]
                np.add.at(lost, atoms, bias * share)
        expected["atoms"] -= float(lost.sum()) / self.degrees_of_freedom
        for name, members in zip(names, self._members, strict=True):
            expected[name] -= float(lost[members].sum() / self._dof[members].sum())
        return expected


def stretch_frequency_squared(ratio: float, inner_fs: float) -> float:
    """w^2 in 1/fs^2 from R = <v^2> / <dr^2>, in 1/fs^2, of a Verlet trajectory of step dt.

    Solves w^2 (1 - w^2 dt^2 / 4) = R. Where R dt^2 >= 1 the step is at its stability limit and
    w^2 = 2 / dt^2 is returned.
    """
    x = max(0.0, 1.0 - ratio * inner_fs**2)
    return 2.0 * (1.0 - math.sqrt(x)) / inner_fs**2
