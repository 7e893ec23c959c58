"""Masks: logits, target and weights of pixels, held to each other and laid out alike.

Axes: logits ``(N, C, ...)``, of one yes-or-no question also ``(N, ...)``; target ``(N, ...)`` class
indices, or like the logits. Laid out: ``(N, C, S)``, with all pixels on one axis.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from aptt.core.axes import without_axis
from aptt.core.checks import (
    IgnoreIndex,
    Numbers,
    as_tensor,
    as_weight,
    check_binary,
    check_classes,
    check_floating,
    check_range,
    check_tensors,
    check_weights,
    ignored,
    kept,
)
from aptt.core.ordinary import is_readable
from aptt.core.precision import widen
from aptt.core.shapes import check_shapes, check_vector
from aptt.core.softmax import on_class_axis

__all__ = ["Mode", "aligned", "check_class_weight", "of_classes", "pixels"]

Mode = Literal["multiclass", "multilabel", "binary"]


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
        check_binary(t, None, keep=None if w is None else w != 0)
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
    if mode == "binary" and class_weight.numel() != 1:
        raise ValueError(
            f"class_weight: got {class_weight.numel()} numbers with mode='binary', which has one "
            "class, wanted 1; for a weight of foreground against background there is weight="
        )
