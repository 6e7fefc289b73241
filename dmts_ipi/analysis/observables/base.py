"""The contract of an observable.

One object does everything for its observable: it collects from the frames (``sampler``),
estimates with an error (``measure``), compares with theory and with the reference run, draws, and
writes JSON, CSV, a column of the page's table, a card, a part of the terminal's line. Measuring,
comparing, drawing and writing loop over the registry, so a new observable is one object in one
file.

Only ``measure`` must be written; everything else defaults to nothing. ``FrameAverage`` writes all
of it for a number per frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np

from dmts_ipi.analysis.comparison import Comparison, against_value, difference
from dmts_ipi.analysis.figures import INK, Palette, Plot, legend_above, new_figure, to_svg
from dmts_ipi.analysis.formatting import Card, estimate_text
from dmts_ipi.analysis.stream import Chunk
from dmts_ipi.core.statistics import Estimate, mean_stderr

if TYPE_CHECKING:
    from dmts_ipi.analysis.measure import Measured
    from dmts_ipi.analysis.run_data import RunInput

Table = tuple[str, list[str], list[list[object]]]
"""Name of the CSV file without ``.csv``, names of its columns with units, rows."""
FEWEST_DRAWN = 10
MOST_BINS = 40


class Sampler(Protocol):
    """Collects from the frames of one run.

    ``in_background``: called on a second thread, while the next frames are read.
    """

    in_background: bool

    def add(self, chunk: Chunk) -> None:
        """Takes consecutive frames."""
        ...


@dataclass(frozen=True)
class Column:
    """A column of the page's table of runs: its title, and a text for each run by name.

    ``footnote``: a sentence below the table.
    """

    title: str
    cells: dict[str, str]
    footnote: str = ""


Result = TypeVar("Result")


class Observable(Generic[Result]):
    """One observable; ``Result`` is what it keeps of a run.

    ``name`` is that of its row in the registry, and the key of its result. ``page_order``: where
    it stands among figures, columns and cards; ours are 10 (speed) to 100.

    Methods that compare, and ``series``, ``cards`` and ``terminal``, are called only for runs that
    have a result; ``record`` for every run; those that take several runs use ``shown``.
    """

    name: str = ""
    page_order: int = 200

    def sampler(self, run: RunInput) -> Sampler | None:
        """Collects from frames after equilibration; None: frames are not needed."""
        return None

    def measure(self, m: Measured, sampler: Sampler | None) -> Result | None:
        """The result of a run, when all its frames have been seen; None: there is none.

        Observables before this one in the registry have theirs in ``m``. What the reader must know
        (why there is none, say) is appended to ``m.notes``.

        Raises:
            InputError: the output of the run is unusable.
        """
        raise NotImplementedError

    def of(self, m: Measured) -> Result:
        """The result of a run.

        Raises:
            KeyError: it has none.
        """
        result: Result = m.results[self.name]
        return result

    def get(self, m: Measured | None) -> Result | None:
        """The result of a run, or None."""
        return None if m is None else m.results.get(self.name)

    def shown(self, measured: Iterable[Measured]) -> list[tuple[Measured, Result]]:
        """The runs that have a result, with it."""
        return [(m, self.of(m)) for m in measured if self.name in m.results]

    def against_theory(self, m: Measured, reference: Measured | None) -> list[Comparison]:
        """Comparisons with what is known without another run."""
        return []

    def against_reference(self, m: Measured, reference: Measured) -> list[Comparison]:
        """Comparisons with the reference run, which has a result too."""
        return []

    def plots(self, measured: Sequence[Measured], palette: Palette) -> list[Plot]:
        """Figures of all runs together; matplotlib is imported here and in ``figures`` only."""
        return []

    def record(self, m: Measured, arrays: bool) -> dict[str, Any]:
        """Keys of the run's record in ``report.json``, the same ones with or without a result.

        ``arrays``: curves are wanted too.
        """
        return {}

    def series(self, m: Measured) -> dict[str, np.ndarray]:
        """Columns (lines,) on ``m.time_ps`` for the CSV and JSON of series, units in the names."""
        return {}

    def tables(self, measured: Sequence[Measured]) -> Iterable[Table]:
        """CSV files."""
        return []

    def columns(self, measured: Sequence[Measured], reference: Measured | None) -> list[Column]:
        """Columns of the page's table of runs."""
        return []

    def cards(
        self, m: Measured, reference: Measured | None, comparisons: Sequence[Comparison]
    ) -> list[Card]:
        """Headline cards of the page, of its main run; ``comparisons`` are that run's."""
        return []

    def terminal(self, m: Measured, reference: Measured | None) -> list[str]:
        """Parts of the run's line in the terminal."""
        return []


