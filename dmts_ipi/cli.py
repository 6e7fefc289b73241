"""The command line: ``dmts-ipi COMMAND``. Each command is a module with ``configure`` and ``run``.

``configure(parser)`` adds arguments (units in every help text), ``run(args)`` returns an exit
status. Modules are imported only when their command is used, so that ``--help`` is quick.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from . import __version__
from .core.console import log_to_stderr, reserve_stdout
from .core.errors import DmtsError
from .core.options import HelpFormatter, OptionParser

COMMANDS: dict[str, tuple[str, str]] = {
    "auto": (
        "dmts_ipi.commands.auto",
        "go from a structure and a teacher to a finished run and its report",
    ),
    "label": ("dmts_ipi.commands.label", "sample configurations with a teacher and label them"),
    "distill": ("dmts_ipi.commands.distill", "train a student on labels"),
    "evaluate": (
        "dmts_ipi.commands.evaluate",
        "measure the errors and the predicted heating of a model",
    ),
    "models": ("dmts_ipi.commands.models", "list the models that ship with dmts-ipi"),
    "check-driver": (
        "dmts_ipi.commands.check_driver",
        "check that a model or a driver conforms to the protocol",
    ),
    "init": ("dmts_ipi.commands.init", "make a run folder"),
    "run": (
        "dmts_ipi.commands.run",
        "start or resume a run: i-PI and its drivers under a watchdog",
    ),
    "watchdog": (
        "dmts_ipi.commands.watchdog",
        "watch i-PI and drivers that were started separately",
    ),
    "status": (
        "dmts_ipi.commands.status",
        "show the state of a run: speed, forces, rewinds, events",
    ),
    "profile": ("dmts_ipi.commands.profile", "measure where the time of an outer step is spent"),
    "i-pi": ("dmts_ipi.commands.ipi", "run i-PI with our integrators and thermostats"),
    "tune": (
        "dmts_ipi.commands.tune",
        "find the fastest outer step and friction within a heating tolerance",
    ),
    "diagnose": (
        "dmts_ipi.commands.diagnose",
        "measure how conservative the forces of models are",
    ),
    "benchmark": (
        "dmts_ipi.commands.benchmark",
        "compare STS, DMTS, DMTS-NC and HHF in tables",
    ),
    "analyze": ("dmts_ipi.commands.analyze", "compare runs in one HTML report"),
}


def build_parser(wanted: str | None) -> OptionParser:
    """The parser; only the wanted command's module is imported and configured."""
    parser = OptionParser(
        prog="dmts-ipi",
        description="Distilled multiple time stepping with non-conservative forces, under i-PI.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, line) in COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=line,
            description=line[0].upper() + line[1:] + ".",
            formatter_class=HelpFormatter,
        )
        if name == wanted:
            loaded = importlib.import_module(module)
            loaded.configure(sub)
            sub.set_defaults(entry=loaded.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point. Status 0: success; 2: wrong input; 4: a fault; 130: interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    wanted = next((a for a in arguments if a in COMMANDS), None)
    program = f"dmts-ipi {wanted}" if wanted else "dmts-ipi"
    log_to_stderr()
    if "--json" in arguments:
        reserve_stdout()
    try:
        args = build_parser(wanted).parse_args(arguments)
        return int(args.entry(args) or 0)
    except DmtsError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        return error.status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
