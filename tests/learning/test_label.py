"""Sampling and labelling: resume, shards, sanity, geometries, wrong input."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest
from ase.io import write

from dmts_ipi.cli import main
from dmts_ipi.core.errors import InputError, RunFault
from dmts_ipi.core.frames import Frame, bursts, read_frames
from dmts_ipi.core.molecules import bonds
from dmts_ipi.core.neighbours import neighbour_pairs
from dmts_ipi.core.units import AMU_A2_PER_FS2_IN_EV
from dmts_ipi.ipi.run_folder.resources import inputs_folder
from dmts_ipi.learning.labelling import store as label_store
from dmts_ipi.learning.labelling.config import LabelConfig
from dmts_ipi.learning.labelling.geometry import rattle, scale_cell, share_protons, stretch_bonds
from dmts_ipi.learning.labelling.label import Labeller, read_structures
from dmts_ipi.learning.labelling.sampler import Langevin, hmr_masses, relax, thermal_velocities
from dmts_ipi.learning.labelling.tasks import Schedule, Task, parse_shard, plan
from dmts_ipi.models.load import load_model
from toy_water import BOND_A, ToyWater, toy_box

TOY = "ase:toy_water.ToyWater"
SHORT = {
    "teacher": TOY,
    "structures": ["unused"],
    "temperatures_K": [300.0, 350.0],
    "time_ps": 0.04,
    "equilibrate_ps": 0.02,
    "every_fs": 10.0,
    "rattle_every": 2,
    "stretch_every": 2,
    "bursts": 2,
    "burst_frames": 16,
    "burst_gap_fs": 5.0,
    "cell_scales": [0.98],
}


class Interrupted(Exception):
    """Stands for SIGKILL."""


def labeller(out: Path, teacher=None, shard=(1, 1), frames=(), **changes) -> Labeller:
    config = LabelConfig(**{**SHORT, **changes})
    start = Frame.from_atoms(toy_box())
    structures = [start] if config.structures else []
    return Labeller(config, teacher or load_model(TOY), structures, list(frames), out, shard=shard)


def same(a: list[Frame], b: list[Frame]) -> None:
    assert len(a) == len(b)
    for f, g in zip(a, b, strict=True):
        assert (f.source, f.burst, f.time_fs) == (g.source, g.burst, g.time_fs)
        np.testing.assert_array_equal(f.positions, g.positions)
        np.testing.assert_array_equal(f.forces, g.forces)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "labels.extxyz"
    labeller(out).run()
    return out


def test_what_is_written(whole: Path) -> None:
    frames = read_frames(whole)
    plain = [f for f in frames if f.source.startswith("run")]
    assert len(plain) == 4 * 4  # four runs (two temperatures, two cells) of four frames
    assert sum(f.source.startswith("rattled") for f in frames) == 8
    assert sum(f.source.startswith("X-H") for f in frames) == 8
    groups = bursts(frames)
    assert [len(g) for g in groups] == [16, 16]
    assert [f.time_fs for f in groups[0]] == list(range(16))
    assert all(f.virial_eV is not None and f.energy_eV is not None for f in frames)
    assert {round(float(f.cell[0, 0]), 3) for f in plain} == {6.2, 6.076}


def test_bursts_are_undisturbed_trajectories(whole: Path) -> None:
    """Positions follow the velocities that are written, and energy is conserved."""
    frames = bursts(read_frames(whole))[0]
    masses = hmr_masses(frames[0], 3.0)
    x = np.array([f.positions for f in frames])
    v = np.array([f.velocities_A_per_fs for f in frames])
    np.testing.assert_allclose((x[2:] - x[:-2]) / 2.0, v[1:-1], atol=3e-4)
    kinetic = 0.5 * (masses[:, None] * v**2).sum((1, 2)) * AMU_A2_PER_FS2_IN_EV
    total = kinetic + [f.energy_eV for f in frames]
    assert np.ptp(total) < 0.1 * np.ptp(kinetic)


@pytest.mark.parametrize("after", [40, 130, 260, 301])
def test_resumed_equals_unbroken(whole: Path, tmp_path: Path, after: int) -> None:
    out = tmp_path / "labels.extxyz"
    broken = load_model(TOY)
    compute, calls = broken.compute, 0

    def dies(*args):
        nonlocal calls
        calls += 1
        if calls > after:
            raise Interrupted
        return compute(*args)

    broken.compute = dies
    with pytest.raises(Interrupted):
        labeller(out, broken).run()
    with open(out, "ab") as stream:  # what was written when the power went
        stream.write(b"24\nProperties=spec")
    labeller(out).run()
    same(read_frames(out), read_frames(whole))
    size = out.stat().st_size
    assert labeller(out).run().written == 0
    assert out.stat().st_size == size


def test_shards_cover_all(whole: Path, tmp_path: Path) -> None:
    parts: list[Frame] = []
    for k in (1, 2, 3):
        out = tmp_path / f"part{k}.extxyz"
        labeller(out, shard=(k, 3)).run()
        parts += read_frames(out)
    want = {f.positions.tobytes() for f in read_frames(whole)}
    assert {f.positions.tobytes() for f in parts} == want
    assert len(parts) == len(want)


def test_relabel_keeps_bursts_and_velocities(whole: Path, tmp_path: Path) -> None:
    source = read_frames(whole)
    out = tmp_path / "again.extxyz"
    other = load_model(TOY + '{"strength": 0.5}')
    Labeller(LabelConfig(teacher=TOY, frames=["unused"]), other, [], source, out).run()
    again = read_frames(out)
    assert len(again) == len(source)
    for f, g in zip(source, again, strict=True):
        np.testing.assert_array_equal(f.positions, g.positions)
        assert (f.source, f.burst) == (g.source, g.burst)
    assert len(bursts(again)) == 2
    assert not np.allclose(source[0].forces, again[0].forces)


def test_sampler_drives_and_teacher_labels(tmp_path: Path) -> None:
    out = tmp_path / "labels.extxyz"
    config = LabelConfig(**{**SHORT, "bursts": 0, "cell_scales": [], "temperatures_K": [300.0]})
    teacher = load_model(TOY + '{"strength": 0.5}')
    start = Frame.from_atoms(toy_box())
    Labeller(config, teacher, [start], [], out, sampler=load_model(TOY)).run()
    for f in read_frames(out)[:3]:
        want = teacher.compute(f.numbers, f.positions, f.cell, f.pbc).forces_eV_per_A
        np.testing.assert_allclose(f.forces, want, atol=1e-6)


def test_other_options_do_not_continue_a_file(whole: Path) -> None:
    with pytest.raises(InputError, match="other"):
        labeller(whole, seed=2)
    with pytest.raises(InputError, match="another teacher"):
        labeller(whole, load_model(TOY + '{"strength": 0.5}'))


def test_foreign_file_is_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "mine.extxyz"
    out.write_text("precious")
    with pytest.raises(InputError, match="not made by label"):
        labeller(out)
    assert out.read_text() == "precious"


def test_teacher_that_returns_nan(tmp_path: Path) -> None:
    """Frames until then stay; runs that fail are named; nothing at all is a fault."""
    out = tmp_path / "labels.extxyz"
    progress = labeller(out, load_model(TOY + '{"explode": 45}')).run()
    assert progress.written > 0
    assert "force on atom 0 is [nan" in progress.stopped[0]
    with pytest.raises(RunFault, match="no frame could be labelled"):
        labeller(tmp_path / "none.extxyz", load_model(TOY + '{"explode": 1}')).run()


def test_frames_that_fail_the_checks_are_dropped(tmp_path: Path) -> None:
    good = Frame.from_atoms(toy_box())
    bad = Frame.from_atoms(toy_box())
    bad.positions[1] *= 1.9  # an O-H bond torn: a force beyond the limit
    out = tmp_path / "labels.extxyz"
    config = LabelConfig(teacher=TOY, frames=["unused"], force_limit_eV_per_A=15.0)
    progress = Labeller(config, load_model(TOY), [], [good, bad, good], out).run()
    assert (progress.written, progress.dropped) == (2, 1)


def test_run_that_leaves_its_temperature_band(tmp_path: Path) -> None:
    """A teacher whose forces pump energy in: the run stops and says so."""
    model = load_model(TOY)
    compute = model.compute

    def pumped(numbers, positions, cell, pbc):
        result = compute(numbers, positions, cell, pbc)
        noise = np.random.default_rng(int(1e6 * abs(positions[0, 0]))).normal(0, 4, (24, 3))
        return type(result)(result.energy_eV, result.forces_eV_per_A + noise, None)

    model.compute = pumped
    progress = labeller(tmp_path / "a.extxyz", model, temperatures_K=[50.0], bursts=0).run()
    assert "the run at 50 K is at" in progress.stopped[0]


def test_one_structure_with_a_lone_hydrogen_is_left_out(tmp_path: Path) -> None:
    """As a watchdog may keep one; alone it is an error."""
    good, torn = Frame.from_atoms(toy_box()), Frame.from_atoms(toy_box())
    torn.positions[1] = torn.positions[0] + 1.55  # amid eight oxygens
    config = LabelConfig(**{**SHORT, "time_ps": 0.0, "bursts": 1, "cell_scales": []})
    model = load_model(TOY)
    with pytest.raises(InputError, match="has no heavy neighbour"):
        Labeller(config, model, [torn], [], tmp_path / "torn.extxyz")
    progress = Labeller(config, model, [torn, good], [], tmp_path / "both.extxyz").run()
    assert len(progress.stopped) == 1
    assert "has no heavy neighbour" in progress.stopped[0]
    assert len(read_frames(tmp_path / "both.extxyz")) == 16


def test_disk_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "labels.extxyz"
    fsync, calls = label_store.os.fsync, 0

    def full(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls > 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(label_store.os, "fsync", full)
    with pytest.raises(RunFault, match="No space left"):
        labeller(out).run()
    monkeypatch.undo()
    assert len(read_frames(out)) >= 2  # every frame in it is whole
    labeller(out).run()


# ------------------------------------------------------------------- geometries


def test_scaled_cell_keeps_molecules_rigid() -> None:
    frame = Frame.from_atoms(toy_box())
    frame.positions[3] += frame.cell[0]  # a molecule across the boundary
    scaled = scale_cell(frame, 1.05)
    np.testing.assert_allclose(scaled.cell, 1.05 * frame.cell)
    pairs, shifts = bonds(scaled.numbers, scaled.positions, scaled.cell, scaled.pbc)
    bond = scaled.positions[pairs[:, 1]] - scaled.positions[pairs[:, 0]] + shifts @ scaled.cell
    assert len(pairs) == 16
    np.testing.assert_allclose(np.linalg.norm(bond, axis=1), BOND_A, atol=1e-9)
    isolated = Frame.from_atoms(toy_box(periodic=False))
    with pytest.raises(InputError, match="periodic"):
        scale_cell(isolated, 1.02)


def test_scaled_crystal_is_affine() -> None:
    from ase.build import bulk

    frame = Frame.from_atoms(bulk("C", "diamond", 3.57, cubic=True))
    scaled = scale_cell(frame, 0.97)
    images = (scaled.positions - 0.97 * frame.positions) @ np.linalg.inv(scaled.cell)
    np.testing.assert_allclose(images, np.round(images), atol=1e-9)


def test_stretched_and_rattled() -> None:
    frame = Frame.from_atoms(toy_box())
    rng = np.random.default_rng(0)
    moved = stretch_bonds(frame, 0.9, 1.15, 0.5, rng)
    ratio = np.linalg.norm(moved.positions[1::3] - moved.positions[::3], axis=1) / BOND_A
    assert 0.9 <= ratio.min() < ratio.max() <= 1.15
    assert np.ptp(ratio) > 0.01
    np.testing.assert_array_equal(moved.positions[::3], frame.positions[::3])
    shaken = rattle(frame, 0.05, rng).positions - frame.positions
    assert shaken.std() == pytest.approx(0.05, rel=0.3)
    assert frame.forces is None


def test_shared_protons_lie_between_two_molecules() -> None:
    [frame] = read_frames(inputs_folder() / "water64.extxyz")
    moved = share_protons(frame, 0.1, 2.5, np.random.default_rng(3))
    o, h = frame.numbers == 8, frame.numbers == 1
    d = moved.to_atoms().get_all_distances(mic=True)
    near, second = np.sort(d[h][:, o], axis=1)[:, :2].T
    shared = second < 1.6
    assert 3 <= shared.sum() <= 20
    assert np.all(near[shared] + second[shared] < 2.6)  # straight, between 2.3 and 2.5 A
    assert np.all(near > 0.9)
    i, j, _ = neighbour_pairs(moved.positions, moved.cell, moved.pbc, 0.6, full=False)
    assert len(i) == len(j) == 0
    still = np.all(moved.positions == frame.positions, axis=1)
    assert still.sum() > 100
    alone = Frame.from_atoms(toy_box(periodic=False))
    np.testing.assert_array_equal(  # its molecules are far apart
        share_protons(alone, 1.0, 2.5, np.random.default_rng(1)).positions, alone.positions
    )


# ---------------------------------------------------------------------- sampler


def test_langevin_samples_its_temperature() -> None:
    """Kinetic temperature against its exact mean for BAOAB at a small step, and NVE drift."""
    frame = Frame.from_atoms(toy_box())
    model, rng = load_model(TOY), np.random.default_rng(4)
    masses = hmr_masses(frame, 3.0)
    md = Langevin(model, frame, masses, thermal_velocities(masses, 300.0, rng), rng, 0.5)
    for _ in range(100):
        md.step(300.0, 100.0)
    samples = []
    for _ in range(600):
        md.step(300.0, 100.0)
        samples.append(md.temperature_K)
    # 72 degrees of freedom, 300 fs at 100/ps: some 60 independent values of 17 % each
    assert np.mean(samples) == pytest.approx(300.0, abs=4 * 300 * np.sqrt(2 / 72) / np.sqrt(30))


def test_relax_lowers_large_forces_only() -> None:
    model = load_model(TOY)
    hot = Frame.from_atoms(toy_box())
    hot.positions[1] += [0.3, 0.2, 0]
    relaxed = relax(model, hot, 1.0, 200)
    forces = model.compute(hot.numbers, relaxed, hot.cell, hot.pbc).forces_eV_per_A
    assert np.linalg.norm(forces, axis=1).max() <= 1.0
    calm = Frame.from_atoms(toy_box())
    np.testing.assert_array_equal(relax(model, calm, 8.0, 200), calm.positions)


# ----------------------------------------------------------------- plan, options


def test_plan_and_schedule() -> None:
    config = LabelConfig(**{**SHORT, "bursts": 12})
    tasks = plan(config, 2, 3)
    assert [t.kind for t in tasks].count("run") == 8
    numbers = [b for t in tasks for b in t.bursts]
    assert numbers == list(range(24))
    assert [t.index for t in tasks] == list(range(len(tasks)))
    task = Task(0, "bursts", 0, 300.0, bursts=(0, 1))
    steps = [Schedule(config, task).at(k) for k in range(Schedule(config, task).total)]
    assert sum(s.emit for s in steps) == 32
    assert all(s.friction_per_ps == 0 for s in steps if s.emit)


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/2/3", "-1/2"])
def test_wrong_shard(text: str) -> None:
    with pytest.raises(InputError, match="shard"):
        parse_shard(text)


def command(tmp_path: Path, *options: str) -> list[str]:
    structure = tmp_path / "box.extxyz"
    write(structure, toy_box())
    out = str(tmp_path / "out" / "labels.extxyz")
    base = ["label", "--teacher", TOY, "--structure", str(structure), "--out", out]
    quick = ["--time-ps", "0.02", "--equilibrate-ps", "0.01", "--every-fs", "10"]
    return [*base, *quick, *options]


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(tmp_path, "--temperatures-K", "300", "--json")) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["n_frames"] == len(read_frames(Path(summary["file"]))) > 0
    assert main(command(tmp_path, "--temperatures-K", "300", "--shard", "1/1")) == 0
    assert "(0 now" in capsys.readouterr().out


def test_yaml_and_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "label.yaml").write_text("temperatures_K: [310]\nseed: 3\n")
    options = command(tmp_path, "--config", str(tmp_path / "label.yaml"))
    assert main(options) == 0
    sources = {f.source for f in read_frames(tmp_path / "out" / "labels.extxyz")}
    assert any(s.startswith("run 310 K") for s in sources)
    (tmp_path / "label.yaml").write_text("temperature_K: [310]\n")
    assert main(options) == 2
    assert "did you mean temperatures_K?" in capsys.readouterr().err


def test_structure_index(tmp_path: Path) -> None:
    write(tmp_path / "many.extxyz", [toy_box(spacing_A=s) for s in (3.1, 3.2, 3.3)])
    path = str(tmp_path / "many.extxyz")
    assert read_structures([path])[0].cell[0, 0] == pytest.approx(6.6)
    assert read_structures([path + "@0"])[0].cell[0, 0] == pytest.approx(6.2)
    assert len(read_structures([path + "@::2"])) == 2


def test_toy_water_is_its_own_gradient() -> None:
    atoms = toy_box()
    atoms.rattle(0.05, seed=0)
    atoms.calc = ToyWater()
    from ase.calculators.fd import calculate_numerical_forces

    np.testing.assert_allclose(atoms.get_forces(), calculate_numerical_forces(atoms), atol=1e-5)
