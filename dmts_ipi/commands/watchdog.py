"""``dmts-ipi watchdog FOLDER``: watches i-PI and drivers that others started."""

from __future__ import annotations

import argparse

from dmts_ipi.core.errors import InputError
from dmts_ipi.ipi.run_folder.folder import RunFolder
from dmts_ipi.ipi.session.attach import IPI, Others, option, watch_session
from dmts_ipi.ipi.session.supervise import Hooks

from .build_watchdog import add_limits, guarded, limits_of
from .run import display, tell

NAMES = (IPI, "teacher", "student")
SCRIPTS = {IPI: "./start_ipi.sh", "teacher": "./start_teacher.sh", "student": "./start_student.sh"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.description = (
        "Watches a run whose i-PI and drivers were started by hand or by srun. Start it on the "
        "machine of i-PI, before or after them. Processes are found by the sockets of input.xml. "
        "What has ended is started again by its command, in the run folder; without one the "
        "watchdog says what a person must do. Ctrl-C and SIGTERM end the watchdog only."
    )
    parser.epilog = (
        "Exit status: 0 the run is finished; 2 wrong input; 3 stopped by a limit of the watchdog "
        "or the file EXIT; 4 a person must do what the last line says; 130 Ctrl-C and 143 SIGTERM: "
        "the run goes on unwatched, and the next watchdog takes it over."
    )
    parser.add_argument("folder", help="run folder made by `dmts-ipi init`")
    parser.add_argument(
        "--restart",
        action="store_true",
        help="start_ipi.sh, start_teacher.sh and start_student.sh of the folder start again what "
        "has no other command",
    )
    for name in NAMES:
        word = name.replace(IPI, "ipi")
        last = "; {input}, or its end, takes the name of the input" if name == IPI else ""
        parser.add_argument(
            f"--restart-{word}",
            metavar="CMD",
            default=None,
            help=f"command that starts the {name} again and lives as long as it, such as "
            f"'srun ... {SCRIPTS[name]}'{last} (also watchdog.restart_{word} in run.yaml)",
        )
    for name in NAMES:
        word = name.replace(IPI, "ipi")
        parser.add_argument(
            f"--{word}-pid",
            type=int,
            metavar="N",
            default=None,
            help=f"process id of the {name} on this machine; None: it is looked for",
        )
    others = Others({}, {})
    parser.add_argument(
        "--wait-s",
        type=float,
        default=others.wait_s,
        help="how long i-PI, or a driver that is neither seen nor heard, may be absent, s",
    )
    add_limits(parser)
    parser.add_argument("--json", action="store_true", help="print summary.json at the end")


def run(args: argparse.Namespace) -> int:
    """Watches a folder; returns the exit status."""
    folder = RunFolder(args.folder)
    settings = folder.settings.watchdog
    if not settings.enabled:
        raise InputError("run.yaml: watchdog.enabled", False, "set it true, or leave it out")
    if not args.wait_s >= 0:
        raise InputError("wait_s", args.wait_s, "must be zero or more seconds")
    others = Others(_pids(args), _commands(args, folder), args.wait_s)
    limits = limits_of(args, settings)
    with display(args.report_every_s, args.json) as shown:
        hooks = Hooks(say=shown.say, progress=shown.show)
        outcome = watch_session(folder, hooks, limits, others, guarded)
    tell("watchdog", outcome, args.folder, args.json)
    return outcome.status


def _pids(args: argparse.Namespace) -> dict[str, int]:
    given = {name: getattr(args, option(name, "pid")) for name in NAMES}
    return {name: pid for name, pid in given.items() if pid is not None}


def _commands(args: argparse.Namespace, folder: RunFolder) -> dict[str, str]:
    """By name: of the command line, else of ``run.yaml``, else (``--restart``) the scripts."""
    found = {}
    for name in NAMES:
        field = option("restart", name)
        given = getattr(args, field)
        settings = folder.settings.watchdog
        command = getattr(settings, field) if given is None else given
        if command is None and args.restart and (folder.path / SCRIPTS[name]).is_file():
            command = SCRIPTS[name]
        if command is not None:
            found[name] = command
    return found
