"""``dmts-ipi init FOLDER``: a run folder from a structure, a teacher and a student."""

from __future__ import annotations

import argparse
import math
import re
import shlex
import sys
from pathlib import Path
from typing import Any

from dmts_ipi.core import structure as structures
from dmts_ipi.core.config import parse
from dmts_ipi.core.errors import InputError
from dmts_ipi.core.levels import STUDENT, TEACHER, comparisons
from dmts_ipi.core.model import check_structure, compute
from dmts_ipi.core.options import add_fields, mapping_of
from dmts_ipi.core.structure import Structure
from dmts_ipi.core.structure_files import VELOCITIES

FRAMES_EVERY_FS = 50.0
LARGE = 2000  # atoms, from which on the binary trajectory is worth its unfamiliarity


PHYSICS = (
    *("inner_fs", "n_inner", "levels", "level_scheme", "time_ps", "temperature_K", "splitting"),
    *("thermostat", "friction_per_ps", "friction_by_element_per_ps", "bond_friction_per_ps"),
    *("pressure_bar", "barostat_tau_fs", "hmr_amu", "seed", "equilibration_ps"),
)
OUTPUT = (
    *("properties_every_fs", "frames_every_fs", "checkpoints_every_fs", "keep_checkpoints"),
    "trajectory_format",
)
EARLIER = {
    "friction_by_element_per_ps": ("--friction-by-element",),
    "hmr_amu": ("--hmr",),
    "properties_every_fs": ("--output-every-fs",),
    "student_in_process": ("--resident",),
}
AUTO = {
    "splitting": "auto",
    "equilibration_ps": "auto",
    "frames_every_fs": "auto",
    "trajectory_format": "auto",
}
AUTO_HELP = {
    "splitting": "; auto: baoab-respa in dmts, baoab in sts, which samples the same",
    "equilibration_ps": "; auto: a fifth of the run, at most 5",
    "frames_every_fs": f"; auto: {FRAMES_EVERY_FS:g}, or as lines if these are rarer",
    "trajectory_format": f"; auto: bin above {LARGE} atoms",
}
LISTS = {
    "friction_by_element_per_ps": "H=10 or H=10,O=2",
    "levels": "teacher=1,student=3,small=2",
}
PER_MODEL = ("device", "dtype", "threads", "command")


def configure(parser: argparse.ArgumentParser) -> None:
    """Options come from ``RunConfig``. Numbers stay text: the configuration checks them all."""
    from dmts_ipi.core.levels import SCHEMES
    from dmts_ipi.ipi.input_xml import known_splittings
    from dmts_ipi.ipi.run_folder.config import RunConfig
    from dmts_ipi.ipi.thermostats import THERMOSTATS

    rows = {
        "thermostat": THERMOSTATS.names(),
        "splitting": known_splittings(),
        "level_scheme": SCHEMES.names(),
    }
    more_help = {
        name: f"{AUTO_HELP.get(name, '')}" + (f"; installed: {', '.join(known)}" if known else "")
        for name, known in {**dict.fromkeys(AUTO_HELP, ()), **rows}.items()
    }

    def fields(group: Any, *names: str) -> None:
        add_fields(group, RunConfig, only=names, defaults=AUTO, also=EARLIER, more_help=more_help)

    add = parser.add_argument
    add("folder", help="the run folder to make; must not exist, or be empty")
    add("--structure", default="water64", help="structure file that ASE reads, or water64")
    add("--teacher", default="water-teacher", metavar="MODEL", help="slow, accurate model")
    add("--student", default="water-student", metavar="MODEL", help="fast model; unused in sts")
    add(
        "--model",
        action="append",
        metavar="NAME=MODEL",
        help="a further model that --levels names; may be given several times",
    )
    fields(parser, "ensemble", "mode")
    fields(parser.add_argument_group("physics"), *PHYSICS)
    machine = parser.add_argument_group("machine")
    add = machine.add_argument
    add(
        "--device",
        default="auto",
        help="device of all models: auto (an NVIDIA GPU if torch sees one, else the CPU), cpu, "
        "cuda, cuda:1 ...",
    )
    add(
        "--threads",
        default=None,
        metavar="N",
        help="CPU threads of each model (default: all cores)",
    )
    for name in (TEACHER, STUDENT):
        add(
            f"--{name}-device",
            default=None,
            metavar="DEVICE",
            help=f"device of the {name} (default: --device)",
        )
        own = "the model's own" if name == TEACHER else "float32"
        add(
            f"--{name}-dtype",
            default=None,
            metavar="T",
            help=f"precision of the {name}: float32 or float64 (default: {own})",
        )
        add(
            f"--{name}-threads",
            default=None,
            metavar="N",
            help=f"CPU threads of the {name} (default: --threads)",
        )
        add(
            f"--{name}-command",
            default="",
            metavar="CMD",
            help=f"a program that speaks i-PI's protocol, used instead of the {name}'s driver, "
            "such as 'lmp -in teacher.lmp -var address {address}'; see docs/clusters.md",
        )
    add(
        "--set",
        action="append",
        metavar="NAME.FIELD=VALUE",
        help=f"a setting of one model, such as small.device=cpu; fields: {', '.join(PER_MODEL)}",
    )
    add(
        "--network",
        default=None,
        metavar="ADDRESS",
        help="for drivers on other nodes: use TCP, with keys for the telemetry. auto, or an "
        "interface (ib0), host name or address of i-PI's node (default: unix sockets)",
    )
    fields(parser.add_argument_group("output"), *OUTPUT)
    fields(parser, "student_in_process")
    add = parser.add_argument
    add(
        "--allow-teacher-mismatch",
        "--accept-foreign-student",
        dest="allow_teacher_mismatch",
        action="store_true",
        help="accept a student that was distilled from another teacher",
    )
    add(
        "--no-model-check",
        action="store_true",
        help="do not load and evaluate the models now (on a login node, for example)",
    )


