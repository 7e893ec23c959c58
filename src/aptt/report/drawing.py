"""Draw with matplotlib, and hand over SVG that takes its colours from the page.

A page has a light and a dark form, a drawing is made once. So it is drawn in placeholder colours,
which become the page's own variables, and with real text, which takes the page's font.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler

__all__ = ["DARK", "PALETTE", "SERIES", "curves", "png", "settle", "shares", "svg", "svg_alone"]

SERIES = 8
"""How many colours for series the page defines: ``--series-0`` and so on; ``C0`` in a drawing."""

_LEAST = 0.2
"""The smallest range of a vertical axis, as a share of the largest number on it."""

_INK, _FAINT = "#010101", "#020202"
_SERIES = [f"#0300{index:02x}" for index in range(SERIES)]
_VARIABLES = {_INK: "var(--ink)", _FAINT: "var(--faint)"} | {
    colour: f"var(--series-{index})" for index, colour in enumerate(_SERIES)
}
PALETTE = {
    "ink": "#22262b",
    "faint": "#b9bdc3",
    "series-0": "#2f6fb5",
    "series-1": "#d9772b",
    "series-2": "#3d9467",
    "series-3": "#c2405a",
    "series-4": "#8566b8",
    "series-5": "#8a6b4f",
    "series-6": "#c75a9d",
    "series-7": "#4a9aa8",
}
"""The colours of a light page, for a picture on its own."""

DARK = {
    "ink": "#e4e6e9",
    "faint": "#4d535b",
    "series-0": "#6ea8e6",
    "series-1": "#f0a05a",
    "series-2": "#62c091",
    "series-3": "#ef7088",
    "series-4": "#b096e0",
    "series-5": "#bf9c7c",
    "series-6": "#ea8cc4",
    "series-7": "#70c4d2",
}
"""The same of a dark page."""

_STYLE: Any = {  # not a dict of str: newer releases of matplotlib name every key
    "svg.fonttype": "none",
    "svg.hashsalt": "aptt",
    "image.interpolation": "none",
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.05,
    "figure.constrained_layout.w_pad": 0.07,
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


Draw = Callable[[Axes], None]


def svg(
    draw: Draw | Sequence[Draw], size: tuple[float, float], title: str = "", *, rows: int = 1
) -> str:
    """Draw on new axes, side by side if several, and return an SVG element to put into a page.

    With ``rows``, what is side by side is broken into so many of them.
    """
    text = _drawn(draw, size, "svg", {}, title, rows).decode()
    text = text[text.index("<svg") :]
    return _PLACE.sub(lambda colour: _VARIABLES[colour[0]], text)


def svg_alone(draw: Draw | Sequence[Draw], size: tuple[float, float], title: str = "") -> bytes:
    """The same as a file of its own, in the colours of a light page."""
    text = _drawn(draw, size, "svg", {"figure.facecolor": "white"}, title).decode()
    return _PLACE.sub(lambda colour: _alone(colour[0]), text).encode()


def png(draw: Draw | Sequence[Draw], size: tuple[float, float], title: str = "") -> bytes:
    """The same in pixels."""
    style: Any = {name: _alone(value) for name, value in _STYLE.items() if value in (_INK, _FAINT)}
    series = [_alone(colour) for colour in _SERIES]
    style |= {"axes.prop_cycle": cycler(color=series), "figure.facecolor": "white"}
    return _drawn(draw, size, "png", style, title)


def _drawn(
    draw: Draw | Sequence[Draw],
    size: tuple[float, float],
    form: str,
    style: Any,
    title: str,
    rows: int = 1,
) -> bytes:
    draws = [draw] if callable(draw) else list(draw)
    with rc_context({**_STYLE, **style}):
        figure = Figure(figsize=size)
        for index, each in enumerate(draws, 1):
            each(figure.add_subplot(rows, len(draws) // rows, index))
        if title:
            figure.suptitle(title, fontsize=11)
        buffer = io.BytesIO()
        metadata = {"Date": None} if form == "svg" else None
        figure.savefig(buffer, format=form, metadata=metadata, dpi=160)
    return buffer.getvalue()


def _alone(colour: str) -> str:
    return PALETTE[_VARIABLES[colour].removeprefix("var(--").removesuffix(")")]


_PLACE = re.compile("#0[1-3]0[0-9a-f]{3}")


def curves(
    lines: Mapping[str, Sequence[tuple[Sequence[float], Sequence[float]]]],
    *,
    across: str,
    first: int = 0,
) -> Callable[[Axes], None]:
    """Lines by name, in the order of the series' colours; those of one name share a colour.

    The scale is logarithmic where values are positive and span more than a factor of 50. What is
    not finite is left out. ``first`` is the colour of the first name.
    """
    values = [y for several in lines.values() for _, ys in several for y in ys if math.isfinite(y)]
    log = bool(values) and min(values) > 0 and max(values) / min(values) > 50

    def draw(axes: Axes) -> None:
        for index, (name, several) in enumerate(lines.items(), first):
            for nth, (xs, ys) in enumerate(several):
                label = None if nth else name
                axes.plot(xs, ys, color=f"C{index % SERIES}", alpha=0.85, label=label)
        axes.set(xlabel=across, yscale="log" if log else "linear")
        axes.grid(axis="y")
        if not log:
            settle(axes, values)
        if len(lines) > 1:
            axes.legend(frameon=False)

    return draw


def settle(axes: Axes, values: Sequence[float]) -> None:
    """Plain numbers on the vertical axis, and a range in which a constant looks like one."""
    axes.ticklabel_format(axis="y", style="plain", useOffset=False)
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    least = _LEAST * max(abs(low), abs(high))
    if high - low < least:
        middle = (low + high) / 2
        axes.set_ylim(middle - least / 2, middle + least / 2)


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
