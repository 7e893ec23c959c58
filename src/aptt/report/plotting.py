"""A loss and its gradient as a picture, on its own or for a page."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from torch import Tensor

from aptt.report.drawing import SERIES, png, settle, svg, svg_alone
from aptt.report.probing import Curve, probe_of, trace
from aptt.report.variables import Probe

__all__ = ["Plot", "plot"]

_SIZE = (7.2, 2.9)
_FORMATS = (".svg", ".png")
_DASHES: Sequence[Any] = ("solid", (0, (6, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
_MOST = SERIES * len(_DASHES)
_SAME = 1e-3  # curves closer than this share of their range lie on each other


@dataclass(frozen=True)
class Plot:
    """Curves by name: value on the left, gradient on the right."""

    curves: Mapping[str, Curve]
    title: str = ""

    def svg(self, size: tuple[float, float] = _SIZE) -> str:
        """An SVG element that takes its colours from the page around it."""
        return svg(self.panels(), self._with_key(size), self.title)

    def save(self, path: Path | str) -> None:
        """Write a file, SVG or PNG by its suffix, into a folder that is there."""
        path = Path(path)
        if path.suffix not in _FORMATS:
            raise ValueError(f"path: got {path.name!r}, wanted a name with {' or '.join(_FORMATS)}")
        made = svg_alone if path.suffix == ".svg" else png
        path.write_bytes(made(self.panels(), self._with_key(_SIZE), self.title))

    def panels(self) -> list[Callable[[Axes], None]]:
        """What draws the value, and what draws the gradient, on axes of one's own."""
        return [self._panel("loss", "values"), self._panel("gradient", "slopes")]

    def _with_key(self, size: tuple[float, float]) -> tuple[float, float]:
        """Room below for the key, and above for the title."""
        rows = math.ceil(len(self.curves) / self._columns()) if len(self.curves) > 1 else 0
        return size[0], size[1] + 0.2 * rows + 0.25 * bool(self.title)

    def _columns(self) -> int:
        return max(1, min(len(self.curves), 90 // (8 + max(map(len, self._labels())))))

    def _labels(self) -> list[str]:
        """The names; of one that lies on an earlier one it is said so."""
        firsts = self._firsts()
        return [f"{name} = {first}" if first else name for name, first in firsts.items()]

    def _firsts(self) -> dict[str, str]:
        """For each name the first one with the same curve before it, if there is one."""
        names = list(self.curves)
        return {
            name: next((n for n in names[:i] if _alike(self.curves[n], self.curves[name])), "")
            for i, name in enumerate(names)
        }

    def _panel(self, title: str, which: str) -> Callable[[Axes], None]:
        def draw(axes: Axes) -> None:
            firsts, labels = self._firsts(), self._labels()
            for index, (name, curve) in enumerate(self.curves.items()):
                style: Any = _DASHES[index // SERIES % len(_DASHES)]
                if firsts[name]:  # in turns of colour with those below, so that all are seen
                    group = [n for n, first in firsts.items() if first == firsts[name]]
                    nth = group.index(name) + 1
                    style = (-4 * nth, (4, 4 * len(group)))
                axes.plot(
                    curve.at,
                    getattr(curve, which),
                    color=f"C{index % SERIES}",
                    linestyle=style,
                    label=labels[index],
                )
            (across, *_) = [curve.across for curve in self.curves.values()]
            axes.set(xlabel=across, title=title)
            axes.margins(x=0)
            axes.grid(axis="y")
            settle(axes, [y for c in self.curves.values() for y in getattr(c, which)])
            figure = axes.get_figure(root=True)
            if len(self.curves) > 1 and which == "values" and figure is not None:
                key = axes.get_legend_handles_labels()
                columns = self._columns()
                figure.legend(
                    *key, loc="outside lower center", ncols=columns, frameon=False, fontsize=8
                )

        return draw


def _alike(one: Curve, other: Curve) -> bool:
    """Whether two curves cannot be told apart, in value and gradient."""
    if one.at != other.at:
        return False
    pairs = ((one.values, other.values), (one.slopes, other.slopes))
    return all(
        max(abs(a - b) for a, b in zip(first, second, strict=True))
        <= _SAME * (max(*first, *second) - min(*first, *second))
        for first, second in pairs
    )


def plot(
    loss: Callable[..., Tensor],
    *,
    vary: Mapping[str, Sequence[Any]] | None = None,
    against: Callable[..., Tensor] | Sequence[Callable[..., Tensor]] = (),
    probe: Probe | None = None,
    **options: Any,
) -> Plot:
    """Draw value and gradient of a loss along its natural variable.

    That is the logit of the right answer, the shift of a box, an error, or decibels, by family.

    Args:
        loss: a function, or a module.
        vary: options with their values: a curve for each, or for each combination of several.
        against: other losses, along the same variable.
        probe: another variable.
        options: passed to ``loss``.

    Returns:
        A plot: ``.save("focal.png")``, or ``.svg()`` for a page.

    Raises:
        ValueError: a loss for which no variable is known, or more than 32 curves.

    Example:
        >>> from aptt.loss import focal_loss
        >>> sorted(plot(focal_loss, vary={"gamma": [0, 2]}).curves)
        ['gamma=0', 'gamma=2']
    """
    probe = probe or probe_of(loss)
    name = getattr(loss, "__name__", type(loss).__name__)
    ways = [
        dict(zip(vary or {}, values, strict=True))
        for values in itertools.product(*(vary or {}).values())
    ]
    if len(ways) > _MOST:
        raise ValueError(f"vary: got {len(ways)} curves, wanted at most {_MOST}")
    curves = {
        ", ".join(f"{option}={value}" for option, value in way.items()) or name: trace(
            loss, probe, **{**options, **way}
        )
        for way in ways
    }
    for other in [against] if callable(against) else against:
        curves[getattr(other, "__name__", type(other).__name__)] = _beside(other, probe)
    given = "".join(f", {option}={value}" for option, value in options.items())
    return Plot(curves, f"{name}{given}")


def _beside(other: Callable[..., Tensor], probe: Probe | None) -> Curve:
    """Another loss along the same variable, whatever form its inputs have."""
    own = probe_of(other)
    if probe is not None and (own is None or own.across != probe.across):
        own = probe
    return trace(other, own)
