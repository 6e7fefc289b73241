"""``dmts-ipi evaluate``: errors, predicted heating and smoothness of a model."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from dmts_ipi.core.errors import InputError

from .label_options import add_label_options, label_format


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("--model", required=True, help="name, folder, or mace:|fennol:|ase: spec")
    parser.add_argument("--labels", type=Path, nargs="+", help="labelled frames, extended XYZ")
    add_label_options(parser)
    parser.add_argument(
        "--outer-fs",
        type=float,
        nargs="+",
        default=[3, 4, 5, 6, 7, 8, 10],
        help="outer steps of the predicted heating, fs (labels need bursts)",
    )
    parser.add_argument(
        "--teacher-smoothness",
        type=Path,
        metavar="STRUCTURE",
        help="also measure how smooth the model is along the X-H bonds of this structure",
    )
    parser.add_argument(
        "--plot", type=Path, help="write a PNG: force parity, predicted heating, smoothness"
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument(
        "--device", default="auto", help="auto (the GPU if there is one), cpu, cuda or cuda:N"
    )
    parser.add_argument(
        "--dtype", choices=["float32", "float64"], help="precision (default: the model's own)"
    )


def run(args: argparse.Namespace) -> int:
    """Prints a table, or JSON."""
    from dmts_ipi.core.label_files import read_labels
    from dmts_ipi.core.structure import read_structure
    from dmts_ipi.learning import evaluate as ev
    from dmts_ipi.learning import smoothness
    from dmts_ipi.learning.error_warning import warning_of_figures
    from dmts_ipi.models.devices import resolve_device
    from dmts_ipi.models.load import load_model

    if not args.labels and not args.teacher_smoothness:
        raise InputError("labels", "", "give --labels FILE, or --teacher-smoothness STRUCTURE")
    wrong = [d for d in args.outer_fs if not 0 < d < math.inf]
    if wrong:
        raise InputError("outer_fs", wrong[0], "must be positive, in fs")
    if args.plot is not None and not args.plot.resolve().parent.is_dir():
        raise InputError("plot", args.plot, "its folder does not exist")
    form = label_format(args)
    files = [read_labels(path, form) for path in args.labels or []]
    start = None
    if args.teacher_smoothness:
        start = read_structure(args.teacher_smoothness, field="teacher_smoothness")
    device = resolve_device(args.device)
    model = load_model(args.model, device=device, dtype=args.dtype)

    def report(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    figures: dict[str, Any] = {"model": model.name, "identity": model.identity}
    figures["device"] = device
    evaluation = measured = None
    if files:
        evaluation = ev.evaluate(model, files, args.outer_fs, report=report)
        figures.update(evaluation.as_dict())
        figures["warning"] = warning_of_figures(figures)
        if figures["warning"]:
            report(f"warning: {figures['warning']}")
    if start is not None:
        measured = smoothness.measure(model, start, report=report)
        figures["smoothness"] = measured.as_dict()
    if args.plot is not None:
        from dmts_ipi.learning.evaluate_plot import plot

        plot(args.plot, model.name, evaluation, measured)
    if args.json:
        print(json.dumps(figures))
        return 0
    if evaluation is not None:
        print("\n".join(table(model.name, figures)))
    if measured is not None:
        print("\n".join(smoothness_table(measured)))
    if args.plot is not None:
        print(f"plot: {args.plot}")
    return 0


def table(name: str, figures: dict[str, Any]) -> list[str]:
    """The figures of ``Evaluation.as_dict`` for people, in meV/A."""
    lines = [
        f"{name}: {figures['n_frames']} frames, {figures['ms_per_frame']:.1f} ms each "
        f"on {figures['device']}",
        f"{'meV/A':24s}{'MAE':>8s}{'RMSE':>8s}{'of':>8s}",
    ]

    def row(title: str, e: dict[str, Any] | None) -> None:
        if e is not None:
            mae, rmse, of = (
                1e3 * e[k] for k in ("mae_eV_per_A", "rmse_eV_per_A", "reference_rms_eV_per_A")
            )
            lines.append(f"{title:24s}{mae:8.1f}{rmse:8.1f}{of:8.0f}")

    total = {
        "mae_eV_per_A": figures["force_mae_eV_per_A"],
        "rmse_eV_per_A": figures["force_rmse_eV_per_A"],
        "reference_rms_eV_per_A": figures["force_reference_rms_eV_per_A"],
    }
    row("all components", total)
    for symbol, e in figures["by_element"].items():
        row("  " + symbol, e)
    row("H along X-H bonds", figures["along_XH_bonds"])
    row("H across X-H bonds", figures["across_XH_bonds"])
    row("net force of molecules", figures["net_force_of_molecules"])
    if "energy_mae_eV_per_atom" in figures:
        lines.append(
            f"energy MAE {1e3 * figures['energy_mae_eV_per_atom']:.3f} meV/atom "
            f"({1e3 * figures['energy_mae_without_offset_eV_per_atom']:.3f} without its offset)"
        )
    for w in figures["worst_atoms"][:3]:
        error = f"{w['element']} off by {1e3 * w['error_eV_per_A']:.0f} meV/A"
        lines.append(f"worst: frame {w['frame']} atom {w['atom']} {error} ({w['source']})")
    heating = figures["predicted_heating_K_per_ps"]
    if heating is None:
        lines.append("no bursts in the labels: no predicted heating (dmts-ipi label --bursts 4)")
        return lines
    lines.append(f"predicted heating, K/ps, {figures['n_bursts']} bursts")
    lines.append(f"{'outer step, fs':16s}" + "".join(f"{d:>9s}" for d in heating))
    rows = {"total": heating, "standard error": figures["predicted_heating_stderr_K_per_ps"]}
    rows |= figures["predicted_heating_by_motion_K_per_ps"]
    lines += [_row(title, values) for title, values in rows.items()]
    for kind, of in figures["student_stretches"].items():
        error = "" if of["stderr"] is None else f" +- {100 * of['stderr']:.2f}"
        lines.append(
            f"{kind} stretches, period {of['period_fs']:.1f} fs: student stiffer by "
            f"{100 * of['student_stiffer']:.2f}{error} %, which shifts their temperature, K "
            "(docs/heating.md)"
        )
        lines.append(_row("shift", of["shift_K"]))
        lines.append(_row("standard error", of["shift_stderr_K"]))
    return lines


def _row(title: str, values: dict[str, float | None]) -> str:
    cells = ["-" if v is None else two_digits(v) for v in values.values()]
    return f"{title:16s}" + "".join(f"{c:>9s}" for c in cells)


def two_digits(value: float) -> str:
    """Two significant digits; whole numbers from 100 on."""
    return f"{value:.0f}" if abs(value) >= 99.5 else f"{value:.2g}"


def smoothness_table(measured: Any) -> list[str]:
    """The three figures of ``learning.smoothness`` with a verdict."""
    verdict = (
        "smooth: the student and the outer step decide"
        if measured.smooth
        else "rough: it heats MTS runs whatever the student; keep the outer step at 3-4 fs"
    )
    scan = measured.scan
    k = scan.stiffness_eV_per_A2
    return [
        f"polynomial of degree 5 over 6 fs leaves {measured.polynomial_residual_eV_per_A:.2g} eV/A"
        f" of the forces ({verdict})",
        f"stiffness of bond {scan.atoms[0]}-{scan.atoms[1]}: {k.min():.1f} to {k.max():.1f} "
        f"eV/A^2 over {scan.r_A[0]:.2f}-{scan.r_A[-1]:.2f} A, roughness "
        f"{scan.roughness_eV_per_A2:.2g}, largest jump within 0.02 A "
        f"{scan.largest_jump_eV_per_A2:.2g} eV/A^2",
        f"spectrum of the stretch force falls as f^-{measured.spectrum.slope:.1f}",
    ]
