#!/usr/bin/env python3
"""Labels of small molecules, ions and clusters with water, for a student of organic chemistry.

    python run_scripts/recipes/organic_labels.py --out OUT --minutes 60

writes OUT/train.extxyz and OUT/held_out.extxyz, labelled by GFN2-xTB (pip install tblite rdkit).
Every molecule of ``organic_molecules.txt`` is relaxed in two conformations; some twenty single
frames of it are written: of Langevin dynamics at 300 and 500 K, rattled, with stretched bonds, and
of clusters also with their molecules moved closer and apart. Molecules come in a random order, so
that wherever the work stops the set is balanced; after the last one a second round begins, with
other random numbers. The same command goes on where it stopped, also after a kill.

A tenth of the molecules, chosen by a hash of their names, is held out, and so is each cluster with
one of them. Water is always trained on; alanine dipeptide, which other tests use, never.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from ase.data import atomic_masses

from dmts_ipi.core.errors import ModelFault
from dmts_ipi.core.frames import Frame
from dmts_ipi.core.model import ForceModel, compute
from dmts_ipi.core.molecules import bonds, molecules
from dmts_ipi.core.neighbours import neighbour_pairs
from dmts_ipi.learning.labelling.geometry import bare, rattle, stretch_bonds
from dmts_ipi.learning.labelling.sampler import Langevin, relax, thermal_velocities
from dmts_ipi.learning.labelling.store import LabelStore

TEACHER = 'ase:tblite.ase.TBLite {"method": "GFN2-xTB", "verbosity": 0}'
LIST = Path(__file__).with_name("organic_molecules.txt")
WATER, NEVER_TRAINED_ON = "water", ("ace-ala-nme",)
HELD_OUT_ONE_IN = 10
WATER_CLUSTERS = (2, 3, 4, 5, 6, 7, 8, 10, 12)
MOST_WATERS, HYDRATE_ATOMS = 8, 36  # a hydrate has fewer waters if it would have more atoms
HYDRATED_ONE_IN = 4  # of the neutral molecules; ions and capped amino acids all are

# sampling; hydrogens weigh 4 amu, which changes no average over positions
TEMPERATURES_K, FRAMES_PER_RUN = (300.0, 500.0), (5, 6)
STEP_FS, EVERY_STEPS, EQUILIBRATION_STEPS = 2.0, 20, 50
HYDROGEN_AMU, FRICTION_PER_PS, EQUILIBRATION_FRICTION_PER_PS = 4.0, 5.0, 30.0
RELAX_BELOW_EV_PER_A, RELAX_STEPS = 0.1, 80
RATTLE_A = (0.03, 0.06, 0.12)
STRETCHED_XH, STRETCHED_BONDS = 2, 3
STRETCH_LOW, STRETCH_HIGH = 0.86, 1.25
APART = (0.9, 1.2)  # factors on the distances between the molecules of a cluster
CONTACT_A = 1.9  # between the molecules of a cluster before it is relaxed

# a frame that fails one of these is dropped
FORCE_LIMIT_EV_PER_A, SHORTEST_A = 40.0, 0.5


@dataclass(frozen=True)
class Molecule:
    """A molecule or a cluster; ``parts`` are the names of the molecules that a cluster has."""

    name: str
    kind: str
    smiles: str
    parts: tuple[str, ...]


Build = Callable[[str, int], Frame]  # SMILES and seed


def number_of(text: str) -> int:
    """A number that a name always gives, whatever else is in the list."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def is_held_out(molecule: Molecule) -> bool:
    """Whether a molecule, or one in the cluster, is kept for tests."""
    return any(
        part in NEVER_TRAINED_ON
        or (part != WATER and number_of("held out " + part) % HELD_OUT_ONE_IN == 0)
        for part in molecule.parts
    )


