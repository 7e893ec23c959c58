"""What the explorer shows: curves of each loss on a grid of its options, by the real losses."""

from __future__ import annotations

import inspect
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch

from aptt.cli.catalogue import Entry
from aptt.cli.curve import curve_of
from aptt.report.probing import trace

__all__ = ["grid", "script"]

Value = float | str | bool | None

_WORDS: Mapping[str, Sequence[Value]] = {
    "kind": ("mse", "focal", "awing"),
    "mode": ("oks", "log", "cauchy"),
    "divergence": ("forward_kl", "reverse_kl", "jsd"),
    "distance": ("hellinger", "bhattacharyya"),
    "weighting": ("square", "linear", "uniform"),
    "log": (False, True),
    "gate": (False, True),
    "form": ("out", "in"),
    "squared": (False, True),
}
"""What a list offers, by the name of the option."""
_SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)
_PARTS = (0.25, 0.5, 1.0, 2.0, 4.0)
_NUMBERS: Mapping[str, Sequence[Value]] = {
    "gamma": (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0),
    "classification.epsilon": (-1.0, 0.0, 1.0, 2.0),
    "q": (0.1, 0.4, 0.7, 1.0),
    "log_zero": (-9.0, -4.0, -1.0),
    "gamma_negative": (0.0, 1.0, 2.0, 4.0),
    "gamma_positive": (0.0, 1.0, 2.0),
    "classification.margin": (0.0, 0.05, 0.2),
    "alpha": _SHARES,
    "beta": _SHARES,
    "temperature": (1.0, 2.0, 4.0, 8.0),
    "mtp_lambda": (0.0, 0.1, 0.3, 1.0),
    "label_smoothing": (0.0, 0.05, 0.1, 0.2),
    "pos_weight": (0.5, 1.0, 2.0, 5.0),
    "softcap": (None, 5.0, 15.0, 30.0),
    "z_loss": (0.0, 1e-3, 1e-2, 0.1),
    "scale": (0.5, 1.0, 2.0),
    "lambda_old": (0.0, 0.5, 1.0, 2.0, 5.0),
    "power": (1.0, 1.5, 2.0, 3.0, 5.0),
    "smooth": (0.0, 1.0, 10.0),
    "width": (1.0, 2.0, 5.0, 10.0),
    "omega": (5.0, 14.0, 30.0),
    "epsilon": (0.5, 1.0, 2.0, 5.0),
    "theta": (0.25, 0.5, 0.75),
    "area_scale": (0.25, 0.53, 1.0, 2.0, 4.0),
    "cap": (10.0, 20.0, 30.0, 60.0, 100.0),
    "class_gain": (0.0, 0.5, 1.0, 2.0),
    "box_gain": (0.0, 2.5, 5.0, 7.5, 10.0),
    "hm_weight": (0.0, 0.5, 1.0, 2.0),
    "dice_weight": (0.0, 0.5, 1.0, 2.0),
    "ce_weight": (0.0, 0.5, 1.0, 2.0),
    "focal_weight": (0.0, 0.5, 1.0, 2.0),
    "log_weight": (0.0, 0.5, 1.0, 2.0),
    "convergence_weight": (0.0, 0.5, 1.0, 2.0),
    "floor": (1e-5, 1e-3, 1e-1),
    "focal.alpha": (*_SHARES, 1.0),
    "heat.alpha": (1.0, 2.0, 4.0),
    "heat.beta": (2.0, 4.0, 8.0),
    "centernet.alpha": (1.0, 2.0, 4.0),
    "centernet.beta": (2.0, 4.0, 8.0),
    "keypoint.alpha": (2.1, 3.0, 4.0),
    "varifocal.beta": (0.0, 1.0, 2.0, 4.0),
    "contrastive.scale": (1.0, 5.0, 10.0, 20.0, 50.0),
    "contrastive.margin": (0.1, 0.3, 1.0),
    "mel.power": (),  # slow losses, of which not every option is shown
    "mel.convergence_weight": (),
    "mel.pre_emphasis": (),
    "ssim.k1": (),
    "ssim.k2": (),
    "ssim.sigma": (0.5, 1.5, 3.0),
}
"""What a slider goes through, by the name of the option, or of its file and the option."""
_MOST = 64  # curves of one loss


