"""Our models inside i-PI's own driver, or inside i-PI itself.

    i-pi-driver-py -u -a NAME -m custom -P drivers/ipi_pes.py -o model=SPEC,structure=FILE

    <ffdirect name='teacher'>
      <pes> custom </pes> <pes_path> drivers/ipi_pes.py </pes_path>
      <parameters> {model: water-teacher, structure: water.xyz} </parameters>
    </ffdirect>

Further parameters: ``device``, ``dtype``, ``compile`` (true, false), ``need_virial``, ``threads``,
and ``telemetry``: a name under which figures and forces can be heard, as those of a student's
driver (absent: off). i-PI splits parameters at commas, so a SPEC with a comma in it needs our own
drivers, which also reconnect.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from ipi.pes.dummy import Dummy_driver

__DRIVER_NAME__ = "dmts_ipi"
__DRIVER_CLASS__ = "DmtsDriver"


class DmtsDriver(Dummy_driver):
    """A force model as i-PI's PES. Everything that it takes and gives is in atomic units."""

    def check_parameters(self) -> None:
        """Loads model and structure.

        Raises:
            InputError: a parameter is missing or unknown, or names nothing usable.
        """
        from dmts_ipi.core.errors import InputError
        from dmts_ipi.core.frames import read_frames
        from dmts_ipi.core.model import set_charge
        from dmts_ipi.ipi.client.driver import limit_threads, warm_up
        from dmts_ipi.ipi.client.driver_model import AtomicUnitsModel
        from dmts_ipi.ipi.patches.profiler import profile_inside
        from dmts_ipi.models.devices import resolve_device
        from dmts_ipi.models.load import load_model

        given: dict[str, Any] = {k: v for k, v in self.kwargs.items() if k != "verbosity"}
        if self.args:
            raise InputError("parameter", self.args[0], "write it as name=value")
        for name in ("model", "structure"):
            if name not in given:
                raise InputError(name, "", f"is missing; give {name}=...")
        known = {"model", "structure", "device", "dtype", "compile", "need_virial", "threads"}
        known.add("telemetry")
        unknown = sorted(set(given) - known)
        if unknown:
            raise InputError("parameter", unknown[0], f"unknown; known: {', '.join(sorted(known))}")
        frame = read_frames(Path(str(given["structure"])), index="0")[0]
        threads = int(given.get("threads", len(os.sched_getaffinity(0))))
        limit_threads(threads)
        given["device"] = device = resolve_device(str(given.get("device", "auto")))
        model = load_model(
            str(given["model"]),
            device=device,
            dtype=given.get("dtype"),
            compile=_flag(given.get("compile", True)),
        )
        limit_threads(threads)  # again: now torch is there
        set_charge(model, frame)
        need_virial = _flag(given.get("need_virial", False))
        self.evaluator = AtomicUnitsModel(model, frame.numbers, frame.pbc, need_virial)
        warm_up(self.evaluator, frame, lambda line: print(f"dmts_ipi: {line}", flush=True))
        if "telemetry" in given:
            self.evaluator.observer = _telemetry(given, len(frame.numbers))
        profile_inside(self.evaluator, "student")

    def compute_structure(
        self, cell: np.ndarray, pos: np.ndarray
    ) -> tuple[float, np.ndarray, np.ndarray, str]:
        """Energy, forces (n, 3), virial (3, 3) and no extras."""
        found = self.evaluator.compute(cell, pos)
        self.evaluator.answered()
        return (*found, "")


def _telemetry(given: dict[str, Any], n_atoms: int) -> Any:
    """Telemetry as of a student's driver. A run does without rather than fail."""
    from dmts_ipi.core.errors import InputError
    from dmts_ipi.watchdog.publisher import opener

    try:
        observer = opener("student", reference=False)(
            "auto", str(given["telemetry"]), n_atoms, str(given.get("device", "cpu"))
        )
    except InputError as error:
        print(f"dmts_ipi: no telemetry: {error}", flush=True)
        return None
    if observer is not None:
        observer.connected()
    return observer


def _flag(value: object) -> bool:
    return str(value).strip().lower() in ("true", "yes", "1")