def read_list(path: Path = LIST) -> list[Molecule]:
    """All molecules and clusters: those of the file, hydrates, and clusters of water."""
    kind, found = "", {}
    for line in path.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            kind = line.strip("[]")
        elif kind == "dimers":
            parts = tuple(line.split(" + "))
            smiles = ".".join(found[part].smiles for part in parts)
            found["+".join(parts)] = Molecule("+".join(parts), kind, smiles, parts)
        else:
            name, smiles = line.split()
            if name in found:
                raise SystemExit(f"{path}: {name} is there twice")
            found[name] = Molecule(name, kind, smiles, (name,))
    hydrates = [hydrate(m) for m in found.values() if m.kind != "dimers" and m.name != WATER]
    waters = [
        Molecule(f"water-{n}", "water clusters", ".".join("O" * n), (WATER,) * n)
        for n in WATER_CLUSTERS
    ]
    return [*found.values(), *waters, *(m for m in hydrates if m is not None)]


def hydrate(m: Molecule) -> Molecule | None:
    """A molecule with one to eight waters; None for most neutral ones."""
    chosen = number_of("hydrated " + m.name) % HYDRATED_ONE_IN == 0
    if not (chosen or m.kind in ("cations", "anions", "capped amino acids")):
        return None
    heavy = sum(c.isalpha() and c != "H" for c in m.smiles)  # near enough to limit the size
    room = max(1, (HYDRATE_ATOMS - 2 * heavy) // 3)
    n = min(1 + number_of("waters " + m.name) % MOST_WATERS, room)
    return Molecule(f"{m.name}+{n}-water", "hydrates", m.smiles + ".O" * n, (m.name, WATER))


def in_random_order(all_molecules: list[Molecule], seed: int) -> list[Molecule]:
    """The order of work; a longer list leaves the order of the others as it was."""
    return sorted(all_molecules, key=lambda m: number_of(f"{seed} {m.name}"))


# ------------------------------------------------------------------ geometries


def build(smiles: str, seed: int) -> Frame:
    """A conformation by distance geometry and a classical force field (RDKit), with its charge."""
    from rdkit import Chem
    from rdkit.Chem import AllChem

    parts, charge = [], 0
    for k, part in enumerate(smiles.split(".")):
        molecule = Chem.AddHs(Chem.MolFromSmiles(part))
        if AllChem.EmbedMolecule(molecule, randomSeed=seed % 2**30 + k) != 0 and (
            AllChem.EmbedMolecule(molecule, randomSeed=seed % 2**30 + k, useRandomCoords=True) != 0
        ):
            raise ModelFault(f"{part}: no conformation found")
        try:
            if molecule.GetNumAtoms() > 1 and AllChem.MMFFHasAllMoleculeParams(molecule):
                AllChem.MMFFOptimizeMolecule(molecule)
        except (RuntimeError, ValueError):
            pass  # the teacher relaxes it
        charge += Chem.GetFormalCharge(molecule)
        numbers = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()])
        parts.append((numbers, np.array(molecule.GetConformer().GetPositions(), float)))
    x = pack([positions for _, positions in parts], np.random.default_rng(seed))
    return Frame(np.concatenate([numbers for numbers, _ in parts]), x, charge=float(charge))


