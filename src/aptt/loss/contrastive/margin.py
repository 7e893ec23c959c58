"""Softmax over cosines with a margin: CosFace, ArcFace, LDAM.

    c[j]   = cos(x, w[j]),   s: scale,   m: the margin of class y
    c'     = c[y] - m                                        kind "cosine"
           = cos(arccos(c[y]) + m), or c[y] - m sin(m) beyond pi - m     kind "angle"
    loss   = log(exp(s c') + sum_{j != y} exp(s c[j])) - s c'

Axes: embeddings ``(N, D)``; weight ``(C, D)``; target ``(N,)``.
From: Wang et al. 2018 (CosFace), arXiv:1801.09414, eq. 4; Deng et al. 2019 (ArcFace),
arXiv:1801.07698, eq. 3; margins by class, Cao et al. 2019 (LDAM), arXiv:1906.07413, section 3.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from aptt.core.checks import (
    Numbers,
    check_choice,
    check_chunk,
    check_floating,
    check_index,
    check_indices,
    check_number,
    check_range,
    check_tensors,
    taken_classes,
)
from aptt.core.module import LossModule, per_class
from aptt.core.pairs import NEGATIVES, Sides, evaluate_pairs
from aptt.core.reduction import Reduction, check_reduction
from aptt.core.softmax import Against
from aptt.core.vectors import picked, unit
from aptt.loss.contrastive.batch import as_number, averaged, check_scale, row_weight, tables

__all__ = ["MarginLoss", "ldam_margins", "margin_loss"]

_LEAST_SINE = 0.01  # from where on the slope of an angle's cosine grows no further
_RIGHT_ANGLE = 1.5708  # pi / 2, as float32 rounds it too

Kind = Literal["angle", "cosine"]


def margin_loss(
    embeddings: Tensor,
    weight: Tensor,
    target: Tensor,
    *,
    sample_weight: Numbers | None = None,
    ignore_index: int | None = -100,
    margin: float | Numbers = 0.5,
    kind: Kind = "angle",
    scale: float | Tensor = 64.0,
    chunk: int | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Softmax over the cosines to each class, of which the right one is held back by a margin.

        loss = log(exp(s c') + sum_{j != y} exp(s c[j])) - s c'
        c'   = cos(arccos(c[y]) + m)  or  c[y] - m

    Args:
        embeddings: ``(N, D)``, any floating dtype.
        weight: ``(C, D)``, a direction for each class.
        target: ``(N,)``, class indices of any integer dtype.
        sample_weight: ``(N,)``; multiplies and is counted, and 0 removes.
        ignore_index: the class index that removes its sample; None: nothing is ignored.
        margin: in radians for an angle, up to pi / 2, or of the cosine; at least 0. One for all,
            or ``(C,)``, one a class (:func:`ldam_margins`).
        kind: what is held back, the ``"angle"`` (ArcFace) or the ``"cosine"`` (CosFace, LDAM).
        scale: multiplies the cosines; a tensor of one number may learn.
        chunk: samples that are multiplied out at once; None: so many that memory does not grow
            with N times C.
        reduction: ``"mean"`` over the sum of the weights, ``"sum"``, ``"none"``, or a callable
            ``(total, count, *, term)``.

    Returns:
        The loss, at least 0: a scalar, or with ``"none"`` one value a sample. float32 for half
        types.

    Raises:
        ValueError: shapes that do not fit, a class out of range (on CPU), an unknown option.
        TypeError: embeddings that are not floating, a target that is not integer.

    The gradient goes to ``embeddings``, ``weight``, and to a ``scale``, ``margin`` or
    ``sample_weight`` that asks for it. By the cosine the angle's slope is sin(t + m) / sin(t) at
    an angle t, infinite at 0: below a sine of 0.01 it grows no further; the value is exact. Beyond
    an angle of pi - m the loss jumps, as ArcFace's does in all implementations.

    Use when:
        Classes are many and few samples each, and embeddings are compared later: faces, products,
        speakers. For a long tail, ``kind="cosine", scale=30.0, margin=ldam_margins(counts)``.

    Elsewhere:
        insightface ``CombinedMarginLoss``, pytorch-metric-learning ``ArcFaceLoss`` (in degrees) and
        ``CosFaceLoss``.

    Differs from:
        insightface: finite at a cosine of 1 and beyond by rounding, where ``sqrt(1 - cos**2)`` has
            an infinite slope, or NaN; nothing is written into the caller's logits, which never
            exist.

    Example:
        >>> import torch
        >>> x, weight = torch.tensor([[0.5, 0.75**0.5, 0.0]]), torch.eye(3)[[0, 2]]
        >>> round(margin_loss(x, weight, torch.tensor([0]), scale=1.0).item(), 4)
        0.6814
    """
    _check_options(margin, kind, scale, ignore_index, chunk, reduction)
    embeddings, weight = tables(embeddings=embeddings, weight=weight)
    check_tensors(embeddings=embeddings, target=target)
    check_indices(target=target)
    if target.shape != embeddings.shape[:1]:
        raise ValueError(
            f"target: got shape {tuple(target.shape)}, wanted ({len(embeddings)},), one class a "
            "row of embeddings"
        )
    if len(weight) == 0:
        raise ValueError("weight: got no class, wanted (C, D), a direction for each class")
    y, keep = taken_classes(target, len(weight), ignore_index)
    weights = row_weight(sample_weight, embeddings, "embeddings", named="sample_weight", keep=keep)
    removed = None if weights is None else weights == 0
    if keep is not None:
        removed = ~keep if removed is None else removed | ~keep
    wide = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
    if removed is not None:
        wide = wide.masked_fill(removed.unsqueeze(1), 0.0)
    x, w = unit(wide), unit(weight.to(wide.dtype))
    s = as_number("scale", scale, x)
    top, rest = evaluate_pairs(NEGATIVES, x, w, Sides(target=y), scale=s, chunk=chunk)
    mine = s * _held_back(x, picked(w, y), _of_class(margin, y, w), kind)
    values = Against.of(top.detach(), rest, mine).nll
    return averaged(values, weights, keep, reduction, term="margin", splits=True)


