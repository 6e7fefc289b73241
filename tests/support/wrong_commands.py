"""Wrong input of options, structures, models and labels: the lists of cases."""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from ase import Atoms

from dmts_ipi.core.frames import Frame, write_frames
from dmts_ipi.ipi.client.driver import main as driver_main
from dmts_ipi.models.load import PRETRAINED
from driver_models import load
from run_tools import Done, call
from toy_water import toy_box
from wrong_tools import (
    TOY,
    Case,
    Words,
    init,
    label,
    labelled,
    pair,
    replaced,
    shorter,
    with_file,
    words,
)

TAKEN = "labels.extxyz/student"  # below a file


def model(name: str, breaks: Callable[[Path], object]) -> Callable[[], Words]:
    """``init`` with a broken copy of a shipped model."""

    def build() -> Words:
        shutil.copytree(PRETRAINED / name, "model")
        breaks(Path("model"))
        which = "--student" if name == "water-student" else "--teacher"
        return ["init", "run", "--no-model-check", which, "model"]

    return build


def weights(folder: Path) -> Path:
    return folder / "model.safetensors"


def no_forces(frame: Frame) -> Frame:
    return replace(frame, forces=None)


def nan_forces(frame: Frame) -> Frame:
    assert frame.forces is not None
    frame.forces[5, 0] = np.nan
    return frame


def squeezed(frame: Frame) -> Frame:
    return replace(frame, positions=frame.positions * 0.1)  # O-H of 0.1 A


def of_sulphur(frame: Frame) -> Frame:
    frame.numbers[frame.numbers == 8] = 16
    return frame


def by_models(*names: str, teacher: str = "") -> Callable[[], Words]:
    """``distill`` on a frame by each of these models; an empty name: the file does not say."""

    def build() -> Words:
        frame = Frame.from_atoms(toy_box())
        forces = np.ones_like(frame.positions)
        frames = [
            replace(frame, forces=forces, teacher=name, teacher_identity=name) for name in names
        ]
        write_frames(Path("labels.extxyz"), frames)
        given = ["--teacher", teacher] if teacher else []
        return ["distill", "--labels", "labels.extxyz", "--out", "student", "--steps", 5, *given]

    return build


def going_on_from(student: str, *more: str, oxygen: int = 8) -> Callable[[], Words]:
    """``distill --from`` on labels of a model, with another element in the place of oxygen."""

    def build() -> Words:
        frame = Frame.from_atoms(toy_box())
        frame.numbers[frame.numbers == 8] = oxygen
        forces = np.ones_like(frame.positions)
        one = replace(frame, forces=forces, teacher="a", teacher_identity="a")
        write_frames(Path("labels.extxyz"), [one, one])
        given = ["--labels", "labels.extxyz", "--out", "student", "--steps", 5]
        return ["distill", *given, "--from", student, *more]

    return build


def of_another_program() -> Words:
    """``distill`` on labels whose forces have a name of their own."""
    atoms = toy_box()
    atoms.arrays["dft_forces"] = np.zeros_like(atoms.positions)
    atoms.write("labels.extxyz")
    return ["distill", "--labels", "labels.extxyz", "--out", "student", "--steps", 5]


def close(atoms: Atoms) -> None:
    atoms.positions[1] = atoms.positions[0] + [0.1, 0, 0]


def nan(atoms: Atoms) -> None:
    atoms.positions[3, 1] = np.nan


def no_cell(atoms: Atoms) -> None:
    atoms.cell, atoms.pbc = np.zeros((3, 3)), False


def flat(atoms: Atoms) -> None:
    atoms.cell[2] = 0.0


def one_hydrogen(atoms: Atoms) -> None:
    atoms.numbers[4] = 1


def plain_driver(given: Words) -> Done:
    """A driver by itself."""
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        status = driver_main("nc_driver", load, argv=[str(w) for w in given])
    return Done(status, "", err.getvalue())


class Absent:
    """A finder that knows of no ``package``."""

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(self, name: str, *unused: object) -> None:
        if name.split(".")[0] == self.package:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)


