"""Bipartite matching: each target is given the one prediction with which all costs least.

    C[q, m]   class_gain K + l1_gain |b_q - b_m|_1 - giou_gain GIoU(b_q, b_m)
    matches   argmin over injections s of  sum over m of C[s(m), m]

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
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from aptt.core.assignment import assigned, stand_in
from aptt.core.boxes import BoxFormat, check_box_format
from aptt.core.checks import (
    check_choice,
    check_floating,
    check_indices,
    check_number,
    check_tensors,
    check_whole,
)
from aptt.core.formula import widen
from aptt.core.logistic import power, softplus
from aptt.core.ordinary import is_readable
from aptt.core.pairwise import pairwise_giou, pairwise_l1
from aptt.core.shapes import check_shapes
from aptt.core.targets import BACKGROUND, IGNORED, Targets, padded, real

__all__ = [
    "Assignment",
    "HungarianMatcher",
    "assign",
    "denoising_matches",
    "match_cost",
    "union_matches",
]

ClassCost = Literal["focal", "softmax"] | Callable[[Tensor, Tensor], Tensor]
Surplus = Literal["raise", "drop"]
Solver = Callable[[Tensor, Tensor], Tensor]

_AT_ONCE = (2**18, 2**22)  # pairs, on the CPU and on an accelerator
_SMALL = 2  # of boxes that are parts of an image, no number is larger


class Assignment(NamedTuple):
    """What each prediction is to answer for."""

    matches: Tensor
    """``(B, A)``: the index of its target; -1 for background, -2 for what does not count."""
    scores: Tensor
    """``(B, A)``: its target score, in [0, 1]; 0 where there is no target."""


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
    _check_costs(class_cost, class_gain, l1_gain, giou_gain, alpha, gamma, box_format)
    one = _first_layer(class_logits, pred_boxes)
    goals, labels, mask = padded(
        target_boxes, target_labels, target_mask, one, ordered=box_format == "xyxy"
    )
    if box_format == "cxcywh" and l1_gain >= 1:
        _check_parts_of_an_image(goals, mask)
    held = _most(target_labels)  # none is held as one that is not there
    cost = _costs(
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


@torch.no_grad()
def assign(
    cost: Tensor,
    *,
    target_mask: Tensor | None = None,
    groups: int = 1,
    surplus: Surplus = "raise",
    solver: Solver | None = None,
    validate: bool = False,
) -> Tensor:
    """Give each target a query of its own, so that the sum of the costs is the least there is.

    Args:
        cost: ``(..., Q, M)``, of any problems: of layers and images as a rule. An entry that is not
            finite (NaN, either infinity) is never chosen, unless it is forced; the other matches
            are those of the problem without it.
        target_mask: ``(..., M)``, which targets there are; fewer leading axes serve all.
        groups: the queries are so many groups of one size, and each group is matched by itself.
        surplus: of more targets than queries, ``"raise"``, or ``"drop"`` the dearest.
        solver: a callable ``(cost (N, Q, M), mask (N, M)) -> (N, Q)``, of finite costs, to solve on
            the device: the host does not wait then, and this function vouches for nothing.
        validate: refuse a match at a cost that is not finite, where none is left that is.

    Returns:
        ``(..., Q)`` int64: the index of the query's target, -1 where it has none.

    Raises:
        ValueError: more targets than queries, by the image; a number of queries that is no multiple
            of ``groups``; with ``validate``, the query and the target that are left to each other.

    All problems go to the host in one copy, and their matches return in one: the one wait of a loss
    that matches. There scipy solves them, or where it is missing a solver of our own, to the same
    sums: some 5 ms for 300 queries and 20 targets, where scipy takes 0.05. Among equals the first
    query goes to the first target. Inside ``torch.compile`` and ``torch.func`` it is one operator.

    Use when:
        Costs are your own: masks, key points, tracks.

    Differs from:
        scipy: NaN is no error; any number of problems, with padding and groups.
        transformers, which puts 3e38 for what is not finite: the matches of all other targets are
            then often not the best, for beside such a number the solver has no digits left.

    Example:
        >>> import torch
        >>> assign(torch.tensor([[0.0, 1.0], [0.5, 9.0], [torch.nan, 0.0]]))
        tensor([ 0, -1,  1])
    """
    _check_surplus(surplus)
    check_floating(cost=cost)
    if cost.ndim < 2:
        raise ValueError(f"cost: got {tuple(cost.shape)}, wanted (..., Q, M)")
    return _assign(cost, target_mask, groups, surplus, solver, validate, ("cost", "cost"))


def _assign(
    cost: Tensor,
    mask: Tensor | None,
    groups: int,
    surplus: Surplus,
    solver: Solver | None,
    validate: bool,
    names: tuple[str, str],
) -> Tensor:
    """As :func:`assign`; ``names`` are what a message calls the queries and the targets."""
    *leading, queries, targets = cost.shape
    check_whole("groups", groups)
    if queries % groups:
        raise ValueError(f"groups: got {groups}, of which {queries} queries are no multiple")
    there = None
    if mask is not None:
        check_tensors(**{names[0]: cost, "target_mask": mask})
        fits = (
            mask.ndim and tuple(mask.shape) == (*leading, targets)[len(leading) + 1 - mask.ndim :]
        )
        if not fits:
            raise ValueError(
                f"target_mask: got {tuple(mask.shape)}, wanted {(*leading, targets)}, or without "
                f"some of its first axes, for costs {tuple(cost.shape)}"
            )
        there = (mask != 0).expand(*leading, targets).unsqueeze(-2)
        there = there.expand(*leading, groups, targets)
    each = widen(cost).reshape(*leading, groups, queries // groups, targets)
    if not queries:
        some = there is None or (is_readable(there) and bool(there.any()))
        if surplus == "raise" and some and cost.shape[:-2].numel() and targets:
            raise ValueError(
                f"{names[1]}: got targets for 0 queries; surplus='drop' leaves them out"
            )
    if not (queries and targets):
        return cost.new_full((*leading, queries), BACKGROUND, dtype=torch.long)
    if solver is not None:
        found = _by(solver, each, there)
    else:
        drop = surplus == "drop"
        found = assigned(each, there, drop=drop, validate=validate, groups=groups, names=names)
    return found.reshape(*leading, queries)


def _by(solver: Solver, cost: Tensor, there: Tensor | None) -> Tensor:
    """The matches by a solver of the caller's, which is given finite costs."""
    if there is None:
        there = torch.ones_like(cost[..., 0, :], dtype=torch.bool)
    cost = cost.masked_fill(~there.unsqueeze(-2), torch.inf)
    cost = torch.where(cost.isfinite(), cost, stand_in(cost).to(cost.dtype)).flatten(0, -3)
    mask = there.reshape(-1, there.shape[-1])
    found = solver(cost, mask)
    check_tensors(cost=cost, solver=found)
    check_indices(solver=found)
    check_shapes(cost=(cost, "N Q M"), solver=(found, "N Q"))
    if is_readable(found) and bool((found >= mask.shape[1]).any()):
        raise ValueError(
            f"solver: returned {int(found.max())}, wanted the index of one of {mask.shape[1]} "
            "targets, or -1"
        )
    found = found.long()
    known = mask.gather(1, found.clamp(min=0))
    return found.masked_fill((found < 0) | ~known, BACKGROUND)


