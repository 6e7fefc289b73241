"""Every wrong input: exit status, one line, nothing written, and the page that lists them."""

from __future__ import annotations

from pathlib import Path

import pytest

from wrong_inputs import HEAD, PAGE, PARTS, Case, row, said

CASES = [(title, case) for title, cases in PARTS.items() for case in cases]


def tree(folder: Path) -> dict[str, bytes]:
    """Files and folders; without the lock file of a run, which says who held it last."""
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b""
        for p in folder.rglob("*")
        if p.name != "run.lock"
    }


@pytest.mark.parametrize(
    ("title", "case"), CASES, ids=[f"{t.split()[0]}: {c.situation}" for t, c in CASES]
)
def test_wrong_input(
    title: str, case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    built: dict[str, bytes] = {}

    def build() -> list[object]:
        words = case.build()
        built.update(tree(tmp_path))
        return words

    done, message = said(Case(case.situation, build, case.status, case.run))
    assert done.returncode == case.status, done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert ": error: " in message
    if case.status == 2:
        assert tree(tmp_path) == built
    wanted = row(case, message)
    start = wanted.partition(" | ")[0] + " | "
    on_page = next((x for x in PAGE.read_text().splitlines() if x.startswith(start)), "")
    assert on_page == wanted, "the page is stale: python tests/support/wrong_inputs.py"


def test_the_page_lists_these_and_no_others() -> None:
    text = PAGE.read_text()
    assert text.startswith(HEAD)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert [r.split(" | ")[0] for r in rows if "| situation |" not in r] == [
        f"| {case.situation}" for _, case in CASES
    ]