def without(package: str) -> Callable[[Words], Done]:
    """On a machine that lacks a package."""

    def run(given: Words) -> Done:
        kept = {k: sys.modules.pop(k) for k in list(sys.modules) if k.split(".")[0] == package}
        finder = Absent(package)
        sys.meta_path.insert(0, finder)  # type: ignore[arg-type]
        try:
            return call(*given)
        finally:
            sys.meta_path.remove(finder)  # type: ignore[arg-type]
            sys.modules.update(kept)

    return run


OPTIONS = [
    Case("not a number", words("run", "run", "--time-ps", "x")),
    Case("not a number, for `init`", init("--time-ps", "long")),
    Case("NaN for a number", init("--temperature-K", "nan")),
    Case("not a whole number", words("distill", "--steps", "1e3")),
    Case("not a whole number of inner steps", init("--n-inner", 2.5)),
    Case("a number out of range", init("--inner-fs", -1)),
    Case("a number out of range, for `label`", label("--time-ps", -1)),
    Case("an impossible temperature", label("--temperatures-K", 0)),
    Case("not one of the choices", words("evaluate", "--model", "x", "--dtype", "float16")),
    Case("an unknown ensemble", init("--ensemble", "nst")),
    Case("an unknown mode", init("--mode", "mts")),
    Case("an unknown precision", init("--teacher-dtype", "float16")),
    Case("an unknown option", words("run", "run", "--time-pss", 3)),
    Case("an option without its value", words("run", "run", "--time-ps")),
    Case("options that are missing", words("distill", "--out", "student")),
    Case("options that exclude each other", words("distill", "--minutes", 1, "--steps", 5)),
    Case("no length of the training given", labelled("distill")),
    Case("nothing to evaluate on", words("evaluate", "--model", "water-student")),
    Case("nothing to label", words("label", "--teacher", TOY, "--out", "labels.extxyz")),
    Case("a part of a job array that does not exist", label("--shard", "3/2")),
    Case("nothing to check", words("check-driver", "--structure", "s.xyz")),
    Case("an unknown command", words("lable")),
    Case("a driver's option", words("--threads", "many"), run=plain_driver),
]


STRUCTURES = [
    Case("the file does not exist", words("init", "run", "--structure", "s.xyz")),
    Case("the file is empty", with_file("s.xyz", "", words("init", "run", "--structure", "s.xyz"))),
    Case(
        "the file is not a structure",
        with_file("s.xyz", "hello\nworld\n", words("init", "run", "--structure", "s.xyz")),
    ),
    Case(
        "deuterium",
        with_file("s.xyz", "1\n\nD 0 0 0\n", words("init", "run", "--structure", "s.xyz")),
    ),
    Case(
        "atom names instead of elements",
        with_file("s.xyz", "1\n\nOW 0 0 0\n", words("init", "run", "--structure", "s.xyz")),
    ),
    Case(
        "a LAMMPS data file",
        with_file("s.data", "LAMMPS\n\n3 atoms\n", words("init", "run", "--structure", "s.data")),
    ),
    Case("a folder that is not a run folder", words("init", "run", "--structure", ".")),
    Case("NaN in the positions", init(change=nan)),
    Case("NaN in the positions, `label`", label(change=nan)),
    Case("atoms closer than 0.3 A", init(change=close)),
    Case("atoms closer than 0.3 A, `label`", label(change=close)),
    Case("no cell, for NPT", init("--ensemble", "npt", change=no_cell)),
    Case("a cell without volume", init(change=flat)),
    Case("HMR for a hydrogen that is not bonded to any atom", init(change=one_hydrogen)),
    Case("an element that the student does not know", init("--student", "water-student")),
    Case("an element that the teacher does not know", init("--teacher", "water-teacher")),
]


