"""A tiny student and tiny water boxes for tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from dmts_ipi.core.frames import Frame
from dmts_ipi.students.density.architecture import StudentArchitecture
from dmts_ipi.students.density.energy import new_student
from dmts_ipi.students.density.network import Student

ELEMENTS = [1, 8]
NUMBERS = np.array([8, 1])
TINY = StudentArchitecture(
    cutoff_A=3.4,
    near_cutoff_A=2.6,
    far_cutoff_A=4.1,
    bessel=4,
    gaussians=3,
    gaussian_width_A=0.3,
    invariants=4,
    triple_invariants=2,
    hidden=8,
    messages=4,
    head_channels=4,
    near_hidden=8,
    near_channels=2,
    near_bessel=4,
    far_bessel=3,
    normalise=True,
    head_scale=0.5,
)


def make_student(
    seed: int = 0, elements: Sequence[int] = tuple(ELEMENTS), **changes: object
) -> Student:
    """A student whose every weight is random, so that every part of it acts."""
    torch.manual_seed(seed)
    student = new_student(TINY.model_copy(update=changes), list(elements))
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
        base = torch.randn_like(student.base)
        student.base.copy_(base + base.transpose(0, 1))
        far = 0.3 * torch.randn_like(student.base_far)
        student.base_far.copy_(far + far.transpose(0, 1))
    return student.eval()


def water_box(
    seed: int = 0, molecules: int = 8, length: float = 6.2
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers, positions and a cubic cell of molecules on a jittered grid, randomly turned."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil(molecules ** (1 / 3)))
    grid = np.array(list(np.ndindex(side, side, side)))[:molecules] * (length / side)
    shape = np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    x = []
    for centre in grid:
        turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        x.append(centre + shape @ turn + rng.normal(scale=0.05, size=(3, 3)))
    return np.tile([8, 1, 1], molecules), np.concatenate(x), length * np.eye(3)


def spring_forces(x: np.ndarray) -> np.ndarray:
    """A flexible toy water without any force between molecules, (n, 3) eV/A."""
    f = np.zeros_like(x)
    for o in range(0, len(x), 3):
        for a, b, rest, k in ((o, o + 1, 0.96, 30.0), (o, o + 2, 0.96, 30.0), (o + 1, o + 2, 1.5, 8.0)):  # fmt: skip # noqa: E501
            d = x[b] - x[a]
            r = np.linalg.norm(d)
            pull = k * (r - rest) * d / r
            f[a] += pull
            f[b] -= pull
    return f


def toy_frames(count: int, seed: int = 0, burst: bool = False) -> list[Frame]:
    """Labelled toy water; with ``burst`` also two bursts of 18 frames with velocities."""
    frames = []
    for k in range(count):
        numbers, x, cell = water_box(seed + k, molecules=4, length=6.0)
        frames.append(
            Frame(numbers, x, cell, np.ones(3, bool), forces=spring_forces(x), source="toy")
        )
    for b in range(2 if burst else 0):
        numbers, x, cell = water_box(seed + 100 + b, molecules=4, length=6.0)
        v = np.random.default_rng(seed + b).normal(scale=0.01, size=x.shape)
        for t in range(18):
            y = x + v * np.sin(0.3 * t) / 0.3
            frames.append(
                Frame(
                    numbers,
                    y,
                    cell,
                    np.ones(3, bool),
                    forces=spring_forces(y),
                    velocities_A_per_fs=v * np.cos(0.3 * t),
                    burst=str(b),
                    time_fs=float(t),
                )
            )
    return frames
