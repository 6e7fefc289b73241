"""Where a run goes on: the newest complete checkpoint, and outputs that end at its step."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dmts_ipi.core.errors import InputError
from dmts_ipi.ipi.client.transport import with_sockets
from dmts_ipi.ipi.input_xml import InputSpec, parse_xml, read_checkpoint, single_step
from dmts_ipi.ipi.run_folder import outputs
from dmts_ipi.ipi.run_folder.folder import INPUT

from .begun import keep_begun

RESTART, RESUME, BEGIN = "RESTART", "resume.xml", "begin.xml"
Weights = tuple[str, tuple[float, ...]]  # forcefield, weight of each MTS level
_END = b"</simulation>"
_STEP = re.compile(rb"<step(?:\s[^>]*)?>\s*(\d+)\s*</step>")
_STATE = re.compile(rb"<(?:q|p)(?:\s[^>]*)?>([^<]*)<")
_TOTAL = re.compile(rb"<total_steps[^>]*>[^<]*</total_steps>")
_PRNG = re.compile(rb"<prng\b.*?</prng>", re.DOTALL)
_FORCE = re.compile(
    rb"<force\s[^>]*forcefield\s*=\s*['\"]\s*([^'\"]*?)\s*['\"].*?</force>", re.DOTALL
)
_FORCES = re.compile(rb"<forces\b[^>]*>.*?</forces>", re.DOTALL)
_WEIGHTS = re.compile(rb"<mts_weights.*?</mts_weights>", re.DOTALL)


@dataclass(frozen=True)
class State:
    """A complete checkpoint on disk and the step that it holds."""

    path: Path
    step: int


def checkpoints(folder: Path, spec: InputSpec) -> list[State]:
    """Complete checkpoints of a run, newest first.

    Left out: what i-PI was still writing, and states with NaN, with which i-PI runs on.
    """
    states = []
    for path in [folder / RESTART, folder / RESUME, *_numbered(folder, spec)]:
        if not path.is_file() or not (raw := path.read_bytes()).rstrip().endswith(_END):
            continue
        if any(b"nan" in m[1] or b"inf" in m[1] for m in _STATE.finditer(raw)):
            continue
        match = _STEP.search(raw)
        states.append(State(path, int(match[1]) if match else 0))
    return sorted(states, key=lambda s: (-s.step, s.path.name))


def output_files(folder: Path, spec: InputSpec) -> dict[Path, int]:
    """Stride of every properties and trajectory file of a run."""
    return {
        folder / o.filename: o.stride
        for o in spec.outputs
        if o.kind in ("properties", "trajectory")
    }


def newest_state(folder: Path, spec: InputSpec, before: int | None = None) -> State | None:
    """The newest complete checkpoint that the outputs reach; None: start from the beginning.

    A checkpoint whose outputs were lost (a power failure, a deleted file) is passed over, and so
    is one after the step ``before``. Outputs are those that the checkpoint names: i-PI goes on
    with these, whatever was added to ``input.xml`` since.
    """
    for state in checkpoints(folder, spec):
        if (before is None or state.step <= before) and not _short_of(state, folder, spec):
            return state
    return None


def state_for(folder: Path, spec: InputSpec, before: int | None = None) -> State | None:
    """Where a run is taken up: the newest state at or before a step; if there is none any more,
    the oldest that there is. None: from the beginning, which nothing has left yet.

    Raises:
        InputError: there are checkpoints, but none whose outputs are all there. To begin anew
            would remove what is left of them.
    """
    state = newest_state(folder, spec, before)
    if state is None and before is not None:
        older = [s for s in checkpoints(folder, spec) if newest_state(folder, spec, s.step) == s]
        state = older[-1] if older else None
    if state is not None:
        return state
    later = [s for s in checkpoints(folder, spec) if s.step > 0]
    if not later:
        return None
    short = _short_of(later[-1], folder, spec)[0]
    has = f"ends at step {_last(short)}" if short.is_file() else "is missing"
    raise InputError(
        "output",
        short,
        f"{has}, the oldest checkpoint is of step {later[-1].step}; put it back, or begin anew in "
        "another folder",
    )


def _short_of(state: State, folder: Path, spec: InputSpec) -> list[Path]:
    """Properties and trajectories that a checkpoint names and that do not reach it."""
    behind = [
        path
        for path, stride in output_files(folder, spec).items()
        if _last(path) < state.step - state.step % stride
    ]
    if not behind:
        return []
    named = output_files(folder, read_checkpoint(state.path))
    return [path for path in behind if path in named]


def _last(path: Path) -> int:
    step = outputs.last_step(path)
    return -1 if step is None else step


def prepare_resume(
    folder: Path,
    spec: InputSpec,
    state: State,
    total_steps: int,
    weights: Sequence[Weights] = (),
    seed: int | None = None,
) -> Path:
    """Makes the folder as if the run had just reached a checkpoint; returns i-PI's input.

    Outputs are cut back to its step, newer checkpoints (and RESTART) are removed: i-PI would
    otherwise write steps twice and keep backups of files that never count again.

    Args:
        folder: the run.
        spec: of ``input.xml``.
        state: the checkpoint.
        total_steps: where i-PI is to stop.
        weights: see ``edited``.
        seed: new random numbers; None: those of the checkpoint.
    """
    text = edited(state.path.read_bytes(), total_steps, weights, seed)
    text = with_sockets(text, (folder / INPUT).read_bytes(), spec.sockets)
    resume = folder / RESUME
    temporary = folder / (RESUME + ".new")
    temporary.write_bytes(text)
    read_checkpoint(temporary)
    temporary.replace(resume)
    for path in output_files(folder, spec):
        if state.step == 0:  # i-PI writes them anew, and would keep a backup of what it finds
            path.unlink(missing_ok=True)
        else:
            outputs.cut(path, state.step)
    discard_after(folder, spec, state.step)
    (folder / RESTART).unlink(missing_ok=True)
    return resume


def prepare_begin(
    folder: Path,
    spec: InputSpec,
    total_steps: int,
    weights: Sequence[Weights],
    seed: int | None,
) -> Path:
    """Makes the folder as if nothing had run yet, because no checkpoint will do; see above.

    Returns i-PI's input: ``input.xml`` itself, or a copy with other weights, length, seed or
    sockets.
    """
    prepare_start(folder, spec)
    keep_begun(folder)
    raw = (folder / INPUT).read_bytes()
    placed = with_sockets(raw, raw, spec.sockets)
    same = total_steps == spec.total_steps and seed is None and placed == raw
    if same and weights == read_weights(folder):
        return folder / INPUT
    begin = folder / BEGIN
    begin.write_bytes(edited(placed, total_steps, weights, seed))
    return begin


def read_weights(folder: Path) -> list[Weights]:
    """Forcefield and MTS weights of every force of ``input.xml``, in their order."""
    return weights_of(folder / INPUT)


def weights_of(file: Path) -> list[Weights]:
    """The same of any input or checkpoint."""
    weights = []
    for force in parse_xml(file).findall("system/forces/force"):
        numbers = (force.findtext("mts_weights") or "1").strip().strip("[]").replace(",", " ")
        name = force.get("forcefield", "").strip()
        weights.append((name, tuple(float(w) for w in numbers.split())))
    return weights


def single_step_weights(weights: Sequence[Weights]) -> list[Weights]:
    """The same forces in single time steps: each in the innermost level, by its sum."""
    return [(name, single_step(w)) for name, w in weights]


def edited(raw: bytes, total_steps: int, weights: Sequence[Weights], seed: int | None) -> bytes:
    """An input or a checkpoint with another length, other MTS weights, another seed.

    Everything else stays as it is, byte by byte: numbers keep all their digits.

    Args:
        raw: the file.
        total_steps: where i-PI is to stop.
        weights: (forcefield, weight of each level) of every force, in their order; none: kept.
        seed: None: the generator's state is kept.
    """
    text = _set(_TOTAL, b"<total_steps>%d</total_steps>" % total_steps, raw)
    if seed is not None:
        text = _set(_PRNG, b"<prng><seed>%d</seed></prng>" % seed, text)
    left = list(weights)

    def with_weights(match: re.Match[bytes]) -> bytes:
        name, levels = left.pop(0)
        if match[1].decode() != name or len(levels) < 2:
            return match[0]
        tag = f"<mts_weights shape='({len(levels)})'> {list(levels)} </mts_weights>"
        inside, replaced = _WEIGHTS.subn(tag.encode(), match[0], count=1)
        if not replaced:
            inside = match[0].removesuffix(b"</force>") + tag.encode() + b"</force>"
        return inside

    # forces of <bias> have no levels: only what is inside <forces> is changed
    return _FORCES.sub(lambda m: _FORCE.sub(with_weights, m[0]), text, count=1) if left else text


def _set(tag: re.Pattern[bytes], value: bytes, text: bytes) -> bytes:
    changed, replaced = tag.subn(value, text, count=1)
    if replaced:
        return changed
    end = text.rstrip().rfind(_END)  # i-PI leaves out a tag at its default
    return text[:end] + value + b"\n" + _END + b"\n"


def discard_after(folder: Path, spec: InputSpec, step: int) -> None:
    """Removes checkpoints of later steps, which are to be made again or hold a broken state, and
    unusable ones, which would block their names. Call while i-PI is not running."""
    good = {state.path for state in checkpoints(folder, spec) if state.step <= step}
    for path in [folder / RESTART, *_numbered(folder, spec)]:
        if path not in good:
            path.unlink(missing_ok=True)


def _numbered(folder: Path, spec: InputSpec) -> list[Path]:
    output = spec.output("checkpoint")
    return list(folder.glob(f"{output.filename}_*")) if output else []


def prepare_start(folder: Path, spec: InputSpec) -> None:
    """Removes what an attempt left that ended before its first usable checkpoint.

    Raises:
        InputError: an output is not a plain file.
    """
    files = [*output_files(folder, spec), *_numbered(folder, spec)]
    for path in [*files, folder / RESTART, folder / RESUME, folder / BEGIN]:
        if path.is_file():
            path.unlink()
        elif path.exists():
            raise InputError("output", path, "is not a file; move it away")


def prune(folder: Path, spec: InputSpec, keep: int) -> None:
    """Removes all but the newest complete checkpoints of the numbered ones."""
    numbered = [s for s in checkpoints(folder, spec) if s.path.name not in (RESTART, RESUME)]
    for state in numbered[keep:]:
        state.path.unlink(missing_ok=True)
