"""What is said of i-PI's versions is true: one range everywhere, and its two ends were tried."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from dmts_ipi.ipi.patches import table
from dmts_ipi.ipi.patches.install import fault_of
from dmts_ipi.ipi.version import REQUIREMENT, is_supported, numbers
from places import ROOT


def pinned() -> Requirement:
    """i-PI among the dependencies of pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text()
    found = re.search(r'^ +"(ipi[<>=!~][^"]*)"', text, re.M)
    assert found is not None
    return Requirement(found[1])


def test_pyproject_pins_what_the_code_supports() -> None:
    assert pinned() == Requirement(REQUIREMENT)


@pytest.mark.parametrize(
    "number", ["3.2.9", "3.3.0", "3.3.1", "3.3.7", "3.3.1.post1", "3.4.0", "3.4.2", "4.0"]
)
def test_versions_are_compared_as_pip_compares_them(number: str) -> None:
    assert is_supported(number) == pinned().specifier.contains(number)


def test_numbers_of_a_version() -> None:
    assert numbers("3.3.1") == numbers("3.3.1rc2") == (3, 3, 1)
    assert numbers("4") == (4, 0, 0)


def test_the_installed_ipi_is_supported() -> None:
    found = version("ipi")
    assert is_supported(found)
    assert pinned().specifier.contains(found)
    assert [fault_of(patch) for patch in table.PATCHES if fault_of(patch)] == []


def test_no_other_range_is_named() -> None:
    """Messages, documents and scripts name the range that the code supports, or none."""
    files = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("run_scripts/**/*.*")]
    files += [*ROOT.glob("dmts_ipi/**/*.py"), *ROOT.glob("ipi_inputs/*"), ROOT / "pyproject.toml"]
    for file in files:
        for found in re.findall(r"\bipi *(?:>=|==|~=|<)[^'\"\s\])]*", file.read_text()):
            assert Requirement(found) == Requirement(REQUIREMENT), f"{file}: {found}"


@pytest.mark.network
@pytest.mark.process
@pytest.mark.skipif(find_spec("pip") is None, reason="needs pip")
def test_ipi_3_3_0_is_refused_and_the_remedy_helps(tmp_path: Path) -> None:
    """The real 3.3.0, beside the installed packages; then what the message says to install."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps"]
    check = (
        "from dmts_ipi.ipi.patches.install import install_patches; "
        "install_patches(used={'integrators': ()})"
    )

    def install(folder: Path, requirement: str) -> None:
        done = subprocess.run([*pip, "--target", folder, requirement], capture_output=True)
        if done.returncode and b"No matching distribution" in done.stderr:
            pytest.skip("the package index cannot be reached")
        assert done.returncode == 0, done.stderr

    def checked(folder: Path) -> subprocess.CompletedProcess[str]:
        places = {**os.environ, "PYTHONPATH": f"{folder}:{ROOT}"}
        return subprocess.run(
            [sys.executable, "-c", check], env=places, capture_output=True, text=True
        )

    install(tmp_path / "old", "ipi==3.3.0")
    refused = checked(tmp_path / "old")
    assert refused.returncode != 0
    assert (
        "InputError: i-PI = 3.3.0: supported is 3.3.1 up to, not including, 3.4" in refused.stderr
    )
    remedy = re.search(r"pip install '(.+)'", refused.stderr)
    assert remedy is not None
    install(tmp_path / "new", remedy[1])
    accepted = checked(tmp_path / "new")
    assert accepted.returncode == 0, accepted.stderr
