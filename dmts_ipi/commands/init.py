"""``dmts-ipi init FOLDER``: a run folder from a structure, a teacher and a student."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from dmts_ipi.core.config import parse
from dmts_ipi.core.errors import InputError
from dmts_ipi.core.model import check_structure

FRAMES_EVERY_FS = 50.0
LARGE = 2000  # atoms, from which on the binary trajectory is worth its unfamiliarity


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments. Numbers stay text here: the configuration checks them all alike."""
    add = parser.add_argument
    add("folder", help="the run folder to make; must not exist, or be empty")
    add("--structure", default="water64", help="structure file that ASE reads, or water64")
    add("--teacher", default="water-teacher", metavar="MODEL", help="slow, accurate model")
    add("--student", default="water-student", metavar="MODEL", help="fast model; unused in sts")
    add("--ensemble", default="nvt", help="nvt, nve or npt")
    add("--mode", default="dmts", help="dmts: teacher and student; sts: teacher at every step")
    physics = parser.add_argument_group("physics")
    add = physics.add_argument
    add("--inner-fs", default="1", metavar="FS", help="inner time step (the step of sts), fs")
    add("--n-inner", default="5", metavar="N", help="inner steps per outer step; 1 in sts")
    add("--time-ps", default="20", metavar="PS", help="length of the run, ps")
    add("--temperature-K", default="300", metavar="K", help="temperature, K")
    add(
        "--splitting",
        default="auto",
        help="baoab-respa: thermostat in every inner step (runs under `dmts-ipi i-pi`); baoab or "
        "stock: i-PI's own, once per outer step; obabo: i-PI's own, at both ends of it; auto: "
        "baoab-respa in dmts, baoab in sts, which samples the same",
    )
    add("--thermostat", default="langevin", help="langevin, ffl (fast-forward Langevin) or svr")
    add("--friction-per-ps", default="1", metavar="F", help="friction of all atoms, 1/ps")
    add(
        "--friction-by-element",
        default=None,
        metavar="LIST",
        help="friction of elements in 1/ps, such as H=10 or H=10,O=2 (needs langevin or ffl)",
    )
    add(
        "--bond-friction-per-ps",
        default="0",
        metavar="F",
        help="bond thermostat: friction along X-H bonds and across H-X-H angles, 1/ps; 0: none",
    )
    add("--pressure-bar", default="1", metavar="BAR", help="pressure of NPT, bar")
    add("--barostat-tau-fs", default="2000", metavar="FS", help="volume relaxation of NPT, fs")
    add("--hmr", default="3.0", metavar="AMU", help="mass moved to each hydrogen, amu; 0: none")
    add("--seed", default="1", metavar="N", help="of start velocities and thermostat")
    add(
        "--equilibration-ps",
        default="auto",
        metavar="PS",
        help="left out of the summary's means, ps; auto: a fifth of the run, at most 5",
    )
    machine = parser.add_argument_group("machine")
    add = machine.add_argument
    add("--device", default="cpu", help="of both models: cpu, cuda, cuda:1 ...")
    add("--teacher-device", default=None, metavar="DEVICE", help="instead of --device")
    add("--student-device", default=None, metavar="DEVICE", help="instead of --device")
    add("--teacher-dtype", default=None, metavar="T", help="float32 or float64; None: its own")
    add("--student-dtype", default=None, metavar="T", help="float32 or float64; None: float32")
    add("--threads", default=None, metavar="N", help="CPU threads of each model; None: all cores")
    add("--teacher-threads", default=None, metavar="N", help="instead of --threads")
    add("--student-threads", default=None, metavar="N", help="instead of --threads")
    add(
        "--network",
        default=None,
        metavar="ADDRESS",
        help="drivers on other nodes: TCP, and keys for telemetry. auto, or an interface (ib0), "
        "name or address of i-PI's node; None: unix sockets",
    )
    add(
        "--teacher-command",
        default="",
        metavar="CMD",
        help="a program that speaks i-PI's protocol, in the place of the teacher's driver, such as "
        "'lmp -in teacher.lmp -var address {address}'; see docs/clusters.md",
    )
    output = parser.add_argument_group("output")
    add = output.add_argument
    add("--output-every-fs", default="10", metavar="FS", help="between lines of properties, fs")
    frames = f"between stored frames, fs; auto: {FRAMES_EVERY_FS:g}, or as lines if these are rarer"
    add("--frames-every-fs", default="auto", metavar="FS", help=frames)
    add("--checkpoints-every-fs", default="1000", metavar="FS", help="between checkpoints, fs")
    add("--keep-checkpoints", default="4", metavar="N", help="newest ones that `run` keeps")
    add(
        "--trajectory-format",
        default="auto",
        help=f"xyz, bin (i-PI's binary, 9 times faster to write), or auto: bin above {LARGE} atoms",
    )
    add = parser.add_argument
    add(
        "--resident",
        action="store_true",
        help="the student runs within i-PI's process, without a driver: no exchange in inner "
        "steps (docs/performance.md)",
    )
    add(
        "--accept-foreign-student",
        action="store_true",
        help="take a student that was distilled from another teacher",
    )
    add(
        "--no-model-check",
        action="store_true",
        help="do not load and evaluate the models now (on a login node, for example)",
    )


