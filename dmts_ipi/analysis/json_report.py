"""``report.json``: every figure of the page as data."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from dmts_ipi import __version__
from dmts_ipi.core.files import plain
from dmts_ipi.core.statistics import Estimate

from .compare import Comparison, speedup
from .measure import Measured


def _estimate(e: Estimate) -> dict[str, Any]:
    return {"mean": e.mean, "stderr": e.stderr, "inefficiency": e.inefficiency, "n": e.n}


def run_record(m: Measured, reference: Measured | None, arrays: bool) -> dict[str, Any]:
    """One run as a mapping; ``arrays`` adds the series behind the plots."""
    run = m.run
    found: dict[str, Any] = {
        "name": run.name,
        "path": str(run.path),
        "scheme": run.scheme,
        "mode": run.mode,
        "ensemble": run.ensemble,
        "formula": run.formula,
        "atoms": len(run.numbers),
        "inner_fs": run.inner_fs,
        "n_inner": run.n_inner,
        "ns_per_day": run.ns_per_day,
        "speedup": speedup(m, reference),
        "time_ps": float(m.time_ps[-1]),
        "skip_ps": m.skip_ps,
        "frames": m.frames_used,
        "degrees_of_freedom": m.degrees_of_freedom,
        "temperature_K": {k: _estimate(e) for k, e in m.kinetic.items()},
        "temperature_expected_K": m.expected,
        "temperature_expected_from": "forces" if m.expected_by_forces else "bonds",
        "temperature_law": {
            "stderr_K": m.temperature_test.stderr,
            "z_mean": m.temperature_test.z_mean,
            "p_value": m.temperature_test.p_value,
            "width_ratio": m.temperature_test.width_ratio,
        },
        "bonds": [
            {
                "kind": k.name,
                "bonds": k.bonds,
                "broken": k.broken,
                "length_A": k.length_A,
                "length_std_A": k.length_std_A,
                "period_fs": k.period_fs,
                "integrator_bias_K": run.temperature_K * k.bias_fraction * m.kinetic_bias,
            }
            for k in m.bond_kinds
        ],
        "potential_meV_per_atom": {
            **_estimate(m.potential),
            "std": m.potential_width.mean,
            "std_stderr": m.potential_width.stderr,
        },
        "relaxation_ps": m.relaxation_ps,
        "diffusion": [
            {
                "kind": d.kind,
                "molecules": d.molecules,
                "D_A2_per_ps": d.D_A2_per_ps.mean,
                "stderr_A2_per_ps": d.D_A2_per_ps.stderr,
                "fit_ps": d.fit_ps,
                "exponent": d.exponent,
                "finite_size_correction_at_1_mPa_s_A2_per_ps": d.correction_A2_per_ps,
            }
            for d in m.diffusion
        ],
        "spectra": [
            {
                "element": s.element,
                "frame_fs": s.frame_fs,
                "segments": s.segments,
                "resolution_THz": s.resolution_THz,
                "nyquist_THz": s.nyquist_THz,
                "peaks_THz": s.peaks_THz,
            }
            for s in m.spectra
        ],
        "foreign_peaks": [asdict(p) for p in m.foreign_peaks],
        "events": [asdict(e) for e in m.events],
        "drift_meV_per_atom_ps": _estimate(m.drift_meV_per_atom_ps),
        "heating_K": _estimate(m.heating_K),
        "configurational_K": (
            {k: _estimate(e) for k, e in m.configurational.temperature_K.items()}
            if m.configurational is not None
            else None
        ),
        "npt": {k: _estimate(e) for k, e in m.npt.items()},
        "first_peaks": {d.pair: asdict(d.peak) for d in m.distributions if d.peak is not None},
        "notes": m.notes,
    }
    if arrays:
        found["series"] = {
            "time_ps": m.time_ps,
            "temperature_K": m.temperature_K,
            "potential_meV_per_atom": m.potential_meV,
            "conserved_meV_per_atom": m.conserved_meV,
        }
        found["distributions"] = {
            d.pair: {"r_A": d.r_A, "g": d.g, "stderr": d.stderr, "periodic": d.periodic}
            for d in m.distributions
        }
        found["displacements"] = {
            d.kind: {"lag_ps": d.lag_ps, "msd_A2": d.msd_A2} for d in m.diffusion
        }
        found["velocity_spectra"] = {
            s.element: {
                "frequency_THz": s.frequency_THz,
                "density_K_per_THz": s.density_K_per_THz,
                "stderr_K_per_THz": s.stderr_K_per_THz,
            }
            for s in m.spectra
        }
        if m.differences is not None:
            found["differences"] = asdict(m.differences)
        found["settings"] = run.settings
        found["summary"] = run.summary
    return found


def report_record(
    measured: Sequence[Measured],
    reference: Measured | None,
    comparisons: Sequence[Comparison],
    arrays: bool = True,
) -> dict[str, Any]:
    """The whole report as a mapping that ``json.dumps(..., allow_nan=False)`` takes."""
    now = datetime.datetime.now(datetime.timezone.utc)
    return plain(
        {
            "schema": "dmts-ipi-report",
            "version": 1,
            "dmts_ipi": __version__,
            "created": now.isoformat(timespec="seconds"),
            "reference": reference.run.name if reference is not None else None,
            "runs": [run_record(m, reference, arrays) for m in measured],
            "comparisons": [asdict(c) for c in comparisons],
        }
    )
