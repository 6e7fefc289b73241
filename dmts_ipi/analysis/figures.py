"""Style of the figures and their way into the page: inline SVG in the page's own colours."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .measure import Measured

COLOURS = ("#e8590c", "#1c7ed6", "#2f9e44", "#9c36b5", "#c2255c", "#0c8599")
REFERENCE_COLOUR = "#868e96"
INK = "#010203"  # becomes currentColor
WIDTH_IN, HEIGHT_IN = 5.2, 3.4
LEGEND_CHARACTERS = 66  # that fit beside each other into the width of a figure
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10.5,
    "axes.labelsize": 10.5,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


@dataclass(frozen=True)
class Plot:
    """A figure for the page: title, one line that says what to see, inline SVG."""

    key: str
    title: str
    caption: str
    svg: str


@dataclass(frozen=True)
class Palette:
    """Colour of each run by name; ``reference`` is the name of the grey one, if there is one."""

    colours: Mapping[str, str]
    reference: str | None

    def of(self, m: Measured) -> str:
        """The colour of a run."""
        return self.colours[m.run.name]

    def is_reference(self, m: Measured) -> bool:
        """Whether it is the reference."""
        return m.run.name == self.reference

    def find_reference(self, measured: Iterable[Measured]) -> Measured | None:
        """The reference among these runs."""
        return next((m for m in measured if self.is_reference(m)), None)

    def reference_first(self, measured: Iterable[Measured]) -> list[Measured]:
        """The reference first, so that the others are drawn on top of it."""
        return sorted(measured, key=lambda m: not self.is_reference(m))


def palette_of(measured: Sequence[Measured], reference: Measured | None) -> Palette:
    """A colour for each run; the reference is grey."""
    free = iter(COLOURS * (len(measured) // len(COLOURS) + 1))
    colours = {m.run.name: REFERENCE_COLOUR if m is reference else next(free) for m in measured}
    return Palette(colours, reference.run.name if reference is not None else None)


def new_figure(height: float = HEIGHT_IN) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_IN, height), layout="constrained")
    axes = figure.subplots()
    return figure, axes


def legend_above(axes: Axes, entries: int, lift: float = 0.0) -> None:
    """A legend above the axes, where it hides no data; nothing without a labelled line.

    ``lift``: how much higher, in heights of the axes, where there are tick labels at the top.
    """
    labels = axes.get_legend_handles_labels()[1]
    if not labels:
        return
    longest = max(len(text) for text in labels)
    fit = max(1, LEGEND_CHARACTERS // (longest + 6))
    axes.legend(
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0 + lift),
        ncols=min(entries, fit, 3),
        handlelength=1.2,
        columnspacing=1.2,
    )


def mark_left_out(axes: Axes, until: float) -> None:
    """A grey band from zero to ``until`` on the x axis: equilibration."""
    if until > 0:
        axes.axvspan(0, until, color=INK, alpha=0.06, linewidth=0)


def to_svg(figure: Figure, key: str, alt: str) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Type": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"\s*xmlns(:\w+)?=\"[^\"]*\"", "", text)
    # Ids must be unique within the page.
    text = re.sub(r'\bid="', f'id="{key}-', text)
    text = text.replace("url(#", f"url(#{key}-").replace('xlink:href="#', f'href="#{key}-')
    text = text.replace(INK, "currentColor")
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    head = re.match(r"<svg[^>]*>", text)
    assert head is not None
    box = re.search(r'viewBox="([^"]*)"', head.group(0))
    assert box is not None
    return (
        f'<svg viewBox="{box.group(1)}" role="img" aria-label="{escape(alt)}">'
        + text[head.end() :].strip()
    )


def two_panels() -> tuple[Figure, Axes, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN + 0.5), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    return figure, axes, below
