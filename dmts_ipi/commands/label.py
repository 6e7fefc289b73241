"""``dmts-ipi label``: sample with a teacher and label."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import get_args

from dmts_ipi.core.config import parse, read_fields, write_yaml
from dmts_ipi.core.errors import InputError
from dmts_ipi.core.structure import periodicity
from dmts_ipi.core.tasks import Task
from dmts_ipi.learning.labelling.config import LabelConfig

from .many import add_options, config_of, ours, run_all

NAMES = {"structures": "--structure"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Options come from ``LabelConfig``; those not given are taken from ``--config``."""
    parser.formatter_class = argparse.HelpFormatter
    parser.add_argument("--out", required=True, type=Path, help="file of labels, extended XYZ")
    parser.add_argument(
        "--config",
        type=Path,
        help="YAML with the same fields; options of the command line take precedence",
    )
    parser.add_argument("--shard", help="make only part k of N (k/N, from 1), for job arrays; k/N "
                        "is added to the name of --out")  # fmt: skip
    parser.add_argument(
        "--shards", type=int, metavar="N", help="make all N parts, as parallel tasks"
    )
    add_options(parser, "parts")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    for name, info in LabelConfig.model_fields.items():
        flag = NAMES.get(name, "--" + name.replace("_", "-"))
        default = info.get_default(call_default_factory=False)
        shown = "" if default in (None, []) or info.is_required() else f" (default: {default})"
        many = "list" in str(info.annotation)
        kinds = [k for k in get_args(info.annotation) if k is not type(None)] or [info.annotation]
        parser.add_argument(
            flag,
            dest=name,
            nargs="*" if many else None,
            type=kinds[0] if kinds[0] in (int, float, str) else str,
            default=argparse.SUPPRESS,
            metavar=name.split("_")[-1].upper() if not many else "X",
            help=(info.description or "").replace("%", "%%") + str(shown),
        )


def run(args: argparse.Namespace) -> int:
    """Samples and labels; status 0 when something was labelled."""
    from dmts_ipi.learning.labelling.label import Labeller, read_structures
    from dmts_ipi.learning.labelling.tasks import parse_shard

    config = read_config(args)
    if args.shards is not None or args.tasks is not None or args.parallel is not None:
        return _run_shards(args, config)
    shard = parse_shard(args.shard)
    out = part_of(args.out, *shard)
    structures = read_structures(config.structures)
    frames = read_structures([f if "@" in f else f + "@:" for f in config.frames], name="frame")
    from dmts_ipi.models.devices import resolve_device
    from dmts_ipi.models.load import load_model

    device = resolve_device(config.device)
    teacher = load_model(config.teacher, device=device, dtype=config.dtype)
    sampler = None
    if config.sampler is not None:
        sampler = load_model(config.sampler, device=device)

    def report(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    labeller = Labeller(config, teacher, structures, frames, out, sampler, shard, report)
    progress = labeller.run()
    kinds = " and ".join(sorted({periodicity(f) for f in [*structures, *frames]}))
    if args.json:
        print(
            json.dumps(
                {
                    "file": str(out),
                    "n_frames": labeller.total_frames,
                    "written_now": progress.written,
                    "dropped": progress.dropped,
                    "stopped": progress.stopped,
                    "device": device,
                }
            )
        )
    else:
        print(
            f"{out}: {labeller.total_frames} {kinds} frames labelled by {teacher.name} on {device} "
            f"({progress.written} now, {progress.dropped} dropped, "
            f"{len(progress.stopped)} runs stopped early)"
        )
    return 0


def part_of(out: Path, k: int, n: int) -> Path:
    """Name of the k-th part of n."""
    return out if n == 1 else out.with_name(f"{out.stem}-{k}of{n}{out.suffix or '.extxyz'}")


def _run_shards(args: argparse.Namespace, config: LabelConfig) -> int:
    """Every part by a ``dmts-ipi label`` of its own; all of them resume.

    Raises:
        InputError: options that contradict each other.
    """
    if args.shards is None or args.shards < 1 or args.shard is not None:
        raise InputError("shards", args.shards or "", "give --shards N instead of --shard")
    where, n, out = config_of(args), args.shards, args.out
    out.parent.mkdir(parents=True, exist_ok=True)
    options = out.with_name(out.name + ".yaml")
    write_yaml(config, options)
    tasks, parts = [], [part_of(out, k, n) for k in range(1, n + 1)]
    for k, part in enumerate(parts, 1):
        words = ours("label", "--config", options, "--out", out, "--shard", f"{k}/{n}")
        tasks.append(Task(part.name, words, part.with_name(part.name + ".log")))
    status = run_all("label", tasks, where, out.resolve().parent / ".parsl")
    if status == 0:
        files = [str(part) for part in parts]
        print(json.dumps({"files": files}) if args.json else f"labels: {' '.join(files)}")
    return status


def read_config(args: argparse.Namespace) -> LabelConfig:
    """Merges ``--config`` and the options; the options win.

    Raises:
        InputError: unknown or wrong field, or no teacher.
    """
    given = {k: v for k, v in vars(args).items() if k in LabelConfig.model_fields}
    if args.config is None:
        return parse(LabelConfig, given, "option")
    return parse(LabelConfig, {**read_fields(args.config, "config"), **given}, str(args.config))