def run(args: argparse.Namespace) -> int:
    """Checks everything, then writes the folder."""
    target, config, n_atoms = make(args)
    print(_report(target, config, n_atoms))
    return 0


def make(args: argparse.Namespace) -> tuple[Path, Any, int]:
    """Checks everything, then writes the folder. Returns it, its ``RunConfig``, and the atoms.

    Raises:
        DmtsError: as ``run``; nothing is written then.
    """
    from dmts_ipi.ipi.create import check_target, create_folder
    from dmts_ipi.ipi.run_folder.folder import RunConfig
    from dmts_ipi.ipi.run_folder.resources import inputs_folder, ipi_script
    from dmts_ipi.ipi.run_folder.structure import prepare_structure, read_structure
    from dmts_ipi.ipi.run_folder.summary import versions
    from dmts_ipi.models.load import read_record

    target = Path(args.folder)
    check_target(target)
    ipi_script()
    file = inputs_folder() / "water64.extxyz" if args.structure == "water64" else args.structure
    atoms = read_structure(Path(file))
    fields = fields_of(args, len(atoms))
    config = parse(RunConfig, fields, "option")
    atoms = prepare_structure(atoms, config.hmr_added_amu, config.ensemble == "npt")
    records = {}
    for name, settings in config.models().items():
        records[name] = read_record(settings.model)
        fields[name].update(
            model=absolute_spec(settings.model), identity=str(records[name].get("identity", ""))
        )
        _check_elements(name, records[name].get("elements"), atoms)
    if "student" in records and not args.accept_foreign_student:
        check_distilled_from(records["student"], records["teacher"])
    if not args.no_model_check:
        for name, settings in config.models().items():
            _evaluate(name, settings, atoms, config.ensemble == "npt")
    config = parse(RunConfig, {**fields, "versions": versions()}, "option")
    folder = create_folder(target, config, atoms)
    if config.network.address is not None:
        from .build_watchdog import keys_of

        keys_of(folder)
    return target, config, len(atoms)


def fields_of(args: argparse.Namespace, n_atoms: int) -> dict[str, Any]:
    """Options as fields of ``RunConfig``."""
    shape = args.trajectory_format
    if shape == "auto":
        shape = "bin" if n_atoms > LARGE else "xyz"
    equilibration = args.equilibration_ps
    if equilibration == "auto":
        try:
            equilibration = min(5.0, round(0.2 * float(args.time_ps), 3))
        except ValueError:
            equilibration = 0.0  # the wrong time is told of below
    fields: dict[str, Any] = {
        "ensemble": args.ensemble,
        "mode": args.mode,
        "inner_step_fs": args.inner_fs,
        "n_inner": 1 if args.mode == "sts" else args.n_inner,
        "time_ps": args.time_ps,
        "temperature_K": args.temperature_K,
        "splitting": _splitting(args),
        "thermostat": args.thermostat,
        "friction_per_ps": args.friction_per_ps,
        "friction_by_element_per_ps": by_element(args.friction_by_element),
        "bond_friction_per_ps": args.bond_friction_per_ps,
        "pressure_bar": args.pressure_bar,
        "barostat_tau_fs": args.barostat_tau_fs,
        "hmr_added_amu": args.hmr,
        "seed": args.seed,
        "equilibration_ps": equilibration,
        "properties_every_fs": args.output_every_fs,
        "frames_every_fs": _frames_every_fs(args),
        "checkpoints_every_fs": args.checkpoints_every_fs,
        "keep_checkpoints": args.keep_checkpoints,
        "trajectory_format": shape,
        "resident": args.resident,
        "network": {"address": args.network},
        "teacher": _model(args, "teacher"),
    }
    if args.mode != "sts":
        fields["student"] = _model(args, "student")
    return fields


