"""What of two skeletons lies in the other's mask: sums over the pixels of each pool.

The target's skeleton is made of its mask, or comes made ahead. That of the prediction is made of
log-odds, which tell probabilities apart that are nearly 1.

Axes: logits ``(N, C, *S)``; sums ``(C,)``, or ``(N, C)`` of each sample.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from aptt.core.chances import of_sigmoid, of_softmax
from aptt.core.checks import IgnoreIndex, check_floating, check_tensors
from aptt.core.masks import Mode, aligned
from aptt.core.precision import wide, widen
from aptt.core.regions import Pool
from aptt.core.skeleton import Border, skeleton_of

__all__ = ["Sums", "least", "parts", "skeleton_sums"]


class Sums(NamedTuple):
    """Over the pixels of each pool."""

    hit: Tensor
    """Of the predicted skeleton, in the target."""
    stray: Tensor
    """Of the predicted skeleton, beside it."""
    kept: Tensor
    """Of the target's skeleton, predicted."""
    lost: Tensor
    """Of the target's skeleton, not predicted."""
    predicted: Tensor
    truth: Tensor
    pixels: Tensor
    logits: Tensor
    """As ``(N, C, S)``."""


def skeleton_sums(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    skeleton: Tensor | None,
    iterations: int,
    border: Border,
    mode: Mode,
    ignore_index: IgnoreIndex,
    pool: Pool,
) -> Sums:
    """The sums of each class; differentiable in the logits and the weights."""
    x, t, w = aligned(logits, target, mode, weight, ignore_index, hard=True)
    shape, dtype = (*x.shape[:2], *_image(logits, mode)), wide(x.dtype)
    if t.ndim == 2:
        t = t.unsqueeze(1) == torch.arange(x.shape[1], device=t.device)[:, None]
    x, t = widen(x), t.to(dtype)
    if w is not None:
        w = w if w.ndim == 3 else w.unsqueeze(1)
        x, t = torch.where(w == 0, 0.0, x), torch.where(w == 0, 0.0, t)
    p = (of_softmax if mode == "multiclass" else of_sigmoid)(x)
    yes, odds = p.yes, _odds(p.yes, p.no) if mode == "multiclass" else x
    if w is not None:
        yes, odds = torch.where(w == 0, 0.0, yes), torch.where(w == 0, -torch.inf, odds)
    mine = skeleton_of(odds.reshape(shape), iterations, border, odds=True).flatten(2)
    if skeleton is None:
        with torch.no_grad():
            theirs = skeleton_of(t.reshape(shape), iterations, border).flatten(2)
    else:
        theirs = _made_ahead(skeleton, logits).reshape(x.shape).to(dtype)
        theirs = theirs if w is None else torch.where(w == 0, 0.0, theirs)
    by = torch.ones_like(x[:, :, :1]) if w is None else w.to(dtype)
    values = (mine * t, mine * (1 - t), theirs * yes, theirs * p.no, yes, t, torch.ones_like(x))
    each = torch.stack([(v * by).sum(2) for v in values], -1)
    each = each if pool == "sample" else each.sum(0)
    each = pool(each) if callable(pool) else each
    hit, stray, kept, lost, predicted, truth, pixels = each.unbind(-1)
    return Sums(hit, stray, kept, lost, predicted, truth, pixels, x)


def least(t: Tensor) -> float:
    """What is as good as nothing: the dtype has no inverse of it."""
    return 64 * torch.finfo(t.dtype).tiny


def parts(some: Tensor, rest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Two sums as parts of what they make together, 0 of nothing; and where there is any."""
    whole = some + rest
    there = ~(whole.abs() <= least(whole))  # a NaN is there
    whole = torch.where(there, whole, 1)
    return some / whole, rest / whole, there


def _image(logits: Tensor, mode: Mode) -> tuple[int, ...]:
    """The axes of pixels, of which a skeleton wants one at least."""
    first = 2 if mode != "binary" or logits.shape[1:2] == (1,) else 1
    if logits.ndim <= first:
        raise ValueError(
            f"logits: got shape {tuple(logits.shape)}, without an axis of pixels; a skeleton wants "
            "one at least"
        )
    return tuple(logits.shape[first:])


def _odds(yes: Tensor, no: Tensor) -> Tensor:
    """The log-odds of a class against all others."""
    least = torch.finfo(yes.dtype).tiny
    odds = yes.clamp(min=least).log() - no.clamp(min=least).log()
    return torch.where(no <= 0, torch.inf, torch.where(yes <= 0, -torch.inf, odds))


def _made_ahead(skeleton: Tensor, logits: Tensor) -> Tensor:
    check_floating(skeleton=skeleton)
    check_tensors(logits=logits, skeleton=skeleton)
    if skeleton.shape != logits.shape:
        raise ValueError(
            f"skeleton: got shape {tuple(skeleton.shape)}, wanted that of the logits, "
            f"{tuple(logits.shape)}"
        )
    return skeleton
