"""Teachers against their own codes, against numerical gradients, and wrong input."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from dmts_ipi.core.errors import InputError, MissingPackage, ModelFault
from dmts_ipi.core.model import ForceModel
from dmts_ipi.core.neighbours import neighbour_pairs
from dmts_ipi.models.load import load_model, parse_spec, read_record
from dmts_ipi.models.skin import SkinList
from toy_water import toy_box

ANI = Path("/work/shared/models/ani1ccx_model0.fnx")
ARCHITECTURE = {
    "hidden_irreps": "4x0e + 4x1o",
    "mlp_irreps": "4x0e",
    "r_max_A": 3.5,
    "max_ell": 2,
    "correlation": 2,
    "num_interactions": 2,
    "num_bessel": 4,
    "num_polynomial_cutoff": 6,
    "radial_mlp": [8],
    "elements": [1, 8],
    "atomic_energies_eV": [-155.956302, -467.868906],
    "avg_num_neighbors": 12.0,
    "scale_eV": 0.8,
    "shift_eV": 0.0,
}


def structure(periodic: bool = True, side: int = 2, seed: int = 0) -> Atoms:
    """A disturbed toy box in a sheared cell, with molecules in other images."""
    rng = np.random.default_rng(seed)
    atoms = toy_box(side, periodic=periodic)
    atoms.rattle(0.03, rng=rng)
    if periodic:
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(0, 0.03, (3, 3))), True)
        atoms.positions[3:9] += atoms.cell.array[0] - 2 * atoms.cell.array[2]
    return atoms


def compute(model: ForceModel, atoms: Atoms):
    return model.compute(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)


def check_gradients(model: ForceModel, atoms: Atoms, h: float, tolerance: float) -> None:
    """Forces against the energy, virial against a strain derivative."""
    result = compute(model, atoms)
    for atom, axis in ((0, 0), (4, 1), (len(atoms) - 1, 2)):
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[atom, axis] += sign * h
            energies.append(compute(model, moved).energy_eV)
        force = -(energies[0] - energies[1]) / (2 * h)
        assert force == pytest.approx(result.forces_eV_per_A[atom, axis], abs=tolerance)
    if result.virial_eV is None:
        return
    for a, b in ((0, 0), (1, 2), (2, 0)):
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[a, b] += sign * h
            moved = atoms.copy()
            moved.set_cell(atoms.cell.array @ strain)
            moved.positions = atoms.positions @ strain
            energies.append(compute(model, moved).energy_eV)
        virial = -(energies[0] - energies[1]) / (2 * h)
        assert virial == pytest.approx(result.virial_eV[a, b], abs=10 * tolerance)


@pytest.fixture(scope="module")
def mace_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny MACE with random weights, in our format, made in double."""
    pytest.importorskip("mace", reason="mace-torch is not installed")
    from dmts_ipi.models.mace_model import build_mace, save_mace

    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        model = build_mace(ARCHITECTURE)
    finally:
        torch.set_default_dtype(before)
    folder = tmp_path_factory.mktemp("mace") / "tiny"
    save_mace(folder, model.float(), ARCHITECTURE, {"name": "tiny"})
    return folder


@pytest.fixture(scope="module")
def double(mace_folder: Path) -> ForceModel:
    return load_model(str(mace_folder), dtype="float64")


@pytest.fixture(scope="module")
def single(mace_folder: Path) -> ForceModel:
    return load_model(str(mace_folder))


@pytest.mark.parametrize("periodic", [True, False])
def test_mace_gradients(double: ForceModel, periodic: bool) -> None:
    check_gradients(double, structure(periodic), 1e-4, 1e-6)


