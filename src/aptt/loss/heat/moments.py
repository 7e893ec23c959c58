"""Where the softmax of a map lies, and how wide it is: what :func:`dsnt_loss` is made of.

    p      = softmax(x / temperature)          over the cells of a map
    mu     = sum p c                           c: the column, or the row, of each cell
    var    = sum p (c - mu)**2

All are formed beside the highest cell n, from which ``c - mu = (c - n) - sum p (c - n)`` has all
its digits however sure the map is. Axes: rows ``(N, height * width)``; points ``(N, 2)``.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from aptt.core.divergence import SOFT, Form
from aptt.core.formula import Formula, Kept, by_row
from aptt.core.labels import gaussian_logits, taught
from aptt.core.precision import wide
from aptt.core.softmax import exp_of_gaps_

__all__ = ["DISTANCES", "REGULARIZERS", "TOGETHER", "Grid"]


class Grid(NamedTuple):
    """The options of all of them."""

    height: int
    width: int
    temperature: float
    unit: tuple[float, float]
    """What a cell counts in a distance, across and down."""
    sigma: float


def _shares(x: Tensor, top: Tensor, grid: Grid) -> Tensor:
    """The softmax, times its sum ``(N, height, width)``."""
    e = exp_of_gaps_((x - top) * (1 / grid.temperature))
    return e.unflatten(1, (grid.height, grid.width))


def _stats(x: Tensor, y: Tensor, *, grid: Grid) -> Kept:
    """The highest cell: its number and its logit; the sum; means beside it, and variances."""
    top, at = x.detach().max(1, keepdim=True)
    e = _shares(x, top, grid)
    across, down = e.sum(1), e.sum(2)
    total = across.sum(1, keepdim=True)
    moments = [
        _moments(across / total, at % grid.width), _moments(down / total, at // grid.width)
    ]  # fmt: skip
    (column, wide_across), (row, wide_down) = moments
    return at, top, total, column, row, wide_across, wide_down


def _moments(share: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    off = _off(at, share)
    mean = (off * share).sum(1, keepdim=True)
    return mean, ((off - mean).square() * share).sum(1, keepdim=True)


def _off(at: Tensor, like: Tensor) -> Tensor:
    """How far each cell of an axis is from the highest."""
    return (torch.arange(like.shape[1], device=like.device) - at).to(like.dtype)


def _slope(x: Tensor, kept: Kept, across: Tensor, down: Tensor, grid: Grid) -> Tensor:
    """``p (across + down) / temperature``, of what each column and each row is multiplied by."""
    by = 1 / (grid.temperature * kept[2])
    g = (across * by).unsqueeze(1) + (down * by).unsqueeze(2)
    return (g * _shares(x, kept[1], grid)).flatten(1)


def _from_mean(kept: Kept, x: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """How far columns and rows are from the means."""
    at, _, _, column, row, _, _ = kept
    like = x.unflatten(1, (grid.height, grid.width))
    return _off(at % grid.width, like[:, 0]) - column, _off(at // grid.width, like[:, :, 0]) - row


# --------------------------------------------------------------------------------- distances


def _beside(kept: Kept, y: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """From the target to the mean, ``(N, 1)`` each, in its unit."""
    at, _, _, column, row, _, _ = kept
    a = ((at % grid.width) - y[:, :1]) + column
    b = ((at // grid.width) - y[:, 1:]) + row
    return a * grid.unit[0], b * grid.unit[1]


def _euclidean(x: Tensor, kept: Kept, y: Tensor, *, grid: Grid) -> Tensor:
    a, b = _beside(kept, y, grid)
    there = (a == 0) & (b == 0)
    return torch.hypot(torch.where(there, 1.0, a), b).masked_fill(there, 0.0).squeeze(1)


def _l1(x: Tensor, kept: Kept, y: Tensor, *, grid: Grid) -> Tensor:
    a, b = _beside(kept, y, grid)
    return (a.abs() + b.abs()).squeeze(1)


def _distance_step(
    name: str, x: Tensor, up: Tensor | float, kept: Kept, y: Tensor, *, grid: Grid
) -> tuple[None, Tensor]:
    # d mu / d x[c] = p[c] (c - mu) / temperature, along the direction to the mean
    a, b = _beside(kept, y, grid)
    if name == "l1":
        a, b = a.sgn(), b.sgn()
    else:
        far = torch.hypot(a, b)
        far = far.masked_fill(far == 0, 1.0)
        a, b = a / far, b / far
    across, down = _from_mean(kept, x, grid)
    up = by_row(up)
    return None, _slope(
        x, kept, across * (a * (up * grid.unit[0])), down * (b * (up * grid.unit[1])), grid
    )


DISTANCES = {
    name: Formula(result, partial(_distance_step, name), _stats)
    for name, result in (("euclidean", _euclidean), ("l1", _l1))
}
"""How far the mean is from the target."""


# ------------------------------------------------------------------------------ regularizers


def _variance(x: Tensor, kept: Kept, y: Tensor, *, grid: Grid) -> Tensor:
    wanted = grid.sigma**2
    return ((kept[5] - wanted).square() + (kept[6] - wanted).square()).squeeze(1)


def _variance_step(
    x: Tensor, up: Tensor | float, kept: Kept, y: Tensor, *, grid: Grid
) -> tuple[None, Tensor]:
    # d var / d x[c] = p[c] ((c - mu)**2 - var) / temperature
    up = 2 * by_row(up)
    across, down = (
        (off.square() - variance) * (up * (variance - grid.sigma**2))
        for off, variance in zip(_from_mean(kept, x, grid), kept[5:], strict=True)
    )
    return None, _slope(x, kept, across, down, grid)


def _labels(x: Tensor, y: Tensor, *, grid: Grid) -> Tensor:
    """A Gaussian around the target, times the temperature by which the divergence divides."""
    across, down = y.to(wide(x.dtype)).unbind(1)
    rows = gaussian_logits(down, grid.height, grid.sigma).unsqueeze(2)
    columns = gaussian_logits(across, grid.width, grid.sigma).unsqueeze(1)
    return (rows + columns).flatten(1) * grid.temperature


def _form(*, grid: Grid) -> Form:
    return Form(grid.temperature, beta=0.5, soft=1.0)


REGULARIZERS = {
    "js": taught(SOFT["jsd"], _labels, _form),
    "variance": Formula(_variance, _variance_step, _stats),
}
"""How far the softmax is from a Gaussian: its divergence from one, or the difference in width."""


# ------------------------------------------------------------------------------- in one walk


def _together(distance: str, regularizer: str) -> Formula:
    first, second = DISTANCES[distance], REGULARIZERS[regularizer]
    same = second.stats is _stats

    def stats(x: Tensor, y: Tensor, *, grid: Grid, share: float) -> Kept:
        kept = _stats(x, y, grid=grid)
        return kept if same else (*kept, *second.measure(x, (y,), {"grid": grid}))

    def result(x: Tensor, kept: Kept, y: Tensor, *, grid: Grid, share: float) -> Tensor:
        value = first.result(x, kept[:_KEPT], y, grid=grid)
        return value + share * second.result(x, kept if same else kept[_KEPT:], y, grid=grid)

    def step(
        x: Tensor, up: Tensor | float, kept: Kept, y: Tensor, *, grid: Grid, share: float
    ) -> tuple[None, Tensor]:
        options = {"grid": grid}
        _, dx = first.advance(x, up, kept[:_KEPT], (y,), options)
        _, more = second.advance(x, up * share, kept if same else kept[_KEPT:], (y,), options)
        assert isinstance(dx, Tensor)
        assert isinstance(more, Tensor)
        return None, dx.add_(more)

    return Formula(result, step, stats)


_KEPT = 7  # numbers a row of the distance
TOGETHER = {(d, r): _together(d, r) for d in DISTANCES for r in REGULARIZERS}
"""A distance, and a regularizer times its share."""
