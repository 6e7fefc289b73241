"""A trained network of ``PairGraph`` as a force model: plain torch, pairs listed for every call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from dmts_ipi.core.errors import InputError, ModelFault
from dmts_ipi.core.model import ForceResult, check_result

from .contract import ENERGY, VIRIAL, Architecture, Batch, driving_forces
from .files import parse_dtype
from .pairs import pair_graph


class NetworkModel:
    """A network as a ``core.model.ForceModel``."""

    def __init__(
        self,
        architecture: Architecture,
        network: nn.Module,
        config: Any,
        name: str,
        record: Mapping[str, Any],
        device: str = "cpu",
        dtype: str | None = None,
    ) -> None:
        self.name, self.identity = name, str(record["weights_sha256"])
        self.conservative: bool = config.conservative
        known = [int(z) for z in record["elements"]]
        self.elements: frozenset[int] | None = frozenset(known)
        self.cutoff_A: float | None = config.reach_A
        self.architecture, self.device, self.dtype = architecture, device, parse_dtype(dtype)
        try:
            self.network = network.to(device=device, dtype=self.dtype).eval().requires_grad_(False)
        except (RuntimeError, AssertionError) as error:
            line = str(error).splitlines()[0]
            raise InputError("device", device, f"cannot be used ({line})") from error
        energies = record.get("atom_energies_eV") or [0.0] * len(known)
        self.atom_energies_eV = dict(zip(known, energies, strict=True))

    def compute(
        self, numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray
    ) -> ForceResult:
        """Forces, and energy and virial where the network has them (``core.model``).

        Raises:
            InputError: an element that the student does not know, or NaN in the positions.
            ModelFault: the network failed or returned NaN.
        """
        x, z = np.asarray(positions, float).reshape(-1, 3), np.asarray(numbers)
        missing = sorted({int(n) for n in z} - set(self.atom_energies_eV))
        if missing:
            from ase.data import chemical_symbols

            known = ", ".join(chemical_symbols[n] for n in self.atom_energies_eV)
            raise InputError(
                "element",
                chemical_symbols[missing[0]],
                f"the student knows {known}; train one on data with this element",
            )
        periodic = np.broadcast_to(np.asarray(pbc, bool), (3,))
        graph = pair_graph([(x, cell, periodic)], self.cutoff_A or 0.0, self.dtype, self.device)
        batch = Batch(
            torch.as_tensor(x, dtype=self.dtype, device=self.device),
            torch.as_tensor(z, dtype=torch.int64, device=self.device),
            graph,
            1,
            {},
        )
        try:
            with torch.no_grad():
                outputs = self.architecture.outputs(self.network, batch)
        except RuntimeError as error:
            raise ModelFault(f"{self.name}: {str(error).splitlines()[0]}") from error
        energy = virial = None
        if ENERGY in outputs:
            energy = float(outputs[ENERGY].sum()) + sum(self.atom_energies_eV[int(n)] for n in z)
        if VIRIAL in outputs:
            virial = outputs[VIRIAL].reshape(-1, 3, 3).sum(0).cpu().numpy().astype(float)
        forces = driving_forces(outputs).cpu().numpy().astype(float)
        return check_result(ForceResult(energy, forces, virial), len(z), self.name)
