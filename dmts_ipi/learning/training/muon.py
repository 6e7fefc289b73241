"""Muon in single precision.

``torch.optim.Muon`` does the same in bfloat16 and one matrix at a time: made for large matrices
on a GPU, it took a third of a training step of these small ones on a CPU. Here matrices of one
shape are orthogonalised together in float32. Also works before torch 2.9.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

# Quintic Newton-Schulz iteration, K. Jordan, kellerjordan.github.io/posts/muon.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
SMALLEST_NORM = 1e-7


def orthogonalise(update: Tensor) -> Tensor:
    """Nearly U V^T of each matrix U S V^T; (n, p, q) with p <= q."""
    a, b, c = COEFFICIENTS
    x = update / update.norm(dim=(-2, -1), keepdim=True).clamp(min=SMALLEST_NORM)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised, scaled so that a step has the RMS of an AdamW step.

    Nesterov momentum; decoupled weight decay; scale 0.2 sqrt(max(p, q)), arXiv:2502.16982.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            list(parameters), {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update of all parameters that have a gradient."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[tuple[nn.Parameter, Tensor]]] = {}
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(p)
                buffer = state["momentum_buffer"].lerp_(p.grad, 1.0 - group["momentum"])
                update = p.grad.lerp(buffer, group["momentum"])
                wide = update if update.shape[0] <= update.shape[1] else update.T
                by_shape.setdefault((wide.shape[0], wide.shape[1]), []).append((p, wide))
            for (_, long), members in by_shape.items():
                updates = orthogonalise(torch.stack([u for _, u in members]))
                rate = 0.2 * group["lr"] * long**0.5
                for (p, _), u in zip(members, updates, strict=True):
                    p.mul_(1.0 - group["lr"] * group["weight_decay"])
                    p.sub_(u.view_as(p) if u.shape == p.shape else u.T, alpha=rate)
