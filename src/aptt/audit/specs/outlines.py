"""Rows of the losses that look at the outline of a mask."""

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
    uniform,
    with_,
)
from aptt.loss import (
    BoundaryLoss,
    ClDiceLoss,
    HausdorffLoss,
    boundary_loss,
    cl_dice_loss,
    hausdorff_loss,
    signed_distance,
    soft_skeleton,
)

__all__ = ["OUTLINES"]

_C = 3
_PER_CLASS = torch.tensor([0.5, 2.0, 1.0])


def _images(g: Generator, n: int) -> Inputs:
    return {"logits": normal(g, n, _C, 3, 4, scale=2), "target": indices(g, _C, n, 3, 4)}


def _weighed(g: Generator, n: int) -> Inputs:
    return with_(_images, "weight", "logits", features=1)(g, n)


def _lines(g: Generator, n: int) -> Inputs:
    """Images of so few pixels that classes are absent, or alone."""
    return {"logits": normal(g, n, _C, 2, scale=2), "target": indices(g, _C, n, 2)}


def _labels(g: Generator, n: int) -> Inputs:
    """With pixels of another size in each sample."""
    size = uniform(g, n, 1, low=0.5, high=3.0)
    return {
        "logits": normal(g, n, _C, 5, scale=2),
        "target": bits(g, n, _C, 5),
        "spacing": size,
    }


def _mask(g: Generator, n: int) -> Inputs:
    return {"logits": normal(g, n, 1, 2, 3, scale=2), "target": bits(g, n, 2, 3)}


def _mapped(g: Generator, n: int) -> Inputs:
    """With a map of distances, as a data loader has it."""
    made = _mask(g, n)
    far = signed_distance(made["target"].unsqueeze(1), rim="centre").double()
    return {**made, "distance_map": far * (1 + uniform(g, *far.shape))}


def _extremes() -> Inputs:
    big = grid([6e4, -6e4, -6e4], [-6e4, 6e4, 6e4], [30, -30, 0], [0, 0, 0], [6e4, 6e4, 6e4])
    logits = torch.stack((big.T, big.flip(0).T, -big.T))
    return {"logits": logits, "target": grid([0, 1, 2, 0, 1], [1] * 5, [2, 2, 0, 0, 0]).long()}


def _extreme_masks() -> Inputs:
    big = grid([6e4, -6e4, 100, -100, 12, -12, 0, 1e-6])
    target = grid([1, 0, 1, 0, 1, 0, 1, 0], [0, 1, 1, 1, 0, 0, 0, 1], [0] * 8)
    far = signed_distance(target.unsqueeze(1)).double()
    logits = torch.cat((big, big, -big)).unsqueeze(1)
    return {"logits": logits, "target": target, "distance_map": far}


def _hide(inputs: Inputs, options: Options, keep: Tensor) -> Inputs:
    if "weight" in inputs:
        return {**inputs, "weight": inputs["weight"].masked_fill(~keep, 0)}
    ignored, mode = options.get("ignore_index"), options.get("mode", "multiclass")
    if ignored is None and mode != "multiclass":
        return {**inputs, "weight": keep.double()}
    drop = ~keep.unsqueeze(1).expand(inputs["logits"].shape) if mode != "multiclass" else ~keep
    return {**inputs, "target": inputs["target"].masked_fill(drop, ignored or -100)}


def _sides(inputs: Inputs, options: Options) -> tuple[Tensor, Tensor]:
    """Which pixels each class has, and which are known not to be of it, ``(N, C, S)``."""
    target, mode = inputs["target"], options.get("mode", "multiclass")
    ignored = options.get("ignore_index")
    if mode == "multiclass":
        known = (target != (-100 if ignored is None else ignored)).unsqueeze(1).flatten(2)
        own = torch.stack([target == c for c in range(_C)], 1).flatten(2)
    else:
        own = (target.unsqueeze(1) if mode == "binary" else target).flatten(2)
        known = own != (7 if ignored is None else ignored)
        own = own == 1
    if "weight" in inputs:
        known = known & (inputs["weight"] != 0).unsqueeze(1).flatten(2)
    return own & known, ~own & known


