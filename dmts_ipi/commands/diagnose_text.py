"""The figures of ``dmts-ipi diagnose`` as a table, and what they say of the outer step."""

from __future__ import annotations

import math
from typing import Any

from dmts_ipi.analysis.nonconservativity import PUBLISHED_LAMBDA, PUBLISHED_LOOP_MEV

MISSING = "–"


def table(figures: dict[str, dict[str, Any]], outer_fs: float) -> list[str]:
    """Side by side; – where a figure was not measured."""
    names = [f["name"] for f in figures.values()]
    width = max(12, *(len(n) + 2 for n in names))
    first = next(iter(figures.values()))
    base = first.get("stretch_stiffness_eV_per_A2")
    rows: list[tuple[str, list[str]]] = []

    def row(title: str, pick: Any) -> None:
        cells = []
        for f in figures.values():
            try:
                cells.append(pick(f))
            except (KeyError, TypeError):
                cells.append(MISSING)
        if any(c != MISSING for c in cells):
            rows.append((title, cells))

    row("forces are a gradient", lambda f: "yes" if f["conservative"] else "no")
    row("Jacobian asymmetry lambda", lambda f: _small(f["jacobian"]["lambda_"]))
    row("  of which the finite step, at most", lambda f: _small(f["jacobian"]["error"]))
    row("  within single atoms", lambda f: _small(f["jacobian"]["onsite"]))
    for k, (low, high, *_) in enumerate(first["jacobian"]["profile"]):
        row(f"  pairs {low:g}-{high:g} A", lambda f, k=k: _small(f["jacobian"]["profile"][k][4]))
    row("work of a closed loop, rms, meV", lambda f: _small(f["loop_work_rms_meV"]))
    row("net force of the system, eV/A", lambda f: _small(f["net"]["system_eV_per_A"]))
    row("net force of a molecule alone, eV/A", lambda f: _small(f["net"]["alone_eV_per_A"]))
    row("torque of a molecule alone, eV", lambda f: _small(f["net"]["torque_alone_eV"]))
    row("optimisation: steps (or force left)", _optimised)
    row("NVE: heating from T, K/ps", lambda f: _error(f["nve"], "heating"))
    row("NVE: drift of the energy, K/ps", lambda f: _error(f["nve"], "drift"))
    for key in ("weak", "strong"):
        part = f"thermostat_{key}"
        row(f"{key} thermostat: T, K", lambda f, p=part: f"{f[p]['temperature_K']:.1f}")
        for z in first.get(part, {}).get("by_element_K", {}):
            row(f"  {z}", lambda f, p=part, z=z: f"{f[p]['by_element_K'][z]:.1f}")
        for b in first.get(part, {}).get("bonds_K", {}):
            row(f"  {b} bonds", lambda f, p=part, b=b: f"{f[p]['bonds_K'][b]:.1f}")
    row("X-H stiffness, eV/A^2", lambda f: f"{f['stretch_stiffness_eV_per_A2']:.2f}")
    if base:
        row(
            "  against the first model, %",
            lambda f: f"{100 * (f['stretch_stiffness_eV_per_A2'] / base - 1):+.2f}",
        )
    row("  roughness, eV/A^2", lambda f: _small(f["stretch_roughness_eV_per_A2"]))
    row(
        "force MAE on the labels, meV/A", lambda f: f"{1e3 * f['labels']['force_mae_eV_per_A']:.1f}"
    )
    row(f"predicted heating at {outer_fs:g} fs, K/ps", lambda f: _small(_heating(f, outer_fs)))
    for motion in ("translation", "rotation", "stretch", "bend"):
        row(
            f"  {motion}",
            lambda f, m=motion: _small(
                f["labels"]["predicted_heating_by_motion_K_per_ps"][m][f"{outer_fs:g}"]
            ),
        )
    lines = [" " * 40 + "".join(f"{n:>{width}s}" for n in names)]
    lines += [f"{title:40s}" + "".join(f"{c:>{width}s}" for c in cells) for title, cells in rows]
    others = published()
    text = ", ".join(f"{k} {v}" for k, v in others["jacobian_asymmetry_lambda"].items())
    lines.append(f"published lambda, liquid water ({others['source']}): {text}")
    text = ", ".join(f"{k} {v}" for k, v in others["loop_work_meV"].items())
    lines.append(f"published work of a loop (another path), meV: {text}")
    return lines


def _small(value: float) -> str:
    return f"{value:.2g}" if math.isfinite(value) else MISSING


def _error(part: dict[str, Any], key: str) -> str:
    if "blew_up_after_ps" in part:
        return f"blew up {part['blew_up_after_ps']:.2f} ps"
    mean, stderr = part[f"{key}_K_per_ps"], part[f"{key}_stderr_K_per_ps"]
    return f"{mean:.2g}" + (f" +- {stderr:.1g}" if math.isfinite(stderr) else "")


def _optimised(f: dict[str, Any]) -> str:
    o = f["optimisation"]
    return str(o["steps"]) if o["converged"] else f"no ({o['lowest_fmax_eV_per_A']:.2g})"


def _heating(f: dict[str, Any], outer_fs: float) -> float:
    return float(f["labels"]["predicted_heating_K_per_ps"][f"{outer_fs:g}"])


def published() -> dict[str, Any]:
    """What was published for other models in liquid water."""
    return {
        "source": "Bigi et al., ICML 2025",
        "jacobian_asymmetry_lambda": PUBLISHED_LAMBDA,
        "loop_work_meV": PUBLISHED_LOOP_MEV,
    }


def verdict_of(figures: dict[str, dict[str, Any]], outer_fs: float) -> str:
    """Whether teacher or student limits the outer step, as far as it was measured."""
    first, *others = figures.values()
    smooth = first.get("smoothness", {}).get("smooth")
    if smooth is False:
        return f"{first['name']} is rough along its bonds: it limits the outer step, not a student"
    said = f"{first['name']} is smooth: a student limits the outer step. " if smooth else ""
    rated = []
    for f in others:
        heating = (f.get("labels") or {}).get("predicted_heating_K_per_ps")
        if heating:
            p = heating[f"{outer_fs:g}"]
            word = "holds" if p <= 2 else "is at the limit" if p <= 5 else "heats"
            rated.append(f"{f['name']} {word} at {outer_fs:g} fs ({p:.2g} K/ps predicted)")
    if rated:
        return said + "; ".join(rated)
    return said + "No labelled bursts: give --labels for the predicted heating"
