"""What the region losses share: options, sums of a pool, and the average over classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from aptt.core.checks import (
    IgnoreIndex,
    Numbers,
    check_choice,
    check_flags,
    check_number,
)
from aptt.core.engine import asks
from aptt.core.masks import Mode, aligned, of_classes, pixels
from aptt.core.overlap import overlap_sums
from aptt.core.reduction import Kind, Reduction, check_reduction, normalize
from aptt.core.squares import square_sums

__all__ = [
    "Absent",
    "Pool",
    "RegionOptions",
    "Regions",
    "average",
    "check_regions",
    "mean",
    "measured",
    "reduced",
    "shares",
]

_LEAST = 1e-30  # below any sum of weights, and so much above 0 that a loss divided by it is finite

Absent = Literal["skip", "zero", "smooth", "penalize"]
Pool = Literal["batch", "sample"] | Callable[[Tensor], Tensor]


class RegionOptions(NamedTuple):
    """The options that every region loss has."""

    mode: Mode
    class_weight: Numbers | None
    weight: Numbers | None
    ignore_index: IgnoreIndex
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
    right: Tensor | None
    """What truth and prediction have in common, exact in its last digits, for a logarithm."""
    sizes: Callable[[], Tensor]
    """How many pixels there are: few ask."""
    class_weight: Tensor | None
    """The weight of each class, as given."""
    dtype: torch.dtype
    """That of the result."""
    squares: tuple[Tensor, Tensor] | None = None
    """Of the errors, and prediction times truth; the rest is then of no use but for sizes."""

    @property
    def common(self) -> Tensor:
        """What truth and prediction have in common."""
        return self.truth - self.missed if self.right is None else self.right

    def mean_probability(self) -> Tensor:
        """How much of the pool each class is predicted on."""
        sizes = self.sizes()
        return (self.common + self.false) / torch.where(sizes > 0, sizes, 1)


def shares(counted: Tensor, class_weight: Tensor | None, *, background: bool) -> Tensor:
    """The weight of each class that counts: 0 for a background that is left out."""
    share = counted if class_weight is None else counted * class_weight
    if background:
        return share
    return torch.where(torch.arange(share.shape[-1], device=share.device) == 0, 0, share)


def measured(
    logits: Tensor,
    target: Numbers,
    o: RegionOptions,
    *,
    gamma: float | None = None,
    log: bool = False,
    squared: bool = False,
) -> tuple[Regions, Tensor, Tensor]:
    """The pooled sums; and, in each sample and class, what pixels cost and how much counts there.

    Without ``gamma`` (see :mod:`aptt.core.overlap`) there is no cost, and the count stands in.
    ``log`` is whether a logarithm is to be taken of what is right, ``squared`` whether squares are
    summed instead.
    """
    x, t, w = aligned(logits, target, o.mode, o.weight, o.ignore_index, hard=bool(gamma))
    class_weight = of_classes(o.class_weight, x)
    softmax = o.mode == "multiclass"
    if squared:
        sums = square_sums(x, t, w, softmax=softmax)
    else:
        sums = overlap_sums(x, t, w, softmax=softmax, gamma=gamma, common=log)
    if o.pool == "batch":
        sums = sums.sum(0)

    def sizes() -> Tensor:
        each = pixels(x, w).to(sums.dtype)
        return each.sum(0) if sums.ndim == 2 else each

    parts = list(sums.unbind(-1))
    if not asks((t, w)):
        parts[0] = parts[0].detach()
    count = parts[0] if softmax or gamma is None else sizes()
    cost = count if gamma is None else parts[3]
    many = 3 + (log or squared)
    if callable(o.pool):  # one tensor to be summed, with all that there is of a pool
        *parts, whole = o.pool(torch.stack((*parts[:many], sizes()), -1).sum(0)).unbind(-1)
    right = squares = None
    if squared:  # nothing reads what is false or missed but the mean probability, which is of size
        truth, size, *pair = parts[:many]
        squares, false, missed = (pair[0], pair[1]), size, truth
    else:
        truth, false, missed, *more = parts[:many]
        right = more[0] if log else None
    regions = Regions(
        truth,
        false,
        missed,
        right,
        (lambda: whole) if callable(o.pool) else sizes,
        class_weight,
        sums.dtype,
        squares,
    )
    return regions, cost, count


def average(loss: Tensor, regions: Regions, o: RegionOptions, *, term: str) -> Tensor:
    """Reduce the losses of the classes, by ``absent`` and by weight."""
    present = regions.truth > 0
    if o.absent == "penalize":
        loss = torch.where(present, loss, regions.mean_probability())
    elif o.absent == "zero":
        loss = torch.where(present, loss, 0)
    counted = present if o.absent == "skip" else regions.sizes() > 0
    share = shares(counted, regions.class_weight, background=o.background)
    return reduced(loss, share, regions.dtype, o.reduction, o.pool, term=term)


def reduced(
    loss: Tensor,
    share: Tensor,
    dtype: torch.dtype,
    reduction: Reduction,
    pool: Pool,
    *,
    term: str,
) -> Tensor:
    """Losses times their shares, reduced over them."""
    loss = (loss * share).to(dtype)
    if reduction == "none":
        return loss
    total, count, splits = loss.sum(), share.sum(), pool == "sample"
    return mean(total, count, reduction, term=term, kind="ratios", splits=splits)


def mean(
    total: Tensor,
    count: Tensor,
    reduction: Reduction,
    *,
    term: str,
    kind: Kind = "values",
    splits: bool = True,
) -> Tensor:
    """``total`` over ``count``, as ``reduction`` says; the total of nothing is 0."""
    if reduction == "mean" and not count.requires_grad:  # a weight of nothing has no slope
        return total / count.clamp(min=_LEAST if count.is_floating_point() else 1)
    count = count.to(total.dtype)
    return normalize(total, count, reduction, term=term, kind=kind, splits=splits)


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
    log: bool = False,
    **prices: float,
) -> None:
    """Refuse options that are unknown, or that do not go together.

    ``prices`` are other numbers by name, at least 0; "beta" and "gamma" are to be above it.
    """
    check_reduction(reduction, none=none)
    check_choice("mode", mode, ("multiclass", "multilabel", "binary"))
    check_choice("absent", absent, policies)
    check_flags(background=background, log=log)
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
