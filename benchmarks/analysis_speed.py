"""Time and memory of ``dmts-ipi analyze`` for a long trajectory of 216 waters (648 atoms).

Writes frames in i-PI's format, as many as ``--frames``, and extrapolates: the work per frame is
constant but for the pair distributions, which stop at 1000 frames whatever the length.

    python benchmarks/analysis_speed.py --frames 6000
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np

from common import save

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))


def write_bin(path: Path, name: str, atoms, frames: int, values) -> None:
    """i-PI's binary format through i-PI's own writer."""
    from ipi.engine.atoms import Atoms
    from ipi.engine.cell import Cell
    from ipi.utils.io import print_file

    box = Cell(atoms.cell.array.T / 0.529177210903)
    ipi_atoms = Atoms(len(atoms))
    ipi_atoms.names[:] = atoms.get_chemical_symbols()
    with open(path, "wb") as stream:
        for k in range(frames):
            ipi_atoms.q[:] = values(k).ravel()
            print_file(
                "bin", ipi_atoms, box, stream, title=f"Step: {k:11d}  Bead: {0:7d} ", key=name,
                dimension="length" if name == "positions" else "velocity",
                units="atomic_unit", cell_units="angstrom",
            )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=4000, help="a multiple of 1000")
    args = parser.parse_args()
    from analysis_runs import maxwell, water_box
    from dmts_ipi.analysis.measure import measure
    from dmts_ipi.analysis.observables.pair_distribution import MOST_FRAMES
    from dmts_ipi.analysis.run_data import RunInput
    from dmts_ipi.ipi.run_folder.outputs import iter_trajectory

    atoms, rng, n = water_box(6), np.random.default_rng(1), args.frames
    masses = atoms.get_masses()
    walk = rng.normal(size=(50, 216, 3)) * 0.05
    noise = rng.normal(size=(50, len(atoms), 3)) * 0.03
    velocities = [maxwell(masses, 300.0, rng) * 0.0457 for _ in range(50)]
    place = np.zeros((216, 3))

    def positions(k: int) -> np.ndarray:
        place[:] += walk[rng.integers(50)]
        return (atoms.positions + np.repeat(place, 3, axis=0) + noise[k % 50]) / 0.529177210903

    with tempfile.TemporaryDirectory() as folder:
        xs, vs = Path(folder) / "md.positions.bin", Path(folder) / "md.velocities.bin"
        write_bin(xs, "positions", atoms, n, positions)
        write_bin(vs, "velocities", atoms, n, lambda k: velocities[k % 50])

        def run_of(frames: int) -> RunInput:
            def stream():
                pairs = zip(iter_trajectory(xs), iter_trajectory(vs), strict=True)
                for x, v in islice(pairs, frames):
                    yield x.step, x.values, x.cell, v.values

            step = np.arange(frames)
            series = 300 + rng.normal(size=frames)
            properties = {
                "step": step, "time_ps": step * 0.006, "temperature_K": series,
                "potential_eV": series, "conserved_eV": series,
            }  # fmt: skip
            return RunInput(
                Path(folder), "synthetic", "dmts", "nvt", 1.0, 6, 300.0, atoms.numbers, masses,
                atoms.positions, atoms.cell.array, atoms.pbc, properties, stream,
            )  # fmt: skip

        measure(run_of(200), 0.0)  # imports
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        cpu = {}
        for frames in (MOST_FRAMES, n):
            wall, start = time.monotonic(), time.process_time()
            measured = measure(run_of(frames), 0.0)
            cpu[frames], wall = time.process_time() - start, time.monotonic() - wall
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    # Both count the pairs of as many frames; the difference is what each further frame costs.
    each = (cpu[n] - cpu[MOST_FRAMES]) / (n - MOST_FRAMES)
    total = cpu[n] + (100_000 - n) * each
    save(
        "analysis_speed",
        f"{n} frames of 648 atoms, positions and velocities every 6 fs, i-PI's binary format\n"
        f"measured: {wall:.1f} s wall, {cpu[n]:.1f} s of CPU, peak {peak:.0f} MB "
        f"({before:.0f} MB before)\n"
        f"the first {MOST_FRAMES} frames, whose pairs are counted: {cpu[MOST_FRAMES]:.1f} s "
        f"of CPU; each further frame {1e3 * each:.3f} ms\n"
        f"100,000 frames: {total:.0f} s of CPU (extrapolated), on two threads\n"
        f"load of the machine: {os.getloadavg()[0]:.1f}",
    )
    assert {"velocity_spectrum", "diffusion"} <= set(measured.results)


if __name__ == "__main__":
    main()
