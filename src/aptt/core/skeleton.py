"""The soft skeleton of a soft mask: what opening takes away, as it is eroded step by step.

    erode x     the least of a cell and its 2 D neighbours
    open x      the largest of the 3**D cells around, of erode x
    S           relu(x - open x), then of each x eroded once more: S + relu(d - S d)

Of shifts, ``minimum`` and ``maximum``, where two cells that are equal share a gradient; a pooling
operator sends all of it to the first. Beyond the frame there is nothing, or background.

A mask of probabilities may come as log-odds, whose differences are known where probabilities are
nearly 1: ``sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a))``.

Each step is kept by its two inputs alone and computed again on the way back: ``2 (k + 1)`` tensors
of the size of the mask for k iterations, and not all that lies between.

Axes: x ``(N, C, *S)``.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from aptt.core.exponential import expm1
from aptt.core.ordinary import inside_functorch, ordinary

__all__ = ["Border", "skeleton_of"]

Border = Literal["open", "background"]
"""What lies beyond the frame: nothing, so that what touches it goes on; or background."""

_SURE = 800.0  # log-odds at which a probability is 0 or 1, to float64's last exponent


def skeleton_of(x: Tensor, iterations: int, border: Border, *, odds: bool = False) -> Tensor:
    """The soft skeleton, differentiable, with ``iterations`` erosions; ``odds``: of log-odds."""
    found: Tensor | None = None
    x = x.clamp(-_SURE, _SURE) if odds else x
    for i in range(iterations + 1):
        x, found = _again(x, found, border, odds, last=i == iterations)
    assert found is not None
    return found


def _again(
    x: Tensor, found: Tensor | None, border: Border, odds: bool, *, last: bool
) -> tuple[Tensor, Tensor]:
    """One step; kept by what it is given."""
    plainly = torch.compiler.is_compiling() or inside_functorch() or not ordinary(x)
    if plainly or not (torch.is_grad_enabled() and x.requires_grad):
        return _step(x, found, border, odds, last)
    held: tuple[Tensor, Tensor] = checkpoint(
        _step, x, found, border, odds, last, use_reentrant=False, preserve_rng_state=False
    )
    return held


def _step(
    x: Tensor, found: Tensor | None, border: Border, odds: bool, last: bool
) -> tuple[Tensor, Tensor]:
    """The mask eroded, for the next step, and the skeleton so far."""
    eroded = _erode(x, (-_SURE if odds else 0.0) if border == "background" else torch.inf)
    opened, size = _dilate(eroded), x.detach().abs()
    rounding = 4 * torch.finfo(x.dtype).eps * (size + 1 if odds else size)
    ridge = x - opened
    more = torch.where(ridge > rounding, ridge, 0.0)  # of a plateau, which is no ridge
    if odds:
        more = -expm1(-more) * torch.sigmoid(x) * torch.sigmoid(-opened)
    found = more if found is None else found + torch.relu(more - found * more)
    return (x if last else eroded), found


def _erode(x: Tensor, beyond: float) -> Tensor:
    least = x
    across = None
    for axis in range(2, x.ndim):
        pair = torch.minimum(*_neighbours(x, axis, beyond))
        across = pair if across is None else torch.minimum(across, pair)
    return least if across is None else torch.minimum(least, across)


def _dilate(x: Tensor) -> Tensor:
    for axis in range(2, x.ndim):
        x = torch.maximum(x, torch.maximum(*_neighbours(x, axis, -torch.inf)))
    return x


def _neighbours(x: Tensor, axis: int, beyond: float) -> tuple[Tensor, Tensor]:
    """The cell before and the cell behind each, along an axis."""
    n = x.shape[axis]
    edge = torch.full_like(x.narrow(axis, 0, min(n, 1)), beyond)
    before = torch.cat((edge, x.narrow(axis, 0, max(n - 1, 0))), axis)
    behind = torch.cat((x.narrow(axis, min(n, 1), max(n - 1, 0)), edge), axis)
    return before, behind
