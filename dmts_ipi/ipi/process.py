"""i-PI in this process: the simulation as an object, loaded, run and ended as i-PI's script does.

``load`` reads an input, ``run`` steps it to its end. Between the two a caller may change what
moves the atoms (``simulation.syslist[k].motion``). How the process ends is an ``ExitCode``.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

from dmts_ipi.core.errors import DmtsError, InputError, RunFault
from dmts_ipi.core.exit_codes import ExitCode, is_disk_full

# How long i-PI may take to end after a fault, and to leave a RESTART.
LEAVE_LIMIT_S = 5.0


class DiskFull(RunFault):
    """i-PI could not write."""

    status: int = ExitCode.DISK_FULL


def load(path: Path, verbosity: str | None = None, sockets_prefix: str | None = None) -> Any:
    """Reads an input or a checkpoint, opens its sockets and prints i-PI's banner.

    Args:
        path: the file.
        verbosity: instead of the input's. sockets_prefix: instead of the input's.

    Returns:
        i-PI's ``Simulation``.

    Raises:
        DmtsError: the input is wrong; what i-PI had opened is closed.
    """
    from ipi.engine.simulation import Simulation

    try:
        with open(path) as stream:
            return Simulation.load_from_xml(
                stream,
                request_banner=True,
                custom_verbosity=verbosity,
                sockets_prefix=sockets_prefix,
            )
    except DmtsError:
        _close()
        raise
    except Exception as error:  # i-PI raises anything from NameError to OSError
        if is_disk_full(error):
            raise DiskFull(f"disk full: {error}") from error
        text = " ".join(str(error).split()) or type(error).__name__
        raise InputError("input", path, f"i-PI says: {text}") from error


def run(simulation: Any) -> int:
    """Runs a simulation to its end, or to a soft exit: SIGTERM, SIGINT, the file EXIT.

    Returns:
        Exit status of the process. i-PI itself ends the process, with 0, once RESTART is written.

    Raises:
        DmtsError: an evaluation within this process failed, or the disk is full.
    """
    from ipi.utils.softexit import softexit

    watch = _Threads()
    threading.excepthook = watch.died
    softexit.hard_exit = True  # i-PI ends the process as soon as the soft exit is complete
    try:
        simulation.run()
        softexit.trigger(status=simulation.exit_status, message=simulation.exit_message)
    except SystemExit as end:  # of i-PI, after a soft exit that another thread asked for
        if watch.code is None:
            raise
        raise SystemExit(int(watch.code)) from end
    except DmtsError as error:
        _end_in_time(error.status)
        _close()
        raise
    except Exception as error:
        if is_disk_full(error):
            _end_in_time(ExitCode.DISK_FULL)
            raise DiskFull(f"disk full: {error}") from error
        _end_in_time(ExitCode.UNEXPECTED if watch.code is None else watch.code)
        if watch.code is not None:  # what went wrong first
            raise SystemExit(int(watch.code)) from error
        raise
    finally:
        threading.excepthook = threading.__excepthook__
    return ExitCode.OK


class _Threads:
    """Ends the process where a thread of i-PI dies: i-PI would wait for it for ever.

    Attributes:
        code: exit status, once that has happened.
    """

    def __init__(self) -> None:
        self.code: ExitCode | None = None

    def died(self, args: threading.ExceptHookArgs) -> None:
        """``threading.excepthook``."""
        from ipi.utils.softexit import softexit

        threading.__excepthook__(args)  # the traceback
        if self.code is not None or not any(t is args.thread for t, _ in softexit.tlist):
            return  # it is none of i-PI's
        error = args.exc_value
        if is_disk_full(error):
            self.code = ExitCode.DISK_FULL
        elif isinstance(error, DmtsError):
            self.code = ExitCode(error.status)
        else:
            self.code = ExitCode.EXCHANGE_BROKEN
        print(f"dmts-ipi i-pi: error: {self.code.meaning} ({error})", file=sys.stderr, flush=True)
        softexit.hard_exit = False  # which would end the process with 0
        _end_in_time(self.code)  # i-PI waits for this thread at its end
        try:
            softexit.cleanup(message=" @SOFTEXIT: a thread has died.")  # leaves a RESTART
        except OSError as fault:
            print(f"dmts-ipi i-pi: no RESTART ({fault})", file=sys.stderr, flush=True)


def _end_in_time(code: int) -> None:
    """Ends the process with a status, if it has not ended by itself soon.

    After a fault Python waits for all non-daemon threads, whether i-PI or another library started
    them, and such a thread may block forever.
    """
    last = threading.Timer(LEAVE_LIMIT_S, os._exit, (int(code),))
    last.daemon = True
    last.start()


def _close() -> None:
    """Closes what i-PI opened (sockets), if it came so far; the exit status stays ours."""
    from ipi.utils.softexit import softexit

    softexit.hard_exit = False
    if softexit.flist:
        softexit.cleanup("bad")
