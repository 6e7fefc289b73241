"""``dmts-ipi tune FOLDER``: the largest outer step whose heating stays within a tolerance."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.files import replace_file, write_json

TOO_HOT, TOO_HOT_SIGMAS = 0.6, 6.0  # a trial hotter by this part, and this unlikely, is ended
BURST_FRAMES, BURSTS, SETTLE_FS = 60, 3, 100.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    add = parser.add_argument
    parser.epilog = (
        "Predicted heating comes first, then trials of --trial-ps that bracket the limit, then the "
        "best goes on to --confirm-ps. Trials are run folders in FOLDER/tune and are not repeated."
    )
    add("folder", help="run folder made by `dmts-ipi init`, mode dmts")
    add("--tolerance-K", type=float, default=3.0, help="heating that may remain, K")
    add("--n-inner", type=int, nargs="+", help="candidates; None: outer steps of 2 to 12 fs")
    add("--trial-ps", type=float, default=2.0, help="length of a trial, ps")
    add("--confirm-ps", type=float, default=6.0, help="length of the chosen one, ps")
    add("--labels", type=Path, help="bursts labelled by this teacher; None: a few are made")
    add("--no-prediction", action="store_true", help="begin at the folder's own n_inner")
    add("--dry-run", action="store_true", help="choose, but do not write into run.yaml, input.xml")
    add("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Chooses, plots and writes."""
    from dmts_ipi.analysis import tuning
    from dmts_ipi.ipi.run_folder.folder import RunFolder

    folder = RunFolder(args.folder)
    candidates = _check(args, folder.config)
    config = folder.config
    limit = args.tolerance_K * config.friction_per_ps
    outer = {n: n * config.inner_step_fs for n in candidates}
    predicted: dict[int, tuple[float, float, float]] = {}
    if args.no_prediction:
        guess = min(candidates, key=lambda n: abs(n - config.n_inner))
    else:
        predicted = _predict(args, folder, outer)
        guess = tuning.first_guess({n: p for n, (p, *_) in predicted.items()}, limit)
        for n, (p, error, _) in predicted.items():
            _say(f"{outer[n]:g} fs: predicted heating {p:.2g} +- {error:.1g} K/ps")
    choice = tuning.bracket(candidates, guess, limit, lambda n: _trial(args, folder, n))
    choice = _confirm(args, folder, choice, limit)
    picture = folder.path / "tune" / "tune.png"
    tuning.plot(
        picture,
        choice,
        {outer[n]: (p, e) for n, (p, e, _) in predicted.items()},
        limit,
        config.temperature_K,
    )
    record = _record(args, choice, predicted, limit, outer)
    record["bonds_K"] = _bonds_K(folder, choice, predicted)
    write_json(folder.path / "tune" / "tune.json", record)
    record["written"] = False
    if choice.chosen is not None and not args.dry_run:
        record["written"] = _write(folder, choice.chosen.n_inner)
    _tell(args, choice, record, picture)
    return 0 if choice.chosen is not None else 3


