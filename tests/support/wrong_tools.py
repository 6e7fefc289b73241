"""What situations of wrong input are made of: a case, and commands with something to break."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from ase import Atoms

from dmts_ipi.core.frames import Frame, write_frames
from run_tools import STUDENT, TEACHER, Done, argon, call
from toy_water import toy_box

TOY = "ase:toy_water.ToyWater"
Words = list[object]


@dataclass(frozen=True)
class Case:
    """A situation, the words of the command after building it, and the exit status."""

    situation: str
    build: Callable[[], Words]
    status: int = 2
    run: Callable[[Words], Done] = lambda words: call(*words)


def words(*given: object) -> Callable[[], Words]:
    """A command that needs nothing built."""
    return lambda: list(given)


def init(*options: object, **change: Callable[[Atoms], object]) -> Callable[[], Words]:
    """``init`` of argon with toy models; ``change`` breaks the structure."""

    def build() -> Words:
        atoms = argon()
        for breaks in change.values():
            breaks(atoms)
        atoms.write("s.extxyz")
        models = ("--teacher", TEACHER, "--student", STUDENT)
        return ["init", "run", "--structure", "s.extxyz", *models, *options]

    return build


def label(*options: object, **change: Callable[[Atoms], object]) -> Callable[[], Words]:
    """``label`` of eight toy waters."""

    def build() -> Words:
        atoms = toy_box()
        for breaks in change.values():
            breaks(atoms)
        atoms.write("box.extxyz")
        base = ["label", "--teacher", TOY, "--structure", "box.extxyz", "--out", "labels.extxyz"]
        return [*base, *("--time-ps", 0.02, "--equilibrate-ps", 0, "--every-fs", 10), *options]

    return build


def labelled(command: str, *options: object, **change: Callable[[Frame], Frame]):
    """``distill`` or ``evaluate`` on three frames of toy labels."""

    def build() -> Words:
        frames = []
        for _ in range(3):
            frame = Frame.from_atoms(toy_box())
            frames.append(replace(frame, forces=np.zeros_like(frame.positions)))
        for breaks in change.values():
            frames[1] = breaks(frames[1])
        write_frames(Path("labels.extxyz"), frames)
        own = ["--model", TOY] if command == "evaluate" else ["--teacher", TOY, "--out", "student"]
        return [command, "--labels", "labels.extxyz", *own, *options]

    return build


def with_file(name: str, text: str, build: Callable[[], Words]) -> Callable[[], Words]:
    """A file beside what ``build`` makes."""

    def both() -> Words:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
        return build()

    return both


def replaced(file: str, old: str, new: str) -> Callable[[Path], object]:
    """Edits a file in a folder."""

    def change(folder: Path) -> None:
        text = (folder / file).read_text()
        assert old in text, f"{file} has no {old}"
        (folder / file).write_text(text.replace(old, new, 1))

    return change


def shorter(file: Path, by: int = 100) -> None:
    file.write_bytes(file.read_bytes()[:-by])


def pair(**keywords: object) -> str:
    """A toy teacher or student of argon."""
    return f"ase:run_tools.Pair {json.dumps(keywords)}"


def last_line(given: Words) -> Done:
    """A run that ends in a fault: the ends of the logs stand before the line."""
    done = call(*given)
    return Done(done.returncode, done.stdout, done.stderr.splitlines()[-1] + "\n")
