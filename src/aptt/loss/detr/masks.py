"""Masks of queries, at points: what a match would cost, and what it does.

    mask    mean over points of -(t log p + (1 - t) log(1 - p))       p = sigmoid of the logit
    dice    1 - (2 sum p t + 1) / (sum p + sum t + 1)                 t: the target, at a point
    terms   the sum over matches / N                                  N = number of objects

Axes: mask logits ``(B, Q, H, W)`` of B images and Q queries, target masks ``(B, M, H', W')`` of any
size; points ``(..., K, 2)`` as x and y from 0 to 1.
From: Cheng et al., "Masked-attention Mask Transformer for Universal Image Segmentation", CVPR 2022,
arXiv:2112.01527, section 3.3; uncertain points, Kirillov et al., "PointRend", arXiv:1912.08193.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.checks import check_indices, check_number, check_tensors, check_whole
from aptt.core.logistic import nll, softplus
from aptt.core.ordinary import is_readable
from aptt.core.pairwise import products
from aptt.core.precision import widen
from aptt.core.reduction import Reduction, check_reduction
from aptt.core.reduction import normalize as divided
from aptt.core.shapes import check_shapes
from aptt.loss.detr.objects import (
    Masks,
    check_matches,
    check_once,
    check_points,
    check_values,
    masks_of,
    query_of,
    which_there_are,
)
from aptt.loss.detr.points import at_points, uncertain_points

__all__ = ["mask_match_cost", "point_mask_terms"]


@torch.no_grad()
def mask_match_cost(
    mask_logits: Tensor,
    target_masks: Masks,
    *,
    points: Tensor,
    mask_gain: float = 5.0,
    dice_gain: float = 5.0,
) -> Tensor:
    """What it would cost to give each target mask to each query, at points that all share.

        C = mask_gain * mask + dice_gain * dice

    Args:
        mask_logits: ``(B, Q, H, W)``.
        target_masks: ``(B, M, H', W')`` of 0 and 1, or a list of ``(M_i, H', W')`` by image.
        points: ``(B, K, 2)``, x and y from 0 to 1; Mask2Former draws 12544.
        mask_gain: factor of the cross-entropy.
        dice_gain: factor of Dice.

    Returns:
        ``(B, Q, M)`` in float32 at least, whatever autocast says; to be added to ``match_cost`` of
        the classes, and passed to ``assign``. Padding of a list costs what an empty mask does. It
        has no gradient.

    Raises:
        ValueError: shapes that do not fit, a negative gain; on CPU, masks beyond 0 to 1, points
            that are not finite.

    Use when:
        Mask2Former, MaskFormer and their kind are matched.

    Differs from:
        Mask2Former: a list without any mask is fine; a point at the rim takes the logit of the last
            pixel, where it is drawn to 0 there.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[[9.0, -9.0]], [[0.0, 0.0]]]])
        >>> points = torch.tensor([[[0.25, 0.5], [0.75, 0.5]]])
        >>> cost = mask_match_cost(logits, torch.tensor([[[[1.0, 0.0]]]]), points=points)
        >>> [round(c, 3) for c in cost.flatten().tolist()]
        [0.001, 5.132]
    """
    check_number("mask_gain", mask_gain)
    check_number("dice_gain", dice_gain)
    masks = masks_of(mask_logits, target_masks)
    check_points(mask_logits, points)
    check_values(masks, None)
    x = at_points(mask_logits.detach(), points.unsqueeze(1))
    t = at_points(masks.detach().to(x.dtype), points.unsqueeze(1))
    many = max(points.shape[1], 1)
    common = products(x.div(many), t.transpose(1, 2))
    mask = softplus(x).mean(-1, keepdim=True) - common if points.shape[1] else common
    p = x.sigmoid()
    both = p.sum(-1, keepdim=True) + t.sum(-1).unsqueeze(1)
    dice = 1 - (2 * products(p, t.transpose(1, 2)) + 1) / (both + 1)
    return mask_gain * mask + dice_gain * dice


def point_mask_terms(
    mask_logits: Tensor,
    target_masks: Masks,
    matches: Tensor,
    *,
    target_mask: Tensor | None = None,
    points: Tensor | None = None,
    num_points: int = 12544,
    oversample: float = 3.0,
    importance: float = 0.75,
    groups: int = 1,
    generator: torch.Generator | None = None,
    reduction: Reduction = "mean",
) -> dict[str, Tensor]:
    """Cross-entropy and Dice of matched masks, at points where they are uncertain.

    Args:
        mask_logits: ``(B, Q, H, W)``.
        target_masks: ``(B, M, H', W')`` of 0 and 1, or a list of ``(M_i, H', W')`` by image.
        matches: ``(B, Q)``, the target mask of each query, -1 or -2 for none; in each group a
            target has one query at most.
        target_mask: ``(B, M)``, which of the padded targets there are: they are counted.
        points: ``(B, K, 2)``, the same for all masks of an image, x and y from 0 to 1: with them
            the call is a function of its arguments alone. None: drawn anew.
        num_points: how many are drawn for each mask.
        oversample: how many times as many are looked at, of which the most uncertain are taken.
        importance: the share of the points that is taken so, from 0 to 1; the rest is uniform.
        groups: how many queries a target may have.
        generator: what points are drawn by.
        reduction: ``"mean"`` over the targets there are, times ``groups``, at least 1; ``"sum"``;
            or a callable ``(total, count, *, term)``. Zero masks are targets too: leave out what a
            crop has emptied.

    Returns:
        ``"mask"`` and ``"dice"``: scalars on the graph, float32 at least; 0 where there is no
        target. Mask2Former weighs each by 5.

    Raises:
        ValueError: shapes that do not fit, an unknown option; on CPU, a match that is no target,
            two of one target in a group, masks beyond 0 to 1, points that are not finite.
        TypeError: matches that are no integers.

    The gradient goes to ``mask_logits``. It is read by gathers, which deterministic mode knows;
    nothing of the targets' size is made of the logits.

    Use when:
        Masks of queries, beside the class term of ``detr_loss``; SAM's and PointRend's decoders.

    Elsewhere:
        ``loss_masks`` in Mask2Former's ``SetCriterion``.

    Differs from:
        Mask2Former: a point at the rim takes the logit of the last pixel; no target is no error.

    Example:
        >>> import torch
        >>> logits, points = torch.zeros(1, 1, 2, 2), torch.rand(1, 4, 2)
        >>> mask = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
        >>> terms = point_mask_terms(logits, mask, torch.tensor([[0]]), points=points)
        >>> round(terms["mask"].item(), 4)
        0.6931
    """
    _check_options(num_points, oversample, importance, groups, reduction)
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator: got {generator!r}, wanted a torch.Generator, or None")
    masks = masks_of(mask_logits, target_masks)
    check_tensors(mask_logits=mask_logits, matches=matches)
    check_indices(matches=matches)
    check_shapes(mask_logits=(mask_logits, "B Q H W"), matches=(matches, "B Q"))
    queries, targets = mask_logits.shape[1], masks.shape[1]
    if queries % groups:
        raise ValueError(f"groups: got {groups}, of which {queries} queries are no multiple")
    there, readable = which_there_are(target_masks, target_mask, masks), is_readable(matches)
    if readable:
        check_matches(matches, there, targets)
    query = query_of(matches, targets, groups)  # (B, groups M)
    if readable:
        check_once(matches, query, groups)
    check_values(masks, there)
    real = query >= 0
    index = query.clamp(min=0)[..., None, None].expand(-1, -1, *mask_logits.shape[2:])
    x_maps = widen(mask_logits.gather(1, index)) if queries else mask_logits[:, :0]
    x_maps = x_maps.masked_fill(~real[..., None, None], 0.0) if queries else x_maps
    t_maps = masks.repeat(1, groups, 1, 1) if groups > 1 else masks
    if not queries:
        t_maps, real = t_maps[:, :0], real[:, :0]
    if points is None:
        at = uncertain_points(x_maps.detach(), num_points, oversample, importance, generator)
    else:
        check_points(mask_logits, points)
        at = points.unsqueeze(1)
    x, t = at_points(x_maps, at), at_points(t_maps.to(x_maps.dtype), at)
    many = max(x.shape[-1], 1)
    mask = nll(x, t).sum(-1) / many
    p, missed = (-softplus(-x)).exp(), (-softplus(x)).exp()  # each with its slope near 0 and 1
    missed = (p * (1 - t) + missed * t).sum(-1)  # sum p + sum t - 2 sum p t
    dice = missed / (p.sum(-1) + t.sum(-1) + 1)
    count = x.new_full((), masks.shape[:2].numel()) if there is None else there.sum().to(x.dtype)
    count = count * groups
    count = count.clamp(min=1) if reduction == "mean" else count
    totals = {"mask": mask, "dice": dice}
    return {
        name: divided(
            torch.where(real, value, 0.0).sum(), count, reduction, term=name, kind="positives"
        )
        for name, value in totals.items()
    }


def _check_options(
    num_points: int, oversample: float, importance: float, groups: int, reduction: Reduction
) -> None:
    check_reduction(reduction, none=False)
    check_whole("num_points", num_points)
    check_number("oversample", oversample, 1.0)
    check_number("importance", importance, 0.0, 1.0)
    check_whole("groups", groups)
