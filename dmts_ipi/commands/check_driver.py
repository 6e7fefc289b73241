"""``dmts-ipi check-driver``: the conformance check of a model, or of a driver behind a socket."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

from dmts_ipi.core.conformance import FAIL, Check, Subject, check_model
from dmts_ipi.core.errors import InputError

EPILOG = """\
examples:
  dmts-ipi check-driver --structure water.xyz --model water-student
  dmts-ipi check-driver --structure water.xyz --unix chk \\
      --command "python drivers/nc_driver.py --model water-student --structure water.xyz --unix chk"
  dmts-ipi check-driver --structure water.xyz --port 31415     (start the driver by hand)
Exit status: 0 nothing failed; 1 something failed; 2 wrong input.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--structure", required=True, metavar="FILE", help="structure to check with")
    add("--model", metavar="SPEC", help="check this model in this process")
    add("--device", default="auto", help="device of --model (auto: the GPU if there is one)")
    add("--dtype", choices=["float32", "float64"], help="precision of --model (the model's own)")
    add(
        "--compile",
        action="store_true",
        help="compile --model as in a run (takes minutes: once for each number of atoms)",
    )
    add("--unix", metavar="NAME", help="check the driver that connects to this unix socket")
    add("--sockets-prefix", default="/tmp/ipi_", help="prefix of the unix socket (/tmp/ipi_)")
    add("--address", metavar="HOST", help="check the driver that connects here (127.0.0.1)")
    add("--port", type=int, metavar="N", help="TCP port of --address")
    add("--command", dest="driver_command", metavar="CMD", help="command that starts the driver")
    add(
        "--tolerance-eV-per-A",
        dest="tolerance_eV_per_A",
        type=float,
        default=1e-3,
        metavar="X",
        help="largest deviation of a force component, eV/A (1e-3; 1e-8 for float64)",
    )
    add(
        "--conservative",
        choices=["auto", "yes", "no"],
        default="auto",
        help="compare forces and virial with derivatives of the energy (auto: if the model "
        "declares itself conservative)",
    )
    add("--skip", action="append", default=[], metavar="CHECK", help="leave out a check; may be "
        "repeated")  # fmt: skip
    add("--seed", type=int, default=0, help="seed of the random displacements (0)")
    add(
        "--timeout-s",
        type=float,
        default=120.0,
        metavar="S",
        help="longest wait for a driver's connection and for each of its answers, s (120)",
    )
    add("--json", action="store_true", help="print the table as JSON")


def run(args: argparse.Namespace) -> int:
    """Prints the table; status 1 if anything failed."""
    from dmts_ipi.core.model import set_charge
    from dmts_ipi.core.structure import read_structure

    by_socket = args.unix is not None or args.port is not None or args.address is not None
    if (args.model is None) == (not by_socket):
        raise InputError("model", args.model or "", "give --model, or --unix or --port, not both")
    if args.driver_command and not by_socket:
        raise InputError("command", args.driver_command, "needs --unix or --port")
    if not args.tolerance_eV_per_A > 0:
        raise InputError("tolerance_eV_per_A", args.tolerance_eV_per_A, "must be positive")
    if not args.timeout_s > 0:
        raise InputError("timeout_s", args.timeout_s, "must be positive")
    structure = read_structure(Path(args.structure), index="0")
    if not by_socket:
        from dmts_ipi.models.load import load_model

        model = load_model(args.model, device=args.device, dtype=args.dtype, compile=args.compile)
        set_charge(model, structure)
    else:
        model = None
    subject = Subject(
        model=model,  # type: ignore[arg-type]  # a driver takes its place
        numbers=structure.numbers,
        positions=structure.positions,
        cell=structure.cell,
        pbc=structure.pbc,
        tolerance_eV_per_A=args.tolerance_eV_per_A,
        conservative={"auto": None, "yes": True, "no": False}[args.conservative],
        seed=args.seed,
    )
    show = (lambda check: None) if args.json else _show
    if by_socket:
        table = _check_driver(args, subject, show)
    else:
        table = check_model(subject, args.skip, show)
    failed = [check.name for check in table if check.status == FAIL]
    if args.json:
        rows = [check.as_dict() for check in table]
        print(json.dumps({"passed": not failed, "checks": rows}, indent=1))
    else:
        print("all checks passed" if not failed else f"failed: {', '.join(failed)}")
    return 1 if failed else 0


def _check_driver(args: argparse.Namespace, subject: Subject, show: object) -> list[Check]:
    from dmts_ipi.ipi.client.check import DriverCheck
    from dmts_ipi.ipi.client.driver import endpoint_of

    endpoint = endpoint_of(args)
    try:
        command = shlex.split(args.driver_command) if args.driver_command else None
    except ValueError as error:
        raise InputError("command", args.driver_command, str(error)) from error
    check = DriverCheck(
        endpoint,
        subject,
        command,
        connect_timeout_s=args.timeout_s,
        reply_timeout_s=args.timeout_s,
        skip=args.skip,
        progress=show,  # type: ignore[arg-type]
    )
    if command is None:
        print(f"waiting {args.timeout_s:g} s for a driver at {endpoint}", file=sys.stderr)
    return check.run()


def _show(check: Check) -> None:
    figure = ""
    if check.figure is not None and check.limit is not None:
        figure = f"{check.figure:.2g} (limit {check.limit:.2g}) {check.unit}"
    print(f"{check.status:5} {check.name:24} {figure:34} {check.detail}".rstrip(), flush=True)