def _count(inputs: Inputs, options: Options) -> Tensor:
    """Pixels by weight, times the weights of the classes that have a boundary there."""
    own, other = _sides(inputs, options)
    weight = torch.ones((), device=own.device).double()
    if "weight" in inputs:
        weight = inputs["weight"].double().unsqueeze(1).flatten(2)
    share = (own.any(2) & other.any(2)).double()
    if options.get("absent", "skip") != "skip":
        share = torch.ones_like(share)
    share = share * options.get("class_weight", torch.ones(own.shape[1])).double().to(own.device)
    if not options.get("background", True):
        share[:, 0] = 0
    return (share.unsqueeze(2) * (own | other) * weight).sum()


def _sign(inputs: Inputs, options: Options) -> Tensor:
    own, _ = _sides({k: t for k, t in inputs.items() if k != "weight"}, options)
    return 2 * own.view(inputs["logits"].shape).double() - 1


def _perfect(inputs: Inputs, options: Options) -> tuple[Inputs, float]:
    return {**inputs, "logits": 1000 * _sign(inputs, options)}, 0.0


def _hopeless(inputs: Inputs, options: Options) -> Inputs:
    return {**inputs, "logits": inputs["logits"] / 10 - 5 * _sign(inputs, options)}


def _outline(
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
        inputs=_images,
        cases=cases,
        features=1,
        joint=True,
        hide=_hide,
        count=_count,
        perfect=_perfect,
        hopeless=_hopeless,
        extremes=_extremes,
        refused=(
            Refused("an unknown mode", "mode", {"mode": "softmax"}),
            Refused("an unknown policy", "absent", {"absent": "smooth"}),
            Refused("no reach", "cap", {"cap": 0.0}),
            Refused("a pixel without size", "spacing", change=partial(_spaced, by=(1.0, 0.0))),
            Refused("an axis too few", "spacing", change=partial(_spaced, by=(1.0,))),
            Refused("maps of other pixels", "distance_map", change=_other_map),
            Refused("two measures", "spacing", change=_with_map),
            Refused("too few class weights", "class_weight", {"class_weight": torch.ones(_C - 1)}),
            Refused("a class out of range", "target", change=_out_of_range),
            Refused("soft targets", "target", change=_soft),
            Refused("labels without a background", "background", _NO_BACKGROUND, _as_labels),
            *refused,
        ),
        exempt={**HAS_A_UNIT, **NOTHING_FROZEN, **row.pop("exempt", {})},
        **row,
    )


def _out_of_range(inputs: Inputs) -> Inputs:
    return {**inputs, "target": inputs["target"] + 1}


def _with_map(inputs: Inputs) -> Inputs:
    both = {"distance_map": torch.ones_like(inputs["logits"]), "spacing": torch.ones(2)}
    return {**inputs, **both}


def _spaced(inputs: Inputs, by: tuple[float, ...]) -> Inputs:
    return {**inputs, "spacing": torch.tensor(by)}


def _other_map(inputs: Inputs) -> Inputs:
    return {**inputs, "distance_map": torch.ones(1, _C, 3, 4)}


def _soft(inputs: Inputs) -> Inputs:
    return {**inputs, "target": torch.zeros_like(inputs["logits"])}


def _as_labels(inputs: Inputs) -> Inputs:
    return {**inputs, "target": torch.zeros_like(inputs["logits"]).long()}


def _cases(**options: Any) -> dict[str, Case]:
    return {
        "classes": case(),
        "weighted": case(
            _weighed,
            class_weight=_PER_CLASS,
            ignore_index=2,
            cap=1.5,
            **options,
        ),
        "few pixels": case(_lines, absent="penalize", background=False, reduction="none"),
        "labels": case(
            _labels,
            mode="multilabel",
            ignore_index=7,
            absent="zero",
            reduction="sum",
            exempt=_MEASURED,
        ),
        "mask": case(_mapped, mode="binary", extremes=_extreme_masks),
    }


_MEASURED = {"gradient_reaches_all_who_ask": "the size of a pixel is measured, and a constant"}
_NO_BACKGROUND = {"background": False, "mode": "multilabel"}


def _tubes(g: Generator, n: int) -> Inputs:
    """Columns and rows, one pixel wide and wider, of no two probabilities alike."""
    target = torch.zeros(n, 4, 3, dtype=torch.long)
    for i, at in enumerate(torch.randint(3, (n,), generator=g).tolist()):
        target[i, :, at] = 1
        target[i, at : at + 1 + i % 3] = 1 + i % 2
    return {"logits": normal(g, n, _C, 4, 3, scale=2), "target": target}


