"""DETR's assigner: the costs of every pair, and the assignment of least cost."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aptt.core.boxes import BoxFormat
from aptt.core.checks import check_whole
from aptt.core.module import Shown
from aptt.core.targets import BACKGROUND, real
from aptt.loss.matching.assignment import (
    Assignment,
    Solver,
    Surplus,
    assigned_by,
    check_how,
)
from aptt.loss.matching.cost import (
    ClassCost,
    check_costs,
    check_parts_of_an_image,
    costs_of,
    first_layer,
)

__all__ = ["HungarianMatcher"]


@dataclass(frozen=True, repr=False)
class HungarianMatcher(Shown):
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
        check_costs(*costs, self.alpha, self.gamma, self.box_format or "xyxy")
        check_how(self.surplus, self.solver, self.validate)
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
        *,
        strides: Tensor | None = None,
    ) -> Assignment:
        """Assign.

        Args:
            class_logits: ``(B, Q, C)``, or ``(L, B, Q, C)``.
            pred_boxes: ``(B, Q, 4)``, or ``(L, B, Q, 4)``.
            anchors: not looked at.
            target_boxes: ``(B, M, 4)``.
            target_labels: ``(B, M)`` class indices, or ``(B, M, C)``, how far each class is the
                target's, which costs the mean over them; anything in padding.
            target_mask: ``(B, M)``: which of the targets there are.
            anchor_mask: ``(B, Q)`` or ``(L, B, Q)``: which of the predictions may be chosen.
            strides: not looked at.
        """
        first_layer(class_logits, pred_boxes)
        if self.box_format == "cxcywh" and self.l1_gain >= 1:
            check_parts_of_an_image(target_boxes, target_mask)
        with torch.no_grad():
            cost = costs_of(
                class_logits,
                pred_boxes,
                real(target_boxes),
                _known(target_labels, target_mask),
                class_cost=self.class_cost,
                gains=(self.class_gain, self.l1_gain, self.giou_gain),
                focus=(self.alpha, self.gamma),
                box_format=self.box_format or "xyxy",
            )
            names = ("class_logits", "target_boxes")
            if anchor_mask is not None:
                cost = cost.masked_fill((anchor_mask == 0).unsqueeze(-1), torch.inf)
            how = (self.groups, self.surplus, self.solver, self.validate, names)
            matches = assigned_by(cost, target_mask, *how)
            if anchor_mask is not None:
                matches = matches.masked_fill(anchor_mask == 0, BACKGROUND)
        return Assignment(matches, (matches >= 0).to(cost.dtype))


def _known(labels: Tensor, mask: Tensor) -> Tensor:
    """Labels, and zeros in padding, which may hold anything."""
    if labels.ndim == 3:
        return real(labels).masked_fill((mask == 0).unsqueeze(-1), 0)
    return labels.long().masked_fill(mask == 0, 0)
