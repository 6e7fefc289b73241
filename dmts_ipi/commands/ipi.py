"""``dmts-ipi i-pi input.xml``: i-PI with our integrators and thermostats registered."""

from __future__ import annotations

import argparse
import runpy
import sys
import traceback
from pathlib import Path

from dmts_ipi.core.errors import DmtsError, InputError


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments, which are i-PI's."""
    parser.epilog = (
        "Adds splitting='baoab-respa', <local_tau> and <bonds> to i-PI: docs/thermostats.md. "
        "Forces are exchanged without i-PI's poll thread, which is faster, and a driver that dies "
        "in the middle of a force is replaced at the same step: docs/performance.md. "
        "An input that uses none of our tags runs as under plain i-pi, to the last digit. "
        "Checkpoints are started in the same way."
    )
    parser.add_argument("input", help="i-PI input or checkpoint")
    parser.add_argument(
        "-V",
        "--verbosity",
        default=None,
        choices=["quiet", "low", "medium", "high", "debug"],
        help="instead of the input's",
    )
    parser.add_argument(
        "-S", "--sockets-prefix", default=None, metavar="PREFIX", help="instead of the input's"
    )
    parser.add_argument(
        "--single-steps-until",
        type=int,
        default=0,
        metavar="STEP",
        help="up to this step the forcefield 'teacher' alone acts, in the innermost MTS level; "
        "then the weights of the input hold",
    )
    parser.add_argument(
        "--poll-thread", action="store_true", help="exchange forces as i-PI does, by a thread"
    )


def run(args: argparse.Namespace) -> int:
    """Registers our classes and runs i-PI's own script; ends as that does."""
    from dmts_ipi.ipi.patches.profiler import profile_ipi
    from dmts_ipi.ipi.patches.register import register
    from dmts_ipi.ipi.run_folder.resources import ipi_script

    if not Path(args.input).is_file():
        raise InputError("input", args.input, "does not exist")
    if args.single_steps_until < 0:
        raise InputError("single-steps-until", args.single_steps_until, "must not be negative")
    register()
    from dmts_ipi.ipi.patches import deferred_outputs as late_outputs
    from dmts_ipi.ipi.patches import fast_xyz_writer as quick_outputs
    from dmts_ipi.ipi.patches import lockstep_systems as together
    from dmts_ipi.ipi.patches import output_sync, single_steps
    from dmts_ipi.ipi.patches import softexit_latency as quick_stop

    together.register()

    if not args.poll_thread:
        from dmts_ipi.ipi.patches import exchange

        exchange.register()
    late_outputs.register()
    output_sync.register()
    quick_outputs.register()
    quick_stop.register()
    if args.single_steps_until > 0:
        single_steps.SingleSteps(args.single_steps_until).register()
    profile_ipi()
    script = str(ipi_script())
    options = ["-V", args.verbosity] if args.verbosity else []
    options += ["-S", args.sockets_prefix] if args.sockets_prefix else []
    before, sys.argv = sys.argv, [script, *options, args.input]
    try:
        runpy.run_path(script, run_name="__main__")
    except DmtsError:
        _close()
        raise
    except Exception as error:
        if not _while_loading(error):
            raise
        text = " ".join(str(error).split()) or type(error).__name__
        raise InputError("input", args.input, f"i-PI says: {text}") from error
    finally:
        sys.argv = before
    return 0


def _while_loading(error: Exception) -> bool:
    """Whether i-PI was still reading the input: the error is then one of the input."""
    return any(f.name == "load_from_xml" for f in traceback.extract_tb(error.__traceback__))


def _close() -> None:
    """Closes what i-PI opened (sockets), if it came so far; the exit status stays ours."""
    from ipi.utils.softexit import softexit

    softexit.hard_exit = False
    if softexit.flist:
        softexit.cleanup("bad")
