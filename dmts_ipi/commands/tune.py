"""``dmts-ipi tune FOLDER``: the fastest steps and friction whose heating is within a tolerance."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.files import replace_file, write_json

if TYPE_CHECKING:
    from dmts_ipi.analysis import tuning
    from dmts_ipi.learning.stiffness import Stiffness

    from .tune_trials import Predicted, Setting

OWN, HHF, BONDS = "own", "hhf", "bonds"
HHF_PER_PS, BONDS_PER_PS = 10.0, 50.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    add = parser.add_argument
    parser.epilog = (
        "First the heating is predicted; then trials of --trial-ps bracket the largest outer step "
        "of each thermostat and inner step; then the fastest setting is continued to --confirm-ps. "
        "Trials are run folders in FOLDER/tune and are not repeated."
    )
    add("folder", help="run folder made by `dmts-ipi init`, mode dmts")
    add(
        "--tolerance-K",
        type=float,
        default=3.0,
        help="largest allowed rise of the temperature by heating, K",
    )
    add("--bonds-tolerance-K", type=float, default=10.0, help="the same for bonds alone, K")
    add(
        "--n-inner",
        type=int,
        nargs="+",
        help="values to try (default: those with outer steps of 2 to 16 fs)",
    )
    add(
        "--inner-fs",
        type=float,
        nargs="+",
        help="inner steps to try, fs (default: that of the folder)",
    )
    add(
        "--thermostats",
        nargs="+",
        choices=[OWN, HHF, BONDS],
        help="thermostats to try: own (that of the folder), hhf (10/ps on hydrogen), bonds (50/ps "
        "along bonds) (default: own and, if the folder's thermostat allows it, hhf)",
    )
    add("--trial-ps", type=float, default=4.0, help="length of a trial, ps")
    add(
        "--confirm-ps",
        type=float,
        default=8.0,
        help="length to which the chosen trial is extended, ps",
    )
    add(
        "--labels",
        type=Path,
        help="bursts labelled by this teacher (default: a few are made)",
    )
    add(
        "--no-prediction",
        action="store_true",
        help="do not predict the heating; begin at the folder's own n_inner",
    )
    add(
        "--dry-run",
        action="store_true",
        help="do not write the chosen settings into run.yaml and input.xml",
    )
    add("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Chooses, plots and writes."""
    from dmts_ipi.analysis import tuning
    from dmts_ipi.ipi.run_folder.folder import RunFolder

    from .tune_trials import predict, say

    folder = RunFolder(args.folder)
    config = folder.config
    _check(args, config)
    settings = {s.name: s for s in _settings(args, folder)}
    predicted: dict[float, Predicted] = {}
    stiffness: list[Stiffness] = []
    if not args.no_prediction:
        outer = {n * s.inner_fs for s in settings.values() for n in s.candidates}
        predicted, stiffness = predict(args, folder, sorted(outer))
        for fs, p in predicted.items():
            say(f"{fs:g} fs: predicted heating {p.K_per_ps:.2g} +- {p.stderr_K_per_ps:.1g} K/ps")
    choices = {name: _search(args, folder, s, predicted) for name, s in settings.items()}
    best = _confirm(args, folder, settings, choices, predicted)
    chosen = choices[best].chosen if best is not None else None
    picture = folder.path / "tune" / "tune.png"
    lines = {fs: (p.K_per_ps, p.stderr_K_per_ps) for fs, p in predicted.items()}
    tuning.plot(picture, choices, best, lines, config.temperature_K)
    record = _record(args, choices, best, predicted)
    if best is not None and chosen is not None:
        record["bonds_K"] = _bonds_K(settings[best], chosen, predicted)
        record["shifts"] = _shifts(settings[best], chosen, stiffness, config.temperature_K)
    write_json(folder.path / "tune" / "tune.json", record)
    record["written"] = False
    if best is not None and chosen is not None and not args.dry_run:
        record["written"] = _write(folder, settings[best], chosen.n_inner)
    _tell(args, record, picture)
    return 0 if chosen is not None else 3


