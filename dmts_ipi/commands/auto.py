"""``dmts-ipi auto FOLDER``: from a structure and a teacher to a finished run and its report.

The stages are our other commands, each in a process of its own, with options that follow from two
measurements (``learning.auto_plan``). Every stage resumes; what is done is not done again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field

from dmts_ipi.core.config import StrictModel, parse, read_yaml, write_yaml
from dmts_ipi.core.durations import duration
from dmts_ipi.core.errors import InputError, RunFault
from dmts_ipi.core.files import read_record, replace_file, write_json
from dmts_ipi.core.tasks import INTERRUPTED, TERMINATED, Stopped, run_here
from dmts_ipi.ipi.session.lock import LOCK, FolderLock

from .many import ours

CONFIG, JOURNAL, DECISIONS = "auto.yaml", "auto.json", "decisions.md"
START, LABELS, STUDENT, RUN = "start.extxyz", "labels.extxyz", "student", "run"
STS, REPORT = "sts", "report"
STS_STEPS = 300  # of the short run that measures the speed of single time steps
HMR_AMU = 3.0
RELAX_BELOW_EV_PER_A, RELAX_STEPS = 8.0, 500
WORTH_IT = 1.2  # less speedup than this does not pay for a student


class AutoConfig(StrictModel):
    """What ``auto`` cannot know. The descriptions are the manual of the command line."""

    structure: str = Field(description="structure file (anything ASE reads), or water64")
    teacher: str = Field(description="model whose ensemble is sampled (dmts-ipi models --help)")
    time_ps: float = Field(gt=0, description="length of the run, ps")
    temperature_K: float = Field(300.0, gt=0, description="temperature, K")
    ensemble: str = Field("nvt", pattern="^(nvt|npt)$", description="nvt or npt")
    pressure_bar: float = Field(1.0, description="pressure of NPT, bar")
    student: str | None = Field(
        None, description="student of this teacher that exists already; default: one is trained"
    )
    budget: float = Field(
        0.05,
        gt=0,
        le=1,
        description="part of the time that single time steps would take that labels may take, "
        "and training as much again",
    )
    seed: int = Field(1, ge=0, description="seed of labels, training and run")
    device: str = Field("auto", description="auto (the GPU if torch sees one), cpu, cuda or cuda:N")
    threads: int | None = Field(None, ge=1, description="CPU threads of each model; default: all")


def configure(parser: argparse.ArgumentParser) -> None:
    """Options come from ``AutoConfig``."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "Stages: start (relaxed if it must be), measure (fastest vibration, cost of the teacher),\n"
        "labels, student, run folder, tune (the outer step), run, report. The same command goes\n"
        "on where it was stopped; FOLDER alone is enough then. Every decision with its reason is\n"
        f"in FOLDER/{DECISIONS}."
    )
    parser.add_argument("folder", type=Path, help="made, or gone on with")
    for name, info in AutoConfig.model_fields.items():
        kinds = {"time_ps": float, "temperature_K": float, "pressure_bar": float, "budget": float}
        kind: Any = kinds.get(name, int if name in ("seed", "threads") else str)
        default = info.get_default(call_default_factory=False)
        shown = "" if info.is_required() or default is None else f" (default: {default})"
        parser.add_argument(
            "--" + name.replace("_", "-"),
            dest=name,
            type=kind,
            default=argparse.SUPPRESS,
            metavar=name.split("_")[-1].upper(),
            help=(info.description or "") + shown,
        )


def run(args: argparse.Namespace) -> int:
    """Runs the stages that are not done; status 0 when the report is written."""
    config = read_config(args)
    auto = Auto(args.folder, config)
    args.folder.mkdir(parents=True, exist_ok=True)
    try:
        with FolderLock(args.folder):
            auto.run()
    except KeyboardInterrupt:
        auto.say("interrupted; the same command goes on")
        return INTERRUPTED
    except Stopped:
        auto.say("stopped; the same command goes on")
        return TERMINATED
    return 0


