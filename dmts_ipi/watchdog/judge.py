"""Verdicts on the physics of a run: lines of its properties, and pairs of forces."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
from ase.data import chemical_symbols

from dmts_ipi.core.supervision import Verdict

from .difference import Distribution
from .listener import Pair
from .thresholds import Physics, Thresholds

SPIKE = 3.0  # times the teacher's largest force, on top of the limit
EARLY = 3.0  # times the limit of the conserved energy before the equilibration is over


class Judge:
    """Looks at everything in the order of its steps; ``restarted`` after every rewind.

    Args:
        limits: see ``Thresholds``.
        physics: see ``Physics``.
        numbers: atomic numbers, (n,).
    """

    def __init__(self, limits: Thresholds, physics: Physics, numbers: np.ndarray) -> None:
        self.limits, self.physics, self.numbers = limits, physics, numbers
        self.largest, self.rms = Distribution(), Distribution()
        self.pair: Pair | None = None  # the last one
        self._window: deque[float] = deque(maxlen=limits.window)
        self._reference: float | None = None  # conserved quantity, eV
        self._usual = 0.0  # largest force of the teacher so far, eV/A
        self.restarted(0)

    def restarted(self, step: int) -> None:
        """i-PI starts (again) from a step."""
        self._energies: dict[str, float] = {}
        self._window.clear()
        self.sound_line = step
        self.sound_pair = step

    def line(self, step: int, columns: dict[str, float]) -> Verdict | None:
        """Judges a line: temperature, jumps of energies, drift (NVE)."""
        potential = columns.get("potential_eV", math.nan)
        conserved = columns.get("conserved_eV", math.nan)
        if potential == 0.0:  # forces without an energy: nothing is conserved
            conserved = 0.0
        found = (
            self._temperature(step, columns.get("temperature_K", math.nan))
            or self._jump(step, "potential", potential, self.limits.potential_jump_eV)
            or self._jump(step, "conserved", conserved, self.limits.conserved_jump_eV)
            or self._drift(step, conserved)
        )
        if found is None:
            self.sound_line = step
        return found

    def _temperature(self, step: int, kelvin: float) -> Verdict | None:
        low, high = self.limits.temperature_K
        if step < self.limits.equilibration_steps or not (kelvin < low or kelvin > high):
            return None
        text = (
            f"temperature {kelvin:.1f} K at step {step} is outside {low:.1f} to {high:.1f} K "
            f"({self.physics.temperature_K:g} K asked for, {self.physics.dof} degrees of freedom)"
        )
        return self._verdict("temperature", text, step, self.sound_line)

    def _jump(self, step: int, key: str, energy: float, limit_eV: float) -> Verdict | None:
        """A change between two lines that no fluctuation explains.

        A force that was wrong for one inner step shows in the conserved quantity, whichever
        model it came from: its work is in no potential energy.
        """
        before, self._energies[key] = self._energies.get(key), energy
        if before is None:
            return None
        if step < self.limits.equilibration_steps:
            if key == "potential":
                return None
            limit_eV *= EARLY
        change = energy - before
        if not abs(change) > limit_eV:
            return None
        text = (
            f"{key} energy jumped by {change:+.3f} eV between steps {self.sound_line} and "
            f"{step}; {limit_eV:.3f} eV are allowed"
        )
        return self._verdict("jump", text, step, self.sound_line)

    def _drift(self, step: int, energy: float) -> Verdict | None:
        if self.physics.ensemble != "nve" or not math.isfinite(energy):
            return None
        if self._reference is None:
            self._reference = energy
        drift = energy - self._reference
        if abs(drift) <= self.limits.drift_eV:
            return None
        text = (
            f"conserved energy has drifted by {drift:+.3f} eV at step {step}; "
            f"{self.limits.drift_eV:.3f} eV are allowed"
        )
        return self._verdict("drift", text, step, self.sound_line)

    def forces(self, pair: Pair, step: int) -> Verdict | None:
        """Judges both forces at one outer step: one atom, and the mean over the window."""
        d, self.pair = pair.difference, pair
        self.largest.add(d.largest)
        self.rms.add(d.rms)
        if not d.largest <= self.limits.difference_max_eV_per_A:
            return self._verdict("difference", self._where(pair, step), step, self.sound_pair)
        self._window.append(d.rms)
        mean = math.sqrt(sum(x * x for x in self._window) / len(self._window))
        if len(self._window) == self.limits.window and mean > self.limits.difference_rms_eV_per_A:
            text = (
                f"student and teacher differ by {mean:.3f} eV/A (RMS of {self.limits.window} outer "
                f"steps up to {step}); {self.limits.difference_rms_eV_per_A:.3f} are allowed"
            )
            return self._verdict("difference_rms", text, step, max(step - self.limits.window, 0))
        self.sound_pair = step
        return None

    def usual(self, force_eV_per_A: float) -> None:
        """Takes the largest force of the teacher at an outer step."""
        if math.isfinite(force_eV_per_A):
            self._usual = max(self._usual, force_eV_per_A)

    def spike(self, force_eV_per_A: float, atom: int, line: int) -> Verdict | None:
        """Judges the largest force of the student, between outer steps too, from the first on.

        Args:
            force_eV_per_A: of one atom.
            atom: from 0.
            line: step of the last line on disk.
        """
        limit = self.limits.force_spike_eV_per_A + SPIKE * self._usual
        if self._usual <= 0 or force_eV_per_A <= limit:
            return None
        step = max(line, self.sound_pair)
        text = (
            f"a force of the student is {force_eV_per_A:.1f} eV/A, on atom {atom} "
            f"({chemical_symbols[int(self.numbers[atom])]}), after step {step}; {limit:.1f} are "
            f"allowed, {self._usual:.1f} is the teacher's largest so far"
        )
        return self._verdict("spike", text, step, step)

    def _where(self, pair: Pair, step: int) -> str:
        d = pair.difference
        text = (
            f"student and teacher differ by {d.largest:.3f} eV/A on atom {d.atom} "
            f"({chemical_symbols[int(self.numbers[d.atom])]}"
        )
        if pair.positions_A is not None:
            text += " at {:.2f}, {:.2f}, {:.2f} A".format(*pair.positions_A[d.atom])
        return (
            f"{text}) at step {step}; {self.limits.difference_max_eV_per_A:.3f} are allowed, "
            f"{self.largest.quantile(0.5):.3f} is the median"
        )

    def _verdict(self, kind: str, text: str, step: int, sound: int) -> Verdict:
        sound = min(sound, step)
        return Verdict(kind, f"{text}; step {sound} was good", step, sound, "physics")
