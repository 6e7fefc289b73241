#!/usr/bin/env python3
"""Time and memory of a student against the number of atoms: exponent from 648 to 12,000 atoms.

    python benchmarks/scaling.py [--copies 1 2x2x2 ...] [--threads 2] [--limit 1.05]

Copies of the box of 216 waters fly straight, as at 300 K, so that lists are made anew as in a run.
Each size is a process of its own: memory is its peak, less that of a process with the model loaded
and nothing evaluated. Sizes take turns, the least of all rounds counts; the exponent is that of a
straight line through log(time) against log(atoms), sizes of 500 to 15,000 atoms. "list" is the
part of making lists anew. With one thread times are of the CPU, with several of the wall.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from common import save

BOX = Path(__file__).resolve().parents[1] / "ipi_inputs" / "water216.extxyz"
STEP_A = 0.0012  # rms displacement of an atom in 1 fs at 300 K is near this, per component


def peak_MB() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def child(student: str, copies: str, threads: int, budget_s: float) -> dict[str, float]:
    """Seconds of an evaluation, of which lists; evaluations; atoms; MB."""
    import torch

    from dmts_ipi.core.frames import read_frames
    from dmts_ipi.core.memory import keep_freed_memory
    from dmts_ipi.models.load import load_model
    from dmts_ipi.students.density.model import StudentModel

    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    keep_freed_memory()
    model = load_model(student)
    assert isinstance(model, StudentModel)
    frame = read_frames(BOX)[0]
    model.compute(frame.numbers[:3], frame.positions[:3], frame.cell, frame.pbc)
    empty = peak_MB()
    a, b, c = (int(x) for x in copies.split("x"))
    shifts = np.array([[i, j, k] for i in range(a) for j in range(b) for k in range(c)], float)
    x = (frame.positions + (shifts @ frame.cell)[:, None]).reshape(-1, 3)
    numbers, cell = np.tile(frame.numbers, len(shifts)), frame.cell * [[a], [b], [c]]
    v = np.random.default_rng(0).normal(size=x.shape) * STEP_A
    in_list = 0.0
    plain = model._list_pairs

    def listed(*arguments: np.ndarray) -> None:
        nonlocal in_list
        start = clock()
        plain(*arguments)
        in_list += clock() - start

    model._list_pairs = listed  # type: ignore[method-assign]
    model.compute(numbers, x, cell, frame.pbc)
    in_list, steps, rebuilds, start = 0.0, 0, model.rebuilds, clock()
    # whole spans from one list to the next, at least two
    while steps < 4 or clock() - start < budget_s or model.rebuilds < rebuilds + 2:
        steps += 1
        model.compute(numbers, x + steps * v, cell, frame.pbc)
        if model.rebuilds >= rebuilds + 2 and clock() - start > budget_s:
            break
    total = clock() - start
    return {
        "atoms": len(x),
        "seconds": total / steps,
        "list": in_list / steps,
        "evaluations": steps,
        "MB": peak_MB() - empty,
    }


def exponent(atoms: np.ndarray, seconds: np.ndarray) -> float:
    return float(np.polyfit(np.log(atoms), np.log(seconds), 1)[0])


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--student", default="water-student")
    p.add_argument("--copies", nargs="+", default=["1x1x1", "2x2x1", "2x2x2", "3x3x2", "5x5x6"])
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--budget-s", type=float, default=1.5, help="of one size in one round")
    p.add_argument("--limit", type=float, default=1.05)
    p.add_argument("--child", help=argparse.SUPPRESS)
    p.add_argument("--name", default="scaling")
    args = p.parse_args()
    if args.child:
        print(json.dumps(child(args.student, args.child, args.threads, args.budget_s)))
        return
    me = [sys.executable, "-W", "ignore", str(Path(__file__).resolve())]
    me += ["--student", args.student, "--threads", str(args.threads)]
    me += ["--budget-s", str(args.budget_s)]
    found: dict[str, list[dict[str, float]]] = {c: [] for c in args.copies}
    for k in range(args.rounds):
        for copies in args.copies if k % 2 == 0 else args.copies[::-1]:
            if k and found[copies][0]["atoms"] > 50_000:
                continue  # once is enough of these
            done = subprocess.run([*me, "--child", copies], stdout=subprocess.PIPE, check=True)
            found[copies].append(json.loads(done.stdout))
            print(f"# round {k + 1}: {found[copies][-1]}", file=sys.stderr, flush=True)
    best = [min(runs, key=lambda r: r["seconds"]) for runs in found.values()]
    rows = [
        f"{args.student}, threads {args.threads}, least of {args.rounds} rounds",
        f"{'atoms':>8s}{'ms':>10s}{'of which list':>15s}{'us/atom':>9s}{'MB':>8s}{'kB/atom':>9s}",
    ]
    for run in best:
        ms, per = 1e3 * run["seconds"], 1e6 * run["seconds"] / run["atoms"]
        rows.append(
            f"{run['atoms']:8.0f}{ms:10.2f}{1e3 * run['list']:15.2f}{per:9.2f}{run['MB']:8.0f}"
            f"{1024 * run['MB'] / run['atoms']:9.2f}"
        )
    used = [r for r in best if 500 <= r["atoms"] <= 15_000]
    if len(used) > 1:
        atoms, seconds = (np.array([r[key] for r in used]) for key in ("atoms", "seconds"))
        rows.append(
            f"exponent {atoms.min():.0f} to {atoms.max():.0f} atoms: "
            f"{exponent(atoms, seconds):.3f} (limit {args.limit}, aim 1.0)"
        )
    save(args.name, "\n".join(rows))


if __name__ == "__main__":
    main()
