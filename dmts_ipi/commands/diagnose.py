"""``dmts-ipi diagnose``: how conservative the forces of models are, side by side."""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from dmts_ipi.core.errors import InputError

from . import diagnose_text


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add = parser.add_argument
    add("--model", required=True, nargs="+", help="models to compare; the first is the reference")
    add(
        "--structure",
        type=Path,
        required=True,
        help="file with a structure from a simulation; its last frame is used",
    )
    add(
        "--labels",
        type=Path,
        nargs="+",
        help="labelled bursts of the teacher, for the predicted heating",
    )
    add(
        "--atoms",
        type=int,
        default=24,
        help="number of atoms in the block of the Jacobian; 12 evaluations each",
    )
    add("--loops", type=int, default=6, help="number of closed loops; 32 evaluations each")
    add("--nve-ps", type=float, default=1.0, help="length of the NVE run, ps; 0: none")
    add(
        "--thermostat-ps",
        type=float,
        default=0.0,
        help="length of each Langevin run, ps; 0: none",
    )
    add("--step-fs", type=float, default=1.0, help="time step of these runs, fs")
    add("--temperature-K", type=float, default=300.0, help="temperature of these runs, K")
    add("--hmr", type=float, default=3.0, help="mass moved to each hydrogen in these runs, amu")
    add(
        "--optimise-steps",
        type=int,
        default=300,
        help="steps of the geometry optimisation; 0: none",
    )
    add(
        "--roughness",
        action="store_true",
        help="also measure whether the first model is smooth (400 evaluations more)",
    )
    add(
        "--outer-fs",
        type=float,
        default=6.0,
        help="outer step for which the last line judges the heating, fs",
    )
    add("--seed", type=int, default=1, help="seed of loops, velocities and noise")
    add("--device", default="cpu", help="cpu, cuda or cuda:N")
    add(
        "--dtype",
        choices=["float32", "float64"],
        default="float64",
        help="precision of all models, including students",
    )
    add("--json", action="store_true", help="print the results as JSON")


def run(args: argparse.Namespace) -> int:
    """Prints a table, or JSON."""
    from dmts_ipi.core.frames import read_frames
    from dmts_ipi.core.label_files import read_labels
    from dmts_ipi.core.model import check_structure
    from dmts_ipi.models.load import load_model

    _check(args)
    frame = read_frames(args.structure, "-1")[0]
    files = [read_labels(path) for path in args.labels or []]
    figures: dict[str, dict[str, Any]] = {}
    for spec in args.model:
        model = load_model(spec, device=args.device, dtype=args.dtype, compile=False)
        check_structure(frame.numbers, frame.positions, frame.cell, frame.pbc, model.elements)
        figures[spec] = _diagnose(args, model, frame, files, first=spec == args.model[0])
    verdict = diagnose_text.verdict_of(figures, args.outer_fs)
    if args.json:
        record = {"models": figures, "verdict": verdict, "published": diagnose_text.published()}
        print(json.dumps(_finite(record), allow_nan=False))
    else:
        print("\n".join(diagnose_text.table(figures, args.outer_fs)))
        print(verdict)
    return 0


def _check(args: argparse.Namespace) -> None:
    for name in ("nve_ps", "thermostat_ps", "hmr", "optimise_steps", "loops"):
        if not getattr(args, name) >= 0:
            raise InputError(name, getattr(args, name), "must be zero or positive")
    for name in ("atoms", "step_fs", "temperature_K", "outer_fs"):
        if not getattr(args, name) > 0:
            raise InputError(name, getattr(args, name), "must be positive")
    if len(set(args.model)) < len(args.model):
        raise InputError("model", args.model[-1], "is given twice; name each once")


def _say(line: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)


