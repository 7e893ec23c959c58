"""Rows of the region losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor, nn

from aptt.audit.spec import Case, Inputs, Options, Refused, Spec, case
from aptt.audit.specs.making import (
    HAS_A_UNIT,
    NOTHING_FROZEN,
    bits,
    grid,
    indices,
    normal,
    pooled,
    uniform,
    with_,
)
from aptt.loss import (
    DiceCELoss,
    DiceFocalLoss,
    DiceLoss,
    FocalTverskyLoss,
    GeneralizedDiceLoss,
    IoULoss,
    LovaszLoss,
    MCCLoss,
    TverskyLoss,
    WassersteinDiceLoss,
    dice_ce_loss,
    dice_focal_loss,
    dice_loss,
    focal_tversky_loss,
    generalized_dice_loss,
    lovasz_loss,
    mask_iou_loss,
    mcc_loss,
    tversky_loss,
    wasserstein_dice_loss,
)

__all__ = ["REGIONS"]

_C = 3
_PER_CLASS = torch.tensor([0.5, 2.0, 1.0])
_DISTANCE = torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 0.5], [0.8, 0.3, 0.0]])


def _pixels(g: Generator, n: int) -> Inputs:
    """Two images of ``n`` pixels, in a row."""
    return {"logits": normal(g, 2, _C, n, scale=2), "target": indices(g, _C, 2, n)}


def _images(g: Generator, n: int) -> Inputs:
    return {"logits": normal(g, n, _C, 2, 3, scale=2), "target": indices(g, _C, n, 2, 3)}


def _few_pixels(g: Generator, n: int) -> Inputs:
    """Images of so few pixels that some have no object."""
    return {"logits": normal(g, n, _C, 2, scale=2), "target": indices(g, _C, n, 2)}


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
    if "weight" in inputs:
        return {**inputs, "weight": inputs["weight"].masked_fill(~keep, 0)}
    target, ignored = inputs["target"], options.get("ignore_index")
    if ignored is None and options.get("mode", "multiclass") != "multiclass":
        return {**inputs, "weight": keep.double()}
    drop = ~keep.unsqueeze(1) if target.ndim > keep.ndim else ~keep
    return {**inputs, "target": target.masked_fill(drop, -100 if ignored is None else ignored)}


def _present(inputs: Inputs, options: Options) -> Tensor:
    """Which classes have target pixels, in each pool."""
    target, mode = inputs["target"], options.get("mode", "multiclass")
    if mode == "binary":
        target = target.unsqueeze(1)
    elif mode == "multiclass":
        seen = target != options.get("ignore_index", -100)
        hot = torch.nn.functional.one_hot(target, _C).movedim(-1, 1)
        target = hot * seen.unsqueeze(1)
    present = (target.flatten(2) > 0).any(2)
    return present.any(0) if options.get("pool", "batch") == "batch" else present


def _weights(inputs: Inputs, options: Options) -> Tensor:
    classes = 1 if options.get("mode") == "binary" else _C
    weight: Tensor = options.get("class_weight", torch.ones(classes))
    return weight.double().to(inputs["target"].device)


def _count(inputs: Inputs, options: Options) -> Tensor:
    """The classes, or weights of classes, that are present, in each pool."""
    present, weight = _present(inputs, options), _weights(inputs, options).clone()
    if options.get("absent", "skip") != "skip":
        present = torch.ones_like(present)
    if not options.get("background", True):
        weight[0] = 0
    return (present * weight).sum()


def _count_pools(inputs: Inputs, options: Options) -> Tensor:
    """The pools in which some class is present."""
    return _present(inputs, options).any(-1).sum()


def _count_terms(inputs: Inputs, options: Options, term: str) -> Mapping[str, Tensor]:
    """Of Dice the classes; of the other term the pixels, by weight, of each label if they are."""
    target, weight = inputs["target"], _weights(inputs, options)
    by = inputs.get("weight", torch.ones((), device=target.device)).double()
    if options.get("mode", "multiclass") == "multiclass":
        seen = target != options.get("ignore_index", -100)
        pixels = (seen * weight[target] * by).sum()
    else:
        by = by.unsqueeze(1) if by.ndim else by
        pixels = (weight[:, None] * by * torch.ones_like(inputs["logits"], dtype=by.dtype)).sum()
    counted = _count_pools if options.get("weighting") else _count
    return {"dice": counted(inputs, options), term: pixels}


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


_weighed, _weighed_soft = (with_(make, "weight", "logits", features=1) for make in (_pixels, _soft))


def _regions(
    function: Callable[..., Tensor],
    module: Callable[..., nn.Module],
    cases: Mapping[str, Case],
    *refused: Refused,
    **row: Any,
) -> Spec:
    return Spec(
        name=function.__name__,
        function=function,
        module=module,
        inputs=_pixels,
        cases=pooled(cases),
        features=1,
        joint=True,
        hide=_hide,
        perfect=_perfect,
        least_within=8,
        hopeless=_hopeless,
        extremes=_extremes,
        refused=(
            Refused("an unknown mode", "mode", {"mode": "softmax"}),
            Refused("an unknown policy", "absent", {"absent": "ignore"}),
            Refused("an unknown pool", "pool", {"pool": "image"}),
            Refused(
                "a weight per class too few", "class_weight", {"class_weight": torch.ones(_C - 1)}
            ),
            Refused("a class out of range", "target", change=_out_of_range),
            Refused("one class", "mode", change=_one_class),
            Refused("labels beyond 1", "target", {"mode": "multilabel"}, _large_labels),
            Refused("masks of other pixels", "target", {"mode": "binary"}),
            Refused("labels without a background", "background", _NO_BACKGROUND, _as_labels),
            Refused("weights of one pixel", "weight", change=_one_pixel_weight),
            *refused,
        ),
        exempt={**HAS_A_UNIT, **NOTHING_FROZEN, **row.pop("exempt", {})},
        **{"count": _count, **row},
    )


def _ratios(*, log: bool = False, **options: Any) -> dict[str, Case]:
    """The cases of a ratio of sums, with its own options away from their defaults."""
    logarithm = {"log": case(axis=-1, log=True, extremes=_extremes, **options)} if log else {}
    return {
        "classes": case(axis=-1),
        "weighted": case(_weighed, axis=-1, class_weight=_PER_CLASS, ignore_index=2, **options),
        "images": case(
            _images,
            pool="sample",
            absent="penalize",
            class_weight=_PER_CLASS,
            background=False,
            reduction="none",
        ),
        "images, some classes": case(_images, pool="sample", ignore_index=1, smooth=1.0, **options),
        "labels": case(_labels, mode="multilabel", pool="sample", ignore_index=7, reduction="sum"),
        "soft labels": case(
            _weighed_soft, axis=-1, mode="multilabel", absent="smooth", smooth=2.0, **options
        ),
        "mask": case(_mask, axis=-1, mode="binary", absent="zero", extremes=_extreme_masks),
        **logarithm,
    }


def _compounds(*, soft: bool = False, **options: Any) -> dict[str, Case]:
    """The cases of Dice with another term: fewer, the Dice has its own row."""
    softly = case(_weighed_soft, axis=-1, mode="multilabel", absent="smooth", smooth=2.0, **options)
    return {
        "classes": case(axis=-1),
        "weighted": case(_weighed, axis=-1, class_weight=_PER_CLASS, ignore_index=2, **options),
        "images": case(_images, pool="sample", absent="penalize", background=False, **options),
        "images, smoothed": case(_images, pool="sample", smooth=1.0, reduction="sum"),
        "labels": case(
            _labels,
            mode="multilabel",
            pool="sample",
            class_weight=_PER_CLASS,
            weighting="linear",
            **options,
        ),
        "mask": case(_mask, axis=-1, mode="binary", absent="zero", extremes=_extreme_masks),
        **({"soft labels": softly} if soft else {}),
    }


def _squared() -> dict[str, Case]:
    return {
        "squares": case(axis=-1, squared=True, smooth=1.0),
        "squares of soft labels": case(
            _weighed_soft, axis=-1, mode="multilabel", squared=True, absent="penalize"
        ),
    }


def _mixed() -> dict[str, Case]:
    """Of a loss that needs pixels of a class and others."""
    return {
        "classes": case(axis=-1),
        "weighted": case(_weighed, axis=-1, class_weight=_PER_CLASS, ignore_index=2),
        "images": case(
            _images, pool="sample", absent="penalize", background=False, reduction="none"
        ),
        "labels": case(_labels, mode="multilabel", pool="sample", ignore_index=7, reduction="sum"),
        "soft labels": case(_weighed_soft, axis=-1, mode="multilabel"),
        "mask": case(_mask, axis=-1, mode="binary", absent="zero", extremes=_extreme_masks),
    }


def _apart() -> dict[str, Case]:
    fixed = {"gradient_reaches_all_who_ask": "finite differences leave distances with a diagonal"}
    lost = {"hopeless_keeps_a_gradient": "without an object that is found, background is no matter"}
    given = dict[str, Any](class_distance=_DISTANCE)
    return {
        "classes": case(axis=-1, exempt=lost),
        "weighted": case(_weighed, axis=-1, ignore_index=2, exempt={**fixed, **lost}, **given),
        "images": case(_few_pixels, pool="sample", absent="penalize", reduction="none"),
    }


def _count_mixed(inputs: Inputs, options: Options) -> Tensor:
    """Those that are present, but do not have all pixels, by weight."""
    target, mode = inputs["target"], options.get("mode", "multiclass")
    ignored = options.get("ignore_index", -100)
    if mode == "multiclass":
        known = (target != ignored).unsqueeze(1)
        target = torch.nn.functional.one_hot(target, _C).movedim(-1, 1)
    else:
        target = target.unsqueeze(1) if mode == "binary" else target
        known = target != ignored
    missing = ((target < 1) & known).flatten(2).any(2)
    missing = missing.any(0) if options.get("pool", "batch") == "batch" else missing
    present, weight = _present(inputs, options) & missing, _weights(inputs, options).clone()
    if options.get("absent", "skip") != "skip":
        present = torch.ones_like(present)
    if not options.get("background", True):
        weight[0] = 0
    return (present * weight).sum()


def _count_objects(inputs: Inputs, options: Options) -> Tensor:
    """The pools in which there is an object; or all."""
    target = inputs["target"]
    there = ((target > 0) & (target != options.get("ignore_index", -100))).flatten(1).any(1)
    if options.get("absent", "skip") != "skip":
        there = torch.ones_like(there)
    return there.sum() if options.get("pool", "batch") == "sample" else there.any()


def _rarities() -> dict[str, Case]:
    return {
        "classes": case(axis=-1),
        "weighted": case(
            _weighed, axis=-1, class_weight=_PER_CLASS, ignore_index=2, weighting="linear"
        ),
        "images": case(
            _images, pool="sample", absent="penalize", background=False, reduction="none"
        ),
        "labels": case(_labels, mode="multilabel", pool="sample", ignore_index=7, reduction="sum"),
        "soft labels": case(_weighed_soft, axis=-1, mode="multilabel", weighting="uniform"),
        "mask": case(_mask, axis=-1, mode="binary", absent="zero", extremes=_extreme_masks),
    }


def _sorted() -> dict[str, Case]:
    whole = {
        "split_invariance": "a sort of the batch needs the batch: ranks cannot be pooled",
        "size_changes_nothing": "of equal errors the sort lets one bear the whole gradient",
    }
    return {
        "classes": case(axis=-1, exempt=whole),
        "weighted": case(_weighed, axis=-1, class_weight=_PER_CLASS, ignore_index=2, exempt=whole),
        "images": case(
            _images, pool="sample", absent="penalize", background=False, reduction="none"
        ),
        "images, some classes": case(_images, pool="sample", ignore_index=1),
        "labels": case(_labels, mode="multilabel", pool="sample", ignore_index=7, reduction="sum"),
        "mask": case(
            _mask, axis=-1, mode="binary", absent="zero", extremes=_extreme_masks, exempt=whole
        ),
    }


def _out_of_range(inputs: Inputs) -> Inputs:
    return {**inputs, "target": inputs["target"] + 1}


def _one_class(inputs: Inputs) -> Inputs:
    return {"logits": inputs["logits"][:, :1], "target": inputs["target"] * 0}


def _large_labels(inputs: Inputs) -> Inputs:
    return {**inputs, "target": inputs["logits"].abs() + 1}


def _one_pixel_weight(inputs: Inputs) -> Inputs:
    return {**inputs, "weight": torch.ones(2, 1)}


def _as_labels(inputs: Inputs) -> Inputs:
    return {**inputs, "target": torch.zeros_like(inputs["logits"])}


def _same(sums: Tensor) -> Tensor:
    return sums


_OFF = torch.ones(_C, _C)
_NO_BACKGROUND = {"background": False, "mode": "multilabel"}
_NO_BETA = Refused("no price for misses", "beta", {"beta": 0.0})
_NO_ALPHA = Refused("a negative price", "alpha", {"alpha": -0.1})
_SMOOTH = (
    Refused("a policy that needs a number", "smooth", {"absent": "smooth"}),
    Refused("negative smoothing", "smooth", {"smooth": -1.0}),
)
_HARD = Refused("soft targets", "target", change=_as_labels)
_SUM_OF_TERMS: dict[str, Any] = {
    "composite": True,
    "exempt": {"none_sums_to_sum": "terms with counts of their own have no values to sum"},
}

REGIONS = (
    _regions(
        dice_loss,
        DiceLoss,
        {**_ratios(log=True), **_squared()},
        *_SMOOTH,
        Refused("squares and a logarithm", "log", {"squared": True, "log": True}),
    ),
    _regions(mask_iou_loss, IoULoss, _ratios(log=True), *_SMOOTH),
    _regions(
        tversky_loss,
        TverskyLoss,
        _ratios(log=True, alpha=0.3, beta=0.7),
        *_SMOOTH,
        _NO_BETA,
        _NO_ALPHA,
    ),
    _regions(
        focal_tversky_loss,
        FocalTverskyLoss,
        _ratios(alpha=0.3, beta=0.7, gamma=1.5),
        *_SMOOTH,
        _NO_BETA,
        _NO_ALPHA,
        Refused("exponent 0", "gamma", {"gamma": 0.0}),
    ),
    _regions(
        generalized_dice_loss,
        GeneralizedDiceLoss,
        _rarities(),
        Refused("an unknown weighting", "weighting", {"weighting": "cube"}),
        Refused("smoothing, which it has not", "absent", {"absent": "smooth"}),
        count=_count_pools,
    ),
    _regions(
        mcc_loss,
        MCCLoss,
        _mixed(),
        Refused("smoothing, which it has not", "absent", {"absent": "smooth"}),
        count=_count_mixed,
    ),
    Spec(
        name="wasserstein_dice_loss",
        function=wasserstein_dice_loss,
        module=WassersteinDiceLoss,
        inputs=_pixels,
        cases=pooled(_apart()),
        features=1,
        joint=True,
        hide=_hide,
        count=_count_objects,
        perfect=_perfect,
        least_within=8,
        hopeless=_hopeless,
        extremes=_extremes,
        refused=(
            Refused("an unknown policy", "absent", {"absent": "ignore"}),
            Refused("an unknown pool", "pool", {"pool": "image"}),
            Refused("too few distances", "class_distance", {"class_distance": torch.ones(2, 3)}),
            Refused("a class away from itself", "class_distance", {"class_distance": _OFF}),
            Refused("a distance beyond 1", "class_distance", {"class_distance": 2 * _DISTANCE}),
            Refused("a class out of range", "target", change=_out_of_range),
            Refused("soft targets", "target", change=_as_labels),
            Refused("weights of one pixel", "weight", change=_one_pixel_weight),
        ),
        exempt={**HAS_A_UNIT, **NOTHING_FROZEN},
    ),
    _regions(
        dice_ce_loss,
        DiceCELoss,
        _compounds(soft=True, dice_weight=0.5, ce_weight=2.0),
        *_SMOOTH,
        Refused("a negative weight", "ce_weight", {"ce_weight": -1.0}),
        count=partial(_count_terms, term="cross_entropy"),
        **_SUM_OF_TERMS,
    ),
    _regions(
        dice_focal_loss,
        DiceFocalLoss,
        _compounds(gamma=1.5, dice_weight=0.5, focal_weight=2.0),
        *_SMOOTH,
        Refused("a negative weight", "dice_weight", {"dice_weight": -1.0}),
        Refused("no focus", "gamma", {"gamma": 0.0}),
        _HARD,
        count=partial(_count_terms, term="focal"),
        **_SUM_OF_TERMS,
    ),
    _regions(
        lovasz_loss,
        LovaszLoss,
        _sorted(),
        Refused("a sum over ranks", "pool", {"pool": _same}),
        Refused("smoothing, which it has not", "absent", {"absent": "smooth"}),
        _HARD,
        walks=False,
        exempt={"streamed_equals_plain": "it sorts class by class instead; its own tests compare"},
    ),
)
