"""The figures of a fixed report are those of commit 7e084df, but for what was then wrong."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

import golden_report

GOLDEN = Path(__file__).with_name("golden_report.json")
# Errors of elements and bonds count their own degrees of freedom since then, and can only grow.
GROWN = ("stderr", "difference_stderr", "verdict")
NOT_BONDS = (
    "temperature of atoms",
    "potential",
    "width",
    "heating",
    "diffusion",
    "first ",
    "foreign",
)


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Paths at which two records differ; keys that are new are none."""
    if isinstance(old, dict):
        missing = [f"{path}/{k} is missing" for k in old if k not in new]
        return missing + [
            d for k, v in old.items() if k in new for d in differences(v, new[k], f"{path}/{k}")
        ]
    if isinstance(old, list):
        if len(old) != len(new):
            return [f"{path}: {len(old)} and {len(new)} entries"]
        pairs = enumerate(zip(old, new, strict=True))
        return [d for k, (a, b) in pairs for d in differences(a, b, f"{path}[{k}]")]
    if isinstance(old, float) and isinstance(new, int | float):
        same = math.isclose(old, new, rel_tol=1e-9, abs_tol=1e-12)
    else:
        same = old == new
    return [] if same else [f"{path}: {old!r} and {new!r}"]


def test_figures_are_those_of_before(tmp_path: Path) -> None:
    old = json.loads(GOLDEN.read_text())
    new = golden_report.report(golden_report.folders(tmp_path), tmp_path / "report.html")
    for a, b in zip(old["json"]["runs"], new["json"]["runs"], strict=True):
        assert sorted(a.pop("notes")) == sorted(b.pop("notes"))
        for name, e in a["temperature_K"].items():
            if name != "atoms":
                assert b["temperature_K"][name]["stderr"] >= e.pop("stderr")
    for a, b in zip(old["json"]["comparisons"], new["json"]["comparisons"], strict=True):
        assert b["stderr"] == pytest.approx(a["stderr"]) or b["stderr"] > a["stderr"]
        if not a["observable"].startswith(NOT_BONDS):
            for key in GROWN:
                a.pop(key)
    for table in ("temperatures.csv", "verdicts.csv"):  # of the same, and their heads are compared
        old["csv"][table].pop("sum")
    assert differences(old, new) == []
