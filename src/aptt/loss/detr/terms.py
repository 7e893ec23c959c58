"""The terms of the set loss: what each query costs, by what is asked of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from aptt.core.boxes import BoxFormat
from aptt.core.checks import check_floating
from aptt.core.pairwise import corners_of
from aptt.core.precision import widen
from aptt.core.reduction import Kind, Reduction
from aptt.core.reduction import normalize as divided
from aptt.core.shapes import check_shapes
from aptt.core.targets import Targets, TermLoss, padded, total_of
from aptt.loss.bbox import box_iou_loss, box_l1_loss, giou_loss
from aptt.loss.classification import cross_entropy
from aptt.loss.detr.options import WANTED, Quality, check_options
from aptt.loss.detr.queries import Matcher, asked_of, hungarian, of_layers
from aptt.loss.focal import focal_loss
from aptt.loss.matching import HungarianMatcher

__all__ = ["detr_terms", "summed_terms"]


def detr_terms(
    class_logits: Tensor,
    pred_boxes: Tensor,
    target_boxes: Targets,
    target_labels: Targets,
    *,
    target_mask: Tensor | None = None,
    matches: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_regions: Targets | None = None,
    matcher: Matcher | None = None,
    class_loss: TermLoss = focal_loss,
    quality: Quality | None = None,
    no_object: float | None = None,
    box_loss: TermLoss = giou_loss,
    layer_weight: Tensor | Sequence[float] | None = None,
    groups: int = 1,
    normalize: Literal["targets", "matches"] = "targets",
    box_format: BoxFormat = "cxcywh",
    reduction: Reduction = "mean",
) -> dict[str, Tensor]:
    """The terms of :func:`detr_loss`, before their gains: to log them, or to weigh them.

    Returns:
        ``"class"``, ``"l1"`` and ``"box"``: scalars on the graph, or of several layers ``(L,)``.
        The arguments are those of :func:`detr_loss`. A normalizer is called once for all layers.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[2.0, -1.0], [0.0, 0.0], [-1.0, 1.0]]])
        >>> boxes = torch.tensor([[[0.25, 0.25, 0.5, 0.5]] * 3])
        >>> target, labels = boxes[:, :2] + 0.1, torch.tensor([[0, 1]])
        >>> matches = torch.tensor([[0, -1, 1]])
        >>> terms = detr_terms(logits, boxes, target, labels, matches=matches)
        >>> {name: round(term.item(), 4) for name, term in terms.items()}
        {'class': 0.15, 'l1': 0.4, 'box': 0.5386}
    """
    return _terms(
        class_logits,
        pred_boxes,
        target_boxes,
        target_labels,
        at_once=False,
        target_mask=target_mask,
        matches=matches,
        weight=weight,
        ignore_regions=ignore_regions,
        matcher=matcher,
        class_loss=class_loss,
        quality=quality,
        no_object=no_object,
        box_loss=box_loss,
        layer_weight=layer_weight,
        groups=groups,
        normalize=normalize,
        box_format=box_format,
        reduction=reduction,
    )


def summed_terms(*tensors: Any, **options: Any) -> dict[str, Tensor]:
    """The terms, each added up over layers before it is reduced; arguments as above."""
    return _terms(*tensors, at_once=True, **options)


def _terms(
    class_logits: Tensor,
    pred_boxes: Tensor,
    target_boxes: Targets,
    target_labels: Targets,
    *,
    at_once: bool,
    target_mask: Tensor | None,
    matches: Tensor | None,
    weight: Tensor | None,
    ignore_regions: Targets | None,
    matcher: Matcher | None,
    class_loss: TermLoss,
    quality: Quality | None,
    no_object: float | None,
    box_loss: TermLoss,
    layer_weight: Tensor | Sequence[float] | None,
    groups: int,
    normalize: str,
    box_format: BoxFormat,
    reduction: Reduction,
) -> dict[str, Tensor]:
    check_options(
        matcher, class_loss, quality, no_object, box_loss, groups, normalize, box_format, reduction
    )
    check_floating(class_logits=class_logits, pred_boxes=pred_boxes)
    layered = class_logits.ndim == 4
    axes = "L B Q" if layered else "B Q"
    check_shapes(class_logits=(class_logits, f"{axes} C"), pred_boxes=(pred_boxes, f"{axes} 4"))
    x, b = (class_logits, pred_boxes) if layered else (class_logits[None], pred_boxes[None])
    if not len(x):
        raise ValueError(f"class_logits: got {tuple(x.shape)}, with no layer")
    classes = x.shape[-1] - (no_object is not None)
    if classes < 1:
        raise ValueError(
            f"class_logits: got {tuple(class_logits.shape)}, wanted a class beside no-object"
        )
    goals, labels, mask = padded(
        target_boxes,
        target_labels,
        target_mask,
        x[0],
        classes=classes,
        ordered=box_format == "xyxy",
    )
    by_layer = None
    if layer_weight is not None:
        by_layer = of_layers(layer_weight, x, layered)
    wide = widen(b)
    if matcher is None or isinstance(matcher, HungarianMatcher):
        matcher = hungarian(matcher, no_object, groups, box_format)
    asked = asked_of(
        x, wide, goals, labels, mask, matches, weight, ignore_regions, matcher, box_format
    )

    found = (mask.sum() * groups).to(asked.share.dtype)
    if normalize == "matches":
        found = asked.share.sum() / len(x)
    counts = {"class": found, "l1": found, "box": found}
    if reduction == "mean":
        counts = dict.fromkeys(counts, found.clamp(min=1))
    if no_object is not None:
        said = torch.where(asked.positive, asked.every, asked.every * no_object)
        counts["class"] = said.sum() / len(x)
    corners, ends = corners_of(wide, box_format), corners_of(asked.goals, box_format)
    score = asked.positive.to(wide.dtype)
    if quality is not None:
        with torch.no_grad():
            u = 1 - box_iou_loss(corners.detach(), ends, reduction="none")
        score = torch.where(asked.positive, u.nan_to_num(nan=0.0).clamp(0, 1), 0.0).to(u.dtype)

    def total(layer: slice) -> dict[str, Tensor]:
        every, share, spoiled = asked.every[layer], asked.share[layer], asked.spoiled
        spoiled = None if spoiled is None else spoiled[layer]
        if by_layer is not None:
            scale = by_layer[layer].view(-1, 1, 1)
            every, share = every * scale, share * scale
            if spoiled is not None:
                spoiled = spoiled & (scale != 0).reshape(-1, *[1] * (spoiled.ndim - 1))
        if no_object is None:
            given = asked.positive[layer], asked.labels[layer], score[layer], every
            of_class = _independent(class_loss, x[layer], *given, quality=quality is not None)
        else:
            target = torch.where(asked.positive, asked.labels, classes)[layer]
            each = torch.where(asked.positive[layer], every, every * no_object)
            of_class = cross_entropy(
                x[layer].flatten(0, 2),
                target.flatten(),
                sample_weight=each.flatten(),
                ignore_index=None,
                reduction="sum",
            )
        l1 = box_l1_loss(wide[layer], asked.goals[layer], weight=share, reduction="sum")
        box = total_of("box_loss", box_loss, corners[layer], ends[layer], share, wanted=WANTED)
        if spoiled is not None:
            bad = torch.where(spoiled, wide[layer], 0.0).square().sum()
            l1, box = l1 + bad, box + bad
        return {"class": of_class, "l1": l1, "box": box}

    whole = slice(None)
    parts = [total(slice(k, k + 1)) for k in range(len(x))] if layered and not at_once else None
    both_double = class_logits.dtype == pred_boxes.dtype == torch.float64
    dtype = torch.float64 if both_double else torch.float32
    totals = total(whole) if parts is None else None
    kinds: dict[str, Kind] = {} if no_object is None else {"class": "values"}
    terms = {}
    for name, counted in counts.items():
        if totals is not None:
            value = totals[name]
        else:
            assert parts is not None
            value = torch.stack([part[name] for part in parts])
        kind = kinds.get(name, "positives")
        terms[name] = divided(value.to(dtype), counted, reduction, term=name, kind=kind)
    return terms


# ------------------------------------------------------------------------------------- the parts


def _independent(
    loss: TermLoss,
    x: Tensor,
    positive: Tensor,
    labels: Tensor,
    score: Tensor,
    every: Tensor,
    *,
    quality: bool,
) -> Tensor:
    """The total of the classes' questions; the score at the class of a match, 0 elsewhere."""
    at = labels.unsqueeze(-1)
    target = score.new_zeros(x.shape).scatter(-1, at, score.unsqueeze(-1))
    each, more = every.unsqueeze(-1).expand_as(x), {}
    if quality:  # a match of no quality is a match still
        here = torch.zeros_like(target, dtype=torch.bool)
        more["positive"] = here.scatter(-1, at, positive.unsqueeze(-1))
    return total_of("class_loss", loss, x, target, each, wanted=WANTED, **more)
