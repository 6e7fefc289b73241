r"""Predicted heating of an MTS run, from bursts of consecutive teacher frames.

The outer force of an impulse integrator, dF = teacher - student applied every D, contains the
harmonics 2 pi m / D of the outer step. By linear response, to second order in dF and curl
included, the system absorbs

.. math:: P(D) = \frac{1}{2 k_B T} \sum_{m \ne 0} S_w(2 \pi m / D), \qquad
          \frac{dT}{dt} = \frac{P}{3 N k_B}, \qquad w(t) = \sum_i dF_i(t) \cdot v_i(t)

with S_w the two-sided power spectrum of w along an undisturbed trajectory of the teacher
(docs/heating.md has the derivation). No constant is fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .errors import InputError
from .frames import Frame
from .motions import MOTIONS, split_velocities
from .units import KB_EV_PER_K

OUTER_FS = (3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0)
FEWEST_FRAMES = 16


@dataclass(frozen=True)
class Heating:
    """Predicted heating in K/ps at each outer step, with its standard error over bursts.

    ``by_motion`` splits ``K_per_ps`` by the part of the velocity on which dF works: the motions of
    molecules, and the elements of atoms outside molecules (``core.motions.split_velocities``). It
    is empty when no split was given, and adds up to the total otherwise.
    """

    outer_fs: tuple[float, ...]
    K_per_ps: np.ndarray
    stderr_K_per_ps: np.ndarray
    by_motion: dict[str, np.ndarray]

    def at(self, outer_fs: float) -> float:
        """K/ps at one of the outer steps."""
        return float(self.K_per_ps[self.outer_fs.index(float(outer_fs))])


def _harmonics(outer_fs: float, frame_fs: float) -> np.ndarray:
    """Frequencies m / D, m != 0, within one period of the sampled spectrum, in 1/fs."""
    n = outer_fs / frame_fs
    if abs(n - round(n)) < 1e-6:
        return np.arange(1, round(n)) / outer_fs
    m = np.arange(1, int(np.floor(n / 2)) + 1)
    return np.concatenate([m, -m]) / outer_fs


def predicted_heating(
    dF: np.ndarray,
    velocities: np.ndarray,
    frame_fs: float = 1.0,
    outer_fs: Sequence[float] = OUTER_FS,
    temperature_K: float = 300.0,
    motions: dict[str, np.ndarray] | None = None,
) -> Heating:
    """Heating of an MTS run by the error of its student (module docstring).

    Args:
        dF: teacher - student, (bursts, t, n, 3) eV/A, on consecutive teacher frames.
        velocities: (bursts, t, n, 3) A/fs, at the same instants as ``dF``.
        frame_fs: time between frames; it must resolve the fastest motion (1 fs).
        outer_fs: outer steps D; steps not above ``frame_fs`` give zero.
        temperature_K: temperature of the bursts.
        motions: velocities split by kind (``core.motions.split_velocities``), each shaped as
            ``velocities``.

    Raises:
        InputError: a burst is shorter than ``FEWEST_FRAMES`` frames.
    """
    dF, velocities = np.asarray(dF, float), np.asarray(velocities, float)
    n_bursts, n_frames, n_atoms, _ = dF.shape
    if n_frames < FEWEST_FRAMES:
        raise InputError(
            "bursts", f"{n_frames} frames", f"a burst needs at least {FEWEST_FRAMES} frames"
        )
    # Hann: w is steep in frequency, and leakage from below the harmonics would drown them.
    window = np.hanning(n_frames + 2)[1:-1]
    time_fs = np.arange(n_frames) * frame_fs
    scale = frame_fs / (window**2).sum()

    def work_rate(v: np.ndarray) -> np.ndarray:
        return np.asarray(np.einsum("btni,btni->bt", dF, v))  # eV/fs

    w = work_rate(velocities)
    names = list(motions or {})
    parts = np.stack([work_rate((motions or {})[k]) for k in names]) if names else np.empty((0,))
    per_burst = np.zeros((len(outer_fs), n_bursts))
    split = np.zeros((len(names), len(outer_fs)))
    # eV^2/fs^2 * fs / (eV * eV/K) = K/fs
    to_K_per_ps = 1e3 / (2 * KB_EV_PER_K * temperature_K * 3 * n_atoms * KB_EV_PER_K)
    for k, outer in enumerate(outer_fs):
        f = _harmonics(float(outer), frame_fs)
        wave = window * np.exp(-2j * np.pi * np.outer(f, time_fs))  # (m, t)
        x = w @ wave.T
        per_burst[k] = to_K_per_ps * scale * (np.abs(x) ** 2).sum(-1)
        for p in range(len(names)):
            y = parts[p] @ wave.T
            split[p, k] = to_K_per_ps * scale * (y * x.conj()).real.sum(-1).mean()
    stderr = np.full(len(outer_fs), np.nan)
    if n_bursts > 1:
        stderr = per_burst.std(axis=1, ddof=1) / np.sqrt(n_bursts)
    return Heating(
        tuple(float(d) for d in outer_fs),
        per_burst.mean(axis=1),
        stderr,
        {name: split[p] for p, name in enumerate(names)},
    )


def heating_of_bursts(
    groups: Sequence[Sequence[Frame]],
    student_forces: Sequence[np.ndarray],
    masses_amu: np.ndarray,
    outer_fs: Sequence[float] = OUTER_FS,
    temperature_K: float = 300.0,
    split: bool = True,
) -> Heating:
    """Predicted heating from labelled bursts (``core.frames.bursts``) and a student's forces.

    Bursts are cut to the shortest one.

    Args:
        groups: bursts of frames with forces (teacher) and velocities, evenly spaced in time.
        student_forces: for each burst, (t, n, 3) eV/A.
        masses_amu: masses that moved the atoms (HMR included), (n,).
        outer_fs: outer steps.
        temperature_K: temperature of the bursts.
        split: also split by kind of motion.

    Raises:
        InputError: no burst, uneven spacing, or bursts of different systems.
    """
    if not groups:
        raise InputError("labels", "", "contain no bursts of consecutive frames with velocities")
    t = min(len(g) for g in groups)
    numbers = groups[0][0].numbers
    steps = np.concatenate([np.diff([f.time_fs for f in g]) for g in groups])
    if np.ptp(steps) > 1e-6 or steps[0] <= 0:
        raise InputError("bursts", f"steps {steps.min()} to {steps.max()} fs", "must be even")
    if any(not np.array_equal(f.numbers, numbers) for g in groups for f in g):
        raise InputError("bursts", "", "are of different systems; evaluate each system separately")
    teacher = np.array([[f.forces for f in g[:t]] for g in groups], float)
    v = np.array([[f.velocities_A_per_fs for f in g[:t]] for g in groups], float)
    x = np.array([[f.positions for f in g[:t]] for g in groups], float)
    dF = teacher - np.stack([np.asarray(f)[:t] for f in student_forces])
    motions = None
    if split:
        each = [
            split_velocities(v[b], x[b], masses_amu, numbers, g[0].cell, g[0].pbc)
            for b, g in enumerate(groups)
        ]
        present = {kind for e in each for kind in e}
        kinds = [k for k in MOTIONS if k in present] + sorted(present - set(MOTIONS))
        nothing = np.zeros_like(v[0])
        motions = {k: np.stack([e.get(k, nothing) for e in each]) for k in kinds}
    return predicted_heating(dF, v, float(steps[0]), outer_fs, temperature_K, motions)
