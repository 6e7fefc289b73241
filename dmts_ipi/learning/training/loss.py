"""The loss of a training: a sum over the outputs of the network that have labels."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dmts_ipi.students.contract import DIRECT, FORCES, LABEL_OF, Architecture, Batch

PER_ATOM_HUBER_EV = 0.01  # of energies and virials


def student_loss(
    architecture: Architecture,
    student: nn.Module,
    batch: Batch,
    weights: Mapping[str, float],
    huber: float,
    pairs: Tensor | None,
    difference_weight: float,
) -> Tensor:
    """Weighted sum of one term for each output; eV/A of forces, eV per atom of the others.

    Args:
        architecture: of the student.
        student: the network.
        batch: frames with their labels.
        weights: of each output that is trained.
        huber: error of a force, in eV/A, above which it counts linearly.
        pairs: rows of the same atoms in consecutive frames, (2, k), or None.
        difference_weight: of the change of the force error between these.
    """
    outputs = architecture.outputs(student, batch)
    terms = []
    for name, weight in weights.items():
        label = batch.targets[LABEL_OF[name]]
        if name in (FORCES, DIRECT):
            error = outputs[name] - label
            term = force_term(error, huber, pairs, difference_weight, batch.weight)
        else:
            term = per_atom_term(outputs[name], label, len(batch.positions) / batch.n_frames)
        terms.append(term if weight == 1.0 else weight * term)
    return terms[0] if len(terms) == 1 else torch.stack(terms).sum()


def force_term(
    error: Tensor,
    huber: float,
    pairs: Tensor | None,
    weight: float,
    atoms: Tensor | None = None,
) -> Tensor:
    """Pseudo-Huber of the error vectors (m, 3), and of their change between paired frames.

    delta (sqrt(1 + |e|^2 / delta^2) - 1), averaged over atoms; eV/A. ``atoms`` (m,) is 0 for rows
    that are none (``Batch.weight``).
    """

    def robust(e: Tensor) -> Tensor:
        return huber * (torch.sqrt(1.0 + e.square().sum(-1) / huber**2) - 1.0)

    each = robust(error)
    loss = each.mean() if atoms is None else (each * atoms).sum() / atoms.sum()
    if pairs is not None:
        loss = loss + weight * robust(error[pairs[1]] - error[pairs[0]]).mean()
    return loss


def per_atom_term(output: Tensor, label: Tensor, atoms_per_frame: float) -> Tensor:
    """Pseudo-Huber of an energy or virial per atom, eV; frames without a label count nothing.

    Args:
        output: (f, ...), where f is the number of frames or 1: their sum.
        label: (frames, ...), NaN for frames without.
        atoms_per_frame: on average.
    """
    atoms = atoms_per_frame
    if len(output) < len(label):
        label, atoms = label.sum(0, keepdim=True), atoms * len(label)
    error = ((output - label) / atoms).reshape(len(label), -1)
    known = torch.isfinite(label.reshape(len(label), -1))
    square = torch.where(known, error, torch.zeros_like(error)).square().sum(-1)
    return (PER_ATOM_HUBER_EV * (torch.sqrt(1.0 + square / PER_ATOM_HUBER_EV**2) - 1.0)).mean()
