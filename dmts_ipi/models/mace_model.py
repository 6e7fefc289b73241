"""MACE modules as plain files: safetensors weights and a JSON from which the module is rebuilt.

MACE's own files are pickles; what we ship is not. The architecture is the one of
Batatia et al., NeurIPS 2022 (mace-torch's ``ScaleShiftMACE``); this file only builds, stores
and feeds it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dmts_ipi.core.errors import MissingPackage

from .model_files import FORMATS, MACE, RECORD, WEIGHTS, pack, read_folder, write_atomically


def import_mace() -> Any:
    """Returns ``mace.modules``; e3nn 0.4.4 reads a constants file that torch's safe loader
    refuses unless ``slice`` is allowed, so allow exactly that."""
    torch.serialization.add_safe_globals([slice])
    before = os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
    try:
        # it prints a note on stdout, where --json figures go
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            import mace.modules as modules
    except ImportError as error:
        raise MissingPackage("mace", "mace-torch", error) from error
    finally:  # mace switches torch's safe loading off for the whole process: switch it back
        if before is None:
            os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None)
    return modules


def build_mace(architecture: dict[str, Any]) -> torch.nn.Module:
    """The MACE module of an architecture record, with random weights, in torch's default dtype.

    Args:
        architecture: ``hidden_irreps``, ``mlp_irreps``, ``r_max_A``, ``max_ell``,
            ``correlation``, ``num_interactions``, ``num_bessel``, ``num_polynomial_cutoff``,
            ``radial_mlp``, ``elements`` (atomic numbers), ``atomic_energies_eV``,
            ``avg_num_neighbors``, ``scale_eV``, ``shift_eV``.
    """
    modules = import_mace()
    from e3nn import o3

    a = architecture
    blocks = modules.interaction_classes
    with warnings.catch_warnings():  # TorchScript's notes on e3nn's annotations
        warnings.simplefilter("ignore")
        return modules.ScaleShiftMACE(
            r_max=a["r_max_A"],
            num_bessel=a["num_bessel"],
            num_polynomial_cutoff=a["num_polynomial_cutoff"],
            max_ell=a["max_ell"],
            interaction_cls_first=blocks["RealAgnosticInteractionBlock"],
            interaction_cls=blocks["RealAgnosticResidualInteractionBlock"],
            num_interactions=a["num_interactions"],
            num_elements=len(a["elements"]),
            hidden_irreps=o3.Irreps(a["hidden_irreps"]),
            MLP_irreps=o3.Irreps(a["mlp_irreps"]),
            atomic_energies=np.asarray(a["atomic_energies_eV"], dtype=float),
            avg_num_neighbors=a["avg_num_neighbors"],
            atomic_numbers=list(a["elements"]),
            correlation=a["correlation"],
            gate=torch.nn.functional.silu,
            radial_MLP=list(a["radial_mlp"]),
            radial_type="bessel",
            atomic_inter_scale=a["scale_eV"],
            atomic_inter_shift=a["shift_eV"],
        )


def mace_graph(
    numbers: np.ndarray,
    positions: np.ndarray,
    cell: np.ndarray,
    pairs: tuple[np.ndarray, np.ndarray, np.ndarray],
    elements: list[int],
    dtype: torch.dtype,
    device: str | torch.device = "cpu",
) -> dict[str, torch.Tensor]:
    """The dictionary that ``MACE.forward`` reads.

    Args:
        numbers: atomic numbers, (n,).
        positions: (n, 3) Angstrom.
        cell: (3, 3) Angstrom, rows.
        pairs: ``i`` (e,), ``j`` (e,), integer cell ``shifts`` (e, 3) of a full neighbour list,
            so that the vector from i to j is ``positions[j] - positions[i] + shifts @ cell``.
        elements: atomic numbers in the order of the model's one-hot attributes.
        dtype: floating point type of the graph.
        device: where the tensors are put.
    """
    i, j, shifts = pairs
    one_hot = np.asarray(numbers)[:, None] == np.asarray(elements)[None, :]
    n = len(numbers)

    def real(x: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(np.ascontiguousarray(x), dtype=dtype, device=device)

    return {
        "node_attrs": real(one_hot.astype(float)),
        "positions": real(positions),
        "cell": real(cell),
        "edge_index": torch.as_tensor(
            np.stack([i, j]).astype(np.int64), dtype=torch.long, device=device
        ),
        "unit_shifts": real(shifts),
        "shifts": real(np.asarray(shifts, float) @ np.asarray(cell, float)),
        "batch": torch.zeros(n, dtype=torch.long, device=device),
        "ptr": torch.tensor([0, n], dtype=torch.long, device=device),
    }


def save_mace(
    folder: Path, model: torch.nn.Module, architecture: dict[str, Any], card: dict[str, Any]
) -> None:
    """Writes ``model.safetensors`` and ``model.json`` (architecture and model card)."""
    record = {"format": MACE, "version": FORMATS[MACE], "architecture": architecture, "card": card}
    write_atomically(folder / WEIGHTS, pack(model.state_dict()))
    write_atomically(folder / RECORD, (json.dumps(record, indent=1) + "\n").encode())


def load_mace(folder: Path) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Rebuilds a stored MACE module. Returns it with its record.

    Raises:
        InputError: as ``model_files.read_folder``.
    """
    from safetensors.torch import load_file

    record = read_folder(folder, MACE)
    model = build_mace(record["architecture"])
    model.load_state_dict(load_file(folder / WEIGHTS))
    return model, record
