"""Rows of the box losses."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Generator, Tensor, nn

from aptt.audit.spec import Case, Inputs, Maker, Options, Refused, Scaling, Spec, case
from aptt.audit.specs.making import NOTHING_FROZEN, grid, uniform, with_
from aptt.loss import (
    BoxIoULoss,
    BoxL1Loss,
    CIoULoss,
    DIoULoss,
    EIoULoss,
    GIoULoss,
    KLDLoss,
    NWDLoss,
    ProbIoULoss,
    RotatedGIoULoss,
    RotatedIoULoss,
    SIoULoss,
    box_iou_loss,
    box_l1_loss,
    ciou_loss,
    diou_loss,
    eiou_loss,
    giou_loss,
    kld_loss,
    nwd_loss,
    probiou_loss,
    rotated_giou_loss,
    rotated_iou_loss,
    siou_loss,
)

__all__ = ["BOXES"]


def _corners(g: Generator, n: int, axes: int = 2) -> Inputs:
    """Boxes that overlap, or not."""
    low = uniform(g, n, axes, low=-20, high=80)
    target = torch.cat((low, low + uniform(g, n, axes, low=5, high=60)), 1)
    first, second = (target + uniform(g, n, 2 * axes, low=-12, high=12)).chunk(2, 1)
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    return {"pred_boxes": torch.cat((low, high + 0.5), 1), "target_boxes": target}


_SEGMENTS = {"segments": case(lambda g, n: _corners(g, n, 1))}
_CUBOIDS = {"cuboids": case(lambda g, n: _corners(g, n, 3))}


def _inside_out(g: Generator, n: int) -> Inputs:
    """Predictions that are turned inside out, along x or along both axes."""
    inputs = _corners(g, n)
    pred = inputs["pred_boxes"]
    pred[::2] = pred[::2, [2, 1, 0, 3]]
    pred[1::2] = pred[1::2, [2, 3, 0, 1]]
    return inputs


def _sized(centred: bool) -> Maker:
    def made(g: Generator, n: int) -> Inputs:
        inputs = {}
        for name, t in _corners(g, n).items():
            first, size = t[:, :2], t[:, 2:] - t[:, :2]
            inputs[name] = torch.cat((first + size / 2 if centred else first, size), 1)
        return inputs

    return made


def _rows_of_boxes(g: Generator, n: int) -> Inputs:
    return {k: t.view(n, 2, 4) for k, t in _corners(g, 2 * n).items()}


def _extremes() -> Inputs:
    shapes = grid(
        [0, 0, 1, 1],
        [3, 3, 4, 4],
        [1, 0, 2, 1],
        [1, 1, 2, 2],
        [0.5, 0.5, 0.5, 0.5],
        [0, 0, 0, 0],
        [7, 7, 7, 7],
        [0, 0.5, 1, 0.5],
        [0.5, -1, 0.5, 2],
        [1, 1, 0, 0],
        [1, 0, 0, 1],
        [4, 4, 3, 3],
        [0.25, 0.25, 0.75, 0.75],
        [-1, -1, 2, 2],
        [0.5, 0.5, 0.5 + 2**-10, 0.5 + 2**-10],
        [1000, 0, 1001, 1],
        [0, 0, 1, 2**-20],
        [2**-22, 2**-21, 1 + 2**-22, 1.5 * 2**-20],
    )
    target = shapes[[0, 4, 7, 8, 16]]
    pairs = torch.cartesian_prod(torch.arange(len(shapes)), torch.arange(len(target)))
    pred, target = shapes[pairs[:, 0]], target[pairs[:, 1]]
    scales = (1.0, 1e-6, 1e6)
    return {
        "pred_boxes": torch.cat([pred * s for s in scales]),
        "target_boxes": torch.cat([target * s for s in scales]),
    }


def _within(constant: float) -> Callable[[Inputs], Tensor]:
    """At most ``constant`` over the enclosing length, along each axis."""

    def bound(inputs: Inputs) -> Tensor:
        both = torch.stack(tuple(inputs.values()))
        first, second = both.chunk(2, -1)
        low, high = torch.minimum(first, second).amin(0), torch.maximum(first, second).amax(0)
        return constant / (high - low).repeat(1, 2)

    return bound


def _hide(inputs: Inputs, options: Options, keep: Tensor) -> Inputs:
    if "weight" in inputs:
        return {**inputs, "weight": inputs["weight"].masked_fill(~keep, 0)}
    return {**inputs, "weight": keep}


def _count(inputs: Inputs, options: Options) -> Tensor | float:
    if "weight" in inputs and options.get("normalize") != "positives":
        return inputs["weight"].sum()
    return inputs["pred_boxes"].numel() / inputs["pred_boxes"].shape[-1]


def _far(inputs: Inputs, options: Options) -> Inputs:
    axes = inputs["pred_boxes"].shape[-1] // 2
    away = grid([500, 300, 200][:axes] * 2).to(inputs["pred_boxes"])
    if options.get("box_format", "xyxy") != "xyxy":
        away[:, axes:] = 0
    return {**inputs, "pred_boxes": inputs["target_boxes"] + away}


def _in_unit(inputs: Inputs, unit: float) -> Inputs:
    return {k: t * unit if "boxes" in k else t for k, t in inputs.items()}


_HELD = "the enclosing length is held constant, so that the whole gradient turns the box back"
_TURNED = dict.fromkeys(
    ("gradient_is_right", "double_backward", "gradient_reaches_all_who_ask"), _HELD
)
_DEAR = {"hopeless_keeps_a_gradient": "boxes inside out cost more than boxes far away"}


def _boxes(
    function: Callable[..., Tensor],
    module: Callable[..., nn.Module],
    bound: float,
    *,
    cases: Mapping[str, Case] | None = None,
    refused: tuple[Refused, ...] = (),
    exempt: Mapping[str, str] = NOTHING_FROZEN,
    **more: Any,
) -> Spec:
    weighted = with_(_sized(False), "weight", "pred_boxes", features=-1)
    return Spec(
        name=function.__name__,
        function=function,
        module=module,
        inputs=_corners,
        cases={
            "corners": case(),
            "corner and size, weighted": case(weighted, box_format="xywh"),
            "centre and size": case(_sized(True), box_format="cxcywh", reduction="sum"),
            "in rows": case(_rows_of_boxes, reduction="none"),
            "to the power": case(power=3.0, bound=_within(3 * bound)),
            "per box": case(weighted, box_format="xywh", power=2.0, normalize="positives"),
            "inside out": case(_inside_out, exempt={**_TURNED, **_DEAR}),
            **(cases or {}),
        },
        features=-1,
        hide=_hide,
        count=_count,
        perfect=lambda i, o: ({**i, "pred_boxes": i["target_boxes"]}, 0.0),
        hopeless=_far,
        extremes=_extremes,
        bound=_within(bound),
        scaling=Scaling(_in_unit),
        refused=(
            Refused("an unknown format", "box_format", {"box_format": "yxyx"}),
            Refused("three numbers a box", "pred_boxes", change=_cut(3, "pred_boxes")),
            Refused("a target of three numbers", "target_boxes", change=_cut(3, "target_boxes")),
            Refused("all pairs", "target_boxes", change=_all_pairs),
            Refused("weights of one", "weight", change=_one_weight),
            Refused("a power below 1", "power", {"power": 0.5}),
            Refused("an unknown count", "normalize", {"normalize": "boxes"}),
            Refused(
                "a row that is NaN", "row 4", {"validate": True}, _not_a_number, exercises=True
            ),
            Refused("a target inside out", "row 0", {"validate": True}, _turned_target),
            *refused,
        ),
        exempt=exempt,
        **more,
    )


def _cut(numbers: int, *names: str) -> Callable[[Inputs], Inputs]:
    return lambda i: {**i, **{name: i[name][:, :numbers] for name in names}}


def _all_pairs(inputs: Inputs) -> Inputs:
    return {
        "pred_boxes": inputs["pred_boxes"].unsqueeze(1),
        "target_boxes": inputs["target_boxes"].unsqueeze(0),
    }


def _one_weight(inputs: Inputs) -> Inputs:
    return {**inputs, "weight": torch.ones(1)}


def _not_a_number(inputs: Inputs) -> Inputs:
    pred = inputs["pred_boxes"].clone()
    pred[4, 1] = math.nan
    return {**inputs, "pred_boxes": pred}


def _turned_target(inputs: Inputs) -> Inputs:
    return {**inputs, "target_boxes": inputs["target_boxes"].flip(1)}


def _ciou_held(inputs: Inputs, options: Options) -> Callable[[Tensor], Tensor]:
    """CIoU as DIoU and its aspect term, the factor of the latter fixed at its present value."""
    diou: dict[str, Any] = {k: v for k, v in options.items() if k in ("box_format", "power")}
    rest: dict[str, Any] = {k: t for k, t in inputs.items() if k != "pred_boxes"}

    def edges(boxes: Tensor) -> tuple[Tensor, Tensor]:
        first, second = boxes[..., :2], boxes[..., 2:]
        if "box_format" not in options:
            return first, second
        first = first - second / 2 if options["box_format"] == "cxcywh" else first
        return first, first + second

    goal_low, goal_high = edges(inputs["target_boxes"])
    goal = goal_high - goal_low

    def aspect(x: Tensor) -> Tensor:
        low, high = edges(x)
        size = (high - low).clamp(min=0)
        gap = torch.atan2(goal[..., 0], goal[..., 1]) - torch.atan2(size[..., 0], size[..., 1])
        some = (size > 0).any(-1)  # a point has no aspect
        return torch.where(some, 4 / math.pi**2 * gap.square(), 0.0)

    low, high = edges(inputs["pred_boxes"].detach())
    common = (torch.minimum(high, goal_high) - torch.maximum(low, goal_low)).clamp(min=0).prod(-1)
    iou = common / ((high - low).clamp(min=0).prod(-1) + goal.prod(-1) - common)
    v = aspect(inputs["pred_boxes"].detach())
    alpha = v / (1 - iou + v)
    if options.get("gate"):
        alpha = torch.where(iou > 0.5, alpha, 0.0)
    power, weight = options.get("power", 1.0), inputs.get("weight", torch.ones_like(alpha))

    def held(x: Tensor) -> Tensor:
        return (
            diou_loss(x, **rest, **diou, reduction="none") + weight * (alpha * aspect(x)) ** power
        )

    return held


def _rotated(g: Generator, n: int) -> Inputs:
    """Predictions near their targets; some of them written with their sides exchanged."""
    target = torch.cat(
        (
            uniform(g, n, 2, low=-20, high=80),
            uniform(g, n, 2, low=8, high=60),
            uniform(g, n, 1, low=-3, high=3),
        ),
        1,
    )
    off = torch.cat((uniform(g, n, 4, low=-7, high=7), uniform(g, n, 1, low=-0.6, high=0.6)), 1)
    pred = target + off
    pred[1::3] = pred[1::3][:, [0, 1, 3, 2, 4]]
    pred[1::3, 4] += math.pi / 2
    return {"pred_boxes": pred, "target_boxes": target}


def _rotated_rows(g: Generator, n: int) -> Inputs:
    return {k: t.view(n, 2, 5) for k, t in _rotated(g, 2 * n).items()}


def _rotated_extremes() -> Inputs:
    shapes = grid(
        [0, 0, 4, 2, 0.5],
        [1, 1, 2, 4, 0.5 + math.pi],
        [0, 0, 3, 3, 0.25],
        [0, 0, 3, 3, 1],
        [0, 0, 4, 0, 0.5],
        [0, 0, 0, 4, 0.5],
        [0, 0, 0, 0, 0],
        [1, 1, 0, 0, 3],
        [0, 0, -1, 2, 0.5],
        [0, 0, 4, 2**-10, -0.5],
        [2**-10, 0, 4, 2, 0.5],
        [9, -9, 1, 1, -3],
        [300, 200, 4, 2, 0.75],
    )
    pairs = torch.cartesian_prod(torch.arange(len(shapes)), torch.tensor([0, 2, 4, 6]))
    scales = torch.tensor([1.0, 1e-6, 1e6], dtype=torch.float64).repeat_interleave(len(pairs))
    inputs = {"pred_boxes": shapes[pairs[:, 0]], "target_boxes": shapes[pairs[:, 1]]}
    return {name: _lengths(t.repeat(3, 1), scales.unsqueeze(1)) for name, t in inputs.items()}


def _lengths(boxes: Tensor, unit: Tensor | float) -> Tensor:
    """Rotated boxes in another unit; angles have none."""
    return torch.cat((boxes[..., :-1] * unit, boxes[..., -1:]), -1)


def _within_longest(constant: float) -> Callable[[Inputs], Tensor]:
    """At most ``constant`` over the pair's longest length; in the angle, ``constant``."""

    def bound(inputs: Inputs) -> Tensor:
        pred, target = inputs.values()
        lengths = torch.cat((pred[:, :2] - target[:, :2], pred[:, 2:4], target[:, 2:4]), 1)
        longest = lengths.abs().amax(1, keepdim=True)
        return constant / torch.cat((longest.expand(-1, 4), torch.ones_like(longest)), 1)

    return bound


