"""Run folders with known physics, written in i-PI's formats, for the tests of the analysis."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import write

from dmts_ipi.analysis.kinetic import TO_KELVIN
from dmts_ipi.core.config import write_yaml
from dmts_ipi.core.units import KB_EV_PER_K
from dmts_ipi.ipi.run_folder.folder import ModelSettings, RunConfig
from dmts_ipi.ipi.run_folder.render import render

BOHR_A = 0.529177210903


def water_box(side: int = 3, spacing_A: float = 3.2, seed: int = 0) -> Atoms:
    """side^3 randomly rotated water molecules on a grid, masses with HMR of 3 amu."""
    rng = np.random.default_rng(seed)
    angle = math.radians(104.5)
    molecule = np.array(
        [[0, 0, 0], [0.97, 0, 0], [0.97 * math.cos(angle), 0.97 * math.sin(angle), 0]]
    )
    places = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)
    positions = []
    for place in places:
        q, r = np.linalg.qr(rng.normal(size=(3, 3)))
        positions.append(place * spacing_A + molecule @ (q * np.sign(np.diag(r))).T)
    atoms = Atoms("OH2" * len(places), np.concatenate(positions), cell=[side * spacing_A] * 3)
    atoms.pbc = True
    masses = atoms.get_masses()
    masses[atoms.numbers == 1] += 3
    masses[atoms.numbers == 8] -= 6
    atoms.set_masses(masses)
    return atoms


def correlated(n: int, phi: float, rng: np.random.Generator) -> np.ndarray:
    """AR(1) of unit variance."""
    x = np.empty(n)
    x[0] = rng.normal()
    for k in range(1, n):
        x[k] = phi * x[k - 1] + math.sqrt(1 - phi**2) * rng.normal()
    return x


def maxwell(masses_amu: np.ndarray, temperature_K: float, rng: np.random.Generator) -> np.ndarray:
    """Velocities (n, 3), A/fs."""
    return (
        rng.normal(size=(len(masses_amu), 3))
        * np.sqrt(temperature_K / TO_KELVIN / masses_amu)[:, None]
    )


def jittered(
    atoms: Atoms, frames: int, temperature_K: float, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions with whole molecules and single atoms displaced, and Maxwell velocities."""
    for _ in range(frames):
        shift = np.repeat(rng.normal(size=(len(atoms) // 3, 3)) * 0.15, 3, axis=0)
        x = atoms.positions + shift + rng.normal(size=(len(atoms), 3)) * 0.02
        yield x, maxwell(atoms.get_masses(), temperature_K, rng)


def write_folder(
    path: Path,
    atoms: Atoms,
    mode: str = "sts",
    n_inner: int = 1,
    temperature_K: float = 300.0,
    time_ps: float = 4.0,
    seed: int = 1,
    ns_per_day: float | None = 1.0,
    ensemble: str = "nvt",
    frames_every_fs: float = 50.0,
) -> Path:
    """A finished run: canonical temperatures, an i-PI input from a template.

    Molecules walk at random, with 0.25 A^2/ps; frames are otherwise independent.
    """
    rng = np.random.default_rng(seed)
    path.mkdir(parents=True)
    config = RunConfig(
        ensemble=ensemble,  # type: ignore[arg-type]
        mode=mode,  # type: ignore[arg-type]
        n_inner=n_inner,
        time_ps=time_ps,
        frames_every_fs=frames_every_fs,
        properties_every_fs=min(10.0, frames_every_fs),  # frames come with lines of properties
        teacher=ModelSettings(model="water-teacher"),
        student=ModelSettings(model="water-student") if mode == "dmts" else None,
    )
    write_yaml(config.settings, path / "run.yaml")
    (path / "input.xml").write_text(render(config, {}))
    write(path / "structure.extxyz", atoms, format="extxyz", columns=[
        "symbols", "positions", "masses"])  # fmt: skip
    p_stride, f_stride, _ = config.strides
    steps = np.arange(0, config.total_steps + 1, p_stride)
    dof = 3 * len(atoms)
    wave = correlated(len(steps), 0.8, rng)
    temperature = temperature_K * (1 + math.sqrt(2 / dof) * wave)
    potential = -10.0 * len(atoms) + 0.002 * len(atoms) * correlated(len(steps), 0.8, rng)
    rows = np.column_stack(
        [
            steps,
            steps * config.outer_fs / 1000,
            1e-5 * steps,
            temperature,
            temperature * dof * KB_EV_PER_K / 2,
            potential,
        ]
    )
    names = [
        "step", "time{picosecond}", "conserved{electronvolt}", "temperature{kelvin}",
        "kinetic_md{electronvolt}", "potential{electronvolt}",
    ]  # fmt: skip
    head = [f"# column   {k + 1}     --> {name} : x" for k, name in enumerate(names)]
    lines = [" ".join(f"{v:.10e}" for v in row) for row in rows]
    (path / "md.properties").write_text("\n".join(head + lines) + "\n")
    lengths = " ".join(f"{v:.5f}" for v in atoms.cell.cellpar())
    frame_steps = np.arange(0, config.total_steps + 1, f_stride)
    to_au = 0.02418884326509 / BOHR_A  # fs per atomic time, Angstrom per Bohr
    width = math.sqrt(2 * 0.25 * f_stride * config.outer_fs / 1000)
    walk = np.cumsum(rng.normal(size=(len(frame_steps), len(atoms) // 3, 3)) * width, axis=0)
    with (
        open(path / "md.positions_0.xyz", "w") as xs,
        open(path / "md.velocities_0.xyz", "w") as vs,
    ):
        for step, moved, (x, v) in zip(
            frame_steps, walk, jittered(atoms, len(frame_steps), temperature_K, rng), strict=True
        ):
            x = x + np.repeat(moved, 3, axis=0)
            for stream, what, values in (
                (xs, "positions{angstrom}", x),
                (vs, "velocities{atomic_unit}", v * to_au),
            ):
                stream.write(
                    f"{len(atoms)}\n# CELL(abcABC): {lengths}  Step: {step}  Bead: 0 {what} "
                    "cell{angstrom}\n"
                )
                for symbol, row in zip(atoms.symbols, values, strict=True):
                    stream.write(f"{symbol} " + " ".join(f"{c:.9e}" for c in row) + "\n")
    if ns_per_day is not None:
        (path / "summary.json").write_text(json.dumps({"ns_per_day": ns_per_day, "exit": "done"}))
    return path