@pytest.mark.parametrize("spacing_A", [3.1, 2.6])  # the second box is thinner than 2 r_max
def test_mace_equals_mace_torch(
    mace_folder: Path, double: ForceModel, single: ForceModel, spacing_A: float
) -> None:
    from dmts_ipi.models.mace_model import load_mace, mace_graph

    atoms = structure()
    atoms.set_cell(atoms.cell.array * spacing_A / 3.1, scale_atoms=True)
    raw, record = load_mace(mace_folder)
    elements = record["architecture"]["elements"]
    pairs = neighbour_pairs(atoms.positions, atoms.cell.array, atoms.pbc, ARCHITECTURE["r_max_A"])
    graph = mace_graph(
        atoms.numbers, atoms.positions, atoms.cell.array, pairs, elements, torch.float64
    )
    out = raw.double()(graph, compute_virials=True)
    forces = out["forces"].detach().numpy()
    virial = out["virials"][0].detach().numpy()
    got = compute(double, atoms)
    np.testing.assert_allclose(got.forces_eV_per_A, forces, atol=1e-10)
    np.testing.assert_allclose(got.virial_eV, virial, atol=1e-9)
    np.testing.assert_allclose(compute(single, atoms).forces_eV_per_A, forces, atol=2e-5)
    table = dict(zip(elements, ARCHITECTURE["atomic_energies_eV"], strict=True))
    reference = sum(table[z] for z in atoms.numbers)
    assert got.energy_eV - reference == pytest.approx(out["interaction_energy"].item(), abs=1e-9)


def test_mace_energy_keeps_double_precision(double: ForceModel, single: ForceModel) -> None:
    """Reference energies (here -6 keV) must not swallow meV: float32 resolves 0.5 meV of them."""
    energies = []
    for shift in (0.0, 1e-3, 2e-3):
        atoms = structure()
        atoms.positions[1, 0] += shift
        energies.append((compute(double, atoms).energy_eV, compute(single, atoms).energy_eV))
    exact, rounded = np.array(energies).T
    assert exact[0] < -5000
    np.testing.assert_allclose(rounded, exact, atol=1e-5, rtol=0)


def test_mace_does_not_depend_on_its_list(double: ForceModel) -> None:
    fresh = copy.copy(double)
    rng = np.random.default_rng(5)
    atoms = structure()
    for _ in range(6):
        atoms.rattle(0.06, rng=rng)
        atoms.set_cell(atoms.cell.array * (1 + rng.normal(0, 0.004)), scale_atoms=True)
        fresh._list = SkinList(fresh.cutoff_A)
        a, b = compute(double, atoms), compute(fresh, atoms)
        np.testing.assert_allclose(a.forces_eV_per_A, b.forces_eV_per_A, atol=1e-11)


def test_mace_pickle_named_by_the_user(
    mace_folder: Path, double: ForceModel, tmp_path: Path
) -> None:
    from dmts_ipi.models.mace_model import load_mace

    raw, _ = load_mace(mace_folder)
    torch.save(raw, tmp_path / "tiny.model")
    model = load_model(f"mace:{tmp_path / 'tiny.model'}", dtype="float64")
    want = compute(double, structure())
    np.testing.assert_allclose(
        compute(model, structure()).forces_eV_per_A, want.forces_eV_per_A, atol=1e-10
    )
    with pytest.raises(InputError, match="head"):
        load_model(f'mace:{tmp_path / "tiny.model"} {{"head": "nonsense"}}')
    (tmp_path / "bad.model").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="cannot be loaded as a MACE model"):
        load_model(f"mace:{tmp_path / 'bad.model'}")


def test_mace_unknown_element(single: ForceModel) -> None:
    atoms = structure()
    atoms.numbers[0] = 26
    with pytest.raises(InputError, match="Fe"):
        compute(single, atoms)


def test_mace_nan_is_a_fault(single: ForceModel) -> None:
    atoms = structure()
    atoms.positions[3, 1] = np.nan
    with pytest.raises(ModelFault, match="atom 3"):
        compute(single, atoms)


def test_unknown_mace_name() -> None:
    pytest.importorskip("mace", reason="mace-torch is not installed")
    with pytest.raises(InputError, match="neither a file nor one of MACE's names"):
        load_model("mace:giant-model-of-everything")


