"""Builds the watchdog of a run folder: limits from its settings, telemetry of its drivers."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager

from dmts_ipi.core.errors import DmtsError, InputError
from dmts_ipi.core.force_comparison import Pair
from dmts_ipi.core.private import make_private_folder
from dmts_ipi.core.supervision import Guard, NoGuard
from dmts_ipi.core.verdicts import Physics
from dmts_ipi.core.watch_settings import WatchdogSettings
from dmts_ipi.ipi.client.network import KEYS, NETWORK
from dmts_ipi.ipi.input_xml import InputSpec, Socket
from dmts_ipi.ipi.run_folder.folder import RunFolder
from dmts_ipi.ipi.session.session import needs_keys, telemetry_setting
from dmts_ipi.ipi.session.watch import Limits
from dmts_ipi.watchdog.endpoints import AUTO, OFF, Addresses, Announced, addresses
from dmts_ipi.watchdog.guard import Watchdog
from dmts_ipi.watchdog.keys import Keys, make_keys, read_keys
from dmts_ipi.watchdog.thresholds import thresholds


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Options of the commands that watch a run: how often to report, and when to stop."""
    limits = Limits()
    parser.add_argument(
        "--report-every-s",
        type=float,
        default=10.0,
        help="time between lines of progress if the output is not a terminal, s",
    )
    parser.add_argument(
        "--startup-limit-s",
        type=float,
        default=limits.startup_s,
        help="longest wait for the first step, s",
    )
    parser.add_argument(
        "--stall-limit-s",
        type=float,
        default=limits.stall_s,
        help="longest time without a new line of properties, s (default: 60, or 30 times the "
        "longest time so far if that is longer)",
    )
    parser.add_argument(
        "--min-free-MB",
        type=float,
        default=limits.free_MB,
        help="the run stops if the disk has less free space than this, MB",
    )


def limits_of(args: argparse.Namespace, settings: WatchdogSettings) -> Limits:
    """The limits of these options; without ``--stall-limit-s`` that of ``run.yaml`` is used.

    Raises:
        InputError: a limit is not positive.
    """
    for name in ("startup_limit_s", "stall_limit_s"):
        if (value := getattr(args, name)) is not None and not value > 0:
            raise InputError(name, value, "must be positive")
    stall_s = args.stall_limit_s or settings.stall_limit_s
    return Limits(args.startup_limit_s, stall_s, args.min_free_MB)


def guarded(folder: RunFolder, spec: InputSpec) -> AbstractContextManager[Guard]:
    """The watchdog of a run that is about to start; where it is off, one that judges nothing.

    Raises:
        InputError: its settings contradict the run.
    """
    settings = folder.settings.watchdog
    if not settings.enabled:
        return contextlib.nullcontext(NoGuard())
    structure = folder.structure()
    physics = physics_of(folder, spec, len(structure.numbers))
    pairs = spec.comparisons
    limits = thresholds(settings, physics, validation_errors(folder, pairs), pairs)
    telemetry = telemetry_of(folder, spec)
    return Watchdog(
        folder.path,
        settings,
        limits,
        physics,
        structure.numbers,
        structure.pbc,
        telemetry,
        spec.seed or 1,
        {name: (m.model, m.identity) for name, m in folder.settings.models.items()},
    )


def physics_of(folder: RunFolder, spec: InputSpec, n_atoms: int) -> Physics:
    """What the limits depend on."""
    config = folder.settings
    checkpoints = spec.output("checkpoint")
    assert checkpoints is not None  # read_input demands it
    return Physics(
        ensemble=spec.ensemble,
        temperature_K=spec.temperature_K or spec.start_temperature_K or 300.0,
        n_atoms=n_atoms,
        dof=max(3 * n_atoms - spec.removed_degrees_of_freedom, 1),
        outer_fs=spec.outer_fs,
        equilibration_ps=config.equilibration_ps,
        checkpoint_stride=checkpoints.stride,
        keep_checkpoints=config.keep_checkpoints,
        multiple_steps=spec.n_inner > 1,
    )


def validation_errors(folder: RunFolder, pairs: Sequence[Pair]) -> dict[str, float]:
    """Validation errors of the fast models, RMS over force components, eV/A; absent: not known."""
    from dmts_ipi.models.load import read_record

    errors_by_model, models = {}, folder.settings.models
    for name in (fast for _, fast in pairs if fast in models):
        try:
            errors = read_record(models[name].model).get("errors") or {}
        except DmtsError:
            continue  # its driver will say what is wrong with it
        value = errors.get("force_rmse_eV_per_A")
        if isinstance(value, int | float) and value > 0:
            errors_by_model[name] = float(value)
    return errors_by_model


def telemetry_of(folder: RunFolder, spec: InputSpec) -> dict[str, Addresses | Announced]:
    """Addresses of the telemetry of a run's drivers, by model. Third-party drivers have none.

    Raises:
        InputError: a wrong setting, or keys that are missing or open to others.
    """
    endpoints: dict[str, Addresses | Announced] = {}
    private = folder.path / NETWORK
    for name, at in spec.sockets.items():
        settings, model = telemetry_setting(folder.settings, name), folder.settings.models.get(name)
        if model is None or model.command:
            continue
        if settings == AUTO and at.mode == "inet" and folder.settings.network.address is not None:
            endpoints[name] = Announced(private / f"{name}.json", keys_of(folder))
            continue
        keys = private / KEYS if needs_keys(settings) else None
        where = addresses(settings, socket_name(at), keys)
        if where is not None:
            endpoints[name] = where
    for name, where_inside in spec.in_process.items():
        own = AUTO if telemetry_setting(folder.settings, name) != OFF else OFF
        where = addresses(own, where_inside)
        if where is not None:
            endpoints[name] = where
    return endpoints


def keys_of(folder: RunFolder) -> Keys:
    """The keys of a run's telemetry, made if it has none yet.

    Raises:
        InputError: they are open to others, or cannot be made.
    """
    file = make_private_folder(folder.path / NETWORK) / KEYS
    return read_keys(file) if file.exists() else make_keys(file)


def socket_name(at: Socket) -> str:
    """What a driver calls its socket."""
    return at.address if at.mode == "unix" else f"{at.address}-{at.port}"