def _check(args: argparse.Namespace, config: Any) -> None:
    if config.mode != "dmts":
        raise InputError("mode", config.mode, "only runs of mode dmts have an outer step to tune")
    if config.level_scheme != "difference":
        remedy = "tune predicts heating for a student that stands in for the teacher"
        raise InputError("level_scheme", config.level_scheme, remedy)
    if len(config.levels) > 2:
        raise InputError(
            "levels", ", ".join(config.levels), "tune supports only runs with two levels"
        )
    if config.ensemble == "nve":
        raise InputError("ensemble", "nve", "has no thermostat to remove heat; tune in nvt")
    for name in ("tolerance_K", "bonds_tolerance_K", "trial_ps", "confirm_ps"):
        if not getattr(args, name) > 0:
            raise InputError(name, getattr(args, name), "must be positive")
    for inner in args.inner_fs or ():
        if not 0 < inner <= 20:
            raise InputError("inner_fs", inner, "must be positive and at most 20")


def _candidates(args: argparse.Namespace, inner_fs: float) -> list[int]:
    every = range(max(2, math.ceil(2 / inner_fs)), int(16 / inner_fs + 1e-9) + 1)
    strides = sorted(set(args.n_inner or every))
    if not strides or strides[0] < 1 or strides[-1] > 100:
        raise InputError("n_inner", args.n_inner or "", "give whole numbers from 1 to 100")
    return strides


def _settings(args: argparse.Namespace, folder: Any) -> list[Setting]:
    """Thermostats times inner steps, the folder's own first.

    Raises:
        InputError: a thermostat was asked for that the run cannot have.
    """
    from dmts_ipi.analysis import tuning
    from dmts_ipi.core.molecules import bonds

    from .tune_trials import Setting

    config = folder.config
    numbers, masses, positions, cell, pbc = folder.structure()
    pairs, _ = bonds(numbers, positions, cell, pbc)
    candidates = []
    for thermostat in args.thermostats or (OWN, HHF):
        changes: dict[str, Any] = {}
        why = "" if thermostat == OWN else _cannot(thermostat, config, numbers, pairs)
        if why and args.thermostats:
            raise InputError("thermostats", thermostat, why)
        if why:
            continue
        name = f"friction {config.friction_per_ps:g}/ps"
        if thermostat == HHF:
            own = config.friction_by_element_per_ps
            changes["friction_by_element_per_ps"] = {**own, "H": HHF_PER_PS}
            name = f"H {HHF_PER_PS:g}/ps"
        if thermostat == BONDS:
            changes["bond_friction_per_ps"] = BONDS_PER_PS
            name = f"bonds {BONDS_PER_PS:g}/ps"
        for inner in args.inner_fs or (config.inner_fs,):
            slug, now = "" if thermostat == OWN else f"{thermostat}-", dict(changes)
            if inner != config.inner_fs:
                slug, now["inner_fs"] = f"{slug}{inner:g}fs-", inner
            changed = config.changed(**now)
            damping = tuning.frictions(
                changed.atom_frictions_per_ps(numbers), masses, pairs, changed.bond_friction_per_ps
            )
            several = _candidates(args, inner)
            candidates.append(
                Setting(f"{name}, inner {inner:g} fs", slug, now, inner, several, damping)
            )
    return candidates


def _cannot(thermostat: str, config: Any, numbers: np.ndarray, pairs: np.ndarray) -> str:
    """Why a run cannot have a thermostat; empty: it can."""
    if config.splitting != "baoab-respa" or config.thermostat == "svr":
        return "needs splitting baoab-respa and thermostat langevin or ffl; see docs/thermostats.md"
    if thermostat == HHF and 1 not in numbers:
        return "the system has no hydrogen"
    if thermostat == HHF and config.friction_by_element_per_ps.get("H", 0) >= HHF_PER_PS:
        return "is the folder's own"
    if thermostat == BONDS and not len(pairs):
        return "there are no bonds"
    if thermostat == BONDS and config.bond_friction_per_ps:
        return "is the folder's own"
    return ""


def _limit(
    args: argparse.Namespace, setting: Setting, outer_fs: float, predicted: dict[float, Predicted]
) -> float:
    p = predicted.get(outer_fs)
    part = p.stretch_part if p else 0.0
    return setting.frictions.limit(args.tolerance_K, args.bonds_tolerance_K, part)


def _search(
    args: argparse.Namespace,
    folder: Any,
    setting: Setting,
    predicted: dict[float, Predicted],
) -> tuning.Choice:
    """The limit of one setting, by short trials."""
    from dmts_ipi.analysis import tuning

    from .tune_trials import trial

    candidates, inner = setting.candidates, setting.inner_fs
    limits = {n: _limit(args, setting, n * inner, predicted) for n in candidates}
    if predicted:
        heating = {n: predicted[n * inner].K_per_ps for n in candidates}
        guess = tuning.first_guess(heating, limits)
    else:
        guess = min(candidates, key=lambda n: abs(n * inner - folder.config.outer_fs))
    return tuning.bracket(
        candidates, guess, lambda n: trial(args, folder, setting, n, limits[n], args.trial_ps)
    )


