"""Makes i-PI know our integrators: two names of its ``inputs.motion.motion`` are replaced.

* ``InputMotionBase.fields["dynamics"]``: the class that reads and stores ``<dynamics>``.
* ``Dynamics``: the class that is made from it, and that the storing code looks for.

An i-PI with a registry of integrators would need neither.
"""

from __future__ import annotations

import inspect
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from dmts_ipi.core.errors import InputError, MissingPackage
from dmts_ipi.ipi.version import REMEDY, is_supported

# What the classes here call or override, by module: name, and for functions the arguments.
EXPECTED: dict[str, dict[str, tuple[str, ...] | None]] = {
    "ipi.inputs.motion.motion": {
        "InputMotionBase.fields": None,
        "InputMotionBase.store": ("self", "sc"),
        "Dynamics": None,
        "InputDynamics": None,
    },
    "ipi.inputs.motion.dynamics": {
        "InputDynamics.attribs": None,
        "InputDynamics.fields": None,
        "InputDynamics.store": ("self", "dyn"),
        "InputDynamics.fetch": ("self",),
    },
    "ipi.inputs.thermostats": {
        "InputThermo.dynamic": None,
        "InputThermo.store": ("self", "thermo"),
        "InputThermo.fetch": ("self",),
    },
    "ipi.engine.motion.dynamics": {
        "Dynamics.bind": ("self", "ens", "beads", "nm", "cell", "bforce", "prng", "omaker"),
        "DummyIntegrator.bind": ("self", "motion"),
        "DummyIntegrator.get_tdt": ("self",),
        "DummyIntegrator.get_pdt": ("self",),
        "DummyIntegrator.get_qdt": ("self",),
        "DummyIntegrator.pconstraints": ("self",),
        "NVEIntegrator.pstep": ("self", "level"),
        "NVEIntegrator.qcstep": ("self",),
        "NVEIntegrator.mtsprop": ("self", "index"),
        "NVEIntegrator.step": ("self", "step"),
        "NVTIntegrator.tstep": ("self",),
        "NPTIntegrator.pstep": ("self", "level"),
        "NPTIntegrator.qcstep": ("self",),
    },
    "ipi.engine.thermostats": {
        "Thermostat.bind": ("self", "beads", "atoms", "pm", "nm", "prng", "fixdof", "fixcom"),
        "ThermoLangevin.__init__": ("self", "temp", "dt", "tau", "ethermo"),
        "ThermoLangevin.get_T": ("self",),
        "ThermoLangevin.get_S": ("self",),
        "ThermoFFL.step": ("self",),
    },
    "ipi.engine.barostats": {
        "BaroBZP.pstep": ("self", "level"),
        "BaroBZP.qcstep": ("self",),
    },
    "ipi.engine.normalmodes": {"NormalModes.free_qstep": ("self",)},
    "ipi.utils.inputvalue": {
        "Input.extend": ("self", "name", "xml"),
        "InputValue.store": ("self", "value", "units"),
        "Input.write": ("self", "name", "indent", "text"),
        "InputArray.write": ("self", "name", "indent"),
        "ELPERLINE": None,
    },
    "ipi.utils.depend": {"dstrip": ("da",)},
    "ipi.inputs.forcefields": {"InterfaceSocket": None, "InputFFSocket.fetch": ("self",)},
    "ipi.engine.forcefields": {
        "ForceRequest": None,
        "ForceField.queue": ("self", "atoms", "cell", "reqid", "template"),
        "ForceField.release": ("self", "request", "lock"),
        "ForceField.stop": ("self",),
        "FFSocket.start": ("self",),
        "FFSocket.stop": ("self",),
        "FFDirect.evaluate": ("self", "request"),
    },
    "ipi.engine.forces": {
        "ForceBead.bind": ("self", "atoms", "cell", "ff", "output_maker"),
        "ForceBead.get_all": ("self",),
        "MTSForces.queue_mts": ("self",),
        "MTSForces.get_forces_mts": ("self",),
    },
    "ipi.interfaces.sockets": {
        "MESSAGE": None,
        "Status.NeedsInit": None,
        "Driver.get_status": ("self",),
        "Driver.initialize": ("self", "rid", "pars"),
        "InterfaceSocket.open": ("self",),
        "InterfaceSocket.close": ("self",),
        "SHMDriver._fill_shm": ("self", "structs"),
        "SHMDriver._read_shm_results": ("self", "count"),
    },
    "ipi.engine.simulation": {
        "Simulation.run_step": ("self", "step"),
        "Simulation.run": ("self", "write_outputs"),
        "Simulation._run_loop": ("self", "write_outputs"),
        "Simulation.write_outputs": ("self",),
    },
    "ipi.engine.outputs": {
        "os.fsync": None,
        "CheckpointOutput.active": ("self",),
        "CheckpointOutput.write": ("self", "store"),
        "PropertyOutput.write": ("self",),
        "TrajectoryOutput.write": ("self",),
    },
    "ipi.inputs.outputs": {"InputOutputs.store": ("self", "plist")},
    "ipi.utils.io": {
        "print_file_raw": (
            *("mode", "atoms", "cell", "filedesc"),
            *("title", "cell_conv", "atoms_conv"),
        ),
    },
    "ipi.utils.mathtools": {"h2abc_deg": ("h",)},
    "ipi.interfaces.utils": {"parse_extra": ("mxtra",)},
    "ipi.utils.softexit": {
        "SOFTEXITLATENCY": None,
        "softexit.register_function": ("func", "args", "kwargs"),
        "softexit.lock": None,
        "softexit.flist": None,
    },
    "ipi.utils.prng": {
        "Random.gvec_serial": ("self", "shape"),
        "Random.gfill_serial": ("self", "out"),
        "Random.get_state": ("self",),
        "Random.u": None,
    },
}


