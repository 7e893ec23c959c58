"""A loss and its gradient as a picture, on its own or for a page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from torch import Tensor

from aptt.report.drawing import SERIES, png, svg, svg_alone
from aptt.report.probing import Curve, Probe, probe_of, trace

__all__ = ["Plot", "plot"]

_SIZE = (7.2, 2.9)
_FORMATS = (".svg", ".png")


@dataclass(frozen=True)
class Plot:
    """Curves by name: value on the left, gradient on the right."""

    curves: Mapping[str, Curve]

    def svg(self, size: tuple[float, float] = _SIZE) -> str:
        """An SVG element that takes its colours from the page around it."""
        return svg(self.panels(), size)

    def save(self, path: Path | str) -> None:
        """Write a file, SVG or PNG by its suffix."""
        path = Path(path)
        if path.suffix not in _FORMATS:
            raise ValueError(f"path: got {path.name!r}, wanted a name with {' or '.join(_FORMATS)}")
        made = svg_alone if path.suffix == ".svg" else png
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(made(self.panels(), _SIZE))

    def panels(self) -> list[Callable[[Axes], None]]:
        """What draws the value, and what draws the gradient, on axes of one's own."""
        return [self._panel("loss", "values"), self._panel("gradient", "slopes")]

    def _panel(self, title: str, which: str) -> Callable[[Axes], None]:
        def draw(axes: Axes) -> None:
            for index, (name, curve) in enumerate(self.curves.items()):
                colour = f"C{index % SERIES}"
                axes.plot(curve.at, getattr(curve, which), color=colour, label=name)
            (across, *_) = [curve.across for curve in self.curves.values()]
            axes.set(xlabel=across, title=title)
            axes.margins(x=0)
            axes.grid(axis="y")
            if len(self.curves) > 1 and which == "values":
                axes.legend(frameon=False, fontsize=8)

        return draw


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
        vary: one option with its values: a curve for each.
        against: other losses, along the same variable.
        probe: another variable.
        options: passed to ``loss``.

    Returns:
        A plot: ``.save("focal.png")``, or ``.svg()`` for a page.

    Raises:
        ValueError: a loss for which no variable is known, or more than one option to vary.

    Example:
        >>> from aptt.loss import focal_loss
        >>> sorted(plot(focal_loss, vary={"gamma": [0, 2]}).curves)
        ['gamma=0', 'gamma=2']
    """
    probe = probe or probe_of(loss)
    vary = vary or {}
    if len(vary) > 1:
        raise ValueError(f"vary: got {', '.join(vary)}, wanted one option")
    name = getattr(loss, "__name__", type(loss).__name__)
    curves = {
        f"{option}={value}": trace(loss, probe, **{**options, option: value})
        for option, values in vary.items()
        for value in values
    } or {name: trace(loss, probe, **options)}
    for other in [against] if callable(against) else against:
        curves[getattr(other, "__name__", type(other).__name__)] = _beside(other, probe)
    return Plot(curves)


def _beside(other: Callable[..., Tensor], probe: Probe | None) -> Curve:
    """Another loss along the same variable, whatever form its inputs have."""
    own = probe_of(other)
    if probe is not None and (own is None or own.across != probe.across):
        own = probe
    return trace(other, own)
