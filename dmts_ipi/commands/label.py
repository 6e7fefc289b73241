"""``dmts-ipi label``: sample with a teacher and label."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import get_args

from dmts_ipi.core.config import parse, read_fields
from dmts_ipi.distill.label_config import LabelConfig

NAMES = {"structures": "--structure"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Options come from ``LabelConfig``; those not given are taken from ``--config``."""
    parser.formatter_class = argparse.HelpFormatter
    parser.add_argument("--out", required=True, type=Path, help="labels, extended XYZ")
    parser.add_argument("--config", type=Path, help="YAML with the same fields; options override")
    parser.add_argument("--shard", help="do part k of N (k/N, from 1), for job arrays; the part is"
                        " added to the name of --out")  # fmt: skip
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
    from dmts_ipi.distill.label import Labeller, read_structures
    from dmts_ipi.distill.label_tasks import parse_shard

    config = read_config(args)
    shard = parse_shard(args.shard)
    out = args.out
    if shard[1] > 1:
        out = out.with_name(f"{out.stem}-{shard[0]}of{shard[1]}{out.suffix or '.extxyz'}")
    structures = read_structures(config.structures)
    frames = read_structures([f if "@" in f else f + "@:" for f in config.frames], name="frame")
    from dmts_ipi.distill.models import load_model

    teacher = load_model(config.teacher, device=config.device, dtype=config.dtype)
    sampler = None
    if config.sampler is not None:
        sampler = load_model(config.sampler, device=config.device)

    def report(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    labeller = Labeller(config, teacher, structures, frames, out, sampler, shard, report)
    progress = labeller.run()
    if args.json:
        print(
            json.dumps(
                {
                    "file": str(out),
                    "n_frames": labeller.total_frames,
                    "written_now": progress.written,
                    "dropped": progress.dropped,
                    "stopped": progress.stopped,
                }
            )
        )
    else:
        print(
            f"{out}: {labeller.total_frames} frames labelled by {teacher.name} "
            f"({progress.written} now, {progress.dropped} dropped, "
            f"{len(progress.stopped)} runs stopped early)"
        )
    return 0


def read_config(args: argparse.Namespace) -> LabelConfig:
    """Merges ``--config`` and the options; the options win.

    Raises:
        InputError: unknown or wrong field, or no teacher.
    """
    given = {k: v for k, v in vars(args).items() if k in LabelConfig.model_fields}
    if args.config is None:
        return parse(LabelConfig, given, "option")
    return parse(LabelConfig, {**read_fields(args.config, "config"), **given}, str(args.config))
