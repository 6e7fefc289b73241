"""An observable from outside: the example of docs/extending/observable.md, by an entry point."""

from __future__ import annotations

import csv
import json
import re
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

from analysis_runs import water_box, write_folder
from dmts_ipi.analysis.observables import OBSERVABLES, Observable, observables
from dmts_ipi.analysis.run_data import read_run
from dmts_ipi.cli import main
from places import ROOT

NAME = "radius_of_gyration"


def example() -> str:
    """The first Python block of the page."""
    text = (ROOT / "docs" / "extending" / "observable.md").read_text()
    found = re.search(r"```python\n(.*?)```", text, re.S)
    assert found is not None
    return found[1]


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, source: str, name: str = NAME) -> None:
    """As an installed package with an entry point."""
    folder.mkdir(exist_ok=True)
    (folder / "my_gyration.py").write_text(source)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "my_gyration", raising=False)
    entry = EntryPoint(name, "my_gyration:RADIUS_OF_GYRATION", "dmts_ipi.observables")
    monkeypatch.setattr(OBSERVABLES, "_found", {name: entry})
    monkeypatch.setattr(OBSERVABLES, "_loaded", {})


def test_example_is_everywhere_without_a_change_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch, tmp_path / "package", example())
    atoms = water_box(2)
    runs = [
        write_folder(tmp_path / "sts", atoms),
        write_folder(tmp_path / "mts", atoms, "dmts", 5, seed=2),
    ]
    out = tmp_path / "report.html"
    assert main(["analyze", *map(str, runs), "--out", str(out)]) == 0
    text = capsys.readouterr().out
    page = out.read_text()
    record = json.loads(out.with_suffix(".json").read_text())

    mass = atoms.get_masses()[:, None]
    run = read_run(runs[0])
    kept = [x for step, x, *_ in run.frames() if step * run.outer_fs / 1000 >= 0.8 - 1e-9]
    centre = [(mass * x).sum(axis=0) / mass.sum() for x in kept]
    radius = [
        float(np.sqrt((mass * (x - c) ** 2).sum() / mass.sum()))
        for x, c in zip(kept, centre, strict=True)
    ]
    mine = record["runs"][0][NAME]
    assert mine["mean"] == pytest.approx(np.mean(radius), rel=1e-9)
    assert mine["unit"] == "Å"
    np.testing.assert_allclose(mine["values"], radius, rtol=1e-9)

    (compared,) = [c for c in record["comparisons"] if c["observable"] == "radius of gyration"]
    assert (compared["run"], compared["against"]) == ("mts", "sts")
    assert compared["verdict"]["status"] in ("agrees", "too short", "deviates")

    assert "Radius of gyration, Å" in page  # the column
    assert "<h3>Radius of gyration</h3>" in page  # the figure
    assert "radius of gyration" in text
    folder = tmp_path / "report_csv"
    with open(folder / f"{NAME}.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [r["run"] for r in rows] == ["sts", "mts"]
    assert float(rows[0]["mean_Å"]) == pytest.approx(mine["mean"], rel=1e-6)
    assert len((folder / f"sts-{NAME}.csv").read_text().splitlines()) == len(radius) + 1


def test_a_row_that_does_not_fit_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_folder(tmp_path / "sts", water_box(1), time_ps=0.2)
    words = ["analyze", str(run), "--out", str(tmp_path / "r.html")]

    def message(source: str, name: str = NAME) -> str:
        install(monkeypatch, tmp_path / "package", source, name)
        assert main(words) == 2
        return capsys.readouterr().err

    assert "subclass of Observable" in message("RADIUS_OF_GYRATION = 3\n")
    assert "use one name" in message(example(), "gyration")
    taken = example().replace(f'"{NAME}"', '"npt"')
    assert "writes the key 'npt'" in message(taken, "npt")
    assert "cannot be imported" in message("import nothing_of_this_name\n")
    assert not (tmp_path / "r.html").exists()


def test_our_rows() -> None:
    rows = observables()
    assert len({o.name for o in rows}) == len(rows)
    assert all(isinstance(o, Observable) for o in rows)
    assert [o.name for o in rows][:2] == ["speed", "temperature"]
