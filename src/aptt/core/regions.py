"""What the region losses share: options, alignment, pooling, and the average over classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from aptt.core.checks import (
    IgnoreIndex,
    Numbers,
    as_tensor,
    as_weight,
    check_binary,
    check_choice,
    check_classes,
    check_flags,
    check_floating,
    check_number,
    check_range,
    check_tensors,
    check_weights,
    ignored,
    kept,
)
from aptt.core.engine import asks
from aptt.core.formula import widen
from aptt.core.ordinary import is_readable
from aptt.core.overlap import overlap_sums
from aptt.core.reduction import Kind, Reduction, check_reduction, normalize
from aptt.core.shapes import check_shapes, check_vector, without_axis
from aptt.core.softmax import on_class_axis
from aptt.core.squares import square_sums

__all__ = [
    "Absent",
    "Mode",
    "Pool",
    "RegionOptions",
    "Regions",
    "aligned",
    "average",
    "check_class_weight",
    "check_regions",
    "mean",
    "measured",
    "pixels",
    "reduced",
    "shares",
]

_LEAST = 1e-30  # below any sum of weights, and so much above 0 that a loss divided by it is finite

Mode = Literal["multiclass", "multilabel", "binary"]
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
    truth, false, missed, *right = parts[:many]
    squares = None
    if squared:  # of which the first two are truth and size
        squares, missed = (missed, right[0]), truth
    regions = Regions(
        truth,
        false,
        missed,
        right[0] if log else None,
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


def aligned(
    logits: Tensor,
    target: Numbers,
    mode: Mode,
    weight: Numbers | None,
    ignore_index: IgnoreIndex,
    *,
    hard: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Logits ``(N, C, S)``, the target to match, and the weight of each pixel (0: removed).

    ``hard`` targets are class indices, or 0 and 1 where classes do not exclude each other.
    """
    check_floating(logits=logits)
    target = as_tensor("target", target, logits)
    weight = None if weight is None else as_tensor("weight", weight, logits)
    extra = {} if weight is None else {"weight": weight}
    check_tensors(logits=logits, target=target, **extra)
    if mode == "binary":
        if target.shape == logits.shape and logits.shape[1:2] == (1,):
            target = target.squeeze(1)
        if logits.shape[1:] == (1, *target.shape[1:]):
            logits = logits.squeeze(1)
        check_shapes(logits=(logits, "N *S"), target=(target, "N *S"))
        logits, target = logits.unsqueeze(1), target.unsqueeze(1)
    if mode == "multiclass" and target.shape == logits.shape and not target.is_floating_point():
        target = _one_hot(target, weight, ignore_index, hard=hard)
    indexed = mode == "multiclass" and not target.is_floating_point()
    if hard and mode == "multiclass" and not indexed:
        raise ValueError(
            f"target: got {target.dtype} with mode='multiclass', wanted class indices, or a "
            "one-hot mask of an integer dtype or bool, such as target.long(); soft targets are for "
            "dice_loss and dice_ce_loss"
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
    x, t = _flat(logits, 2), _flat(target, 1 if indexed else 2)
    keep, removed = None, ignored(ignore_index, indexed=indexed)
    if indexed:
        if not check_classes(t, x.shape[1], removed) and removed is not None:
            keep = kept(t, removed)
    elif removed is not None:
        if mode == "multiclass":
            raise ValueError(
                f"ignore_index: got {ignore_index} with soft targets, of which no single value is "
                "a pixel; wanted None, and weight=0 where pixels are to be removed"
            )
        keep = kept(t, removed)
    if keep is not None:
        if is_readable(keep) and bool(keep.all()):
            keep = None  # looking costs less than a copy of the target and a mask
        else:
            t = t * keep if indexed else torch.where(keep, t, 0)
    t = t.long() if indexed else t
    w = keep
    if weight is not None:
        weight = as_weight("weight", weight, logits)
        by = _weights_of_pixels(weight, logits, mode).to(widen(x[:0]).dtype)
        by = by.squeeze(1) if indexed else by
        w = by if keep is None else torch.where(keep, by, 0)
        check_weights(weight=w)
    if hard and not indexed:
        check_binary(t if w is None else t.masked_fill(w == 0, 0), None)
    elif not indexed:
        check_range(t, 0, 1, keep=None if w is None else w != 0)
    return x, t, w


def _weights_of_pixels(weight: Tensor, logits: Tensor, mode: Mode) -> Tensor:
    """``(N, 1, S)``; or ``(N, C, S)``, where classes are labels that do not exclude each other."""
    if mode == "multilabel" and weight.ndim == logits.ndim:
        sizes = zip(weight.shape, logits.shape, strict=True)
        if not all(size in (1, whole) for size, whole in sizes):
            raise ValueError(
                f"weight: got {tuple(weight.shape)} with logits {tuple(logits.shape)}, wanted "
                f"{tuple(without_axis(logits, 1))}, one per pixel, or one per pixel and class, "
                "with 1 for an axis along which it is the same"
            )
        return _flat(weight.expand(logits.shape), 2)
    check_shapes(logits=(logits, "N C *S"), weight=(weight, "N *S"))
    return _flat(weight, 1).unsqueeze(1)


def _one_hot(
    mask: Tensor, weight: Tensor | None, ignore_index: IgnoreIndex, *, hard: bool
) -> Tensor:
    """A mask of 0 and 1 for each class: as class indices where they are hard, or as floats."""
    if ignored(ignore_index, indexed=False) is not None:
        raise ValueError(
            f"ignore_index: got {ignore_index} with a one-hot target, of which no single value is "
            "a pixel; wanted None, and weight=0 where pixels are to be removed"
        )
    check_range(mask, 0, 1, keep=None)
    if not hard:
        return mask.float()
    if is_readable(mask):
        wrong = mask.sum(1) != 1
        if weight is not None and weight.shape == wrong.shape:
            wrong &= weight != 0
        if wrong.any():
            raise ValueError("target: got a pixel of no class or of several, wanted one 1 in each")
    return (mask * on_class_axis(torch.arange(mask.shape[1], device=mask.device), mask)).sum(1)


def _flat(a: Tensor, axis: int) -> Tensor:
    """All axes from ``axis`` on as one; one of length 1 if there are none."""
    return a.flatten(axis) if a.ndim > axis else a.unsqueeze(-1)


def pixels(x: Tensor, w: Tensor | None) -> Tensor:
    """How many pixels, by weight, each sample and class has."""
    if w is None:
        return x.new_full(x.shape[:2], x.shape[2], dtype=torch.int64)
    return w.sum(-1, keepdim=w.ndim < x.ndim).expand(x.shape[:2])


def of_classes(class_weight: Numbers | None, x: Tensor) -> Tensor | None:
    """One weight per class of ``x``, at least 0."""
    if class_weight is None:
        return None
    vector = check_vector("class_weight", class_weight, x)
    if is_readable(x):  # where the logits are none with values, nothing is to be computed
        check_weights(class_weight=vector)
    return vector


def check_class_weight(class_weight: Tensor | None, mode: str) -> None:
    """Refuse what can be no weight of classes, before there are any logits."""
    if class_weight is None:
        return
    check_weights(class_weight=class_weight)
    if mode == "binary" and class_weight.numel() != 1:
        raise ValueError(
            f"class_weight: got {class_weight.numel()} numbers with mode='binary', which has one "
            "class, wanted 1; for a weight of foreground against background there is weight="
        )


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
