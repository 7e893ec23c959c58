"""What the region losses share: options, alignment, pooling, and the average over classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from aptt.core.checks import (
    check_binary,
    check_choice,
    check_classes,
    check_floating,
    check_number,
    check_range,
    check_weights,
    kept,
)
from aptt.core.formula import widen
from aptt.core.ordinary import is_readable
from aptt.core.overlap import overlap_sums
from aptt.core.reduction import Reduction, check_reduction, normalize
from aptt.core.shapes import check_shapes, check_vector, without_axis

__all__ = [
    "Absent",
    "Mode",
    "Pool",
    "RegionOptions",
    "Regions",
    "aligned",
    "average",
    "check_regions",
    "measured",
    "pixels",
    "reduced",
    "shares",
]

Mode = Literal["multiclass", "multilabel", "binary"]
Absent = Literal["skip", "zero", "smooth", "penalize"]
Pool = Literal["batch", "sample"] | Callable[[Tensor], Tensor]


class RegionOptions(NamedTuple):
    """The options that every region loss has."""

    mode: Mode
    weight: Tensor | None
    pixel_weight: Tensor | None
    ignore_index: int | None
    background: bool
    absent: Absent
    smooth: float
    pool: Pool
    reduction: Reduction


class Regions(NamedTuple):
    """Sums over the pixels of each pool, ``(C,)`` or ``(N, C)``; and what goes with them."""

    truth: Tensor
    false: Tensor
    missed: Tensor
    common: Tensor
    """What is right; exact in its last digits only where a logarithm is to be taken."""
    pixels: Tensor
    weight: Tensor | None
    """The weight of each class, as given."""
    dtype: torch.dtype
    """That of the result; the sums are in the widest float there is."""

    def misses(self, alpha: float, beta: float) -> Tensor:
        """False positives and false negatives, each at its price."""
        return self.false * alpha + self.missed * beta

    def mean_probability(self) -> Tensor:
        """How much of the pool each class is predicted on."""
        return (self.common + self.false) / torch.where(self.pixels > 0, self.pixels, 1)


def shares(counted: Tensor, weight: Tensor | None, *, background: bool) -> Tensor:
    """The weight of each class that counts: 0 for a background that is left out."""
    share = counted if weight is None else counted * weight
    if background:
        return share
    return torch.where(torch.arange(share.shape[-1], device=share.device) == 0, 0, share)


def measured(
    logits: Tensor,
    target: Tensor,
    o: RegionOptions,
    *,
    gamma: float | None = None,
    log: bool = False,
) -> tuple[Regions, Tensor, Tensor]:
    """The pooled sums; and, in each sample and class, what pixels cost and how much counts there.

    Without ``gamma`` (see :mod:`aptt.core.overlap`) there is no cost, and the count stands in.
    ``log`` is whether a logarithm is to be taken of what is right.
    """
    x, t, w = aligned(logits, target, o.mode, o.pixel_weight, o.ignore_index, hard=bool(gamma))
    weight = None if o.weight is None else check_vector("weight", o.weight, x)
    softmax = o.mode == "multiclass"
    sums = overlap_sums(x, t, w, softmax=softmax, gamma=gamma, common=log)
    sizes = pixels(x, w).to(sums.dtype)
    count = sums[..., 0] if softmax else sizes
    cost = count if gamma is None else sums[..., 3]
    pooled = sums if gamma is None else sums[..., :3]
    if callable(o.pool):  # one tensor to be summed, with all that there is of a pool
        pooled = o.pool(torch.cat((pooled, sizes.unsqueeze(-1)), dim=-1).sum(0))
        pooled, sizes = pooled[..., :-1], pooled[..., -1]
    elif o.pool == "batch":
        pooled, sizes = pooled.sum(0), sizes.sum(0)
    truth, false, missed, *common = pooled.unbind(-1)
    right = common[0] if common else truth - missed
    dtype = widen(x[:0]).dtype
    return Regions(truth, false, missed, right, sizes, weight, dtype), cost, count


def average(loss: Tensor, regions: Regions, o: RegionOptions, *, term: str) -> Tensor:
    """Reduce the losses of the classes, by ``absent`` and by weight."""
    present = regions.truth > 0
    if o.absent == "penalize":
        loss = torch.where(present, loss, regions.mean_probability())
    elif o.absent == "zero":
        loss = torch.where(present, loss, 0)
    counted = present if o.absent == "skip" else regions.pixels > 0
    share = shares(counted.to(loss.dtype), regions.weight, background=o.background)
    return reduced(loss, share, regions.dtype, o.reduction, term=term)


def reduced(
    loss: Tensor, share: Tensor, dtype: torch.dtype, reduction: Reduction, *, term: str
) -> Tensor:
    """Losses times their shares, reduced over them."""
    loss = (loss * share).to(dtype)
    if reduction == "none":
        return loss
    return normalize(loss.sum(), share.sum(), reduction, term=term)


def aligned(
    logits: Tensor,
    target: Tensor,
    mode: Mode,
    pixel_weight: Tensor | None,
    ignore_index: int | None,
    *,
    hard: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Logits ``(N, C, S)``, the target to match, and the weight of each pixel (0: removed).

    ``hard`` targets are class indices, or 0 and 1 where classes do not exclude each other.
    """
    check_floating(logits=logits)
    if mode == "binary":
        if target.shape == logits.shape and logits.shape[1:2] == (1,):
            target = target.squeeze(1)
        if logits.shape[1:] == (1, *target.shape[1:]):
            logits = logits.squeeze(1)
        check_shapes(logits=(logits, "N *S"), target=(target, "N *S"))
        logits, target = logits.unsqueeze(1), target.unsqueeze(1)
    indexed = mode == "multiclass" and not target.is_floating_point()
    if hard and mode == "multiclass" and not indexed:
        raise ValueError(
            f"target: got {target.dtype} with mode='multiclass', wanted class indices; soft "
            "targets are for dice_loss and dice_ce_loss"
        )
    if mode == "multiclass" and not indexed and target.shape == without_axis(logits, 1):
        raise TypeError(
            f"target: got {target.dtype} of shape {tuple(target.shape)}, wanted class indices "
            f"of an integer dtype, or soft targets of shape {tuple(logits.shape)}"
        )
    check_shapes(logits=(logits, "N C *S"), target=(target, "N *S" if indexed else "N C *S"))
    if mode == "multiclass" and logits.shape[1] == 1:
        raise ValueError(
            f"mode: 'multiclass' with logits {tuple(logits.shape)} has a single class, whose "
            "softmax is always 1; wanted mode='binary'"
        )
    # a pixel axis for (N, C) too
    x, t = logits.unsqueeze(-1).flatten(2), target.unsqueeze(-1).flatten(1 if indexed else 2)
    keep = None
    if indexed:
        ignored = -100 if ignore_index is None else ignore_index
        if not check_classes(t, x.shape[1], ignored):
            keep = kept(t, ignored)
    elif ignore_index is not None:
        if mode == "multiclass":
            raise ValueError(
                f"ignore_index: got {ignore_index} with soft targets, of which no single value is "
                "a pixel; wanted None, and pixel_weight=0 where pixels are to be removed"
            )
        keep = kept(t, ignore_index)
    if keep is not None:
        if is_readable(keep) and bool(keep.all()):
            keep = None  # looking costs less than a copy of the target and a mask
        else:
            t = torch.where(keep, t, 0)
    t = t.long() if indexed else t
    dtype = widen(x[:0]).dtype
    w = None if keep is None else keep.to(dtype)
    if pixel_weight is not None:
        check_shapes(logits=(logits, "N C *S"), pixel_weight=(pixel_weight, "N *S"))
        extra = pixel_weight.reshape(x.shape[0], x.shape[2]).to(dtype)
        extra = extra if indexed else extra.unsqueeze(1)
        w = extra if keep is None else torch.where(keep, extra, 0)
        check_weights(pixel_weight=w)
    if hard and not indexed:
        check_binary(t if w is None else t.masked_fill(w == 0, 0), None)
    elif not indexed:
        check_range(t, 0, 1, keep=None if w is None else w != 0)
    return x, t, w