def run(args: argparse.Namespace) -> int:
    """Checks everything, then writes the folder."""
    from dmts_ipi.ipi.run_folder.folder import STRUCTURE

    target, config, n_atoms = make(args)
    system = structures.describe(structures.read_structure(target / STRUCTURE))
    print(_report(target, config, n_atoms, system))
    return 0


def make(args: argparse.Namespace) -> tuple[Path, Any, int]:
    """Checks everything, then writes the folder. Returns it, its ``RunConfig``, and the atoms.

    Raises:
        DmtsError: as ``run``; nothing is written then.
    """
    from dmts_ipi.ipi.create import check_target
    from dmts_ipi.ipi.run_folder.config import RunConfig
    from dmts_ipi.ipi.run_folder.resources import inputs_folder, ipi_script
    from dmts_ipi.ipi.run_folder.structure import read_structure
    from dmts_ipi.ipi.session.last_structure import last_structure

    target = Path(args.folder)
    check_target(target)
    ipi_script()
    file = inputs_folder() / "water64.extxyz" if args.structure == "water64" else args.structure
    folder = Path(file).is_dir()
    atoms = last_structure(Path(file)) if folder else read_structure(Path(file))
    fields = fields_of(args, len(atoms))
    config = parse(RunConfig, fields, "option")
    config = create(target, config, atoms, args.allow_teacher_mismatch, args.no_model_check)
    if VELOCITIES in atoms.arrays:
        print(
            f"note: start velocities are drawn anew at {config.temperature_K:g} K; those of "
            f"{file} are only kept in {target / 'structure.extxyz'}",
            file=sys.stderr,
        )
    return target, config, len(atoms)


def create(
    target: Path,
    config: Any,
    atoms: Any,
    allow_mismatch: bool = False,
    no_model_check: bool = False,
) -> Any:
    """Makes a run folder from a configuration and a structure as it was read.

    Args:
        target: absent, or an empty folder.
        config: ``RunConfig``; models by their specs.
        atoms: ASE Atoms, before hydrogen mass repartitioning.
        allow_mismatch: take students that were distilled from another teacher.
        no_model_check: do not load and evaluate the models.

    Returns:
        The configuration with absolute paths and identities of the models.

    Raises:
        DmtsError: a model does not exist or does not fit; nothing is written then.
    """
    from dmts_ipi.ipi.create import create_folder
    from dmts_ipi.ipi.run_folder.structure import prepare_structure
    from dmts_ipi.ipi.run_folder.summary import versions
    from dmts_ipi.models.load import read_record

    atoms = prepare_structure(atoms, config.hmr_amu, config.ensemble == "npt")
    records = {name: read_record(model.model) for name, model in config.models.items()}
    for name, record in records.items():
        _check_elements(name, record.get("elements"), atoms)
    if not allow_mismatch:
        for accurate, fast in comparisons(config.mts_levels):
            check_distilled_from(records[fast], records[accurate], records[config.reference])
    if not no_model_check:
        check_models(config, atoms)
    models = {
        name: model.model_copy(
            update={
                "model": absolute_spec(model.model),
                "identity": str(records[name].get("identity", "")),
            }
        )
        for name, model in config.models.items()
    }
    config = config.model_copy(update={"models": models, "versions": versions()})
    folder = create_folder(target, config, atoms)
    if config.network.address is not None:
        from .build_watchdog import keys_of

        keys_of(folder)
    return config


