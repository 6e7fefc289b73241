"""Checks of ``input.xml`` before i-PI is started: inputs that cannot run, edits of a begun run.

A run that has begun continues from its checkpoint, which contains nearly everything of the input.
An edit of a tag is therefore followed where possible (the length of the run, places of sockets),
ignored with a note if it does not affect the physics, and refused otherwise. The input with which
the run began is kept in ``logs/begun.xml``. Nothing is written before all checks have passed.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols

from dmts_ipi.core.errors import DmtsError, InputError
from dmts_ipi.core.levels import TOLERANCE, totals
from dmts_ipi.ipi.input_xml import (
    Difference,
    InputSpec,
    differences,
    missing_columns,
    parse_xml,
    read_checkpoint,
)
from dmts_ipi.ipi.run_folder.folder import BEGUN, INPUT, LOGS, STRUCTURE, RunFolder
from dmts_ipi.ipi.thermostats import Thermostat

from .driver_processes import Hooks

MASS_TOLERANCE = 1e-3  # relative
POSITION_FORMATS = ("ase", "xyz", "pdb", "extxyz")
# Edits that a begun run follows: they are taken from input.xml at every start.
FOLLOWED = (r"total_steps", r"ffsocket \S+ mode", r"ffsocket \S+/(address|port)")
# Edits without any effect on the physics, which i-PI takes from its checkpoint.
HARMLESS = (
    r"simulation (verbosity|safe_stride|floatformat|threading)",
    r"ffsocket \S+( pbc)?(/(latency|timeout|slots|consolidate_messages))?",
)


def keep_begun(folder: Path) -> None:
    """Keeps the input with which a run begins."""
    (folder / LOGS).mkdir(exist_ok=True)
    shutil.copyfile(folder / INPUT, folder / BEGUN)


def check_input(folder: RunFolder, spec: InputSpec) -> None:
    """Refuses inputs that i-PI would run but our tools cannot analyse, and inconsistent atoms.

    Raises:
        InputError: the first thing that is wrong.
    """
    if spec.systems != 1:
        raise InputError(
            "input.xml: system",
            f"{spec.systems} systems",
            "`dmts-ipi run` looks after one; run this input by `dmts-ipi i-pi`",
        )
    properties = spec.output("properties")
    if properties is not None and (lacking := missing_columns(properties)):
        raise InputError(
            "input.xml: properties",
            properties.filename,
            f"lacks {', '.join(lacking)}: progress, watchdog and analysis need one file with "
            "all of step, time, conserved, temperature, potential",
        )
    structure = folder.structure()
    spec.check_labels(chemical_symbols[z] for z in structure.numbers)
    bad = [k for k in spec.fixed_atoms if not 0 <= k < len(structure.numbers)]
    if bad:
        last = len(structure.numbers) - 1
        raise InputError(
            "input.xml: fixatoms", bad[0], f"the structure has the indices 0 to {last}"
        )
    _check_start_file(folder, spec, structure.numbers, structure.masses_amu)


def _check_start_file(
    folder: RunFolder, spec: InputSpec, numbers: np.ndarray, masses_amu: np.ndarray
) -> None:
    """The drivers read ``structure.extxyz``: i-PI must start from the same atoms in its order."""
    start = spec.start
    if start is None or start.path == STRUCTURE or start.mode not in POSITION_FORMATS:
        return
    from ase.io import read

    file = folder.path / start.path
    what = "input.xml: file"
    remedy = f"the drivers read {STRUCTURE}: write <file mode='ase'>{STRUCTURE}</file>, or put"
    try:
        atoms = read(file, index=0)
    except FileNotFoundError as error:
        raise InputError(what, start.path, "does not exist") from error
    except Exception as error:  # ASE's readers raise whatever they like
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(what, start.path, f"cannot be read ({line})") from error
    if not np.array_equal(atoms.numbers, numbers):  # type: ignore[union-attr]
        raise InputError(
            what,
            start.path,
            f"has other elements, or another order of atoms, than {STRUCTURE}; {remedy} the same "
            f"atoms into {STRUCTURE}",
        )
    if spec.masses_given:
        return
    columns = getattr(atoms, "arrays", {})
    own = start.mode == "ase" and "masses" in columns
    masses = np.asarray(atoms.get_masses(), float)  # type: ignore[union-attr]
    if not np.allclose(masses, masses_amu, rtol=MASS_TOLERANCE):
        k = int(np.argmax(np.abs(masses - masses_amu)))
        raise InputError(
            what,
            start.path,
            f"gives atom {k} a mass of {masses[k]:.3f} amu{'' if own else ' (its element)'}, "
            f"{STRUCTURE} has {masses_amu[k]:.3f} (hydrogen mass repartitioning); {remedy} the "
            "masses into <initialize>",
        )


def check_edits(folder: RunFolder, spec: InputSpec, checkpoint: Path, hooks: Hooks) -> None:
    """Refuses edits that a begun run cannot follow, and reports those that have no effect.

    Args:
        folder: the run.
        spec: of its ``input.xml``, with the new length if one was asked for.
        checkpoint: from which it goes on.
        hooks: is told what is not followed.

    Raises:
        InputError: the first edit that cannot be followed.
    """
    same_physics(spec, read_checkpoint(checkpoint))
    kept = folder.path / BEGUN
    if not kept.is_file():  # a folder of an earlier version, or started by hand
        return
    try:
        before = parse_xml(kept)
    except InputError:
        return
    edits = differences(before, parse_xml(folder.path / INPUT))
    for edit in edits:
        if _is_one_of(edit, FOLLOWED) and edit.now:  # a tag that is removed has i-PI's default
            continue
        if _is_one_of(edit, HARMLESS):
            hooks.say(
                f"input.xml: {edit.path} {edit.before or '(none)'} -> {edit.now or '(none)'}: not "
                "followed by a run that has begun"
            )
            continue
        raise _refusal(edit.path, edit.now or "(removed)", edit.before or "without it")


def check_models(folder: RunFolder, spec: InputSpec, hooks: Hooks) -> None:
    """Refuses another model in the place of one that a begun run samples; names any other edit.

    ``run.yaml`` has the identity that each model had when the folder was made.

    Raises:
        InputError: what is sampled would change.
    """
    from dmts_ipi.models.load import read_record
    from dmts_ipi.models.registry import same_identity

    sampled = {name for name, w in totals(spec.levels).items() if abs(w) > TOLERANCE}
    for name, model in folder.settings.models.items():
        if not (model.identity and model.model):
            continue
        try:
            now = str(read_record(model.model).get("identity", ""))
        except DmtsError:
            continue  # its driver says what is wrong with it
        plain = now.partition("{")[0]  # earlier versions left keywords out
        if not now or model.identity == plain or same_identity(model.identity, now):
            continue
        what = f"run.yaml: models.{name}.model"
        if name in sampled:
            raise InputError(
                what,
                model.model,
                f"the run was made with another model ({model.identity[:60]}): another "
                "potential would be sampled; put it back, or make a new folder by `dmts-ipi init`",
            )
        hooks.say(f"{what} is not the one that the run was made with: goes on with {model.model}")


def _is_one_of(edit: Difference, patterns: Iterable[str]) -> bool:
    return any(re.fullmatch(pattern, edit.path) for pattern in patterns)


def _refusal(name: str, now: object, before: object) -> InputError:
    return InputError(
        f"input.xml: {name}",
        now,
        f"the run was started with {before} and goes on from its checkpoint; "
        "put it back, or make a new folder with `dmts-ipi init`",
    )


def same_physics(spec: InputSpec, begun: InputSpec) -> None:
    """Refuses to go on with other settings than a checkpoint has.

    Raises:
        InputError: the first that differs.
    """
    nve = spec.ensemble == "nve"
    for name, now, before in (
        ("ensemble", spec.ensemble, begun.ensemble),
        ("splitting", spec.splitting, begun.splitting),
        ("timestep", f"{spec.outer_fs:.6g} fs", f"{begun.outer_fs:.6g} fs"),
        ("nmts", _steps(spec), _steps(begun)),
        ("temperature", f"{spec.temperature_K or 0:.6g}", f"{begun.temperature_K or 0:.6g}"),
        ("pressure", f"{spec.pressure_bar or 0:.6g}", f"{begun.pressure_bar or 0:.6g}"),
        ("thermostat", _thermostats(spec), _thermostats(begun)),
        ("barostat", _barostat(spec), _barostat(begun)),
        ("fixcom", spec.fixcom, begun.fixcom),
        ("fixatoms", list(spec.fixed_atoms), list(begun.fixed_atoms)),
        ("nbeads", spec.n_beads, begun.n_beads),
        ("forces", spec.forces, begun.forces),
        ("bias", spec.bias, begun.bias),
        ("output", _outputs(spec), _outputs(begun)),
        ("ffsocket", sorted(spec.sockets), sorted(begun.sockets)),  # where they are may change
    ):
        if now != before and not (nve and name in ("temperature", "thermostat")):
            raise _refusal(name, now, before)


def _steps(spec: InputSpec) -> int | list[int]:
    steps = [level.steps for level in spec.levels]
    return spec.n_inner if len(steps) < 3 else steps


def _outputs(spec: InputSpec) -> list[tuple[str, int]]:
    return [(o.filename, o.stride) for o in spec.outputs]


def _thermostats(spec: InputSpec) -> str:
    return "; ".join(_describe(t) for t in spec.thermostats) or "none"


def _describe(thermostat: Thermostat) -> str:
    """A thermostat in one line, to six digits: how two of them are compared."""
    parts = [thermostat.mode or "none"]
    if thermostat.tau_fs:
        parts.append(f"tau {thermostat.tau_fs:.6g} fs")
    parts += [f"{k} {v:.6g} fs" for k, v in sorted(thermostat.element_tau_fs.items())]
    parts += [f"atoms {k} {v:.6g} fs" for k, v in thermostat.atom_tau_fs.items()]
    for bond in thermostat.bonds:
        reach = " to ".join(f"{x:.6g}" for x in bond.range_A)
        names = "-".join(bond.names) or "pairs"
        parts.append(f"bonds {names} {bond.tau_fs:.6g} fs" + (f", {reach} A" if reach else ""))
    return ", ".join(parts)


def _barostat(spec: InputSpec) -> str:
    b = spec.barostat
    if b is None:
        return "none"
    inside = f" with {_describe(b.thermostat)}" if b.thermostat is not None else ""
    return f"{b.mode}, tau {b.tau_fs or 0:.6g} fs{inside}"
