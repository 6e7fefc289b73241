"""Why a process ended: exit statuses of programs of ours, phrases in the logs of all others."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dmts_ipi.core.exit_codes import ExitCode
from dmts_ipi.core.verdicts import VerdictKind
from dmts_ipi.ipi.session.exit_reasons import how, reason, trouble_of
from dmts_ipi.ipi.session.launch import Child

PHRASES = {
    "nnp_driver: error: evaluation 9: forces are not finite": VerdictKind.MODEL,
    "OSError: [Errno 28] No space left on device": VerdictKind.DISK,
    "Exception in thread poll_FFSocket": VerdictKind.IPI,
    "all is well": None,
}


def ended(folder: Path, ours: bool, text: str, status: int) -> Child:
    code = f"import sys; print({text!r}); sys.exit({status})"
    child = Child(
        *("teacher", [sys.executable, "-c", code], folder / "log", folder), uses_exit_codes=ours
    )
    child.start()
    assert child.wait(60.0)
    return child


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (ExitCode.MODEL_FAILED, VerdictKind.MODEL),
        (ExitCode.DISK_FULL, VerdictKind.DISK),
        (ExitCode.EXCHANGE_BROKEN, VerdictKind.IPI),
        (ExitCode.FAULT, None),
        (ExitCode.OK, None),
    ],
)
def test_programs_of_ours_are_judged_by_their_status(
    status: int, kind: VerdictKind | None, tmp_path: Path
) -> None:
    for text in PHRASES:  # whatever their logs hold
        child = ended(tmp_path, True, text, status)
        assert trouble_of(child) is kind
        assert (how(child), reason(child)) == (f"exit status {int(status)}", text)


@pytest.mark.parametrize(("text", "kind"), PHRASES.items(), ids=[str(k) for k in PHRASES.values()])
def test_other_programs_are_judged_by_their_log(
    text: str, kind: VerdictKind | None, tmp_path: Path
) -> None:
    for status in (1, ExitCode.MODEL_FAILED):  # which means nothing here
        assert trouble_of(ended(tmp_path, False, text, status)) is kind


def test_a_process_that_runs_is_in_no_trouble(tmp_path: Path) -> None:
    child = Child("i-pi", ["sleep", "60"], tmp_path / "log", tmp_path, uses_exit_codes=True).start()
    assert trouble_of(child) is None
    child.signal(9)
    assert child.wait(60.0)
    assert trouble_of(child) is None
    assert how(child) == "killed by SIGKILL"
