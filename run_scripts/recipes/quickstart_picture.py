#!/usr/bin/env python3
"""Makes docs/quickstart.png, the README's picture of a report, by a browser without a window.

    run_scripts/quickstart.sh                                   runs, work/quickstart/report.html
    python run_scripts/recipes/quickstart_picture.py            the picture
    python run_scripts/recipes/quickstart_picture.py --check    is it as the page looks today?

Longer runs say more: `dmts-ipi run work/quickstart/sts --time-ps 20` extends one, and `dmts-ipi
analyze` makes the report again. The picture keeps a fingerprint of the page's look (style sheet,
headings, labels; no figures), taken from a small report of made-up runs. `--check` and a test
compare it with that of today's page: exit status 1 where they differ. Needs chromium or chrome.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import re
import shutil
import subprocess
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
SIZE = (1200, 1500)
KEY = "dmts-ipi page"
COLOURS = 192


class Look(HTMLParser):
    """Collects the style sheet, and the texts of headings, labels and buttons."""

    TAGS = ("style", "h1", "h2", "h3", "h4", "th", "button", "dt", "summary")
    VOID = ("br", "img", "input", "link", "meta", "hr", "path", "col", "use", "line", "rect")

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._open: list[tuple[str, bool]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            label = tag in self.TAGS or "label" in (dict(attrs).get("class") or "").split()
            self._open.append((tag, label))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        text = " ".join(data.split())
        if text and any(label for _, label in self._open):
            style = self._open[-1][0] == "style"
            self.texts.append(text if style else re.sub(r"\d", "", text))


def fingerprint(page: str) -> str:
    """SHA-256 of a page's look: the same for other figures, another for another look."""
    look = Look()
    look.feed(page)
    return hashlib.sha256("\n".join(look.texts).encode()).hexdigest()


def page_today() -> str:
    """The report of two made-up runs as this checkout writes it."""
    from analysis_runs import water_box, write_folder
    from dmts_ipi.cli import main as dmts_ipi

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        atoms, often = water_box(2), {"time_ps": 10.0, "frames_every_fs": 8}
        runs = [write_folder(folder / "sts", atoms, **often)]
        runs.append(write_folder(folder / "dmts", atoms, "dmts", 8, seed=2, **often))
        with contextlib.redirect_stdout(io.StringIO()):
            status = dmts_ipi(["analyze", *map(str, runs), "--out", str(folder / "report.html")])
        if status:
            raise SystemExit(f"dmts-ipi analyze: exit status {status}")
        return (folder / "report.html").read_text()


def fingerprint_of(picture: Path) -> str:
    """The fingerprint that a picture keeps; empty if it has none."""
    from PIL import Image

    with Image.open(picture) as image:
        return str(image.info.get(KEY, ""))


def take(report: Path, picture: Path, look: str) -> None:
    """A picture of the upper part of a report.

    Raises:
        SystemExit: there is no browser, or it fails.
    """
    from PIL import Image, PngImagePlugin

    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        raise SystemExit("quickstart_picture: no chromium or chrome; apt-get install chromium")
    with tempfile.TemporaryDirectory() as temporary:
        shot = Path(temporary) / "shot.png"
        command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += ["--disable-dev-shm-usage", "--no-first-run", "--virtual-time-budget=20000"]
        command += [f"--user-data-dir={temporary}/profile", f"--window-size={SIZE[0]},{SIZE[1]}"]
        command += [f"--screenshot={shot}", report.resolve().as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if done.returncode or not shot.is_file():
            raise SystemExit(f"quickstart_picture: the browser fails: {done.stderr[-300:]}")
        with Image.open(shot) as image:
            small = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        info = PngImagePlugin.PngInfo()
        info.add_text(KEY, look)
        small.save(picture, pnginfo=info, optimize=True)


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument(
        "report", nargs="?", type=Path, default=ROOT / "work" / "quickstart" / "report.html"
    )
    p.add_argument("--out", type=Path, default=ROOT / "docs" / "quickstart.png")
    p.add_argument("--check", action="store_true", help="compare, and make nothing")
    args = p.parse_args()
    if args.check:
        stale = fingerprint_of(args.out) != fingerprint(page_today())
        print(f"{args.out}: {'older than the page; make it again' if stale else 'as the page'}")
        return int(stale)
    if not args.report.is_file():
        p.error(f"{args.report} is not there; run_scripts/quickstart.sh makes it")
    take(args.report, args.out, fingerprint(page_today()))
    print(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
