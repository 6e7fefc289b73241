"""What a driver warns of while its model starts reaches the person who started the run, once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from dmts_ipi.ipi.session.driver_processes import Driver, Drivers, Hooks


def test_warnings_are_passed_on_until_the_model_is_ready() -> None:
    slow = "student: warning: runs uncompiled and slower (no compiler)"
    log = ["nc_driver: loads", slow]
    child = cast(Any, SimpleNamespace(ours=True, tail=lambda lines: log[-lines:]))
    said: list[str] = []
    driver = Driver(child)
    drivers = Drivers([driver], Hooks(said.append), cast(Any, None))
    drivers._pass_remarks_on(driver)
    drivers._pass_remarks_on(driver)
    assert said == [slow]
    log.append("nc_driver: student, 24 atoms: ready in 1.0 s, 5.0 ms per evaluation")
    drivers._pass_remarks_on(driver)
    log.append("student: warning: something later")
    drivers._pass_remarks_on(driver)
    assert said == [slow]
