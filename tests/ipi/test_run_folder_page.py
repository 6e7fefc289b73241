"""docs/run_folder.md lists every field of ``run.yaml``, from the descriptions of the fields.

``python tests/ipi/test_run_folder_page.py`` writes the table anew.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import BaseModel

ROOT = Path(__file__).resolve().parents[2]
PAGE, MARK = ROOT / "docs" / "run_folder.md", "<!-- made by tests/ipi/test_run_folder_page.py -->\n"


def rows(model: type[BaseModel], prefix: str = "") -> list[str]:
    found = []
    for name, info in model.model_fields.items():
        if not info.description:
            continue
        default = info.get_default(call_default_factory=True)
        shown = "" if info.is_required() or default in ("", {}) else f" (default {default})"
        found.append(f"| `{prefix}{name}` | {info.description}{shown.replace('None', 'null')} |")
    return found


def table() -> str:
    from dmts_ipi.ipi.run_folder.settings import ModelSettings, NetworkSettings, RunSettings

    lines = ["| field | meaning |", "|---|---|", *rows(RunSettings)]
    lines += rows(ModelSettings, "models.NAME.") + rows(NetworkSettings, "network.")
    lines.append("| `watchdog.*` | limits of the watchdog: `docs/watchdog.md` |")
    return "\n".join(lines) + "\n"


def test_the_page_has_the_table_of_today() -> None:
    assert PAGE.read_text().partition(MARK)[2].strip() == table().strip(), (
        "the page is stale: python tests/ipi/test_run_folder_page.py"
    )


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    text = PAGE.read_text().partition(MARK)
    PAGE.write_text(text[0] + MARK + table())
