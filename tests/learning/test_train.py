"""Training: it learns, resumes to the same result, splits by burst, refuses wrong input."""

from __future__ import annotations

import json
import multiprocessing
import os
from dataclasses import replace
from datetime import timedelta
from io import StringIO

import numpy as np
import pytest
import torch
import yaml

from dmts_ipi.cli import main
from dmts_ipi.core.errors import InputError, RunFault
from dmts_ipi.core.frames import Frame, write_frames
from dmts_ipi.learning.error_warning import more_labels_help
from dmts_ipi.learning.training import optim as train_optim
from dmts_ipi.learning.training.config import TrainConfig
from dmts_ipi.learning.training.loss import force_term, student_loss
from dmts_ipi.learning.training.muon import Muon
from dmts_ipi.learning.training.parallel import Workers, leave_workers
from dmts_ipi.learning.training.report import Reporter
from dmts_ipi.learning.training.split import (
    ATOMS_PER_BATCH,
    BatchSampler,
    frames_per_batch,
    make_pool,
    partners,
    split_frames,
)
from dmts_ipi.learning.training.train import STATE, Trainer
from dmts_ipi.students.files import load_student, read_student
from student_tools import TINY, toy_frames

ARCHITECTURE = TINY.model_dump()
FRAMES = toy_frames(8)


def config(**options) -> TrainConfig:
    fields = {
        "architecture": TINY,
        "steps": 30,
        "warmup_steps": 5,
        "validations": 3,
        "compile": False,
        "ema": 0.9,
        "validation_fraction": 0.25,
        "batch_frames": 1,
    }
    return TrainConfig(**{**fields, **options})


def trainer(folder, frames=FRAMES, **options) -> Trainer:
    return Trainer(
        frames, config(**options), folder, {"name": "toy"}, "0" * 64, reporter=Reporter(StringIO())
    )


def weights(folder):
    return read_student(folder)[0].state_dict()


def same(one, two, atol=0.0) -> bool:
    return all(torch.allclose(one[k], two[k], rtol=0, atol=atol) for k in one)


def test_learns_and_the_saved_model_has_the_reported_error(tmp_path):
    t = trainer(tmp_path, steps=120)
    progress = t.run()
    spread = np.sqrt(np.mean([np.square(f.forces).mean() for f in FRAMES]))
    best = min(progress.history, key=lambda row: row["force_mae_eV_per_A"])
    assert best["force_rmse_eV_per_A"] < 0.2 * spread
    model = load_student(tmp_path, compile=False)
    _, held = split_frames(FRAMES, 0.25, 0)
    errors = []
    for k in held:
        f = FRAMES[k]
        errors.append(model.compute(f.numbers, f.positions, f.cell, f.pbc).forces_eV_per_A)
        errors[-1] -= f.forces
    assert np.abs(errors).mean() == pytest.approx(best["force_mae_eV_per_A"], rel=1e-3)
    record = json.loads((tmp_path / "model.json").read_text())
    assert record["format"] == "dmts-ipi-student"
    assert record["elements"] == [1, 8]
    assert record["teacher"] == {"name": "toy"}
    assert record["training"]["held_out_frames"] == 2


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_cut_and_resumed_equals_unbroken(tmp_path, optimizer):
    trainer(tmp_path / "whole", optimizer=optimizer).run()
    for _ in range(4):
        part = trainer(tmp_path / "parts", optimizer=optimizer)
        part.resume()
        part.run(stop_after_steps=11)
    assert part.progress.step == 30
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    whole = json.loads((tmp_path / "whole/training/history.json").read_text())
    parts = json.loads((tmp_path / "parts/training/history.json").read_text())
    for a, b in zip(whole["validations"], parts["validations"], strict=True):
        a.pop("elapsed_s"), b.pop("elapsed_s")
        assert a == pytest.approx(b)


