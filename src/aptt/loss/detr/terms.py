"""The terms of the set loss: what each query is asked, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from aptt.core.boxes import BoxFormat, check_box_format
from aptt.core.checks import (
    as_floats,
    as_weight,
    check_choice,
    check_floating,
    check_number,
    check_tensors,
    check_weight,
    check_whole,
)
from aptt.core.formula import widen
from aptt.core.pairwise import covered
from aptt.core.reduction import Kind, Reduction, check_reduction
from aptt.core.reduction import normalize as divided
from aptt.core.shapes import check_shapes
from aptt.core.targets import (
    IGNORED,
    Targets,
    TermLoss,
    check_parts,
    index_of,
    matched,
    padded,
    regions_of,
    total_of,
)
from aptt.loss.bbox import box_iou_loss, box_l1_loss, giou_loss
from aptt.loss.classification import cross_entropy
from aptt.loss.focal import focal_loss
from aptt.loss.matching import Assignment, HungarianMatcher

__all__ = ["Matcher", "Quality", "check_options", "detr_terms", "summed_terms"]

Matcher = Callable[..., Assignment]
Quality = Literal["iou"]

_HALF = 0.5  # the share of a query's own area in a region from which on it is ignored


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


class _Asked(NamedTuple):
    """What is asked of each query; all ``(L, B, Q)``, boxes ``(L, B, Q, 4)``."""

    every: Tensor  # the weight of a query, 0 where it does not count
    share: Tensor  # the same, 0 where it has no target too
    positive: Tensor
    labels: Tensor
    goals: Tensor
    spoiled: Tensor | None  # what no matcher picks, and is to be seen


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
        by_layer = _of_layers(layer_weight, x, layered)
    wide = widen(b)
    if matcher is None or isinstance(matcher, HungarianMatcher):
        matcher = _hungarian(matcher, no_object, groups, box_format)
    asked = _asked(
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
    corners, ends = _corners(wide, box_format), _corners(asked.goals, box_format)
    score = asked.positive.to(wide.dtype)
    if quality is not None:
        with torch.no_grad():
            u = 1 - box_iou_loss(corners.detach(), ends, reduction="none")
        score = torch.where(asked.positive, u.nan_to_num(nan=0.0).clamp(0, 1), 0.0).to(u.dtype)

    def total(layer: slice) -> dict[str, Tensor]:
        every, share = asked.every[layer], asked.share[layer]
        if by_layer is not None:
            scale = by_layer[layer].view(-1, 1, 1)
            every, share = every * scale, share * scale
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
        box = total_of("box_loss", box_loss, corners[layer], ends[layer], share, wanted=_WANTED)
        if asked.spoiled is not None:
            bad = torch.where(asked.spoiled[layer], wide[layer], 0.0).square().sum()
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


# ------------------------------------------------------------------------- what is asked of whom


def _asked(
    x: Tensor,
    b: Tensor,
    goals: Tensor,
    labels: Tensor,
    mask: Tensor,
    matches: Tensor | None,
    weight: Tensor | None,
    ignore_regions: Targets | None,
    matcher: Matcher,
    box_format: BoxFormat,
) -> _Asked:
    layers = len(x)
    ones = torch.ones_like(b[..., 0])
    if weight is not None:
        weight = as_weight("weight", _for_layers("weight", weight, x), b)
        check_weight("weight", weight)
    may = None if weight is None else weight != 0
    goals = goals.to(torch.promote_types(goals.dtype, b.dtype))
    spoiled = None
    if matches is None:
        with torch.no_grad():
            matches = _by_matcher(matcher, x, b, goals, labels, mask, may)
        spoiled = ~b.isfinite()
    matches = _for_layers("matches", matches, x)
    flat = x.flatten(0, 1), mask.expand(layers, -1, -1).flatten(0, 1)
    matches, _ = matched(matches.flatten(0, 1), None, *flat)
    index = index_of(matches, flat[1]).unflatten(0, x.shape[:2])
    matches = matches.unflatten(0, x.shape[:2])

    rows = matches != IGNORED if may is None else (matches != IGNORED) & may
    positive = (matches >= 0) & rows
    if ignore_regions is not None:
        regions = regions_of(ignore_regions, x[0])
        share = covered(b.detach(), regions.to(b.dtype), box_format)
        rows = rows & (positive | ~(share >= _HALF).any(-1))
    every = torch.where(rows, ones if weight is None else weight, 0.0)
    at = index.unsqueeze(-1).expand(-1, -1, -1, 4)
    return _Asked(
        every,
        torch.where(positive, every, 0.0),
        positive,
        labels.expand(layers, -1, -1).gather(2, index),
        goals.expand(layers, -1, -1, -1).gather(2, at),
        None if spoiled is None else spoiled & rows.unsqueeze(-1),
    )


def _by_matcher(
    matcher: Matcher,
    x: Tensor,
    b: Tensor,
    goals: Tensor,
    labels: Tensor,
    mask: Tensor,
    may: Tensor | None,
) -> Tensor:
    """The matches of all layers, by one call; layers are images to a matcher of the caller's."""
    layers = len(x)
    if layers == 1:
        of_it = None if may is None else may[0]
        return matcher(x[0], b[0], None, goals, labels, mask, of_it)[0]
    if isinstance(matcher, HungarianMatcher):
        return matcher(x, b, None, goals, labels, mask, may).matches
    of_all = (t.expand(layers, *t.shape).flatten(0, 1) for t in (goals, labels, mask))
    which = None if may is None else may.flatten(0, 1)
    found = matcher(x.flatten(0, 1), b.flatten(0, 1), None, *of_all, which)
    return found[0].unflatten(0, x.shape[:2])


