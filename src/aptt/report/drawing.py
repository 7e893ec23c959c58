"""Draw with matplotlib, and hand over SVG that takes its colours from the page.

A page has a light and a dark form, a drawing is made once. So it is drawn in placeholder colours,
which become the page's own variables, and with real text, which takes the page's font.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler

__all__ = ["SERIES", "curves", "shares", "svg"]

SERIES = 8
"""How many colours for series the page defines: ``--series-0`` and so on; ``C0`` in a drawing."""

_INK, _FAINT = "#010101", "#020202"
_SERIES = [f"#0300{index:02x}" for index in range(SERIES)]
_VARIABLES = {_INK: "var(--ink)", _FAINT: "var(--faint)"} | {
    colour: f"var(--series-{index})" for index, colour in enumerate(_SERIES)
}
_STYLE: Any = {  # not a dict of str: newer releases of matplotlib name every key
    "svg.fonttype": "none",
    "svg.hashsalt": "aptt",
    "image.interpolation": "none",
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.02,
    "figure.constrained_layout.w_pad": 0.02,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.prop_cycle": cycler(color=_SERIES),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.labelsize": 9,
    "font.size": 9,
    "text.color": _INK,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "grid.color": _FAINT,
    "grid.linewidth": 0.4,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}


def svg(draw: Callable[[Axes], None], size: tuple[float, float]) -> str:
    """Draw on new axes of ``size`` inches, and return an SVG element to put into a page."""
    with rc_context(_STYLE):
        figure = Figure(figsize=size)
        draw(figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    return re.sub("#0[1-3]0[0-9a-f]{3}", lambda colour: _VARIABLES[colour[0]], text)


def curves(
    lines: Mapping[str, Sequence[tuple[Sequence[float], Sequence[float]]]], *, across: str
) -> Callable[[Axes], None]:
    """Lines by name, in the order of the series' colours; those of one name share a colour.

    The scale is logarithmic where values are positive and span more than a factor of 50.
    """
    values = [y for several in lines.values() for _, ys in several for y in ys]
    log = min(values) > 0 and max(values) / min(values) > 50

    def draw(axes: Axes) -> None:
        for index, (name, several) in enumerate(lines.items()):
            for nth, (xs, ys) in enumerate(several):
                label = None if nth else name
                axes.plot(xs, ys, color=f"C{index % SERIES}", alpha=0.85, label=label)
        axes.set(xlabel=across, yscale="log" if log else "linear")
        axes.grid(axis="y")
        axes.legend(frameon=False)

    return draw


def shares(
    lines: Mapping[str, Sequence[tuple[float, float]]], *, across: str
) -> Callable[[Axes], None]:
    """Parts of a whole over time, stacked up to 1; each name has points at the same places."""
    xs = [x for x, _ in next(iter(lines.values()))]
    heights = [[y for _, y in points] for points in lines.values()]

    def draw(axes: Axes) -> None:
        colours = [f"C{index % SERIES}" for index in range(len(heights))]
        axes.stackplot(xs, heights, labels=list(lines), colors=colours, alpha=0.85)
        axes.set(xlabel=across, ylim=(0, 1), xlim=(min(xs), max(xs)))
        axes.legend(frameon=False)

    return draw