def pack(parts: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Puts molecules next to each other, the first in the middle; of twelve random places each
    takes the one nearest to the middle."""
    placed = parts[0] - parts[0].mean(0)
    for part in parts[1:]:
        best, nearest = None, np.inf
        for _ in range(12):
            rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
            rotation *= np.sign(np.linalg.det(rotation))  # no mirror images
            turned = (part - part.mean(0)) @ rotation
            way = rng.normal(size=3)
            way /= np.linalg.norm(way)
            for far in np.arange(1.5, 30.0, 0.1):
                gaps = np.linalg.norm(turned[:, None] + far * way - placed[None], axis=2)
                if gaps.min() >= CONTACT_A:
                    break
            if far < nearest:
                best, nearest = turned + far * way, far
        assert best is not None
        placed = np.concatenate([placed, best])
    return placed


def stretch_any_bond(frame: Frame, rng: np.random.Generator) -> Frame:
    """Scales one bond, with all that hangs on its lighter side; in a ring one atom moves."""
    out = bare(frame, f"a bond x {STRETCH_LOW:g}-{STRETCH_HIGH:g}")
    pairs, _ = bonds(*frame.model_input)
    if len(pairs) == 0:
        return out
    k = int(rng.integers(len(pairs)))
    a, b = (int(i) for i in pairs[k])
    x = out.positions
    of = molecules(len(x), np.delete(pairs, k, axis=0))
    moving = np.arange(len(x)) == b
    if of[a] != of[b]:
        if (of == of[a]).sum() < (of == of[b]).sum():
            a, b = b, a
        moving = of == of[b]
    x[moving] += (x[b] - x[a]) * (rng.uniform(STRETCH_LOW, STRETCH_HIGH) - 1.0)
    return out


def move_molecules(frame: Frame, factor: float) -> Frame:
    """Scales the distances between the centres of molecules, which stay rigid."""
    out = bare(frame, f"molecules x {factor:g}")
    pairs, _ = bonds(*frame.model_input)
    x, of = out.positions, molecules(len(frame.numbers), pairs)
    middle = x.mean(0)
    for one in np.unique(of):
        x[of == one] += (factor - 1.0) * (x[of == one].mean(0) - middle)
    return out


# ---------------------------------------------------------------------- labels


def label(model: ForceModel, frame: Frame) -> Frame | None:
    """A frame with the teacher's labels; None where it fails a check."""
    try:
        result = compute(model, frame)
    except ModelFault:
        return None
    forces = result.forces_eV_per_A
    if not np.linalg.norm(forces, axis=1).max() <= FORCE_LIMIT_EV_PER_A:
        return None
    if len(neighbour_pairs(frame.positions, frame.cell, frame.pbc, SHORTEST_A, False).i):
        return None
    return replace(
        frame,
        forces=forces,
        energy_eV=result.energy_eV,
        teacher=model.name,
        teacher_identity=model.identity,
    )


def sample(
    model: ForceModel, start: Frame, temperature_K: float, frames: int, rng: np.random.Generator
) -> Iterator[Frame | None]:
    """Labelled frames of Langevin dynamics; ends early after one that fails a check."""
    masses = np.maximum(atomic_masses[start.numbers], HYDROGEN_AMU)
    # from a minimum half of the kinetic energy goes into the potential energy
    velocities = thermal_velocities(masses, 2 * temperature_K, rng)
    md = Langevin(model, start, masses, velocities, rng, STEP_FS)
    for _ in range(EQUILIBRATION_STEPS):
        md.step(temperature_K, EQUILIBRATION_FRICTION_PER_PS)
    for _ in range(frames):
        for _ in range(EVERY_STEPS):
            md.step(temperature_K, FRICTION_PER_PS)
        at = bare(start, f"run {temperature_K:g} K")
        frame = label(model, replace(at, positions=md.positions.copy()))
        yield frame
        if frame is None:
            return


def frames_of(
    molecule: Molecule, model: ForceModel, build: Build, seed: int
) -> tuple[list[Frame], int]:
    """All frames of a molecule, and how many were dropped."""
    rng = np.random.default_rng(seed)
    made: list[Frame | None] = []
    thermal: list[Frame] = []
    for temperature_K, n in zip(TEMPERATURES_K, FRAMES_PER_RUN, strict=True):
        start = build(molecule.smiles, int(rng.integers(2**30)))
        x = relax(model, start, RELAX_BELOW_EV_PER_A, RELAX_STEPS)
        start = replace(start, positions=x)
        made.append(label(model, bare(start, "relaxed")))
        try:
            for frame in sample(model, start, temperature_K, n, rng):
                made.append(frame)
                if frame is not None:
                    thermal.append(frame)
        except ModelFault:
            made.append(None)
    if thermal:
        changed = [rattle(pick(thermal, rng), sigma_A, rng) for sigma_A in RATTLE_A]
        for _ in range(STRETCHED_XH):
            changed.append(stretch_bonds(pick(thermal, rng), STRETCH_LOW, STRETCH_HIGH, 0.3, rng))
        changed += [stretch_any_bond(pick(thermal, rng), rng) for _ in range(STRETCHED_BONDS)]
        if len(molecule.parts) > 1:
            changed += [move_molecules(pick(thermal, rng), factor) for factor in APART]
        made += [label(model, frame) for frame in changed]
    info: dict[str, object] = {"molecule": molecule.name, "kind": molecule.kind}
    good = [replace(frame, info=info) for frame in made if frame is not None]
    return good, len(made) - len(good)


def pick(frames: list[Frame], rng: np.random.Generator) -> Frame:
    """One of them."""
    return frames[int(rng.integers(len(frames)))]


def run(
    model: ForceModel,
    todo: list[Molecule],
    out: Path,
    *,
    seed: int = 1,
    rounds: int = 1,
    minutes: float = np.inf,
    build: Build = build,
    report: Callable[[str], None] = print,
) -> None:
    """Labels what is not in the files yet, molecule by molecule."""
    begun = time.monotonic()
    options = json.dumps(["organic_labels 1", model.identity, seed])
    mark = hashlib.sha256(options.encode()).hexdigest()
    stores = {name: LabelStore(out / f"{name}.extxyz", mark) for name in ("train", "held_out")}
    for store in stores.values():
        if not store.state:  # from now on what a kill leaves half written is cut off
            store.save({"done": {}}, {})
    done = {name: dict(store.state["done"]) for name, store in stores.items()}
    work = [(k, m) for k in range(rounds) for m in in_random_order(todo, seed)]
    here = 0
    for place, (k, m) in enumerate(work):
        key, name = f"{m.name} {k + 1}", "held_out" if is_held_out(m) else "train"
        if key in done[name]:
            continue
        if time.monotonic() - begun > 60 * minutes:
            report(f"stopped after {minutes:g} minutes; the same command goes on")
            return
        began = time.monotonic()
        try:
            frames, dropped = frames_of(m, model, build, number_of(f"{seed} {key}"))
            note = f"{dropped} dropped" if dropped else ""
        except ModelFault as error:
            frames, note = [], f"skipped: {error}"
        stores[name].append(frames)
        done[name][key] = len(frames)
        stores[name].save({"done": done[name]}, {})
        here += 1
        now = time.monotonic()
        left_min = (now - begun) / here * (len(work) - place - 1) / 60
        report(
            f"{place + 1}/{len(work)} {name} {key}: {len(frames)} frames in {now - began:.1f} s; "
            f"{sum(done['train'].values())} + {sum(done['held_out'].values())} frames, "
            f"left {left_min:.0f} min {note}"
        )
    report("every molecule is labelled")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the label files")
    parser.add_argument("--teacher", default=TEACHER, help="model that labels")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1, help="times each molecule is sampled")
    parser.add_argument("--minutes", type=float, default=np.inf, help="begin nothing after these")
    parser.add_argument("--list", action="store_true", help="print the molecules and end")
    args = parser.parse_args()
    everything = read_list()
    if args.list:
        for m in in_random_order(everything, args.seed):
            print("held_out" if is_held_out(m) else "train", m.kind, m.name, m.smiles, sep="\t")
        return
    from dmts_ipi.models.load import load_model

    run(
        load_model(args.teacher),
        everything,
        args.out,
        seed=args.seed,
        rounds=args.rounds,
        minutes=args.minutes,
        report=lambda line: print(line, flush=True),
    )


if __name__ == "__main__":
    main()
