"""``dmts-ipi distill``: trains a student on labels."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from dmts_ipi.core.errors import InputError

from .label_options import add_label_options, label_format


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    add = parser.add_argument
    # argparse's defaults would hide which options the user gave: None means not given.
    hide = argparse.SUPPRESS
    add("--labels", nargs="+", required=True, type=Path, metavar="FILE", help="labelled frames")
    add("--out", required=True, type=Path, metavar="FOLDER", help="folder of the student; an "
        "interrupted training in it is resumed")  # fmt: skip
    add("--teacher", help="model that made the labels, for labels that do not record it")
    add_label_options(parser)
    add("--config", type=Path, default=None, metavar="YAML", help="file with training options")
    add("--forces", choices=["direct", "conservative"], default=hide, help="direct: forces as in "
        "DMTS-NC (default); conservative: an energy and its gradient by autograd, "
        "slower")  # fmt: skip
    add("--from", dest="start", default=hide, metavar="STUDENT", help="goes on from the weights of "
        "this student, at half the learning rates; it must know the elements of the "
        "labels")  # fmt: skip
    add("--architecture", default=hide, metavar="KIND", help="architecture of the student: density "
        "(default), or one that another package adds")  # fmt: skip
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--minutes", type=float, default=hide, help="length of the training, minutes"
    )
    length.add_argument(
        "--steps",
        type=int,
        default=hide,
        help="length of the training in steps (reproducible, unlike --minutes)",
    )
    add(
        "--seed",
        type=int,
        default=hide,
        help="seed of initial weights, split and order of the frames (default 0)",
    )
    add(
        "--device",
        default=hide,
        help="auto (default: the GPU if torch sees one), cpu, cuda or cuda:1",
    )
    add("--threads", type=int, default=None, help="CPU threads (default: torch's choice)")
    add("--validation-fraction", type=float, default=hide, metavar="X", help="fraction of the "
        "frames that is held out, 0 to 1 (default 0.1)")  # fmt: skip
    add("--heating-at-fs", type=float, default=hide, metavar="FS", help="the checkpoint with the "
        "smallest predicted heating at this outer step is kept, fs (default 6)")  # fmt: skip
    add("--no-compile", action="store_true", help="train without torch.compile")
    add("--json", action="store_true", help="print the final results as JSON")


OPTIONS = ("minutes", "steps", "seed", "device", "validation_fraction", "heating_at_fs")


def build_config(args: argparse.Namespace) -> Any:
    """The options of YAML, overridden by those of the command line.

    Raises:
        InputError: a field is unknown or wrong.
    """
    from dmts_ipi.core.config import read_fields
    from dmts_ipi.learning.training.config import parse_config
    from dmts_ipi.students.registry import kind_of, student_architectures

    fields = {} if args.config is None else read_fields(args.config, "config")
    where = "option" if args.config is None else str(args.config)
    given = vars(args)
    if "steps" in given or "minutes" in given:
        fields.pop("steps", None)
        fields.pop("minutes", None)
    fields.update({name: given[name] for name in OPTIONS if name in given})
    if args.no_compile:
        fields["compile"] = False
    start = given.get("start", fields.get("start"))
    if start is not None:
        _start_from(str(start), fields)
    sizes = fields.get("architecture")
    if "architecture" in given:
        kind = given["architecture"]
        if isinstance(sizes, dict) and sizes.get("kind", kind) != kind:
            raise InputError("architecture", kind, f"the YAML has kind: {sizes['kind']}")
        own = student_architectures.get(kind).new.model_dump()
        fields["architecture"] = sizes = {**(sizes or own), "kind": kind}
    if "forces" in given:
        own = student_architectures.get(kind_of(sizes)).new.model_dump()
        if "energy" not in own:
            raise InputError(
                "forces", given["forces"], f"a {kind_of(sizes)} student has no such option"
            )
        if sizes is None or isinstance(sizes, dict):  # if not, its error comes from parse
            energy = given["forces"] == "conservative"
            fields["architecture"] = {**(sizes or own), "energy": energy}
    if fields.get("steps") is None and fields.get("minutes") is None:
        raise InputError("minutes", "", "give --minutes or --steps, or one of them in the YAML")
    return parse_config(fields, where)


def _start_from(name: str, fields: dict[str, Any]) -> None:
    """Gives the options of a training that starts from a student.

    Args:
        name: of a student that ships, or its folder.
        fields: options that were given; its sizes and half of the usual rates are added.

    Raises:
        InputError: there is no such student.
    """
    from dmts_ipi.learning.training.config import TrainConfig
    from dmts_ipi.models.load import FOLDER, parse_spec
    from dmts_ipi.students.files import read_student_record

    spec = parse_spec(name)
    if spec.kind != FOLDER:
        raise InputError("from", name, "give a student's folder, or the name of one that ships")
    fields["start"] = spec.target
    fields.setdefault("architecture", read_student_record(Path(spec.target))["architecture"])
    for rate in ("learning_rate", "muon_learning_rate"):
        fields.setdefault(rate, 0.5 * TrainConfig.model_fields[rate].default)


def run(args: argparse.Namespace) -> int:
    """Trains; returns the exit status."""
    import json

    config = build_config(args)
    if args.threads is not None and args.threads < 1:
        raise InputError("threads", args.threads, "must be 1 or more")

    import torch

    from dmts_ipi.core.label_files import read_labels
    from dmts_ipi.learning.labelling.provenance import teacher_of_labels
    from dmts_ipi.learning.training.parallel import join_workers, leave_workers
    from dmts_ipi.learning.training.plot import plot_history
    from dmts_ipi.learning.training.split import data_hash
    from dmts_ipi.learning.training.train import CURVE, Trainer
    from dmts_ipi.models.devices import resolve_device
    from dmts_ipi.models.model_files import check_can_write

    config = config.model_copy(update={"device": resolve_device(config.device)})
    check_can_write(args.out)
    if args.threads:
        torch.set_num_threads(args.threads)
    form = label_format(args)
    files = [(path, read_labels(path, form)) for path in args.labels]
    teacher = teacher_of_labels(files, args.teacher, config.device)
    frames = [frame for _, some in files for frame in some]
    workers, device = join_workers(config.device)
    config = config.model_copy(update={"device": device})
    try:
        trainer = Trainer(
            frames,
            config,
            args.out,
            teacher.as_dict(),
            data_hash(args.labels),
            workers,
        )
        if trainer.resume() and workers.leads:
            print(f"resumes at step {trainer.progress.step}", flush=True)
        progress = trainer.run()
        if not workers.leads:
            return 0
        plot_history(progress.history, progress.best_step, args.out / CURVE)
        best = next(r for r in progress.history if r["step"] == progress.best_step)
        if args.json:
            print(json.dumps({"folder": str(args.out), **best, "warning": progress.warning}))
        else:
            print(f"student in {args.out}: step {progress.best_step}, curve in {args.out / CURVE}")
        if progress.warning:
            print(f"warning: {progress.warning}", file=sys.stderr)
        elif progress.note:
            print(f"note: {progress.note}", file=sys.stderr)
    finally:
        leave_workers(workers)
    return 0
