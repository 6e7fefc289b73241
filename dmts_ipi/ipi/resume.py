"""Where a run goes on: the newest complete checkpoint, and outputs that end at its step."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from dmts_ipi.core.errors import InputError

from . import outputs
from .validate import InputFacts, read_checkpoint

RESTART, RESUME = "RESTART", "resume.xml"
_END = b"</simulation>"
_STEP = re.compile(rb"<step(?:\s[^>]*)?>\s*(\d+)\s*</step>")
_STATE = re.compile(rb"<(?:q|p)(?:\s[^>]*)?>([^<]*)<")
_TOTAL = re.compile(rb"<total_steps[^>]*>[^<]*</total_steps>")


@dataclass(frozen=True)
class State:
    """A complete checkpoint on disk and the step that it holds."""

    path: Path
    step: int


def checkpoints(folder: Path, facts: InputFacts) -> list[State]:
    """Complete checkpoints of a run, newest first.

    Left out: what i-PI was still writing, and states with NaN, with which i-PI runs on.
    """
    found = []
    for path in [folder / RESTART, folder / RESUME, *_numbered(folder, facts)]:
        if not path.is_file() or not (raw := path.read_bytes()).rstrip().endswith(_END):
            continue
        if any(b"nan" in m[1] or b"inf" in m[1] for m in _STATE.finditer(raw)):
            continue
        match = _STEP.search(raw)
        found.append(State(path, int(match[1]) if match else 0))
    return sorted(found, key=lambda s: (-s.step, s.path.name))


def output_files(folder: Path, facts: InputFacts) -> dict[Path, int]:
    """Stride of every properties and trajectory file of a run."""
    return {
        folder / o.filename: o.stride
        for o in facts.outputs
        if o.kind in ("properties", "trajectory")
    }


def newest_state(folder: Path, facts: InputFacts) -> State | None:
    """The newest complete checkpoint that the outputs reach; None: start from the beginning.

    A checkpoint whose outputs were lost (a power failure, a deleted file) is passed over.
    """
    reached = [(stride, _last(path)) for path, stride in output_files(folder, facts).items()]
    for state in checkpoints(folder, facts):
        if all(last >= state.step - state.step % stride for stride, last in reached):
            return state
    return None


def _last(path: Path) -> int:
    step = outputs.last_step(path)
    return -1 if step is None else step


def prepare_resume(folder: Path, facts: InputFacts, state: State, total_steps: int) -> Path:
    """Makes the folder as if the run had just reached a checkpoint; returns i-PI's input.

    Outputs are cut back to its step, newer checkpoints (and RESTART) are removed: i-PI would
    otherwise write steps twice and keep backups of files that never count again.
    """
    raw = state.path.read_bytes()
    total = b"<total_steps>%d</total_steps>" % total_steps
    text, replaced = _TOTAL.subn(total, raw, count=1)
    if not replaced:  # i-PI leaves out a tag at its default
        end = text.rstrip().rfind(_END)
        text = text[:end] + total + b"\n" + _END + b"\n"
    resume = folder / RESUME
    temporary = folder / (RESUME + ".new")
    temporary.write_bytes(text)
    read_checkpoint(temporary)
    temporary.replace(resume)
    for path in output_files(folder, facts):
        outputs.cut(path, state.step)
    discard_after(folder, facts, state.step)
    (folder / RESTART).unlink(missing_ok=True)
    return resume


def discard_after(folder: Path, facts: InputFacts, step: int) -> None:
    """Removes checkpoints of later steps, which are to be made again or hold a broken state, and
    unusable ones, which would block their names. Call while i-PI is not running."""
    good = {state.path for state in checkpoints(folder, facts) if state.step <= step}
    for path in [folder / RESTART, *_numbered(folder, facts)]:
        if path not in good:
            path.unlink(missing_ok=True)


def _numbered(folder: Path, facts: InputFacts) -> list[Path]:
    output = facts.output("checkpoint")
    return list(folder.glob(f"{output.filename}_*")) if output else []


def prepare_start(folder: Path, facts: InputFacts) -> None:
    """Removes what an attempt left that ended before its first usable checkpoint.

    Raises:
        InputError: an output is not a plain file.
    """
    files = [*output_files(folder, facts), *_numbered(folder, facts)]
    for path in [*files, folder / RESTART, folder / RESUME]:
        if path.is_file():
            path.unlink()
        elif path.exists():
            raise InputError("output", path, "is not a file; move it away")


def prune(folder: Path, facts: InputFacts, keep: int) -> None:
    """Removes all but the newest complete checkpoints of the numbered ones."""
    numbered = [s for s in checkpoints(folder, facts) if s.path.name not in (RESTART, RESUME)]
    for state in numbered[keep:]:
        state.path.unlink(missing_ok=True)
