"""The page's prose: how to read it, and what ran, with the commands to run it again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from dmts_ipi.core.units import KB_EV_PER_K

from .measure import Measured

TOLD = ("exit", "outer_steps", "machine", "sessions", "wall_s", "ns_per_day")


def swatch(m: Measured, colour: dict[str, str]) -> str:
    """The run's colour as a small square."""
    return f'<span class="swatch" style="background:{colour[m.run.name]}"></span>'


def reading(measured: Sequence[Measured]) -> str:
    """Error bars, the integrator's bias with this run's figures, drift."""
    biased = [(m, k) for m in measured for k in m.bond_kinds]
    lines = [
        "<details open><summary><strong>Error bars</strong></summary><p>Samples of a simulation "
        "are correlated: n of them count as n/g independent ones, g the statistical inefficiency "
        "(Chodera et al., JCTC 3, 26, 2007). There is no error bar below four independent "
        "samples. With Langevin friction γ the total energy relaxes at the rate γ, so no error of "
        "a mean temperature is taken below T √(2/(d γ t)), whatever a short run seems to say. "
        "Bands of g(r) come from consecutive blocks at least as long as g.</p></details>"
    ]
    if biased:
        m, k = biased[0]
        reads = m.run.temperature_K * (1 - k.bias_fraction)
        lines.append(
            "<details open><summary><strong>Why bonds may read below the thermostat</strong>"
            "</summary><p>With the thermostat in the middle of the drift (BAOAB), the kinetic "
            "temperature of a harmonic mode reads T (1 − (ω Δt)²/4), Δt the inner step, "
            "while its positions are exact. "
            f"Here the {k.name.replace('-', '–')} stretch, of period {k.period_fs:.1f} fs as "
            f"measured in {escape(m.run.name)}, would read {reads:.0f} K of "
            f"{m.run.temperature_K:g} K at {m.run.inner_fs:g} fs. That is no cooling, and bonds at "
            f"{m.run.temperature_K:g} K would mean heating. Stock i-PI applies the thermostat once "
            "per outer step; where that falls between two inner steps (even number of inner "
            "steps), the kinetic temperature is right instead and bonds are too soft by the same "
            "factor. “Expected” on this page takes the case of each run into account: "
            + "; ".join(f"{escape(x.run.label)}: {x.expected[y.name]:.0f} K" for x, y in biased[:6])
            + ". A student whose stretch is off by 1 % in stiffness shifts the bonds' reading by "
            "several kelvin more at 1–6 fs, again without heating: heating widens the distribution "
            "of the bond length by as much as that of the velocities.</p></details>"
        )
    one_K = 3 * KB_EV_PER_K * 1000
    lines.append(
        "<details open><summary><strong>Drift and heating</strong></summary><p>The conserved "
        "quantity counts the energy that the integrator adds to the system. "
        f"{one_K:.2f} meV/atom/ps would heat an uncoupled harmonic system by 1 K/ps; in NVT the "
        "thermostat takes it out again, and bonds show it first.</p></details>"
    )
    return "".join(lines)


def _flat(settings: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found = []
    for key, value in settings.items():
        if isinstance(value, dict):
            found += _flat(value, f"{prefix}{key} ")
        elif value not in (None, ""):
            found.append(
                (f"{prefix}{key}", f"{value:g}" if isinstance(value, float) else str(value))
            )
    return found


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


def what_ran(m: Measured, colour: dict[str, str]) -> str:
    """Settings, versions and commands of one run."""
    key = "c" + "".join(ch if ch.isalnum() else "-" for ch in m.run.name)
    pairs = [
        ("folder", str(m.run.path)),
        ("masses, amu", _masses(m)),
        *_flat(m.run.settings),
        *((k, v) for k, v in _flat(m.run.summary) if k in TOLD),
    ]
    rows = "".join(f"<dt>{escape(k.replace('_', ' '))}</dt><dd>{escape(v)}</dd>" for k, v in pairs)
    return (
        f"<details><summary>{swatch(m, colour)}<strong>{escape(m.run.name)}</strong> "
        f"({escape(m.run.scheme)})</summary><dl>{rows}</dl>"
        f'<pre id="{key}">{escape(commands(m))}</pre>'
        f'<button type="button" data-copy="{key}">Copy commands</button>'
        f"{_input(m, key)}</details>"
    )


def _input(m: Measured, key: str) -> str:
    """i-PI's input, as it ran."""
    try:
        text = (m.run.path / "input.xml").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return (
        f'<details><summary>input.xml</summary><pre id="{key}-xml">{escape(text)}</pre>'
        f'<button type="button" data-copy="{key}-xml">Copy input.xml</button></details>'
    )


def _masses(m: Measured) -> str:
    from ase.data import chemical_symbols

    found = []
    for z in sorted(set(int(x) for x in m.run.numbers), reverse=True):
        of = m.run.masses_amu[m.run.numbers == z]
        low, high = float(of.min()), float(of.max())
        span = f"{low:.3f}" if np.isclose(low, high) else f"{low:.3f} to {high:.3f}"
        found.append(f"{chemical_symbols[z]} {span}")
    return ", ".join(found)
