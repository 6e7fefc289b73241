"""``DMTS_NO_SKIPS=1``: a test that is skipped for want of a package fails."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from places import ROOT

TESTS = """
import pytest
{module}
def test_passes(): pass
@pytest.mark.skipif(True, reason="needs a program")
def test_program(): pass
def test_package(): pytest.importorskip("no_such_package")
def test_shared(): pytest.skip("../shared is absent: no model")
@pytest.mark.xfail
def test_known(): assert False
"""


def outcome(folder: Path, no_skips: str, module: str = "") -> tuple[int, str]:
    """Exit status and last line of pytest on a folder with the conftest of these tests."""
    tests = folder / "tests"
    tests.mkdir(parents=True)
    (tests / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (tests / "test_it.py").write_text(TESTS.format(module=module))
    paths = f"{ROOT}:{ROOT / 'tests' / 'support'}"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=folder,
        env={**os.environ, "DMTS_NO_SKIPS": no_skips, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.returncode, done.stdout


def test_files_that_start_processes_exist() -> None:
    """The list of conftest.py follows what is moved or renamed."""
    text = (ROOT / "tests" / "conftest.py").read_text()
    names = re.findall(r'^    "([\w/]+\.py)",$', text, re.M)
    assert len(names) > 10
    assert [name for name in names if not (ROOT / "tests" / name).is_file()] == []


@pytest.mark.process
def test_skips_fail_where_nothing_may_be_missing(tmp_path: Path) -> None:
    status, text = outcome(tmp_path / "lax", "")
    assert (status, "1 passed, 3 skipped, 1 xfailed" in text) == (0, True), text
    status, text = outcome(tmp_path / "strict", "1")
    assert (status, "1 failed, 1 passed, 1 skipped, 1 xfailed, 1 error" in text) == (1, True), text
    assert "DMTS_NO_SKIPS=1 does not allow: needs a program" in text


@pytest.mark.process
def test_a_skipped_module_fails_as_well(tmp_path: Path) -> None:
    module = 'pytest.importorskip("no_such_package")'
    assert outcome(tmp_path / "lax", "", module)[0] == 5  # no test was run
    status, text = outcome(tmp_path / "strict", "1", module)
    assert status not in (0, 5)
    assert "could not import 'no_such_package'" in text
