"""The main program of both drivers: options, model, warm-up, socket, signals.

Exit status (``core.exit_codes``): 0 i-PI ended and did not come back, or SIGTERM; 2 wrong input;
4 a fault (i-PI was never there, or it went without EXIT and stayed away); 5 the model failed on a
structure; 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from dmts_ipi.core.errors import DmtsError, InputError
from dmts_ipi.core.exit_codes import ExitCode
from dmts_ipi.core.frames import Frame, read_frames
from dmts_ipi.core.memory import keep_freed_memory
from dmts_ipi.core.model import ForceModel, check_structure, set_charge
from dmts_ipi.core.options import OptionParser
from dmts_ipi.core.telemetry import Observer, OpenTelemetry
from dmts_ipi.ipi import units
from dmts_ipi.ipi.input_xml import SOCKET_PREFIX
from dmts_ipi.ipi.patches.profiler import profile_driver

from .client import Client, Endpoint
from .driver_model import AtomicUnitsModel
from .network import AnnouncedEndpoint, address_towards

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# Threads of libgomp, which torch brings along, turn round and round for 10 ms after a model's last
# loop before they sleep, and take a core from the driver whose turn it is. As many turns as this
# are 1 to 2 ms: enough between two loops of a model.
WAIT_VARIABLES, SPINS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"), "20000"
WARM_UP_EVALUATIONS = 3
# As long as a run may take to its first step: `dmts-ipi i-pi` greets a driver when its force is
# wanted, so a student waits for as long as the teacher loads and compiles.
CONNECT_LIMIT_S = 900.0


class LoadModel(Protocol):
    """``models.load.load_model``, handed in by the scripts so that ``ipi`` needs no networks."""

    def __call__(
        self, spec: str, *, device: str, dtype: str | None, compile: bool
    ) -> ForceModel: ...


def build_parser(program: str, default_dtype: str | None) -> OptionParser:
    """The options that both drivers share."""
    parser = OptionParser(
        prog=program,
        description="Serves a force model to i-PI through its socket. Runs until it is stopped: "
        "when i-PI ends it waits for the next one, with the model loaded.",
        epilog="Exit status: 0 i-PI ended, or SIGTERM; 2 wrong input; 4 a fault; 5 the model "
        "failed on a structure; 130 Ctrl-C.",
    )
    add = parser.add_argument
    add("--model", required=True, metavar="SPEC", help="name, folder or file of the model")
    add(
        "--structure",
        required=True,
        metavar="FILE",
        help="structure file (anything ASE reads) with i-PI's atoms in i-PI's order: elements "
        "and periodicity, which i-PI does not send",
    )
    add(
        "--name",
        metavar="NAME",
        default=None,
        help="of the model in the run, as in input.xml (default: what the script is for)",
    )
    where = parser.add_argument_group("where i-PI listens (--unix, --port, or --network)")
    where.add_argument("--unix", metavar="NAME", help="<address> of a mode='unix' (or shm) socket")
    where.add_argument(
        "--sockets-prefix",
        metavar="PREFIX",
        help="as i-PI's -S (default: the private /tmp/dmts-UID/ of `dmts-ipi run` if i-PI is "
        f"there, else i-PI's own {SOCKET_PREFIX})",
    )
    where.add_argument(
        "--address", metavar="HOST", default=None, help="host of a mode='inet' socket (127.0.0.1)"
    )
    where.add_argument("--port", type=int, metavar="N", help="port of a mode='inet' socket")
    where.add_argument(
        "--network",
        metavar="FOLDER",
        help="private folder RUN/network of a run on another node: i-PI's address is read from "
        "it, and the address of the telemetry (with keys) is announced in it",
    )
    model = parser.add_argument_group("the model")
    model.add_argument(
        "--device",
        default="auto",
        help="auto (an NVIDIA GPU if torch sees one), cpu, cuda, cuda:1 ... (%(default)s)",
    )
    model.add_argument(
        "--dtype",
        default=default_dtype,
        choices=["float32", "float64"],
        help=f"precision (default: {default_dtype or 'that of the model'})",
    )
    model.add_argument("--threads", type=int, metavar="N", help="CPU threads of the model")
    model.add_argument("--no-compile", action="store_true", help="do not compile the model")
    model.add_argument(
        "--need-virial",
        action="store_true",
        help="refuse a model without virial (NPT); <parameters>{virial: required}</parameters> "
        "in the XML does the same",
    )
    waits = parser.add_argument_group("waiting")
    waits.add_argument(
        "--connect-timeout-s",
        type=float,
        default=CONNECT_LIMIT_S,
        metavar="S",
        help="longest wait for i-PI at the start, s (%(default)g)",
    )
    waits.add_argument(
        "--reconnect-timeout-s",
        type=float,
        default=600.0,
        metavar="S",
        help="longest wait for i-PI to come back, s; 0: no limit (%(default)g)",
    )
    add(
        "--telemetry",
        default="auto",
        metavar="WHERE",
        help="where evaluations are published over ZeroMQ: auto (unix sockets in /tmp/dmts-UID), "
        "off, ipc:///PATH or tcp://HOST:PORT, which uses PORT + 1 as well (%(default)s)",
    )
    add(
        "--telemetry-keys",
        metavar="FILE",
        help="CURVE keys (keys.json of RUN/network); needed if other machines can reach HOST",
    )
    add("--verbose", action="store_true", help="print where the time was spent")
    return parser


def endpoint_of(args: argparse.Namespace, also: str = "") -> Endpoint:
    """The endpoint of the options --unix, --address and --port.

    Args:
        args: the parsed options.
        also: what else may be given, for the message.

    Raises:
        InputError: none or several of them.
    """
    if args.unix is not None and (args.port is not None or args.address is not None):
        raise InputError("unix", args.unix, "give --unix, or --address and --port, not both")
    if args.unix is not None:
        prefix = args.sockets_prefix
        return Endpoint.unix(args.unix, prefix) if prefix else Endpoint.anywhere(args.unix)
    if args.port is None:
        raise InputError("port", "", f"give --unix NAME, or --address HOST and --port N{also}")
    return Endpoint.tcp(args.address or "127.0.0.1", args.port)


def driver_endpoint(args: argparse.Namespace, role: str) -> Endpoint:
    """The endpoint of a driver's options; ``role`` is the name of its forcefield.

    Raises:
        InputError: none or several of --unix, --port and --network, or a wrong value.
    """
    if args.network is None:
        return endpoint_of(args, ", or --network FOLDER")
    if args.unix is not None or args.port is not None or args.address is not None:
        raise InputError(
            "network", args.network, "cannot be combined with --unix, --address and --port"
        )
    if not Path(args.network).is_dir():
        raise InputError("network", args.network, "is not a folder; give RUN/network")
    return AnnouncedEndpoint(folder=Path(args.network), role=role)


def main(
    program: str,
    load_model: LoadModel,
    *,
    default_dtype: str | None = None,
    argv: Sequence[str] | None = None,
    telemetry: Callable[[str], OpenTelemetry[Observer]] | None = None,
    role: str = "",
    resolve_device: Callable[[str], str] = str,
) -> int:
    """Runs a driver and returns its exit status (module docstring).

    Args:
        program: its name, in messages.
        load_model: loads the model of a spec.
        default_dtype: precision where the option is not given.
        argv: words of the command line; None: those of the process.
        telemetry: what opens telemetry of a model of this name; None: there is none.
        role: name of the model where ``--name`` is not given.
        resolve_device: what ``--device auto`` means on this machine.
    """
    try:
        args = build_parser(program, default_dtype).parse_args(argv)
    except DmtsError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        return error.status

    role = args.name or role
    open_telemetry = None if telemetry is None else telemetry(role)

    def say(line: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # nobody reads any more: go on
            print(f"{program}: {line}", file=sys.stderr, flush=True)

    stopping = _end_on_signals(say)
    keep_freed_memory()
    try:
        for option in ("connect_timeout_s", "reconnect_timeout_s"):
            if not getattr(args, option) >= 0:
                raise InputError(option, getattr(args, option), "must be zero or more seconds")
        endpoint = driver_endpoint(args, role)
        frame = read_frames(Path(args.structure), index="0")[0]
        limit_threads(args.threads)
        args.device = resolve_device(args.device)
        say(
            f"loading {args.model} ({args.device}); the first run on a machine compiles for a while"
        )
        model = load_model(
            args.model, device=args.device, dtype=args.dtype, compile=not args.no_compile
        )
        limit_threads(args.threads)
        set_charge(model, frame)
        evaluator = AtomicUnitsModel(model, frame.numbers, frame.pbc, args.need_virial)
        warm_up(evaluator, frame, say)
        if open_telemetry is not None:
            evaluator.observer = _telemetry(open_telemetry, args, endpoint, evaluator, say)
        if evaluator.observer is not None:
            stopping.append(evaluator.observer.leave)
        client = Client(
            endpoint,
            evaluator,
            connect_timeout_s=args.connect_timeout_s,
            reconnect_timeout_s=args.reconnect_timeout_s,
            say=say,
        )
        stopping.append(client.stop)
        write_profile = profile_driver(evaluator, role)
        stopping.append(write_profile)
        start = time.monotonic()
        try:
            client.serve()
        finally:
            write_profile()
            if evaluator.observer is not None:
                evaluator.observer.leave()
            if args.verbose and evaluator.evaluations:
                each_ms = 1e3 * evaluator.seconds / evaluator.evaluations
                say(
                    f"{evaluator.evaluations} evaluations, {each_ms:.3f} ms each in the model, "
                    f"{evaluator.seconds:.1f} s of {time.monotonic() - start:.1f} s"
                )
        return 0
    except DmtsError as error:
        say(f"error: {error}")
        return error.status


def _telemetry(
    open_telemetry: OpenTelemetry[Observer],
    args: argparse.Namespace,
    endpoint: Endpoint,
    evaluator: AtomicUnitsModel,
    say: Callable[[str], None],
) -> Observer | None:
    """Opens telemetry. Where nobody asked for it, a run does without rather than fail."""
    keys = None if args.telemetry_keys is None else Path(args.telemetry_keys)
    n_atoms = len(evaluator.numbers)
    if isinstance(endpoint, AnnouncedEndpoint) and args.telemetry == "auto":
        here = address_towards(endpoint.wait(args.connect_timeout_s, say).host)
        observer = open_telemetry(
            f"tcp://{here}:0", "", n_atoms, args.device, endpoint.keys, endpoint.announcement
        )
        say(f"telemetry listens at {here}")
        return observer
    name = args.unix or f"{endpoint.host}-{endpoint.port}"
    try:
        return open_telemetry(args.telemetry, name, n_atoms, args.device, keys)
    except InputError as error:
        if args.telemetry != "auto":
            raise
        say(f"no telemetry: {error}")
        return None


def warm_up(evaluator: AtomicUnitsModel, frame: Frame, say: Callable[[str], None]) -> None:
    """Checks the structure and evaluates it, so that compilation is over before i-PI waits.

    Three evaluations, each a little elsewhere: TorchScript compiles in its second one.

    Raises:
        DmtsError: the structure is no good, or the model fails on it.
    """
    model = evaluator.model
    check_structure(frame.numbers, frame.positions, frame.cell, frame.pbc, model.elements)
    h, x = units.cell_to_ipi(frame.cell), units.positions_to_ipi(frame.positions)
    rng = np.random.default_rng(0)
    start = time.perf_counter()
    for _ in range(WARM_UP_EVALUATIONS):
        last = time.perf_counter()
        evaluator.compute(h, x + rng.normal(scale=0.01, size=x.shape))
    now = time.perf_counter()
    say(
        f"{model.name}, {len(frame.numbers)} atoms: ready in {now - start:.1f} s, "
        f"{1e3 * (now - last):.1f} ms per evaluation"
    )
    if evaluator.virial_absent:
        say(f"{model.name} has no virial: zeros are sent, so pressure is wrong and NPT is refused")
    evaluator.evaluations, evaluator.seconds = 0, 0.0


def limit_threads(threads: int | None) -> None:
    """Limits the threads of models: before torch is there by the environment, afterwards by torch
    itself. None: all cores. They also wait for less long, where nobody has said how long."""
    if not any(name in os.environ for name in WAIT_VARIABLES):
        os.environ[WAIT_VARIABLES[0]] = SPINS
    if threads is None:
        return
    if threads < 1:
        raise InputError("threads", threads, "must be 1 or more")
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def _end_on_signals(say: Callable[[str], None]) -> list[Callable[[], None]]:
    """SIGTERM and SIGINT end the process at once, also while a network computes.

    Python runs signal handlers between two bytecodes, and one evaluation of a large teacher is
    a single call: so a thread waits for the signal's byte on a pipe and ends the process itself.

    Returns:
        A list; what is put there is called first (``Client.stop``).
    """
    before_end: list[Callable[[], None]] = []
    if threading.current_thread() is not threading.main_thread():
        return before_end
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)

    def watch() -> None:
        while True:
            number = os.read(read_end, 1)[0]
            if number in (signal.SIGTERM, signal.SIGINT):
                break
        for action in before_end:
            action()
        say("ended by SIGTERM" if number == signal.SIGTERM else "interrupted")
        os._exit(ExitCode.OK if number == signal.SIGTERM else ExitCode.INTERRUPTED)

    threading.Thread(target=watch, name="signals", daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return before_end