def fields_of(args: argparse.Namespace, n_atoms: int) -> dict[str, Any]:
    """Options as fields of ``RunConfig``.

    Raises:
        InputError: an option that is a list is none, or names a model that is not there.
    """
    from dmts_ipi.ipi.run_folder.config import RunConfig

    given = vars(args)
    fields: dict[str, Any] = {k: given[k] for k in RunConfig.model_fields if k in given}
    for name, example in LISTS.items():
        fields[name] = mapping_of(name, given[name], example)
    _check_levels(args, fields["levels"])
    if args.mode == "sts":
        fields["n_inner"] = 1
    single = args.mode == "sts" and not fields["levels"]
    if fields["splitting"] == "auto":  # stock baoab with even n_inner samples stiff bonds too hot
        one_level = single or len(fields["levels"]) == 1
        fields["splitting"] = "baoab" if one_level else "baoab-respa"
    if fields["trajectory_format"] == "auto":
        fields["trajectory_format"] = "bin" if n_atoms > LARGE else "xyz"
    if fields["equilibration_ps"] == "auto":
        try:
            fields["equilibration_ps"] = min(5.0, round(0.2 * float(args.time_ps), 3))
        except ValueError:
            fields["equilibration_ps"] = 0.0  # the wrong time is told of when all is checked
    if fields["frames_every_fs"] == "auto":
        fields["frames_every_fs"] = _frames_every_fs(args)
    fields["network"] = {"address": args.network}
    fields["models"] = _models(args, single)
    return fields


def _check_levels(args: argparse.Namespace, levels: dict[str, str]) -> None:
    """Refuses models that the levels leave without any effect, and names an ``n_inner`` that is.

    Raises:
        InputError: a model is in no level, or named twice.
    """
    names = list(levels or (TEACHER, STUDENT))
    further = [text.partition("=")[0].strip() for text in args.model or ()]
    for text, name in zip(args.model or (), further, strict=True):
        if "=" in text and name and name not in names:
            remedy = f"is in no level; name it by --levels, such as {LISTS['levels']}"
            raise InputError("model", name, remedy)
        if further.count(name) > 1:
            raise InputError("model", name, "is given twice; give each its own name")
    if (
        levels
        and args.n_inner != str(_default("n_inner"))
        and all(map(str.isdigit, levels.values()))
    ):
        product = math.prod(int(steps) for steps in levels.values())
        if args.n_inner != str(product):
            note = f"note: n_inner {args.n_inner} is not used: by --levels it is {product}"
            print(note, file=sys.stderr)


def _default(name: str) -> Any:
    from dmts_ipi.ipi.run_folder.config import RunConfig

    return RunConfig.model_fields[name].default


def _models(args: argparse.Namespace, single: bool) -> dict[str, dict[str, Any]]:
    """Settings of every model by name."""
    given = vars(args)
    specs = {TEACHER: args.teacher} if single else {TEACHER: args.teacher, STUDENT: args.student}
    for text in args.model or ():
        name, equals, spec = text.partition("=")
        if not (re.fullmatch(r"[\w.-]+", name.strip()) and equals and spec.strip()):
            raise InputError("model", text, "must be NAME=MODEL, such as small=FOLDER")
        specs[name.strip()] = spec.strip()
    models: dict[str, dict[str, Any]] = {}
    for name, spec in specs.items():
        own = {field: given.get(f"{name}_{field}") for field in PER_MODEL}
        models[name] = {
            "model": spec,
            "device": own["device"] or args.device,
            "dtype": own["dtype"],
            "threads": own["threads"] or args.threads,
            "command": own["command"] or "",
        }
    for text in args.set or ():
        place, equals, value = text.partition("=")
        name, dot, field = place.strip().partition(".")
        if not (equals and dot) or field not in PER_MODEL:
            raise InputError("set", text, f"must be NAME.FIELD=VALUE, FIELD {' '.join(PER_MODEL)}")
        if name not in models:
            raise InputError("set", text, f"there is no model {name}; {', '.join(models)}")
        models[name][field] = value
    return models


