"""Matches of several layers, and those of denoising queries, which nothing has to solve for."""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.checks import check_flags, check_indices, check_tensors, check_whole
from aptt.core.shapes import check_shapes
from aptt.core.targets import BACKGROUND, IGNORED

__all__ = ["denoising_matches", "union_matches"]


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
    check_flags(contrastive=contrastive)
    check_shapes(target_mask=(target_mask, "B M"))
    there = target_mask != 0
    order = torch.arange(there.shape[1], device=there.device).expand_as(there)
    each = order.where(there, IGNORED)
    if contrastive:
        each = torch.cat((each, each.clamp(max=BACKGROUND)), 1)
    return each.repeat(1, groups)