def test_the_seed_decides(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        trainer(tmp_path / name, seed=seed, steps=6).run()
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"), atol=1e-4)


def test_batches_join_frames_without_changing_their_forces(tmp_path):
    t = trainer(tmp_path)
    joined = t.train_set.batch([0, 1, 2])
    together, _ = t.student(joined.positions, joined.cell, joined.graph, joined.layout)
    rows = t.train_set.atom_rows([0, 1, 2])
    for k in range(3):
        one = t.train_set.batch([k])
        alone, _ = t.student(one.positions, one.cell, one.graph, one.layout)
        own = t.train_set.atom_rows([k])[0]
        torch.testing.assert_close(together[rows[k]], alone[own], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(joined.forces[rows[k]], one.forces[own])


def test_pair_force_of_a_rare_pair_stays_small(tmp_path):
    """Two atoms of one element that are seldom near each other, in labels with a little noise."""
    rng = np.random.default_rng(0)
    frames = []
    for f in toy_frames(12):
        numbers = f.numbers.copy()
        numbers[[0, 6]] = 7
        noise = rng.normal(scale=0.05, size=f.forces.shape)
        frames.append(replace(f, numbers=numbers, forces=f.forces + noise))
    t = trainer(tmp_path, frames=frames)
    student = t.student
    nitrogen = t.elements.index(7)
    r = torch.linspace(float(student.inner[nitrogen, nitrogen, 1]), 3.4, 60)
    slope = student.radial(r, r * r)[1]
    force = 2 * (slope @ student.base[nitrogen, nitrogen])
    assert float(force.abs().max()) < 1.0  # eV/A
    # The bonds, which are not rare, are fitted: half of the force or more.
    spread = np.sqrt(np.mean([np.square(f.forces).mean() for f in frames]))
    assert t.base_rmse < 0.6 * spread


def test_a_useless_student_is_warned_of(tmp_path, capsys):
    rng = np.random.default_rng(1)
    noise = [replace(f, forces=rng.normal(size=f.forces.shape)) for f in toy_frames(8)]
    write_frames(tmp_path / "noise.extxyz", noise)
    options = tmp_path / "options.yaml"
    options.write_text(yaml.safe_dump({"architecture": ARCHITECTURE, "steps": 1}))
    arguments = ["distill", "--config", str(options), "--teacher", "toy", "--no-compile"]
    arguments += ["--labels", str(tmp_path / "noise.extxyz"), "--out", str(tmp_path / "student")]
    assert main(arguments) == 0
    assert "warning: force RMSE" in capsys.readouterr().err


def mixed_frames() -> list[Frame]:
    """Boxes of four molecules, and single molecules and pairs of them."""
    small = [
        Frame(f.numbers[:n], f.positions[:n], f.cell, np.zeros(3, bool), forces=f.forces[:n])
        for n in (6, 3)
        for f in toy_frames(4, seed=50 + n)
    ]
    return [*FRAMES, *small]


def test_frames_of_different_composition_train_together(tmp_path):
    t = trainer(tmp_path, frames=mixed_frames(), batch_frames=2)
    assert len(t.train_set.groups()) == 3
    compositions = [
        {t.train_set.rows[k].counts for k in t.sampler.batch(step)} for step in range(12)
    ]
    assert any(len(c) == 2 for c in compositions)  # in one batch
    t.run()


@pytest.mark.parametrize("padded", [False, True])
def test_mixed_batches_do_not_change_forces_or_loss(tmp_path, padded):
    t = trainer(tmp_path, frames=mixed_frames(), batch_frames=None)
    index = [0, len(t.train_set) - 1, 1, len(t.train_set) - 4]
    assert len({t.train_set.rows[k].counts for k in index}) > 1
    batch = t.train_set.batch(index)
    rows = t.train_set.atom_rows(index)
    if padded:
        t.train_set.set_room(index, 1.3 * t.train_set.needs(index).sum(axis=0))
        batch = t.train_set.padded_batch(index)
        assert batch.weight is not None
        assert len(batch.positions) > sum(len(r) for r in rows)
    together, virial = t.student(batch.positions, batch.cell, batch.graph, batch.layout)
    real = torch.ones(len(together), dtype=bool) if batch.weight is None else batch.weight > 0
    assert torch.equal(together[~real], torch.zeros_like(together[~real]))
    errors, whole = [], torch.zeros(3, 3, dtype=torch.float64)
    for k in index:
        one = t.train_set.batch([k])
        alone, part = t.student(one.positions, one.cell, one.graph, one.layout)
        whole += part
        errors.append(alone - one.forces)
        if not padded:
            place = rows[index.index(k)]
            own = alone[t.train_set.atom_rows([k])[0]]
            torch.testing.assert_close(together[place], own, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(virial, whole, atol=1e-4, rtol=1e-4)
    args = t.weights, 0.1, None, 0.0
    loss = student_loss(t.architecture, t.student, batch, *args)
    torch.testing.assert_close(loss, force_term(torch.cat(errors), 0.1, None, 0.0))


def test_every_frame_of_a_pool_is_visited_once_an_epoch_in_batches_that_fit():
    rng = np.random.default_rng(0)
    needs = np.stack([rng.integers(5, 40, 300), rng.integers(0, 4, 300)], axis=1)
    frames = list(range(100, 400))
    for alike in (False, True):
        pool = make_pool(frames, needs, None, alike, 0)
        batches = pool.batches(np.random.default_rng(1))
        assert sorted(k for b in batches for k in b) == frames
        sums = np.array([np.sum([needs[k - 100] for k in b], axis=0) for b in batches])
        assert (sums <= pool.room).all()
        assert sums[:, 0].mean() > 0.8 * ATOMS_PER_BATCH
        assert np.isfinite(pool.room).all() == alike
    sampler = BatchSampler([], [], 1, 3, [make_pool(frames, needs, None, True, 0)])
    again = BatchSampler([], [], 1, 3, [make_pool(frames, needs, None, True, 0)])
    assert [sampler.batch(s) for s in range(90)] == [again.batch(s) for s in range(90)]


def test_batches_of_a_compiled_training_have_one_shape(tmp_path, monkeypatch):
    """One compilation serves all mixed batches; it is announced and costs no training time."""
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    text = StringIO()
    t = Trainer(
        mixed_frames(),
        config(batch_frames=None, compile=True, steps=8),
        tmp_path,
        {"name": "toy"},
        "0" * 64,
        reporter=Reporter(text),
    )
    shapes = {t._batch(t.sampler.batch(step))[0].layout for step in range(20)}
    assert len(shapes) == 1
    t.run()
    assert text.getvalue().count("compiling the training step") == 1
    assert text.getvalue().count("compiled in") == 1


def test_gradients_of_the_gather_functions():
    """The hand-written backward passes against numerical derivatives."""
    from dmts_ipi.students.density.graph import build_rows, to_graph
    from dmts_ipi.students.density.network import _GatherRows, _PairSum
    from student_tools import make_student, water_box

    numbers, x, cell = water_box(1, molecules=2, length=5.0)
    student = make_student()
    rows = build_rows((numbers == 8).astype(int), x, cell, np.ones(3, bool), 2, (3.0, 0.0, 0.0))
    graph = to_graph([rows], rows.layout(), torch.float64, "cpu")
    real = (1.0 - graph.pad).unsqueeze(-1)  # edges that are padding carry no force
    q = torch.randn(len(x), 2, dtype=torch.float64, requires_grad=True)
    f = torch.randn(*graph.pad.shape, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda t: _GatherRows.apply(t, graph.neighbour, graph.reverse) * real, (q,)
    )
    assert torch.autograd.gradcheck(
        lambda t: _PairSum.apply(t * real, graph.neighbour, graph.reverse), (f,)
    )
    assert student.elements == [1, 8]


def test_bursts_are_held_out_whole_and_checkpoints_compete_by_heating(tmp_path):
    frames = toy_frames(6, burst=True)
    kept, held = split_frames(frames, 0.4, 0)
    for burst in ("0", "1"):
        members = {k for k, f in enumerate(frames) if f.burst == burst}
        assert members <= set(kept) or members <= set(held)
    t = trainer(tmp_path, frames=frames, heating_at_fs=4.0)
    progress = t.run()
    assert "heating_at_4fs_K_per_ps" in progress.history[-1]
    assert "heating" in json.loads((tmp_path / "model.json").read_text())["training"]["chosen_by"]


def test_consecutive_frames_are_paired_and_can_be_trained_on(tmp_path):
    frames = toy_frames(3, burst=True)
    found = partners(frames, range(len(frames)), 3.0)
    assert found
    for k, later in found.items():
        assert frames[later].burst == frames[k].burst
        assert frames[later].time_fs - frames[k].time_fs == 3.0
    t = trainer(tmp_path, frames=frames, difference_weight=5.0)
    batch, pairs = t._batch((next(iter(t.later)),))
    assert pairs is not None
    moved = (batch.positions[pairs[1]] - batch.positions[pairs[0]]).norm(dim=-1)
    assert float(moved.max()) < 0.2  # the same atom, 3 fs later
    t.run()


def test_every_frame_is_visited_once_an_epoch_by_all_processes_together():
    plan = [BatchSampler([[0, 1, 2, 3, 4], [5, 6, 7]], [1, 1], 2, seed=3) for _ in range(2)]
    seen = [plan[rank].batch(step, rank)[0] for step in range(4) for rank in range(2)]
    assert sorted(seen) == list(range(8))


def test_small_molecules_come_in_batches(tmp_path):
    """As many frames as make some 192 atoms, at most all there are; large boxes one by one."""
    assert [frames_per_batch(n) for n in (3, 9, 192, 648)] == [64, 21, 1, 1]
    t = trainer(tmp_path, batch_frames=None)
    assert len(t.sampler.batch(0)) == 6  # of 8 frames of 24 atoms, 2 held out


def test_muon_takes_hidden_matrices_and_adamw_the_rest(tmp_path):
    t = trainer(tmp_path)
    assert len(t.optimizers) == 2
    assert all(p.ndim == 2 for g in t.optimizers[1].param_groups for p in g["params"])
    covered = sum(len(g["params"]) for o in t.optimizers for g in o.param_groups)
    assert covered == len(t.parameters)


def test_muon_does_what_torch_does_in_bfloat16():
    theirs = pytest.importorskip("torch.optim", reason="torch").__dict__.get("Muon")
    if theirs is None:
        pytest.skip("torch.optim.Muon came with torch 2.9")
    torch.manual_seed(0)
    start = [torch.randn(6, 10), torch.randn(10, 6), torch.randn(6, 10)]
    one = [torch.nn.Parameter(s.clone()) for s in start]
    two = [torch.nn.Parameter(s.clone()) for s in start]
    ours = Muon(one, 0.02, 0.95, 0.1)
    other = theirs(two, 0.02, 0.1, 0.95, adjust_lr_fn="match_rms_adamw")
    for _ in range(4):
        for p, q in zip(one, two, strict=True):
            p.grad = torch.randn(p.shape)
            q.grad = p.grad.clone()
        ours.step()
        other.step()
    for p, q, s in zip(one, two, start, strict=True):
        assert float((p - q).detach().norm()) < 0.02 * float((p - s).detach().norm())


def test_rate_warms_up_and_falls():
    c = config(warmup_steps=10, final_rate=0.01)
    assert train_optim.rate(0.0, 0, c) == pytest.approx(0.1)
    assert train_optim.rate(0.0, 10, c) == pytest.approx(1.0)
    assert train_optim.rate(1.0, 100, c) == pytest.approx(0.01)


def test_resume_refuses_other_options_labels_and_broken_files(tmp_path):
    trainer(tmp_path).run(stop_after_steps=2)
    with pytest.raises(InputError, match="learning_rate"):
        trainer(tmp_path, learning_rate=1e-4).resume()
    other = trainer(tmp_path)
    other.data_sha256 = "f" * 64
    with pytest.raises(InputError, match="labels"):
        other.resume()
    (tmp_path / STATE).write_bytes(b"broken")
    with pytest.raises(InputError, match="unreadable"):
        trainer(tmp_path).resume()


def test_diverging_training_stops_and_says_so(tmp_path):
    t = trainer(tmp_path)
    t.run(stop_after_steps=12)
    with torch.no_grad():
        t.student.rho.weight.fill_(float("nan"))
    with pytest.raises(RunFault, match="loss is not finite"):
        t.run()
    read_student(tmp_path)


def test_full_disk_keeps_the_previous_checkpoint(tmp_path, monkeypatch):
    t = trainer(tmp_path)
    t.run(stop_after_steps=12)
    before = (tmp_path / "model.safetensors").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left"):
        t.run()
    monkeypatch.undo()
    assert (tmp_path / "model.safetensors").read_bytes() == before
    read_student(tmp_path)
    assert not list(tmp_path.rglob("*.new"))


def command(tmp_path, *extra, frames=FRAMES) -> list[str]:
    labels = tmp_path / "labels.extxyz"
    write_frames(labels, frames)
    options = tmp_path / "options.yaml"
    fields = config().model_dump(mode="json")
    options.write_text(yaml.safe_dump({k: fields[k] for k in fields if k not in ("minutes",)}))
    return [
        *("distill", "--labels", str(labels), "--out", str(tmp_path / "out")),
        *("--teacher", "toy", "--config", str(options), *extra),
    ]


def test_command_trains_draws_and_reports(tmp_path, capsys):
    assert main(command(tmp_path, "--steps", "9", "--json")) == 0
    lines = capsys.readouterr().out.splitlines()
    figures = json.loads(lines[-1])
    assert figures["force_mae_eV_per_A"] > 0
    assert any("left" in line for line in lines)
    assert (tmp_path / "out/training/curve.png").stat().st_size > 1000
    assert main(command(tmp_path, "--steps", "9", "--json")) == 0  # done already: says so, quickly
    assert "resumes at step 9" in capsys.readouterr().out


def one_of_two(rank, folder, queue):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=250),
    )
    workers = Workers(rank, 2)
    teacher = {"name": "toy"}
    t = Trainer(FRAMES, config(steps=12), folder / "out", teacher, "0" * 64, workers)
    t.run()
    queue.put((rank, t.sampler.batch(0, rank), float(t.parameters["rho.weight"].sum())))
    leave_workers(workers)


def test_two_processes_share_the_batches_and_stay_equal(tmp_path):
    """Data parallel over gloo: different batches, the same weights, one model written."""
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=one_of_two, args=(r, tmp_path, queue)) for r in (0, 1)]
    for process in processes:
        process.start()
    results = sorted(queue.get(timeout=250) for _ in processes)
    for process in processes:
        process.join(timeout=250)
        assert process.exitcode == 0
    assert results[0][1] != results[1][1]
    assert results[0][2] == results[1][2]
    history = json.loads((tmp_path / "out/training/history.json").read_text())
    assert history["validations"][-1]["step"] == 12
    read_student(tmp_path / "out")