def test_mace_name_without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    foundations = pytest.importorskip("mace.calculators.foundations_models")

    def offline(name: str) -> str:
        raise RuntimeError("Name or service not known")

    monkeypatch.setattr(foundations, "download_mace_mp_checkpoint", offline)
    with pytest.raises(InputError, match="cannot be downloaded"):
        load_model("mace:medium-mpa-0")


def test_skin_list_equals_a_fresh_search() -> None:
    """Random walks of atoms and cell: same edges as a search from nothing, few searches."""
    rng = np.random.default_rng(3)
    atoms = structure(side=3)
    reused = SkinList(3.0, 0.6)
    for _ in range(40):
        atoms.positions += rng.normal(0, 0.01, atoms.positions.shape)
        atoms.set_cell(
            atoms.cell.array @ (np.eye(3) + rng.normal(0, 2e-4, (3, 3))), scale_atoms=True
        )
        i, j, r = reused.edges(atoms.positions, atoms.cell.array, atoms.pbc)
        want = neighbour_pairs(atoms.positions, atoms.cell.array, atoms.pbc, 3.0)
        vectors = atoms.positions[want.j] - atoms.positions[want.i] + want.shifts @ atoms.cell.array

        def rows(a, b, v):
            return np.array(sorted(np.column_stack([a, b, np.round(v, 6)]).tolist()))

        np.testing.assert_allclose(rows(i, j, r), rows(want.i, want.j, vectors), atol=1e-5)
    assert reused.searches < 10


@pytest.mark.parametrize("periodic", [True, False])
def test_ase_calculator(periodic: bool) -> None:
    from toy_water import ToyWater

    atoms = toy_box(periodic=periodic)
    atoms.rattle(0.03, seed=1)
    model = load_model('ase:toy_water.ToyWater {"strength": 0.3}')
    result = compute(model, atoms)
    atoms.calc = ToyWater(strength=0.3)
    np.testing.assert_allclose(result.forces_eV_per_A, atoms.get_forces())
    assert (result.virial_eV is None) is not periodic
    atoms.calc = None
    check_gradients(model, atoms, 1e-4, 1e-5)
    assert model.identity != load_model("ase:toy_water.ToyWater").identity


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("ase:EMT", "module.Class"),
        ("ase:no.such.module.Class", "cannot be imported"),
        ("ase:ase.calculators.emt.Nothing", "has no Nothing"),
        ('ase:toy_water.ToyWater {"strength"}', "not JSON"),
        ("ase:collections.OrderedDict", "not an ASE calculator"),
        ("no-such-model", "does not exist"),
        ("fennol:nothing.fnx", "does not exist"),
        ("metatomic:nothing.pt", "does not exist"),
        ('no-such-model {"a": 1}', "keywords need a prefix"),
    ],
)
def test_wrong_specs(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_model(spec)


def test_ase_calculator_that_raises_is_a_fault() -> None:
    model = load_model("ase:ase.calculators.emt.EMT")
    with pytest.raises(ModelFault, match="Fe"):
        compute(model, Atoms("Fe2", [[0, 0, 0], [0, 0, 2.0]]))


def test_parse_spec_keywords() -> None:
    spec = parse_spec('ase:a.b.C{"x": {"y": 1}}')
    assert (spec.kind, spec.target, spec.keywords) == ("ase", "a.b.C", {"x": {"y": 1}})


# ------------------------------------------------------------------- model files


def copy_of(folder: Path, target: Path) -> Path:
    target.mkdir()
    for name in ("model.json", "model.safetensors"):
        (target / name).write_bytes((folder / name).read_bytes())
    return target


def test_truncated_weights(mace_folder: Path, tmp_path: Path) -> None:
    folder = copy_of(mace_folder, tmp_path / "cut")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:-100])
    with pytest.raises(InputError, match="truncated"):
        load_model(str(folder))


