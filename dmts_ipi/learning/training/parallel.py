"""Several processes under ``torchrun``: each takes its own batch, gradients are averaged."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, nn

LONGEST_WAIT = timedelta(minutes=10)


@dataclass(frozen=True)
class Workers:
    """This process among those that train together; one alone by default."""

    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process validates, writes and reports."""
        return self.rank == 0

    def average_gradients(
        self, parameters: Iterable[nn.Parameter], done: float, loss: Tensor
    ) -> tuple[float, Tensor]:
        """Averages gradients and loss in place over processes; returns process 0's progress."""
        if self.world == 1:
            return done, loss
        used = [p for p in parameters if p.grad is not None]
        flat = torch.cat([p.grad.reshape(-1) for p in used if p.grad is not None] + [loss.view(1)])
        torch.distributed.all_reduce(flat)
        flat /= self.world
        start = 0
        for p in used:
            assert p.grad is not None
            p.grad.copy_(flat[start : start + p.numel()].view_as(p))
            start += p.numel()
        return float(self._from_leader(done)), flat[-1]

    def _from_leader(self, value: float) -> float:
        t = torch.tensor([value], dtype=torch.float64, device=self._device())
        torch.distributed.broadcast(t, 0)
        return float(t)

    @staticmethod
    def _device() -> str:
        return "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"

    def agree(self, decision: bool) -> bool:
        """Process 0's decision, in all of them."""
        return decision if self.world == 1 else bool(self._from_leader(float(decision)))


def join_workers(device: str) -> tuple[Workers, str]:
    """Reads torchrun's environment; returns this worker and its device."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Workers(), device
    backend = "nccl" if device.startswith("cuda") else "gloo"
    if device.startswith("cuda"):
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    torch.distributed.init_process_group(backend, timeout=LONGEST_WAIT)
    return Workers(int(os.environ["RANK"]), world), device


def leave_workers(workers: Workers) -> None:
    """Ends the process group."""
    if workers.world > 1:
        torch.distributed.destroy_process_group()
