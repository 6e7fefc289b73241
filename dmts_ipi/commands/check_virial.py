"""Refuses NPT with a student whose virial makes DMTS sample another pressure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dmts_ipi.core.errors import InputError
from dmts_ipi.core.levels import comparisons
from dmts_ipi.core.model import ForceModel
from dmts_ipi.core.pressure import bulk_modulus_bar, pressure_shift_bar, virial_pressure_bar

LIMIT_BAR = 50.0


def check_virials(config: Any, atoms: Any, models: Mapping[str, ForceModel]) -> None:
    """Compares the virials of each pair of models that replace each other in some level.

    Args:
        config: ``RunConfig`` of an NPT run.
        atoms: ASE Atoms, the start structure.
        models: loaded, by name.

    Raises:
        InputError: the pressure that would be sampled is off by more than ``LIMIT_BAR``.
    """
    place = (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)
    levels = config.mts_levels
    steps = [level.steps for level in levels]
    for accurate, fast in comparisons(levels):
        slow, quick = (models[name].compute(*place).virial_eV for name in (accurate, fast))
        if slow is None or quick is None:
            continue
        cell = atoms.cell.array
        excess = virial_pressure_bar(quick, cell) - virial_pressure_bar(slow, cell)
        k = next(k for k, x in enumerate(levels) if {accurate, fast} <= set(x.forces))
        correction_fs = config.outer_fs / math.prod(steps[: k + 1])
        shift = pressure_shift_bar(
            excess,
            bulk_modulus_bar(models[accurate], *place),
            atoms.get_volume(),
            len(atoms),
            config.temperature_K,
            correction_fs,
            config.barostat_tau_fs,
        )
        if not abs(shift) > LIMIT_BAR:
            continue
        factor = math.sqrt(abs(shift) / LIMIT_BAR)
        outer = correction_fs / factor
        tau = config.barostat_tau_fs * factor
        raise InputError(
            f"{fast}: virial",
            f"{excess:+.0f} bar against the {accurate}",
            f"at steps of {correction_fs:g} fs the sampled pressure would be off by {shift:+.0f} "
            f"bar, {LIMIT_BAR:g} are allowed; train the virial (docs/student.md), take "
            f"{_smaller_step(config, correction_fs, outer)}--barostat-tau-fs "
            f"{math.ceil(tau / 100) * 100} or more, or nvt (docs/outer_step.md)",
        )


def _smaller_step(config: Any, now_fs: float, allowed_fs: float) -> str:
    """The option that makes the time between two corrections short enough; empty: there is none."""
    n = int(allowed_fs / config.inner_fs + 1e-9)
    if n >= 1 and len(config.levels) == 2:
        return f"--n-inner {n} or less ({n * config.inner_fs:g} fs), "
    if allowed_fs >= config.inner_fs:
        return f"corrections every {_down(allowed_fs)} fs or less in the place of {now_fs:g}, "
    return ""


def _down(fs: float) -> str:
    """Two digits, rounded down: the step that is named must hold."""
    digits = 1 - math.floor(math.log10(fs))
    return f"{math.floor(fs * 10**digits) / 10**digits:g}"
