"""What the explorer shows: curves of each loss on a grid of its options, by the real losses."""

from __future__ import annotations

import inspect
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from aptt.cli.catalogue import Entry
from aptt.cli.curve import curve_of
from aptt.report.probing import trace

__all__ = ["grid", "script"]

_POINTS = 49
_RANGES: Mapping[str, Sequence[float | None]] = {
    "gamma": (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0),
    "alpha": (0.1, 0.25, 0.5, 0.75, 0.9),
    "beta": (0.1, 0.25, 0.5, 0.75, 0.9),
    "label_smoothing": (0.0, 0.05, 0.1, 0.2, 0.3),
    "temperature": (1.0, 2.0, 4.0, 8.0),
    "pos_weight": (0.5, 1.0, 2.0, 5.0),
    "softcap": (None, 5.0, 15.0, 30.0),
    "z_loss": (0.0, 1e-3, 1e-2, 0.1),
    "smooth": (0.0, 1.0, 10.0),
    "width": (1.0, 5.0, 10.0),
    "curvature": (0.5, 2.0, 4.0),
}
"""What a slider goes through, by the name of the option."""
_SLIDERS = 2


def grid(entry: Entry) -> dict[str, Any] | None:
    """One loss: its variable, its sliders, and a curve for each of their places."""
    chosen = curve_of(entry)
    if chosen is None:
        return None
    function, probe = chosen
    parameters = inspect.signature(function).parameters
    options: list[dict[str, Any]] = []
    usual = _curve(function, probe, {})
    for name, values in _RANGES.items():
        if name not in parameters or name in probe.options or len(options) == _SLIDERS:
            continue
        default = parameters[name].default
        shown = list(values) if default in values else sorted([*values, default], key=_order)
        ends = [_curve(function, probe, {name: value}) for value in shown]
        works = [v for v, c in zip(shown, ends, strict=True) if c is not None]
        # an option that changes nothing here, or only with another one, is no slider
        if default in works and len({str(c) for c in ends if c is not None}) > 1:
            options.append({"name": name, "values": works, "usual": works.index(default)})
    if usual is None:
        return None
    names = [option["name"] for option in options]
    curves = [
        _curve(function, probe, dict(zip(names, values, strict=True)))
        for values in itertools.product(*(option["values"] for option in options))
    ]
    at = trace(function, probe, points=_POINTS).at
    return {"across": probe.across, "at": at, "options": options, "curves": curves}


def script(grids: Mapping[str, Any]) -> str:
    """The data as a script, which a page may load from anywhere, a folder too."""
    text = json.dumps(grids, separators=(",", ":"), allow_nan=False)
    return f"window.APTT_EXPLORER={text};\n"


def _order(value: float | None) -> float:
    return -math.inf if value is None else value


def _curve(function: Any, probe: Any, options: dict[str, Any]) -> list[list[float]] | None:
    try:
        curve = trace(function, probe, points=_POINTS, **options)
    except (ValueError, TypeError):
        return None
    both = [[float(f"{v:.6g}") for v in some] for some in (curve.values, curve.slopes)]
    return both if all(math.isfinite(v) for some in both for v in some) else None