def test_pickle_where_safetensors_belong(mace_folder: Path, tmp_path: Path) -> None:
    folder = copy_of(mace_folder, tmp_path / "pickle")
    torch.save({"a": torch.ones(2)}, folder / "model.safetensors")
    with pytest.raises(InputError, match="is a pickle"):
        read_record(str(folder))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 99}, "newer"),
        ({"format": "other"}, "is not one of"),
        ({"architecture": {**ARCHITECTURE, "num_bessel": 6}}, "do not fit"),
    ],
)
def test_wrong_record(mace_folder: Path, tmp_path: Path, change: dict, message: str) -> None:
    folder = copy_of(mace_folder, tmp_path / "wrong")
    record = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**record, **change}))
    with pytest.raises(InputError, match=message):
        load_model(str(folder))


def test_record_is_no_json(mace_folder: Path, tmp_path: Path) -> None:
    folder = copy_of(mace_folder, tmp_path / "broken")
    (folder / "model.json").write_text('{"format": ')
    with pytest.raises(InputError, match="not JSON"):
        read_record(str(folder))


def test_device_that_is_not_there(mace_folder: Path) -> None:
    with pytest.raises(InputError, match="device"):
        load_model(str(mace_folder), device="abacus")


# ------------------------------------------------------------------- other codes


@pytest.mark.parametrize("name", ["toy", "ANI-1ccx"])
def test_fennol_gas_phase_and_periodic(name: str, tmp_path: Path) -> None:
    pytest.importorskip("fennol", reason="fennol is not installed")
    from fennol.ase import FENNIXCalculator

    from toy_fennol import export

    file = ANI
    if name == "toy":
        export(file := tmp_path / "toy.fnx")
    elif not ANI.exists():
        pytest.skip("../shared is absent: no ANI-1ccx")
    model = load_model(str(file))
    assert model.elements == {1, 6, 7, 8}
    ethanol = molecule("CH3CH2OH")
    result = compute(model, ethanol)
    ethanol.calc = FENNIXCalculator(str(file), gpu_preprocessing=False)
    np.testing.assert_allclose(result.forces_eV_per_A, ethanol.get_forces(), atol=1e-4)
    assert result.energy_eV == pytest.approx(ethanol.get_potential_energy(), abs=2e-3)
    ethanol.calc = None
    ethanol.cell, ethanol.pbc = np.eye(3) * 14.0, True
    ethanol.positions += [20.0, -3.0, 4.0]
    periodic = compute(model, ethanol)
    np.testing.assert_allclose(periodic.forces_eV_per_A, result.forces_eV_per_A, atol=1e-3)
    np.testing.assert_allclose(periodic.virial_eV, result.virial_eV, atol=1e-3)
    strain = np.eye(3)
    energies = []
    for sign in (1, -1):
        strain[0, 0] = 1 + sign * 2e-3
        energies.append(
            model.compute(
                ethanol.numbers, ethanol.positions @ strain, ethanol.cell.array @ strain, [True] * 3
            ).energy_eV
        )
    assert -(energies[0] - energies[1]) / 4e-3 == pytest.approx(periodic.virial_eV[0, 0], abs=0.02)
    with pytest.raises(InputError, match="element = S"):
        compute(model, molecule("SH2"))


def test_metatomic_exported_model(tmp_path: Path) -> None:
    pytest.importorskip("metatomic.torch", reason="metatomic-torch is not installed")
    from toy_metatomic import export

    export(tmp_path / "pair.pt")
    model = load_model(f"metatomic:{tmp_path / 'pair.pt'}")
    assert (model.elements, model.cutoff_A) == ({1, 8}, 4.0)
    check_gradients(model, structure(), 1e-4, 1e-6)
    with pytest.raises(InputError, match="exported for float64"):
        load_model(f"metatomic:{tmp_path / 'pair.pt'}", dtype="float32")


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "fennol", None)
    monkeypatch.setitem(sys.modules, "metatomic.torch", None)
    (tmp_path / "a.fnx").write_bytes(b"")
    (tmp_path / "a.pt").write_bytes(b"")
    with pytest.raises(MissingPackage, match=r"dmts-ipi\[fennol\]"):
        load_model(str(tmp_path / "a.fnx"))
    with pytest.raises(MissingPackage, match=r"dmts-ipi\[metatomic\]"):
        load_model(f"metatomic:{tmp_path / 'a.pt'}")