def _check(args: argparse.Namespace, config: Any) -> list[int]:
    if config.mode != "dmts":
        raise InputError("mode", config.mode, "only dmts has an outer step to tune")
    if config.ensemble == "nve":
        raise InputError("ensemble", "nve", "has no thermostat to hold a heating; tune in nvt")
    for name in ("tolerance_K", "trial_ps", "confirm_ps"):
        if not getattr(args, name) > 0:
            raise InputError(name, getattr(args, name), "must be positive")
    inner = config.inner_step_fs
    found = sorted(set(args.n_inner or range(max(2, math.ceil(2 / inner)), int(12 / inner) + 1)))
    if not found or found[0] < 1 or found[-1] > 100:
        raise InputError("n_inner", args.n_inner or "", "give whole numbers from 1 to 100")
    return found


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _predict(
    args: argparse.Namespace, folder: Any, outer: dict[int, float]
) -> dict[int, tuple[float, float, float]]:
    """Predicted heating at every candidate, its error, and what of it goes into bonds, K/ps."""
    from dmts_ipi.core.frames import bursts, read_frames, require_forces
    from dmts_ipi.core.heating import heating_of_bursts
    from dmts_ipi.distill.models import load_model

    config = folder.config
    numbers, masses, *_ = folder.structure()
    if args.labels is not None:
        frames = read_frames(args.labels)
        require_forces(frames, args.labels)
        groups = [g for g in bursts(frames) if np.array_equal(g[0].numbers, numbers)]
        if not groups:
            raise InputError("labels", args.labels, "holds no bursts of the folder's system")
    else:
        groups = _bursts(folder)
    s = config.student
    student = load_model(s.model, device=s.device, dtype=s.dtype, compile=False)
    forces = [
        np.stack(
            [student.compute(f.numbers, f.positions, f.cell, f.pbc).forces_eV_per_A for f in group]
        )
        for group in groups
    ]
    found = heating_of_bursts(groups, forces, masses, list(outer.values()), config.temperature_K)
    values = zip(found.K_per_ps, found.stderr_K_per_ps, found.by_motion["stretch"], strict=True)
    return {n: (float(p), float(e), float(b)) for n, (p, e, b) in zip(outer, values, strict=True)}


def _bonds_K(
    folder: Any, choice: Any, predicted: dict[int, tuple[float, float, float]]
) -> float | None:
    """How much hotter the bonds may be than all atoms are on average, K; None: not known.

    Heat that goes into n_b of 3N degrees of freedom and leaves by the friction g alone settles
    there at P 3N / (n_b g); what bonds pass on to other motions makes it less.
    """
    from dmts_ipi.core.molecules import bonds

    if choice.chosen is None or choice.chosen.n_inner not in predicted:
        return None
    p, _, stretch = predicted[choice.chosen.n_inner]
    numbers, _, positions, cell, pbc = folder.structure()
    pairs, _ = bonds(numbers, positions, cell, pbc)
    if not len(pairs) or not p > 0:
        return None
    heating = max(choice.chosen.heating_K_per_ps.mean, 0.0) * min(max(stretch / p, 0.0), 1.0)
    return float(heating * 3 * len(numbers) / len(pairs) / folder.config.friction_per_ps)


def _bursts(folder: Any) -> list[list[Any]]:
    """Consecutive frames of the teacher, 1 fs apart, from the folder's structure."""
    from dmts_ipi.core.frames import Frame
    from dmts_ipi.distill.labelling.sampler import Langevin, thermal_velocities
    from dmts_ipi.distill.models import load_model

    config = folder.config
    numbers, masses, positions, cell, pbc = folder.structure()
    t = config.teacher
    teacher = load_model(t.model, device=t.device, dtype=t.dtype)
    rng = np.random.default_rng(config.seed)
    start = Frame(numbers, positions, cell, pbc)
    velocities = thermal_velocities(masses, config.temperature_K, rng)
    md = Langevin(teacher, start, masses, velocities, rng, 1.0)
    groups = []
    for b in range(BURSTS):
        _say(f"burst {b + 1} of {BURSTS} with the teacher")
        for _ in range(round(SETTLE_FS)):
            md.step(config.temperature_K, 50.0)
        group = []
        for k in range(BURST_FRAMES):
            md.step(config.temperature_K, 0.0)
            group.append(
                Frame(
                    numbers,
                    md.positions.copy(),
                    cell,
                    pbc,
                    forces=md.result.forces_eV_per_A,
                    velocities=md.velocities.copy(),
                    burst=b,
                    time_fs=float(k),
                )
            )
        groups.append(group)
    return groups


