"""``dmts-ipi benchmark``: its file, plan, turns, stability, tables, and runs of toys."""

from __future__ import annotations

import csv
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from analysis_runs import water_box, write_folder
from dmts_ipi.analysis.bench.cell import Cell, Result, read_result, round_speeds
from dmts_ipi.analysis.bench.output import text_of, write
from dmts_ipi.analysis.bench.pool import Pool, pools, ratio
from dmts_ipi.analysis.bench.stability import (
    MTS_WORDS,
    NO_RUN,
    STS_WORDS,
    Stability,
    judge_run,
)
from dmts_ipi.analysis.bench.tables import all_tables, published
from dmts_ipi.analysis.measure import measure
from dmts_ipi.analysis.run_data import read_run
from dmts_ipi.commands import benchmark_run, init
from dmts_ipi.commands.benchmark_config import BenchmarkConfig
from dmts_ipi.commands.benchmark_plan import check_unchanged, make_plan
from dmts_ipi.core.config import parse, read_yaml
from dmts_ipi.core.errors import InputError
from dmts_ipi.core.verdicts import Cause, VerdictClass, VerdictKind, kind_of_record
from dmts_ipi.ipi.session.session import Outcome
from dmts_ipi.students.density.energy import new_student
from dmts_ipi.students.files import save_student
from places import ROOT
from run_tools import STUDENT, TEACHER, argon, call
from student_tools import TINY

FILE = {
    "teacher": "water-teacher",
    "students": {"nc": "water-student"},
    "systems": [{"name": "w", "structure": "water64"}],
    "integrators": [{"kind": "sts"}, {"kind": "dmts-nc", "outer_fs": [5, 6]}],
    "time_ps": 1.0,
    "rounds": 2,
}


def config(**changes: object) -> BenchmarkConfig:
    return parse(BenchmarkConfig, {**FILE, **changes}, "file")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"integrators": [{"kind": "sts", "outer_fs": 3}]}, "sts has no outer_fs"),
        ({"integrators": [{"kind": "hhf"}]}, "hhf needs outer_fs"),
        ({"integrators": [{"kind": "dmts-nc", "outer_fs": 2.5}]}, "not a multiple of inner_fs 1"),
        ({"integrators": [{"kind": "dmts", "outer_fs": 5}]}, "students.conservative"),
        ({"integrators": [{"kind": "mts", "outer_fs": 5}]}, "'mts': input should be 'sts'"),
        ({"students": {}}, "students.nc"),
        ({"seeds": [1, 1]}, "give at least one seed, and no seed twice"),
        ({"rounds": 0}, "rounds = 0"),
        ({"systems": FILE["systems"] * 2}, "system w is listed twice"),
        ({"system": []}, "did you mean systems?"),
        ({"teacher": {"model": "x", "threads": 0}}, "teacher.threads = 0"),
    ],
)
def test_wrong_files(changes: dict, message: str) -> None:
    with pytest.raises(InputError) as error:
        config(**changes)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["water", "speed", "large"])
def test_files_that_ship(name: str) -> None:
    file = ROOT / "benchmarks" / f"{name}.yaml"
    found = read_yaml(BenchmarkConfig, file)
    assert found.integrators[0].kind == "sts"
    for system in found.systems:
        if "ipi_inputs" in system.structure:
            assert (file.parent / system.structure).is_file()


