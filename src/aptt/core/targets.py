"""Objects of images: boxes and labels, padded or as lists, and which prediction answers for which.

A batch of B images has up to M objects each: boxes ``(B, M, 4)``, labels ``(B, M)`` and a mask of
those that there are, or a list of ``(M_i, 4)`` and ``(M_i,)``. Labels ``(B, M, C)`` say of each
class how far it is the object's. A match is the index of an object, :data:`BACKGROUND`, or
:data:`IGNORED` for what does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from aptt.core.checks import check_classes, check_each, check_indices, check_range, kept
from aptt.core.module import reduced
from aptt.core.ordinary import is_readable
from aptt.core.precision import widen
from aptt.core.shapes import check_shapes

__all__ = [
    "BACKGROUND",
    "IGNORED",
    "Targets",
    "TermLoss",
    "called",
    "called_so",
    "check_images",
    "check_parts",
    "held",
    "index_of",
    "matched",
    "padded",
    "real",
    "regions_of",
    "total_of",
]

BACKGROUND, IGNORED = -1, -2

Targets = Tensor | Sequence[Tensor]
TermLoss = Callable[..., Tensor]
"""One of our losses, or a callable ``(prediction, target, *, weight, reduction="sum")``."""


# --------------------------------------------------------------------------------- the objects


def padded(
    boxes: Targets,
    labels: Targets,
    mask: Tensor | None,
    logits: Tensor,
    *,
    classes: int | None = None,
    ordered: bool = True,
    numbers: int = 4,
    several: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Targets as :func:`held` gives them, of lists too; the boxes are held to be boxes.

    ``ordered``: they are two corners, and otherwise a point and a size.
    """
    for name, given in (("target_boxes", boxes), ("target_labels", labels)):
        if not isinstance(given, Tensor):
            check_images(name, given, logits)
    if not isinstance(boxes, Tensor) and not isinstance(labels, Tensor):
        if mask is not None:
            raise ValueError("target_mask: got a mask for lists, which show what there is")
        boxes, labels, mask = _stacked(boxes, labels, logits, numbers, several=several)
    if not (isinstance(boxes, Tensor) and isinstance(labels, Tensor)):
        raise ValueError("target_labels: wanted a tensor or a list, as target_boxes is")
    if mask is None:
        mask = torch.ones_like(labels[..., 0], dtype=torch.bool) if labels.ndim == 3 else None
        mask = kept(labels, -1) if mask is None else mask
    boxes, labels, mask = held(
        boxes, labels, mask, logits, classes=classes, numbers=numbers, several=several
    )
    if is_readable(boxes):
        low = boxes[..., :2] if ordered else 0
        wrong = ~boxes.isfinite().all(-1) | (boxes[..., 2:4] < low).any(-1)
        if wrong.any():
            image, row = wrong.nonzero()[0].tolist()
            wanted = "corners, the second not less than the first" if ordered else "sizes"
            raise ValueError(
                f"target_boxes: image {image}, row {row} is {boxes[image, row].tolist()}, wanted "
                f"finite {wanted}{'' if ordered else ' of at least 0'}"
            )
    return boxes, labels, mask