def _trial(args: argparse.Namespace, folder: Any, n: int, ps: float | None = None) -> Any:
    """Runs one candidate, or goes on with it to ``ps``; what it measured."""
    from dmts_ipi.ipi.session.session import Hooks, run_session
    from dmts_ipi.ipi.session.watch import Limits

    trial = _trial_folder(args, folder, n)
    width = math.sqrt(2 / (3 * len(folder.structure().numbers)))
    hot = folder.config.temperature_K * (1 + max(TOO_HOT, TOO_HOT_SIGMAS * width))

    def watch(progress: Any) -> None:
        if progress.temperature_K > hot:
            from dmts_ipi.core.errors import RunFault

            raise RunFault(f"{progress.temperature_K:.0f} K at {progress.time_ps:.2f} ps")

    _say(f"{n * folder.config.inner_step_fs:g} fs: trial of {ps or args.trial_ps:g} ps")
    outcome = run_session(trial, Hooks(progress=watch), Limits(), ps)
    if outcome.status in (130, 143):
        raise KeyboardInterrupt
    return _measured(trial, n, outcome.exit if outcome.status else "")


def _trial_folder(args: argparse.Namespace, folder: Any, n: int) -> Any:
    """``FOLDER/tune/nNN``, made from the folder's settings where it is not there yet."""
    from ase.io import read

    from dmts_ipi.ipi.create import create_folder
    from dmts_ipi.ipi.run_folder.folder import CONFIG, STRUCTURE, RunConfig, RunFolder

    path = folder.path / "tune" / f"n{n:02d}"
    if (path / CONFIG).is_file():
        return RunFolder(path)
    settings = folder.config.model_dump() | {
        "n_inner": n,
        "time_ps": args.trial_ps,
        "equilibration_ps": 0.0,
        "checkpoints_every_fs": 500.0,
    }
    path.parent.mkdir(exist_ok=True)
    return create_folder(
        path, RunConfig.model_validate(settings), read(folder.path / STRUCTURE, format="extxyz")
    )


def _measured(trial: Any, n: int, fault: str) -> Any:
    from dmts_ipi.analysis import tuning
    from dmts_ipi.core.statistics import Estimate, langevin_floor_K, mean_stderr, not_below

    outer = n * trial.config.inner_step_fs
    unknown = Estimate(math.nan, math.nan, math.nan, 0)
    if fault.startswith("fault"):
        blown = Estimate(math.inf, math.nan, math.nan, 0)
        return tuning.Trial(n, outer, blown, unknown, math.nan, fault)
    columns = trial.properties()
    if np.ptp(columns["potential_eV"]) == 0:
        raise InputError(
            "teacher", trial.config.teacher.model, "gives no energy, by which tune measures heating"
        )
    numbers = trial.structure().numbers
    time, config = columns["time_ps"], trial.config
    kept = time >= tuning.SKIP * time[-1]
    floor = langevin_floor_K(
        config.temperature_K, 3 * len(numbers), config.friction_per_ps, float(np.ptp(time[kept]))
    )
    summary = trial.summary() or {}
    speed = summary.get("ns_per_day")
    found = tuning.Trial(
        n,
        outer,
        tuning.heating(time, columns["conserved_eV"], len(numbers)),
        not_below(mean_stderr(columns["temperature_K"][kept]), floor),
        math.nan if speed is None else float(speed),
    )
    e = found.heating_K_per_ps
    _say(f"{outer:g} fs: heating {e.mean:.2g} +- {e.stderr:.1g} K/ps".replace("nan", "?"))
    return found


def _confirm(args: argparse.Namespace, folder: Any, choice: Any, limit: float) -> Any:
    """Goes on with the chosen trial; one that no longer holds gives way to the next smaller."""
    from dmts_ipi.analysis import tuning

    trials = {t.n_inner: t for t in choice.trials}
    chosen = choice.chosen
    while chosen is not None and args.confirm_ps > args.trial_ps:
        longer = trials[chosen.n_inner] = _trial(args, folder, chosen.n_inner, args.confirm_ps)
        if longer.holds(limit):
            chosen = longer
            break
        below = [t for t in trials.values() if t.n_inner < longer.n_inner and t.holds(limit)]
        chosen = max(below, key=lambda t: t.n_inner, default=None)
    return tuning.Choice(chosen, sorted(trials.values(), key=lambda t: t.n_inner))