def _confirm(
    args: argparse.Namespace,
    folder: Any,
    settings: dict[str, Setting],
    choices: dict[str, tuning.Choice],
    predicted: dict[float, Predicted],
) -> str | None:
    """Goes on with the fastest until it holds for long; one that does not gives way.

    Returns its name; ``choices`` get the longer trials.
    """
    from dmts_ipi.analysis import tuning

    from .tune_trials import trial

    while (best := tuning.fastest(choices)) is not None:
        chosen = choices[best].chosen
        assert chosen is not None
        if chosen.confirmed or args.confirm_ps <= args.trial_ps:
            break
        limit = _limit(args, settings[best], chosen.outer_fs, predicted)
        longer = trial(args, folder, settings[best], chosen.n_inner, limit, args.confirm_ps)
        choices[best] = choices[best].confirmed(replace(longer, confirmed=True))
    return best


def _bonds_K(
    setting: Setting, chosen: tuning.Trial, predicted: dict[float, Predicted]
) -> float | None:
    """How much hotter bonds may be than all atoms are on average, K; None: not known."""
    p = predicted.get(chosen.outer_fs)
    if p is None or not setting.frictions.stretches:
        return None
    return max(chosen.heating_K_per_ps.mean, 0.0) * setting.frictions.bonds(p.stretch_part)


def _shifts(
    setting: Setting, chosen: tuning.Trial, stiffness: list[Stiffness], temperature_K: float
) -> list[dict[str, Any]]:
    """What the student's stiffness does to bonds without heating them, by kind of bond."""
    friction = setting.frictions.stretch_per_ps
    return [
        {
            "bonds": s.kind,
            "student_stiffer": s.stiffer,
            "shift_K": shift,
            "shift_stderr_K": error,
        }
        for s in stiffness
        for shift, error in [s.shift_K(chosen.outer_fs, setting.inner_fs, temperature_K, friction)]
    ]


def _record(
    args: argparse.Namespace,
    choices: dict[str, tuning.Choice],
    best: str | None,
    predicted: dict[float, Predicted],
) -> dict[str, Any]:
    chosen = choices[best].chosen if best is not None else None
    return {
        "tolerance_K": args.tolerance_K,
        "bonds_tolerance_K": args.bonds_tolerance_K,
        "setting": best,
        "limit_K_per_ps": chosen.limit_K_per_ps if chosen else None,
        "chosen_n_inner": chosen.n_inner if chosen else None,
        "chosen_outer_fs": chosen.outer_fs if chosen else None,
        "bonds_K": None,
        "shifts": [],
        "predicted": [
            {
                "outer_fs": fs,
                "K_per_ps": p.K_per_ps,
                "stderr_K_per_ps": p.stderr_K_per_ps,
                "bonds_K_per_ps": p.stretch_K_per_ps,
            }
            for fs, p in predicted.items()
        ],
        "trials": [
            {
                "setting": name,
                "n_inner": t.n_inner,
                "outer_fs": t.outer_fs,
                "holds": t.holds,
                "limit_K_per_ps": t.limit_K_per_ps,
                "heating_K_per_ps": t.heating_K_per_ps.mean,
                "heating_stderr_K_per_ps": t.heating_K_per_ps.stderr,
                "temperature_K": t.temperature_K.mean,
                "temperature_stderr_K": t.temperature_K.stderr,
                "ns_per_day": t.ns_per_day,
                "note": t.note,
            }
            for name, choice in choices.items()
            for t in choice.trials
        ],
    }


