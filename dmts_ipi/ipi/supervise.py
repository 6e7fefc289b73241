"""The processes of a run: i-PI again and again as the guard wants it, drivers that stay alive.

A run is a sequence of segments: one start of i-PI each, in multiple or in single time steps, from
a checkpoint. What goes wrong is an ``Event``; the guard decides how the run goes on.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from dmts_ipi.core.errors import DmtsError, InputError
from dmts_ipi.core.supervision import Event, Guard, Heartbeat, Plan, Segment, Stop, Verdict

from . import resume
from .folder import RunFolder
from .launch import Child, Signals, stop, wait_any
from .socket_file import free_socket
from .validate import InputFacts
from .watch import Limits, Progress, Watch

TICK_S = 0.5
STOP_LIMIT_S, BROKEN_LIMIT_S = 20.0, 2.0  # i-PI is asked to stop; it is known to hear nothing
DRIVER_LIMIT_S = 5.0
PRUNE_EVERY_S = 5.0
EXIT = "EXIT"
# what i-PI's log says when its poll thread has died: it hangs from then on
BROKEN = ("Exception in thread", "ConnectionResetError", "BrokenPipeError")
DISK = ("No space left on device", "Errno 28")


@dataclass
class Driver:
    """A driver's process, and when it is to be started again."""

    child: Child
    restart_at: float | None = None


@dataclass
class Hooks:
    """What the command line wants to hear: one line at a time, progress at every tick."""

    say: Callable[[str], None] = lambda line: None
    progress: Callable[[Progress], None] = lambda progress: None


