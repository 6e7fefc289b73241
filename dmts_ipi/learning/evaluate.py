"""Errors of a model on labelled frames, and its predicted heating on labelled bursts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from dmts_ipi.core.errors import InputError, ModelFault
from dmts_ipi.core.files import plain
from dmts_ipi.core.frames import Frame, bursts
from dmts_ipi.core.heating import OUTER_FS, Heating, heating_of_bursts
from dmts_ipi.core.model import ForceModel, check_structure, compute
from dmts_ipi.core.molecules import bonds, molecular_groups

from .labelling.sampler import hmr_masses
from .stiffness import Stiffness, stretch_stiffness

DEFAULT_HMR_AMU = 3.0  # of bursts whose frames do not say
INNER_FS = 1.0  # of the shift of bonds' temperature
WHOLE_BURST = 0.8  # bursts shorter than this part of the longest are left out


@dataclass
class ErrorSum:
    """Running error of a set of components, eV/A."""

    n: int = 0
    absolute: float = 0.0
    squared: float = 0.0
    reference: float = 0.0

    def add(self, error: np.ndarray, reference: np.ndarray) -> None:
        """Adds components of the error, and of what they are errors of."""
        self.n += error.size
        self.absolute += float(np.abs(error).sum())
        self.squared += float((error**2).sum())
        self.reference += float((reference**2).sum())

    def as_dict(self) -> dict[str, float | int]:
        """``mae``, ``rmse``, ``rms`` of the reference (eV/A), and the number of components."""
        n = max(self.n, 1)
        return {
            "mae_eV_per_A": self.absolute / n,
            "rmse_eV_per_A": float(np.sqrt(self.squared / n)),
            "reference_rms_eV_per_A": float(np.sqrt(self.reference / n)),
            "n": self.n,
        }


@dataclass
class Evaluation:
    """What ``evaluate`` found. Arrays hold one value per force component, for plots."""

    n_frames: int = 0
    total: ErrorSum = field(default_factory=ErrorSum)
    by_element: dict[str, ErrorSum] = field(default_factory=dict)
    along: ErrorSum = field(default_factory=ErrorSum)
    across: ErrorSum = field(default_factory=ErrorSum)
    net: ErrorSum = field(default_factory=ErrorSum)
    energy_error_eV_per_atom: list[float] = field(default_factory=list)
    worst_atoms: list[dict[str, Any]] = field(default_factory=list)
    worst_frames: list[dict[str, Any]] = field(default_factory=list)
    reference: list[np.ndarray] = field(default_factory=list)
    predicted: list[np.ndarray] = field(default_factory=list)
    symbols: list[np.ndarray] = field(default_factory=list)
    heating: Heating | None = None
    stiffness: list[Stiffness] = field(default_factory=list)
    temperature_K: float = 300.0
    n_bursts: int = 0
    ms_per_frame: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``; units are in the keys."""
        total = self.total.as_dict()
        out: dict[str, Any] = {
            "n_frames": self.n_frames,
            "force_mae_eV_per_A": total["mae_eV_per_A"],
            "force_rmse_eV_per_A": total["rmse_eV_per_A"],
            "force_reference_rms_eV_per_A": total["reference_rms_eV_per_A"],
            "by_element": {k: v.as_dict() for k, v in sorted(self.by_element.items())},
            "along_XH_bonds": self.along.as_dict() if self.along.n else None,
            "across_XH_bonds": self.across.as_dict() if self.across.n else None,
            "net_force_of_molecules": self.net.as_dict() if self.net.n else None,
            "worst_atoms": self.worst_atoms,
            "worst_frames": self.worst_frames,
            "ms_per_frame": self.ms_per_frame,
            "n_bursts": self.n_bursts,
            "predicted_heating_K_per_ps": None,
        }
        if self.energy_error_eV_per_atom:
            e = np.array(self.energy_error_eV_per_atom)
            out["energy_mae_eV_per_atom"] = float(np.abs(e).mean())
            out["energy_mae_without_offset_eV_per_atom"] = float(np.abs(e - e.mean()).mean())
        if self.heating is not None:
            h = self.heating
            keys = [f"{d:g}" for d in h.outer_fs]
            out["predicted_heating_K_per_ps"] = dict(zip(keys, h.K_per_ps.tolist(), strict=True))
            stderr = [None if np.isnan(x) else float(x) for x in h.stderr_K_per_ps]
            out["predicted_heating_stderr_K_per_ps"] = dict(zip(keys, stderr, strict=True))
            out["predicted_heating_by_motion_K_per_ps"] = {
                m: dict(zip(keys, v.tolist(), strict=True)) for m, v in h.by_motion.items()
            }
            out["student_stretches"] = {s.kind: self._stiffness(s, keys) for s in self.stiffness}
        return out

    def _stiffness(self, of: Stiffness, keys: list[str]) -> dict[str, Any]:
        shifts = [of.shift_K(float(key), INNER_FS, self.temperature_K) for key in keys]
        record = {
            "student_stiffer": of.stiffer,
            "stderr": of.stderr,
            "period_fs": of.period_fs,
            "shift_K": {key: x for key, (x, _) in zip(keys, shifts, strict=True)},
            "shift_stderr_K": {key: e for key, (_, e) in zip(keys, shifts, strict=True)},
        }
        return dict(plain(record))


