"""The run that tests of ``dmts-ipi run`` and ``watchdog`` copy; a server for tests of drivers.

With ``DMTS_NO_SKIPS=1`` a test that would be skipped fails, except for ``ALLOWED_SKIPS``: where
everything is installed (`.ci/run`), no test can go missing unseen.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from ase import Atoms

from dmts_ipi.ipi.client.check_server import Server
from dmts_ipi.ipi.client.client import Endpoint
from driver_models import two_waters
from run_tools import call, direct, kinds, make

NO_SKIPS = os.environ.get("DMTS_NO_SKIPS", "") not in ("", "0")
# Begin of the reasons that no package or program can remove.
ALLOWED_SKIPS = ("../shared is absent", "no GPU")

# Test files that start i-PI, drivers, a browser or other processes: marked `process` as a whole.
# In other files the tests themselves are marked.
PROCESS_FILES = {
    "analysis/test_analysis_browser.py",
    "core/test_tasks.py",
    "docs/test_readme.py",
    "ipi/client/test_driver_client.py",
    "ipi/client/test_driver_ipi.py",
    "ipi/client/test_network.py",
    "ipi/motion/test_resident.py",
    "ipi/patches/test_exchange.py",
    "ipi/patches/test_ipi_wrapper.py",
    "ipi/patches/test_late_outputs.py",
    "ipi/patches/test_process.py",
    "ipi/session/test_lammps.py",
    "ipi/session/test_run_attach.py",
    "ipi/session/test_run_outputs.py",
    "ipi/session/test_run_session.py",
    "ipi/session/test_run_slurm.py",
    "ipi/session/test_run_watchdog.py",
    "ipi/test_input_spec.py",
    "watchdog/test_telemetry_driver.py",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here) and str(item.path.relative_to(here)) in PROCESS_FILES:
            item.add_marker(pytest.mark.process)


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turns a skip into a failure, unless its reason is allowed or it is an expected failure."""
    if not NO_SKIPS or report.outcome != "skipped" or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    if not reason.startswith(ALLOWED_SKIPS):
        report.outcome = "failed"
        report.longrepr = f"skipped, which DMTS_NO_SKIPS=1 does not allow: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_if_skipped(report)
    return report


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


@pytest.fixture
def water() -> Atoms:
    return two_waters()


@pytest.fixture
def name() -> Iterator[str]:
    """A unix socket name of this test alone."""
    unique = f"dmts_test_{uuid.uuid4().hex[:12]}"
    yield unique
    Path(f"/tmp/ipi_{unique}").unlink(missing_ok=True)


@pytest.fixture
def server(name: str) -> Iterator[Server]:
    with Server(Endpoint.unix(name)) as s:
        yield s