@dataclass
class Supervisor:
    """Runs one session; ``run`` returns the number of the signal that ended it, or None.

    Args:
        folder: the run.
        facts: of its ``input.xml``.
        limits: see ``Limits``.
        hooks: see ``Hooks``.
        guard: see ``core.supervision.Guard``.
        ipi: makes the process of i-PI for an input file's name.
        drivers: their processes, not started yet.
    """

    folder: RunFolder
    facts: InputFacts
    limits: Limits
    hooks: Hooks
    guard: Guard
    ipi: Callable[[str], Child]
    drivers: Sequence[Driver]
    first: int = 0
    begun: bool = False  # i-PI was about to be started: before, nothing has happened
    sound_step: int | None = None  # the last good step, where the state on disk is no longer
    watch: Watch = field(init=False)
    _child: Child | None = None
    _stalls: int = 0

    def __post_init__(self) -> None:
        self._weights = resume.read_weights(self.folder.path)
        properties = self.facts.output("properties")
        assert properties is not None  # read_input demands it
        self._properties = self.folder.path / properties.filename

    def run(self, state: resume.State | None, signals: Signals) -> int | None:
        """Runs to the end of the run.

        Args:
            state: the checkpoint to begin with; None: from the beginning.
            signals: SIGINT and SIGTERM end the session.

        Raises:
            DmtsError: what ended the run early.
        """
        self.first = state.step if state else 0
        plan = Plan()
        try:
            while True:
                segment = self._prepare(state, plan)
                try:
                    number = self._segment(segment, signals)
                    if number is not None:
                        return number
                    plan = Plan()
                except Event as event:
                    plan = self._after(event)
                states = resume.checkpoints(self.folder.path, self.facts)
                if plan == Plan() and states and states[0].step >= self.facts.total_steps:
                    return None
                state = resume.state_for(self.folder.path, self.facts, plan.before_step)
        finally:
            self._stop_all()

    def _prepare(self, state: resume.State | None, plan: Plan) -> Segment:
        """Outputs, checkpoint and sockets as i-PI must find them; ``_child`` is ready to start."""
        path, step = self.folder.path, state.step if state else 0
        segment = self.guard.segment(step, self.facts.total_steps)
        weights = self._weights
        if segment.single_steps:
            weights = resume.single_step_weights(weights)
        try:
            if state is None:
                until = segment.until_step
                file = resume.prepare_begin(path, self.facts, until, weights, plan.seed)
            else:
                file = resume.prepare_resume(
                    path, self.facts, state, segment.until_step, weights, plan.seed
                )
        except OSError as error:
            raise InputError("folder", error.filename, f"{error.strerror}") from error
        (path / EXIT).unlink(missing_ok=True)  # i-PI would stop at once
        for at in self.facts.sockets.values():
            free_socket(at)
        p = Progress(step, self.facts.total_steps, self.facts.outer_step_fs)
        if self.begun:
            before = self.watch.progress
            p.steady_steps, p.steady_s = before.steady_steps, before.steady_s
        self.watch = Watch(self._properties, p, self.facts.temperature_K, self.limits)
        self._child, self.begun, self.sound_step = self.ipi(file.name), True, None
        return segment

    def _segment(self, segment: Segment, signals: Signals) -> int | None:
        """One start of i-PI, to its end.

        Raises:
            Event: something is wrong.
        """
        ipi = self._child
        assert ipi is not None
        ipi.start()
        self.guard.started(segment, self.watch.progress.step)
        for driver in self.drivers:
            if driver.child.status is not None or not driver.child.started:
                self._start(driver)
        try:
            return self._follow(ipi, segment, signals)
        finally:
            broken = any(ipi.logged(words) for words in BROKEN)
            alive = ipi.status is None
            # before its drivers, while they still answer: it then leaves a RESTART
            stop([ipi], 0.0 if not alive else BROKEN_LIMIT_S if broken else STOP_LIMIT_S)

    def _follow(self, ipi: Child, segment: Segment, signals: Signals) -> int | None:
        pruned = time.monotonic()
        while True:
            wait_any([ipi, *(d.child for d in self.drivers)], signals, TICK_S)
            if signals.number is not None:
                self.hooks.say(f"stops on {signal.Signals(signals.number).name}")
                return signals.number
            self._look(ipi)
            if ipi.status is not None:
                self._ended(ipi, segment)
                return None
            for driver in self.drivers:
                self._tend(driver, ipi)
            if time.monotonic() - pruned > PRUNE_EVERY_S:
                self._prune()
                pruned = time.monotonic()

    def _look(self, ipi: Child) -> None:
        """Reads what is new, and has it judged.

        Raises:
            Event: it is bad.
        """
        step = self.watch.progress.step
        self._end_hung(self.guard.hung(self.watch.stall_limit_s, self.watch.waiting_limit_s))
        progress = self.watch.update()
        if progress.step > step:
            self._stalls = 0
        self.hooks.progress(progress)
        _raise(self.guard.beat(_heartbeat(progress)))  # forces first: they say most, and earliest
        for at, columns in self.watch.fresh():
            _raise(self.guard.lines(at, columns))
        for words in BROKEN:
            if ipi.status is None and ipi.logged(words):
                raise _process("ipi", f"i-PI hears no driver any more ({words})", progress.step)

    def _end_hung(self, name: str) -> None:
        """Ends a driver that hangs, by its id. i-PI asks the next one, at the same step."""
        for driver in self.drivers:
            if driver.child.status is None and name == driver.child.name:
                self.guard.note("hung", self.watch.progress.step, f"{name} hangs: it is ended")
                self.hooks.say(f"{name} hangs: it is ended")
                driver.child.signal(signal.SIGKILL)
                driver.child.wait(DRIVER_LIMIT_S)
                self.watch.wait_for_start()

    def _tend(self, driver: Driver, ipi: Child) -> None:
        """Starts a dead driver again after a delay.

        Raises:
            Event: its end is not an accident.
            RunFault: it has died too often.
        """
        child = driver.child
        if child.status is None:
            return
        now = time.monotonic()
        if driver.restart_at is None:
            if ipi.wait(2.0):
                return  # the end of i-PI is what counts
            step, text = self.watch.progress.step, f"({how(child)}): {reason(child)}"
            if child.status == InputError.status:
                raise Event(Verdict("input", f"{child.name} ended {text}", step, step, "fault"))
            if child.logged(": error: evaluation "):
                raise Event(Verdict("model", f"{child.name} ended {text}", step, step, "physics"))
            child.close()  # its end is known
            delay = self.guard.restart_delay_s(child.name, text, step)
            driver.restart_at = now + delay
            self.hooks.say(f"{child.name} ended {text}; it is started again")
            self.watch.wait_for_start()
        if driver.restart_at is not None and now >= driver.restart_at:
            self._start(driver)
            self.watch.wait_for_start()

    def _start(self, driver: Driver) -> None:
        driver.restart_at = None
        driver.child.start()
        self.guard.driver_started(driver.child.name)

    def _after(self, event: Event) -> Plan:
        """What to do about an event.

        Raises:
            DmtsError: the run ends.
        """
        with contextlib.suppress(DmtsError):
            self.watch.read()  # what was written since the last look
        verdict, step = event.verdict, self.watch.progress.step
        self._stalls += verdict.kind == "stall"
        self.hooks.say(f"{verdict.kind}: {verdict.text}")
        if verdict.cause == "physics":
            self.sound_step = verdict.sound_step
        plan = self.guard.decide(verdict, step)
        for driver in self.drivers:
            child = driver.child
            hangs = verdict.kind == "stall" and self._stalls > 1
            if child.status is None and (hangs or verdict.culprit == child.name):
                child.signal(signal.SIGKILL)
                child.wait(DRIVER_LIMIT_S)
        if plan.before_step is None:
            self.hooks.say("i-PI is started again from its newest checkpoint")
        else:
            self.hooks.say(f"rewinds to a checkpoint not after step {plan.before_step}")
        return plan

    def _ended(self, ipi: Child, segment: Segment) -> None:
        """i-PI is gone: was that the end of the segment?

        Raises:
            Event: it was not.
        """
        states = resume.checkpoints(self.folder.path, self.facts)
        if ipi.status == 0 and states and states[0].step >= segment.until_step:
            return
        step = self.watch.progress.step
        if any(ipi.logged(words) for words in DISK):
            text = f"disk full at step {step}; the last checkpoint is good: make room and run again"
            raise Event(Verdict("disk", text, step, step, "fault"))
        if ipi.status == 0 and (self.folder.path / EXIT).exists():
            raise Stop(f"stopped by the file EXIT at step {step}; run again to go on")
        text = f"i-PI ended ({how(ipi)}) at step {step} of {self.facts.total_steps}: {reason(ipi)}"
        if ipi.logged(": error: evaluation "):  # of a model within i-PI
            raise Event(Verdict("model", text, step, step, "physics"))
        raise _process("ipi", text, step)

    def _prune(self) -> None:
        resume.prune(self.folder.path, self.facts, self.folder.config.keep_checkpoints)

    def _stop_all(self) -> None:
        if self._child is not None:
            stop([self._child], 0.0)  # stopped already, unless something else was raised
        stop([d.child for d in self.drivers], DRIVER_LIMIT_S)
        for at in self.facts.sockets.values():
            if at.mode == "unix":
                with contextlib.suppress(OSError):
                    at.path.unlink()
        with contextlib.suppress(OSError):
            self._prune()


def _raise(verdict: Verdict | None) -> None:
    if verdict is not None:
        raise Event(verdict)


def _process(kind: str, text: str, step: int) -> Event:
    return Event(Verdict(kind, text, step, step, "process"))


def _heartbeat(p: Progress) -> Heartbeat:
    return Heartbeat(
        step=p.step,
        time_ps=p.time_ps,
        ns_per_day=p.ns_per_day,
        temperature_K=p.temperature_K,
        potential_eV=p.potential_eV,
        remaining_s=p.remaining_s,
        total_steps=p.total_steps,
    )


def how(child: Child) -> str:
    """How a process ended, in words."""
    status = child.status
    if status is not None and status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}"


def reason(child: Child) -> str:
    """The line of a log that says most: an error if there is one, else the last."""
    if child.status == -signal.SIGKILL:
        return "killed from outside (out of memory?); run again to resume"
    lines = child.tail(40)
    errors = [x for x in lines if "error" in x.lower()]
    return (errors or lines or ["nothing in its log"])[-1].strip()
