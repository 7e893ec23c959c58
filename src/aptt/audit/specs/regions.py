"""Rows of the region losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Generator, Tensor, nn

from aptt.audit.spec import Inputs, Options, Refused, Spec, case
from aptt.audit.specs.making import (
    HAS_A_UNIT,
    NOTHING_FROZEN,
    bits,
    grid,
    indices,
    normal,
    uniform,
    with_,
)
from aptt.loss import (
    DiceLoss,
    FocalTverskyLoss,
    IoULoss,
    TverskyLoss,
    dice_loss,
    focal_tversky_loss,
    mask_iou_loss,
    tversky_loss,
)

__all__ = ["REGIONS"]

_C = 3
_PER_CLASS = torch.tensor([0.5, 2.0, 1.0])


def _pixels(g: Generator, n: int) -> Inputs:
    """Two images of ``n`` pixels, in a row."""
    return {"logits": normal(g, 2, _C, n, scale=2), "target": indices(g, _C, 2, n)}


def _images(g: Generator, n: int) -> Inputs:
    return {"logits": normal(g, n, _C, 2, 3, scale=2), "target": indices(g, _C, n, 2, 3)}


def _labels(g: Generator, n: int) -> Inputs:
    return {"logits": normal(g, n, _C, 7, scale=2), "target": bits(g, n, _C, 7)}


def _soft(g: Generator, n: int) -> Inputs:
    return {"logits": normal(g, 2, _C, n), "target": uniform(g, 2, _C, n, low=0.1, high=0.9)}


def _mask(g: Generator, n: int) -> Inputs:
    return {"logits": normal(g, 2, 1, n, scale=2), "target": bits(g, 2, n)}


def _extremes() -> Inputs:
    big = grid([6e4, -6e4, -6e4], [-6e4, 6e4, 6e4], [30, -30, 0], [0, 0, 0], [6e4, 6e4, 6e4])
    logits = torch.stack((big.T, big.flip(0).T, -big.T))
    return {"logits": logits, "target": grid([0, 1, 2, 0, 1], [1] * 5, [2, 2, 0, 0, 0]).long()}


def _extreme_masks() -> Inputs:
    big = grid([6e4, -6e4, 100, -100, 12, -12, 0, 1e-6])
    logits = torch.cat((big, big, -big)).unsqueeze(1)
    target = grid([1, 0, 1, 0, 1, 0, 1, 0], [0, 1, 0, 1, 0, 1, 0, 1], [0] * 8)
    return {"logits": logits, "target": target}


def _hide(inputs: Inputs, options: Options, keep: Tensor) -> Inputs:
    if "pixel_weight" in inputs:
        return {**inputs, "pixel_weight": inputs["pixel_weight"].masked_fill(~keep, 0)}
    target, ignored = inputs["target"], options.get("ignore_index")
    if ignored is None and options.get("mode", "multiclass") != "multiclass":
        return {**inputs, "pixel_weight": keep.double()}
    drop = ~keep.unsqueeze(1) if target.ndim > keep.ndim else ~keep
    return {**inputs, "target": target.masked_fill(drop, -100 if ignored is None else ignored)}


def _count(inputs: Inputs, options: Options) -> Tensor:
    """The classes, or weights of classes, that are present, in each pool."""
    target, mode = inputs["target"], options.get("mode", "multiclass")
    classes = 1 if mode == "binary" else _C
    if mode == "binary":
        target = target.unsqueeze(1)
    elif mode == "multiclass":
        seen = target != options.get("ignore_index", -100)
        hot = torch.nn.functional.one_hot(target, _C).movedim(-1, 1)
        target = hot * seen.unsqueeze(1)
    present = (target.flatten(2) > 0).any(2)
    if options.get("pool", "batch") == "batch":
        present = present.any(0)
    if options.get("absent", "skip") != "skip":
        present = torch.ones_like(present)
    return (present * options.get("weight", torch.ones(classes)).to(target.device)).double().sum()


def _perfect(inputs: Inputs, options: Options) -> tuple[Inputs, float | None]:
    target, mode = inputs["target"], options.get("mode", "multiclass")
    if mode == "multiclass":
        hot = torch.nn.functional.one_hot(target, _C).movedim(-1, 1).double()
        return {**inputs, "logits": 2000 * hot - 1000}, 0.0
    target = target.view(inputs["logits"].shape).double()
    if bool(((target > 0) & (target < 1)).any()):
        return {**inputs, "logits": target.logit()}, None
    return {**inputs, "logits": 2000 * target - 1000}, 0.0


def _hopeless(inputs: Inputs, options: Options) -> Inputs:
    target, mode = inputs["target"], options.get("mode", "multiclass")
    ignored = options.get("ignore_index")
    target = target if ignored is None else torch.where(target == ignored, 0, target)
    inputs = {**inputs, "target": target}
    if mode == "multiclass":
        target = torch.nn.functional.one_hot(target, _C).movedim(-1, 1)
    target = target.view(inputs["logits"].shape).double()
    return {**inputs, "logits": inputs["logits"] / 10 + 5 - 10 * target}


def _regions(
    function: Callable[..., Tensor],
    module: Callable[..., nn.Module],
    options: Mapping[str, Any],
    refused: tuple[Refused, ...] = (),
) -> Spec:
    pixels, soft = (with_(make, "pixel_weight", "logits", features=1) for make in (_pixels, _soft))
    return Spec(
        name=function.__name__,
        function=function,
        module=module,
        inputs=_pixels,
        cases={
            "classes": case(axis=-1),
            "weighted": case(pixels, axis=-1, weight=_PER_CLASS, ignore_index=2, **options),
            "images": case(
                _images, pool="sample", absent="penalize", weight=_PER_CLASS, reduction="none"
            ),
            "images, some classes": case(
                _images, pool="sample", ignore_index=1, smooth=1.0, **options
            ),
            "labels": case(
                _labels, mode="multilabel", pool="sample", ignore_index=7, reduction="sum"
            ),
            "soft labels": case(
                soft, axis=-1, mode="multilabel", absent="smooth", smooth=2.0, **options
            ),
            "mask": case(_mask, axis=-1, mode="binary", absent="zero", extremes=_extreme_masks),
        },
        features=1,
        joint=True,
        hide=_hide,
        count=_count,
        perfect=_perfect,
        least_within=8,
        hopeless=_hopeless,
        extremes=_extremes,
        refused=(
            Refused("an unknown mode", "mode", {"mode": "softmax"}),
            Refused("an unknown policy", "absent", {"absent": "ignore"}),
            Refused("a policy that needs a number", "smooth", {"absent": "smooth"}),
            Refused("negative smoothing", "smooth", {"smooth": -1.0}),
            Refused("an unknown pool", "pool", {"pool": "image"}),
            Refused("a weight per class too few", "weight", {"weight": torch.ones(_C - 1)}),
            Refused("a class out of range", "target", change=_out_of_range),
            Refused("one class", "mode", change=_one_class),
            Refused("labels beyond 1", "target", {"mode": "multilabel"}, _large_labels),
            Refused("masks of other pixels", "target", {"mode": "binary"}),
            Refused("weights of one pixel", "pixel_weight", change=_one_pixel_weight),
            *refused,
        ),
        exempt={**HAS_A_UNIT, **NOTHING_FROZEN},
    )


def _out_of_range(inputs: Inputs) -> Inputs:
    return {**inputs, "target": inputs["target"] + 1}


def _one_class(inputs: Inputs) -> Inputs:
    return {"logits": inputs["logits"][:, :1], "target": inputs["target"] * 0}


def _large_labels(inputs: Inputs) -> Inputs:
    return {**inputs, "target": inputs["logits"].abs() + 1}


def _one_pixel_weight(inputs: Inputs) -> Inputs:
    return {**inputs, "pixel_weight": torch.ones(2, 1)}


_NO_BETA = Refused("no price for misses", "beta", {"beta": 0.0})
_NO_ALPHA = Refused("a negative price", "alpha", {"alpha": -0.1})

REGIONS = (
    _regions(dice_loss, DiceLoss, {}),
    _regions(mask_iou_loss, IoULoss, {}),
    _regions(tversky_loss, TverskyLoss, {"alpha": 0.3, "beta": 0.7}, (_NO_BETA, _NO_ALPHA)),
    _regions(
        focal_tversky_loss,
        FocalTverskyLoss,
        {"alpha": 0.3, "beta": 0.7, "gamma": 1.5},
        (_NO_BETA, _NO_ALPHA, Refused("exponent 0", "gamma", {"gamma": 0.0})),
    ),
)