def test_progress_lives_on_a_terminal_and_is_sparse_in_a_log(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    log, terminal = StringIO(), StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    for stream in (log, terminal):
        clock[0] = 0.0
        reporter = Reporter(stream)
        for step in range(1, 41):
            clock[0] = float(step)
            reporter.tick(step, step / 80, float(step))
        reporter.line("a line")
    assert log.getvalue().splitlines() == ["step 30 (38 %)  1.0 steps/s  left 50 s", "a line"]
    assert terminal.getvalue().count("\r") == 42
    assert terminal.getvalue().endswith("\ra line\n")


def test_a_frame_that_overflows_costs_one_step_only(tmp_path):
    t = trainer(tmp_path, steps=12)
    t.step()
    before = {k: v.detach().clone() for k, v in t.parameters.items()}
    whole = t._value_and_gradients

    def overflow(batch, pairs):
        return whole(batch, pairs) * t.parameters["rho.weight"].grad.fill_(float("inf")).sum()

    t._value_and_gradients = overflow  # type: ignore[method-assign]
    t.step()
    t._value_and_gradients = whole  # type: ignore[method-assign]
    assert same(before, t.parameters)
    t.run()
    assert t.progress.step == 12


@pytest.mark.parametrize("base", ["none", "short", "gaussians"])
def test_pair_force_before_training_is_the_one_that_is_wanted(tmp_path, base):
    architecture = TINY.model_copy(update={"base": base})
    t = trainer(tmp_path, architecture=architecture, steps=2)
    used = t.student.base.abs().amax((0, 1)) > 0  # of each radial function
    assert used[TINY.bessel :].all() == (base != "none")
    assert used[: TINY.bessel].all() == (base == "gaussians")
    assert ("base_rmse_eV_per_A" in t.prepared.figures) == (base != "none")
    t.run()
    record = json.loads((tmp_path / "model.json").read_text())
    assert record["architecture"]["base"] == base


def test_training_goes_on_from_a_student(tmp_path, capsys):
    """Weights and scales are the student's, the wall is lowered, the rates are halved."""
    trainer(tmp_path / "first", steps=60).run()
    close = [replace(f, positions=f.positions.copy()) for f in toy_frames(6, seed=30)]
    for f in close:
        f.positions[1] = f.positions[0] + [0.7, 0, 0]
    write_frames(tmp_path / "more.extxyz", close)
    arguments = ["distill", "--labels", str(tmp_path / "more.extxyz"), "--teacher", "toy"]
    arguments += ["--from", str(tmp_path / "first"), "--no-compile", "--seed", "3"]
    assert main([*arguments, "--steps", "1", "--out", str(tmp_path / "second")]) == 0
    first, second = (read_student(tmp_path / name)[0] for name in ("first", "second"))
    assert torch.equal(first.atoms[0].scale0, second.atoms[0].scale0)
    change = max(
        float((a - b).abs().max())
        for a, b in zip(first.parameters(), second.parameters(), strict=True)
    )
    assert 0 < change < 0.01
    assert float(second.inner[0, 1, 1]) < float(first.inner[0, 1, 1])
    record = json.loads((tmp_path / "second/model.json").read_text())
    options = record["training"]["options"]
    assert options["learning_rate"] == TrainConfig(steps=1).learning_rate / 2
    assert options["muon_learning_rate"] == TrainConfig(steps=1).muon_learning_rate / 2
    start = json.loads((tmp_path / "first/model.json").read_text())["weights_sha256"]
    assert record["training"]["started_from"] == {"name": "first", "weights_sha256": start}

    capsys.readouterr()
    sulphur = [replace(f, numbers=np.where(f.numbers == 8, 16, f.numbers)) for f in close]
    write_frames(tmp_path / "more.extxyz", sulphur)
    assert main([*arguments, "--steps", "1", "--out", str(tmp_path / "third")]) == 2
    error = capsys.readouterr().err
    assert "the student knows H, O, the labels have S" in error
    assert not (tmp_path / "third/model.json").exists()


def test_training_ends_when_only_its_own_error_falls(tmp_path):
    rng = np.random.default_rng(1)
    noise = [replace(f, forces=rng.normal(size=f.forces.shape)) for f in toy_frames(4)]
    text = StringIO()
    options = {"steps": 300, "validations": 60, "patience": 5, "weight_decay": 0.0}
    t = Trainer(
        noise, config(**options), tmp_path, {"name": "toy"}, "0" * 64, reporter=Reporter(text)
    )
    progress = t.run()
    assert progress.ended_early
    assert progress.best_step < progress.step < 300
    assert "ends here: the held-out error has not fallen for 5 validations" in text.getvalue()
    again = trainer(tmp_path, frames=noise, **options)
    assert again.resume()
    assert again.run().step == progress.step  # it has ended
    never = trainer(tmp_path / "never", frames=noise, **{**options, "steps": 60, "patience": 0})
    assert never.run().step == 60


def test_a_sentence_says_when_more_labels_would_help():
    assert more_labels_help(0.030, 0.025) == ""
    assert more_labels_help(0.010, 0.002) == ""  # small enough as it is
    assert "2.0 times that of training frames: more labels" in more_labels_help(0.060, 0.030)
