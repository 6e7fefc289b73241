"""docs/reach.png is drawn from the results that are kept, and from nothing else."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from places import ROOT

pytest.importorskip("matplotlib")


def recipe() -> ModuleType:
    file = ROOT / "run_scripts" / "recipes" / "readme_figure.py"
    spec = importlib.util.spec_from_file_location("readme_figure", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["readme_figure"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_figure_reads_the_results(tmp_path: Path) -> None:
    figure = recipe()
    points = figure.temperatures((figure.RESULTS / "integrators.txt").read_text())
    assert {name: len(rows) for name, rows in points.items()} == {"1ps": 3, "hhf": 1, "bonds": 3}
    assert all(280 < p.kelvin < 300 and 0 < p.stderr < 5 for row in points.values() for p in row)
    assert figure.speeds() == [(6.0, 5.04), (10.0, 8.01)]
    figure.draw(tmp_path / "reach.png")
    assert (tmp_path / "reach.png").stat().st_size > 10_000


def test_figures_of_the_readme_are_those_of_the_results() -> None:
    readme = (ROOT / "README.md").read_text()
    figure = recipe()
    six, ten = (ratio for _, ratio in figure.speeds())
    row = "| speedup over STS with outer steps of 6 fs; of 10 fs with friction 10/ps on hydrogen |"
    assert f"{row} {six:.1f}; {ten:.1f} |" in readme
