"""What a prediction is asked of its classes: of each by itself, or which one of all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from aptt.core.checks import as_floats, check_tensors
from aptt.core.exponential import expm1
from aptt.core.ordinary import is_readable
from aptt.core.precision import widen
from aptt.core.shapes import check_shapes
from aptt.loss.classification import cross_entropy

__all__ = [
    "asked",
    "check_class_mask",
    "classes_of",
    "labels_at",
    "log_odds",
    "softmax_total",
    "told_of",
    "weight_of_class",
    "weight_of_labels",
]


def classes_of(logits: Tensor, no_object: float | None) -> int:
    """How many classes targets may have."""
    classes = logits.shape[-1] - (no_object is not None)
    if classes < 1 and no_object is not None:
        got = tuple(logits.shape)
        raise ValueError(f"class_logits: got {got}, wanted a class beside no-object")
    return classes


def told_of(labels: Tensor, rows: Tensor, positive: Tensor) -> Tensor:
    """Which predictions are told their classes: not those of a target whose class is not known."""
    if labels.ndim == 2:
        return rows
    return rows & ~(positive & (labels.sum(-1) == 0))


def labels_at(labels: Tensor, index: Tensor) -> Tensor:
    """The labels ``(B, A)`` or ``(B, A, C)`` of each prediction's target."""
    if labels.ndim == 2:
        return labels.gather(1, index)
    return labels.gather(1, index.unsqueeze(-1).expand(-1, -1, labels.shape[2]))


def asked(labels: Tensor, scores: Tensor, classes: int, *, shared: bool) -> Tensor:
    """The target ``(B, A, C)``: the score of a prediction, at the classes of its target.

    ``shared``: several classes share it.
    """
    scores = scores.unsqueeze(-1)
    if labels.ndim == 3:
        return scores * (labels / labels.sum(-1, keepdim=True).clamp(min=1) if shared else labels)
    none = scores.new_zeros((*labels.shape, classes))
    return none.scatter(2, labels.unsqueeze(-1), scores)


def weight_of_labels(of_class: Tensor, labels: Tensor) -> Tensor:
    """The weight of a target's class: the mean over several, 1 where there is none."""
    if labels.ndim == 2:
        return of_class[labels]
    many = labels.sum(-1)
    mean = (labels * of_class).sum(-1) / torch.where(many > 0, many, 1.0)
    return torch.where(many > 0, mean, 1.0)


def log_odds(logits: Tensor) -> Tensor:
    """Of a softmax that ends in no-object, the classes' log-odds: their sigmoid is the chance."""
    log = widen(logits).log_softmax(-1)[..., :-1]
    tiny = torch.finfo(log.dtype).tiny
    return log - (-expm1(log)).clamp(min=tiny).log()


def softmax_total(
    logits: Tensor, target: Tensor, every: Tensor, of_class: Tensor | None, no_object: float
) -> tuple[Tensor, Tensor]:
    """The sum of weighted cross-entropies, and that of the weights that took part.

    What is left of 1 by ``target`` ``(B, A, C)`` is no-object's.
    """
    rest = (1 - target.sum(-1, keepdim=True)).clamp(min=0)
    target = torch.cat((target, rest), -1).flatten(0, 1)
    if of_class is None:
        of_class = target.new_ones(target.shape[-1] - 1)
    of_class = of_class.to(torch.promote_types(of_class.dtype, target.dtype))
    of_class = torch.cat((of_class, of_class.new_full((1,), no_object)))
    total = cross_entropy(
        logits.flatten(0, 1),
        target,
        sample_weight=every.flatten(),
        weight=of_class,
        reduction="sum",
    )
    return total, (every.flatten() * (target * of_class).sum(-1)).sum()


def check_class_mask(class_mask: Tensor, logits: Tensor, no_object: float | None) -> None:
    """Refuse a mask of another shape, and one beside a softmax, whose classes are one question."""
    if no_object is not None:
        raise ValueError(
            "class_mask: got a mask beside no_object, whose softmax asks of all classes at once"
        )
    check_tensors(class_logits=logits, class_mask=class_mask)
    check_shapes(class_logits=(logits, "B A C"), class_mask=(class_mask, "B C"))
    if not is_readable(class_mask):
        return
    wrong = (class_mask != 0) & (class_mask != 1)
    if wrong.any():
        got = class_mask[wrong][0].item()
        raise ValueError(f"class_mask: got {got}, wanted True or False for each class")


def weight_of_class(class_weight: Tensor | Sequence[float], logits: Tensor, classes: int) -> Tensor:
    """The weights of classes, ``(C,)``."""
    class_weight = as_floats("class_weight", class_weight, logits)
    check_tensors(class_logits=logits, class_weight=class_weight)
    if class_weight.shape != (classes,):
        got = tuple(class_weight.shape)
        raise ValueError(f"class_weight: got shape {got}, wanted ({classes},)")
    return widen(class_weight)