def _record(
    args: argparse.Namespace,
    choice: Any,
    predicted: dict[int, tuple[float, float, float]],
    limit: float,
    outer: dict[int, float],
) -> dict[str, Any]:
    return {
        "tolerance_K": args.tolerance_K,
        "limit_K_per_ps": limit,
        "chosen_n_inner": choice.chosen.n_inner if choice.chosen else None,
        "chosen_outer_fs": choice.chosen.outer_fs if choice.chosen else None,
        "predicted": [
            {
                "n_inner": n,
                "outer_fs": outer[n],
                "K_per_ps": p,
                "stderr_K_per_ps": e,
                "bonds_K_per_ps": b,
            }
            for n, (p, e, b) in predicted.items()
        ],
        "trials": [
            {
                "n_inner": t.n_inner,
                "outer_fs": t.outer_fs,
                "holds": t.holds(limit),
                "heating_K_per_ps": t.heating_K_per_ps.mean,
                "heating_stderr_K_per_ps": t.heating_K_per_ps.stderr,
                "temperature_K": t.temperature_K.mean,
                "temperature_stderr_K": t.temperature_K.stderr,
                "ns_per_day": t.ns_per_day,
                "note": t.note,
            }
            for t in choice.trials
        ],
    }


def _write(folder: Any, n: int) -> bool:
    """Puts n_inner into run.yaml and input.xml of a run that has not begun."""
    from dmts_ipi.ipi.run_folder.folder import INPUT, RunConfig
    from dmts_ipi.ipi.run_folder.render import DYNAMICS, Template

    output = folder.facts().output("properties")
    if output is not None and (folder.path / output.filename).exists():
        return False
    config = RunConfig.model_validate({**folder.config.model_dump(), "n_inner": n})
    template = Template((folder.path / INPUT).read_text(), INPUT)
    properties, frames, checkpoints = config.strides
    template.set(".", safe_stride=properties)
    template.set("output/properties", stride=properties)
    template.set("output/trajectory", stride=frames)
    template.set("output/checkpoint", stride=checkpoints)
    template.set("total_steps", config.total_steps)
    template.set(f"{DYNAMICS}/timestep", f"{config.outer_step_fs:.12g}")
    template.set(f"{DYNAMICS}/nmts", f"[1, {n}]")
    replace_file(folder.path / INPUT, template.text())
    folder.write_config(config)
    return True


def _tell(args: argparse.Namespace, choice: Any, record: dict[str, Any], picture: Path) -> None:
    from dmts_ipi.core.files import plain

    if args.json:
        print(json.dumps(plain(record), indent=1))
        return
    print(f"{'outer fs':>9s}{'predicted':>11s}{'measured':>16s}{'T, K':>14s}{'ns/day':>8s}")
    predicted = {p["n_inner"]: p["K_per_ps"] for p in record["predicted"]}
    for t in record["trials"]:
        heat, error = t["heating_K_per_ps"], t["heating_stderr_K_per_ps"]
        measured = "blew up" if math.isinf(heat) else f"{heat:.2g} +- {error:.1g}"
        kelvin = f"{t['temperature_K']:.0f} +- {t['temperature_stderr_K']:.0f}"
        foretold = f"{predicted[t['n_inner']]:.2g}" if t["n_inner"] in predicted else "-"
        print(
            f"{t['outer_fs']:9g}{foretold:>11s}{measured:>16s}{kelvin:>14s}{t['ns_per_day']:8.3g}"
            + ("  holds" if t["holds"] else "")
        )
    limit = f"heating within {record['limit_K_per_ps']:g} K/ps ({args.tolerance_K:g} K)"
    if choice.chosen is None:
        print(f"no outer step keeps its {limit}; a better student is needed (dmts-ipi diagnose)")
    else:
        where = "written into" if record["written"] else "not written into"
        print(
            f"n_inner {choice.chosen.n_inner}, outer step {choice.chosen.outer_fs:g} fs: {limit}; "
            f"{where} {args.folder}"
        )
    if record["bonds_K"] is not None:
        print(f"bonds: hotter by {record['bonds_K']:.1f} K at most, where the heat goes in first")
    print(f"plot: {picture}")
