"""How and why processes ended: by their exit statuses, and as verdicts.

Our processes, if we started them, end with an ``ExitCode``. Other programs (plain i-PI, LAMMPS,
and anything that was started by hand) have no such statuses: only for them, and only in this
module, phrases in their logs are used.
"""

from __future__ import annotations

import signal

from dmts_ipi.core.exit_codes import ExitCode
from dmts_ipi.core.supervision import RunInterrupted
from dmts_ipi.core.verdicts import Verdict, VerdictKind

from .attached_process import UNKNOWN
from .launch import Child

MEANING: dict[int, VerdictKind] = {
    ExitCode.MODEL_FAILED: VerdictKind.MODEL,
    ExitCode.DISK_FULL: VerdictKind.DISK,
    ExitCode.EXCHANGE_BROKEN: VerdictKind.IPI,
}
# The same of programs that know no ExitCode; plain i-PI hangs after the last one.
PHRASES = {
    VerdictKind.MODEL: (": error: evaluation ",),
    VerdictKind.DISK: ("No space left on device", "Errno 28"),
    VerdictKind.IPI: ("Exception in thread", "ConnectionResetError", "BrokenPipeError"),
}


def interrupted(kind: VerdictKind, text: str, step: int) -> RunInterrupted:
    """A verdict at a step whose state is sound."""
    return RunInterrupted(Verdict(kind, text, step, step))


def trouble_of(child: Child) -> VerdictKind | None:
    """What is known to be wrong with a process, ended or alive.

    Returns:
        ``MODEL``: a model failed in it; ``DISK``: it could not write; ``IPI``: a thread of i-PI
        died, so that it hears no driver any more; None: nothing is known.
    """
    if child.uses_exit_codes:
        return None if child.status is None else MEANING.get(child.status)
    return next((kind for kind, phrases in PHRASES.items() if child.logged(*phrases)), None)


def how(child: Child) -> str:
    """How a process ended, in words."""
    status = child.status
    if status == UNKNOWN:
        return "it is gone"
    if status is not None and status < 0:
        names = {int(s): s.name for s in signal.Signals}  # without most real-time signals
        return f"killed by {names.get(-status, f'signal {-status}')}"
    return f"exit status {status}"


def reason(child: Child) -> str:
    """The most informative line of a log: the last error if there is one, else the last line."""
    if child.status == -signal.SIGKILL:
        return "killed from outside (out of memory?)"
    lines = child.tail(40)
    if child.status == UNKNOWN and not lines:
        return "its messages went elsewhere"
    errors = [x for x in lines if "error" in x.lower()]
    return (errors or lines or ["nothing in its log"])[-1].strip()
