"""The masks of objects, as one tensor, and what they and their matches may be."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from aptt.core.checks import as_tensor, check_each, check_floating, check_tensors
from aptt.core.ordinary import is_readable
from aptt.core.shapes import check_shapes
from aptt.core.targets import BACKGROUND, IGNORED

__all__ = [
    "Masks",
    "check_matches",
    "check_once",
    "check_points",
    "check_values",
    "masks_of",
    "query_of",
    "which_there_are",
]

Masks = Tensor | Sequence[Tensor]


def query_of(matches: Tensor, targets: int, groups: int) -> Tensor:
    """The query of each target in each group, -1 for none: ``(B, groups M)``."""
    images, queries = matches.shape
    order = torch.arange(queries, device=matches.device)
    group = order * groups // max(queries, 1)
    spare = groups * targets
    place = torch.where(matches >= 0, matches.long() + group * targets, spare)
    found = matches.new_full((images, spare + 1), -1, dtype=torch.long)
    return found.scatter(1, place, order.expand(images, -1))[:, :spare]


def masks_of(logits: Tensor, masks: Masks) -> Tensor:
    """Target masks as one tensor."""
    check_floating(mask_logits=logits)
    if isinstance(masks, Tensor):
        check_shapes(mask_logits=(logits, "B Q H W"), target_masks=(masks, "B M height width"))
        check_tensors(mask_logits=logits, target_masks=masks)
        return as_tensor("target_masks", masks)
    check_shapes(mask_logits=(logits, "B Q H W"))
    check_each("target_masks", masks, mask_logits=logits)
    if len(masks) != len(logits):
        raise ValueError(f"target_masks: got {len(masks)} tensors for {len(logits)} images")
    for i, each in enumerate(masks):
        if each.ndim != 3:
            got = tuple(each.shape)
            raise ValueError(f"target_masks: of image {i} got shape {got}, wanted (M, H, W)")
    sizes = [tuple(m.shape[1:]) for m in masks if len(m)]
    size = sizes[0] if sizes else (1, 1)
    if any(of_image != size for of_image in sizes):
        raise ValueError(
            f"target_masks: got images of {' and '.join(map(str, sorted(set(sizes))))}, wanted one "
            "size: resize them, or pad them, as the logits are"
        )
    masks = [as_tensor("target_masks", m) for m in masks]
    held = [m if len(m) else m.new_zeros(0, *size) for m in masks]
    return pad_sequence(held, batch_first=True) if held else logits.new_zeros(0, 0, 1, 1)


def which_there_are(given: Masks, mask: Tensor | None, masks: Tensor) -> Tensor | None:
    """Which target masks there are, ``(B, M)``; None: all."""
    if mask is not None:
        if not isinstance(given, Tensor):
            raise ValueError("target_mask: got a mask for lists, which show what there is")
        check_shapes(target_masks=(given, "B M H W"), target_mask=(mask, "B M"))
        return mask != 0
    if isinstance(given, Tensor):
        return None
    there = [torch.ones(len(each), dtype=torch.bool, device=masks.device) for each in given]
    return pad_sequence(there, batch_first=True) if there else None


def check_matches(matches: Tensor, there: Tensor | None, targets: int) -> None:
    """Refuse what is no target."""
    wrong = (matches < IGNORED) | (matches >= targets)
    if there is not None and targets:
        known = there.gather(1, matches.long().clamp(0, targets - 1))
        wrong |= (matches >= 0) & ~known
    if wrong.any():
        raise ValueError(
            f"matches: got {int(matches[wrong][0])}, wanted the index of one of {targets} target "
            f"masks that there is, {BACKGROUND} or {IGNORED}"
        )


def check_once(matches: Tensor, query: Tensor, groups: int) -> None:
    """Refuse a target that a group has twice, of which one would be lost."""
    if int((matches >= 0).sum()) != int((query >= 0).sum()):
        raise ValueError(
            "matches: got a target mask with two queries, wanted one query at most"
            + (" in each group" if groups > 1 else "; of several groups, say groups=")
        )


def check_values(masks: Tensor, there: Tensor | None) -> None:
    """Refuse masks of 255 and the like; those that are not there may hold anything."""
    if masks.dtype == torch.bool or not masks.numel() or not is_readable(masks):
        return
    low, high = masks.detach().aminmax()
    if low >= 0 and high <= 1:
        return
    wrong = (masks < 0) | (masks > 1)
    if there is not None:
        wrong &= there[..., None, None]
    if wrong.any():
        raise ValueError(
            f"target_masks: got {masks[wrong][0].item():g}, wanted numbers from 0 to 1"
        )


def check_points(logits: Tensor, points: Tensor) -> None:
    """Refuse points of another form, or beyond the numbers."""
    check_tensors(mask_logits=logits, points=points)
    check_shapes(mask_logits=(logits, "B Q H W"), points=(points, "B K 2"))
    if is_readable(points) and not bool(points.isfinite().all()):
        raise ValueError("points: got a number that is not finite, wanted x and y from 0 to 1")