def read_config(args: argparse.Namespace) -> AutoConfig:
    """The options, or those that the folder was begun with.

    Raises:
        InputError: a wrong value, or another one than the folder was begun with.
    """
    given = {k: v for k, v in vars(args).items() if k in AutoConfig.model_fields}
    file = args.folder / CONFIG
    if not file.exists():
        if args.folder.exists() and not _is_empty(args.folder):
            raise InputError("folder", args.folder, f"is not empty and has no {CONFIG}")
        config = parse(AutoConfig, given, "option")
        if "structure" in given and given["structure"] != "water64":
            config = config.model_copy(
                update={"structure": str(Path(given["structure"]).resolve())}
            )
        return config
    config = read_yaml(AutoConfig, file)
    before = config.model_dump()
    for name, value in given.items():
        old = before[name]
        if name == "structure" and value != "water64":
            value = str(Path(value).resolve())
        if value != old:
            raise InputError(
                name, value, f"the folder was begun with {old}; make another folder for this"
            )
    return config


def _is_empty(folder: Path) -> bool:
    """Whether a folder holds nothing, or only the lock of a call that found a wrong input."""
    return folder.is_dir() and all(file.name == LOCK for file in folder.iterdir())


class Auto:
    """The stages of a folder. ``journal`` holds what is done and what was measured."""

    def __init__(self, folder: Path, config: AutoConfig) -> None:
        self.folder, self.config = folder, config
        self.journal: dict[str, Any] = read_record(folder / JOURNAL) or {"stages": {}}
        self.stages: list[tuple[str, str, Callable[[], dict[str, Any]]]] = [
            ("start", "the structure and the teacher", self.start),
            ("labels", "labels of the teacher", self.labels),
            ("student", "training of the student", self.student),
            ("folder", "the run folder", self.run_folder),
            ("tune", "choice of the outer step", self.tune),
            ("run", "the run", self.production),
            ("report", "the report", self.report),
        ]

    def say(self, line: str) -> None:
        """A line for people."""
        print(f"auto: {line}", file=sys.stderr, flush=True)

    def run(self) -> None:
        """All stages in their order.

        Raises:
            InputError, RunFault: a stage failed.
        """
        done = self.journal["stages"]
        for place, (name, title, stage) in enumerate(self.stages, 1):
            if name in done:
                continue
            self.say(f"stage {place} of {len(self.stages)}: {title}")
            begin = time.monotonic()
            figures = stage()
            seconds = time.monotonic() - begin
            done[name] = {**figures, "seconds": round(seconds, 1)}
            self._save()
            for reason in figures["reasons"]:
                self.say(reason)
            self.say(f"{title}: done in {duration(seconds)}")
        self.say(f"report: {self.folder / REPORT}.html, decisions: {self.folder / DECISIONS}")

    def _save(self) -> None:
        write_json(self.folder / JOURNAL, self.journal)
        lines = [f"# Decisions of dmts-ipi auto in {self.folder.resolve().name}", ""]
        for name, title, _ in self.stages:
            stage = self.journal["stages"].get(name)
            if stage is not None:
                lines += [f"## {title[0].upper()}{title[1:]} ({duration(stage['seconds'])})", ""]
                lines += [f"- {reason}" for reason in stage["reasons"]] + [""]
        replace_file(self.folder / DECISIONS, "\n".join(lines))

    def _command(self, *words: object, accept: tuple[int, ...] = (0,)) -> tuple[int, str]:
        """One of our commands.

        Raises:
            RunFault: it failed; its own message is above.
        """
        status, output = run_here(ours(*words))
        if status == INTERRUPTED:
            raise KeyboardInterrupt
        if status not in accept:
            line = " ".join(str(w) for w in words)
            error = RunFault(f"exit status {status} of: dmts-ipi {line}")
            error.status = status
            raise error
        return status, output

    def _machine(self) -> list[object]:
        return ["--device", self.config.device]

    # ---------------------------------------------------------------- stages

    def start(self) -> dict[str, Any]:
        """Reads and relaxes the structure; measures fastest vibration and cost; plans."""
        import numpy as np

        from dmts_ipi.core.model import ForceResult, check_structure, compute, set_charge
        from dmts_ipi.core.structure import Structure, describe
        from dmts_ipi.core.structure_files import HMR_KEY, read_atoms
        from dmts_ipi.ipi.client.driver import limit_threads
        from dmts_ipi.ipi.run_folder.resources import inputs_folder
        from dmts_ipi.ipi.run_folder.structure import write_structure
        from dmts_ipi.learning.auto_plan import make_plan
        from dmts_ipi.learning.fastest_motion import fastest_motion
        from dmts_ipi.learning.labelling.sampler import hmr_masses, relax
        from dmts_ipi.models.devices import resolve_device
        from dmts_ipi.models.load import load_model

        c = self.config
        file = inputs_folder() / "water64.extxyz" if c.structure == "water64" else c.structure
        atoms = read_atoms(Path(file), "-1")[-1]
        if atoms.info.pop(HMR_KEY, 0):
            atoms.set_masses("defaults")  # the run distributes them again
        structure = Structure.from_atoms(atoms)
        device = resolve_device(c.device)
        limit_threads(c.threads)
        teacher = load_model(c.teacher, device=device, dtype=None)
        limit_threads(c.threads)
        set_charge(teacher, structure)
        check_structure(*structure.model_input, teacher.elements)
        hmr = HMR_AMU if 1 in structure.numbers else 0.0
        masses = hmr_masses(structure, hmr)
        result = compute(teacher, structure)
        reasons = [f"{describe(structure)}; {teacher.name} on {device}"]
        if c.ensemble == "npt" and result.virial_eV is None:
            raise InputError(
                "ensemble", "npt", f"{teacher.name} gives no virial; use another teacher, or nvt"
            )
        if result.energy_eV is None:
            raise InputError(
                "teacher", c.teacher, "gives no energy, which the choice of the outer step needs"
            )

        def largest(result: ForceResult) -> float:
            """Of the atoms that move, eV/A."""
            size = np.linalg.norm(result.forces_eV_per_A, axis=1)
            size[structure.fixed] = 0.0
            return float(size.max())

        force = largest(result)
        if force > RELAX_BELOW_EV_PER_A:
            self.say(f"the largest force is {force:.1f} eV/A: relaxing")
            positions = relax(teacher, structure, RELAX_BELOW_EV_PER_A, RELAX_STEPS)
            structure = structure.at(positions)
            rest = largest(compute(teacher, structure))
            if rest > RELAX_BELOW_EV_PER_A:
                raise InputError(
                    "structure",
                    c.structure,
                    f"still has a force of {rest:.1f} eV/A after {RELAX_STEPS} steps downhill; "
                    "look for atoms that overlap",
                )
            atoms.positions = positions
            reasons.append(
                f"relaxed: the largest force was {force:.1f} eV/A and is {rest:.1f} eV/A now"
            )
        else:
            reasons.append(f"not relaxed: the largest force is {force:.2f} eV/A")
        begin = time.perf_counter()
        fastest = fastest_motion(teacher, structure, masses, c.seed)
        teacher_s = (time.perf_counter() - begin) / fastest.evaluations
        if hmr:
            reasons.append(f"{hmr:g} amu are moved to each hydrogen, which averages do not notice")
        plan = make_plan(
            fastest.period_fs,
            teacher_s,
            len(structure),
            c.time_ps,
            c.temperature_K,
            bool(structure.pbc.any()),
            c.budget,
        )
        atoms.set_masses(atoms.get_masses())  # those of the elements, where the file has none
        write_structure(self.folder / START, atoms)
        write_yaml(c, self.folder / CONFIG)  # only now: a wrong input begins no folder
        figures = {k: v for k, v in vars(plan).items() if k != "reasons"}
        return {
            "teacher_ms": 1000 * teacher_s,
            "period_fs": fastest.period_fs,
            "hmr_amu": hmr,
            "largest_force_eV_per_A": force,
            "plan": figures,
            "reasons": [*reasons, *plan.reasons],
        }

    @property
    def plan(self) -> dict[str, Any]:
        """What ``learning.auto_plan`` decided."""
        return dict(self.journal["stages"]["start"]["plan"])

    @property
    def hmr(self) -> float:
        """Mass moved to each hydrogen, amu."""
        return float(self.journal["stages"]["start"]["hmr_amu"])

    def labels(self) -> dict[str, Any]:
        """Labels of the teacher."""
        c, p = self.config, self.plan
        if c.student is not None:
            return {"reasons": [f"none: the student {c.student} is used"]}
        fields = {
            "step-fs": p["label_step_fs"],
            "every-fs": p["label_every_fs"],
            "time-ps": p["label_ps"],
            "equilibrate-ps": min(0.2, p["label_ps"]),
            "hmr-amu": self.hmr,
            "bursts": p["bursts"],
            "burst-frames": p["burst_frames"],
            "burst-step-fs": p["burst_step_fs"],
            "burst-temperature-K": c.temperature_K,
            "seed": c.seed,
        }
        words: list[object] = ["label", "--structure", self.folder / START, "--teacher", c.teacher]
        words += ["--out", self.folder / LABELS, "--json", *self._machine()]
        words += ["--temperatures-K", *p["temperatures_K"]]
        for name, value in fields.items():
            words += ["--" + name, value]
        record = json.loads(self._command(*words)[1].strip().splitlines()[-1])
        reasons = [f"{record['n_frames']} frames in {LABELS}, {record['dropped']} dropped"]
        reasons += [f"warning: {line}" for line in record["stopped"]]
        return {"n_frames": record["n_frames"], "reasons": reasons}

    def student(self) -> dict[str, Any]:
        """Training."""
        c, p = self.config, self.plan
        if c.student is not None:
            return {"model": c.student, "reasons": [f"none: the student {c.student} is used"]}
        outer = max(n for n in p["n_inner"] if n <= max(6, p["n_inner"][-1] // 2)) * p["inner_fs"]
        words: list[object] = ["distill", "--labels", self.folder / LABELS]
        words += ["--out", self.folder / STUDENT, "--minutes", p["minutes"], "--seed", c.seed]
        words += ["--heating-at-fs", outer, "--json", *self._machine()]
        if c.threads:
            words += ["--threads", c.threads]
        lines = self._command(*words)[1].strip().splitlines()
        record = json.loads(lines[-1])
        reasons = [
            f"student of step {record['step']}: held-out force MAE "
            f"{1e3 * record['force_mae_eV_per_A']:.3g} meV/A, "
            f"RMSE {1e3 * record['force_rmse_eV_per_A']:.3g} meV/A"
        ]
        if record.get("warning"):
            reasons.append(f"warning: {record['warning']}")
        return {
            "model": str((self.folder / STUDENT).resolve()),
            "errors": record,
            "reasons": reasons,
        }

    def run_folder(self) -> dict[str, Any]:
        """``init``."""
        self._init(RUN, "dmts", self.plan["inner_fs"], self.plan["n_inner"][0], self.config.time_ps)
        return {"reasons": [f"{RUN}/: {self.config.ensemble}, {self.config.temperature_K:g} K"]}

    def _init(self, name: str, mode: str, inner_fs: float, n_inner: int, time_ps: float) -> None:
        import shutil

        c = self.config
        shutil.rmtree(self.folder / name, ignore_errors=True)  # ours, and of no stage that is done
        every = max(10.0, n_inner * inner_fs)
        words: list[object] = ["init", self.folder / name, "--structure", self.folder / START]
        words += ["--teacher", c.teacher, "--mode", mode, "--inner-fs", inner_fs]
        words += ["--n-inner", n_inner, "--hmr-amu", self.hmr, "--time-ps", time_ps]
        words += ["--temperature-K", c.temperature_K, "--ensemble", c.ensemble, "--seed", c.seed]
        words += ["--properties-every-fs", every, *self._machine()]
        if c.ensemble == "npt":
            words += ["--pressure-bar", c.pressure_bar]
        if mode == "dmts":
            words += ["--student", self.journal["stages"]["student"]["model"]]
        if c.threads:
            words += ["--threads", c.threads]
        self._command(*words)

    def tune(self) -> dict[str, Any]:
        """The outer step, or single time steps where a student does not pay."""
        c, p = self.config, self.plan
        trial = min(max(0.01 * c.time_ps, 1.0), 4.0)
        words: list[object] = ["tune", self.folder / RUN, "--json", "--thermostats", "own"]
        words += ["--n-inner", *p["n_inner"], "--trial-ps", trial, "--confirm-ps", 2 * trial]
        if c.student is None:
            words += ["--labels", self.folder / LABELS]
        output = self._command(*words, accept=(0, 3))[1]
        record = json.loads(output)
        sts = self._sts_ns_per_day()
        chosen = next(
            (
                t
                for t in record["trials"]
                if t["n_inner"] == record["chosen_n_inner"] and t["setting"] == record["setting"]
            ),
            None,
        )
        speedup = chosen["ns_per_day"] / sts if chosen else 0.0
        figures = {"sts_ns_per_day": sts, "speedup": speedup, "tune": record}
        if chosen is not None and speedup >= WORTH_IT:
            last = p["n_inner"][-1] == chosen["n_inner"]
            more = " (the largest that was tried)" if last else ""
            reasons = [
                f"outer step {chosen['outer_fs']:g} fs{more}: heating "
                f"{chosen['heating_K_per_ps']:.2g} +- {chosen['heating_stderr_K_per_ps']:.1g} K/ps "
                f"in {2 * trial:g} ps, {chosen['limit_K_per_ps']:.2g} allowed",
                f"{chosen['ns_per_day']:.3g} ns/day, {speedup:.2g} times the {sts:.3g} ns/day of "
                f"single steps of {p['sts_fs']:g} fs",
            ]
            return {**figures, "mode": "dmts", "reasons": reasons}
        why = (
            f"the best outer step would be {speedup:.2g} times as fast as single steps"
            if chosen is not None
            else "no outer step that was tried keeps its heating within the tolerance"
        )
        reasons = [f"single time steps of {p['sts_fs']:g} fs, without a student: {why}"]
        return {**figures, "mode": "sts", "reasons": reasons}

    def _sts_ns_per_day(self) -> float:
        """The speed of single time steps, by a short run in the folder ``sts``."""
        step = self.plan["sts_fs"]
        self._init(STS, "sts", step, 1, STS_STEPS * step / 1000)
        self._command("run", self.folder / STS)
        return float(read_record(self.folder / STS / "summary.json")["ns_per_day"])

    def production(self) -> dict[str, Any]:
        """The run itself."""
        single = self.journal["stages"]["tune"]["mode"] == "sts"
        if single and not (self.folder / RUN / LOCK).exists():  # it has not begun
            self._init(RUN, "sts", self.plan["sts_fs"], 1, self.config.time_ps)
        self._command("run", self.folder / RUN)
        summary = read_record(self.folder / RUN / "summary.json")
        speed = summary.get("ns_per_day")
        rewinds = summary.get("rewinds", 0)
        shown = "" if speed is None else f" at {float(speed):.3g} ns/day"
        return {
            "summary": summary,
            "reasons": [f"{self.config.time_ps:g} ps{shown}, rewinds: {rewinds}"],
        }

    def report(self) -> dict[str, Any]:
        """The page."""
        out = self.folder / f"{REPORT}.html"
        _, text = self._command("analyze", self.folder / RUN, "--out", out)
        print(text, end="", flush=True)
        return {"reasons": [f"{out.name}"]}