def _tube_mask(g: Generator, n: int) -> Inputs:
    made = _tubes(g, n)
    return {"logits": made["logits"][:, :1], "target": made["target"].clamp(max=1)}


def _tube_labels(g: Generator, n: int) -> Inputs:
    made = _tubes(g, n)
    hot = torch.nn.functional.one_hot(made["target"], _C).movedim(-1, 1)
    return {**made, "target": hot, "skeleton": hot.double() * uniform(g, *hot.shape)}


def _count_skeletons(inputs: Inputs, options: Options) -> Tensor:
    """The class weights of the classes whose target has a skeleton, in each pool."""
    own, _ = _sides(inputs, options)
    if "skeleton" in inputs:
        there = inputs["skeleton"].flatten(2)
    else:
        mask = own.view(*own.shape[:2], *inputs["logits"].shape[2:]).double()
        how = {k: options[k] for k in ("iterations", "border") if k in options}
        there = soft_skeleton(mask, **how).flatten(2)
    there = (there > 0).any(2)
    there = there if options.get("pool", "batch") == "sample" else there.any(0)
    weight = options.get("class_weight", torch.ones(own.shape[1])).double().to(own.device)
    there = torch.ones_like(there) if options.get("absent", "skip") != "skip" else there
    if not options.get("background", True):
        weight = weight * (torch.arange(len(weight), device=weight.device) > 0)
    return (there * weight).sum()


def _cl_dice() -> Spec:
    joint = {"samples_stand_alone": "one statistic of the whole batch, by its option 'pool'"}
    weighed = with_(_tubes, "weight", "logits", features=1)
    return Spec(
        name="cl_dice_loss",
        function=cl_dice_loss,
        module=ClDiceLoss,
        inputs=_tubes,
        cases={
            "classes": case(exempt=joint),
            "weighted": case(
                weighed,
                class_weight=_PER_CLASS,
                ignore_index=2,
                iterations=0,
                border="background",
                exempt=joint,
            ),
            "images": case(
                pool="sample", absent="penalize", background=False, iterations=1, reduction="none"
            ),
            "labels": case(_tube_labels, mode="multilabel", pool="sample", iterations=1),
            "mask": case(_tube_mask, mode="binary", absent="zero", iterations=1, exempt=joint),
        },
        features=1,
        joint=True,
        walks=False,
        hide=_hide,
        count=_count_skeletons,
        perfect=lambda i, o: (_perfect(i, o)[0], None if "skeleton" in i else 0.0),
        hopeless=_hopeless,
        extremes=_extremes,
        refused=(
            Refused("an unknown mode", "mode", {"mode": "softmax"}),
            Refused("an unknown policy", "absent", {"absent": "smooth"}),
            Refused("an unknown pool", "pool", {"pool": "image"}),
            Refused("an unknown border", "border", {"border": "zeros"}),
            Refused("a part of an erosion", "iterations", {"iterations": 1.5}),
            Refused("a skeleton of other pixels", "skeleton", change=_other_skeleton),
            Refused("too few class weights", "class_weight", {"class_weight": torch.ones(_C - 1)}),
            Refused("a class out of range", "target", change=_out_of_range),
            Refused("soft targets", "target", change=_soft),
        ),
        exempt={
            **HAS_A_UNIT,
            **NOTHING_FROZEN,
            "streamed_equals_plain": "a stencil is not walked; its own tests compare",
            "near_perfect_keeps_digits": "a skeleton is a difference of probabilities near 1",
            "hopeless_keeps_a_gradient": "where no skeleton is predicted it is flat, as it says",
        },
    )


def _other_skeleton(inputs: Inputs) -> Inputs:
    return {**inputs, "skeleton": torch.ones(1, _C, 4, 3)}


_STEPS = {
    "hopeless_keeps_a_gradient": "a pixel that passes 1/2 moves the prediction's boundary at once",
}

OUTLINES = (
    _outline(
        boundary_loss,
        BoundaryLoss,
        _cases(rim="centre"),
        Refused("an unknown rim", "rim", {"rim": "outer"}),
    ),
    _outline(
        hausdorff_loss,
        HausdorffLoss,
        {**_cases(distance_power=1.5), "both": case(one_sided=False, exempt=_STEPS)},
        Refused("exponent 0", "distance_power", {"distance_power": 0.0}),
    ),
    _cl_dice(),
)