def _of_class(margin: float | Numbers, y: Tensor, w: Tensor) -> Tensor:
    """The margin of each sample."""
    if isinstance(margin, int | float):
        return w.new_full((), margin)
    made = per_class(margin, "margin")
    if isinstance(margin, Tensor):
        check_tensors(weight=w, margin=made)
    made = made.to(w.device, w.dtype)
    if made.shape != w.shape[:1]:
        raise ValueError(
            f"margin: got shape {tuple(made.shape)}, wanted one number, or ({len(w)},), one a class"
        )
    return picked(made.unsqueeze(1), y).squeeze(1)


def _held_back(x: Tensor, own: Tensor, m: Tensor, kind: Kind) -> Tensor:
    """The cosine of the right class, less its margin."""
    cosine = (x * own).sum(1)
    if kind == "cosine":
        return cosine - m
    # the sine by both chords: of the cosine no digit of it is left near 1
    near, far = (x - own).square().sum(1), (x + own).square().sum(1)
    square = torch.where(near + far > 3, near * far / 4, 1.0)  # zeros have no direction
    steep = square > _LEAST_SINE**2
    flat = square / (2 * _LEAST_SINE)
    exact = torch.where(steep, square, 1.0).sqrt()
    sine = torch.where(steep, exact, flat + (square.sqrt() - flat).detach())
    turned = cosine * m.cos() - sine * m.sin()
    return torch.where(cosine > -m.cos(), turned, cosine - m * m.sin())


def ldam_margins(counts: Numbers, *, most: float = 0.5) -> Tensor:
    """Margins for classes of so many samples: the rarer, the larger.

        m[c] = most * (least count / n[c])**(1/4)

    Args:
        counts: ``(C,)``, how many samples of each class the data set holds, at least 1.
        most: the largest margin, that of the rarest class.

    Returns:
        ``(C,)``, for ``margin_loss(kind="cosine", margin=...)``.

    Raises:
        ValueError: a count below 1.

    From Cao et al. 2019, arXiv:1906.07413, section 3.

    Example:
        >>> ldam_margins([1000, 10])
        tensor([0.1581, 0.5000])
    """
    check_number("most", most)
    made = per_class(counts, "counts")
    if not bool((made >= 1).all()):
        raise ValueError(f"counts: got {float(made.min()):g}, wanted at least 1 sample a class")
    held = made.to(torch.promote_types(made.dtype, torch.get_default_dtype()))
    return most * (held.amin() / held) ** 0.25


def _check_options(
    margin: float | Numbers,
    kind: str,
    scale: float | Tensor,
    ignore_index: int | None,
    chunk: int | None,
    reduction: Reduction,
) -> None:
    check_choice("kind", kind, ("angle", "cosine"))
    if isinstance(margin, int | float):
        check_number("margin", margin, 0.0, math.pi / 2 if kind == "angle" else math.inf)
    elif kind == "angle":
        check_range(per_class(margin, "margin"), 0.0, _RIGHT_ANGLE, keep=None, name="margin")
    else:
        per_class(margin, "margin")
    if isinstance(scale, Tensor):
        check_floating(scale=scale)
    check_scale(scale)
    check_index(ignore_index=ignore_index)
    check_chunk(chunk)
    check_reduction(reduction)


class MarginLoss(LossModule):
    """Module form of :func:`margin_loss`; same options, same defaults.

    It holds no classes: their directions come with each call, and a margin of each class is a
    buffer.
    """

    def __init__(
        self,
        ignore_index: int | None = -100,
        margin: float | Numbers = 0.5,
        kind: Kind = "angle",
        scale: float | Tensor = 64.0,
        chunk: int | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        _check_options(margin, kind, scale, ignore_index, chunk, reduction)
        super().__init__(
            ignore_index=ignore_index,
            margin=margin if isinstance(margin, int | float) else per_class(margin, "margin"),
            kind=kind,
            scale=scale,
            chunk=chunk,
            reduction=reduction,
        )

    def forward(
        self,
        embeddings: Tensor,
        weight: Tensor,
        target: Tensor,
        *,
        sample_weight: Numbers | None = None,
    ) -> Tensor:
        """The loss of ``embeddings`` of the classes ``target``, whose directions are ``weight``."""
        return margin_loss(
            embeddings, weight, target, sample_weight=sample_weight, **self.options()
        )