def pixels(x: Tensor, w: Tensor | None) -> Tensor:
    """How many pixels, by weight, each sample and class has."""
    if w is None:
        return x.new_full(x.shape[:2], x.shape[2], dtype=torch.int64)
    return w.sum(-1, keepdim=w.ndim < x.ndim).expand(x.shape[:2])


def check_regions(
    mode: str,
    background: bool,
    absent: str,
    pool: Pool,
    reduction: Reduction,
    *,
    smooth: float = 0.0,
    policies: tuple[str, ...] = ("skip", "zero", "smooth", "penalize"),
    none: bool = True,
    **prices: float,
) -> None:
    """Refuse options that are unknown, or that do not go together.

    ``prices`` are other numbers by name, at least 0; "beta" and "gamma" are to be above it.
    """
    check_reduction(reduction, none=none)
    check_choice("mode", mode, ("multiclass", "multilabel", "binary"))
    check_choice("absent", absent, policies)
    check_number("smooth", smooth)
    for name, price in prices.items():
        check_number(name, price)
        if name in ("beta", "gamma") and not price > 0:
            raise ValueError(f"{name}: got {price}, wanted a positive number")
    if not background and mode != "multiclass":
        raise ValueError(
            f"background: got False with mode={mode!r}, whose channels have none; "
            "wanted mode='multiclass', or a weight of 0"
        )
    if absent == "smooth" and smooth == 0:
        raise ValueError("smooth: got 0 with absent='smooth', wanted a positive number of pixels")
    if not callable(pool):
        check_choice("pool", pool, ("batch", "sample"), also="a callable that sums over ranks")
