"""The README's picture is made by a script, and shows the report as it looks today."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from places import ROOT


@pytest.fixture(scope="module")
def script() -> ModuleType:
    file = ROOT / "run_scripts" / "recipes" / "quickstart_picture.py"
    spec = importlib.util.spec_from_file_location("quickstart_picture", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page(script: ModuleType) -> str:
    return script.page_today()


def test_fingerprint_is_of_the_look_not_of_the_figures(script: ModuleType, page: str) -> None:
    look = script.fingerprint(page)
    assert look == script.fingerprint(page.replace("300.0", "299.3"))
    assert look != script.fingerprint(page.replace("Temperature", "Heat"))
    assert look != script.fingerprint(page.replace("<style>", "<style>p { margin: 3px; }", 1))


def test_the_picture_in_docs_is_not_stale(script: ModuleType, page: str) -> None:
    """If it is: run_scripts/recipes/quickstart_picture.py makes it again."""
    assert script.fingerprint_of(ROOT / "docs" / "quickstart.png") == script.fingerprint(page)


@pytest.mark.process
def test_the_script_makes_a_picture(script: ModuleType, page: str, tmp_path: Path) -> None:
    if not any(map(shutil.which, script.BROWSERS)):
        pytest.skip("no chromium or chrome is installed")
    report, picture = tmp_path / "report.html", tmp_path / "picture.png"
    report.write_text(page)
    script.take(report, picture, "abc")
    assert script.fingerprint_of(picture) == "abc"
    assert picture.stat().st_size < 400_000
    with Image.open(picture) as image:
        assert image.size == script.SIZE
        shades = np.asarray(image.convert("L"))
    assert (shades > 200).mean() > 0.5  # paper
    assert (shades < 90).mean() > 0.005  # letters and curves
