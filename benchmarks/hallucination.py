#!/usr/bin/env python3
"""A student that hallucinates, before and after: the active-learning loop of the watchdog.

    python benchmarks/hallucination.py                    # liquid water, some 15 CPU minutes

A deliberately narrow student is trained on a few frames at one temperature and then runs at a
higher one. Where it is wrong the watchdog rewinds, goes on with single time steps, and keeps the
frame with both forces (`rewinds.extxyz`). These frames, and a short burst of the teacher from each,
are added to the labels; a student trained on all of them runs the same run again, until a run
needs no rewind. Printed: a row for each student. Every step is a command of `dmts-ipi`; they are
shown as they run. `--work` is resumed where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import yaml

from common import dmts, save

HEAD = f"{'student':>8} {'frames':>7} {'RMSE':>7} {'allowed':>8} {'rewinds':>8} {'largest':>8}"
HEAD += f" {'sts ps':>7} {'T (K)':>13}  ended"


def command(*words: object, check: bool = True) -> None:
    """Shows a command of dmts-ipi and runs it."""
    print("$ dmts-ipi " + shlex.join(str(w) for w in words), file=sys.stderr, flush=True)
    dmts(*words, check=check)


def narrow_labels(args: argparse.Namespace, out: Path) -> None:
    """A few frames at the low temperature, none of them rattled or stretched."""
    if out.exists():
        return
    few = ("--rattle-every", 0, "--stretch-every", 0)
    few += ("--bursts", args.label_bursts, "--burst-frames", 16, "--burst-gap-fs", 50)
    command(
        *("label", "--teacher", args.teacher, "--structure", args.structure, "--out", out),
        *("--temperatures-K", args.low_K, "--burst-temperature-K", args.low_K),
        *("--time-ps", args.label_ps, "--every-fs", args.every_fs, "--seed", args.seed, *few),
    )


def more_labels(args: argparse.Namespace, kept: Path, out: Path) -> None:
    """A burst of the teacher from every frame that the watchdog kept."""
    if out.exists():
        return
    command(
        *("label", "--teacher", args.teacher, "--structure", f"{kept}@:", "--out", out),
        *("--time-ps", 0, "--equilibrate-ps", 0),
        *("--bursts", 1, "--burst-frames", args.burst_frames),
        *("--burst-temperature-K", args.high_K, "--seed", args.seed, "--rattle-every", 0),
        *("--stretch-every", 0, "--temperatures-K", args.high_K),
        *("--force-limit-eV-per-A", 100, "--shortest-A", 0.3),
    )


def train(args: argparse.Namespace, labels: list[Path], out: Path) -> None:
    """A student of all labels so far."""
    if (out / "model.json").exists():
        return
    command(
        *("distill", "--labels", *labels, "--teacher", args.teacher, "--out", out),
        *("--steps", args.steps, "--seed", args.seed, "--threads", args.threads),
        *("--heating-at-fs", args.n_inner, *(["--no-compile"] if args.no_compile else [])),
    )


def run(args: argparse.Namespace, student: Path, folder: Path) -> dict[str, Any]:
    """The run at the high temperature, under the watchdog; its summary."""
    if not folder.exists():
        command(
            *("init", folder, "--structure", args.structure, "--teacher", args.teacher),
            *("--student", student, "--temperature-K", args.high_K, "--n-inner", args.n_inner),
            *("--time-ps", args.time_ps, "--equilibration-ps", args.equilibration_ps),
            *("--checkpoints-every-fs", 60, "--keep-checkpoints", 12, "--seed", args.seed),
            *("--threads", args.threads, "--friction-per-ps", args.friction_per_ps),
        )
        file = folder / "run.yaml"
        config = yaml.safe_load(file.read_text())
        config["watchdog"] |= {"sts_ps": args.sts_ps, "guard_fs": 30.0, "rewinds_max": 500}
        config["watchdog"] |= {"rewinds_here_max": 20, "rewinds_window_max": 200}
        file.write_text(yaml.safe_dump(config, sort_keys=False))
    command("run", folder, check=False)  # a limit of rewinds is a result too
    return dict(json.loads((folder / "summary.json").read_text()))


def row(student: Path, folder: Path, frames: int, summary: dict[str, Any]) -> str:
    """One line of the table."""
    dog, record = summary["watchdog"], json.loads((student / "model.json").read_text())
    rmse = (record.get("errors") or {}).get("force_rmse_eV_per_A", float("nan"))
    status = json.loads((folder / "status.json").read_text())
    events = [json.loads(x) for x in (folder / "events.jsonl").read_text().splitlines()]
    from dmts_ipi.commands.status import sts_ps

    kelvin = "-"
    if summary["temperature_mean_K"] is not None:
        kelvin = (
            f"{summary['temperature_mean_K']:.0f} +- {summary['temperature_stderr_K'] or 0:.0f}"
        )
    largest = dog["difference_max_eV_per_A"]["largest"]
    return (
        f"{student.name:>8} {frames:7d} {rmse:7.3f} "
        f"{status['limits']['difference_max_eV_per_A']:8.2f} {dog['rewinds']:8d} "
        f"{float('inf') if largest is None else largest:8.2f} "
        f"{sts_ps(events, summary['outer_fs']):7.2f} {kelvin:>13}  {summary['exit'][:40]}"
    )


def count(files: list[Path]) -> int:
    """Frames in files of labels."""
    from ase.io import iread

    return sum(1 for file in files for _ in iread(file, ":"))


def main() -> int:
    """Rounds until a run needs no rewind; status 1 if the last one still did."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--work", type=Path, default=Path("work/hallucination"))
    p.add_argument("--structure", default="ipi_inputs/water64.extxyz")
    p.add_argument("--teacher", default="water-teacher")
    p.add_argument("--low-K", type=float, default=300.0, help="of the labels, K")
    p.add_argument("--high-K", type=float, default=450.0, help="of the run, K")
    p.add_argument("--label-ps", type=float, default=0.2)
    p.add_argument("--label-bursts", type=int, default=2)
    p.add_argument("--every-fs", type=float, default=20.0)
    p.add_argument("--steps", type=int, default=600, help="of each training")
    p.add_argument("--burst-frames", type=int, default=16, help="from each frame that was kept")
    p.add_argument("--time-ps", type=float, default=2.4)
    p.add_argument("--equilibration-ps", type=float, default=0.6)
    p.add_argument("--sts-ps", type=float, default=0.06, help="single time steps after a rewind")
    p.add_argument("--friction-per-ps", type=float, default=5.0)
    p.add_argument("--n-inner", type=int, default=6)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--no-compile", action="store_true", help="train without torch.compile")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--name", default="hallucination")
    args = p.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    labels = [args.work / "labels.extxyz"]
    narrow_labels(args, labels[0])
    rows, rewinds = [HEAD], 1
    for k in range(args.rounds):
        student, folder = args.work / f"student{k}", args.work / f"run{k}"
        train(args, labels, student)
        summary = run(args, student, folder)
        rows.append(row(student, folder, count(labels), summary))
        print("\n".join([HEAD, rows[-1]]), flush=True)
        rewinds = int(summary["watchdog"]["rewinds"])
        if not rewinds or k == args.rounds - 1:
            break
        if not (folder / "rewinds.extxyz").exists():
            print(f"{folder}: no frame was kept; see events.jsonl", file=sys.stderr)
            break
        bursts = args.work / f"bursts{k}.extxyz"
        more_labels(args, folder / "rewinds.extxyz", bursts)
        labels += [folder / "rewinds.extxyz", bursts]
    what = f"{args.teacher}, {args.structure}: labels at {args.low_K:g} K, run at {args.high_K:g} K"
    units = "forces in eV/A: RMSE on held-out labels; largest: teacher - student of one atom"
    save(args.name, "\n".join([what, units, *rows]))
    return 1 if rewinds else 0


if __name__ == "__main__":
    sys.exit(main())