def _write(folder: Any, setting: Setting, n: int) -> bool:
    """Puts the choice into run.yaml and input.xml of a run that has not begun."""
    from dmts_ipi.ipi.input_xml import DYNAMICS, InputXML
    from dmts_ipi.ipi.run_folder.bond_pairs import bond_pairs
    from dmts_ipi.ipi.run_folder.folder import INPUT
    from dmts_ipi.ipi.thermostats import make_thermostat

    output = folder.spec().output("properties")
    if output is not None and (folder.path / output.filename).exists():
        return False
    changes = {**setting.changes, "n_inner": n}
    config = folder.config.changed(**changes)
    template = InputXML((folder.path / INPUT).read_text(), INPUT)
    properties, frames, checkpoints = config.strides
    template.set(".", safe_stride=properties)
    template.set("output/properties", stride=properties)
    template.set("output/trajectory", stride=frames)
    template.set("output/checkpoint", stride=checkpoints)
    template.set("total_steps", config.total_steps)
    template.set(f"{DYNAMICS}/timestep", f"{config.outer_fs:.12g}")
    template.set(f"{DYNAMICS}/nmts", str(list(config.levels.values())))
    if {"friction_by_element_per_ps", "bond_friction_per_ps"} & set(changes):
        numbers, _, positions, cell, pbc = folder.structure()
        written = template.root.find(f"{DYNAMICS}/thermostat/local_tau") is not None
        by_element = setting.changes.get("friction_by_element_per_ps", {})
        if written and by_element:
            return False  # a second one for the same element: a person's business
        bond_friction = setting.changes.get("bond_friction_per_ps", 0.0)
        pairs = []
        if bond_friction:
            pairs = bond_pairs(numbers, positions, cell, pbc, bond_friction)
        added = make_thermostat(config.thermostat, config.friction_per_ps, by_element, pairs)
        template.add(f"{DYNAMICS}/thermostat", added.local_tags())
    replace_file(folder.path / INPUT, template.text())
    return True


def _tell(args: argparse.Namespace, record: dict[str, Any], picture: Path) -> None:
    from dmts_ipi.core.files import plain

    if args.json:
        print(json.dumps(plain(record), indent=1))
        return
    wide = max(len(t["setting"]) for t in record["trials"])
    head = f"{'':{wide}s}{'outer fs':>9s}{'predicted':>11s}{'measured':>16s}{'limit':>7s}"
    print(f"{head}{'T, K':>14s}{'ns/day':>8s}")
    predicted = {p["outer_fs"]: p["K_per_ps"] for p in record["predicted"]}
    for t in record["trials"]:
        heat, error = t["heating_K_per_ps"], t["heating_stderr_K_per_ps"]
        measured = "blew up" if math.isinf(heat) else f"{heat:.2g} +- {error:.1g}"
        kelvin = f"{t['temperature_K']:.0f} +- {t['temperature_stderr_K']:.0f}"
        foretold = f"{predicted[t['outer_fs']]:.2g}" if t["outer_fs"] in predicted else "-"
        print(
            f"{t['setting']:{wide}s}{t['outer_fs']:9g}{foretold:>11s}{measured:>16s}"
            f"{t['limit_K_per_ps']:7.3g}{kelvin:>14s}{t['ns_per_day']:8.3g}"
            + ("  holds" if t["holds"] else "")
        )
    if record["setting"] is None:
        print(
            f"no outer step keeps its heating within {args.tolerance_K:g} K; a better student is "
            "needed (dmts-ipi diagnose)"
        )
    else:
        where = "written into" if record["written"] else "not written into"
        print(
            f"{record['setting']}, n_inner {record['chosen_n_inner']}, outer step "
            f"{record['chosen_outer_fs']:g} fs: heating within {record['limit_K_per_ps']:.3g} K/ps "
            f"({args.tolerance_K:g} K); {where} {args.folder}"
        )
        if f"H {HHF_PER_PS:g}/ps" in record["setting"]:
            print("friction on hydrogen slows diffusion (--thermostats own leaves it as it is)")
    if record["bonds_K"] is not None:
        print(f"bonds: hotter by {record['bonds_K']:.1f} K at most, where the heat goes in first")
    for of in record["shifts"]:
        print(shift_line(of, args.bonds_tolerance_K))
    print(f"plot: {picture}")


def shift_line(of: dict[str, Any], tolerance_K: float) -> str:
    """One of ``record["shifts"]`` for people."""
    error = f" +- {of['shift_stderr_K']:.1g}" if math.isfinite(of["shift_stderr_K"]) else ""
    off = of["student_stiffer"]
    line = (
        f"{of['bonds']} bonds: the student is {'softer' if off < 0 else 'stiffer'} by "
        f"{100 * abs(off):.2g} %, which shifts them by {of['shift_K']:+.2g}{error} K "
        "without heating"
    )
    if abs(of["shift_K"]) > tolerance_K:
        line += f"; more than {tolerance_K:g} K: take a smaller outer step, or distil again"
    return line
