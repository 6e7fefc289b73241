"""A driver that hangs from its first second on is ended with the first stall of i-PI."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from dmts_ipi.core.verdicts import Verdict, VerdictKind
from dmts_ipi.ipi.session.driver_processes import Driver, Drivers, Hooks


@pytest.mark.parametrize(
    ("kind", "hearing", "ended"),
    [
        (VerdictKind.STALL, {"teacher": False, "student": True}, ["teacher"]),
        (VerdictKind.STALL, {"teacher": True, "student": True}, []),
        (VerdictKind.STALL, {"teacher": None, "student": True}, []),  # has no telemetry
        (VerdictKind.NAN, {"teacher": False, "student": True}, []),
    ],
)
def test_the_silent_driver_is_ended(
    kind: VerdictKind, hearing: dict[str, bool | None], ended: list[str]
) -> None:
    killed: list[str] = []

    def child(name: str) -> Any:
        return SimpleNamespace(
            name=name,
            status=None,
            remedy="",
            unseen=False,
            signal=lambda number: killed.append(name),
            wait=lambda limit_s: True,
        )

    guard = cast(Any, SimpleNamespace(hearing=hearing.get))
    drivers = Drivers([Driver(child(name)) for name in hearing], Hooks(), guard)
    drivers.end_culprits(Verdict(kind, "text", 12, 12), stalled=False)
    assert killed == ended
