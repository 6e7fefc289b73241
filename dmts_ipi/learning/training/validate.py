"""Errors and predicted heating of a student on held-out frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase.data import chemical_symbols
from torch import nn

from dmts_ipi.core.frames import Frame, bursts
from dmts_ipi.core.heating import FEWEST_FRAMES, heating_of_bursts
from dmts_ipi.learning.error_warning import ALL
from dmts_ipi.models.devices import resolve_device
from dmts_ipi.students.contract import Batch, FrameSet, driving_forces
from dmts_ipi.students.registry import architecture_of

from .config import TrainConfig

# A student that heats less than this at the wanted outer step is as good as any other.
HEATING_FLOOR_K_PER_PS = 0.02


@dataclass(frozen=True)
class Validation:
    """Errors in eV/A, heating in K/ps (None without bursts); the smaller score wins."""

    mae: float
    rmse: float
    heating: float | None
    outer_fs: float
    score: float
    parts: dict[str, tuple[float, float]]  # RMSE and rms force, of all atoms and by element

    def figures(self) -> dict[str, float]:
        """For history and model.json, units in the names."""
        errors = {"force_mae_eV_per_A": self.mae, "force_rmse_eV_per_A": self.rmse}
        if self.heating is not None:
            errors[f"heating_at_{self.outer_fs:g}fs_K_per_ps"] = self.heating
        return errors

    def text(self) -> str:
        """One line for the progress."""
        line = f"MAE {1e3 * self.mae:.2f} RMSE {1e3 * self.rmse:.2f} meV/A"
        if self.heating is not None:
            line += f", heating at {self.outer_fs:g} fs {self.heating:.3f} K/ps"
        return line


class Validator:
    """Evaluates a student on held-out frames and bursts.

    Checkpoints compete by predicted heating times force RMSE, where bursts are there: by
    linear response heating scales as the error squared at fixed shape, and its estimate from a
    few short bursts is noisy, so the error stays in the score. Without bursts: by MAE.
    """

    def __init__(self, frames: Sequence[Frame], config: TrainConfig, elements: list[int]) -> None:
        self.config, self.device = config, resolve_device(config.device)
        rng = np.random.default_rng([config.seed, 4])
        chosen = sorted(rng.permutation(len(frames))[: config.validation_frames].tolist())
        self.architecture = architecture_of(config.architecture)
        sizes = config.architecture
        self.frames = self.architecture.frames([frames[k] for k in chosen], sizes, elements)
        groups = [g for g in bursts(frames) if len(g) >= FEWEST_FRAMES]
        same = [g for g in groups if np.array_equal(g[0].numbers, groups[0][0].numbers)]
        self.groups = [g[: config.burst_frames] for g in same[: config.heating_bursts]]
        self.burst_sets = [self.architecture.frames(g, sizes, elements) for g in self.groups]
        self.chosen_by = (
            f"predicted heating at {config.heating_at_fs:g} fs times force RMSE"
            if self.groups
            else "force MAE"
        )
        self._batches: dict[tuple[int, int], Batch] = {}

    def _forces(self, student: nn.Module, which: int, graphs: FrameSet, k: int) -> np.ndarray:
        """Forces of one frame in its own order, (n, 3)."""
        if (which, k) not in self._batches:
            self._batches[which, k] = graphs.batch([k], device=self.device)
        forces = driving_forces(self.architecture.outputs(student, self._batches[which, k]))
        return forces.detach().cpu().numpy().astype(float)[graphs.atom_rows([k])[0]]

    @torch.no_grad()
    def rmse(self, student: nn.Module, frames: FrameSet, most: int) -> float:
        """Force RMSE on the first ``most`` frames of a set, eV/A; keeps no batches of it."""
        squares = []
        for k in range(min(most, len(frames))):
            b = frames.batch([k], device=self.device)
            error = driving_forces(self.architecture.outputs(student, b)) - b.forces
            squares.append(error.square().mean())
        return float(torch.stack(squares).mean().sqrt())

    @torch.no_grad()
    def __call__(self, student: nn.Module, with_heating: bool = True) -> Validation:
        """Errors; predicted heating too if there are bursts and it is wanted."""
        labels = np.concatenate([np.asarray(f.forces, float) for f in self.frames.frames])
        forces = [self._forces(student, -1, self.frames, k) for k in range(len(self.frames))]
        errors = np.concatenate(forces) - labels
        mae, rmse = float(np.abs(errors).mean()), float(np.sqrt((errors**2).mean()))
        heating = None
        score = np.inf if self.groups else mae
        if self.groups and with_heating:
            predicted = [
                np.stack([self._forces(student, w, s, k) for k in range(len(s))])
                for w, s in enumerate(self.burst_sets)
            ]
            heating = heating_of_bursts(
                self.groups,
                predicted,
                np.ones(len(self.groups[0][0].numbers)),
                (self.config.heating_at_fs,),
                self.config.temperature_K,
                split=False,
            ).at(self.config.heating_at_fs)
            score = max(heating, HEATING_FLOOR_K_PER_PS) * rmse
        parts = {ALL: (rmse, _rms(labels))}
        numbers = np.concatenate([f.numbers for f in self.frames.frames])
        for z in np.unique(numbers):
            parts[chemical_symbols[z]] = _rms(errors[numbers == z]), _rms(labels[numbers == z])
        return Validation(mae, rmse, heating, self.config.heating_at_fs, score, parts)


def _rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x))))