_SATURATED = {"hopeless_keeps_a_gradient": "by definition it saturates for boxes far apart"}


def _rotated_spec(
    function: Callable[..., Tensor],
    module: Callable[..., nn.Module],
    bound: float,
    cases: Mapping[str, Case],
    refused: tuple[Refused, ...] = (),
    exempt: Mapping[str, str] = NOTHING_FROZEN,
) -> Spec:
    weighted = with_(_rotated, "weight", "pred_boxes", features=-1)
    return Spec(
        name=function.__name__,
        function=function,
        module=module,
        inputs=_rotated,
        cases={**cases, "per box, meaned": case(weighted, normalize="positives")},
        features=-1,
        hide=_hide,
        count=_count,
        perfect=lambda i, o: ({**i, "pred_boxes": i["target_boxes"]}, 0.0),
        hopeless=_far_rotated,
        extremes=_rotated_extremes,
        bound=_within_longest(bound),
        scaling=Scaling(
            lambda i, unit: {k: _lengths(t, unit) if "boxes" in k else t for k, t in i.items()}
        ),
        refused=(
            Refused("boxes without an angle", "pred_boxes", change=_cut(4, "pred_boxes")),
            Refused("all pairs", "target_boxes", change=_all_pairs),
            Refused("weights of one", "weight", change=_one_weight),
            Refused("an unknown count", "normalize", {"normalize": "boxes"}),
            Refused(
                "a row that is NaN", "row 4", {"validate": True}, _not_a_number, exercises=True
            ),
            *refused,
        ),
        exempt=exempt,
    )