def evaluate(
    model: ForceModel,
    files: Sequence[Sequence[Frame]],
    outer_fs: Sequence[float] = OUTER_FS,
    worst: int = 5,
    report: Callable[[str], None] = lambda line: None,
) -> Evaluation:
    """Compares a model with labels.

    Args:
        model: any force model.
        files: frames with forces; burst numbers count within each file.
        outer_fs: outer steps of the predicted heating.
        worst: how many of the worst atoms and frames are kept.
        report: receives progress, about every five seconds.

    Raises:
        InputError: labels without forces, or a structure that the model cannot take.
        ModelFault: the model failed; names the frame.
    """
    out = Evaluation()
    todo = sum(len(frames) for frames in files)
    began = spoke = time.monotonic()
    computing = 0.0
    groups: list[tuple[list[Frame], list[np.ndarray]]] = []
    for frames in files:
        forces: dict[int, np.ndarray] = {}
        for frame in frames:
            k = out.n_frames
            if frame.forces is None or not np.isfinite(frame.forces).all():
                raise InputError("labels", f"frame {k}", "has no finite forces; label it again")
            _check(frame, k, model)
            start = time.monotonic()
            try:
                result = compute(model, frame)
            except ModelFault as error:
                raise ModelFault(f"frame {k} of the labels: {error}") from error
            if k:
                computing += time.monotonic() - start
            else:  # the first call compiles: it says nothing of what is left
                began = spoke = time.monotonic()
            forces[id(frame)] = result.forces_eV_per_A
            _add(out, frame, result.forces_eV_per_A, k)
            if result.energy_eV is not None and frame.energy_eV is not None:
                off = (result.energy_eV - frame.energy_eV) / len(frame.numbers)
                out.energy_error_eV_per_atom.append(float(off))
            out.n_frames += 1
            now = time.monotonic()
            if now - spoke > 5:
                spoke = now
                left = (now - began) / max(out.n_frames - 1, 1) * (todo - out.n_frames)
                report(f"{out.n_frames}/{todo} frames  left {left:.0f} s")
        for group in bursts(frames):
            groups.append((group, [forces[id(f)] for f in group]))
    out.ms_per_frame = 1e3 * computing / max(out.n_frames - 1, 1)
    for key in ("worst_atoms", "worst_frames"):
        rows = sorted(getattr(out, key), key=lambda row: -row["error_eV_per_A"])
        setattr(out, key, rows[:worst])
    _add_heating(out, groups, outer_fs)
    return out


def _check(frame: Frame, k: int, model: ForceModel) -> None:
    try:
        check_structure(*frame.model_input, model.elements)
    except InputError as error:
        raise InputError(f"labels frame {k}: {error.field}", error.value, error.remedy) from error


