"""The conformance check finds what is wrong, and passes what is right."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import write

from dmts_ipi.cli import main
from dmts_ipi.core.conformance import FAIL, PASS, SKIP, Subject, check_model
from dmts_ipi.core.errors import InputError
from dmts_ipi.core.model import ForceResult
from dmts_ipi.ipi.client.check import DRIVER_CHECKS, DriverCheck
from dmts_ipi.ipi.client.check_server import Server
from dmts_ipi.ipi.client.client import Endpoint
from driver_models import PairModel
from places import SUPPORT

PROGRAM = SUPPORT / "driver_models.py"


@pytest.fixture
def water() -> Atoms:
    x = [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0], [2.6, 0.3, 1], [3.2, 1, 1.2], [2.9, -0.4, 1.6]]
    return Atoms("OH2OH2", x, cell=[[5.5, 0, 0], [0.7, 5.2, 0], [-0.3, 0.4, 5.8]], pbc=True)


@pytest.fixture
def name(name: str) -> Iterator[str]:
    """The one of conftest.py, whose socket the check must not leave behind."""
    yield name
    assert not Path(f"/tmp/ipi_{name}").exists()


def subject(model: object, atoms: Atoms, **fields: object) -> Subject:
    return Subject(
        model=model,  # type: ignore[arg-type]
        numbers=atoms.numbers,
        positions=atoms.positions,
        cell=atoms.cell.array,
        pbc=atoms.pbc,
        **{"tolerance_eV_per_A": 1e-6, **fields},  # type: ignore[arg-type]
    )


def failed(model: object, atoms: Atoms, **fields: object) -> set[str]:
    return {c.name for c in check_model(subject(model, atoms, **fields)) if c.status == FAIL}


def test_a_good_model_passes_everything(water: Atoms) -> None:
    table = check_model(subject(PairModel(), water))
    assert {c.name: c.status for c in table if c.status != PASS} == {}


def test_a_cluster_is_checked_without_a_cell(water: Atoms) -> None:
    water.set_pbc(False)
    table = check_model(subject(PairModel(), water))
    assert {c.status for c in table} == {PASS, SKIP}


def test_virial_without_energy_is_still_checked(water: Atoms) -> None:
    model = PairModel(fault="no-energy")
    model.conservative = False
    table = {c.name: c for c in check_model(subject(model, water))}
    assert table["virial"].status == PASS
    assert "cluster" in table["virial"].detail
    assert table["gradient"].status == SKIP


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ("nan", {"shapes"}),
        ("raise", {"shapes"}),
        ("shape", {"shapes"}),
        ("stateful", {"determinism"}),
        ("drift", {"net force", "rotation", "permutation", "gradient"}),
        ("jump", {"smoothness", "cutoff"}),
    ],
)
def test_faults_are_found(fault: str, found: set[str], water: Atoms) -> None:
    assert found <= failed(PairModel(fault=fault), water)


class Wrong(PairModel):
    """One mistake of each kind that a real model makes."""

    def __init__(self, mistake: str) -> None:
        super().__init__()
        self.mistake = mistake
        self.buffer = np.zeros((0, 3))

    def compute(
        self, numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray
    ) -> ForceResult:
        if self.mistake == "wraps in place":
            positions[0] += 1e-9
        if self.mistake == "minimum image":
            cell = cell + 1e-3 * np.floor(positions[0])[:, None]
        r = super().compute(numbers, positions, cell, pbc)
        f, e, w = r.forces_eV_per_A, r.energy_eV, r.virial_eV
        assert e is not None
        assert w is not None
        if self.mistake == "sign of the virial":
            w = -w
        if self.mistake == "energy in another unit":
            e *= 1.02
        if self.mistake == "external field":
            f = f + 0.01 * np.sin(positions)
        if self.mistake == "reused buffer":
            if len(self.buffer) != len(f):
                self.buffer = f.copy()
            self.buffer[:] = f
            f = self.buffer
        return ForceResult(e, f, w)


@pytest.mark.parametrize(
    ("mistake", "found"),
    [
        ("wraps in place", "shapes"),
        ("minimum image", "periodic images"),
        ("sign of the virial", "virial"),
        ("energy in another unit", "gradient"),
        ("external field", "translation"),
        ("reused buffer", "determinism"),
    ],
)
def test_mistakes_are_found(mistake: str, found: str, water: Atoms) -> None:
    assert found in failed(Wrong(mistake), water)


def test_unknown_check_to_skip(water: Atoms) -> None:
    with pytest.raises(
        InputError, match="skip = colour: is not the name of a check; known: shapes"
    ):
        check_model(subject(PairModel(), water), skip=["colour"])


def test_our_driver_passes(water: Atoms, name: str, tmp_path: Path) -> None:
    """The whole table over a socket: exchange, model, EXIT, crash, SIGTERM."""
    write(tmp_path / "water.extxyz", water)
    options = ["--model", "pair", "--structure", str(tmp_path / "water.extxyz"), "--unix", name]
    check = DriverCheck(
        Endpoint.unix(name),
        subject(None, water, conservative=True),
        [sys.executable, str(PROGRAM), *options],
        reconnect_timeout_s=100.0,
    )
    table = {c.name: c for c in check.run()}
    assert [c for c in table.values() if c.status == FAIL] == []
    assert set(DRIVER_CHECKS) < set(table)
    assert table["SIGTERM"].detail.endswith("with status 0")
    assert table["gradient"].status == table["virial"].status == PASS


def test_a_driver_that_dies_or_never_comes(
    water: Atoms, name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Through the command line: status 1, the reason in the table, nothing left behind."""
    structure = str(tmp_path / "water.extxyz")
    write(structure, water)
    base = ["check-driver", "--structure", structure, "--unix", name, "--json"]
    dies = f'{sys.executable} -c "raise SystemExit(3)"'
    assert main([*base, "--command", dies]) == 1
    (row,) = json.loads(capfd.readouterr().out)["checks"]
    assert row["name"] == "handshake"
    assert row["detail"] == "the driver ended with status 3"
    assert main([*base, "--timeout-s", "0.2"]) == 1
    assert "within 0.2 s" in capfd.readouterr().out


def test_wrong_options(
    water: Atoms, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    structure = str(tmp_path / "water.extxyz")
    write(structure, water)
    base = ["check-driver", "--structure", structure]
    with Server(Endpoint.unix(name)):
        for options, message in (
            ([], "give --model, or --unix or --port, not both"),
            (["--model", "a", "--unix", "b"], "not both"),
            (["--unix", name], "cannot be used (Address already in use)"),
            (["--unix", name, "--skip", "colour"], "skip = colour: is not the name of a check"),
            (["--unix", name, "--command", '"'], "No closing quotation"),
            (["--unix", name, "--tolerance-eV-per-A", "-1"], "must be positive"),
        ):
            assert main([*base, *options]) == 2
            err = capsys.readouterr().err
            assert message in err
            assert err.strip().splitlines()[-1].startswith("dmts-ipi check-driver: error:")
        assert Path(f"/tmp/ipi_{name}").exists()  # not ours to remove
