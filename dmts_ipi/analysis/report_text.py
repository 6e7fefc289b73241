"""What the page says of a run beside its figures: settings, masses, commands, its bonds' bias."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import numpy as np

from .formatting import with_dash
from .measure import Measured
from .observables.temperature import TEMPERATURE

SUMMARY_KEYS = ("exit", "outer_steps", "machine", "sessions", "wall_s", "ns_per_day")
MOST_EXPECTED = 6


def stretch(measured: Sequence[Measured]) -> dict[str, Any] | None:
    """Figures of the first run's X-H stretch for the page's explanation; None without bonds."""
    stretches = [(m, t, k) for m, t in TEMPERATURE.shown(measured) for k in t.bond_kinds]
    if not stretches:
        return None
    m, _, k = stretches[0]
    run = m.run
    return {
        "kind": with_dash(k.name),
        "period": f"{k.period_fs:.1f}",
        "run": run.name,
        "reads": f"{run.temperature_K * (1 - k.bias_fraction):.0f}",
        "temperature": f"{run.temperature_K:g}",
        "inner": f"{run.inner_fs:g}",
        "expected": [
            f"{m.run.label}: {t.expected[k.name]:.0f} K" for m, t, k in stretches[:MOST_EXPECTED]
        ],
    }


def _flat(settings: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    pairs = []
    for key, value in settings.items():
        if isinstance(value, dict):
            pairs += _flat(value, f"{prefix}{key} ")
        elif value not in (None, ""):
            pairs.append(
                (f"{prefix}{key}", f"{value:g}" if isinstance(value, float) else str(value))
            )
    return pairs


def commands(m: Measured) -> str:
    """The commands that make and run this run again, from its ``input.xml`` and ``run.yaml``."""
    run = m.run
    structure = str(run.path / "structure.extxyz")
    init = ["dmts-ipi", "init", "again", "--structure", structure, *run.init_words]
    lines = [shlex.join(init)]
    if run.not_analysed:
        copied = shlex.join(["cp", str(run.path / "input.xml"), "again/input.xml"])
        lines.append(f"{copied}  # init has no option for: {', '.join(run.not_analysed)}")
    return "\n".join([*lines, "dmts-ipi run again"])


def what_ran(m: Measured) -> dict[str, Any]:
    """Settings, versions, commands and ``input.xml`` of one run, for the page."""
    run = m.run
    settings = [("folder", str(run.path)), ("masses, amu", _masses(m))]
    settings += [(f"device of {model}", device) for model, device in run.devices.items()]
    if run.not_analysed:
        settings.append(("not analysed in input.xml", ", ".join(run.not_analysed)))
    settings += _flat(run.settings)
    settings += [(k, v) for k, v in _flat(run.summary) if k in SUMMARY_KEYS]
    return {
        "name": run.name,
        "scheme": run.scheme,
        "key": "c" + "".join(ch if ch.isalnum() else "-" for ch in run.name),
        "settings": [(key.replace("_", " "), value) for key, value in settings],
        "commands": commands(m),
        "input": _input(m),
    }


def _input(m: Measured) -> str:
    """i-PI's input, as it ran."""
    try:
        return (m.run.path / "input.xml").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _masses(m: Measured) -> str:
    from ase.data import chemical_symbols

    spans = []
    for z in sorted(set(int(x) for x in m.run.numbers), reverse=True):
        of = m.run.masses_amu[m.run.numbers == z]
        low, high = float(of.min()), float(of.max())
        span = f"{low:.3f}" if np.isclose(low, high) else f"{low:.3f} to {high:.3f}"
        spans.append(f"{chemical_symbols[z]} {span}")
    return ", ".join(spans)