def _add(out: Evaluation, frame: Frame, forces: np.ndarray, k: int) -> None:
    """Adds the errors of one frame."""
    reference = np.asarray(frame.forces, float)
    error = forces - reference
    symbols = np.array([chemical_symbols[z] for z in frame.numbers])
    out.total.add(error, reference)
    for s in np.unique(symbols):
        mask = symbols == s
        out.by_element.setdefault(str(s), ErrorSum()).add(error[mask], reference[mask])
    pairs, shifts = bonds(*frame.model_input)
    if len(pairs):
        _add_bonds(out, frame, pairs, shifts, error, reference)
        of, _ = molecular_groups(frame.numbers, pairs, shifts)
        inside = of >= 0
        if inside.any():

            def net(f: np.ndarray) -> np.ndarray:
                f, label = f[inside], of[inside]
                return np.stack([np.bincount(label, f[:, x]) for x in range(3)], axis=1)

            out.net.add(net(error), net(reference))
    size = np.linalg.norm(error, axis=1)
    a = int(size.argmax())
    where = {"frame": k, "source": frame.source}
    out.worst_atoms.append(
        {**where, "atom": a, "element": str(symbols[a]), "error_eV_per_A": float(size[a])}
    )
    rmse = float(np.sqrt((error**2).mean()))
    out.worst_frames.append({**where, "error_eV_per_A": rmse})
    out.reference.append(reference.ravel())
    out.predicted.append(forces.ravel())
    out.symbols.append(np.repeat(symbols, 3))


def _add_bonds(
    out: Evaluation,
    frame: Frame,
    pairs: np.ndarray,
    shifts: np.ndarray,
    error: np.ndarray,
    reference: np.ndarray,
) -> None:
    """The force on each bonded hydrogen, along its bond and across it."""
    has_h = (frame.numbers[pairs[:, 1]] == 1) & (frame.numbers[pairs[:, 0]] != 1)
    if not has_h.any():
        return
    a, h = pairs[has_h].T
    bond = frame.positions[h] - frame.positions[a] + shifts[has_h] @ np.asarray(frame.cell, float)
    u = bond / np.linalg.norm(bond, axis=1, keepdims=True)
    along, wanted = (error[h] * u).sum(1), (reference[h] * u).sum(1)
    out.along.add(along, wanted - wanted.mean())
    # two directions across each bond: any pair that completes u
    helper = np.eye(3)[np.abs(u).argmin(axis=1)]
    v = np.cross(u, helper)
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    for w in (v, np.cross(u, v)):
        out.across.add((error[h] * w).sum(1), (reference[h] * w).sum(1))


def _add_heating(
    out: Evaluation, groups: list[tuple[list[Frame], list[np.ndarray]]], outer_fs: Sequence[float]
) -> None:
    """Predicted heating over the whole bursts of the largest set of one system."""
    if not groups:
        return
    systems: dict[bytes, list[tuple[list[Frame], list[np.ndarray]]]] = {}
    for group in groups:
        systems.setdefault(group[0][0].numbers.tobytes(), []).append(group)
    chosen = max(systems.values(), key=len)
    longest = max(len(g) for g, _ in chosen)
    chosen = [g for g in chosen if len(g[0]) >= WHOLE_BURST * longest]
    first = chosen[0][0][0]
    masses = hmr_masses(first, _number(first, "hmr_amu", DEFAULT_HMR_AMU))
    shortest = min(len(g) for g, _ in chosen)
    frames, forces = [g for g, _ in chosen], [np.stack(f[:shortest]) for _, f in chosen]
    out.temperature_K = _number(first, "temperature_K", 300.0)
    out.heating = heating_of_bursts(frames, forces, masses, outer_fs, out.temperature_K)
    out.stiffness = stretch_stiffness(frames, forces, masses)
    out.n_bursts = len(chosen)


def _number(frame: Frame, key: str, default: float) -> float:
    value = frame.info.get(key, default)
    return float(value) if isinstance(value, (int, float, np.number)) else default
