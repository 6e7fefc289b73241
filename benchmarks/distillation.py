#!/usr/bin/env python3
"""How long a student takes to train: the error on held-out frames against the time.

    python benchmarks/distillation.py --labels work/student/{dft,teacher,samples,cells}.extxyz

The labels are those of `run_scripts/recipes/water_student.sh`. Each row is a training of its own,
for its learning rate falls to nothing at its end: what is reached in 4 minutes is not what a longer
one has after 4. Validation counts as training; compilation and reading of labels are beside.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from common import dmts, save


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--labels", nargs="+", type=Path, required=True)
    p.add_argument("--teacher", default="water-teacher")
    p.add_argument("--minutes", nargs="+", type=float, default=[1, 2, 4, 8])
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--name", default="distillation")
    p.add_argument("--options", nargs="*", default=[], help="of distill, such as --no-compile")
    args = p.parse_args()
    rows = [
        f"threads {args.threads}, seed {args.seed} {' '.join(args.options)}".strip(),
        " minutes  steps  steps/s  MAE, meV/A  RMSE  heating at 6 fs, K/ps  beside, s",
    ]
    with tempfile.TemporaryDirectory() as scratch:
        for k, minutes in enumerate(args.minutes):
            out, begin = Path(scratch) / f"student{k}", time.monotonic()
            words = ["--labels", *args.labels, "--teacher", args.teacher, "--out", out]
            words += ["--minutes", minutes, "--seed", args.seed, "--threads", args.threads]
            dmts("distill", *words, *args.options)
            beside = time.monotonic() - begin - 60 * minutes
            record = json.loads((out / "model.json").read_text())
            mae, rmse, heating = list(record["errors"].values())
            step = record["training"]["step"]
            rows.append(
                f"{minutes:8g} {step:6d} {step / 60 / minutes:8.1f} {1000 * mae:11.1f} "
                f"{1000 * rmse:5.1f} {heating:25.2f} {beside:10.0f}"
            )
    save(args.name, "\n".join(rows))


if __name__ == "__main__":
    main()