def _far_rotated(inputs: Inputs, options: Options) -> Inputs:
    numbers = inputs["pred_boxes"].shape[-1]
    away = grid([80, 60] + [0] * (numbers - 2)).to(inputs["pred_boxes"])
    return {**inputs, "pred_boxes": inputs["target_boxes"] + away}


def _cuboids(g: Generator, n: int) -> Inputs:
    """Rotated boxes that stand about each other's height."""
    inputs = _rotated(g, n)
    z, height = uniform(g, n, 1, low=-5, high=5), uniform(g, n, 1, low=8, high=20)
    off = uniform(g, n, 1, low=-4, high=4)
    return {
        k: torch.cat((t[:, :2], z + off * turn, t[:, 2:4], height - off * turn, t[:, 4:]), 1)
        for turn, (k, t) in enumerate(inputs.items())
    }


def _probiou() -> Spec:
    weighted = with_(_rotated, "weight", "pred_boxes", features=-1)
    return _rotated_spec(
        probiou_loss,
        ProbIoULoss,
        2000.0,
        {
            "Hellinger": case(),
            "Bhattacharyya": case(distance="bhattacharyya", bound=_within_longest(3e9)),
            "with angles, weighted": case(weighted, angle=0.5),
            "per box": case(
                weighted, distance="bhattacharyya", normalize="positives", reduction="sum"
            ),
            "in rows": case(_rotated_rows, angle=0.25, reduction="none"),
        },
        (
            Refused("an unknown distance", "distance", {"distance": "kld"}),
            Refused("a negative weight of angles", "angle", {"angle": -1.0}),
        ),
        {**NOTHING_FROZEN, **_SATURATED},
    )


