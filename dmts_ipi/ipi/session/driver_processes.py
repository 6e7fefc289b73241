"""The drivers of a run: started, recognised, ended if they hang, and restarted."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from dmts_ipi.core.exit_codes import ExitCode
from dmts_ipi.core.supervision import Guard
from dmts_ipi.core.verdicts import Verdict, VerdictKind

from .attached_process import NeedsPerson
from .exit_reasons import how, interrupted, reason, trouble_of
from .launch import Child
from .watch import Progress, Watch

DRIVER_LIMIT_S = 5.0
REMARKS, READY = (": note: ", ": warning: "), "per evaluation"


@dataclass
class Driver:
    """A driver's process, and when it is to be started again."""

    child: Child
    restart_at: float | None = None
    end_known: bool = False  # its end was reported, or we ended it
    remarks: list[str] = field(default_factory=list)  # of its log, passed on already
    ready: bool = False  # it has said so


@dataclass
class Hooks:
    """Output of a session: ``say`` gets one line of text, ``progress`` is called at every tick."""

    say: Callable[[str], None] = lambda line: None
    progress: Callable[[Progress], None] = lambda progress: None


@dataclass
class Drivers:
    """Looks after the drivers of a session; ``watch`` belongs to the current start of i-PI.

    Args:
        drivers: their processes.
        hooks: see ``Hooks``.
        guard: see ``core.supervision.Guard``.
        missing_s: a driver without a process or telemetry for this long counts as absent.
    """

    drivers: Sequence[Driver]
    hooks: Hooks
    guard: Guard
    missing_s: float = 60.0
    watch: Watch = field(init=False)

    @property
    def children(self) -> list[Child]:
        """Their processes."""
        return [d.child for d in self.drivers]

    def start_all(self, already_running: bool) -> None:
        """Starts those that do not run. ``tend`` does so where i-PI was ``already_running``."""
        for driver in self.drivers:
            child = driver.child
            dead = child.status is not None and not already_running
            if dead and not driver.end_known and not child.remedy:  # i-PI's trouble was seen first
                text = f"{_end_of(child)}; started again with i-PI"
                self.guard.note("restart", self.watch.progress.step, text)
                self.hooks.say(text)
            if dead or not child.started:
                self.start(driver)

    def tend_all(self, ipi: Child) -> None:
        """Looks after each of them; see ``tend``."""
        for driver in self.drivers:
            self.tend(driver, ipi)
            self._pass_remarks_on(driver)

    def end_culprits(self, verdict: Verdict, stalled: bool) -> None:
        """Ends, after i-PI, the driver that a verdict names; after repeated stalls, all drivers.

        After a first stall, a driver that does not answer is ended too: one that hangs from its
        first second on was never heard, so ``Guard.hung`` cannot name it.

        Raises:
            NeedsPerson: it must not be ended, because nobody would start it again.
        """
        for driver in self.drivers:
            child = driver.child
            silent = verdict.kind is VerdictKind.STALL and self.guard.hearing(child.name) is False
            named = verdict.culprit == child.name or (silent and not child.remedy)
            if child.status is not None or not (stalled or named):
                continue
            if child.remedy and not stalled:
                raise NeedsPerson(f"{verdict.text}; end {child.name}; {child.remedy}")
            if not child.remedy and child.unseen and not self.guard.hearing(child.name):
                self.start(driver)
            elif not child.remedy:
                child.signal(signal.SIGKILL)
                driver.end_known = child.wait(DRIVER_LIMIT_S)

    def end_hung(self, name: str) -> None:
        """Ends a driver that hangs, by its id. i-PI asks its successor, at the same step."""
        step = self.watch.progress.step
        for driver in self.drivers:
            child = driver.child
            if child.status is not None or name != child.name:
                continue
            if child.remedy:
                where = "" if child.unseen else f" (process {child.pid})"
                raise NeedsPerson(f"{name}{where} hangs: end it; {child.remedy}")
            if child.unseen:  # on another machine, so it cannot be ended from here
                self.guard.restart_delay_s(name, "hangs out of reach", step)
                self.start(driver)
                raise interrupted(VerdictKind.HUNG, f"{name} hangs; another one is started", step)
            self.guard.note("hung", step, f"{name} hangs: it is ended")
            self.hooks.say(f"{name} hangs: it is ended")
            child.signal(signal.SIGKILL)
            if not child.wait(DRIVER_LIMIT_S):
                raise NeedsPerson(f"{name} (process {child.pid}) hangs and cannot be ended; end it")
            self.watch.wait_for_start()

    def _pass_remarks_on(self, driver: Driver) -> None:
        """Says what a driver warns of while its model starts, such as that it runs slowly.

        Its log is read until the model is ready.
        """
        if driver.ready or not driver.child.ours:
            return
        for line in driver.child.tail(60):
            driver.ready |= READY in line
            if any(word in line for word in REMARKS) and line not in driver.remarks:
                driver.remarks.append(line)
                self.hooks.say(line)

    def _miss(self, driver: Driver) -> None:
        """Starts a driver that is neither seen nor heard, once i-PI has waited for long enough.

        Raises:
            DmtsError: it may not be started, or was too often.
        """
        name, step = driver.child.name, self.watch.progress.step
        if self.watch.waited_s < self.missing_s or self.guard.hearing(name) is not False:
            return
        if driver.child.remedy:
            raise NeedsPerson(
                f"{name} is neither seen nor heard, and i-PI waits; {driver.child.remedy}"
            )
        self.guard.restart_delay_s(name, "neither seen nor heard", step)
        self.start(driver)
        self.watch.wait_for_start()

    def tend(self, driver: Driver, ipi: Child) -> None:
        """Starts a dead driver again after a delay.

        Raises:
            RunInterrupted: its end is not an accident.
            RunFault: it has died too often.
        """
        child = driver.child
        if child.status is None:
            if child.unseen:
                self._miss(driver)
            return
        now = time.monotonic()
        if driver.restart_at is None:
            if ipi.wait(2.0):
                return  # the end of i-PI is what counts
            driver.end_known = True
            self._check_end(child)
            child.close()  # its end is known
            step, text = self.watch.progress.step, f"({how(child)}): {reason(child)}"
            driver.restart_at = now + self.guard.restart_delay_s(child.name, text, step)
            self.hooks.say(f"{_end_of(child)}; it is started again")
            self.watch.wait_for_start()
        if driver.restart_at is not None and now >= driver.restart_at:
            self.start(driver)
            self.watch.wait_for_start()

    def _check_end(self, child: Child) -> None:
        """Returns where a driver may be started again.

        Raises:
            RunInterrupted: its input is wrong, or its model failed.
            NeedsPerson: only a person may start it.
        """
        text, step = _end_of(child), self.watch.progress.step
        if child.status == ExitCode.WRONG_INPUT:
            raise interrupted(VerdictKind.INPUT, text, step)
        if trouble_of(child) is VerdictKind.MODEL:
            raise interrupted(VerdictKind.MODEL, text, step)
        if child.remedy:
            raise NeedsPerson(f"{text}; {child.remedy}")

    def start(self, driver: Driver) -> None:
        """Starts one; telemetry of an earlier one does not count."""
        driver.restart_at, driver.end_known = None, False
        driver.child.start()
        self.guard.driver_started(driver.child.name)


def _end_of(child: Child) -> str:
    return f"{child.name} ended ({how(child)}): {reason(child)}"
