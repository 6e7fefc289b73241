"""Exit statuses: distinct, each with its meaning in words, and the errors carry them."""

import errno

import pytest

from dmts_ipi.core.errors import EvaluationFault, InputError, ModelFault, RunFault
from dmts_ipi.core.exit_codes import ExitCode, is_disk_full


def test_each_has_a_meaning() -> None:
    meanings = [code.meaning for code in ExitCode]
    assert len(set(meanings)) == len(meanings)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("a", 1, "b"), 2),
        (RunFault("a"), 4),
        (ModelFault("a"), 4),
        (EvaluationFault("a"), 5),
    ],
)
def test_errors_carry_them(error: Exception, code: int) -> None:
    assert error.status == code  # type: ignore[attr-defined]


def test_a_full_disk_is_seen_by_its_number_and_through_causes() -> None:
    full = OSError(errno.ENOSPC, "in any language")
    assert is_disk_full(full)
    assert not is_disk_full(OSError(errno.EACCES, "No space left on device"))
    wrapped, handled = ValueError("while a frame was written"), KeyError("x")
    wrapped.__cause__ = full
    handled.__context__ = wrapped
    assert is_disk_full(handled)
    assert not is_disk_full(None)
