"""Frames and restart states that are written with less work: the same bytes as i-PI's own."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from ipi import ipi_global_settings
from ipi.engine.atoms import Atoms
from ipi.engine.cell import Cell
from ipi.inputs.outputs import InputOutputs
from ipi.inputs.simulation import InputSimulation
from ipi.utils import io as ipi_io
from ipi.utils.inputvalue import InputArray

from dmts_ipi.ipi import fixed_width
from dmts_ipi.ipi.patches import fast_checkpoints, fast_xyz_writer
from exchange_tools import PLAIN
from integrator_tools import Run, simulation_xml


@pytest.fixture
def registered() -> Iterator[None]:
    fast_xyz_writer.install()
    fast_checkpoints.install()
    yield
    fast_xyz_writer.remove()
    fast_checkpoints.remove()


def python_lines(values: np.ndarray) -> bytes:
    line = "%8s %12.5e %12.5e %12.5e\n"
    return "".join(line % ("O", *row) for row in values.tolist()).encode()


def rendered(values: np.ndarray) -> bytes | None:
    labels = np.frombuffer(b"       O" * len(values), np.uint8).reshape(-1, 8)
    return fixed_width.render(labels, values)


def test_numbers_are_those_of_python_to_the_last_byte() -> None:
    rng = np.random.default_rng(2)
    shape = (3000, 3)
    powers = 10.0 ** rng.integers(-15, 18, size=shape)
    halves = (rng.integers(100000, 1000000, size=shape) + 0.5) * 10.0 ** rng.integers(-8, 5, shape)
    special = np.array(
        [
            [0.0, -0.0, 1.0],
            [9.999995, 9.9999949999, 99999.95],
            [999999.5, -9.99999999e5, 5e-9],
            [1e-17, -1e-22, 1e20],
            [5e-324, 1e-99, 1e-100],
            [1.7e308, np.inf, np.nan],
        ]
    )
    parts = [rng.normal(size=shape) * powers, powers, np.nextafter(powers, 0), halves, special]
    values = np.concatenate(parts)
    assert rendered(values) == python_lines(values)
    assert rendered(np.array([[1.0, 2.0, -1e-100]])) is None  # 13 characters
    assert rendered(np.zeros((0, 3))) == b""


def test_frames_are_those_of_ipi(registered: None, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    stock: list[str] = []
    plain = fast_xyz_writer._STOCK_PRINT
    monkeypatch.setattr(
        fast_xyz_writer,
        "_STOCK_PRINT",
        lambda mode, *a, **o: (stock.append(mode), plain(mode, *a, **o)),
    )
    for names, mode, quick in (
        (["O", "H", "H"], "xyz", True),
        (["Xx1234", "H", ""], "xyz", True),
        (["O", "\u00c5"], "xyz", False),
        (["O", "H"], "pdb", False),
    ):
        atoms, cell = Atoms(len(names)), Cell(np.diag([9.0, 8.0, 7.0]) + np.eye(3, k=1))
        atoms.names = np.array(names)
        atoms.q[:] = rng.normal(size=3 * len(names)) * 5
        frames = [io.StringIO(), io.StringIO()]
        options = {"key": "positions", "units": "angstrom", "cell_units": "angstrom"}
        stock.clear()
        ipi_io.print_file(mode, atoms, cell, frames[0], title="Step: 3 ", **options)
        assert stock == ([] if quick else [mode])
        fast_xyz_writer.remove()
        ipi_io.print_file(mode, atoms, cell, frames[1], title="Step: 3 ", **options)
        fast_xyz_writer.install()
        assert frames[0].getvalue() == frames[1].getvalue() != ""


@pytest.mark.parametrize("form", ["%24.16e", "%-24.16e", "%.3f"])
@pytest.mark.parametrize("dtype", [float, int, str, bool])
def test_arrays_are_those_of_ipi(
    registered: None, monkeypatch: pytest.MonkeyPatch, form: str, dtype: type
) -> None:
    monkeypatch.setitem(ipi_global_settings, "floatformat", form)
    rng = np.random.default_rng(4)
    for size in (0, 1, 5, 6, 10, 11, 1944):
        array = InputArray(dtype=dtype)
        values = rng.normal(size=size) * 10.0 ** rng.integers(-300, 300, size=size)
        if dtype is float:
            values[1:4] = [np.inf, np.nan, -0.0][: max(size - 1, 0)]
        array.store((values.clip(-9, 9) if dtype is int else values).astype(dtype))
        for _ in "ab":  # the second value replaces the first one's text
            quick = [array.write(name="q", indent=indent) for indent in ("  ", "")]
            fast_checkpoints.remove()
            assert [array.write(name="q", indent=indent) for indent in ("  ", "")] == quick
            fast_checkpoints.install()
            array.store(array.fetch()[::-1])


def test_states_are_kept_at_multiples_of_the_stride_and_not_too_often(
    registered: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {}
    for seconds_per_step in (0.2, 0.12):  # every third step takes 0.6 s; 0.36 s are too soon
        now = iter(np.arange(100) * seconds_per_step)
        monkeypatch.setattr(fast_checkpoints.time, "monotonic", lambda now=now: next(now))
        stride = fast_checkpoints.Stride(3)
        kept[seconds_per_step] = [step for step in range(20) if (step + 1) % stride == 0]
    assert kept == {0.2: [2, 5, 8, 11, 14, 17], 0.12: [5, 11, 17]}

    run = Run(simulation_xml(PLAIN).replace("safe_stride='1000000'", "safe_stride='3'"))
    monkeypatch.setattr(fast_checkpoints, "_STOCK_RUN", lambda simulation, _: None)
    run.simulation.run()
    assert isinstance(run.simulation.safe_stride, fast_checkpoints.Stride)
    status = InputSimulation()
    status.store(run.simulation)
    assert " safe_stride='3' " in status.write(name="simulation").splitlines()[0]


def test_restart_states_are_those_of_ipi_and_outputs_are_described_once(
    registered: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    described: list[Any] = []
    plain = fast_checkpoints._STOCK_STORE

    def stock(self: Any, outputs: Any) -> None:
        described.append(self)
        plain(self, outputs)

    run = Run(simulation_xml(PLAIN))
    status = InputSimulation()
    status.store(run.simulation)
    for k in range(3):
        if k == 2:
            run.simulation.outtemplate[0].step += 1  # a checkpoint has been written
        run.step(2)
        run.simulation.step = run.done
        monkeypatch.setattr(fast_checkpoints, "_STOCK_STORE", stock)
        status.store(run.simulation)
        monkeypatch.undo()
        with monkeypatch.context() as m:
            m.setattr(InputOutputs, "store", plain)
            fresh = InputSimulation()
            fresh.store(run.simulation)
        assert status.write(name="simulation") == fresh.write(name="simulation")
    assert len(described) == 1