def held(
    boxes: Tensor,
    labels: Tensor,
    mask: Tensor,
    logits: Tensor,
    *,
    classes: int | None = None,
    numbers: int = 4,
    several: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Targets held to the logits; at least one an image, zeros where the mask has none.

    ``numbers``: of a box; ``several``: labels may be ``(B, M, C)`` too.
    """
    known = classes or logits.shape[-1]
    by_class = several and labels.ndim == 3
    of_labels = f"B M {known}" if by_class else "B M"
    shapes = {"class_logits": (logits, "B A C"), "target_boxes": (boxes, f"B M {numbers}")}
    check_shapes(**shapes, target_labels=(labels, of_labels), target_mask=(mask, "B M"))
    if not logits.shape[-1]:
        raise ValueError(f"class_logits: got {tuple(logits.shape)}, with no class on axis 2")
    if labels.numel() and not by_class:  # torch.tensor([]) is of a floating dtype
        check_indices(target_labels=labels)
    boxes = real(boxes)
    if not labels.shape[1]:
        one_more = (0, 0, 0, 1)
        boxes, mask = F.pad(boxes, one_more), F.pad(mask, (0, 1))
        labels = F.pad(labels, one_more if by_class else one_more[2:])
    mask = mask != 0
    there = mask.unsqueeze(-1)
    if by_class:
        labels = real(labels).masked_fill(~there, 0)
        check_range(labels, 0, 1, keep=None, name="target_labels")
    else:
        labels = labels.long().masked_fill(~mask, 0)
        check_classes(labels, known, None, name="target_labels")
    return boxes.masked_fill(~there, 0), labels, mask


def _stacked(
    boxes: Sequence[Tensor],
    labels: Sequence[Tensor],
    logits: Tensor,
    numbers: int,
    *,
    several: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Lists by image as padded tensors and their mask."""
    boxes = [each.reshape(0, numbers) if each.shape == (0,) else each for each in boxes]
    shares = [each.shape[1:] for each in labels if each.ndim == 2] if several else []
    of_one = tuple(shares[0]) if shares else ()
    labels = [each.reshape(0, *of_one) if each.shape == (0,) else each for each in labels]
    for i, (of_boxes, of_labels) in enumerate(zip(boxes, labels, strict=True)):
        if of_boxes.shape[1:] != (numbers,):
            _wrong("target_boxes", i, of_boxes, f"(M, {numbers})")
        if of_labels.shape != (len(of_boxes), *of_one):
            of_each = "".join(f" {n}" for n in of_one)
            _wrong("target_labels", i, of_labels, f"({len(of_boxes)},{of_each})")
        if of_labels.numel() and not of_one:
            check_indices(target_labels=of_labels)
    if not labels:
        none = logits.new_zeros(0, 0, dtype=torch.long)
        return logits.new_zeros(0, 0, numbers), none, none.bool()
    there = [each.new_ones(len(each), dtype=torch.bool) for each in labels]
    return (
        _together(boxes),
        _together(labels) if of_one else pad_sequence([each.long() for each in labels], True),
        pad_sequence(there, batch_first=True),
    )


def _together(boxes: Sequence[Tensor]) -> Tensor:
    """Lists of boxes as one tensor, in the widest of their dtypes, float32 at least."""
    dtype = reduce(torch.promote_types, (each.dtype for each in boxes), torch.float32)
    return pad_sequence([each.to(dtype) for each in boxes], batch_first=True)


def regions_of(regions: Targets, logits: Tensor) -> Tensor:
    """Regions to be ignored as ``(B, K, 4)``, of lists too."""
    if not isinstance(regions, Tensor):
        check_images("ignore_regions", regions, logits)
        regions = [each.reshape(0, 4) if each.shape == (0,) else each for each in regions]
        for i, each in enumerate(regions):
            if each.shape[1:] != (4,):
                _wrong("ignore_regions", i, each, "(K, 4)")
        regions = [each.to(logits.device) for each in regions]
        regions = _together(regions) if regions else real(logits.new_zeros(0, 0, 4))
    check_shapes(class_logits=(logits, "B A C"), ignore_regions=(regions, "B K 4"))
    return real(regions)


def real(tensor: Tensor) -> Tensor:
    """In a floating dtype of float32 at least."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def check_images(name: str, tensors: Sequence[Tensor], logits: Tensor) -> None:
    """Refuse what is not a list of tensors, one an image."""
    check_each(name, tensors)
    if len(tensors) != len(logits):
        raise ValueError(f"{name}: got {len(tensors)} tensors for {len(logits)} images")


def _wrong(name: str, image: int, got: Tensor, wanted: str) -> NoReturn:
    raise ValueError(f"{name}: of image {image} got shape {tuple(got.shape)}, wanted {wanted}")


# --------------------------------------------------------------------------------- the matches


def matched(
    matches: Tensor, scores: Tensor | None, logits: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Matches, held to the targets there are, and their scores."""
    check_shapes(class_logits=(logits, "B A C"), matches=(matches, "B A"))
    check_indices(matches=matches)
    matches = matches.long()
    if is_readable(matches):
        known = mask.gather(1, matches.clamp(0, mask.shape[1] - 1))
        wrong = (matches < IGNORED) | (matches >= mask.shape[1]) | ((matches >= 0) & ~known)
        if wrong.any():
            raise ValueError(
                f"matches: got {int(matches[wrong][0])}, wanted the index of a target, "
                f"{BACKGROUND} for background or {IGNORED} for what does not count"
            )
    if scores is None:
        return matches, torch.ones_like(logits[..., 0], dtype=widen(logits[:0]).dtype)
    check_shapes(class_logits=(logits, "B A C"), match_scores=(scores, "B A"))
    return matches, widen(scores)


def index_of(matches: Tensor, mask: Tensor) -> Tensor:
    """The target of each match, 0 for none; what is no target is left, or put, out of range.

    So where values cannot be read, the gather asserts it on the device.
    """
    none = (matches == BACKGROUND) | (matches == IGNORED)
    index = matches.masked_fill(none, 0)
    known = mask.gather(1, index) | none
    return index.masked_fill(~known, mask.shape[1])


# ---------------------------------------------------------------------------- the parts of a loss


def check_parts(wanted: Mapping[str, str], **parts: object) -> None:
    """Refuse what cannot be called, and a class that has not been."""
    for name, part in parts.items():
        if isinstance(part, type) or not callable(part):
            raise TypeError(f"{name}: got {part!r}, wanted {wanted[name]}")


def total_of(
    name: str,
    loss: TermLoss,
    x: Tensor,
    target: Tensor,
    weight: Tensor,
    *,
    wanted: Mapping[str, str],
    **more: Any,
) -> Tensor:
    """The sum of a term's values; the weights may differ by class."""
    module = isinstance(loss, nn.Module)
    summed = reduced(name, loss, "sum") if isinstance(loss, nn.Module) else loss
    how = {"weight": weight, **({} if module else {"reduction": "sum"}), **more}
    total = called(name, loss, wanted, partial(summed, x, target, **how))
    if not isinstance(total, Tensor):
        raise TypeError(f"{name}: returned {type(total).__name__}, wanted a tensor, a sum")
    if total.shape != ():
        raise ValueError(f"{name}: returned shape {tuple(total.shape)}, wanted a sum")
    return total


def called(name: str, part: object, wanted: Mapping[str, str], call: Callable[[], Any]) -> Any:
    """What a part returns that was passed as ``name``; its errors say so."""
    try:
        return call()
    except (TypeError, ValueError) as error:  # of arguments that the caller has not passed
        said = f"{name}: {called_so(part)} raised {type(error).__name__}: {error}"
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{said}; wanted {wanted[name]}") from error


def called_so(part: object) -> str:
    """The name that a loss goes by."""
    return getattr(part, "__name__", None) or type(part).__name__
