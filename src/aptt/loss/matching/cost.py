"""What a match costs: class, distance and overlap of a prediction and a target.

    C[q, m]   class_gain K + l1_gain |b_q - b_m|_1 - giou_gain GIoU(b_q, b_m)

    K, focal      alpha (1 - p)**gamma (-log p) - (1 - alpha) p**gamma (-log(1 - p))
                                         p = sigmoid of the logit of the target's class
    K, softmax    -p                     p = softmax at the target's class

Axes: class logits ``(B, Q, C)`` and boxes ``(B, Q, 4)``, or ``(L, B, Q, ...)`` for L layers of a
decoder; targets ``(B, M, 4)`` and ``(B, M)``, or lists by image.
From: Carion et al., "End-to-End Object Detection with Transformers", ECCV 2020, arXiv:2005.12872,
eq. 1; the focal cost as Deformable DETR has it (Zhu et al., arXiv:2010.04159).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from aptt.core.boxes import BoxFormat, check_box_format
from aptt.core.checks import check_choice, check_floating, check_number
from aptt.core.logistic import power, softplus
from aptt.core.ordinary import is_readable
from aptt.core.pairwise import pairwise_giou, pairwise_l1, products
from aptt.core.precision import widen
from aptt.core.shapes import check_shapes
from aptt.core.targets import Targets, padded

__all__ = [
    "ClassCost",
    "check_costs",
    "check_parts_of_an_image",
    "costs_of",
    "first_layer",
    "match_cost",
]

ClassCost = Literal["focal", "softmax"] | Callable[[Tensor, Tensor], Tensor]

_AT_ONCE = (2**18, 2**22)  # pairs, on the CPU and on an accelerator
_SMALL = 2  # of boxes that are parts of an image, no number is larger


@torch.no_grad()
def match_cost(
    class_logits: Tensor,
    pred_boxes: Tensor,
    target_boxes: Targets,
    target_labels: Targets,
    *,
    target_mask: Tensor | None = None,
    class_cost: ClassCost = "focal",
    class_gain: float = 2.0,
    l1_gain: float = 5.0,
    giou_gain: float = 2.0,
    alpha: float = 0.25,
    gamma: float = 2.0,
    box_format: BoxFormat = "cxcywh",
) -> Tensor:
    """What it would cost to give each target to each prediction.

        C = class_gain K + l1_gain |b_q - b_m|_1 - giou_gain GIoU

    Args:
        class_logits: ``(B, Q, C)``, or ``(L, B, Q, C)`` for several layers at once.
        pred_boxes: ``(B, Q, 4)`` or ``(L, B, Q, 4)``, as parts of the image: the L1 distance is
            between the numbers as they are given.
        target_boxes: ``(B, M, 4)``, or a list of ``(M_i, 4)`` by image.
        target_labels: ``(B, M)``, or a list of ``(M_i,)`` by image.
        target_mask: ``(B, M)``, which of the padded targets there are; None: all but those of
            label -1.
        class_cost: ``"focal"``, what the focal loss changes by if the entry turns from negative to
            positive; ``"softmax"``, minus the probability; or a callable ``(logits, labels) ->
            (..., Q, M)`` of float32 logits ``(..., Q, C)`` and labels ``(..., M)``.
        class_gain: factor of the class cost.
        l1_gain: factor of the L1 distance.
        giou_gain: factor of minus GIoU.
        alpha: of the focal cost; the weight of positives.
        gamma: of the focal cost; how fast easy entries fade.
        box_format: how both boxes are written.

    Returns:
        ``(B, Q, M)`` or ``(L, B, Q, M)``: float32 whatever autocast says, float64 if a prediction
        is; infinite where there is no target. It has no gradient.

    Raises:
        ValueError: shapes that do not fit, an unknown option; on CPU, labels out of range, target
            boxes that are not finite, and boxes in pixels (a number above 2, in ``"cxcywh"`` with
            an ``l1_gain`` of at least 1): divide them by the image's size.

    Use when:
        A detector predicts a set: :class:`HungarianMatcher` calls it. Other costs, such as
        ``mask_match_cost``, are added to it with ``+``.

    Elsewhere:
        ``HungarianMatcher`` in detr, Deformable DETR, DINO, RT-DETR and transformers.

    Differs from:
        Deformable DETR and what follows it: no 1e-8 in the logarithms, which caps the cost near 4.6
            and makes it infinite in float16; no matrix of all images against all targets.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[2.0], [0.0], [-2.0]]])
        >>> box = torch.tensor([[[0.5, 0.5, 1.0, 1.0]]])
        >>> cost = match_cost(logits, box.expand(1, 3, 4), box, torch.tensor([[0]]))
        >>> [round(c, 4) for c in cost.flatten().tolist()]
        [-4.4742, -2.1733, -1.1777]
    """
    check_costs(class_cost, class_gain, l1_gain, giou_gain, alpha, gamma, box_format)
    one = first_layer(class_logits, pred_boxes)
    goals, labels, mask = padded(
        target_boxes, target_labels, target_mask, one, ordered=box_format == "xyxy"
    )
    if box_format == "cxcywh" and l1_gain >= 1:
        check_parts_of_an_image(goals, mask)
    held = _most(target_labels)  # none is held as one that is not there
    cost = costs_of(
        class_logits,
        pred_boxes,
        goals[:, :held],
        labels[:, :held],
        class_cost=class_cost,
        gains=(class_gain, l1_gain, giou_gain),
        focus=(alpha, gamma),
        box_format=box_format,
    )
    return cost.masked_fill(~mask[:, None, :held], torch.inf)


# ------------------------------------------------------------------------------------- the costs


def costs_of(
    logits: Tensor,
    pred_boxes: Tensor,
    goals: Tensor,
    labels: Tensor,
    *,
    class_cost: ClassCost,
    gains: tuple[float, float, float],
    focus: tuple[float, float],
    box_format: BoxFormat,
) -> Tensor:
    """``(..., Q, M)``, of so many images at once that a pair's numbers do not add up."""
    dtype = torch.promote_types(widen(logits[:0]).dtype, widen(pred_boxes[:0]).dtype)
    leading, targets = logits.shape[:-2], goals.shape[-2]
    x, b = (t.detach().to(dtype).flatten(0, -3) for t in (logits, pred_boxes))
    g = goals.detach().to(dtype).expand(*leading, targets, 4).flatten(0, -3)
    of_each = labels.shape[2:] if labels.ndim == 3 else ()
    k = labels.expand(*leading, targets, *of_each).flatten(0, len(leading) - 1)

    def of(x: Tensor, b: Tensor, g: Tensor, k: Tensor) -> Tensor:
        cost = _class_costs(x, k, class_cost, *focus) * gains[0]
        if gains[1]:
            cost = cost.add_(pairwise_l1(b, g), alpha=gains[1])
        if gains[2]:
            cost = cost.sub_(pairwise_giou(b, g, box_format), alpha=gains[2])
        return cost

    pairs = max(x.shape[1] * targets, 1)
    step = max(_AT_ONCE[x.device.type != "cpu"] // pairs, 1)
    if len(x) <= step:
        return of(x, b, g, k).unflatten(0, leading)
    parts = zip(*(t.split(step) for t in (x, b, g, k)), strict=True)
    return torch.cat([of(*some) for some in parts]).unflatten(0, leading)


def _class_costs(x: Tensor, labels: Tensor, kind: ClassCost, alpha: float, gamma: float) -> Tensor:
    """K of each query ``(N, Q, C)`` for the class of each target ``(N, M)``.

    Of labels ``(N, M, C)`` the mean over a target's classes, 0 where it has none.
    """
    if callable(kind):
        cost = kind(x, labels)
        check_shapes(
            class_logits=(x, "N Q C"), target_labels=(labels, "N M"), class_cost=(cost, "N Q M")
        )
        return cost.to(x.dtype)
    if labels.ndim == 3:
        share = labels.to(x.dtype)
        share = share / share.sum(-1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
        each = -x.softmax(-1) if kind == "softmax" else _focal(x, alpha, gamma)
        return products(each[..., : share.shape[-1]], share.transpose(1, 2))
    index = labels.unsqueeze(1).expand(-1, x.shape[1], -1)
    if kind == "softmax":
        return x.softmax(-1).gather(2, index).neg_()
    return _focal(x.gather(2, index), alpha, gamma)


def _focal(z: Tensor, alpha: float, gamma: float) -> Tensor:
    """What the focal loss of a logit changes by, if it turns from negative to positive."""
    yes, no = torch.sigmoid(z), torch.sigmoid(-z)
    positive = (power(no, gamma) if gamma else 1.0) * softplus(-z)
    negative = (power(yes, gamma) if gamma else 1.0) * softplus(z)
    return alpha * positive - (1 - alpha) * negative


# ------------------------------------------------------------------------------------ the checks


def first_layer(logits: Tensor, boxes: Tensor) -> Tensor:
    """Logits of one layer, which the targets are held to."""
    check_floating(class_logits=logits, pred_boxes=boxes)
    if boxes.shape[-1:] == (5,):
        raise ValueError(
            f"pred_boxes: got {tuple(boxes.shape)}, wanted boxes of 4 numbers, which L1 and GIoU "
            "compare; rotated ones are assigned by TaskAlignedAssigner(), or by assign(...) with "
            "costs of your own"
        )
    layers = "L " if logits.ndim == 4 else ""
    check_shapes(class_logits=(logits, f"{layers}B Q C"), pred_boxes=(boxes, f"{layers}B Q 4"))
    if not layers:
        return logits
    if not len(logits):
        raise ValueError(f"class_logits: got {tuple(logits.shape)}, with no layer")
    return logits[0]


def _most(labels: Targets) -> int:
    """How many targets an image has, with padding."""
    if isinstance(labels, Tensor):
        return labels.shape[1]
    return max([0, *map(len, labels)])  # a compiler knows max by its arguments alone


def check_costs(
    class_cost: Any,
    class_gain: float,
    l1_gain: float,
    giou_gain: float,
    alpha: float,
    gamma: float,
    box_format: BoxFormat,
) -> None:
    """Refuse what no cost can be made of."""
    if not callable(class_cost):
        check_choice("class_cost", class_cost, ("focal", "softmax"), also="a callable")
    for name, gain in (("class_gain", class_gain), ("l1_gain", l1_gain), ("giou_gain", giou_gain)):
        check_number(name, gain)
    check_number("alpha", alpha, 0.0, 1.0)
    check_number("gamma", gamma)
    check_box_format(box_format)


def check_parts_of_an_image(goals: Tensor, there: Tensor) -> None:
    """Refuse pixels, whose L1 distance would decide alone; padding may hold anything."""
    if not is_readable(goals):
        return
    most = goals.masked_fill((there == 0).unsqueeze(-1), 0).max().item()
    if most > _SMALL:
        raise ValueError(
            f"target_boxes: got {most:g}, wanted parts of the image, from 0 to 1: "
            "divide boxes by its size, or set l1_gain below 1 (5 / size) to match in pixels"
        )
