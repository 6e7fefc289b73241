"""How processes end, in words, and as events."""

from __future__ import annotations

import signal

from dmts_ipi.core.supervision import RunInterrupted
from dmts_ipi.core.verdicts import Verdict, VerdictKind

from .attached_process import UNKNOWN
from .launch import Child

# what i-PI's log says when its poll thread has died: it hangs from then on
BROKEN = ("Exception in thread", "ConnectionResetError", "BrokenPipeError")
DISK = ("No space left on device", "Errno 28")


def interrupted(kind: VerdictKind, text: str, step: int) -> RunInterrupted:
    """A verdict at a step whose state is sound."""
    return RunInterrupted(Verdict(kind, text, step, step))


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
    """The line of a log that says most: an error if there is one, else the last."""
    if child.status == -signal.SIGKILL:
        return "killed from outside (out of memory?)"
    lines = child.tail(40)
    if child.status == UNKNOWN and not lines:
        return "its messages went elsewhere"
    errors = [x for x in lines if "error" in x.lower()]
    return (errors or lines or ["nothing in its log"])[-1].strip()