def _frames_every_fs(args: argparse.Namespace) -> str:
    """Not more often than lines, which would become as frequent."""
    try:
        return f"{max(FRAMES_EVERY_FS, float(args.properties_every_fs)):g}"
    except ValueError:
        return f"{FRAMES_EVERY_FS:g}"  # the other one is told of


def absolute_spec(spec: str) -> str:
    """A spec that means the same from any folder: relative paths made absolute."""
    from dmts_ipi.models import load

    load.parse_spec(spec)  # refuses what is not there
    return load.absolute_spec(spec)


def check_distilled_from(
    student: dict[str, Any], teacher: dict[str, Any], reference: dict[str, Any] | None = None
) -> None:
    """Refuses a student of another teacher; a student without a record is taken.

    Args:
        student: record of the faster model.
        teacher: record of the model that it stands in for.
        reference: record of the model that is sampled, from which it may be distilled as well.

    Raises:
        InputError: the two identities differ.
    """
    origin = student.get("teacher") or {}
    known = [teacher.get("identity"), (reference or teacher).get("identity")]
    if not origin.get("identity"):
        return
    from dmts_ipi.models.registry import same_identity

    if any(same_identity(origin["identity"], str(k)) for k in known):
        return
    theirs, ours = str(origin.get("name", "?")), str(teacher.get("name", "?"))
    if theirs == ours:  # another head or keyword of the same file
        theirs, ours = (
            f"{name} ({record.get('spec') or record['identity'][-16:]})"
            for name, record in ((theirs, origin), (ours, teacher))
        )
    raise InputError(
        "student",
        student.get("name", ""),
        f"was distilled from '{theirs}', not from '{ours}' of this run; distill one, or confirm "
        "with --allow-teacher-mismatch",
    )


def _check_elements(name: str, elements: object, atoms: Any) -> None:
    """Says which model does not know an element of the structure."""
    known = frozenset(int(z) for z in elements) if isinstance(elements, list) else None
    try:
        check_structure(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, known)
    except InputError as error:
        raise InputError(f"{name}: {error.field}", error.value, error.remedy) from error


def check_models(config: Any, atoms: Any) -> None:
    """Loads every model and evaluates the structure once: NaN and absent virials show here.

    Raises:
        DmtsError: a model cannot be loaded, or fails on this structure; in NPT, the virial of a
            fast model is so far off that another pressure would be sampled.
    """
    from dmts_ipi.models.load import load_model

    needs_virial = config.ensemble == "npt"
    loaded = {}
    for name, settings in config.models.items():
        model = load_model(
            settings.model, device=settings.device, dtype=settings.dtype, compile=False
        )
        if model.elements is not None:
            _check_elements(name, sorted(model.elements), atoms)
        result = compute(model, Structure.from_atoms(atoms))
        if needs_virial and result.virial_eV is None:
            raise InputError(name, settings.model, "gives no virial, which NPT needs; use nvt")
        loaded[name] = model
    if needs_virial:
        from .check_virial import check_virials

        check_virials(config, atoms, loaded)


def _report(target: Path, config: Any, n_atoms: int, system: str) -> str:
    inner, quoted = f"{config.inner_fs:g} fs", shlex.quote(str(target))
    steps = f"1 step of {inner}" if config.mode == "sts" else f"{config.n_inner} x {inner} a step"
    if len(config.levels) > 2:
        steps += " (" + ", ".join(f"{k} {n}" for k, n in config.levels.items()) + ")"
    if config.splitting == "baoab-respa":
        steps += " by BAOAB-RESPA"
    return (
        f"{target}: {config.ensemble} {config.mode}, {n_atoms} atoms ({system}), {steps}, "
        f"{config.total_steps} steps = {config.time_ps:g} ps. Start it: dmts-ipi run {quoted}"
    )
