"""FeNNol models (``.fnx``, JAX) as teachers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers as number_of
from ase.data import chemical_symbols as symbols
from ase.units import Hartree

from dmts_ipi.core.errors import InputError, MissingPackage, ModelFault
from dmts_ipi.core.model import ForceResult, check_result

from .model_files import file_sha256

GROWTH = 1.3  # spare room in the padded lists: a list that overflows is compiled anew


class FennolTeacher:
    """A FENNIX model as a ``ForceModel``: gas phase, or periodic in three directions.

    Energies come in Hartree (or the model's own unit) and leave in eV; the terms of the energy
    are added up in double, since one float32 total would lose meV.
    """

    conservative = True

    def __init__(self, model: Any, name: str, identity: str, dtype: str = "float32") -> None:
        """Wraps a loaded ``fennol.FENNIX``."""
        from fennol.utils.atomic_units import au

        self.name, self.identity = name, identity
        self.elements: frozenset[int] | None = _elements(model)
        self.cutoff_A: float | None = float(model.cutoff)
        self._model, self._dtype = model, dtype
        self._unit_eV = Hartree / au.get_multiplier(model.energy_unit)
        self._key: tuple[bytes, bool] | None = None

    def compute(
        self, numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray
    ) -> ForceResult:
        """Energy, forces and virial (``core.model``).

        Raises:
            InputError: an unknown element, or a structure periodic in one or two directions.
            ModelFault: the model failed or returned NaN.
        """
        x, box = np.asarray(positions, float), np.asarray(cell, float).reshape(3, 3)
        if not np.isfinite(x).all():
            atom = int(np.argwhere(~np.isfinite(x))[0, 0])
            raise ModelFault(f"{self.name}: position of atom {atom} is {x[atom].tolist()}")
        periodic = np.broadcast_to(np.asarray(pbc, bool), (3,))
        if periodic.any() and not periodic.all():
            raise InputError(
                "pbc", periodic.tolist(), "FeNNol supports only all three directions or none"
            )
        unknown = {int(z) for z in numbers} - (self.elements or {int(z) for z in numbers})
        if unknown:
            has = ", ".join(symbols[z] for z in sorted(self.elements or ()))
            raise InputError("element", symbols[min(unknown)], f"{self.name} knows {has}")
        inputs = self._inputs(np.asarray(numbers), x, box, bool(periodic.all()))
        try:
            ready = self._model.preprocess(**inputs)
            _, forces, virial, out = self._model.energy_and_forces_and_virial(**ready)
            energy = sum(np.asarray(out[t], float).sum() for t in self._model.energy_terms)
        except Exception as error:  # jax and fennol raise whatever they like
            line = (str(error).splitlines() or [type(error).__name__])[0]
            raise ModelFault(f"{self.name}: {line}") from error
        w = -np.asarray(virial, float)[0] * self._unit_eV
        result = ForceResult(
            float(energy) * self._unit_eV,
            np.asarray(forces, float) * self._unit_eV,
            0.5 * (w + w.T),
        )
        return check_result(result, len(x), self.name)

    def _inputs(
        self, numbers: np.ndarray, x: np.ndarray, box: np.ndarray, periodic: bool
    ) -> dict[str, np.ndarray]:
        """What FENNIX reads. Its lists keep their sizes between calls for the same atoms."""
        real = np.dtype(self._dtype)
        inputs = {
            "species": numbers.astype(np.int32),
            "natoms": np.array([len(x)], np.int32),
            "batch_index": np.zeros(len(x), np.int32),
        }
        if periodic:
            inverse = np.linalg.inv(box)
            x = x - np.floor(x @ inverse) @ box  # float32 resolves what is near the origin
            inputs["cells"] = box.reshape(1, 3, 3).astype(real)
            inputs["reciprocal_cells"] = inverse.reshape(1, 3, 3).astype(real)
        else:
            x = x - x.mean(axis=0)
        inputs["coordinates"] = x.astype(real)
        key = (numbers.tobytes(), periodic)
        if key != self._key:
            self._model.reinitialize_preprocessing(example_data=inputs)
            self._key = key
        return inputs


def _elements(model: Any) -> frozenset[int] | None:
    for module in dict(model.to_dict()["modules"]).values():
        order = module.get("species_order")
        if isinstance(order, (list, tuple)):
            return frozenset(number_of[s] for s in order)
    return None


def load_fennol(
    path: Path, keywords: dict[str, Any], device: str = "cpu", dtype: str | None = None
) -> FennolTeacher:
    """Reads a ``.fnx`` file (msgpack; FeNNol's pickles are refused).

    Args:
        path: the file.
        keywords: none are known.
        device: ``cpu``, or a GPU that jax sees.
        dtype: ``float32`` (default) or ``float64`` (switches jax to 64 bit).

    Raises:
        InputError: the file is absent, is a pickle, or does not load.
        MissingPackage: FeNNol is not installed.
    """
    if keywords:
        raise InputError("fennol keywords", json.dumps(keywords), "none are known")
    if not path.is_file():
        raise InputError("model", path, "does not exist")
    if path.suffix != ".fnx":
        raise InputError("model", path, "is not a .fnx file; FeNNol's pickles are not read")
    if device == "cpu":
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    try:
        import jax
        from fennol import FENNIX
    except ImportError as error:
        raise MissingPackage("fennol", "fennol", error) from error
    if dtype == "float64":
        jax.config.update("jax_enable_x64", True)
    try:
        model = FENNIX.load(str(path), graph_config={"mult_size": GROWTH})
    except Exception as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError("model", path, f"cannot be loaded as a FeNNol model ({line})") from error
    return FennolTeacher(model, path.stem, file_sha256(path), dtype or "float32")
