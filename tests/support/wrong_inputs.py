"""Wrong input: every situation with what the command prints. ``docs/wrong_input.md`` is made here.

``python tests/support/wrong_inputs.py [WORDS]`` writes the page; with words, only the rows of
situations that have them in their name. ``test_wrong_input.py`` compares the page with what is
printed. A case builds what is wrong in an empty folder, the current one, and returns the words of
the command.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from places import ROOT, SUPPORT
from run_tools import Done
from wrong_commands import LABELS, MODELS, OPTIONS, STRUCTURES
from wrong_runs import BENCHMARKS, FAULTS, FOLDERS, NODES, TUNING, WATCHDOG
from wrong_tools import Case

PAGE = ROOT / "docs" / "wrong_input.md"


PARTS = {
    "Options": OPTIONS,
    "Structures": STRUCTURES,
    "Models": MODELS,
    "Labels and training": LABELS,
    "Run folders": FOLDERS,
    "Tuning": TUNING,
    "Benchmarks": BENCHMARKS,
    "The watchdog": WATCHDOG,
    "Several nodes, several runs": NODES,
    "Faults during a run": FAULTS,
}


VARIES = (
    (r"dmts-[0-9a-f]{10}-", "dmts-...-"),
    (r"at step \d+", "at step N"),
    (r"\[nan, [^]]*\]", "[nan, ...]"),
    (r"= \d+ MB free", "= N MB free"),
    # the words of other libraries, which differ between their versions
    (r"(cannot be read|cannot be imported|is not JSON|is not valid XML) \(.*\)", r"\1 (...)"),
    (r"(is not valid YAML:) .*", r"\1 ..."),
    (r"(is missing) \(No module named '[^']*'\)", r"\1 (...)"),  # it, or what it needs first
)


def said(case: Case) -> tuple[Done, str]:
    """Builds and runs a case in the current folder; what it printed, without what varies."""
    done = case.run(case.build())
    text = done.stderr.strip().replace(f"{Path.cwd()}/", "").replace(f"{SUPPORT}/", "")
    for varies, instead in VARIES:
        text = re.sub(varies, instead, text)
    return done, text


@contextlib.contextmanager
def fresh_folder() -> Iterator[None]:
    """A temporary folder as the current one."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def row(case: Case, message: str) -> str:
    """A row of the page."""
    ticks = "``" if "`" in message else "`"
    pad = " " if "`" in message else ""
    text = message.replace("|", chr(92) + "|")
    return f"| {case.situation} | {ticks}{pad}{text}{pad}{ticks} |"


HEAD = """\
# Error messages for wrong input

Wrong input is reported in one line on stderr: the field, its value, the remedy. The exit status
is 2, nothing is written, and no process is left running. An error during a run or inside a model
is a fault: the last lines of the logs are printed, then one line with the reason, and the exit
status is 4. Everything that was written before is valid, and the same command continues from
there. In the tables, `...` stands for text that differs between machines or comes from another
library.

`python tests/support/wrong_inputs.py` makes this page from the output of the commands, and
`tests/commands/test_wrong_input.py` compares the two.

Cells smaller than the cutoff are supported: all periodic images within it are counted.
"""


def page(only: str = "") -> str:
    """The page, from running every case whose situation has ``only`` in it; other rows stay."""
    now = PAGE.read_text().splitlines() if only else []
    parts = [HEAD]
    for title, cases in PARTS.items():
        parts.append(f"## {title}\n| situation | message |\n|---|---|")
        for case in cases:
            kept = [line for line in now if line.startswith(f"| {case.situation} | ")]
            if only not in case.situation and kept:
                parts.append(kept[0])
                continue
            with fresh_folder():
                parts.append(row(case, said(case)[1]))
            print(parts[-1], file=sys.stderr, flush=True)
        parts.append("")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(*sys.argv[1:2]))