def union_matches(matches: Tensor) -> Tensor:
    """Of each query the target that most layers give it: what D-FINE trains boxes with.

    Args:
        matches: ``(L, ..., Q)``, the matches of each layer.

    Returns:
        ``(..., Q)``; of targets that equally many layers give it, the one of the first layer; -1
        where no layer gives one, -2 where it counts in none.

    From: Peng et al., "D-FINE", arXiv:2410.13842; its code matches by the union of all layers.

    Example:
        >>> import torch
        >>> union_matches(torch.tensor([[0, -1, 1], [2, -1, -1], [2, -1, 0]]))
        tensor([ 2, -1,  1])
    """
    check_tensors(matches=matches)
    check_indices(matches=matches)
    if matches.ndim < 2 or not len(matches):
        raise ValueError(f"matches: got {tuple(matches.shape)}, wanted (L, ..., Q), of layers")
    layers = len(matches)
    votes = (matches.unsqueeze(0) == matches.unsqueeze(1)).sum(0)
    order = torch.arange(layers - 1, -1, -1, device=matches.device)
    votes = (votes * layers + order.view(-1, *[1] * (matches.ndim - 1))).masked_fill(
        matches < 0, -1
    )
    chosen = matches.gather(0, votes.argmax(0, keepdim=True)).squeeze(0)
    return torch.where((matches >= 0).any(0), chosen, matches.amax(0))