def _diagnose(
    args: argparse.Namespace, model: Any, frame: Any, files: list[Any], first: bool
) -> dict[str, Any]:
    """All figures of one model."""
    from dmts_ipi.analysis import nonconservativity as direct
    from dmts_ipi.learning import evaluate as ev
    from dmts_ipi.learning import smoothness
    from dmts_ipi.learning.labelling.sampler import hmr_masses

    results: dict[str, Any] = {
        "name": model.name,
        "identity": model.identity,
        "conservative": model.conservative,
    }
    results["jacobian"] = asdict(direct.asymmetry(model, frame, args.atoms, report=_say))
    work = direct.loop_work_meV(model, frame, args.loops, seed=args.seed, report=_say)
    results["loop_work_meV"] = work.tolist()
    results["loop_work_rms_meV"] = float(np.sqrt((work**2).mean())) if len(work) else math.nan
    results["net"] = asdict(direct.net_forces(model, frame))
    _say(f"{model.name}: geometry optimisation")
    if args.optimise_steps:
        results["optimisation"] = asdict(
            direct.optimise(model, frame, max_steps=args.optimise_steps)
        )
    masses = hmr_masses(frame, args.hmr)
    if args.nve_ps:
        results["nve"] = _dynamics(args, model, frame, masses, args.nve_ps, 0.0)
    if args.thermostat_ps:
        for key, friction in (("weak", 1.0), ("strong", 100.0)):
            results[f"thermostat_{key}"] = _dynamics(
                args, model, frame, masses, args.thermostat_ps, friction
            )
    try:
        scan = smoothness.bond_scan(model, frame)
        middle = scan.stiffness_eV_per_A2[len(scan.r_A) // 2 - 5 : len(scan.r_A) // 2 + 5]
        results["stretch_stiffness_eV_per_A2"] = float(middle.mean())
        results["stretch_roughness_eV_per_A2"] = scan.roughness_eV_per_A2
        if args.roughness and first:
            results["smoothness"] = smoothness.measure(
                model, frame, args.temperature_K, args.hmr, args.seed, report=_say
            ).as_dict()
    except InputError:
        pass  # no X-H bond
    if files:
        _say(f"{model.name}: labels")
        outer = sorted({4.0, 5.0, 6.0, 8.0, float(args.outer_fs)})
        results["labels"] = ev.evaluate(model, files, outer).as_dict()
    _say("")
    return results


def _dynamics(
    args: argparse.Namespace, model: Any, frame: Any, masses: Any, ps: float, friction: float
) -> dict[str, Any]:
    """A run of the sampler: drift without a thermostat, temperatures by element and of bonds."""
    from dmts_ipi.analysis.kinetic import KineticSampler
    from dmts_ipi.core.errors import ModelFault
    from dmts_ipi.core.statistics import slope_stderr
    from dmts_ipi.core.units import KB_EV_PER_K
    from dmts_ipi.learning.labelling.sampler import Langevin, relax, thermal_velocities

    rng = np.random.default_rng(args.seed)
    start = frame.at(relax(model, frame, 8.0, 100))
    speeds = thermal_velocities(masses, args.temperature_K, rng, frame.fixed)
    md = Langevin(model, start, masses, speeds, rng, args.step_fs)
    kinetic = KineticSampler(
        *(frame.numbers, masses, start.positions, frame.cell, frame.pbc),
        *(args.step_fs, args.temperature_K),
    )
    steps, before = max(20, round(1000 * ps / args.step_fs)), round(100 / args.step_fs)
    temperature, energy = [], []
    text = f"{model.name}: {'NVE' if not friction else f'Langevin {friction:g}/ps'}"
    try:
        for k in range(before + steps):
            md.step(args.temperature_K, friction if k >= before else 50.0)
            if k % 50 == 0:
                _say(f"{text}, step {k} of {before + steps}")
            if k >= before:
                kinetic.add(md.positions, frame.cell, md.velocities)
                kinetic.add_forces(md.positions, frame.cell, md.result.forces_eV_per_A)
                temperature.append(md.temperature_K)
                if md.result.energy_eV is not None:
                    thermal = 1.5 * len(masses) * KB_EV_PER_K * md.temperature_K
                    energy.append(md.result.energy_eV + thermal)
    except ModelFault as error:
        return {"blew_up_after_ps": len(temperature) * args.step_fs / 1000, "why": str(error)}
    time = np.arange(len(temperature)) * args.step_fs / 1000
    kinds = kinetic.bond_kinds()
    record: dict[str, Any] = {
        "ps": float(time[-1]),
        "temperature_K": float(np.mean(temperature)),
        "temperature_end_K": float(np.mean(temperature[-len(temperature) // 5 :])),
        "by_element_K": {z: e.mean for z, e in kinetic.by_element().items()},
        "bonds_K": {k.name: k.temperature.mean for k in kinds},
        "expected_K": kinetic.expected(kinds, friction > 0),
    }
    if not friction:
        slope = slope_stderr(time, temperature)
        record |= {"heating_K_per_ps": slope.mean, "heating_stderr_K_per_ps": slope.stderr}
        if energy:
            # Energy added, as the temperature that it would raise in a harmonic system.
            to_K = 1 / (3 * len(masses) * KB_EV_PER_K)
            total = slope_stderr(time, np.array(energy) * to_K)
            record |= {"drift_K_per_ps": total.mean, "drift_stderr_K_per_ps": total.stderr}
    return record


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
