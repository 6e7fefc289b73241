#!/usr/bin/env python3
"""Temperatures of O-H stretches with a small error: the work of the thermostat's noise taken out.

    python benchmarks/stretch_work.py list
    python benchmarks/stretch_work.py run respa-1ps-6fs-216 --replica 4 --time-ps 100
    python benchmarks/stretch_work.py table

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

import integrators
import numpy as np
from common import (
    RESULTS,
    by_run,
    keep,
    mean_of,
    parse_runs,
    record_of,
    replicas,
    runs_parser,
    save,
)
from ipi.utils.depend import dstrip
from ipi.utils.units import unit_to_internal, unit_to_user

from dmts_ipi import cli
from dmts_ipi.core.molecules import bonds
from dmts_ipi.core.statistics import mean_stderr
from dmts_ipi.ipi.integrator import respa
from dmts_ipi.ipi.session import session
from dmts_ipi.ipi.units import cell_from_ipi, positions_from_ipi

RECORDS, FILE = RESULTS / "stretch_work.jsonl", "stretch_work.txt"
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

    def advance(self) -> Any:
        if self.stretches is None:
            if self.thermostat.mode != "langevin" or self.thermostat.special:
                raise SystemExit("stretch_work takes Langevin with one friction only")
            names, q = np.array(self.beads.names), dstrip(self.beads.q)[0]
            self.stretches = Stretches(
                names, q, dstrip(self.cell.h).copy(), dstrip(self.beads.m).copy()
            )
            self.work, self.at_O, self.steps = np.zeros(6), [], 0
        yield from super().advance()
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

    def _thermostat_on_arrays(self) -> None:
        s, c = self.stretches.at(self._q), math.exp(-self.thermostat.dt / self.thermostat.tau)
        kept, before = c * self._p, self._energies()[0]
        super()._thermostat_on_arrays()
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


def controlled(kelvin: np.ndarray, noise: np.ndarray, step_ps: float) -> list[float]:
    """Mean and standard error of a temperature (n,) less what noise (n, 2) explains, and before."""
    decay = np.exp(-step_ps / np.array(MEMORIES_PS))
    x = np.zeros((len(kelvin), noise.shape[1], len(decay)))
    for k in range(len(kelvin)):
        x[k] = (x[k - 1] * decay if k else 0.0) + noise[k][:, None]
    used = slice(int(SKIPPED_PS / step_ps), None)
    t, x = kelvin[used], x[used].reshape(len(kelvin[used]), -1)
    mean, covariance = x.mean(axis=0), np.cov(x.T)
    slopes = np.linalg.solve(covariance, (x - mean).T @ (t - t.mean()) / (len(t) - 1))
    own, plain = mean_stderr(t - x @ slopes), mean_stderr(t)
    of_slopes = math.sqrt(1 + mean @ np.linalg.solve(covariance, mean))
    return [own.mean, own.stderr * of_slopes, plain.mean, plain.stderr]


def record(name: str, folder: Path) -> dict:
    from dmts_ipi.analysis.measure import measure
    from dmts_ipi.analysis.source import read_run

    m = measure(read_run(folder))
    fs, b, dof, at_O, at_end, on_bonds, on_all, *outer = np.loadtxt(folder / FILE).T[:9]
    noise, step_ps = np.stack([on_bonds / b, (on_all - on_bonds) / (dof - b)], axis=1), 1e-3 * fs[0]
    on = [mean_stderr(work / b / step_ps) for work in outer]
    one = record_of(name, folder, m)
    return {k: one[k] for k in ("run", "seed", "date", "machine")} | {
        "ps": round(1e-3 * fs.sum(), 3),
        "at_O_K": controlled(at_O, noise, step_ps),
        "at_end_K": controlled(at_end, noise, step_ps),
        "expected_K": m.expected["O-H"],
        "outer_K_per_ps": dict(
            zip(("bonds", "all"), [[e.mean, e.stderr] for e in on], strict=True)
        ),
    }


def table(folder: Path) -> None:
    runs = integrators.names()
    new = [record(n, f) for n in runs for f in replicas(folder, n) if (f / FILE).exists()]
    text = [
        "K, mean +- standard error of each seed and of all; plain: without the control variate",
        f"{'run':20s} {'seed':>5s} {'ps':>6s} {'at O (300 K)':>14s} {'plain':>14s} "
        f"{'at the end':>14s} {'plain':>14s} {'expected':>8s} {'outer on bonds':>16s} {'all':>16s}",
    ]
    for name, several in by_run(keep(RECORDS, new, list(runs))).items():
        for group in [*([one] for one in several), *([several] if len(several) > 1 else [])]:
            pairs = [
                mean_of([{"ps": r["ps"], "x": r[key][at : at + 2]} for r in group], "x")
                for key in ("at_O_K", "at_end_K")
                for at in (0, 2)
            ]
            cells = [f"{m:7.2f}+-{e:5.2f}" for m, e in pairs]
            cells += [f"{np.average([r['expected_K'] for r in group]):8.1f}"]
            for of in ("bonds", "all"):
                cells += ["{:8.2f}+-{:5.2f}".format(*mean_of(group, "outer_K_per_ps", of))]
            seed = str(group[0]["seed"]) if len(group) == 1 else "all"
            ps = sum(r["ps"] for r in group)
            text.append(f"{name:20s} {seed:>5s} {ps:6.1f} " + " ".join(f"{c:>14s}" for c in cells))
    save("stretch_work", "\n".join(text))


def main() -> None:
    if sys.argv[1:2] == ["dmts-ipi"]:
        raise SystemExit(instrumented(sys.argv[2:]))
    p = runs_parser(__doc__, integrators.FOLDER)
    p.add_argument("--time-ps", type=float, default=integrators.PS, help="length, ps")
    args = parse_runs(p, [n for n in integrators.names() if n.startswith("respa-1ps")])
    if args.what == "run":
        own = [sys.executable, __file__, "dmts-ipi"]
        integrators.run(args.names, args.folder, args.threads, args.replica, args.time_ps, own)
    elif args.what == "table":
        table(args.folder)


if __name__ == "__main__":
    main()
