"""The fastest steps and friction whose heating a thermostat holds: prediction, trials, bracketing.

What multiple time stepping adds to a system is measured by the slope of the conserved quantity,
which counts the thermostat's heat: a few picoseconds give it to a fraction of a kelvin per
picosecond, when the mean temperature is still uncertain by ten kelvin. Langevin friction g takes
2 g (K - K0) out, so heating by P (as the temperature rise of 3N kB) settles at dT = P / g: a
tolerance in kelvin is a limit of P. Where frictions differ the heat of stretches leaves by theirs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dmts_ipi.core.statistics import Estimate, slope_stderr
from dmts_ipi.core.units import KB_EV_PER_K

from .figures import COLOURS, INK, REFERENCE_COLOUR, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SKIP = 0.2  # of a trial, from start velocities that know nothing of the positions
CLEARLY = 1.05  # speeds of short trials are no better


@dataclass(frozen=True)
class Trial:
    """A short run. ``heating_K_per_ps`` from the conserved quantity; infinite: it blew up."""

    n_inner: int
    outer_fs: float
    heating_K_per_ps: Estimate
    limit_K_per_ps: float
    temperature_K: Estimate
    ns_per_day: float
    note: str = ""
    confirmed: bool = False

    @property
    def holds(self) -> bool:
        """Whether the heating is below the limit, by one standard error at least."""
        e, limit = self.heating_K_per_ps, self.limit_K_per_ps
        return math.isfinite(e.mean) and e.mean + (e.stderr if e.known else 0.0) <= limit


@dataclass(frozen=True)
class Choice:
    """Of one setting: the chosen trial (None: none held), all of them in the order of the step."""

    chosen: Trial | None
    trials: list[Trial]

    def confirmed(self, longer: Trial) -> Choice:
        """With a longer run in the place of a trial; the next smaller that held if it does not."""
        trials = [t for t in self.trials if t.n_inner != longer.n_inner] + [longer]
        below = [t for t in trials if t.n_inner < longer.n_inner and t.holds]
        chosen = longer if longer.holds else max(below, key=lambda t: t.n_inner, default=None)
        return Choice(chosen, sorted(trials, key=lambda t: t.n_inner))


@dataclass(frozen=True)
class Frictions:
    """What takes heat out, 1/ps: of stretches, and the mean of atoms.

    ``stretches`` are their part of all degrees of freedom; 0: there are none.
    """

    stretch_per_ps: float
    atoms_per_ps: float
    stretches: float

    def limit(self, tolerance_K: float, bonds_K: float, stretch_part: float) -> float:
        """Heating in K/ps of 3N kB that settles within both tolerances.

        Args:
            tolerance_K: mean excess of all atoms.
            bonds_K: that of stretches, if they pass nothing on.
            stretch_part: of the heating, 0 to 1.
        """
        part = min(max(stretch_part, 0.0), 1.0)
        atoms, excess = tolerance_K / self.atoms(part), self.bonds(part)
        return atoms if excess <= 0 else min(atoms, bonds_K / excess)

    def atoms(self, stretch_part: float) -> float:
        """Mean excess of atoms, K, for each K/ps of heating."""
        return stretch_part / self.stretch_per_ps + (1 - stretch_part) / self.atoms_per_ps

    def bonds(self, stretch_part: float) -> float:
        """Excess of stretches, K, for each K/ps of heating, if they pass nothing on."""
        if not self.stretches:
            return 0.0
        return stretch_part / (self.stretches * self.stretch_per_ps)


def frictions(
    atom_per_ps: np.ndarray, masses_amu: np.ndarray, bonds: np.ndarray, bond_per_ps: float
) -> Frictions:
    """Frictions of a thermostat.

    A stretch moves the atoms i, j of a bond by m_j : m_i, so that it is damped by
    (g_i m_j + g_j m_i) / (m_i + m_j), and by the friction along bonds.

    Args:
        atom_per_ps: friction of each atom, (n,).
        masses_amu: (n,).
        bonds: (b, 2) atoms; none: stretches are not told apart.
        bond_per_ps: friction along bonds.
    """
    atoms = float(atom_per_ps.mean())
    if not len(bonds):
        return Frictions(atoms, atoms, 0.0)
    i, j = bonds[:, 0], bonds[:, 1]
    m, g = masses_amu, atom_per_ps
    stretch = (g[i] * m[j] + g[j] * m[i]) / (m[i] + m[j])
    return Frictions(float(stretch.mean()) + bond_per_ps, atoms, len(bonds) / (3 * len(m)))


def fastest(choices: dict[str, Choice]) -> str | None:
    """Name of the setting to take: the first, unless another is faster by more than ``CLEARLY``."""
    speeds = {
        name: 0.0 if math.isnan(c.chosen.ns_per_day) else c.chosen.ns_per_day
        for name, c in choices.items()
        if c.chosen is not None
    }
    if not speeds:
        return None
    first, best = next(iter(speeds)), max(speeds, key=lambda name: speeds[name])
    return best if speeds[best] > CLEARLY * speeds[first] else first


def heating(time_ps: np.ndarray, conserved_eV: np.ndarray, n_atoms: int) -> Estimate:
    """Slope of the conserved quantity after ``SKIP``, in K/ps of 3N kB; infinite if it is NaN."""
    if not np.isfinite(conserved_eV).all():
        return Estimate(math.inf, math.nan, math.nan, len(time_ps))
    kept = time_ps >= time_ps[0] + SKIP * (time_ps[-1] - time_ps[0])
    to_K = 1 / (3 * n_atoms * KB_EV_PER_K)
    return slope_stderr(time_ps[kept], conserved_eV[kept] * to_K)


def first_guess(predicted: dict[int, float], limits: dict[int, float]) -> int:
    """The largest n_inner whose predicted heating, and that of all below, is within its limit."""
    best = min(predicted)
    for n in sorted(predicted):
        if predicted[n] > limits[n]:
            break
        best = n
    return best


def bracket(candidates: Sequence[int], guess: int, run: Callable[[int], Trial]) -> Choice:
    """Walks up from the guess while trials hold, or down until one does.

    Args:
        candidates: n_inner, in any order.
        guess: where to begin, one of them.
        run: makes a trial.
    """
    order = sorted(candidates)
    at = order.index(guess)
    trials = [run(order[at])]
    chosen = trials[0] if trials[0].holds else None
    step = 1 if chosen else -1
    while 0 <= at + step < len(order):
        at += step
        trials.append(run(order[at]))
        held = trials[-1].holds
        if step > 0 and not held:
            break
        if held:
            chosen = trials[-1]
            if step < 0:
                break
    return Choice(chosen, sorted(trials, key=lambda t: t.n_inner))


def plot(
    path: Path,
    choices: dict[str, Choice],
    best: str | None,
    predicted: dict[float, tuple[float, float]],
    temperature_K: float,
) -> None:
    """Heating, temperature and speed against the outer step, as PNG.

    ``predicted``: outer step, fs -> heating and its standard error, K/ps.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE | {"figure.facecolor": "white", "axes.facecolor": "white"}):
        figure = Figure(figsize=(5.5, 7), layout="constrained")
        top, middle, below = figure.subplots(3, 1, sharex=True)
        _bars(
            top,
            [(d, *predicted[d]) for d in sorted(predicted)],
            REFERENCE_COLOUR,
            "s--",
            "predicted",
        )
        for (name, choice), color in zip(choices.items(), cycle(COLOURS), strict=False):
            good = [t for t in choice.trials if math.isfinite(t.heating_K_per_ps.mean)]
            heat = [(t.outer_fs, t.heating_K_per_ps.mean, t.heating_K_per_ps.stderr) for t in good]
            _bars(top, heat, color, "o", name)
            for t in choice.trials:
                limit = (t.outer_fs - 0.25, t.outer_fs + 0.25)
                top.plot(limit, [t.limit_K_per_ps] * 2, color=color, lw=2, alpha=0.5)
                if t not in good:
                    top.axvline(t.outer_fs, color=color, linestyle=":", label=f"{name}: blew up")
            known = [t for t in good if math.isfinite(t.temperature_K.mean)]
            kelvin = [(t.outer_fs, t.temperature_K.mean, t.temperature_K.stderr) for t in known]
            _bars(middle, kelvin, color, "o", name)
            below.plot([t.outer_fs for t in good], [t.ns_per_day for t in good], "o-", color=color)
        _heating_axis(top)
        top.legend(frameon=False, title="bars: limit of the heating")
        middle.axhline(temperature_K, color=INK, lw=0.8)
        middle.set_ylabel("temperature, K\n(bars: one standard error)")
        chosen = choices[best].chosen if best is not None else None
        for axes in (top, middle, below) if chosen is not None else ():
            assert chosen is not None
            at = chosen.outer_fs
            axes.axvspan(at - 0.1, at + 0.1, color=INK, alpha=0.1)
        below.set_ylim(0, 1.1 * below.get_ylim()[1])
        below.set_ylabel("ns/day")
        below.set_xlabel("outer step, fs")
        figure.savefig(path, dpi=130)


def _bars(
    axes: Axes, points: Sequence[tuple[float, float, float]], color: str, fmt: str, label: str
) -> None:
    """Points (outer step in fs, value, standard error or NaN)."""
    if points:
        x, y, error = zip(*points, strict=True)
        axes.errorbar(x, y, yerr=np.nan_to_num(error), fmt=fmt, color=color, label=label)


def _heating_axis(axes: Axes) -> None:
    """Linear up to 1 K/ps, logarithmic above, with numbers that a person reads."""
    axes.set_yscale("symlog", linthresh=1)
    top = max(axes.get_ylim()[1], 3.0)
    ticks = [0.0, 0.5, *(a * 10.0**k for k in range(9) for a in (1, 3))]
    axes.set_yticks([x for x in ticks if x <= top], minor=False)
    axes.set_yticks([], minor=True)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_ylim(-0.15, top)
    axes.set_ylabel("heating, K/ps")