def denoising_matches(target_mask: Tensor, groups: int, *, contrastive: bool = True) -> Tensor:
    """The matches of denoising queries: each is made from a target, and answers for it.

    Args:
        target_mask: ``(B, M)``, which targets there are.
        groups: how many groups of denoising queries.
        contrastive: whether in each group negatives follow the positives, one for each target.

    Returns:
        ``(B, groups * 2 * M)``, or ``(B, groups * M)``: of each group first the targets in order,
        then -1 for the negatives; -2, which does not count, for those made from padding. Without
        targets ``(B, 0)``. The loss of them is a call of its own, with ``groups`` and these as
        ``matches``, so that they never compete with queries.

    From: Zhang et al., "DINO", ICLR 2023, arXiv:2203.03605, section 3.3; without negatives, Li et
    al., "DN-DETR", CVPR 2022, arXiv:2203.01305.

    Differs from:
        DINO, RT-DETR: queries of padding do not count, which are background there.

    Example:
        >>> import torch
        >>> denoising_matches(torch.tensor([[True, True, False]]), 1)
        tensor([[ 0,  1, -2, -1, -1, -2]])
    """
    check_tensors(target_mask=target_mask)
    check_whole("groups", groups)
    check_shapes(target_mask=(target_mask, "B M"))
    there = target_mask != 0
    order = torch.arange(there.shape[1], device=there.device).expand_as(there)
    each = order.where(there, IGNORED)
    if contrastive:
        each = torch.cat((each, each.clamp(max=BACKGROUND)), 1)
    return each.repeat(1, groups)


@dataclass(frozen=True)
class HungarianMatcher:
    """Give each target the one prediction with which all of them cost least: DETR's assigner.

        C = class_gain K + l1_gain |b_q - b_m|_1 - giou_gain GIoU

    Called as :class:`TaskAlignedAssigner` is, but it asks for no anchors; its options are those of
    ``match_cost`` and ``assign``.

    Args:
        class_cost: ``"focal"``, ``"softmax"`` or a callable.
        class_gain: factor of the class cost.
        l1_gain: factor of the L1 distance of the boxes, as they are written; in a unit other than
            the image, divide by its size.
        giou_gain: factor of minus GIoU.
        alpha: of the focal cost.
        gamma: of the focal cost.
        groups: the queries are so many groups, each matched by itself (Group DETR).
        box_format: how boxes are written; None: as the loss says that calls it, corners in
            ``detection_loss``.
        surplus: of more targets than queries, ``"raise"`` or ``"drop"``.
        solver: to solve on the device.
        validate: refuse a match with a prediction that is not finite.

    Example:
        >>> import torch
        >>> logits, boxes = torch.zeros(1, 2, 1), torch.tensor([[[0.0, 0, 1, 1], [0.0, 0, 2, 2]]])
        >>> target, label, there = boxes[:, 1:], torch.tensor([[0]]), torch.tensor([[True]])
        >>> HungarianMatcher()(logits, boxes, None, target, label, there).matches
        tensor([[-1,  0]])
    """

    class_cost: ClassCost = "focal"
    class_gain: float = 2.0
    l1_gain: float = 5.0
    giou_gain: float = 2.0
    alpha: float = 0.25
    gamma: float = 2.0
    groups: int = 1
    box_format: BoxFormat | None = None
    surplus: Surplus = "raise"
    solver: Solver | None = None
    validate: bool = False

    needs_anchors = False

    def __post_init__(self) -> None:
        costs = (self.class_cost, self.class_gain, self.l1_gain, self.giou_gain)
        _check_costs(*costs, self.alpha, self.gamma, self.box_format or "xyxy")
        _check_surplus(self.surplus)
        check_whole("groups", self.groups)

    def __call__(
        self,
        class_logits: Tensor,
        pred_boxes: Tensor,
        anchors: Tensor | None,
        target_boxes: Tensor,
        target_labels: Tensor,
        target_mask: Tensor,
        anchor_mask: Tensor | None = None,
    ) -> Assignment:
        """Assign.

        Args:
            class_logits: ``(B, Q, C)``, or ``(L, B, Q, C)``.
            pred_boxes: ``(B, Q, 4)``, or ``(L, B, Q, 4)``.
            anchors: not looked at.
            target_boxes: ``(B, M, 4)``.
            target_labels: ``(B, M)`` class indices; anything in padding.
            target_mask: ``(B, M)``: which of the targets there are.
            anchor_mask: ``(B, Q)`` or ``(L, B, Q)``: which of the predictions may be chosen.
        """
        _first_layer(class_logits, pred_boxes)
        if self.box_format == "cxcywh" and self.l1_gain >= 1:
            _check_parts_of_an_image(target_boxes, target_mask)
        with torch.no_grad():
            cost = _costs(
                class_logits,
                pred_boxes,
                real(target_boxes),
                target_labels.long().masked_fill(target_mask == 0, 0),
                class_cost=self.class_cost,
                gains=(self.class_gain, self.l1_gain, self.giou_gain),
                focus=(self.alpha, self.gamma),
                box_format=self.box_format or "xyxy",
            )
            names = ("class_logits", "target_boxes")
            if anchor_mask is not None:
                cost = cost.masked_fill((anchor_mask == 0).unsqueeze(-1), torch.inf)
            how = (self.groups, self.surplus, self.solver, self.validate, names)
            matches = _assign(cost, target_mask, *how)
            if anchor_mask is not None:
                matches = matches.masked_fill(anchor_mask == 0, BACKGROUND)
        return Assignment(matches, (matches >= 0).to(cost.dtype))


