"""The README is true: its commands parse, its main example runs, its tables name what exists."""

import json
import re
import shlex
import subprocess
import sys

import pytest

from dmts_ipi.cli import COMMANDS, build_parser
from dmts_ipi.commands.distill import build_config
from dmts_ipi.commands.label import read_config
from places import ROOT

README = (ROOT / "README.md").read_text()


def commands():
    """Every dmts-ipi command of the README's bash blocks, as words."""
    text = "\n".join(re.findall(r"```bash\n(.*?)```", README, re.S)).replace("\\\n", " ")
    text = text.replace("$teacher", "water-teacher")
    for line in text.splitlines():
        for part in line.split("&&"):
            words = shlex.split(part, comments=True)
            if words[:1] == ["dmts-ipi"]:
                yield words[1:]


def test_is_short_and_lists_every_command():
    assert len(README.splitlines()) <= 150
    listed = set(re.findall(r"^\| `dmts-ipi ([a-z-]+)", README, re.M))
    assert listed == set(COMMANDS)


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_command_parses(words):
    args = build_parser(words[0]).parse_args(words)
    if words[0] == "distill":
        build_config(args)  # what argparse cannot see, such as a length
    if words[0] == "label":
        read_config(args)


def test_names_files_that_exist():
    for name in re.findall(
        r"(?:docs|drivers|ipi_inputs|run_scripts|benchmarks)/[\w./-]+\w", README
    ):
        assert (ROOT / name).exists(), name


def dmts(*words, cwd):
    done = subprocess.run(
        [sys.executable, "-m", "dmts_ipi.cli", *words],
        cwd=cwd, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(1300)  # a minute, where nothing else wants the processors
def test_main_example_runs_with_the_shipped_models(tmp_path):
    """The example of 'Use it', shortened: STS and DMTS of water, then the report."""
    pytest.importorskip("mace")
    example = [w for w in commands() if w[0] in ("init", "run", "analyze")][:5]
    assert [w[0] for w in example] == ["init", "init", "run", "run", "analyze"]
    for words in example:
        if words[0] == "init":
            words = [*words, "--time-ps", "0.12", "--threads", "1"]
        dmts(*words, cwd=tmp_path)
    for name, steps in (("sts", 120), ("dmts", 20)):
        summary = json.loads((tmp_path / name / "summary.json").read_text())
        assert summary["exit"] == "finished", summary
        assert summary["outer_steps"] == steps
        assert 150 < summary["temperature_mean_K"] < 450  # alive; the physics is tested elsewhere
    page = (tmp_path / "report.html").read_text()
    assert "<html" in page
    assert "DMTS-NC" in page