def _frames_every_fs(args: argparse.Namespace) -> str:
    """As given; else not more often than lines, which would become as frequent."""
    if args.frames_every_fs != "auto":
        return str(args.frames_every_fs)
    try:
        return f"{max(FRAMES_EVERY_FS, float(args.output_every_fs)):g}"
    except ValueError:
        return f"{FRAMES_EVERY_FS:g}"  # the other one is told of


def by_element(text: str | None) -> dict[str, str]:
    """``H=10,O=2`` as a mapping; numbers stay text.

    Raises:
        InputError: it is none.
    """
    if text is None:
        return {}
    found: dict[str, str] = {}
    for part in text.replace(";", ",").split(","):
        name, equals, value = part.strip().partition("=")
        if not (name.strip() and equals and value.strip()) or name.strip() in found:
            raise InputError("friction_by_element", text, "must be such as H=10 or H=10,O=2")
        found[name.strip()] = value.strip()
    return found


def _model(args: argparse.Namespace, name: str) -> dict[str, Any]:
    given = vars(args)
    return {
        "model": given[name],
        "device": given[f"{name}_device"] or args.device,
        "dtype": given[f"{name}_dtype"],
        "threads": given[f"{name}_threads"] or args.threads,
        "command": given["teacher_command"] if name == "teacher" else "",
    }


def absolute_spec(spec: str) -> str:
    """A spec that means the same from any folder: relative paths made absolute."""
    from dmts_ipi.models.load import parse_spec, shipped

    parsed = parse_spec(spec)
    if parsed.kind == "folder":
        return spec if spec.strip() in shipped() else str(Path(parsed.target).resolve())
    if parsed.kind == "ase" or not Path(parsed.target).expanduser().is_file():
        return spec
    keywords = f" {json.dumps(parsed.keywords)}" if parsed.keywords else ""
    return f"{parsed.kind}:{Path(parsed.target).expanduser().resolve()}{keywords}"


def check_distilled_from(student: dict[str, Any], teacher: dict[str, Any]) -> None:
    """Refuses a student of another teacher; a student without a record is taken.

    Raises:
        InputError: the two identities differ.
    """
    origin = student.get("teacher") or {}
    if not origin.get("identity") or origin["identity"] == teacher.get("identity"):
        return
    raise InputError(
        "student",
        student.get("name", ""),
        f"was distilled from '{origin.get('name', '?')}', not from '{teacher.get('name', '?')}' "
        "of this run; distill one, or confirm with --accept-foreign-student",
    )


def _check_elements(name: str, elements: object, atoms: Any) -> None:
    """Says which model does not know an element of the structure."""
    known = frozenset(int(z) for z in elements) if isinstance(elements, list) else None
    try:
        check_structure(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, known)
    except InputError as error:
        raise InputError(f"{name}: {error.field}", error.value, error.remedy) from error


def _evaluate(name: str, settings: Any, atoms: Any, needs_virial: bool) -> None:
    """Loads a model and evaluates the structure once: NaN and absent virials show here.

    Raises:
        DmtsError: the model cannot be loaded, or fails on this structure.
    """
    from dmts_ipi.models.load import load_model

    model = load_model(settings.model, device=settings.device, dtype=settings.dtype, compile=False)
    if model.elements is not None:
        _check_elements(name, sorted(model.elements), atoms)
    result = model.compute(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)
    if needs_virial and result.virial_eV is None:
        raise InputError(name, settings.model, "gives no virial, which NPT needs; use nvt")


def _splitting(args: argparse.Namespace) -> str:
    """Stock ``baoab`` with an even number of inner steps samples stiff bonds too hot."""
    if args.splitting == "auto":
        return "baoab-respa" if args.mode == "dmts" else "baoab"
    return "baoab" if args.splitting == "stock" else str(args.splitting)


def _report(target: Path, config: Any, n_atoms: int) -> str:
    inner = f"{config.inner_step_fs:g} fs"
    steps = f"1 step of {inner}" if config.mode == "sts" else f"{config.n_inner} x {inner} a step"
    if config.splitting == "baoab-respa":
        steps += " by BAOAB-RESPA"
    return (
        f"{target}: {config.ensemble} {config.mode}, {n_atoms} atoms, {steps}, "
        f"{config.total_steps} steps = {config.time_ps:g} ps. Start it: dmts-ipi run {target}"
    )