def test_plan_names_cells_and_skips_what_the_teacher_lacks(tmp_path: Path) -> None:
    argon().write(tmp_path / "argon.extxyz")
    systems = [{"name": "w", "structure": "water64"}, {"name": "a", "structure": "argon.extxyz"}]
    kinds = [
        {"kind": "sts"},
        {"kind": "dmts-nc", "inner_fs": 1.625, "outer_fs": 6.5},
        {"kind": "hhf-ffl", "outer_fs": 10, "name": "fast"},
        {"kind": "bond", "outer_fs": 8, "time_ps": 3},
    ]
    plan = make_plan(config(systems=systems, integrators=kinds, seeds=[3, 4]), tmp_path, tmp_path)
    names = [c.name for c in plan.cells]
    assert names[::2] == ["w-sts-1-fs-s3", "w-dmts-nc-1.625-6.5-fs-s3", "w-fast-s3",
                          "w-bonds-1-8-fs-s3"]  # fmt: skip
    assert len(names) == 8
    assert [(s.system, s.what) for s in plan.skipped] == [("a", "system")]
    assert "does not know Ar" in plan.skipped[0].why
    sts, nc, ffl, bond = (plan.configs[n] for n in names[::2])
    assert (sts.mode, sts.hmr_amu, sts.splitting) == ("sts", 0.0, "baoab")
    assert (nc.mode, nc.n_inner, nc.inner_fs, nc.hmr_amu) == ("dmts", 4, 1.625, 3.0)
    assert nc.splitting == "baoab-respa"
    assert (ffl.thermostat, ffl.friction_by_element_per_ps) == ("ffl", {"H": 10.0})
    assert (bond.bond_friction_per_ps, bond.time_ps, bond.equilibration_ps) == (
        50.0,
        3.0,
        0.6,
    )
    assert plan.cells[0].group == "water"
    assert [c.name for c in plan.cells_of(["w-fast"])] == ["w-fast-s3", "w-fast-s4"]
    with pytest.raises(InputError, match="is not a run of this benchmark"):
        plan.cells_of(["b"])
    with pytest.raises(InputError, match="is listed twice"):
        make_plan(config(integrators=kinds + kinds[:1]), tmp_path, tmp_path)


def test_a_folder_of_other_settings_is_refused(tmp_path: Path) -> None:
    def plan(**changes: object):
        return make_plan(config(integrators=[{"kind": "sts"}], **changes), tmp_path, tmp_path)

    first = plan()
    cell = first.cells[0]
    made = first.configs[cell.name]
    init.create(cell.folder, made, first.structures[cell.system], no_model_check=True)
    check_unchanged(cell, first.configs[cell.name])
    longer = plan(time_ps=2.0, rounds=5)
    check_unchanged(cell, longer.configs[cell.name])
    other = plan(temperature_K=310.0)
    with pytest.raises(InputError, match=r"temperature_K = 310.0: .* was made with 300.0"):
        check_unchanged(cell, other.configs[cell.name])


# ------------------------------------------------------------------ figures of finished folders


def cell(folder: Path, kind: str, label: str, outer: float, seed: int = 1, **more: object) -> Cell:
    fields = {
        "name": f"{label}-s{seed}",
        "system": "box",
        "atoms": 24,
        "group": "water",
        "kind": kind,
        "inner_fs": 1.0,
        "outer_fs": outer,
        "hmr_amu": 3.0,
        "label": label,
        "seed": seed,
        "folder": folder,
        "time_ps": 12.0,
        "rounds": 2,
        **more,
    }
    return Cell(**fields)  # type: ignore[arg-type]