def grid(entry: Entry, points: int) -> dict[str, Any] | None:
    """One loss: its variable, its options, and a curve for each of their combinations."""
    chosen = curve_of(entry)
    if chosen is None:
        return None
    function, probe = chosen
    parameters = inspect.signature(function).parameters

    @cache
    def changed(given: frozenset[tuple[str, Value]]) -> list[list[float]] | None:
        return _curve(function, probe, points, dict(given))

    def curve(*given: tuple[str, Value]) -> list[list[float]] | None:
        return changed(frozenset((n, v) for n, v in given if v != parameters[n].default))

    if curve() is None:
        return None
    options: list[dict[str, Any]] = []
    words: list[tuple[tuple[str, Value], ...]] = [()]  # every choice of words so far
    for name, default, values in _options(entry, function, probe):
        shown = list(values) if default in values else sorted([*values, default], key=_order)
        works = [v for v in shown if any(curve(*way, (name, v)) for way in words)]
        open = default in (None, "auto")
        same = [v for v in works if open and v != default and v and curve((name, v)) == curve()]
        if same:  # what the default stands for here
            works, default = [v for v in works if v != default], same[0]
        # an option that changes nothing here is none to move
        bends = any(len({str(curve(*way, (name, v))) for v in works}) > 1 for way in words)
        many = math.prod(len(option["values"]) for option in options) * len(works)
        if default not in works or not bends or many > _MOST:
            continue
        options.append({"name": name, "values": works, "usual": works.index(default)})
        if name in _WORDS:
            words = [(*way, (name, value)) for way in words for value in works]
    names = [option["name"] for option in options]
    curves = [
        curve(*zip(names, values, strict=True))
        for values in itertools.product(*(option["values"] for option in options))
    ]
    at = trace(function, probe, points=points).at
    return {"across": probe.across, "at": at, "options": options, "curves": curves}


def _options(entry: Entry, function: Any, probe: Any) -> list[tuple[str, Any, Sequence[Value]]]:
    """Every option that a slider may move, its default and what it goes through.

    Those of the tables, in their order; then any other number, in parts and multiples of its
    default.
    """
    parameters = inspect.signature(function).parameters
    given = {*probe.options, *probe.inputs(torch.zeros((), dtype=torch.float64))}
    named = dict.fromkeys(key.rpartition(".")[2] for key in (*_WORDS, *_NUMBERS))
    others = [name for name, p in parameters.items() if isinstance(p.default, float)]
    found = []
    for name in dict.fromkeys((*named, *others)):
        if name in parameters and name not in given:
            default = parameters[name].default
            values = _WORDS.get(name) or _NUMBERS.get(f"{entry.room}.{name}", _NUMBERS.get(name))
            if values is None:
                values = [default * part for part in _PARTS] if default else _SHARES
            found.append((name, default, values))
    return found


def script(grids: Mapping[str, Any]) -> str:
    """The data as a script, which a page may load from anywhere, a folder too."""
    text = json.dumps(grids, separators=(",", ":"), allow_nan=False)
    return f"window.APTT_EXPLORER={text};\n"


def _order(value: Any) -> float:
    return value if isinstance(value, int | float) else -math.inf


def _curve(
    function: Any, probe: Any, points: int, options: dict[str, Any]
) -> list[list[float]] | None:
    try:
        curve = trace(function, probe, points=points, **options)
    except (ValueError, TypeError, RuntimeError):
        return None
    both = [[float(f"{v:.6g}") for v in some] for some in (curve.values, curve.slopes)]
    return both if all(math.isfinite(v) for some in both for v in some) else None
