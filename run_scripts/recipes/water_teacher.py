#!/usr/bin/env python3
"""Trains `water-teacher`: MACE on 64-molecule PBE0+TS liquid water frames.

Data: DeePMD-kit's water example (LGPL-3.0), as `water64_pbe0ts_train.npz` (see docs/models.md).
Resumable: killed and started again with the same options it goes on from the last epoch.

    python run_scripts/recipes/water_teacher.py --data ../shared/data/water64_pbe0ts_train.npz \\
        --out work/water-teacher --epochs 36
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path

import numpy as np
import torch
from water_frames import split

from dmts_ipi.core.neighbours import neighbour_pairs
from dmts_ipi.models.mace_model import build_mace, mace_graph, save_mace


def parse() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--data", type=Path, required=True, help="npz of frames (eV, Angstrom)")
    p.add_argument("--out", type=Path, required=True, help="folder for state and model")
    p.add_argument("--epochs", type=int, default=36)
    p.add_argument("--hidden", default="32x0e + 32x1o", help="hidden irreps")
    p.add_argument("--r-max-A", type=float, default=4.5)
    p.add_argument("--correlation", type=int, default=2)
    p.add_argument("--max-ell", type=int, default=2)
    p.add_argument("--lr", type=float, default=0.01)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--device", default="cpu")
    p.add_argument("--threads", type=int, default=1)
    return p.parse_args()


def main() -> None:
    args = parse()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    data = np.load(args.data)
    numbers = data["numbers"]
    train, held = split(len(data["energy"]))
    elements = [1, 8]
    per_atom_eV = float(data["energy"][train].mean() / len(numbers))
    pairs = [
        neighbour_pairs(x, c, True, args.r_max_A)
        for x, c in zip(data["positions"], data["cell"], strict=True)
    ]
    architecture = {
        "hidden_irreps": args.hidden,
        "mlp_irreps": "16x0e",
        "r_max_A": args.r_max_A,
        "max_ell": args.max_ell,
        "correlation": args.correlation,
        "num_interactions": 2,
        "num_bessel": 8,
        "num_polynomial_cutoff": 6,
        "radial_mlp": [64, 64, 64],
        "elements": elements,
        "atomic_energies_eV": [per_atom_eV, per_atom_eV],
        "avg_num_neighbors": float(np.mean([len(p.i) for p in pairs]) / len(numbers)),
        "scale_eV": float(np.sqrt((data["forces"][train] ** 2).mean())),
        "shift_eV": 0.0,
    }
    model = build_mace(architecture).to(args.device)
    ema = build_mace(architecture).to(args.device)
    ema.load_state_dict(model.state_dict())
    graphs = [
        mace_graph(numbers, x, c, p, elements, torch.float32, args.device)
        for x, c, p in zip(data["positions"], data["cell"], pairs, strict=True)
    ]
    e0 = per_atom_eV * len(numbers)
    energy = torch.tensor(data["energy"] - e0, dtype=torch.float32, device=args.device)
    forces = torch.tensor(data["forces"], dtype=torch.float32, device=args.device)
    optimiser = torch.optim.Adam(model.parameters(), lr=args.lr, amsgrad=True)
    steps = args.epochs * len(train)

    def rate(step: int) -> float:
        warm = min(1.0, (step + 1) / 200)
        return float(warm * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * min(step / steps, 1.0)))))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    args.out.mkdir(parents=True, exist_ok=True)
    state_file, first, history = args.out / "state.pt", 0, []
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        ema.load_state_dict(state["ema"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        first, history = state["epoch"], state["history"]

    def validate(frames: np.ndarray) -> tuple[float, float, float]:
        absolute = square = e_abs = 0.0
        for k in frames:
            out = ema(dict(graphs[k]), training=False)
            d = out["forces"].detach() - forces[k]
            absolute += float(d.abs().mean())
            square += float((d**2).mean())
            e_abs += abs(float(out["interaction_energy"].detach()[0] - energy[k])) / len(numbers)
        n = len(frames)
        return absolute / n, (square / n) ** 0.5, e_abs / n

    started = time.time()
    for epoch in range(first, args.epochs):
        shuffled = np.random.default_rng([args.seed, epoch]).permutation(train)
        total = 0.0
        for k in shuffled:
            out = model(dict(graphs[k]), training=True)
            miss = out["forces"] - forces[k]
            loss_f = torch.sqrt((miss**2).sum(-1) + 1e-4).mean()
            loss_e = (out["interaction_energy"][0] - energy[k]).abs() / len(numbers)
            loss = loss_f + loss_e
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
            optimiser.step()
            schedule.step()
            total += float(loss_f.detach())
            with torch.no_grad():
                done = schedule.last_epoch
                keep = min(0.998, (1 + done) / (10 + done))
                for a, b in zip(ema.parameters(), model.parameters(), strict=True):
                    a.lerp_(b, 1 - keep)
        mae, rmse, e_mae = validate(held)
        history.append([epoch + 1, total / len(train), mae, rmse, e_mae])
        left = (time.time() - started) / (epoch + 1 - first) * (args.epochs - epoch - 1)
        print(
            f"epoch {epoch + 1}/{args.epochs}  train |dF| {1e3 * total / len(train):.1f}  held-out "
            f"MAE {1e3 * mae:.2f} RMSE {1e3 * rmse:.2f} meV/A  energy {1e3 * e_mae:.3f} meV/atom  "
            f"left {left / 60:.0f} min",
            flush=True,
        )
        torch.save(
            {
                "model": model.state_dict(),
                "ema": ema.state_dict(),
                "optimiser": optimiser.state_dict(),
                "schedule": schedule.state_dict(),
                "epoch": epoch + 1,
                "history": history,
            },
            state_file.with_suffix(".tmp"),
        )
        state_file.with_suffix(".tmp").replace(state_file)
        card = {
            "name": "water-teacher",
            "trained_on": "PBE0+TS liquid water, 64 molecules (DeePMD-kit example, LGPL-3.0)",
            "data_sha256": hashlib.sha256(args.data.read_bytes()).hexdigest(),
            "frames_trained": len(train),
            "frames_held_out": len(held),
            "epochs": epoch + 1,
            "options": {k: str(v) for k, v in vars(args).items() if k not in ("data", "out")},
            "held_out": {
                "force_mae_eV_per_A": mae,
                "force_rmse_eV_per_A": rmse,
                "energy_mae_eV_per_atom": e_mae,
            },
        }
        save_mace(args.out / "model", ema, architecture, card)
    (args.out / "history.json").write_text(json.dumps(history))


if __name__ == "__main__":
    main()
