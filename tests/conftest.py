"""The run that tests of ``dmts-ipi run`` and ``watchdog`` copy, and the same in one go."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from run_tools import call, direct, kinds, make


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh folder to copy: 100 outer steps of 4 fs, springs inside i-PI, no drivers."""
    return direct(make(tmp_path_factory.mktemp("made") / "run", "--no-model-check"))


@pytest.fixture
def fresh(made: Path, tmp_path: Path) -> Path:
    """A copy of one's own."""
    return Path(shutil.copytree(made, tmp_path / "run"))


@pytest.fixture(scope="session")
def unbroken(made: Path) -> Path:
    """The same run to its end, in one go; to read and to copy."""
    folder = Path(shutil.copytree(made, made.parent / "unbroken"))
    done = call("run", folder)
    assert done.returncode == 0, done.stderr
    assert kinds(folder) == ["start", "end"]
    return folder
