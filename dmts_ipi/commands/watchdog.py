"""``dmts-ipi watchdog FOLDER``: watches i-PI and drivers started by hand or by a queue."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.levels import STUDENT, TEACHER
from dmts_ipi.ipi.run_folder.folder import RunFolder
from dmts_ipi.ipi.session.attach import IPI, AttachedProcesses, watch_session
from dmts_ipi.ipi.session.supervise import Hooks

from .build_watchdog import add_limits, guarded, limits_of
from .run import display, tell


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.description = (
        "Watches a run whose i-PI and drivers were started by hand or by srun. Start it on the "
        "machine that runs i-PI, before or after them. Processes are found by the sockets of "
        "input.xml. A process that has ended is restarted by its command, in the run folder; "
        "without a command the watchdog prints what a person must do. Ctrl-C and SIGTERM end only "
        f"the watchdog. NAME is {IPI}, or a model of run.yaml, such as {TEACHER}."
    )
    parser.epilog = (
        "Exit status: 0 the run is finished; 2 wrong input; 3 stopped by a limit of the watchdog "
        "or the file EXIT; 4 a person must do what the last line says; 130 Ctrl-C and 143 SIGTERM: "
        "the run continues without a watchdog, and the next watchdog takes it over. "
        f"Options of earlier versions, --{TEACHER}-pid, --restart-{TEACHER} and so on, still work."
    )
    parser.add_argument("folder", help="run folder made by `dmts-ipi init`")
    parser.add_argument(
        "--restart",
        action="store_true",
        help="restart processes that have no other command by start_ipi.sh, start_teacher.sh and "
        "so on, in the folder",
    )
    parser.add_argument(
        "--restart-ipi",
        metavar="CMD",
        default=None,
        help="command that restarts i-PI and runs as long as i-PI does, such as 'srun ... "
        "./start_ipi.sh'; the name of the input replaces {input} or is appended (also "
        "watchdog.restart_ipi in run.yaml)",
    )
    _named(
        parser,
        "--restart-driver",
        "NAME=CMD",
        str,
        "the same for the driver of a model; may be given for each (also watchdog.restart_driver "
        "in run.yaml)",
        {f"--restart-{name}": name for name in (TEACHER, STUDENT)},
    )
    _named(
        parser,
        "--pid",
        "NAME=N",
        int,
        "process id of i-PI or of a driver on this machine; may be given for each (default: found "
        "automatically)",
        {"--ipi-pid": IPI, f"--{TEACHER}-pid": TEACHER, f"--{STUDENT}-pid": STUDENT},
    )
    parser.add_argument(
        "--wait-s",
        type=float,
        default=AttachedProcesses().wait_s,
        help="how long i-PI, or a driver without a process or telemetry, may be absent, s",
    )
    add_limits(parser)
    parser.add_argument("--json", action="store_true", help="print summary.json at the end")


def _named(
    parser: argparse.ArgumentParser,
    option: str,
    metavar: str,
    convert: Callable[[str], Any],
    help: str,
    earlier: dict[str, str],
) -> None:
    """An option ``NAME=VALUE`` that may be repeated, and options of earlier versions, each of one
    name, that are not shown in the help."""

    def pair(text: str) -> tuple[str, Any]:
        name, equals, value = text.partition("=")
        try:
            if not name or not equals:
                raise ValueError
            return IPI if name == "ipi" else name, convert(value)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"must be {metavar}") from error

    class OfName(argparse.Action):
        def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
            given = getattr(namespace, self.dest)
            setattr(namespace, self.dest, [*given, (earlier[option], values)])

    parser.add_argument(option, type=pair, action="append", metavar=metavar, default=[], help=help)
    dest = option.lstrip("-").replace("-", "_")
    for old in earlier:
        parser.add_argument(
            old, type=convert, action=OfName, dest=dest, default=[], help=argparse.SUPPRESS
        )


def run(args: argparse.Namespace) -> int:
    """Watches a folder; returns the exit status."""
    folder = RunFolder(args.folder)
    settings = folder.settings.watchdog
    if not settings.enabled:
        raise InputError("run.yaml: watchdog.enabled", False, "set it to true, or leave it out")
    if not args.wait_s >= 0:
        raise InputError("wait_s", args.wait_s, "must be zero or more seconds")
    commands = _commands(args.restart_ipi, args.restart_driver, args.restart, folder)
    attached = AttachedProcesses(dict(args.pid), commands, args.wait_s)
    limits = limits_of(args, settings)
    with display(args.report_every_s, args.json) as shown:
        hooks = Hooks(say=shown.say, progress=shown.show)
        outcome = watch_session(folder, hooks, limits, attached, guarded)
    tell("watchdog", outcome, args.folder, args.json)
    return outcome.status


def _commands(
    of_ipi: str | None, of_drivers: Sequence[tuple[str, str]], scripts: bool, folder: RunFolder
) -> dict[str, str]:
    """By name: of the command line, else of ``run.yaml``, else (``--restart``) the scripts."""
    settings = folder.settings.watchdog
    commands: dict[str, str] = {}
    if scripts:
        for name in (IPI, *folder.settings.models):
            script = f"start_{name.replace(IPI, 'ipi')}.sh"
            if (folder.path / script).is_file():
                commands[name] = f"./{script}"
    commands.update(settings.restart_driver)
    if settings.restart_ipi is not None:
        commands[IPI] = settings.restart_ipi
    commands.update(of_drivers)
    if of_ipi is not None:
        commands[IPI] = of_ipi
    return commands