# ------------------------------------------------------------------------------------- the costs


def _costs(
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
    k = labels.expand(*leading, targets).flatten(0, -2)

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
    """K of each query ``(N, Q, C)`` for the class of each target ``(N, M)``."""
    if callable(kind):
        cost = kind(x, labels)
        check_shapes(
            class_logits=(x, "N Q C"), target_labels=(labels, "N M"), class_cost=(cost, "N Q M")
        )
        return cost.to(x.dtype)
    index = labels.unsqueeze(1).expand(-1, x.shape[1], -1)
    if kind == "softmax":
        return x.softmax(-1).gather(2, index).neg_()
    z = x.gather(2, index)
    yes, no = torch.sigmoid(z), torch.sigmoid(-z)
    positive = (power(no, gamma) if gamma else 1.0) * softplus(-z)
    negative = (power(yes, gamma) if gamma else 1.0) * softplus(z)
    return alpha * positive - (1 - alpha) * negative


# ------------------------------------------------------------------------------------ the checks


def _first_layer(logits: Tensor, boxes: Tensor) -> Tensor:
    """Logits of one layer, which the targets are held to."""
    check_floating(class_logits=logits, pred_boxes=boxes)
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
    return max(map(len, labels), default=0)


def _check_costs(
    class_cost: Any,
    class_gain: float,
    l1_gain: float,
    giou_gain: float,
    alpha: float,
    gamma: float,
    box_format: BoxFormat,
) -> None:
    if not callable(class_cost):
        check_choice("class_cost", class_cost, ("focal", "softmax"), also="a callable")
    for name, gain in (("class_gain", class_gain), ("l1_gain", l1_gain), ("giou_gain", giou_gain)):
        check_number(name, gain)
    check_number("alpha", alpha, 0.0, 1.0)
    check_number("gamma", gamma)
    check_box_format(box_format)


def _check_surplus(surplus: str) -> None:
    check_choice("surplus", surplus, ("raise", "drop"))


def _check_parts_of_an_image(goals: Tensor, there: Tensor) -> None:
    """Refuse pixels, whose L1 distance would decide alone; padding may hold anything."""
    if not is_readable(goals):
        return
    most = goals.masked_fill((there == 0).unsqueeze(-1), 0).max().item()
    if most > _SMALL:
        raise ValueError(
            f"target_boxes: got {most:g}, wanted parts of the image, from 0 to 1: "
            "divide boxes by its size, or set l1_gain below 1 (5 / size) to match in pixels"
        )
