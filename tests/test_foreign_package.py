"""A package outside ours adds a toy to every seam, and a run uses all of them at once.

The package is ``tests/foreign_package``. It is installed as anybody's is, by pip from a wheel, into
a folder that the processes of the run see. Nothing of ours is changed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "tests" / "foreign_package"
DOCS = ROOT / "docs" / "extending.md"


def wheel(folder: Path) -> Path:
    """The package as a wheel; made here, so that no build tool and no network is needed."""
    tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11")
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    name, version = project["name"].replace("-", "_"), project["version"]
    info = f"{name}-{version}.dist-info"
    points = "".join(
        f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in rows.items()) + "\n"
        for group, rows in project["entry-points"].items()
    )
    files = {f"{name}/{f.name}": f.read_bytes() for f in (PACKAGE / name).glob("*.py")}
    files[f"{info}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {version}\n".encode()
    )
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/entry_points.txt"] = points.encode()
    rows = []
    for path, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        rows.append(f"{path},sha256={digest},{len(content)}")
    files[f"{info}/RECORD"] = ("\n".join([*rows, f"{info}/RECORD,,"]) + "\n").encode()
    out = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(out, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    return out


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip has put the package."""
    folder = tmp_path_factory.mktemp("foreign")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    done = subprocess.run(
        [*pip, "--no-index", "--no-deps", "--target", folder / "site", wheel(folder)],
        capture_output=True,
        text=True,
    )
    if done.returncode and "No module named pip" in done.stderr:
        pytest.skip("needs pip")
    assert done.returncode == 0, done.stderr
    return folder / "site"


def call(site: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """``dmts-ipi`` in a process that sees the package."""
    places = f"{site}:{ROOT / 'tests' / 'support'}"
    environment = {**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "dmts_ipi.cli", *map(str, words)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=280,
    )


def good(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def student(site: Path) -> Path:
    """A student of the foreign architecture, distilled from the foreign teacher's labels."""
    from run_tools import argon

    folder = site.parent
    argon().write(folder / "argon.extxyz")
    labels = folder / "labels.extxyz"
    good(
        call(
            site,
            *("label", "--teacher", "toy-pair:1.0", "--structure", folder / "argon.extxyz"),
            *("--out", labels, "--time-ps", 0.2, "--temperatures-K", 60, "--every-fs", 5),
            *("--equilibrate-ps", 0.05, "--bursts", 1, "--burst-frames", 16, "--seed", 1),
        )
    )
    out = folder / "student"
    good(
        call(
            site,
            *("distill", "--labels", labels, "--out", out, "--architecture", "toy"),
            *("--steps", 300, "--threads", 1, "--no-compile"),
        )
    )
    return out


@pytest.mark.process
def test_a_run_with_a_toy_of_every_seam(site: Path, student: Path) -> None:
    """Three levels of a foreign scheme; foreign teacher, student, thermostat, propagator; a
    foreign verdict rewinds it; a foreign observable is in the report."""
    record = json.loads((student / "model.json").read_text())
    assert record["architecture"]["kind"] == "toy"
    folder = site.parent / "run"
    said = good(
        call(
            site,
            *("init", folder, "--structure", site.parent / "argon.extxyz"),
            *("--teacher", "toy-pair:1.0", "--student", student),
            *("--model", "small=toy-pair:0.97", "--levels", "teacher=1,student=2,small=2"),
            *("--level-scheme", "toy-halves", "--splitting", "toy-respa"),
            *("--thermostat", "toy-resample", "--friction-per-ps", 5, "--temperature-K", 60),
            *("--time-ps", 0.4, "--checkpoints-every-fs", 80, "--frames-every-fs", 16),
            *("--threads", 1, "--allow-teacher-mismatch"),
        )
    )
    assert "100 steps" in said
    text = (folder / "input.xml").read_text()
    assert re.search(r"splitting=.toy-respa.", text)
    assert re.search(r"<thermostat mode=.toy-resample.", text)
    assert "<mts_weights>[0, -0.5, 0.5]</mts_weights>" in text
    settings = (folder / "run.yaml").read_text()
    clock = f"  verdict_options:\n    toy-clock: {{step: 60, once: {folder / 'rewound'}}}\n"
    for line in ("  sts_ps: 1.0\n", "  guard_fs: 100.0\n", "  verdict_options: {}\n"):
        settings = settings.replace(line, "")
    own = "watchdog:\n  sts_ps: 0.04\n  guard_fs: 8.0\n" + clock
    (folder / "run.yaml").write_text(settings.replace("watchdog:\n", own))
    good(call(site, "run", folder))
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["exit"], summary["outer_steps"], summary["n_inner"]) == ("finished", 100, 4)
    events = [json.loads(x) for x in (folder / "events.jsonl").read_text().splitlines()]
    kinds = [e["kind"] for e in events]
    assert "toy-clock" in json.dumps(events)
    assert kinds.count("rewind") == 1
    status = good(call(site, "status", folder))
    assert "rewinds 1" in status
    page = site.parent / "report.html"
    said = good(call(site, "analyze", folder, "--out", page, "--json", "--skip-ps", 0))
    run = json.loads(said)["runs"][0]
    assert np.isfinite(run["toy-spread"]["mean"])
    assert "mean distance from the centre" in page.read_text()
    assert "toy-respa" in page.read_text()


@pytest.mark.process
def test_a_resumed_run_is_the_unbroken_one(site: Path, student: Path) -> None:
    """The foreign propagator and thermostat go on from a checkpoint, to the last digits."""

    def made(name: str, *runs: float) -> np.ndarray:
        folder = site.parent / name
        good(
            call(
                site,
                *("init", folder, "--structure", site.parent / "argon.extxyz"),
                *("--teacher", "toy-pair:1.0", "--student", student, "--n-inner", 2),
                *("--splitting", "toy-respa", "--thermostat", "toy-resample"),
                *("--friction-per-ps", 50, "--temperature-K", 60, "--time-ps", 0.1),
                *("--checkpoints-every-fs", 40, "--threads", 1),
            )
        )
        for time_ps in runs:
            good(call(site, "run", folder, "--no-watchdog", "--time-ps", time_ps))
        lines = (folder / "md.properties").read_text().splitlines()
        return np.array([[float(x) for x in line.split()] for line in lines if line[0] != "#"])

    np.testing.assert_allclose(made("whole", 0.1), made("parts", 0.048, 0.1), rtol=1e-9, atol=1e-9)


def test_the_page_shows_the_files_of_the_package() -> None:
    """docs/extending.md holds each file of the package as it is."""
    page = DOCS.read_text()
    for file in sorted((PACKAGE / "dmts_toys").glob("*.py")):
        if file.name != "__init__.py":
            assert file.read_text().strip() in page, f"{file.name}: python {__file__}"
    assert (PACKAGE / "pyproject.toml").read_text().strip() in page


MARK = "<!-- FILE {} -->\n"


def write_page() -> None:
    """Puts the files of the package into docs/extending.md, at their marks."""
    page = DOCS.read_text()
    for file in [PACKAGE / "pyproject.toml", *sorted((PACKAGE / "dmts_toys").glob("*.py"))]:
        mark = MARK.format(file.name)
        if mark not in page:
            continue
        head, _, rest = page.partition(mark)
        rest = re.sub(r"\A```\w+\n.*?\n```\n", "", rest, flags=re.S)
        kind = "python" if file.suffix == ".py" else "toml"
        page = f"{head}{mark}```{kind}\n{file.read_text().strip()}\n```\n{rest}"
    DOCS.write_text(page)


if __name__ == "__main__":
    write_page()
