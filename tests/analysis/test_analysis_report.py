"""The command from run folders to the page, and every wrong input as one line."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from analysis_runs import water_box, write_folder
from dmts_ipi.analysis.compare import compare
from dmts_ipi.analysis.figures import palette_of
from dmts_ipi.analysis.formatting import plus_minus
from dmts_ipi.analysis.headline import cards, summary_sentence
from dmts_ipi.analysis.measure import Measured, measure
from dmts_ipi.analysis.observables.conserved import CONSERVED
from dmts_ipi.analysis.observables.diffusion import DIFFUSION, Displaced
from dmts_ipi.analysis.observables.temperature import TEMPERATURE
from dmts_ipi.analysis.report import draw
from dmts_ipi.analysis.run_data import read_run, read_runs
from dmts_ipi.analysis.verdict import AGREES, DEVIATES, SHORT, judge
from dmts_ipi.cli import main
from dmts_ipi.core.errors import InputError
from dmts_ipi.core.statistics import Estimate
from dmts_ipi.core.units import KB_EV_PER_K


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    top, atoms = tmp_path_factory.mktemp("runs"), water_box(2)
    return {
        "sts": write_folder(top / "sts", atoms),
        "dmts": write_folder(top / "dmts", atoms, "dmts", 5, seed=2, ns_per_day=4.2),
        "hot": write_folder(top / "hot", atoms, "dmts", 6, 450.0, seed=3, ns_per_day=5.0),
    }


class Page(HTMLParser):
    """Collects tags, ids and everything that a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)
        for key, value in attrs:
            if key == "id":
                self.ids.append(str(value))
            if key in ("src", "href", "xlink:href", "srcset", "data"):
                self.links.append(str(value))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in ("meta", "br"):
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_one_file_that_needs_nothing(folders: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    assert main(["analyze", str(folders["sts"]), str(folders["dmts"]), "--out", str(out)]) == 0
    text = out.read_text()
    page = Page(text)
    assert not page.open
    assert all(link.startswith("#") for link in page.links)
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text
    assert len(page.ids) == len(set(page.ids))
    assert page.tags.count("figure") == 10
    assert page.tags.count("svg") == 10
    assert "4.2×" in text
    assert "dmts-ipi init again" in text
    record = json.loads((tmp_path / "report.json").read_text())
    assert record["reference"] == "sts"
    dmts = record["runs"][1]
    assert dmts["speedup"] == pytest.approx(4.2)
    assert dmts["scheme"] == "DMTS-NC 1–5 fs"
    assert set(dmts["temperature_K"]) == {"atoms", "O", "H", "O-H"}
    assert set(dmts["distributions"]) == {"O-O", "O-H", "H-H"}
    assert list(tmp_path.glob("*.new")) == []


@pytest.fixture(scope="module")
def fine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Runs with velocities often enough for spectra, long enough for diffusion; a watchdog."""
    top, atoms = tmp_path_factory.mktemp("fine"), water_box(2)
    sts = write_folder(top / "sts", atoms, time_ps=12.0, frames_every_fs=8)
    mts = write_folder(top / "mts", atoms, "dmts", 8, time_ps=12.0, frames_every_fs=8, seed=2)
    event = {"time": "2026-11-21T10:00:00+0000", "kind": "rewind", "step": 800, "time_ps": 6.4,
             "text": "difference 9 eV/A <at> atom 3"}  # fmt: skip
    (mts / "events.jsonl").write_text(json.dumps(event) + "\n{damaged\n")
    bins = [0] * 56
    bins[20:24] = [10, 60, 28, 2]
    watchdog = {"difference_max_eV_per_A": {"bins": bins, "lowest_edge": 1e-4, "bins_per_decade": 8,
                "median": 0.05, "p99": 0.1, "largest": 0.12}}  # fmt: skip
    (mts / "summary.json").write_text(json.dumps({"ns_per_day": 3.0, "watchdog": watchdog}))
    return sts, mts


def test_certificate_of_runs_with_everything(fine: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    assert main(["analyze", *map(str, fine), "--out", str(out)]) == 0
    text = out.read_text()
    page = Page(text)
    assert not page.open
    assert len(page.ids) == len(set(page.ids))
    assert "difference 9 eV/A &lt;at&gt; atom 3" in text
    for title in ("Velocity spectrum of H", "Mean-square displacement", "Disagreement of teacher",
                  "quantile by quantile", "input.xml"):  # fmt: skip
        assert title in text
    assert "comparisons" in text or "agree" in text
    record = json.loads((tmp_path / "report.json").read_text())
    for run in record["runs"]:
        (diffusion,) = run["diffusion"]
        assert diffusion["kind"] == "H2O"
        assert abs(diffusion["D_A2_per_ps"] - 0.25) < 4 * diffusion["stderr_A2_per_ps"]
        assert 0.5 < run["relaxation_ps"] < 2
        for s in run["spectra"]:
            assert s["nyquist_THz"] == pytest.approx(62.5)
        density = run["velocity_spectra"]["H"]
        area = sum(density["density_K_per_THz"]) * density["frequency_THz"][1]
        assert area == pytest.approx(run["temperature_K"]["H"]["mean"], rel=0.02)
    assert record["runs"][1]["foreign_peaks"] == []
    assert record["runs"][1]["events"][0]["kind"] == "rewind"
    observables = {c["observable"] for c in record["comparisons"]}
    assert {"diffusion of H2O", "foreign peaks in the spectrum of H"} <= observables


def test_a_slope_that_is_no_diffusion_coefficient_is_no_verdict(fine: tuple[Path, Path]) -> None:
    sts, mts = (measure(run) for run in read_runs(fine))
    (d,) = DIFFUSION.of(mts).kinds
    sts.results["diffusion"] = Displaced([dataclasses.replace(d, exponent=1.0)])
    far = Estimate(3 * d.D_A2_per_ps.mean, 0.01, 1.0, 100)

    def verdict(exponent: float) -> tuple[str, str]:
        changed = dataclasses.replace(d, exponent=exponent, D_A2_per_ps=far)
        mts.results["diffusion"] = Displaced([changed])
        found = [c for c in compare([sts, mts], sts) if c.observable == "diffusion of H2O"]
        (one,) = found
        return one.verdict.status, one.verdict.text

    # molecules in their cages: errors of the slope say nothing
    status, text = verdict(0.6)
    assert status == SHORT
    assert "not diffusive yet in mts" in text
    assert "not diffusive" not in verdict(1.0)[1]


def test_csv_files_hold_the_figures(fine: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    assert main(["analyze", *map(str, fine), "--out", str(out)]) == 0
    folder = tmp_path / "page_csv"
    names = {p.name for p in folder.iterdir()}
    assert {"verdicts.csv", "mts-rdf-O-O.csv", "sts-spectrum-H.csv", "mts-msd-H2O.csv"} <= names
    record = json.loads((tmp_path / "page.json").read_text())
    with open(folder / "verdicts.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(record["comparisons"])
    for row, c in zip(rows, record["comparisons"], strict=True):
        assert row["observable"] == c["observable"]
        assert row["verdict"] == c["verdict"]["status"]
        assert float(row["value"]) == pytest.approx(c["value"], rel=1e-6)
    with open(folder / "sts-series.csv", newline="") as stream:
        series = [float(r["temperature_K"]) for r in csv.DictReader(stream)]
    np.testing.assert_allclose(series, record["runs"][0]["series"]["temperature_K"], rtol=1e-6)


def test_structure_of_a_run_shorter_than_its_relaxation_is_not_judged(
    fine: tuple[Path, Path], folders: dict[str, Path]
) -> None:
    known = [measure(r) for r in read_runs(list(fine))]
    short = [measure(r) for r in read_runs([folders["sts"], folders["dmts"]])]
    slow = [dataclasses.replace(known[0], relaxation_ps=40.0), known[1]]

    def verdict(measured: list[Measured]) -> str:
        found = compare(measured, measured[0])
        return next(
            c.verdict.text for c in found if c.observable == "width of the potential energy"
        )

    assert "relax" not in verdict(known)
    assert "8 ps of frames" in verdict(short)
    assert verdict(slow) == "the structure of sts relaxes in about 40 ps; about 320 ps would tell"


def test_json_on_stdout(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.html"
    assert main(["analyze", str(folders["sts"]), "--out", str(out), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["report"] == str(out)
    assert 250 < record["runs"][0]["temperature_K"]["atoms"]["mean"] < 350
    assert "series" not in record["runs"][0]


def test_text_on_stdout(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.html"
    main(["analyze", str(folders["sts"]), str(folders["hot"]), "--out", str(out)])
    text = capsys.readouterr().out
    assert "5.0 times faster" in text
    assert "deviates in: temperature of atoms" in text
    assert str(out) in text


def test_hot_run_deviates_and_right_run_does_not(folders: dict[str, Path]) -> None:
    runs = read_runs([folders["sts"], folders["dmts"], folders["hot"]])
    measured = [measure(r) for r in runs]
    verdicts = compare(measured, measured[0])
    hot = {c.observable: c for c in verdicts if c.run == "hot" and c.against == "sts"}
    assert hot["temperature of atoms"].verdict.status == DEVIATES
    assert hot["temperature of O–H bonds"].verdict.status == DEVIATES
    right = [c for c in verdicts if c.run == "dmts" and c.against == "sts"]
    assert all(c.verdict.status != DEVIATES for c in right)


def test_heating_is_seen_in_the_conserved_quantity(folders: dict[str, Path]) -> None:
    """1e-5 eV a step of 1 fs over 24 atoms, at 1/ps: 1.6 K; known before the temperature is."""
    run = read_run(folders["sts"])
    m = measure(run)
    rate = 1e-5 * 1000 / (3 * 24 * KB_EV_PER_K)  # K/ps
    assert CONSERVED.of(m).heating_K.mean == pytest.approx(rate, rel=1e-6)
    step = run.properties["step"]
    noise = np.random.default_rng(1).normal(size=len(step)) * 0.01
    run.properties["conserved_eV"] = 5e-5 * step + noise
    found = {c.observable: c.verdict.status for c in compare([measure(run)], None)}
    assert found["heating by the integrator"] == DEVIATES
    assert found["temperature of atoms"] == SHORT


def test_no_energy_is_a_note_and_no_plot(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "run", water_box(2), time_ps=2.0)
    run = read_run(folder)
    run.properties["potential_eV"] = np.zeros_like(run.properties["potential_eV"])
    m = measure(run)
    assert any("no energy" in note for note in m.notes)
    assert not any("heating" in c.observable for c in compare([m], None))
    assert not {"potential", "conserved"} & {p.key for p in draw([m], palette_of([m], None))}


def test_place_of_the_thermostat_is_read_from_the_input(folders: dict[str, Path]) -> None:
    assert read_run(folders["sts"]).thermostat_mid_drift
    assert read_run(folders["dmts"]).thermostat_mid_drift
    assert not read_run(folders["hot"]).thermostat_mid_drift  # six inner steps
    assert not read_run(folders["sts"]).fixcom


def test_short_run_says_so_and_still_makes_a_page(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "short", water_box(2), time_ps=0.05, ns_per_day=None)
    assert main(["analyze", str(folder), "--out", str(tmp_path / "r.html")]) == 0
    text = (tmp_path / "r.html").read_text()
    Page(text)
    assert "too short for an error bar" in text
    assert "nan" not in text.lower().replace("nanosecond", "")


def test_truncated_trajectory_uses_its_whole_part(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "cut", water_box(2), time_ps=2.0)
    whole = measure(read_run(folder))
    for name in ("md.positions_0.xyz", "md.velocities_0.xyz"):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(0.7 * len(data))])
    cut = measure(read_run(folder))
    assert 0 < cut.frames_used < whole.frames_used
    assert any("whole part" in note for note in cut.notes)


def test_no_velocities_is_a_note(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "run", water_box(2), time_ps=2.0)
    run = read_run(folder)
    frames = run.frames
    run.frames = lambda: ((s, x, c, None) for s, x, c, _ in frames())
    m = measure(run)
    assert set(TEMPERATURE.of(m).kinetic) == {"atoms"}
    assert any("no velocities" in note for note in m.notes)


def test_nve_is_judged_by_its_drift(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "nve", water_box(2), ensemble="nve")
    m = measure(read_run(folder))
    (verdict,) = compare([m], None)
    assert verdict.observable == "drift of the conserved quantity"
    # 1e-5 eV a step of 1 fs over 24 atoms
    assert CONSERVED.of(m).drift.mean == pytest.approx(1e-5 * 1e6 / 24, rel=1e-6)


def wrong(
    folders: dict[str, Path], tmp: Path, capsys: pytest.CaptureFixture[str], *args: str
) -> str:
    """Runs the command, which must fail with one line and write nothing."""
    before = sorted(tmp.rglob("*"))
    assert main(["analyze", *args]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert sorted(tmp.rglob("*")) == before
    return message


def test_wrong_input(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, sts = str(tmp_path / "r.html"), str(folders["sts"])
    other = str(write_folder(tmp_path / "other", water_box(1), time_ps=0.2))
    dense = str(write_folder(tmp_path / "dense", water_box(2, 3.0), time_ps=0.2))
    empty = tmp_path / "empty"
    empty.mkdir()
    bare = write_folder(tmp_path / "bare", water_box(1), time_ps=0.2)
    (bare / "md.properties").unlink()
    bad = write_folder(tmp_path / "bad", water_box(1), time_ps=0.2)
    (bad / "summary.json").write_text("{")

    def fails(*args: str) -> str:
        return wrong(folders, tmp_path, capsys, *args)

    assert "does not exist" in fails(str(tmp_path / "nowhere"), "--out", out)
    assert "holds no run" in fails(str(empty), "--out", out)
    assert "has the run started?" in fails(str(bare), "--out", out)
    assert "not valid JSON" in fails(str(bad), "--out", out)
    assert "different systems" in fails(sts, other, "--out", out)
    assert "compare one density" in fails(sts, dense, "--out", out)
    assert "given twice" in fails(sts, sts, "--out", out)
    assert "--skip-ps = 40" in fails(sts, "--skip-ps", "40", "--out", out)
    assert "positive" in fails(sts, "--skip-ps", "-1", "--out", out)
    assert "does not exist" in fails(sts, "--out", str(tmp_path / "no" / "r.html"))
    assert "is a folder" in fails(sts, "--out", str(tmp_path))


def test_nan_in_a_run_is_named(tmp_path: Path) -> None:
    run = read_run(write_folder(tmp_path / "run", water_box(1), time_ps=0.5))
    run.properties["potential_eV"] = run.properties["potential_eV"].copy()
    run.properties["potential_eV"][30:] = np.nan
    with pytest.raises(InputError, match=r"potential_eV is not finite from step 300"):
        measure(run)


@pytest.mark.parametrize(
    ("difference", "stderr", "status"),
    [
        (1.0, 1.0, AGREES),
        (2.9, 0.1, AGREES),  # significant, but within the tolerance
        (4.0, 1.0, DEVIATES),
        (7.0, 4.0, SHORT),
        (10.0, 4.0, SHORT),  # two to three standard errors
        (13.0, 4.0, DEVIATES),
        (0.0, math.nan, SHORT),
        (5.0, 0.0, DEVIATES),
    ],
)
def test_verdicts(difference: float, stderr: float, status: str) -> None:
    assert judge(difference, stderr, 3.0, "K", 10.0).status == status


def test_verdict_says_how_much_longer() -> None:
    verdict = judge(1.0, 3.0, 3.0, "K", 10.0)
    assert verdict.longer == pytest.approx(4)
    assert "40 ps" in verdict.text


def test_numbers_in_words() -> None:
    assert plus_minus(299.123, 1.04, "K") == "299.1 ± 1.0 K"
    assert plus_minus(-0.5, 0.123, "%", signed=True) == "−0.50 ± 0.12 %"
    assert plus_minus(300.0, 12.0) == "300 ± 12"
    assert plus_minus(math.nan, 1.0) == "–"
    assert plus_minus(1.5, math.nan) == "1.5"


def test_headline_does_not_contradict_the_table(folders: dict[str, Path]) -> None:
    """What deviates from theory, or in another run than the fastest, is in the sentence."""
    runs = read_runs([folders["sts"], folders["dmts"], folders["hot"]])
    measured = [measure(r) for r in runs]
    measured[2].run.summary["ns_per_day"] = 0.5  # no longer the run of the headline
    found = compare(measured, measured[0])
    text = summary_sentence(measured, measured[0], found)
    assert "hot deviates in: temperature of atoms" in text
    assert "5 fs ran 4.2 times faster" in text
    hot = [c for c in compare([measured[2]], None) if c.verdict.status == DEVIATES]
    assert hot
    assert "but it deviates in: temperature of atoms" in summary_sentence([measured[2]], None, hot)
    against = [c for c in found if c.against == "theory" and c.run == "hot"]
    (card,) = [c for c in cards([measured[2]], None, against) if c.what == "Temperature"]
    assert card.status == DEVIATES
    agreeing = dataclasses.replace(against[0], verdict=judge(0.0, 1.0, 3.0, "K", 1.0))
    assert "agrees with theory" in summary_sentence([measured[2]], None, [agreeing])