def finished(folder: Path, mode: str, n: int, speeds: list[float], kelvin: float = 300.0) -> Path:
    """A run of 12 ps in two sessions with known speeds."""
    write_folder(folder, water_box(2), mode, n, kelvin, 12.0, seed=n, frames_every_fs=200.0)
    total = math.ceil(12000 / n)
    sessions = [
        {"first_step": k * total // 2, "steady_steps": 100, "steady_s": 100 * n * 0.0864 / v}
        for k, v in enumerate(speeds)
    ]
    (folder / "sessions.json").write_text(json.dumps(sessions))
    (folder / "summary.json").write_text(json.dumps({"exit": "finished", "time_ps": 12.0}))
    return folder


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    base = tmp_path_factory.mktemp("cells")
    cells = [
        cell(finished(base / "sts", "sts", 1, [2.0, 1.0]), "sts", "STS 1 fs", 1.0),
        cell(finished(base / "nc", "dmts", 6, [8.0, 5.0]), "dmts-nc", "DMTS-NC 1–6 fs", 6.0),
        cell(finished(base / "hot", "dmts", 8, [9.0, 9.0], 400), "dmts-nc", "DMTS-NC 1–8 fs", 8.0),
        cell(base / "none", "hhf", "HHF 1–10 fs", 10.0),
    ]
    return [read_result(c) for c in cells]


def test_results_of_folders(results: list[Result]) -> None:
    _, nc, hot, none = results
    assert nc.speeds == pytest.approx({0: 8.0, 1: 5.0})
    assert nc.ns_per_day == pytest.approx(6.5)
    assert nc.done
    assert nc.stability.stable
    assert hot.stability.word == "high temp. (resonances)"
    assert (none.exit, none.stability, none.done) == ("pending", NO_RUN, False)
    found = pools(results)
    assert len(found) == 3
    # each round against the same round: 8/2 and 5/1, not the ratio of medians
    assert ratio(found["box", "DMTS-NC 1–6 fs"], found["box", "STS 1 fs"]) == pytest.approx(
        (4.5, 4.0, 5.0)
    )
    record = nc.record()
    for key in ("run", "seed", "exit", "ps", "rewinds", "kelvin", "potential_meV_per_atom",
                "diffusion_A2_per_ps", "ns_per_day"):  # fmt: skip
        assert key in record
    assert set(record["kelvin"]) == {"atoms", "H", "O", "O-H"}


def test_tables_beside_the_published_ones(results: list[Result], tmp_path: Path) -> None:
    tables = {t.number: t for t in all_tables(results)}
    assert set(tables) == {1, 3, 6, 7}
    rows = {r[0]: r for r in tables[1].rows}
    assert rows["DMTS-NC 1–6 fs"][1] == "6.5 (4.50, 4.00 to 5.00)"
    assert rows["DMTS-NC 1–6 fs"][-4:] == ["103.7", "36.15", "13.67", "no"]
    assert rows["DMTS-NC 1–8 fs"][2] == "high temp. (resonances)"
    assert rows["DMTS 1–6 fs"][1:3] == ["-", "not run"]
    assert rows["DMTS 1–6 fs"][-2:] == ["-", "data holes"]
    assert rows["max. DMTS-NC/STS"][1] == "4.5"  # the hot one does not count
    assert [r[1] for r in tables[3].rows] == ["STS 1 fs", "DMTS-NC 1–6 fs"]
    losses = {r[1]: r for r in tables[7].rows}
    assert losses["DMTS-NC 1–6 fs"][-1] == "12.6"
    assert losses["STS 1 fs"][3] == "-"
    assert all(len(r) == len(t.head) for t in tables.values() for r in t.rows)
    text = text_of(list(tables.values()), "# header")
    assert text.startswith("# header\n")
    assert "In [brackets]: published" in text
    (tmp_path / "table4.csv").write_text("of an earlier time")
    written = {p.name for p in write(tmp_path, results, list(tables.values()), "")}
    assert written == {"tables.txt", "table1.csv", "table3.csv", "table6.csv", "table7.csv",
                       "records.jsonl", "benchmark.png"}  # fmt: skip
    assert not (tmp_path / "table4.csv").exists()
    assert (tmp_path / "benchmark.png").stat().st_size > 5000
    with open(tmp_path / "table1.csv", newline="") as stream:
        assert next(iter(csv.reader(stream)))[0] == "integrator"
    lines = (tmp_path / "records.jsonl").read_text().splitlines()
    assert [json.loads(x)["integrator"] for x in lines] == [
        "STS 1 fs", "DMTS-NC 1–6 fs", "DMTS-NC 1–8 fs"]  # fmt: skip


def test_seeds_are_joined_by_time(results: list[Result]) -> None:
    nc = results[1]
    second = replace(
        nc,
        cell=replace(nc.cell, seed=2),
        ps=nc.ps / 3,
        potential_meV=(nc.potential_meV[0] + 4.0, nc.potential_meV[1]),
        stability=Stability("data holes"),
    )
    pool = Pool((nc, second))
    assert pool.potential_meV[0] == pytest.approx(nc.potential_meV[0] + 1.0)
    assert pool.potential_meV[1] == pytest.approx(nc.potential_meV[1] * math.hypot(0.75, 0.25))
    assert pool.instabilities == "data holes (1 of 2 seeds)"


def test_published_figures_are_those_of_the_reference() -> None:
    """A few, against the numbers in the text of the paper: speedups of section 3.1."""
    p = published()
    sts, nc = p["table1"][0]["ns_per_day"], p["table1"][6]["ns_per_day"]
    assert [round(b / a, 2) for a, b in zip(sts, nc, strict=True)] == [2.94, 4.53, 4.31]
    for row in p["table4"].values():
        assert row["hhf"] / row["sts"] == pytest.approx(row["hhf/sts"], rel=0.005)
    for row in p["table7"][1:]:
        loss = 100 * (1 - row["D_A2_per_ps"][0] / 0.1672)
        assert loss == pytest.approx(row["loss"], abs=0.1)
    for row in p["table6"].values():
        if row["dmts-nc"]:
            assert row["dmts-nc"] / row["sts"] == pytest.approx(row["acceleration"], rel=0.02)


def test_reasons_of_instability(results: list[Result]) -> None:
    right = measure(read_run(results[0].cell.folder))
    hot = measure(read_run(results[2].cell.folder))
    stop = "stopped: 4 rewinds at one place"
    for exit, verdicts, measured, mts, word in (
        ("finished", ["difference"], right, True, "no so far"),
        ("finished", [], hot, True, "high temp. (resonances)"),
        ("finished", [], hot, False, "high temp."),
        (stop, ["difference"] * 4, right, True, "data holes"),
        (stop, ["model"] * 4, None, True, "data holes"),
        (stop, ["temperature", "difference"], right, True, "high temp. (resonances)"),
        (stop, ["difference", "temperature"], right, True, "data holes"),
        (stop, ["difference"] * 4, hot, True, "high temp. (resonances)"),
        (stop, ["drift"], right, True, "drift"),
        ("fault: the teacher's driver did not start", [], None, True, "failed"),
        ("terminated", [], None, True, "not run"),
    ):
        assert judge_run(exit, verdicts, measured, mts).word == word, (exit, verdicts)


@pytest.mark.parametrize("kind", list(VerdictKind), ids=str)
def test_no_kind_of_verdict_is_left_out(kind: VerdictKind) -> None:
    """A run that the watchdog ended for its physics has not "failed", whatever was seen."""
    for mts in (True, False):
        word = judge_run("stopped: rewinds_here_max", [kind] * 5, None, mts).word
        assert (word == "failed") is (kind.cause is not Cause.PHYSICS)
    words = {"spike": "data holes", "runaway": "high temp. (resonances)", "nan": "data holes"}
    if kind in words:
        assert judge_run("stopped: x", [kind.value] * 5, None, True).word == words[kind.value]


def test_every_class_of_verdicts_has_a_word() -> None:
    assert set(MTS_WORDS) == set(STS_WORDS) == set(VerdictClass)


def test_a_verdict_of_a_package_that_is_gone_is_read_from_the_journal() -> None:
    record = {"verdict": "broken_bond", "cause": "physics", "class": "heat"}
    gone = kind_of_record(record)
    assert (gone.value, gone.cause, gone.cls) == ("broken_bond", "physics", "heat")
    assert judge_run("stopped: x", [gone], None, False).word == "high temp."
    earlier = kind_of_record({"verdict": "spike", "cause": "physics"})  # without a class
    assert earlier is VerdictKind.SPIKE


def test_a_round_that_was_interrupted_counts_once(tmp_path: Path) -> None:
    c = cell(tmp_path, "sts", "STS", 1.0)
    sessions = [
        {"first_step": 0, "steady_steps": 100, "steady_s": 10.0},
        {"first_step": 1200, "steady_steps": 300, "steady_s": 10.0},
        {"first_step": 6000, "steady_steps": 100, "steady_s": 5.0},
        {"first_step": 7500, "steady_steps": 0, "steady_s": 0.0},
    ]
    (tmp_path / "sessions.json").write_text(json.dumps(sessions))
    assert round_speeds(c) == pytest.approx({0: 400 * 0.0864 / 20, 1: 100 * 0.0864 / 5})


# ---------------------------------------------------------------------------------- runs


def write_file(folder: Path, **fields: object) -> Path:
    argon().write(folder / "argon.extxyz")
    content = {
        "teacher": {"model": TEACHER, "threads": 1},
        "students": {"nc": {"model": STUDENT, "threads": 1}},
        "systems": [{"name": "argon", "structure": "argon.extxyz"}],
        "integrators": [{"kind": "sts"}, {"kind": "dmts-nc", "outer_fs": 4}],
        "temperature_K": 60,
        "time_ps": 0.16,
        "rounds": 2,
        "checkpoints_every_fs": 40,
        "frames_every_fs": 20,
        **fields,
    }
    file = folder / "bench.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def test_turns_interruption_and_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions that only write what a run would have written."""
    water_box(2).write(tmp_path / "box.extxyz", columns=["symbols", "positions"])
    fields = {"systems": [{"name": "box", "structure": "box.extxyz"}], "temperature_K": 300,
              "teacher": "water-teacher", "students": {"nc": "water-student"}}  # fmt: skip
    file = write_file(tmp_path, **fields)
    took: list[object] = []

    def run_session(folder, hooks, limits, time_ps, guard):
        if len(took) == 3:
            took.append(None)
            return Outcome(143, "terminated")
        took.append((folder.path.name, round(time_ps, 6)))
        c = folder.config
        source = write_folder(
            tmp_path / f"source{len(took)}", water_box(2), c.mode, c.n_inner, time_ps=time_ps
        )
        for one in source.glob("md.*"):
            shutil.copy(one, folder.path)
        summary = {"exit": "finished", "time_ps": time_ps}
        (folder.path / "summary.json").write_text(json.dumps(summary))
        return Outcome(0, "finished")

    monkeypatch.setattr(benchmark_run, "run_session", run_session)
    out = tmp_path / "out"
    words = ("benchmark", file, "--out", out)
    first = call(*words)
    assert first.returncode == 143, first.stderr
    sts, nc = "box-sts-1-fs-s1", "box-dmts-nc-1-4-fs-s1"
    assert took == [(sts, 0.08), (nc, 0.08), (sts, 0.16), None]
    second = call(*words)
    assert second.returncode == 0, second.stderr
    assert took[4:] == [(nc, 0.16)]
    assert "2 of 2 runs done" in second.stdout
    third = call(*words)
    assert third.returncode == 0
    assert len(took) == 5
    records = [json.loads(x) for x in (out / "records.jsonl").read_text().splitlines()]
    assert [r["run"] for r in records] == [sts, nc]
    assert all(r["exit"] == "finished" and r["ps"] == pytest.approx(0.16) for r in records)
    assert "DMTS-NC 1–4 fs" in (out / "tables.txt").read_text()
    changed = write_file(tmp_path, **{**fields, "temperature_K": 310})
    refused = call("benchmark", changed, "--out", out, "--tables")
    assert refused.returncode == 2
    assert "was made with 300.0" in refused.stderr
    assert refused.stderr.count("\n") == 1


def energy_student(folder: Path, teacher: str = "") -> Path:
    """A conservative student of argon that has learnt nothing yet: its forces are zero."""
    student = new_student(TINY.model_copy(update={"energy": True}), [18])
    origin = {"name": "other", "identity": teacher}
    save_student(folder, student, teacher=origin, training_data_sha256="", errors={})
    return folder


def test_through_sockets(tmp_path: Path) -> None:
    """The whole path once, DMTS with a conservative student; and the plan before."""
    energy_student(tmp_path / "energy")
    file = write_file(
        tmp_path,
        students={"conservative": {"model": "energy", "threads": 1}},
        integrators=[{"kind": "sts"}, {"kind": "dmts", "outer_fs": 2}],
        rounds=1,
        time_ps=0.04,
    )
    plan = call("benchmark", file, "--out", tmp_path / "out", "--dry-run")
    assert plan.returncode == 0, plan.stderr
    assert "2 runs, about" in plan.stdout
    assert not (tmp_path / "out").exists()
    done = call("benchmark", file, "--out", tmp_path / "out", "--json", "--only", "argon-dmts")
    assert done.returncode == 0, done.stderr
    (record,) = json.loads(done.stdout)
    assert record["integrator"] == "DMTS 1–2 fs"
    assert record["exit"] == "finished"
    assert (tmp_path / "out/runs/argon-dmts-1-2-fs-s1/events.jsonl").is_file()


def test_a_student_of_another_teacher_is_refused(tmp_path: Path) -> None:
    energy_student(tmp_path / "energy", teacher="another")
    fields = {"students": {"conservative": "energy"}, "integrators": [{"kind": "sts"}]}
    file = write_file(tmp_path, **fields)
    done = call("benchmark", file, "--out", tmp_path / "out", "--dry-run")
    assert done.returncode == 2
    assert "was distilled from 'other'" in done.stderr
    assert "accept_foreign_students" in done.stderr
    config = read_yaml(
        BenchmarkConfig, write_file(tmp_path, **fields, accept_foreign_students=True)
    )
    assert len(make_plan(config, tmp_path, tmp_path / "out").cells) == 1


def test_nothing_to_run(tmp_path: Path) -> None:
    argon().write(tmp_path / "argon.extxyz")
    systems = [{"name": "a", "structure": "argon.extxyz"}]
    (tmp_path / "f.yaml").write_text(yaml.safe_dump({**FILE, "systems": systems}))
    done = call("benchmark", tmp_path / "f.yaml", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "does not know Ar" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
