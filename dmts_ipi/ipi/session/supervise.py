"""Supervision of the processes of a run: i-PI is restarted as the guard decides, drivers stay up.

A run is a sequence of segments, in multiple or in single time steps. An i-PI that we started
switches from single to multiple steps by itself; any other i-PI is started once per segment, from
a checkpoint. An error interrupts the segment (``RunInterrupted``), and the guard decides how the
run continues.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from dmts_ipi.core.errors import DmtsError, InputError
from dmts_ipi.core.supervision import (
    Guard,
    Heartbeat,
    RestartPlan,
    RunInterrupted,
    Segment,
    Stop,
)
from dmts_ipi.core.verdicts import Cause, Verdict, VerdictKind
from dmts_ipi.ipi.input_xml import InputSpec
from dmts_ipi.ipi.run_folder.folder import RunFolder

from . import resume
from .attached_process import UNKNOWN, NeedsPerson
from .driver_processes import DRIVER_LIMIT_S, Driver, Drivers, Hooks
from .exit_reasons import how, interrupted, reason, trouble_of
from .launch import Child, Signals, stop, wait_any
from .processes import resident_MB
from .socket_file import free_socket
from .watch import Limits, Progress, Watch

__all__ = ["Driver", "Hooks", "Supervisor"]

TICK_S = 0.5
STOP_LIMIT_S, BROKEN_LIMIT_S = 20.0, 2.0  # i-PI is asked to stop; it is known to hear nothing
PRUNE_EVERY_S = 5.0
EXIT = "EXIT"


@dataclass
class Supervisor:
    """Runs one session; ``run`` returns the number of the signal that ended it, or None.

    Args:
        folder: the run.
        spec: of its ``input.xml``.
        limits: see ``Limits``.
        hooks: see ``Hooks``.
        guard: see ``core.supervision.Guard``.
        ipi: makes the process of i-PI for an input file's name, and the step up to which it takes
            single steps (0: none; not 0 only where not ``lasting``).
        drivers: their processes, not started yet.
    """

    folder: RunFolder
    spec: InputSpec
    limits: Limits
    hooks: Hooks
    guard: Guard
    ipi: Callable[[str, int], Child]
    drivers: Sequence[Driver]
    lasting: bool = False  # not started by us: at the end what may go on without us is left
    first: int = 0
    begun: bool = False  # i-PI was about to be started: before, nothing has happened
    sound_step: int | None = None  # the last good step, where the state on disk is no longer
    watch: Watch = field(init=False)
    _child: Child | None = None
    _stalls: int = 0
    _why: str = ""  # i-PI is about to be started again
    _leave: bool = False  # i-PI goes on without us
    _over: bool = False  # nothing is left to do for anybody

    def __post_init__(self) -> None:
        self._weights = resume.read_weights(self.folder.path)
        properties = self.spec.output("properties")
        assert properties is not None  # read_input demands it
        self._properties = self.folder.path / properties.filename
        self._drivers = Drivers(self.drivers, self.hooks, self.guard)

    def attached(self, missing_s: float) -> None:
        """The processes were not started by us: what may go on is left alone at the end.

        Args:
            missing_s: a driver that is neither seen nor heard for so long is not there.
        """
        self.lasting, self._drivers.missing_s = True, missing_s

    @property
    def ipi_pid(self) -> int:
        """Process id of i-PI; 0: none runs."""
        child = self._child
        return child.pid if child and child.status is None and not child.unseen else 0

    def attach(self, ipi: Child, step: int) -> None:
        """Takes over an i-PI that runs; ``step`` is the last one on disk."""
        p = Progress(step, self.spec.total_steps, self.spec.outer_fs)
        self._follow_lines(p)
        self.first, self.begun, self._child = step, True, ipi

    def _follow_lines(self, first: Progress) -> None:
        temperature_K = self.spec.temperature_K
        self.watch = Watch(self._properties, first, temperature_K, self.limits)
        self._drivers.watch = self.watch

    def run(
        self, state: resume.State | None, signals: Signals, running: Segment | None = None
    ) -> int | None:
        """Runs to the end of the run.

        Args:
            state: the checkpoint to begin with; None: from the beginning.
            signals: SIGINT and SIGTERM end the session.
            running: the segment that an i-PI taken over by ``attach`` is running.

        Raises:
            DmtsError: what ended the run early.
        """
        if running is None:
            self.first = state.step if state else 0
        plan = RestartPlan()
        try:
            while True:
                segment, running = running or self._prepare(state, plan), None
                try:
                    number = self._segment(segment, signals)
                    if number is not None:
                        return number
                    plan = RestartPlan()
                except RunInterrupted as event:
                    plan = self._after(event)
                states = resume.checkpoints(self.folder.path, self.spec)
                if plan == RestartPlan() and states and states[0].step >= self.spec.total_steps:
                    self._over = True
                    return None
                self._why = self._why or f"i-PI has done its part, up to step {segment.until_step}"
                state = resume.state_for(self.folder.path, self.spec, plan.before_step)
        except Stop:
            self._over = True
            raise
        finally:
            self._stop_all()

    def _prepare(self, state: resume.State | None, plan: RestartPlan) -> Segment:
        """Outputs, checkpoint and sockets as i-PI must find them; ``_child`` is ready to start."""
        path, step = self.folder.path, state.step if state else 0
        if self._child is not None and self._child.started and self._child.status is None:
            raise NeedsPerson(f"i-PI (process {self._child.pid}) cannot be ended; end it")
        segment = self.guard.segment(step, self.spec.total_steps)
        until, weights, single_until = self._end_of(segment), self._weights, 0
        if segment.single_steps and self.lasting:
            weights = resume.single_step_weights(weights)
        elif segment.single_steps:
            single_until = segment.until_step
        try:
            if state is None:
                file = resume.prepare_begin(path, self.spec, until, weights, plan.seed)
            else:
                file = resume.prepare_resume(path, self.spec, state, until, weights, plan.seed)
        except OSError as error:
            raise InputError("folder", error.filename, f"{error.strerror}") from error
        (path / EXIT).unlink(missing_ok=True)  # i-PI would stop at once
        for at in self.spec.sockets.values():
            free_socket(at)
        p = Progress(step, self.spec.total_steps, self.spec.outer_fs)
        if self.begun:
            before = self.watch.progress
            p.steady_steps, p.steady_s = before.steady_steps, before.steady_s
        self._follow_lines(p)
        self._child = self.ipi(file.name, single_until)
        self.begun, self.sound_step = True, None
        return segment

    def _end_of(self, segment: Segment) -> int:
        """Last step of this i-PI process. An i-PI that was not started by us lacks
        ``--single-steps-until`` and stops at the end of the single time steps."""
        return segment.until_step if self.lasting else self.spec.total_steps

    def _next(self, segment: Segment) -> Segment:
        """What i-PI does now: after single steps multiple ones, where it goes on by itself."""
        until, total = segment.until_step, self.spec.total_steps
        over = segment.single_steps and until <= self.watch.progress.step and until < total
        if self.lasting or not over:
            return segment
        segment = self.guard.segment(until, total)
        self.guard.started(segment, until, already_running=True)
        return segment

    def _segment(self, segment: Segment, signals: Signals) -> int | None:
        """One start of i-PI, to its end.

        Raises:
            RunInterrupted: something is wrong.
        """
        ipi = self._child
        assert ipi is not None
        already_running = ipi.started and not ipi.unseen
        if not already_running:
            try:
                ipi.start()
            except NeedsPerson as error:
                raise NeedsPerson(f"{self._why}; {error}" if self._why else str(error)) from error
        self._why = ""
        self.guard.started(segment, self.watch.progress.step, already_running)
        try:
            self._drivers.start_all(already_running)
            number = self._follow(ipi, segment, signals)
            self._leave = self.lasting and number is not None
            return number
        except NeedsPerson:
            self._leave = self.lasting
            raise
        finally:
            if not self._leave:
                alive = ipi.status is None
                broken = alive and trouble_of(ipi) is not None
                # before its drivers, while they still answer: it then leaves a RESTART
                stop([ipi], 0.0 if not alive else BROKEN_LIMIT_S if broken else STOP_LIMIT_S)

    def _follow(self, ipi: Child, segment: Segment, signals: Signals) -> int | None:
        pruned = time.monotonic()
        while True:
            wait_any([ipi, *self._drivers.children], signals, TICK_S, self.guard.alarm)
            if signals.number is not None:
                self.hooks.say(f"stops on {signal.Signals(signals.number).name}")
                return signals.number
            self._look(ipi)
            segment = self._next(segment)
            if ipi.status is not None:
                if segment.single_steps:
                    self.watch.read()  # it may have gone on with multiple ones since the look
                self._ended(ipi, self._next(segment))
                return None
            self._drivers.tend_all(ipi)
            if time.monotonic() - pruned > PRUNE_EVERY_S:
                self._prune()
                pruned = time.monotonic()

    def _look(self, ipi: Child) -> None:
        """Reads what is new, and has it judged.

        Raises:
            RunInterrupted: it is bad.
        """
        step = self.watch.progress.step
        limits_s = self.watch.stall_limit_s, self.watch.waiting_limit_s
        self._drivers.end_hung(self.guard.hung(*limits_s))
        progress = self.watch.update()
        if progress.step > step:
            self._stalls = 0
        self.hooks.progress(progress)
        self._full_disk(ipi)
        # forces first: they say most, and earliest
        _raise(self.guard.beat(_heartbeat(progress, ipi)))
        for at, columns in self.watch.fresh():
            _raise(self.guard.lines(at, columns))
        if ipi.status is None and trouble_of(ipi) is VerdictKind.IPI:
            text = "i-PI hears no driver any more (an exception in one of its threads)"
            raise interrupted(VerdictKind.IPI, text, progress.step)

    def _after(self, event: RunInterrupted) -> RestartPlan:
        """What to do about an event.

        Raises:
            DmtsError: the run ends.
        """
        with contextlib.suppress(DmtsError):
            self.watch.read()  # what was written since the last look
        verdict, step = event.verdict, self.watch.progress.step
        self._stalls += verdict.kind is VerdictKind.STALL
        self.hooks.say(f"{verdict.kind}: {verdict.text}")
        if verdict.cause is Cause.PHYSICS:
            self.sound_step = verdict.sound_step
        plan = self.guard.decide(verdict, step)
        self._why = verdict.text
        stalled = verdict.kind is VerdictKind.STALL and self._stalls > 1
        self._drivers.end_culprits(verdict, stalled)
        if plan.before_step is None:
            self.hooks.say("i-PI is started again from its newest checkpoint")
        else:
            self.hooks.say(f"rewinds to a checkpoint not after step {plan.before_step}")
        return plan

    def _ended(self, ipi: Child, segment: Segment) -> None:
        """i-PI is gone: was that the end of the segment?

        Raises:
            RunInterrupted: it was not.
        """
        states = resume.checkpoints(self.folder.path, self.spec)
        well = ipi.status in (0, UNKNOWN)
        if well and states and states[0].step >= self._end_of(segment):
            return
        step = self.watch.progress.step
        self._full_disk(ipi)
        if well and (self.folder.path / EXIT).exists():
            raise Stop(f"stopped by the file EXIT at step {step}; run again to go on")
        text = f"i-PI ended ({how(ipi)}) at step {step} of {self.spec.total_steps}: {reason(ipi)}"
        if trouble_of(ipi) is VerdictKind.MODEL:  # of a model within i-PI
            raise interrupted(VerdictKind.MODEL, text, step)
        raise interrupted(VerdictKind.IPI, text, step)

    def _full_disk(self, ipi: Child) -> None:
        """Raises an event where i-PI could not write; it then may hang instead of ending."""
        if trouble_of(ipi) is VerdictKind.DISK:
            step = self.watch.progress.step
            text = f"disk full at step {step}; the last checkpoint is good: make room and run again"
            raise interrupted(VerdictKind.DISK, text, step)

    def _prune(self) -> None:
        resume.prune(self.folder.path, self.spec, self.folder.settings.keep_checkpoints)

    def _detach(self) -> None:
        """Ends what we started of a run that is over; all else goes on."""
        children = self._drivers.children
        stop([c for c in children if c.ours and self._over], DRIVER_LIMIT_S)
        for child in children:
            if self._over and child.status is None and not child.unseen:
                self.hooks.say(f"{child.name} (process {child.pid}) still waits for i-PI")
            child.close()
        if self._child is not None:
            self._child.close()

    def _stop_all(self) -> None:
        if self.lasting:
            self._detach()
            return
        if self._child is not None:
            stop([self._child], 0.0)  # stopped already, unless something else was raised
        stop(self._drivers.children, DRIVER_LIMIT_S)
        for at in self.spec.sockets.values():
            if at.mode == "unix":
                with contextlib.suppress(OSError):
                    at.path.unlink()
        with contextlib.suppress(OSError):
            self._prune()


def _raise(verdict: Verdict | None) -> None:
    if verdict is not None:
        raise RunInterrupted(verdict)


def _heartbeat(p: Progress, ipi: Child) -> Heartbeat:
    pid = 0 if ipi.status is not None else ipi.pid
    return Heartbeat(
        step=p.step,
        time_ps=p.time_ps,
        ns_per_day=p.ns_per_day,
        temperature_K=p.temperature_K,
        potential_eV=p.potential_eV,
        remaining_s=p.remaining_s,
        total_steps=p.total_steps,
        ipi_pid=pid,
        ipi_memory_MB=resident_MB(pid) if pid else 0.0,
    )
