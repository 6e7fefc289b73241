"""``dmts-ipi profile FOLDER``: where the time of an outer step goes."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from dmts_ipi.core.errors import InputError, RunFault
from dmts_ipi.core.recorder import PROFILE
from dmts_ipi.ipi.input_xml import InputXML
from dmts_ipi.ipi.profile import Profile, attribute, read_processes, trace
from dmts_ipi.ipi.run_folder.folder import CONFIG, INPUT, STRUCTURE, RunFolder
from dmts_ipi.ipi.session.session import run_session
from dmts_ipi.ipi.session.supervise import Hooks
from dmts_ipi.ipi.session.watch import Limits

from .build_watchdog import guarded

SKIP = 5  # first steps, in which caches are filled


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.epilog = (
        "Runs some outer steps in a copy of the folder, from its start structure and with all its "
        "settings; the run itself is not changed. Times are wall times of i-PI's main thread; "
        "while i-PI waits for a driver, the time is counted as the driver's. docs/performance.md "
        "explains the rows. Nothing is recorded in any other run."
    )
    parser.add_argument("folder", help="run folder made by `dmts-ipi init`")
    parser.add_argument("--steps", type=int, default=40, help="outer steps to measure")
    parser.add_argument("--no-watchdog", action="store_true", help="measure without telemetry")
    parser.add_argument(
        "--trace",
        default=None,
        metavar="FILE",
        help="write a Chrome trace (JSON) for chrome://tracing or https://ui.perfetto.dev",
    )
    parser.add_argument("--json", action="store_true", help="print the times as JSON, in ms")


def run(args: argparse.Namespace) -> int:
    """Profiles a run folder; returns the exit status."""
    if args.steps < 2:
        raise InputError("steps", args.steps, "must be 2 or more")
    folder = RunFolder(args.folder)
    target = None if args.trace is None else Path(args.trace)
    if target is not None and not target.absolute().parent.is_dir():
        raise InputError("trace", target, "its folder does not exist")
    if target is not None and target.is_dir():
        raise InputError("trace", target, "is a folder; name a file")
    profile, timeline = profile_run(folder, args.steps, not args.no_watchdog)
    if target is not None:
        target.write_text(json.dumps(timeline))
    if args.json:
        print(json.dumps(profile.record(), indent=1))
    else:
        print(f"{folder.path}: {len(folder.structure().numbers)} atoms, {_steps(folder)}")
        print(profile.table())
        if target is not None:
            print(f"{target}: timeline, for chrome://tracing or https://ui.perfetto.dev")
    return 0


def _steps(folder: RunFolder) -> str:
    spec = folder.spec()
    return f"{spec.n_inner} x {spec.inner_fs:g} fs an outer step"


def profile_run(
    folder: RunFolder, steps: int, watched: bool = True
) -> tuple[Profile, dict[str, object]]:
    """Profile and Chrome trace of some outer steps.

    Args:
        folder: the run; nothing in it changes.
        steps: outer steps that are counted.
        watched: with the watchdog, as far as the run has one.

    Raises:
        DmtsError: the copy did not run to its end.
    """
    try:
        # beside the run, so that outputs go to the same disk
        scratch = tempfile.TemporaryDirectory(prefix=".profile-", dir=folder.path)
    except OSError as error:
        raise InputError("folder", folder.path, f"{error.strerror}") from error
    with scratch as where:
        copy = _copy(folder, Path(where) / "run", steps + SKIP + 1)
        left = Path(where) / "profile"
        left.mkdir()
        with _profiled(left):
            outcome = run_session(copy, Hooks(), Limits(), None, guarded if watched else None)
        if outcome.status != 0:
            lines = [f"{name}: {x}" for name, tail in outcome.tails.items() for x in tail[-3:]]
            raise RunFault("; ".join([f"the profiled copy ended: {outcome.exit}", *lines]))
        processes = read_processes(left)
    return attribute(processes, SKIP), trace(processes)


@contextlib.contextmanager
def _profiled(left: Path) -> Iterator[None]:
    """Processes that are started within record what they do."""
    before = os.environ.get(PROFILE)
    os.environ[PROFILE] = str(left.resolve())
    try:
        yield
    finally:
        os.environ.pop(PROFILE)
        if before is not None:
            os.environ[PROFILE] = before


def _copy(folder: RunFolder, to: Path, steps: int) -> RunFolder:
    """A short run of its own, with sockets of its own."""
    to.mkdir()
    for name in (CONFIG, STRUCTURE):
        shutil.copy(folder.path / name, to / name)
    template = InputXML((folder.path / INPUT).read_text(), INPUT)
    template.set("total_steps", steps)
    for element in template.root.findall("ffsocket"):
        name = element.get("name", "").strip()
        path = f"ffsocket[@name='{element.get('name')}']"
        if element.get("mode", "inet").strip() == "inet":
            template.set(f"{path}/port", _free_port())
        else:
            template.set(f"{path}/address", f"dmts-profile-{uuid.uuid4().hex[:10]}-{name}")
    for parameters in template.root.findall("ffdirect/parameters"):
        telemetry = f"telemetry: dmts-profile-{uuid.uuid4().hex[:10]}"
        parts = [x.strip() for x in (parameters.text or "").strip().strip("{}").split(",")]
        parts = [telemetry if x.startswith("telemetry:") else x for x in parts]
        parameters.text = f"{{{', '.join(parts)}}}"
    (to / INPUT).write_text(template.text())
    return RunFolder(to)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
