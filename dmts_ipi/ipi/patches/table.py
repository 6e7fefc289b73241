"""Every place where i-PI is changed or where we rely on its inside: one table.

Each row says what is replaced, why, what is slower without it, and what i-PI must have for it.
``install.install_patches`` installs the rows in this order. A row that is not ``required`` only
makes things faster: without it stock i-PI goes on, with the same trajectory.

``expects`` lists names of i-PI as ``module:Class.name``, for functions with their arguments. A name
of an instance counts as there if a method of its class, or of a base class, uses it.
``tests/ipi/patches/test_table.py`` fails where a module of ours uses a name that no row expects.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Literal

from dmts_ipi.ipi.version import LIMITS

SUPPORTED = LIMITS  # versions of i-PI: from, and below

SAME_BYTES = "byte for byte"
SAME_ROUNDING = "to rounding, 1e-10"


@dataclass(frozen=True)
class Patch:
    """One change of i-PI.

    Attributes:
        name: for ``--no-patches`` and messages.
        module: of this package, whose ``install()`` does it; empty: our own code asks
            ``switches.is_on`` instead.
        replaces: names of i-PI that are replaced.
        why: what it does and why.
        gain: what is slower without it, in one line.
        fallback: what happens without it.
        same: how far outputs are the same without it.
        expects: names of i-PI that it uses (module docstring).
        required: ``always``; ``if used``: by runs that ask for it (``install_patches``); ``no``.
        on_request: what asks for it; empty where it is installed without being asked for.
        since, until: versions of i-PI.
    """

    name: str
    why: str
    gain: str
    fallback: str
    expects: tuple[str, ...]
    module: str = ""
    replaces: tuple[str, ...] = ()
    same: str = SAME_BYTES
    required: Literal["always", "if used", "no"] = "no"
    on_request: str = ""
    since: tuple[int, ...] = SUPPORTED[0]
    until: tuple[int, ...] = SUPPORTED[1]

    def install(self, *arguments: Any) -> None:
        """Puts it in; a second call does nothing."""
        if self.module:
            importlib.import_module(f".{self.module}", __package__).install(*arguments)

    @property
    def optional(self) -> bool:
        """Whether ``--no-patches`` can leave it out: it only makes things faster."""
        return self.required == "no" and not self.on_request


def _names(module: str, *names: str) -> tuple[str, ...]:
    return tuple(f"ipi.{module}:{name}" for name in names)


PROCESS = Patch(
    name="process",
    why="`dmts-ipi i-pi` holds i-PI's simulation as an object: it loads an input and runs it.",
    gain="",
    fallback="none",
    required="always",
    expects=(
        *_names(
            "engine.simulation",
            "Simulation.load_from_xml(xml_input, custom_verbosity, sockets_prefix, "
            "request_banner, read_only, post_init_hook)",
            "Simulation.run(self, write_outputs)",
            "Simulation.exit_status",
            "Simulation.exit_message",
        ),
        *_names(
            "utils.softexit",
            "softexit.trigger(status, message)",
            "softexit.cleanup(status, message)",
            "softexit.hard_exit",
            "softexit.triggered",
            "softexit.flist",
            "softexit.tlist",
        ),
    ),
)

INTEGRATORS = Patch(
    name="integrators",
    module="integrators",
    replaces=(
        "ipi.inputs.motion.motion:InputMotionBase.fields['dynamics']",
        "ipi.inputs.motion.motion:Dynamics",
    ),
    why="Adds the tags of our integrators and thermostats (`splitting='baoab-respa'`, "
    "`<local_tau>`, `<bonds>`), and propagators and thermostats of other packages.",
    gain="nothing: it is not about speed",
    fallback="an input without these tags runs under stock i-PI",
    required="if used",
    expects=(
        *_names(
            "inputs.motion.motion",
            "InputMotionBase.fields",
            "InputMotionBase.store(self, sc)",
            "InputMotion.fields",
            "Dynamics",
            "InputDynamics",
        ),
        *_names(
            "inputs.motion.dynamics",
            "InputDynamics.attribs",
            "InputDynamics.fields",
            "InputDynamics.splitting",
            "InputDynamics.thermostat",
            "InputDynamics.store(self, dyn)",
            "InputDynamics.fetch(self)",
        ),
        *_names(
            "inputs.thermostats",
            "InputThermo.attribs",
            "InputThermo.fields",
            "InputThermo.dynamic",
            "InputThermo.mode",
            "InputThermo.tau",
            "InputThermo.flip",
            "InputThermo.s",
            "InputThermo.ethermo",
            "InputThermo.store(self, thermo)",
            "InputThermo.fetch(self)",
        ),
        *_names(
            "engine.motion.dynamics",
            "Dynamics.__init__(self, timestep, mode, splitting, thermostat, barostat, fixcom, "
            "fixatoms_dof, nmts, efield, bec)",
            "Dynamics.bind(self, ens, beads, nm, cell, bforce, prng, omaker)",
            "Dynamics.step(self, step)",
            "Dynamics.dt",
            "Dynamics.nmts",
            "Dynamics.splitting",
            "Dynamics.enstype",
            "Dynamics.ensemble",
            "Dynamics.thermostat",
            "Dynamics.barostat",
            "Dynamics.integrator",
            "DummyIntegrator.bind(self, motion)",
            "DummyIntegrator.get_tdt(self)",
            "DummyIntegrator.get_pdt(self)",
            "DummyIntegrator.get_qdt(self)",
            "DummyIntegrator.pconstraints(self)",
            "DummyIntegrator.dt",
            "DummyIntegrator.pdt",
            "DummyIntegrator.qdt",
            "DummyIntegrator.nmts",
            "DummyIntegrator.nmtslevels",
            "DummyIntegrator.beads",
            "DummyIntegrator.bias",
            "DummyIntegrator.ensemble",
            "DummyIntegrator.forces",
            "DummyIntegrator.prng",
            "DummyIntegrator.nm",
            "DummyIntegrator.fixcom",
            "DummyIntegrator.fixatoms_dof",
            "NVEIntegrator.pstep(self, level)",
            "NVEIntegrator.qcstep(self)",
            "NVEIntegrator.mtsprop(self, index)",
            "NVEIntegrator.step(self, step)",
            "NVTIntegrator.tstep(self)",
            "NPTIntegrator.pstep(self, level)",
            "NPTIntegrator.qcstep(self)",
        ),
        *_names("engine.motion.motion", "Motion.cell", "Motion.prng", "Motion.fixcom"),
        *_names(
            "engine.ensembles",
            "Ensemble.eens",
            "Ensemble.time",
            "Ensemble.has_bias",
            "Ensemble.bias",
            "Ensemble.temp",
        ),
        *_names(
            "engine.thermostats",
            "Thermostat.bind(self, beads, atoms, pm, nm, prng, fixdof, fixcom)",
            "Thermostat.step(self)",
            "Thermostat.p",
            "Thermostat.sm",
            "Thermostat.dt",
            "Thermostat.temp",
            "Thermostat.prng",
            "Thermostat.ethermo",
            "ThermoLangevin.__init__(self, temp, dt, tau, ethermo)",
            "ThermoLangevin.get_T(self)",
            "ThermoLangevin.get_S(self)",
            "ThermoLangevin.tau",
            "ThermoLangevin.T",
            "ThermoLangevin.S",
            "ThermoFFL.step(self)",
            "ThermoFFL.flip",
        ),
        *_names(
            "engine.barostats",
            "BaroBZP.pstep(self, level)",
            "BaroBZP.qcstep(self)",
            "BaroBZP.thermostat",
        ),
        *_names(
            "engine.beads",
            "Beads.q",
            "Beads.p",
            "Beads.m",
            "Beads.m3",
            "Beads.names",
            "Beads.nbeads",
            "Beads.natoms",
        ),
        *_names("engine.cell", "Cell.h", "Cell.ih"),
        *_names(
            "engine.normalmodes",
            "NormalModes.free_qstep(self)",
            "NormalModes.open_paths",
            "NormalModes.bosons",
        ),
        *_names(
            "engine.forces",
            "Forces.mforces",
            "Forces.mts_forces",
            "Forces.nmtslevels",
            "Forces.pot",
            "MTSForces.f",
            "MTSForces.queue_mts(self)",
            "MTSForces.get_forces_mts(self)",
            "ForceComponent.weight",
            "ForceComponent.mts_weights",
            "ForceComponent.ffield",
            "ForceComponent.f",
            "ForceComponent.virs",
        ),
        *_names(
            "utils.inputvalue",
            "Input.extend(self, name, xml)",
            "Input.write(self, name, indent, text)",
            "Input.parse(self, xml, text)",
            "Input.extra",
            "Input.attribs",
            "Input.fields",
            "Input._explicit",
            "InputValue.store(self, value, units)",
            "InputAttribute",
            "InputArray",
        ),
        *_names("utils.io.inputs.io_xml", "xml_node.attribs", "xml_node.fields"),
        *_names("utils.depend", "dstrip(da)"),
        *_names("utils.prng", "Random.gvec_serial(self, shape)", "Random.gvec", "Random.u"),
        *_names("utils.units", "Constants.kb", "unit_to_internal", "unit_to_user"),
        *_names("utils.messages", "warning", "verbosity.low"),
    ),
)

ARRAY_LOOP = Patch(
    name="array-loop",
    why="BAOAB-RESPA of one classical system at constant volume runs on plain arrays and calls the "
    "forcefields itself; i-PI's beads and forces are updated once per outer step.",
    gain="1 to 4 ms per outer step (i-PI's depend objects cost more than the arithmetic)",
    fallback="the same steps through i-PI's objects",
    same=SAME_ROUNDING,
    expects=(
        *_names(
            "engine.forces",
            "ForceBead._ufvx",
            "ForceBead.ufvx",
            "ForceComponent._forces",
            "ForceComponent.ff",
            "ForceComponent.beads",
        ),
        *_names("utils.depend", "depend_value.set", "depend_base.tainted"),
        *_names(
            "engine.forcefields",
            "FFDirect.driver",
            "FFDirect.evaluate(self, request)",
            "FFDirect.batch_size",
            "ForceField.offset",
            "ForceField.active",
            "ForceField.dopbc",
            "ForceField.threaded",
        ),
        *_names("interfaces.utils", "parse_extra(mxtra)"),
    ),
)

LOCKSTEP = Patch(
    name="lockstep",
    module="lockstep_systems",
    replaces=("ipi.engine.simulation:Simulation.run_step",),
    why="Several systems in one i-PI all request their forces before the first one waits, so that "
    "batches are full.",
    gain="with replicas only, because batches are sent half empty",
    fallback="i-PI steps systems in threads, or one after the other",
    expects=(
        *_names(
            "engine.simulation",
            "Simulation.run_step(self, step)",
            "Simulation.syslist",
            "Simulation.smotion",
        ),
        *_names("engine.system", "System.motion"),
        *_names("engine.smotion.smotion", "Smotion.step(self, step)"),
        *_names("utils.softexit", "softexit.triggered"),
    ),
)

EXCHANGE = Patch(
    name="direct-exchange",
    module="exchange",
    replaces=(
        "ipi.inputs.forcefields:InterfaceSocket",
        "ipi.engine.forces:ForceBead.bind",
        "ipi.engine.forcefields:FFSocket.queue",
        "ipi.engine.forcefields:FFSocket.start",
        "ipi.engine.forcefields:FFSocket.stop",
    ),
    why="The thread that needs a force communicates with the driver itself. A driver that dies "
    "during an evaluation is replaced at the same step.",
    gain="1 to 2 ms per outer step, and a reset connection ends i-PI",
    fallback="i-PI's poll thread (the same as `--poll-thread`)",
    expects=(
        *_names("inputs.forcefields", "InterfaceSocket", "InputFFSocket.fetch(self)"),
        *_names(
            "engine.forcefields",
            "ForceRequest",
            "ForceField.queue(self, atoms, cell, reqid, template)",
            "ForceField.release(self, request, lock)",
            "ForceField.stop(self)",
            "ForceField.softexit(self)",
            "ForceField.requests",
            "ForceField.pars",
            "ForceField.latency",
            "ForceField.iactive",
            "ForceField._threadlock",
            "FFSocket.start(self)",
            "FFSocket.stop(self)",
            "FFSocket.socket",
        ),
        *_names(
            "engine.forces",
            "ForceBead.bind(self, atoms, cell, ff, output_maker)",
            "ForceBead.get_all(self)",
        ),
        *_names(
            "interfaces.sockets",
            "HDRLEN",
            "MESSAGE",
            "Disconnected",
            "Status.Up",
            "Status.Ready",
            "Status.Busy",
            "Status.NeedsInit",
            "Status.Disconnected",
            "Driver.get_status(self)",
            "Driver.initialize(self, rid, pars)",
            "Driver.send_msg(self, msg)",
            "Driver.status",
            "Driver.waitstatus",
            "Driver.lastreq",
            "Driver.peername",
            "Driver.batch_size",
            "InterfaceSocket.open(self)",
            "InterfaceSocket.close(self)",
            "InterfaceSocket.server",
            "InterfaceSocket.clients",
            "InterfaceSocket.requests",
            "InterfaceSocket.mode",
            "InterfaceSocket.timeout",
            "InterfaceSocket.offset",
            "InterfaceSocket.batch_size",
            "InterfaceSocket.match_mode",
            "InterfaceSocket.consolidate_messages",
            "InterfaceSocket.exit_on_disconnect",
            "SHMDriver._fill_shm(self, structs)",
            "SHMDriver._read_shm_results(self, count)",
            "SHMDriver._shm_prefix",
        ),
        *_names("interfaces.utils", "parse_extra(mxtra)"),
        *_names("utils.messages", "info", "warning", "verbosity.low"),
        *_names(
            "utils.softexit",
            "softexit.register_function(func, args, kwargs)",
            "softexit.trigger(status, message)",
            "softexit.triggered",
            "softexit.exiting",
        ),
    ),
)

PREFETCHED_RNG = Patch(
    name="prefetched-rng",
    replaces=("ipi.utils.prng:Random.rng[0]",),
    why="Random numbers of the next outer step are drawn while the teacher is evaluated.",
    gain="0.2 to 0.5 ms per outer step of a few thousand atoms",
    fallback="they are drawn when they are needed",
    expects=_names(
        "utils.prng",
        "Random.gvec_serial(self, shape)",
        "Random.gfill_serial(self, out)",
        "Random.get_state(self)",
        "Random.u",
        "Random.rng",
        "Random.n_threads",
    ),
)

DEFERRED_OUTPUTS = Patch(
    name="deferred-outputs",
    module="deferred_outputs",
    replaces=(
        "ipi.engine.simulation:Simulation.write_outputs",
        "ipi.engine.simulation:Simulation._run_loop",
    ),
    why="Lines and frames of a step are written while the drivers work on the next one.",
    gain="the time of properties and frames, 0.1 to 1 ms per step with output",
    fallback="they are written before the next step begins",
    expects=(
        *_names(
            "engine.simulation",
            "Simulation._run_loop(self, write_outputs)",
            "Simulation.write_outputs(self)",
            "Simulation.outputs",
            "Simulation.syslist",
            "Simulation.smotion",
            "Simulation.step",
            "Simulation.tsteps",
            "Simulation.threading",
        ),
        *_names("engine.system", "System.motion"),
        *_names("engine.smotion", "Smotion"),
        *_names(
            "engine.outputs",
            "PropertyOutput.write(self)",
            "TrajectoryOutput.write(self)",
            "PropertyOutput.active(self)",
        ),
        *_names("utils.softexit", "softexit.lock", "softexit.flist", "softexit.triggered"),
    ),
)

OUTPUT_SYNC = Patch(
    name="output-sync",
    module="output_sync",
    replaces=("ipi.engine.outputs:os", "ipi.engine.outputs:CheckpointOutput.write"),
    why="Output files are synced to disk with each checkpoint, not with each line.",
    gain="0.1 ms per line on a fast disk, many ms on a slow one",
    fallback="each line is synced when it is written",
    expects=_names(
        "engine.outputs",
        "os.fsync",
        "CheckpointOutput.active(self)",
        "CheckpointOutput.write(self, store)",
        "PropertyOutput.write(self)",
        "TrajectoryOutput.write(self)",
    ),
)

FAST_XYZ = Patch(
    name="fast-xyz",
    module="fast_xyz_writer",
    replaces=("ipi.utils.io:print_file_raw",),
    why="A frame in xyz is formatted as a whole, not line by line.",
    gain="frames take 8 times as long (1 ms more for 1,000 atoms)",
    fallback="i-PI writes frames line by line",
    expects=(
        *_names(
            "utils.io",
            "print_file_raw(mode, atoms, cell, filedesc, title, cell_conv, atoms_conv)",
        ),
        *_names("utils.mathtools", "h2abc_deg(h)"),
        *_names("engine.atoms", "Atoms.names", "Atoms.q"),
        *_names("engine.cell", "Cell.h"),
    ),
)

FAST_CHECKPOINTS = Patch(
    name="fast-checkpoints",
    module="fast_checkpoints",
    replaces=(
        "ipi.inputs.outputs:InputOutputs.store",
        "ipi.utils.inputvalue:InputArray.write",
        "ipi.engine.simulation:Simulation.run",
    ),
    why="The state that is written after a SIGTERM is stored twice a second, not every step; "
    "arrays of a checkpoint are formatted once, not eight times.",
    gain="0.5 ms per `safe_stride` steps, 20 ms per checkpoint of 1,000 atoms",
    fallback="the state is stored every `safe_stride` steps; i-PI formats number by number",
    expects=(
        *_names(
            "engine.simulation", "Simulation.run(self, write_outputs)", "Simulation.safe_stride"
        ),
        *_names("engine.outputs", "CheckpointOutput.step", "OutputList.prefix"),
        *_names("inputs.outputs", "InputOutputs.store(self, plist)"),
        *_names(
            "utils.inputvalue",
            "Input.write(self, name, indent, text)",
            "InputArray.write(self, name, indent)",
            "InputArray.value",
            "InputArray.type",
            "ELPERLINE",
        ),
        *_names("utils.io.inputs.io_xml", "write_type(type, data)"),
        "ipi:ipi_global_settings",
    ),
)

SOFTEXIT_LATENCY = Patch(
    name="softexit-latency",
    module="softexit_latency",
    replaces=("ipi.utils.softexit:SOFTEXITLATENCY",),
    why="i-PI checks 10 times a second, not once, whether it must stop.",
    gain="up to 1 s more at the end of a run and at every rewind",
    fallback="i-PI checks once a second",
    expects=_names("utils.softexit", "SOFTEXITLATENCY"),
)

SINGLE_STEPS = Patch(
    name="single-steps",
    module="single_steps",
    replaces=("ipi.engine.simulation:Simulation.run_step",),
    why="After a rewind, one i-PI process runs single time steps with the teacher for a while, "
    "then multiple time steps again.",
    gain="nothing: it is not about speed",
    fallback="none",
    required="if used",
    on_request="--single-steps-until",
    expects=(
        *_names("engine.simulation", "Simulation.run_step(self, step)", "Simulation.syslist"),
        *_names("engine.system", "System.forces"),
        *_names(
            "engine.forces",
            "Forces.mforces",
            "Forces.mts_forces",
            "ForceComponent.ffield",
            "ForceComponent.mts_weights",
            "ForceComponent._f",
            "ForceComponent._virs",
            "MTSForces._f",
            "MTSForces._virs",
        ),
        *_names("utils.depend", "depend_base.add_dependency", "depend_base.taint"),
    ),
)

PROFILER = Patch(
    name="profiler",
    module="profiler",
    replaces=(
        "ipi.engine.simulation:Simulation.run_step",
        "ipi.engine.simulation:Simulation.write_outputs",
        "ipi.engine.forces:ForceBead.get_all",
        "ipi.engine.motion.dynamics:NVTIntegrator.tstep",
        "ipi.engine.motion.dynamics:NPTIntegrator.tstep",
    ),
    why="`dmts-ipi profile` records where the time of an outer step is spent. It is installed "
    "last, so that it also measures the other patches.",
    gain="nothing: it is not about speed",
    fallback="nothing is recorded",
    on_request="dmts-ipi profile",
    expects=(
        *_names(
            "engine.simulation",
            "Simulation.run_step(self, step)",
            "Simulation.write_outputs(self)",
        ),
        *_names("engine.forces", "ForceBead.get_all(self)"),
        *_names("engine.motion.dynamics", "NVTIntegrator.tstep(self)", "NPTIntegrator.tstep(self)"),
        *_names("utils.softexit", "softexit.register_function(func, args, kwargs)"),
    ),
)

# In the order in which they are installed. Three wrap Simulation.run_step: the systems in lockstep
# first, the weights of single steps around them, the profiler around everything.
PATCHES: tuple[Patch, ...] = (
    PROCESS,
    INTEGRATORS,
    ARRAY_LOOP,
    LOCKSTEP,
    EXCHANGE,
    PREFETCHED_RNG,
    DEFERRED_OUTPUTS,
    OUTPUT_SYNC,
    FAST_XYZ,
    FAST_CHECKPOINTS,
    SOFTEXIT_LATENCY,
    SINGLE_STEPS,
    PROFILER,
)
OPTIONAL = tuple(p.name for p in PATCHES if p.optional)


def markdown() -> str:
    """The table of docs/performance.md."""
    lines = ["| patch | what it does | without it | outputs without it |", "|---|---|---|---|"]
    for patch in PATCHES:
        if patch is PROCESS:
            continue
        when = f" (only with `{patch.on_request}`)" if patch.on_request else ""
        if patch.optional:
            without, same = f"{patch.fallback}; slower: {patch.gain}", f"the same {patch.same}"
        else:
            without, same = patch.fallback, ""
        lines.append(f"| `{patch.name}`{when} | {patch.why} | {without} | {same} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
