"""The page in a real browser, where one is installed: no overflow on a phone, buttons work."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from analysis_runs import water_box, write_folder
from dmts_ipi.cli import main

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
LIMIT_S = 120

# Loads the page in frames of a phone's and a desk's width, and asks it what a reader would see.
PROBE = """<!doctype html><body><pre id="found"></pre><script>
var found = {}, left = 2;
[['phone', 390], ['desk', 1280]].forEach(function (kind) {
  var frame = document.createElement('iframe');
  frame.style.width = kind[1] + 'px'; frame.style.height = '800px'; frame.src = 'report.html';
  frame.onload = function () {
    var d = frame.contentDocument, plots = Array.from(d.querySelectorAll('figure svg'));
    var button = d.querySelector('button[data-copy=verdicts]');
    button.click();
    found[kind[0]] = {
      width: kind[1], scroll: d.documentElement.scrollWidth,
      plots: plots.length, flat: plots.filter(function (p) {
        var box = p.getBoundingClientRect(); return box.width < 200 || box.height < 60; }).length,
      clipped: Array.from(d.querySelectorAll('.card .value')).filter(function (v) {
        return v.scrollWidth > v.parentElement.clientWidth; }).length,
      h1: d.querySelector('h1').innerText
    };
    setTimeout(function () {
      found[kind[0]].button = button.textContent;
      if (--left === 0) document.getElementById('found').textContent = JSON.stringify(found);
    }, 200);
  };
  document.body.append(frame);
});
</script></body>"""


def browser() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no chromium or chrome is installed")
    return found


def ask(folder: Path, *arguments: str) -> str:
    """Runs the browser without a window; a machine on which it cannot run skips the test."""
    command = [
        browser(), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--allow-file-access-from-files", "--no-first-run", "--hide-scrollbars",
        f"--user-data-dir={folder / 'profile'}", *arguments,
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        pytest.skip(f"the browser did not answer within {LIMIT_S} s")
    if done.returncode != 0:
        pytest.skip(f"the browser does not run here: {done.stderr.strip()[-200:]}")
    return done.stdout


def test_page_in_a_browser(tmp_path: Path) -> None:
    browser()
    atoms = water_box(2)
    runs = [
        write_folder(tmp_path / "sts", atoms, time_ps=10.0, frames_every_fs=8),
        write_folder(tmp_path / "mts", atoms, "dmts", 8, time_ps=10.0, frames_every_fs=8, seed=2),
    ]
    assert main(["analyze", *map(str, runs), "--out", str(tmp_path / "report.html")]) == 0
    probe = tmp_path / "probe.html"
    probe.write_text(PROBE)
    dom = ask(tmp_path, "--virtual-time-budget=20000", "--dump-dom", probe.as_uri())
    match = re.search(r'<pre id="found">(.*?)</pre>', dom, re.S)
    assert match is not None
    found = json.loads(html.unescape(match[1]))
    for view in ("phone", "desk"):
        seen = found[view]
        assert seen["scroll"] <= seen["width"], f"{view}: the page is wider than the screen"
        assert seen["plots"] >= 11
        assert seen["flat"] == 0
        assert seen["clipped"] == 0
        assert seen["button"] == "Copied"
        assert "8 H₂O" in seen["h1"]


def test_page_prints(tmp_path: Path) -> None:
    browser()
    run = write_folder(tmp_path / "sts", water_box(2), time_ps=2.0)
    page, paper = tmp_path / "report.html", tmp_path / "report.pdf"
    assert main(["analyze", str(run), "--out", str(page)]) == 0
    ask(tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={paper}", page.as_uri())
    assert paper.read_bytes().startswith(b"%PDF")
    assert paper.stat().st_size > 20_000