class FrameAverage(Observable["Averaged"]):
    """An observable that is one number for each frame. A subclass has ``value`` and these:

    ``title``: in tables and figures, such as "radius of gyration". ``unit``: such as "Å".
    ``tolerance``: what a difference of two runs may be, in this unit. ``structural``: whether it
    changes as slowly as the structure of a liquid, and is judged only when that has relaxed.
    """

    title: str = ""
    unit: str = ""
    tolerance: float = 0.0
    structural: bool = True

    def value(self, run: RunInput, positions: np.ndarray, cell: np.ndarray) -> float:
        """The number of a frame: positions (n, 3) A, not wrapped into the cell (3, 3) A, rows."""
        raise NotImplementedError

    def expected(self, m: Measured) -> float | None:
        """What theory says; None: nothing."""
        return None

    def sampler(self, run: RunInput) -> _ValueSampler:
        """One value for each frame."""
        return _ValueSampler(self, run)

    def measure(self, m: Measured, sampler: Sampler | None) -> Averaged | None:
        """Mean and standard error over frames; nothing without a frame."""
        assert isinstance(sampler, _ValueSampler)
        values = np.array(sampler.values)
        if not len(values):
            return None
        return Averaged(np.array(sampler.times_ps), values, mean_stderr(values))

    def against_theory(self, m: Measured, reference: Measured | None) -> list[Comparison]:
        """Against ``expected``."""
        expected = self.expected(m)
        if expected is None:
            return []
        mean = self.of(m).mean
        return [against_value(m, self.title, mean, expected, self.tolerance, self.unit)]

    def against_reference(self, m: Measured, reference: Measured) -> list[Comparison]:
        """The difference of the two means."""
        a, b = self.of(m).mean, self.of(reference).mean
        return [
            difference(
                *(m, reference, self.title, a, b, self.tolerance, self.unit),
                structural=self.structural,
            )
        ]

    def plots(self, measured: Sequence[Measured], palette: Palette) -> list[Plot]:
        """Its distribution in each run."""
        shown = self.shown(palette.reference_first(measured))
        shown = [(m, r) for m, r in shown if len(r.values) >= FEWEST_DRAWN]
        if not shown:
            return []
        figure, axes = new_figure()
        low = min(float(r.values.min()) for _, r in shown)
        high = max(float(r.values.max()) for _, r in shown)
        for m, r in shown:
            bins = int(np.clip(np.sqrt(len(r.values)), 10, MOST_BINS))
            counts, edges = np.histogram(r.values, bins, (low, high + 1e-12), density=True)
            axes.stairs(counts, edges, color=palette.of(m), lw=1.6, label=m.run.label)
            axes.axvline(r.mean.mean, color=palette.of(m), lw=0.9, linestyle=(0, (3, 2)))
        axes.axhline(0, color=INK, alpha=0.25, lw=0.7)
        axes.set_xlabel(f"{self.title}, {self.unit}" if self.unit else self.title)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        legend_above(axes, len(shown))
        title = self.title[:1].upper() + self.title[1:]
        caption = "Distribution over the frames after equilibration; dashed: the mean."
        svg = to_svg(figure, self.name, f"Histogram of the {self.title}")
        return [Plot(self.name, title, caption, svg)]

    def record(self, m: Measured, arrays: bool) -> dict[str, Any]:
        """Mean with error under the observable's name, and the series where arrays are wanted."""
        r = self.get(m)
        if r is None:
            return {self.name: None}
        record: dict[str, Any] = {**estimate_record(r.mean), "unit": self.unit}
        if arrays:
            record |= {"time_ps": r.time_ps, "values": r.values}
        return {self.name: record}

    def tables(self, measured: Sequence[Measured]) -> Iterable[Table]:
        """A table of means, and one of the series of each run."""
        unit = f"_{self.unit}" if self.unit else ""
        shown = self.shown(measured)
        rows: list[list[object]] = [[m.run.name, r.mean.mean, r.mean.stderr] for m, r in shown]
        yield self.name, ["run", f"mean{unit}", f"stderr{unit}"], rows
        for m, r in shown:
            columns = {"time_ps": r.time_ps, f"{self.name}{unit}": r.values}
            yield curve(f"{m.run.file_name}-{self.name}", columns)

    def columns(self, measured: Sequence[Measured], reference: Measured | None) -> list[Column]:
        """The mean of each run."""
        title = self.title[:1].upper() + self.title[1:]
        cells = {m.run.name: estimate_text(r.mean) for m, r in self.shown(measured)}
        return [Column(f"{title}, {self.unit}" if self.unit else title, cells)]

    def terminal(self, m: Measured, reference: Measured | None) -> list[str]:
        """The mean."""
        return [f"{self.title} {estimate_text(self.of(m).mean, self.unit)}"]


@dataclass(frozen=True)
class Averaged:
    """Result of a ``FrameAverage``: ``time_ps`` (f,), ``values`` (f,), and their mean."""

    time_ps: np.ndarray
    values: np.ndarray
    mean: Estimate


class _ValueSampler:
    in_background = False

    def __init__(self, observable: FrameAverage, run: RunInput) -> None:
        self.observable, self.run = observable, run
        self.values: list[float] = []
        self.times_ps: list[float] = []

    def add(self, chunk: Chunk) -> None:
        for x, cell, time in zip(chunk.positions, chunk.cells, chunk.times_ps, strict=True):
            self.values.append(float(self.observable.value(self.run, x, cell)))
            self.times_ps.append(float(time))


def estimate_record(e: Estimate) -> dict[str, Any]:
    """An estimate for JSON."""
    return {"mean": e.mean, "stderr": e.stderr, "inefficiency": e.inefficiency, "n": e.n}


def curve(name: str, columns: dict[str, np.ndarray]) -> Table:
    """A table from its columns."""
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    return name, list(columns), rows
