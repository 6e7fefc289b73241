#!/usr/bin/env python3
"""Temperatures of O-H stretches with a small error: the work of the thermostat's noise taken out.

    python benchmarks/stretch_work.py list
    python benchmarks/stretch_work.py run respa-1ps-6fs-216 --replica 4 --time-ps 100
    python benchmarks/stretch_work.py table       # of all seeds that lie in --folder

At 1/ps the energy of a stretch wanders by kT in a picosecond, mostly by work of the thermostat's
noise. The mean of that work is zero, so over memories of 0.1 to 1 ps it is a control variate: its
part, by linear regression, is taken off the temperature. Runs of ``integrators.py`` with Langevin
at 1/ps and baoab-respa are made here, with a recorder in i-PI's integrator.

At O, in the middle of an inner step of 1 fs, BAOAB has no bias for a harmonic mode: 300 K are
expected. At the end of outer steps, as runs report it, 300 (1 - (w dt)^2 / 4), by forces.
Kicks: what teacher minus student brings into stretches, and all of it, as K/ps of kB per bond.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ipi.utils.depend import dstrip
from ipi.utils.units import unit_to_internal, unit_to_user

import integrators
from common import combined, parse_runs, replicas, runs_parser, save
from dmts_ipi import cli
from dmts_ipi.core.molecules import bonds
from dmts_ipi.core.statistics import mean_stderr
from dmts_ipi.ipi.motion import respa
from dmts_ipi.ipi.session import session
from dmts_ipi.ipi.units import cell_from_ipi, positions_from_ipi

FILE = "stretch_work.txt"
MEMORIES_PS = (0.1, 0.3, 1.0)
SKIPPED_PS = 2.0  # the first positions are those of another run
EVERY = 8  # outer steps from line to line
FS = float(unit_to_internal("time", "femtosecond", 1.0))
KELVIN = float(unit_to_user("temperature", "kelvin", 1.0))


class Stretches:
    """The motion along O-H bonds: relative velocity (b,) and its energy, atomic units."""

    def __init__(self, names: np.ndarray, q: np.ndarray, h: np.ndarray, mass: np.ndarray) -> None:
        numbers = np.where(np.char.strip(names) == "H", 1, 8)
        cell = cell_from_ipi(h)
        self.pairs, shifts = bonds(numbers, positions_from_ipi(q.reshape(-1, 3)), cell, True)
        self._shift, self._mass = shifts @ h.T, mass[:, None]
        self.reduced = 1 / (1 / mass[self.pairs]).sum(axis=1)

    def at(self, q: np.ndarray) -> Stretches:
        """Takes the directions of the bonds from positions (3 n,)."""
        d = self._between(q) + self._shift
        self._u = d / np.linalg.norm(d, axis=1)[:, None]
        return self

    def _between(self, x: np.ndarray) -> np.ndarray:
        a = x.reshape(-1, 3)
        return a[self.pairs[:, 1]] - a[self.pairs[:, 0]]

    def velocity(self, p: np.ndarray) -> np.ndarray:
        """Along the bonds, of momenta (3 n,)."""
        return (self._between((p.reshape(-1, 3) / self._mass).ravel()) * self._u).sum(axis=1)

    def energy(self, v: np.ndarray) -> float:
        return 0.5 * float(self.reduced @ (v * v))

    def kelvin(self, v: np.ndarray) -> float:
        return 2 * KELVIN * self.energy(v) / len(v)


class Recorder(respa.RespaNVTIntegrator):
    """BAOAB-RESPA by NumPy, which writes down what noise and kicks do.

    A line of the file: its fs; how many bonds and degrees of freedom; temperature of bonds at O,
    mean, and at its end, K; work of noise, of outer and of inner kicks, each on bonds and on all,
    over kB, K.
    """

    stretches: Stretches | None = None

    def iter_step(self) -> Any:
        if self.stretches is None:
            if self.thermostat.mode != "langevin" or self.thermostat.special:
                raise SystemExit("stretch_work takes Langevin with one friction only")
            names, q = np.array(self.beads.names), dstrip(self.beads.q)[0]
            self.stretches = Stretches(
                names, q, dstrip(self.cell.h).copy(), dstrip(self.beads.m).copy()
            )
            self.work, self.at_O, self.steps = np.zeros(6), [], 0
        yield from super().iter_step()
        self.steps += 1
        if self.steps % EVERY == 0:
            s = self.stretches.at(self._q)
            line = [EVERY * self.dt / FS, len(s.pairs), len(self._p), np.mean(self.at_O)]
            line += [s.kelvin(s.velocity(self._p)), *(KELVIN * self.work)]
            with Path(FILE).open("a") as file:
                print(*(f"{x:.10g}" for x in line), file=file)
            self.work[:], self.at_O = 0.0, []

    def _energies(self) -> np.ndarray:
        s = self.stretches
        return np.array([s.energy(s.velocity(self._p)), 0.5 * float(self._p @ (self._p / self._m))])

    def _kick(self, k: int, half: float) -> None:
        self.stretches.at(self._q)
        before = self._energies()
        super()._kick(k, half)
        self.work[2 + 2 * k : 4 + 2 * k] += self._energies() - before

    def _compiled_inner_step(self) -> None:
        return None

    def _thermostat_in_arrays(self) -> None:
        s, c = self.stretches.at(self._q), math.exp(-self.thermostat.dt / self.thermostat.tau)
        kept, before = c * self._p, self._energies()[0]
        super()._thermostat_in_arrays()
        noise = self._p - kept
        mean = (1 - c * c) * self.thermostat.temp / 2
        v, dv = s.velocity(kept), s.velocity(noise)
        self.work[0] += float(s.reduced @ (v * dv)) + s.energy(dv) - len(v) * mean
        self.work[1] += float((kept + noise / 2) @ (noise / self._m)) - len(kept) * mean
        self.at_O.append(KELVIN * (before + self._energies()[0]) / len(v))


def instrumented(words: list[str]) -> int:
    """``dmts-ipi`` with the recorder in i-PI."""
    respa.INTEGRATORS["nvt"] = Recorder
    own = [sys.executable, "-u", __file__, "dmts-ipi"]
    session.ipi_command = lambda ours: [*own, "i-pi"]
    return cli.main(words)


class Seeds:
    """Temperatures of one run's seeds, each (n,), less what noise explains.

    Slopes are those of all seeds together, each around its own means.
    """

    def __init__(self, kelvin: list[np.ndarray], noise: list[np.ndarray], step_ps: float) -> None:
        used = slice(int(SKIPPED_PS / step_ps), None)
        self.kelvin = [t[used] for t in kelvin]
        self.x = [memories(w, step_ps)[used] for w in noise]
        x = np.concatenate([x - x.mean(axis=0) for x in self.x])
        t = np.concatenate([t - t.mean() for t in self.kelvin])
        self.slopes, self.covariance = np.linalg.lstsq(x, t, rcond=None)[0], x.T @ x / len(x)

    def mean(self, k: int) -> list[tuple[float, float]]:
        """Mean and standard error of a seed: with the noise taken out, and plain."""
        t, x = self.kelvin[k], self.x[k]
        own, plain = mean_stderr(t - x @ self.slopes), mean_stderr(t)
        off, part = x.mean(axis=0), len(t) / sum(map(len, self.kelvin))
        of_slopes = math.sqrt(1 + part * off @ np.linalg.solve(self.covariance, off))
        return [(own.mean, own.stderr * of_slopes), (plain.mean, plain.stderr)]


def memories(noise: np.ndarray, step_ps: float) -> np.ndarray:
    """Work (n, 2) as it is still remembered after each of ``MEMORIES_PS``: (n, 6)."""
    decay = np.exp(-step_ps / np.array(MEMORIES_PS))
    x = np.zeros((len(noise), noise.shape[1], len(decay)))
    for k in range(len(noise)):
        x[k] = (x[k - 1] * decay if k else 0.0) + noise[k][:, None]
    return x.reshape(len(noise), -1)


def rows(name: str, folders: list[Path]) -> list[str]:
    """Of each seed, and of all together."""
    from dmts_ipi.analysis.measure import measure
    from dmts_ipi.analysis.observables.temperature import TEMPERATURE
    from dmts_ipi.analysis.run_data import read_run
    from dmts_ipi.ipi.run_folder.folder import RunFolder

    lines = [np.loadtxt(folder / FILE) for folder in folders]
    measured = [measure(read_run(folder)) for folder in folders]
    fs, b, dof = lines[0][0, :3]
    step_ps = 1e-3 * fs
    noise = [np.stack([a[:, 5] / b, (a[:, 6] - a[:, 5]) / (dof - b)], axis=1) for a in lines]
    at_O, at_end = (Seeds([a[:, k] for a in lines], noise, step_ps) for k in (3, 4))
    seeds = [str(RunFolder(folder).config.seed) for folder in folders]
    ps = [len(a) * step_ps for a in lines]
    expected = [TEMPERATURE.of(m).expected["O-H"] for m in measured]
    found = []
    for k, a in enumerate(lines):
        kicks = [mean_stderr(a[:, column] / b / step_ps) for column in (7, 8)]
        found.append([*at_O.mean(k), *at_end.mean(k), *((e.mean, e.stderr) for e in kicks)])
    if len(found) > 1:
        several = zip(*found, strict=True)
        found.append([combined([(*v, t) for v, t in zip(c, ps, strict=True)]) for c in several])
        seeds, ps, expected = [*seeds, "all"], [*ps, sum(ps)], [*expected, float(np.mean(expected))]
    text = []
    for seed, time, wanted, values in zip(seeds, ps, expected, found, strict=True):
        cells = [f"{mean:.2f}+-{error:.2f}" for mean, error in values]
        cells.insert(4, f"{wanted:.1f}")
        text.append(f"{name:20s} {seed:>5s} {time:6.1f} " + " ".join(f"{c:>14s}" for c in cells))
    return text


def table(folder: Path) -> None:
    heads = ["at O (300)", "plain", "at the end", "plain", "expected", "kicks on bonds", "on all"]
    text = [
        "K, mean +- standard error of each seed and of all; plain: with the thermostat's noise",
        f"{'run':20s} {'seed':>5s} {'ps':>6s} " + " ".join(f"{h:>14s}" for h in heads),
    ]
    runs = {n: [f for f in replicas(folder, n) if (f / FILE).exists()] for n in integrators.names()}
    if not any(runs.values()):
        raise SystemExit(f"folder = {folder}: holds no {FILE}; run one first, or give --folder")
    for name, found in runs.items():
        text += rows(name, found) if found else []
    save("stretch_work", "\n".join(text))


def main() -> None:
    if sys.argv[1:2] == ["dmts-ipi"]:
        raise SystemExit(instrumented(sys.argv[2:]))
    p = runs_parser(__doc__, integrators.FOLDER)
    p.add_argument("--time-ps", type=float, default=integrators.PS, help="length, ps")
    args = parse_runs(p, [n for n in integrators.names() if n.startswith("respa-1ps")])
    if args.what == "run":
        if not args.names:
            p.error("name runs; see list")
        own = [sys.executable, __file__, "dmts-ipi"]
        integrators.run(args.names, args.folder, args.threads, args.replica, args.time_ps, own)
    elif args.what == "table":
        table(args.folder)


if __name__ == "__main__":
    main()