def _kld() -> Spec:
    return _rotated_spec(
        kld_loss,
        KLDLoss,
        4000.0,
        {
            "a logarithm": case(),
            "a root, reversed": case(
                _rotated_rows, divergence="reverse", squash="sqrt", reduction="none"
            ),
            "itself": case(
                divergence="symmetric",
                squash="none",
                reduction="sum",
                bound=_within_longest(1e10),
            ),
        },
        (
            Refused("an unknown divergence", "divergence", {"divergence": "jsd"}),
            Refused("an unknown squash", "squash", {"squash": "tanh"}),
        ),
        {**NOTHING_FROZEN, **_SATURATED},
    )


def _nwd() -> Spec:
    weighted = with_(_sized(True), "weight", "pred_boxes", features=-1)
    unit = {"scale_invariance": "the unit is one of the boxes"}

    def bound(inputs: Inputs) -> Tensor:
        low, high = inputs["target_boxes"].chunk(2, -1)
        size = (high - low).square().mean(-1, keepdim=True).sqrt()
        return (1.5 / size).expand_as(inputs["pred_boxes"])

    return Spec(
        name="nwd_loss",
        function=nwd_loss,
        module=NWDLoss,
        inputs=_corners,
        cases={
            "of the target's size": case(),
            "in a unit, weighted": case(weighted, unit=30.0, box_format="cxcywh", exempt=unit),
            "per box": case(
                with_(_sized(False), "weight", "pred_boxes", features=-1),
                box_format="xywh",
                normalize="positives",
            ),
            "cuboids": case(lambda g, n: _corners(g, n, 3), reduction="sum"),
            "in rows": case(_rows_of_boxes, unit=30.0, reduction="none", exempt=unit),
        },
        features=-1,
        hide=_hide,
        count=_count,
        perfect=lambda i, o: ({**i, "pred_boxes": i["target_boxes"]}, 0.0),
        hopeless=_far,
        extremes=_extremes,
        bound=bound,
        scaling=Scaling(_in_unit),
        refused=(
            Refused("three numbers a box", "pred_boxes", change=_cut(3, "pred_boxes")),
            Refused("all pairs", "target_boxes", change=_all_pairs),
            Refused("weights of one", "weight", change=_one_weight),
            Refused("no unit", "unit", {"unit": 0.0}),
            Refused("an unknown format", "box_format", {"box_format": "yxyx"}),
            Refused("an unknown count", "normalize", {"normalize": "boxes"}),
            Refused(
                "a row that is NaN", "row 4", {"validate": True}, _not_a_number, exercises=True
            ),
        ),
        exempt={**NOTHING_FROZEN, **_SATURATED},
    )


