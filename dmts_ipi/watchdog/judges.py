"""The built-in judges of the watchdog, and the collection of all judges of a run.

Each class finds one kind of verdict and is one row of ``core.verdicts.VERDICTS``.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from ase.data import chemical_symbols

from dmts_ipi.core.errors import DmtsError, InputError, RunFault
from dmts_ipi.core.force_comparison import ForceComparison, Pair
from dmts_ipi.core.verdicts import (
    Judge,
    JudgedRun,
    Verdict,
    VerdictKind,
    VerdictRow,
    verdict_rows,
)

SPIKE_FACTOR = 3.0  # times the reference's largest force, on top of the limit
EARLY_FACTOR = 3.0  # times the limit of the conserved energy before the equilibration is over


class OwnJudge(Judge):
    """Base of the judges of this module."""

    def __init__(self, run: JudgedRun, options: Mapping[str, Any]) -> None:
        self.run, self.limits, self.physics = run, run.limits, run.physics

    def _atom(self, atom: int) -> str:
        return f"atom {atom} ({chemical_symbols[int(self.run.numbers[atom])]}"


class DifferenceJudge(OwnJudge):
    """Two models differ by too much on one atom."""

    def forces(self, comparison: ForceComparison, step: int) -> Verdict | None:
        """See ``Judge``."""
        d, pair = comparison.difference, comparison.pair
        limit = self.limits.differences[pair].largest_eV_per_A
        if d.largest <= limit:
            return None
        text = f"{pair[1]} and {pair[0]} differ by {d.largest:.3f} eV/A on {self._atom(d.atom)}"
        if comparison.positions_A is not None:
            text += " at {:.2f}, {:.2f}, {:.2f} A".format(*comparison.positions_A[d.atom])
        median = self.run.statistics[pair].largest.quantile(0.5)
        text += f") at step {step}; {limit:.3f} are allowed, {median:.3f} is the median"
        sound = self.run.sound_comparison[pair]
        return self.run.verdict(VerdictKind.DIFFERENCE, text, step, sound)


class DifferenceRmsJudge(OwnJudge):
    """Two models differ by too much on average over the last outer steps."""

    def __init__(self, run: JudgedRun, options: Mapping[str, Any]) -> None:
        super().__init__(run, options)
        self._windows: dict[Pair, deque[float]] = {
            pair: deque(maxlen=self.limits.window) for pair in self.limits.differences
        }

    def restarted(self, step: int) -> None:
        """See ``Judge``."""
        for window in self._windows.values():
            window.clear()

    def forces(self, comparison: ForceComparison, step: int) -> Verdict | None:
        """See ``Judge``."""
        pair = comparison.pair
        window, limit = self._windows[pair], self.limits.differences[pair].rms_eV_per_A
        window.append(comparison.difference.rms)
        mean = math.sqrt(sum(x * x for x in window) / len(window))
        if len(window) < self.limits.window or not mean > limit:
            return None
        text = (
            f"{pair[1]} and {pair[0]} differ by {mean:.3f} eV/A (RMS of {self.limits.window} outer "
            f"steps up to {step}); {limit:.3f} are allowed"
        )
        sound = max(step - self.limits.window, 0)
        return self.run.verdict(VerdictKind.DIFFERENCE_RMS, text, step, sound)


class SpikeJudge(OwnJudge):
    """A force of a fast model is far larger than any of the reference, in any inner step."""

    def __init__(self, run: JudgedRun, options: Mapping[str, Any]) -> None:
        super().__init__(run, options)
        self._largest: dict[str, float] = dict.fromkeys(run.references, 0.0)

    def peak(self, model: str, force_eV_per_A: float, atom: int, step: int) -> Verdict | None:
        """See ``Judge``."""
        if model in self._largest:
            if math.isfinite(force_eV_per_A):
                self._largest[model] = max(self._largest[model], force_eV_per_A)
            return None
        reference = max(self._largest, key=lambda name: self._largest[name], default="")
        usual = self._largest.get(reference, 0.0)
        limit = self.limits.force_spike_eV_per_A + SPIKE_FACTOR * usual
        if usual <= 0 or force_eV_per_A <= limit:
            return None
        step = max(step, min(self.run.sound_comparison.values(), default=step))
        text = (
            f"a force of the {model} is {force_eV_per_A:.1f} eV/A, on {self._atom(atom)}), after "
            f"step {step}; {limit:.1f} are allowed, {usual:.1f} is the {reference}'s largest so far"
        )
        return self.run.verdict(VerdictKind.SPIKE, text, step, step)


COLD_START_FS = 2000.0


class TemperatureJudge(OwnJudge):
    """The kinetic temperature is outside its band, once the run is equilibrated.

    A start at a minimum of the potential energy, such as a perfect crystal, is cold at first: half
    of the kinetic energy of the drawn velocities goes into the potential energy, and the
    thermostat brings it back within its time constant. For ``COLD_START_FS`` a low temperature
    is therefore no verdict.
    """

    def line(self, step: int, columns: Mapping[str, float]) -> Verdict | None:
        """See ``Judge``."""
        kelvin = columns.get("temperature_K", math.nan)
        low, high = self.limits.temperature_K
        if step < self.limits.equilibration_steps or not (kelvin < low or kelvin > high):
            return None
        if kelvin < low and step < self.physics.steps(COLD_START_FS):
            return None
        text = (
            f"temperature {kelvin:.1f} K at step {step} is outside {low:.1f} to {high:.1f} K "
            f"({self.physics.temperature_K:g} K asked for, {self.physics.dof} degrees of freedom)"
        )
        return self.run.verdict(VerdictKind.TEMPERATURE, text, step, self.run.sound_line)


class JumpJudge(OwnJudge):
    """An energy changes between two lines by more than any fluctuation explains.

    A force that was wrong for one inner step shows in the conserved energy, whichever model it
    came from, because its work is in no potential energy.
    """

    def __init__(self, run: JudgedRun, options: Mapping[str, Any]) -> None:
        super().__init__(run, options)
        self._energies: dict[str, float] = {}

    def restarted(self, step: int) -> None:
        """See ``Judge``."""
        self._energies.clear()

    def line(self, step: int, columns: Mapping[str, float]) -> Verdict | None:
        """See ``Judge``."""
        potential, limits = columns.get("potential_eV", math.nan), self.limits
        return self._jump(step, "potential", potential, limits.potential_jump_eV) or self._jump(
            step, "conserved", conserved_eV(columns), limits.conserved_jump_eV
        )

    def _jump(self, step: int, key: str, energy: float, limit_eV: float) -> Verdict | None:
        before, self._energies[key] = self._energies.get(key), energy
        if before is None:
            return None
        if step < self.limits.equilibration_steps:
            if key == "potential":
                return None
            limit_eV *= EARLY_FACTOR
        change = energy - before
        if not abs(change) > limit_eV:
            return None
        sound = self.run.sound_line
        text = (
            f"{key} energy jumped by {change:+.3f} eV between steps {sound} and "
            f"{step}; {limit_eV:.3f} eV are allowed"
        )
        return self.run.verdict(VerdictKind.JUMP, text, step, sound)


class DriftJudge(OwnJudge):
    """NVE: the conserved energy has moved too far from its first value."""

    def __init__(self, run: JudgedRun, options: Mapping[str, Any]) -> None:
        super().__init__(run, options)
        self._first_eV: float | None = None

    def line(self, step: int, columns: Mapping[str, float]) -> Verdict | None:
        """See ``Judge``."""
        energy = conserved_eV(columns)
        if self.physics.ensemble != "nve" or not math.isfinite(energy):
            return None
        if self._first_eV is None:
            self._first_eV = energy
        drift = energy - self._first_eV
        if abs(drift) <= self.limits.drift_eV:
            return None
        text = (
            f"conserved energy has drifted by {drift:+.3f} eV at step {step}; "
            f"{self.limits.drift_eV:.3f} eV are allowed"
        )
        return self.run.verdict(VerdictKind.DRIFT, text, step, self.run.sound_line)


def conserved_eV(columns: Mapping[str, float]) -> float:
    """The conserved energy of a line; 0 where forces have no energy and nothing is conserved."""
    if columns.get("potential_eV", math.nan) == 0.0:
        return 0.0
    return columns.get("conserved_eV", math.nan)


DIFFERENCE = VerdictRow(VerdictKind.DIFFERENCE, DifferenceJudge)
DIFFERENCE_RMS = VerdictRow(VerdictKind.DIFFERENCE_RMS, DifferenceRmsJudge)
SPIKE = VerdictRow(VerdictKind.SPIKE, SpikeJudge)
TEMPERATURE = VerdictRow(VerdictKind.TEMPERATURE, TemperatureJudge)
JUMP = VerdictRow(VerdictKind.JUMP, JumpJudge)
DRIFT = VerdictRow(VerdictKind.DRIFT, DriftJudge)


class Judges:
    """All judges of a run, our own first. The first verdict counts.

    Args:
        run: what they know of it.
        options: ``watchdog.verdict_options`` of ``run.yaml``, by the name of a row.
        rows: the rows that judge; None: all of ``VERDICTS``.

    Raises:
        InputError: options for a verdict that does not exist, or that its judge refuses.
    """

    def __init__(
        self,
        run: JudgedRun,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        rows: Mapping[str, VerdictRow] | None = None,
    ) -> None:
        self.run = run
        given, known = options or {}, verdict_rows() if rows is None else rows
        for name in given:
            if name not in known:
                remedy = f"is not the name of a verdict; known: {', '.join(known)}"
                raise InputError("run.yaml: watchdog.verdict_options", name, remedy)
        self._judges = {
            name: row.judge(run, given.get(name, {}))
            for name, row in known.items()
            if row.judge is not None
        }
        self.restarted(0)

    def restarted(self, step: int) -> None:
        """i-PI starts (again) from a step."""
        self.run.sound_line = step
        self.run.sound_comparison = dict.fromkeys(self.run.limits.differences, step)
        self._ask(lambda judge: judge.restarted(step))

    def line(self, step: int, columns: Mapping[str, float]) -> Verdict | None:
        """Judges one line of properties."""
        verdict = self._ask(lambda judge: judge.line(step, columns))
        if verdict is None:
            self.run.sound_line = step
        return verdict

    def forces(self, comparison: ForceComparison, step: int) -> Verdict | None:
        """Judges two models at the structure of one outer step."""
        self.run.statistics[comparison.pair].add(comparison.difference)
        verdict = self._ask(lambda judge: judge.forces(comparison, step))
        if verdict is None:
            self.run.sound_comparison[comparison.pair] = step
        return verdict

    def peak(self, model: str, force_eV_per_A: float, atom: int, step: int) -> Verdict | None:
        """Judges the largest force of a model since the last call; see ``Judge.peak``."""
        return self._ask(lambda judge: judge.peak(model, force_eV_per_A, atom, step))

    def _ask(self, ask: Callable[[Judge], Verdict | None]) -> Verdict | None:
        """Asks one judge after the other; those of other packages may raise anything."""
        for name, judge in self._judges.items():
            try:
                verdict = ask(judge)
            except DmtsError:
                raise
            except Exception as error:
                text = " ".join(str(error).split()) or "no message"
                raise RunFault(
                    f"the judge of the verdict '{name}' failed ({type(error).__name__}: {text}); "
                    "correct the package that adds it, or uninstall it"
                ) from error
            if verdict is not None:
                return verdict
        return None