def check() -> None:
    """Refuses an i-PI that we have not seen.

    Raises:
        MissingPackage: there is none.
        InputError: its version is not supported, or something that we rely on is not there.
    """
    try:
        found = version("ipi")
    except PackageNotFoundError as error:
        raise MissingPackage("", "ipi", error) from error
    if not is_supported(found):
        raise InputError("i-PI", found, f"this version is not supported; {REMEDY}")
    for module, names in EXPECTED.items():
        for name, arguments in names.items():
            _check_name(module, name, arguments, found)


def _check_name(module: str, name: str, arguments: tuple[str, ...] | None, found: str) -> None:
    import importlib

    remedy = f"i-PI {found} is not as expected here; {REMEDY}"
    try:
        item: Any = importlib.import_module(module)
        for part in name.split("."):
            item = getattr(item, part)
    except (ImportError, AttributeError) as error:
        raise InputError("i-PI", f"{module}.{name}", f"is missing; {remedy}") from error
    if arguments is not None and tuple(inspect.signature(item).parameters) != arguments:
        raise InputError("i-PI", f"{module}.{name}", f"has other arguments; {remedy}")


def register() -> None:
    """Checks i-PI and puts our classes in; a second call does nothing.

    Raises:
        InputError: as ``check``.
    """
    from ipi.inputs.motion import motion

    known = motion.InputMotionBase.fields.get("dynamics", (None,))[0]
    if getattr(known, "__module__", "").startswith("dmts_ipi."):
        return
    check()
    from dmts_ipi.ipi.motion.inputs import InputRespaDynamics
    from dmts_ipi.ipi.motion.respa import RespaDynamics

    if known is not motion.InputDynamics or motion.InputMotion.fields is not (
        motion.InputMotionBase.fields
    ):
        raise InputError("i-PI", "<dynamics>", "something else has replaced it already")
    settings = motion.InputMotionBase.fields["dynamics"][1]
    motion.InputMotionBase.fields["dynamics"] = (InputRespaDynamics, settings)
    motion.Dynamics = RespaDynamics
