"""A verdict: a run is rewound once, at a step that run.yaml names (a stand-in for a judge)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dmts_ipi.core.verdicts import (
    AddedKind,
    Cause,
    Judge,
    JudgedRun,
    Verdict,
    VerdictClass,
    VerdictRow,
)

KIND = AddedKind("toy-clock", Cause.PHYSICS, VerdictClass.HEAT, "the step that was named is over")


class ClockJudge(Judge):
    """Options in run.yaml: ``watchdog: {verdict_options: {toy-clock: {step: 30, once: FILE}}}``."""

    def __init__(self, run: JudgedRun, options: Mapping[str, Any]) -> None:
        self.run = run
        self.step = int(options.get("step", 0))
        self.once = Path(str(options.get("once", "")))

    def line(self, step: int, columns: Mapping[str, float]) -> Verdict | None:
        """Judges one line of properties."""
        if not self.step or step < self.step or self.once.exists():
            return None
        self.once.touch()
        text = f"step {step} is not before step {self.step}"
        return self.run.verdict(KIND, text, step, self.run.sound_line)


CLOCK = VerdictRow(KIND, ClockJudge)
