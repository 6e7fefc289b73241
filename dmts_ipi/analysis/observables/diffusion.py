"""Mean-square displacement and diffusion coefficients (``analysis.transport``)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dmts_ipi.analysis.comparison import Comparison, ratio
from dmts_ipi.analysis.figures import INK, Palette, Plot, new_figure, to_svg
from dmts_ipi.analysis.formatting import estimate_text
from dmts_ipi.analysis.measure import Measured
from dmts_ipi.analysis.run_data import RunInput
from dmts_ipi.analysis.stream import Chunk
from dmts_ipi.analysis.transport import (
    SHORTEST_PS,
    WINDOW_FRACTION,
    Diffusion,
    Displacements,
    relaxation_ps,
)
from dmts_ipi.analysis.verdict import SHORT, Agreement

from .base import Observable, Sampler, Table, curve

TOLERANCE_PERCENT = 10.0
MOST_KINDS_DRAWN = 3


class _DisplacementFrames:
    """Makes ``Displacements`` when the time between frames is known."""

    in_background = False

    def __init__(self, run: RunInput) -> None:
        self.run = run
        self.displacements: Displacements | None = None

    def add(self, chunk: Chunk) -> None:
        run = self.run
        if run.n_beads > 1:
            return
        if self.displacements is None and chunk.frame_ps > 0:
            self.displacements = Displacements(
                *(run.numbers, run.masses_amu, run.positions, run.cell, run.pbc),
                *(chunk.frame_ps, chunk.expected, ~run.moving),
            )
        if self.displacements is not None:
            self.displacements.add(chunk.positions, chunk.follows)


@dataclass
class Displaced:
    """``kinds``: one for each kind of molecule that moves; empty where there is no coefficient."""

    kinds: list[Diffusion] = field(default_factory=list)


class DiffusionCoefficients(Observable[Displaced]):
    """Of molecules' centres of mass, or of the atoms of crystals, in periodic systems."""

    name = "diffusion"
    page_order = 50

    def sampler(self, run: RunInput) -> _DisplacementFrames:
        """Of evenly spaced frames."""
        return _DisplacementFrames(run)

    def measure(self, m: Measured, sampler: Sampler | None) -> Displaced | None:
        """Diffusion coefficients; sets ``m.relaxation_ps``."""
        assert isinstance(sampler, _DisplacementFrames)
        d, run = sampler.displacements, m.run
        if d is None or not np.all(run.pbc):
            return None
        d.flush()
        if d.jumps:
            m.notes.append(
                "positions jump from frame to frame (wrapped into the cell?): no diffusion"
            )
            if not d.possible:
                m.relaxation_ps = math.inf
            return None
        if not d.possible:
            m.relaxation_ps = math.inf
            need = SHORTEST_PS / WINDOW_FRACTION
            m.notes.append(f"no diffusion coefficient: that takes frames over at least {need:g} ps")
            return None
        kinds = d.results(run.temperature_K)
        m.relaxation_ps = relaxation_ps(kinds)
        for x in kinds:
            if x.caged:
                m.notes.append(
                    f"{x.kind} does not diffuse within this run (its mean-square displacement "
                    f"stays at {x.msd_A2[-1]:.2g} Å²): no diffusion coefficient"
                )
            elif not x.diffusive:
                m.notes.append(
                    f"{x.kind} is not diffusive yet (MSD ~ t^{x.exponent:.2f}): D is too large or "
                    "too small"
                )
        return Displaced(kinds)

    def against_reference(self, m: Measured, reference: Measured) -> list[Comparison]:
        """Each kind of molecule that both have."""
        comparisons = []
        for mine in self.of(m).kinds:
            for its in self.of(reference).kinds:
                if its.kind == mine.kind and not (mine.caged and its.caged):
                    comparisons += ratio(
                        m,
                        reference,
                        f"diffusion of {mine.kind}",
                        mine.D_A2_per_ps,
                        its.D_A2_per_ps,
                        TOLERANCE_PERCENT,
                        "Å²/ps",
                        _not_diffusive((m, mine), (reference, its)),
                    )
        return comparisons

    def plots(self, measured: Sequence[Measured], palette: Palette) -> list[Plot]:
        """Mean-square displacements with the range of the fit."""
        shown = [(m, x.kinds) for m, x in self.shown(palette.reference_first(measured)) if x.kinds]
        if not shown:
            return []
        figure, axes = new_figure()
        several = len({d.kind for _, kinds in shown for d in kinds}) > 1
        for m, kinds in shown:
            for k, d in enumerate(kinds[:MOST_KINDS_DRAWN]):
                axes.plot(
                    d.lag_ps,
                    d.msd_A2,
                    color=palette.of(m),
                    linestyle=("-", "--", ":")[k],
                    label=f"{m.run.label}{' ' + d.kind if several else ''}",
                )
        low, high = shown[0][1][0].fit_ps
        caged = all(d.caged for _, kinds in shown for d in kinds)
        if not caged:
            axes.axvspan(low, high, color=INK, alpha=0.06, lw=0)
        axes.set_xlim(0, max(float(kinds[0].lag_ps[-1]) for _, kinds in shown))
        axes.set_ylim(0, None)
        axes.set_xlabel("time, ps")
        axes.set_ylabel("mean-square displacement, Å²")
        axes.legend(loc="lower right", handlelength=1.4)
        single = all(d.single for _, kinds in shown for d in kinds)
        what = "Of atoms" if single else "Of molecules' centres of mass"
        fit = (
            "It stays level: nothing diffuses."
            if caged
            else "D is a sixth of the slope in the grey range. A strong thermostat slows it."
        )
        return [
            Plot(
                "msd",
                "Mean-square displacement",
                f"{what}, about that of the system, over all time origins. {fit}",
                to_svg(figure, "msd", "Mean-square displacement over time"),
            )
        ]

    def record(self, m: Measured, arrays: bool) -> dict[str, Any]:
        """Coefficients, and the displacements where arrays are wanted."""
        result = self.get(m)
        kinds = result.kinds if result is not None else []
        record: dict[str, Any] = {
            "relaxation_ps": m.relaxation_ps,
            "diffusion": [
                {
                    "kind": d.kind,
                    "molecules": d.molecules,
                    "D_A2_per_ps": d.D_A2_per_ps.mean,
                    "stderr_A2_per_ps": d.D_A2_per_ps.stderr,
                    "fit_ps": d.fit_ps,
                    "exponent": d.exponent,
                    "finite_size_correction_at_1_mPa_s_A2_per_ps": d.correction_A2_per_ps,
                }
                for d in kinds
            ],
        }
        if arrays:
            record["displacements"] = {
                d.kind: {"lag_ps": d.lag_ps, "msd_A2": d.msd_A2} for d in kinds
            }
        return record

    def tables(self, measured: Sequence[Measured]) -> Iterable[Table]:
        """Coefficients, and the displacements of each run."""
        shown = self.shown(measured)
        head = [
            "run", "kind", "D_A2_per_ps", "stderr_A2_per_ps", "exponent",
            "finite_size_correction_at_1_mPa_s_A2_per_ps",
        ]  # fmt: skip
        yield "diffusion", head, [
            [m.run.name, d.kind, d.D_A2_per_ps.mean, d.D_A2_per_ps.stderr, d.exponent,
             d.correction_A2_per_ps]
            for m, x in shown
            for d in x.kinds
        ]  # fmt: skip
        for m, x in shown:
            for d in x.kinds:
                columns = {"lag_ps": d.lag_ps, "msd_A2": d.msd_A2}
                yield curve(f"{m.run.file_name}-msd-{d.kind}", columns)

    def terminal(self, m: Measured, reference: Measured | None) -> list[str]:
        """The coefficients of what diffuses."""
        return [
            f"D({d.kind}) {estimate_text(d.D_A2_per_ps, 'Å²/ps')}"
            for d in self.of(m).kinds
            if not d.caged
        ]


def _not_diffusive(*pairs: tuple[Measured, Diffusion]) -> Agreement | None:
    """Too short, where a slope is still that of molecules in their cages; else None."""
    for m, d in pairs:
        if not d.diffusive:
            text = f"{d.kind} is not diffusive yet in {m.run.name} (MSD ~ t^{d.exponent:.2f})"
            return Agreement(SHORT, text)
    return None


DIFFUSION = DiffusionCoefficients()
