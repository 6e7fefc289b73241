"""MACE as a teacher: our own folders, mace-torch's files, and the foundation models by name."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dmts_ipi.core.errors import InputError, ModelFault
from dmts_ipi.core.model import ForceResult, check_result

from .mace_model import import_mace, load_mace
from .model_files import WEIGHTS, file_sha256
from .skin import SkinList

DTYPES = {"float32": torch.float32, "float64": torch.float64}
SYSTEM_DEFAULTS = {"total_charge": 0.0, "total_spin": 1.0}


class MaceTeacher:
    """A MACE module (Batatia et al., NeurIPS 2022) as a ``ForceModel``.

    Vectors between neighbours are formed in double precision and handed to the network as the
    shifts of a graph whose atoms all sit at the origin; one backward pass to these vectors gives
    forces and virial together. The energy is the sum of atomic interaction energies plus the
    atoms' reference energies, in double: a float32 total of -29943 eV would lose 2 meV.
    """

    conservative = True

    def __init__(
        self,
        model: torch.nn.Module,
        name: str,
        identity: str,
        device: str = "cpu",
        dtype: str | None = None,
        head: int = 0,
        atomic_energies_eV: np.ndarray | None = None,
    ) -> None:
        """Wraps a module; it is moved to ``device`` and ``dtype`` in place.

        Args:
            model: an instance of mace-torch's ``MACE`` or ``ScaleShiftMACE``.
            name: for people.
            identity: hash of the weights.
            device: torch device.
            dtype: ``float32`` (default) or ``float64``.
            head: which head of a model with several.
            atomic_energies_eV: (elements,), where known more precisely than in the module.
        """
        self.name, self.identity, self.device = name, identity, torch.device(device)
        self.dtype = DTYPES[dtype or "float32"]
        table: Any = model.atomic_numbers
        self._table = np.asarray(table.cpu(), dtype=int)
        self.elements: frozenset[int] | None = frozenset(int(z) for z in self._table)
        self.cutoff_A: float | None = float(model.r_max)  # type: ignore[arg-type]
        reference: Any = model.atomic_energies_fn

        def energies() -> np.ndarray:
            return np.atleast_2d(reference.atomic_energies.detach().cpu().double().numpy())[head]

        stored = energies()
        exact = stored if atomic_energies_eV is None else np.asarray(atomic_energies_eV, float)
        self._exact_e0 = exact
        self._model = model.to(device=self.device, dtype=self.dtype).eval().requires_grad_(False)
        self._rounded_e0 = energies()  # what the module itself adds, after rounding
        self._head = head
        self._embedded = dict(getattr(model, "embedding_specs", None) or {})
        self._system: dict[str, float] = {}
        self.set_charge(None, None)
        self._lists: list[SkinList] = []
        self._numbers: np.ndarray | None = None

    def set_charge(self, charge: float | None, spin: float | None) -> None:
        """Total charge and spin multiplicity, for models that embed them (MACE-OMOL).

        Raises:
            InputError: the model embeds something else, or does not know this charge or spin.
        """
        given = {"total_charge": charge, "total_spin": spin}
        system: dict[str, float] = {}
        for name, spec in self._embedded.items():
            if name not in given:
                raise InputError(
                    "model",
                    self.name,
                    f"needs {name}, which is not known here; use "
                    "ase:mace.calculators.MACECalculator",
                )
            value = given[name]
            system[name] = SYSTEM_DEFAULTS[name] if value is None else float(value)
            place = system[name] + spec.get("offset", 0)
            classes = spec.get("num_classes")
            if classes is not None and not (0 <= place < classes and place == int(place)):
                raise InputError(name, f"{system[name]:g}", f"is not known to {self.name}")
        if system != self._system:
            self._system, self._numbers = system, None

    def compute(
        self, numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray
    ) -> ForceResult:
        """Energy, forces and virial (``core.model``).

        Raises:
            InputError: an element that the model was not made for.
            ModelFault: the network failed or returned NaN.
        """
        x, box = np.asarray(positions, float)[None], np.asarray(cell, float).reshape(1, 3, 3)
        return self.compute_batch(numbers, x, box, pbc)[0]

    def compute_batch(
        self, numbers: np.ndarray, positions: np.ndarray, cells: np.ndarray, pbc: np.ndarray
    ) -> list[ForceResult]:
        """Several structures of the same atoms as one graph (``core.model.BatchModel``)."""
        for x in positions:
            if not np.isfinite(x).all():
                atom = int(np.argwhere(~np.isfinite(x))[0, 0])
                raise ModelFault(f"{self.name}: position of atom {atom} is {x[atom].tolist()}")
        copies, n = len(positions), len(numbers)
        known = self._numbers
        if known is None or copies != self._copies or not np.array_equal(known, numbers):
            self._set_numbers(np.asarray(numbers), copies)
        edges = [
            one.edges(x, cell, pbc)
            for one, x, cell in zip(self._lists, positions, cells, strict=True)
        ]
        ends = np.cumsum([len(i) for i, _, _ in edges])
        if ends[-1] == 0:
            empty = np.zeros((n, 3)), np.zeros((3, 3))
            return [ForceResult(self._total_e0, *empty) for _ in range(copies)]
        i, j = (np.concatenate([f[k] + b * n for b, f in enumerate(edges)]) for k in (0, 1))
        r = np.concatenate([vectors for _, _, vectors in edges])
        try:
            inner, gradient = self._evaluate(i, j, r)
        except RuntimeError as error:
            line = str(error).strip().splitlines()[-1]
            raise ModelFault(f"{self.name}: the network failed ({line})") from error
        parts = zip(inner, edges, np.split(gradient, ends[:-1]), strict=True)
        return [self._result(energy, n, *pairs, g) for energy, pairs, g in parts]

    def _result(
        self,
        inner: float,
        n: int,
        i: np.ndarray,
        j: np.ndarray,
        r: np.ndarray,
        gradient: np.ndarray,
    ) -> ForceResult:
        forces = np.empty((n, 3))
        for axis in range(3):
            g = gradient[:, axis]
            forces[:, axis] = np.bincount(i, g, n) - np.bincount(j, g, n)
        virial = -(r.T @ gradient)
        result = ForceResult(self._total_e0 + inner, forces, 0.5 * (virial + virial.T))
        return check_result(result, n, self.name)

    def _evaluate(
        self, i: np.ndarray, j: np.ndarray, r: np.ndarray
    ) -> tuple[list[float], np.ndarray]:
        """Interaction energy (eV, double) of each structure, and the gradient of their sum to the
        vectors r (e, 3)."""
        vectors = torch.as_tensor(r, dtype=self.dtype, device=self.device).requires_grad_(True)
        data = dict(self._fixed)
        data["edge_index"] = torch.as_tensor(np.stack([i, j]), device=self.device)
        data["positions"] = torch.zeros_like(self._origin)
        data["shifts"] = data["unit_shifts"] = vectors
        out = self._model(data, compute_force=False)
        energies = out.get("node_energy")
        target = out["interaction_energy"] if "interaction_energy" in out else out["energy"]
        (gradient,) = torch.autograd.grad(target.sum(), vectors)
        per_atom = energies.detach().cpu().double().numpy() - self._node_e0
        energy = [float(part.sum()) for part in np.split(per_atom, self._copies)]
        return energy, gradient.cpu().double().numpy()

    def _set_numbers(self, numbers: np.ndarray, copies: int) -> None:
        known = {int(z): k for k, z in enumerate(self._table)}
        missing = sorted({int(z) for z in numbers} - set(known))
        if missing:
            from ase.data import chemical_symbols as symbols

            has = ", ".join(symbols[z] for z in known)
            raise InputError("element", symbols[missing[0]], f"{self.name} knows {has}")
        kinds = np.array([known[int(z)] for z in numbers], int)
        self._total_e0 = float(self._exact_e0[kinds].sum())
        kinds = np.tile(kinds, copies)
        n = len(kinds)
        where: dict[str, Any] = {"device": self.device}
        one_hot = np.eye(len(self._table))[kinds]
        self._fixed = {
            "node_attrs": torch.as_tensor(one_hot, dtype=self.dtype, **where),
            "batch": torch.zeros(n, dtype=torch.long, **where),
            "ptr": torch.tensor([0, n], dtype=torch.long, **where),
            "head": torch.tensor([self._head], dtype=torch.long, **where),
            "cell": torch.zeros((3, 3), dtype=self.dtype, **where),
        }
        for name, value in self._system.items():
            kind = torch.long if self._embedded[name].get("type") == "categorical" else self.dtype
            self._fixed[name] = torch.tensor([value], dtype=kind, **where)
        self._origin = torch.zeros((n, 3), dtype=self.dtype, **where)
        self._node_e0 = self._rounded_e0[kinds]
        self._numbers, self._copies = np.array(numbers), copies
        while len(self._lists) < copies:
            self._lists.append(SkinList(float(self.cutoff_A or 0.0)))
        del self._lists[copies:]


def load_folder(folder: Path, device: str = "cpu", dtype: str | None = None) -> MaceTeacher:
    """A MACE teacher from our own folder (``mace_model.save_mace``).

    Raises:
        InputError: wrong format, newer version, truncated weights, or a pickle.
    """
    try:
        model, record = load_mace(folder)
    except (RuntimeError, KeyError) as error:
        line = str(error).splitlines()[0]
        raise InputError("model", folder, f"its weights do not fit its model.json ({line})") from (
            error
        )
    name = record.get("card", {}).get("name", folder.name)
    identity = file_sha256(folder / WEIGHTS)
    e0 = np.asarray(record["architecture"]["atomic_energies_eV"], float)
    return MaceTeacher(model, name, identity, device, dtype, atomic_energies_eV=e0)


def load_mace_torch(
    source: str, options: dict[str, Any], device: str = "cpu", dtype: str | None = None
) -> MaceTeacher:
    """A MACE teacher from mace-torch's own file, or a foundation model by MACE's name.

    The file is a pickle: it is read only because the user named it as a teacher. A name is
    downloaded by mace-torch into its cache at the first use.

    Args:
        source: path of a ``.model`` file, or a name such as ``medium-mpa-0``.
        options: ``head``: the head of a model that has several.

    Raises:
        InputError: neither a file nor a known name, not loadable, or an unknown head.
    """
    unknown = set(options) - {"head"}
    if unknown:
        raise InputError("mace keywords", json.dumps(options), "known: head")
    modules = import_mace()
    path = Path(source).expanduser()
    if not path.is_file():
        path = _download(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # unpickling raises whatever it likes
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError("model", path, f"cannot be loaded as a MACE model ({line})") from error
    if not isinstance(model, modules.MACE):
        raise InputError(
            "model",
            path,
            f"holds a {type(model).__name__}; MACE and ScaleShiftMACE are read here, "
            "others through ase:mace.calculators.MACECalculator",
        )
    heads = list(getattr(model, "heads", None) or ["Default"])
    return MaceTeacher(model, path.stem, file_sha256(path), device, dtype, _head(options, heads))


def _head(options: dict[str, Any], heads: list[str]) -> int:
    wanted = options.get("head")
    if wanted is None:
        if len(heads) == 1:
            return 0
        wanted = next((h for h in heads if h.lower() == "default"), None)
    if wanted not in heads:
        raise InputError(
            "head", wanted, f'choose one of {", ".join(heads)}: mace:FILE {{"head": "NAME"}}'
        )
    return heads.index(wanted)


def _download(name: str) -> Path:
    from mace.calculators import foundations_models as foundations

    names = [n for n in foundations.mace_mp_names if n]
    off = [f"off-{size}" for size in ("small", "medium", "large")]
    if name not in names and name not in off:
        raise InputError(
            "model", name, f"is neither a file nor one of MACE's names: {', '.join(names + off)}"
        )
    try:
        if name not in off:
            return Path(foundations.download_mace_mp_checkpoint(name))
        url = foundations.mace_off_urls[name.removeprefix("off-")]
        cached = Path(foundations.get_cache_dir()) / url.split("?")[0].rsplit("/", 1)[-1]
        try:
            foundations.mace_off(model=name.removeprefix("off-"), return_raw_model=True)
        except Exception:  # it downloads, then loads: only the file matters here
            if not cached.is_file():
                raise
        return cached
    except Exception as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            "model",
            name,
            f"cannot be downloaded ({line}); connect to the internet once, or give a file",
        ) from error
