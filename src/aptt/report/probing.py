"""Value and gradient of a loss along the one variable that says most about it.

What that variable is, :mod:`aptt.report.variables` says. Needs torch alone.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from aptt.report.variables import TABLE, Probe

__all__ = ["Curve", "probe_of", "sparkline", "trace"]

_TRY: tuple[dict[str, Any], ...] = ({}, {"sample_rate": 16_000}, {"data_range": 1.0})


@dataclass(frozen=True)
class Curve:
    """What came out: at each number the loss, and its derivative by that number."""

    across: str
    at: Sequence[float]
    values: Sequence[float]
    slopes: Sequence[float]


def trace(
    loss: Callable[..., Tensor], probe: Probe | None = None, *, points: int = 0, **options: Any
) -> Curve:
    """Follow a loss along its variable, in float64.

    Args:
        loss: a function, or a module.
        probe: the variable; by default the one of the loss's family.
        points: how many numbers to try; by default as many as the probe says.
        options: passed on.

    Returns:
        The curve.

    Raises:
        ValueError: a loss of no family, without a probe.
    """
    probe = probe or probe_of(loss)
    if probe is None:
        raise ValueError(f"{_name(loss)}: no variable is known for it; give a probe")
    if points:
        probe = replace(probe, points=points)
    given = {} if isinstance(loss, nn.Module) else {**probe.options, **options}
    at, values, slopes = probe.at(), [], []
    for number in at:
        x = torch.tensor(number, dtype=torch.float64, requires_grad=True)
        value = loss(**probe.inputs(x), **given).sum()
        (slope,) = torch.autograd.grad(value, x, allow_unused=True)
        values.append(float(value.detach()))
        slopes.append(0.0 if slope is None else float(slope))
    return Curve(probe.across, at, values, slopes)


def probe_of(loss: Callable[..., Tensor]) -> Probe | None:
    """The variable of the family that a loss belongs to; None if it is of none."""
    asked = loss.forward if isinstance(loss, nn.Module) else loss
    names = tuple(inspect.signature(asked).parameters)
    names_of_file = (getattr(loss, "__module__", "") or "").split(".")
    file = names_of_file[2] if names_of_file[:2] == ["aptt", "loss"] else names_of_file[-1]
    for where, tensors, probe in TABLE:
        if names[: len(tensors)] != tensors or where not in ("*", file):
            continue
        for options in _TRY:
            try:
                low = torch.tensor(probe.low, dtype=torch.float64)
                value = loss(**probe.inputs(low), **options)
            except (ValueError, TypeError, RuntimeError):
                continue
            if value.isfinite().all():
                return replace(probe, options=options)
    return None


def sparkline(values: Sequence[float], bars: str = "▁▂▃▄▅▆▇█") -> str:
    """Values as a line of bars; a number that is not finite is a blank.

    >>> sparkline([0, 1, 2, 4, 8])
    '▁▂▃▅█'
    """
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    step = max(high - low, 0.2 * max(abs(low), abs(high))) or 1.0  # a constant shall look like one
    return "".join(
        bars[round((value - low) / step * (len(bars) - 1))] if math.isfinite(value) else " "
        for value in values
    )


def _name(loss: Any) -> str:
    return getattr(loss, "__name__", type(loss).__name__)
