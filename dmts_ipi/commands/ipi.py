"""``dmts-ipi i-pi input.xml``: i-PI with our integrators and thermostats."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import Any

from dmts_ipi.core.errors import InputError


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments, which are i-PI's."""
    from dmts_ipi.ipi.patches.table import OPTIONAL

    parser.epilog = (
        "Adds splitting='baoab-respa', <local_tau> and <bonds> to i-PI (docs/thermostats.md), and "
        "propagators and thermostats of other packages (docs/extending/). "
        "Forces are exchanged without i-PI's poll thread, which is faster, and a driver that dies "
        "during an evaluation is replaced at the same step (docs/performance.md). "
        "An input that uses none of our tags gives the same results as plain i-pi, to the last "
        "digit. A checkpoint is continued by giving it as the input. "
        "Exit status: 0 the run is over, or was asked to stop; 2 wrong input; 4 a fault; 5 a model "
        "within i-PI failed on a structure; 6 the disk is full; 7 a thread of i-PI died; 1 any "
        "other Python exception."
    )
    parser.add_argument("input", help="i-PI input or checkpoint")
    parser.add_argument(
        "-V",
        "--verbosity",
        default=None,
        choices=["quiet", "low", "medium", "high", "debug"],
        help="verbosity (default: as in the input)",
    )
    parser.add_argument(
        "-S",
        "--sockets-prefix",
        default=None,
        metavar="PREFIX",
        help="prefix of unix sockets (default: as in the input)",
    )
    parser.add_argument(
        "--single-steps-until",
        type=int,
        default=0,
        metavar="STEP",
        help="up to this step each force acts in the innermost MTS level only, with the sum of "
        "its weights; after it with the weights of the input",
    )
    parser.add_argument(
        "--no-patches",
        default="",
        metavar="NAMES",
        help="leave out patches of i-PI that only make it faster: 'all', or a comma-separated "
        "list of "
        f"{', '.join(OPTIONAL)} (docs/performance.md). The environment variable "
        "DMTS_IPI_NO_PATCHES does the same for `dmts-ipi run`",
    )
    parser.add_argument(
        "--poll-thread",
        action="store_true",
        help="exchange forces through i-PI's poll thread; same as --no-patches direct-exchange",
    )


def run(args: argparse.Namespace) -> int:
    """Installs our patches, loads the input and runs it; returns the exit status."""
    from dmts_ipi.core.recorder import PROFILE
    from dmts_ipi.ipi import process
    from dmts_ipi.ipi.patches import table
    from dmts_ipi.ipi.patches.install import install_patches, wanted_off

    path = Path(args.input)
    if not path.is_file():
        raise InputError("input", args.input, "does not exist")
    if args.single_steps_until < 0:
        raise InputError("single-steps-until", args.single_steps_until, "must not be negative")
    off = wanted_off(args.no_patches)
    if args.poll_thread:
        off.add(table.EXCHANGE.name)
    used: dict[str, tuple[Any, ...]] = {}
    if uses_our_tags(path.read_text(errors="replace")):
        used[table.INTEGRATORS.name] = ()
    if args.single_steps_until > 0:
        used[table.SINGLE_STEPS.name] = (args.single_steps_until,)
    if os.environ.get(PROFILE):
        used[table.PROFILER.name] = ()
    install_patches(off, used=used)
    return process.run(process.load(path, args.verbosity, args.sockets_prefix))


def uses_our_tags(text: str) -> bool:
    """Whether an input needs more than i-PI's own integrators and thermostats."""
    splittings = re.findall(r"\bsplitting\s*=\s*['\"]\s*([^'\"]*?)\s*['\"]", text)
    foreign = any(s not in ("obabo", "baoab") for s in splittings)
    return foreign or re.search(r"<(local_tau|bonds|propagator)\b", text) is not None