MODELS = [
    Case("no such model", init("--teacher", "no-such-model")),
    Case("no such calculator", init("--teacher", "ase:no.such")),
    Case("keywords that are not JSON", init("--teacher", 'ase:ase.calculators.emt.EMT {"a"}')),
    Case(
        "the teacher's package is missing",
        with_file("m.fnx", "", labelled("evaluate", "--model", "fennol:m.fnx")),
        run=without("fennol"),
    ),
    Case("the weights are truncated", model("water-student", lambda p: shorter(weights(p)))),
    Case(
        "the weights of a MACE teacher are truncated",
        model("water-teacher", lambda p: shorter(weights(p))),
    ),
    Case(
        "a pickle instead of safetensors",
        model("water-student", lambda p: torch.save({"a": torch.ones(2)}, weights(p))),
    ),
    Case("the weights are missing", model("water-student", lambda p: weights(p).unlink())),
    Case(
        "a model of a newer version",
        model("water-student", replaced("model.json", '"version": 1', '"version": 99')),
    ),
    Case("model.json is truncated", model("water-student", lambda p: shorter(p / "model.json"))),
    Case(
        "the student of another teacher",
        words("init", "run", "--teacher", TOY, "--student", "water-student", "--no-model-check"),
    ),
    Case(
        "a model without virial, for NPT",
        init("--student", pair(stress=False), "--ensemble", "npt"),
    ),
    Case("a device that is not there", labelled("evaluate", "--device", "abacus")),
]


LABELS = [
    Case("an outer step that is not positive", labelled("evaluate", "--outer-fs", 0)),
    Case("no thread", labelled("distill", "--steps", 5, "--threads", 0)),
    Case("an unknown device, `distill`", labelled("distill", "--steps", 5, "--device", "abacus")),
    Case(
        "a student to start from that lacks an element",
        going_on_from("water-student", oxygen=16),
    ),
    Case(
        "a student to start from that is none",
        going_on_from("ase:toy_water.ToyWater"),
    ),
    Case(
        "a student to start from, with other sizes",
        going_on_from("water-student", "--forces", "conservative"),
    ),
    Case(
        "a student folder that cannot be written", labelled("distill", "--steps", 5, "--out", TAKEN)
    ),
    Case("labels without forces", labelled("distill", "--steps", 5, change=no_forces)),
    Case("the same, `evaluate`", labelled("evaluate", change=no_forces)),
    Case("labels of another program, whose forces have another name", of_another_program),
    Case("labels that do not record which model made them", by_models("")),
    Case(
        "the same, and --teacher names a model that did not make them", by_models("", teacher=TOY)
    ),
    Case("labels of two models", by_models("one", "two")),
    Case("labels of another model than that of --teacher", by_models("one", teacher=TOY)),
    Case("labels with NaN", labelled("distill", "--steps", 5, change=nan_forces)),
    Case("labels with atoms that are too close", labelled("evaluate", change=squeezed)),
    Case(
        "labels of an element that the model does not know",
        labelled("evaluate", "--model", "water-student", change=of_sulphur),
    ),
    Case("labels that do not exist", words("evaluate", "--model", TOY, "--labels", "l.extxyz")),
    Case(
        "an unknown field in the YAML of `label`",
        with_file("o.yaml", "temperature_K: [310]\n", label("--config", "o.yaml")),
    ),
    Case(
        "an unknown field in the YAML of `distill`",
        with_file(
            "o.yaml", "steps: 5\nlearning_rat: 1\n", labelled("distill", "--config", "o.yaml")
        ),
    ),
    Case(
        "a wrong value in a YAML",
        with_file(
            "o.yaml", "steps: 5\nbatch_frames: many\n", labelled("distill", "--config", "o.yaml")
        ),
    ),
    Case(
        "a value out of range in a YAML, one level down",
        with_file(
            "o.yaml",
            "steps: 5\narchitecture: {cutoff_A: 0.5}\n",
            labelled("distill", "--config", "o.yaml"),
        ),
    ),
    Case(
        "a file that is not YAML",
        with_file("o.yaml", "steps: [5\n", labelled("distill", "--config", "o.yaml")),
    ),
    Case("a YAML that does not exist", label("--config", "o.yaml")),
    Case("an output file that `label` did not make", with_file("labels.extxyz", "mine", label())),
    Case("an output that cannot be written", with_file("file", "", label("--out", "file/l.xyz"))),
    Case("a plot that cannot be written", labelled("evaluate", "--plot", "nowhere/a.png")),
]