def _hungarian(
    matcher: HungarianMatcher | None, no_object: float | None, groups: int, box_format: BoxFormat
) -> HungarianMatcher:
    """The published costs, or the caller's matcher with what the loss says."""
    if matcher is None:
        softmax = {} if no_object is None else {"class_cost": "softmax", "class_gain": 1.0}
        return HungarianMatcher(groups=groups, box_format=box_format, **softmax)  # type: ignore[arg-type]
    if matcher.groups not in (1, groups):
        raise ValueError(
            f"matcher: got {matcher.groups} groups, wanted those of the loss, groups={groups}"
        )
    return replace(matcher, groups=groups, box_format=matcher.box_format or box_format)


def _for_layers(name: str, t: Tensor, x: Tensor) -> Tensor:
    """``(B, Q)`` for all layers, or ``(L, B, Q)``."""
    check_tensors(class_logits=x, **{name: t})
    size = x.shape[:3]
    if t.shape not in (size, size[1:]):
        raise ValueError(
            f"{name}: got {tuple(t.shape)}, wanted {tuple(size[1:])}, for images and queries, or "
            f"{tuple(size)}, for layers too"
        )
    return t.expand(size)


def _of_layers(weight: Tensor | Sequence[float], x: Tensor, layered: bool) -> Tensor:
    made = as_floats("layer_weight", weight, x)
    check_tensors(class_logits=x, layer_weight=made)
    if not layered or made.shape != x.shape[:1]:
        wanted = f"({len(x)},), one for each layer" if layered else "None: there is one layer"
        raise ValueError(f"layer_weight: got shape {tuple(made.shape)}, wanted {wanted}")
    check_weight("layer_weight", made)
    return made.to(torch.promote_types(x.dtype, torch.float32))


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
    return total_of("class_loss", loss, x, target, each, wanted=_WANTED, **more)


def _corners(boxes: Tensor, box_format: BoxFormat) -> Tensor:
    if box_format == "xyxy":
        return boxes
    first, size = boxes[..., :2], boxes[..., 2:]
    if box_format == "xywh":
        return torch.cat((first, first + size), -1)
    return torch.cat((first - size / 2, first + size / 2), -1)


_WANTED = {
    "class_loss": "a loss of yes-or-no questions, such as focal_loss or FocalLoss(); with "
    "quality='iou' one of soft targets and positives: varifocal_loss, mal_loss or ia_bce_loss",
    "box_loss": "a loss of boxes as corners, such as giou_loss or CIoULoss()",
    "matcher": "a HungarianMatcher, or a function of the same arguments",
}


def check_options(
    matcher: Any,
    class_loss: Any,
    quality: Any,
    no_object: Any,
    box_loss: Any,
    groups: int,
    normalize: str,
    box_format: BoxFormat,
    reduction: Reduction,
) -> None:
    """Refuse what is unknown, and what contradicts."""
    check_reduction(reduction, none=False)
    check_parts(_WANTED, class_loss=class_loss, box_loss=box_loss)
    if matcher is not None:
        check_parts(_WANTED, matcher=matcher)
    check_whole("groups", groups)
    check_choice("normalize", normalize, ("targets", "matches"))
    check_box_format(box_format)
    if quality is not None:
        check_choice("quality", quality, ("iou",), also="None")
    if no_object is None:
        return
    check_number("no_object", no_object)
    if class_loss is not focal_loss or quality is not None:
        name = "quality" if quality is not None else "class_loss"
        raise ValueError(
            f"{name}: got {quality or class_loss!r} beside no_object, which says that the classes "
            "are those of a softmax, with cross-entropy"
        )