def _l1() -> Spec:
    weighted = with_(_corners, "weight", "pred_boxes", features=-1)
    return Spec(
        name="box_l1_loss",
        function=box_l1_loss,
        module=BoxL1Loss,
        inputs=_corners,
        cases={
            "a line": case(),
            "smooth, weighted": case(
                weighted, beta=3.0, exempt={"scale_invariance": "beta has the boxes' unit"}
            ),
            "per box": case(weighted, normalize="positives"),
            "in rows": case(_rows_of_boxes, reduction="none"),
            "a sum": case(reduction="sum"),
        },
        features=-1,
        hide=_hide,
        count=_count,
        perfect=lambda i, o: ({**i, "pred_boxes": i["target_boxes"]}, 0.0),
        hopeless=_far,
        extremes=_extremes,
        bound=lambda i: torch.ones_like(i["pred_boxes"]),
        scaling=Scaling(_in_unit, degree=1),
        refused=(
            Refused("three numbers a box", "pred_boxes", change=_cut(3, "pred_boxes")),
            Refused("all pairs", "target_boxes", change=_all_pairs),
            Refused("weights of one", "weight", change=_one_weight),
            Refused("a negative beta", "beta", {"beta": -1.0}),
            Refused("an unknown count", "normalize", {"normalize": "boxes"}),
        ),
        exempt=NOTHING_FROZEN,
    )


BOXES = (
    _boxes(
        box_iou_loss,
        BoxIoULoss,
        1.01,
        cases={
            "square": case(kind="square", bound=_within(2.02)),
            "logarithm": case(kind="log", bound=_within(1.01e6)),
            **_SEGMENTS,
        },
        refused=(
            Refused("an unknown kind", "kind", {"kind": "exp"}),
            Refused("a power of another kind", "power", {"kind": "log", "power": 2.0}),
        ),
        exempt={
            **NOTHING_FROZEN,
            "hopeless_keeps_a_gradient": "by definition IoU is 0 for all boxes that are apart",
        },
    ),
    _boxes(giou_loss, GIoULoss, 2.0, cases=_CUBOIDS),
    _boxes(diou_loss, DIoULoss, 2.0, cases=_SEGMENTS),
    _boxes(
        ciou_loss,
        CIoULoss,
        132.0,
        cases={"gated": case(gate=True)},
        refused=(Refused("segments", "aspect", change=_cut(2, "pred_boxes", "target_boxes")),),
        exempt={},
        frozen={"alpha": _ciou_held},
    ),
    _boxes(eiou_loss, EIoULoss, 5.0, cases=_CUBOIDS),
    _boxes(
        siou_loss,
        SIoULoss,
        30.0,
        refused=(Refused("segments", "angle", change=_cut(2, "pred_boxes", "target_boxes")),),
    ),
    _probiou(),
    _rotated_spec(
        rotated_iou_loss,
        RotatedIoULoss,
        4000.0,
        {
            "boxes": case(),
            "in rows": case(_rotated_rows, reduction="none"),
            "cuboids": case(_cuboids, reduction="sum"),
        },
        exempt={
            **NOTHING_FROZEN,
            "hopeless_keeps_a_gradient": "by definition IoU is 0 for all boxes that are apart",
        },
    ),
    _rotated_spec(
        rotated_giou_loss,
        RotatedGIoULoss,
        4000.0,
        {
            "boxes": case(),
            "in rows": case(_rotated_rows, reduction="none"),
            "cuboids": case(_cuboids, reduction="sum"),
        },
    ),
    _kld(),
    _nwd(),
    _l1(),
)
