"""Optimisers: Muon for hidden matrices, AdamW for the rest; their state as plain tensors."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from .config import TrainConfig
from .muon import Muon

BETAS = (0.9, 0.99)
MUON_MOMENTUM = 0.95


def make_optimizers(
    student: nn.Module, config: TrainConfig, hidden_matrices: Collection[str]
) -> list[torch.optim.Optimizer]:
    """One or two optimisers; each group's ``peak`` is its largest learning rate.

    Args:
        student: the network.
        config: learning rates, weight decay, and whether Muon is wanted.
        hidden_matrices: names of the parameters that Muon updates.
    """
    named = [(n, p) for n, p in student.named_parameters() if p.requires_grad]
    hidden = [p for n, p in named if config.optimizer == "muon" and n in hidden_matrices]
    chosen = {id(p) for p in hidden}
    rest = [p for _, p in named if id(p) not in chosen]
    decay = config.weight_decay
    made: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(rest, lr=config.learning_rate, betas=BETAS, weight_decay=decay)
    ]
    if hidden:
        made.append(Muon(hidden, config.muon_learning_rate, MUON_MOMENTUM, decay))
    for optimizer in made:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return made


def rate(progress: float, step: int, config: TrainConfig) -> float:
    """Part of the peak learning rate: linear warm-up, then one cosine over ``progress`` 0..1.

    The warm-up of a short training takes a third of its steps at most.
    """
    steps = config.warmup_steps
    if config.steps is not None:
        steps = min(steps, config.steps // 3)
    warm = min(1.0, (step + 1) / max(steps, 1))
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))
    return warm * (config.final_rate + (1.0 - config.final_rate) * cosine)


def optimizer_tensors(optimizers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Their state, flat: ``opt{k}.{parameter}.{name}``."""
    tensors: dict[str, Tensor] = {}
    for k, optimizer in enumerate(optimizers):
        for index, state in optimizer.state_dict()["state"].items():
            for name, value in state.items():
                tensors[f"opt{k}.{index}.{name}"] = torch.as_tensor(value)
    return tensors


def restore_optimizers(
    optimizers: list[torch.optim.Optimizer], tensors: Mapping[str, Tensor]
) -> None:
    """The inverse of ``optimizer_tensors``."""
    for k, optimizer in enumerate(optimizers):
        full = optimizer.state_dict()
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            head, _, rest = key.partition(".")
            if head == f"opt{k}":
                index, _, name = rest.partition(".")
                state.setdefault(int(index), {})[name] = value
        full["state"] = state
        optimizer.load_state_dict(full)
