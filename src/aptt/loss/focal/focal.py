"""Focal loss: cross-entropy that fades on examples the model already gets right.

    m     = margin of the right answer: x or -x (sigmoid), log-odds of the class (softmax)
    loss  = alpha * (1 - p)**gamma * -log p      with p = sigmoid(m)
          = alpha * exp(-gamma * softplus(m)) * softplus(-m)

    of soft targets t and a softmax, sum over c of t[c] times the same of class c

Axes: sigmoid, logits and target ``*N``; softmax, logits ``(N, C, ...)`` or ``(..., C)``, target
the same without C, or of the same shape.
From: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, arXiv:1708.02002, eq. 5.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from aptt.core.checks import (
    IgnoreIndex,
    Numbers,
    as_factor,
    as_tensor,
    check_choice,
    check_floating,
    check_index,
    check_number,
    ignored,
)
from aptt.core.module import LossModule
from aptt.core.precision import wide
from aptt.core.reduction import Count, Reduction, check_reduction, count_found, count_of, reduce
from aptt.core.reduction import Kind as CountKind
from aptt.loss.focal.sigmoid import SIGMOID, elements
from aptt.loss.focal.softmax import INDICES, SHARES, counted, rows

__all__ = ["FocalLoss", "focal_loss"]

Kind = Literal["auto", "sigmoid", "softmax"]


def focal_loss(
    logits: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    alpha: float | Numbers | Literal["auto"] | None = "auto",
    gamma: float = 2.0,
    kind: Kind = "auto",
    ignore_index: IgnoreIndex = "auto",
    label_smoothing: float = 0.0,
    class_dim: int | None = None,
    normalize: Literal["elements", "positives"] = "elements",
    reduction: Reduction = "mean",
) -> Tensor:
    """Focal loss from logits: sigmoid or softmax, as the target's shape says.

        loss = -alpha * (1 - p)**gamma * log p      p: probability of the right answer

    Args:
        logits: any shape (sigmoid), or ``(N, C, ...)`` or ``(..., C)`` (softmax); floating.
        target: 0 or 1 in the logits' shape, of any real dtype: sigmoid, each element a question of
            its own. Class indices without the class axis: softmax, one class of several is right.
            With ``kind="softmax"`` also soft targets, floating and shaped like the logits.
        weight: shaped like 0/1 targets or class indices; multiplies and is counted, and 0 removes.
        alpha: sigmoid: the balance, in [0, 1]: positives weigh alpha, negatives ``1 - alpha``;
            softmax: the weight of the right class, at least 0. One number for all, ``(C,)`` of
            them, or None for 1 everywhere. ``"auto"`` is 0.25 in the sigmoid form, as published,
            and None in the softmax form, where one number would but scale the loss.
        gamma: how fast easy examples fade, at least 0; 0 is cross-entropy.
        kind: ``"sigmoid"`` or ``"softmax"``; ``"auto"``: as the target's shape says, sigmoid where
            it is that of the logits.
        ignore_index: the target value that removes its element; None: none does; ``"auto"``: -100
            among class indices, and else none.
        label_smoothing: softmax: the share of the target's mass spread evenly over the classes,
            those masked by -inf left out. In [0, 1].
        class_dim: the class axis, where the shapes leave it open.
        normalize: what ``"mean"`` counts: elements (or rows, by their mass), or the positives of a
            sigmoid loss, as detectors do (at least 1, so that background alone is still penalised).
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, at least 0: a scalar, or with ``"none"`` the shape of the target. float32 for
        half types.

    Raises:
        ValueError: shapes that do not fit, a softmax over a single class, targets of a sigmoid
            other than 0 and 1 (soft labels want ``quality_focal_loss``), classes or weights out of
            range (all on CPU), an unknown option.

    The gradient goes to ``logits``, and to weights and soft targets that ask for it. It is finite
    for any gamma.

    Use when:
        Background outnumbers the rest by orders of magnitude, as in dense detection. For a handful
        of rare classes, ``cross_entropy(logit_adjustment=...)`` is the better first try.

    Elsewhere:
        torchvision ``sigmoid_focal_loss``, kornia ``binary_focal_loss_with_logits`` and
        ``focal_loss``, Keras ``CategoricalFocalCrossentropy``, MONAI and
        segmentation-models-pytorch ``FocalLoss``.

    Differs from:
        torchvision: the mean of nothing is 0, not NaN; finite gradients for gamma below 1; classes
            too; alpha=-1 there is None here. Its mean, like this one, counts elements.
        kornia: softmax alpha weighs the right class (there 1 - alpha for class 0); the mean counts
            rows, not rows times classes.
        segmentation-models-pytorch: "multiclass" there is C sigmoid losses; here it is a softmax.

        Keras: no clamp of the probability to 1e-7; ``alpha`` is None here, and 0.25 there.

    Example:
        >>> import torch
        >>> logits = torch.tensor([2.0, -1.0, 0.5])
        >>> round(focal_loss(logits, torch.tensor([1, 0, 0])).item(), 4)
        0.1002
    """
    _check_options(
        alpha, gamma, kind, ignore_index, label_smoothing, class_dim, normalize, reduction
    )
    check_floating(logits=logits)
    target = as_tensor("target", target, logits)
    how: dict[str, Any] = {"gamma": gamma, "reduction": reduction, "term": "focal"}
    if kind == "sigmoid" or (kind == "auto" and target.shape == logits.shape):
        _check_sigmoid(label_smoothing)
        x, y, w, alpha = elements(logits, target, alpha, weight, ignore_index, class_dim)

        def count() -> Count:
            if normalize == "positives":
                return count_found(y, w, reduction)
            return count_of(y, w)

        counts: CountKind = "values" if normalize == "elements" else "positives"
        loss = reduce(SIGMOID, x, y, weight=w, count=count, kind=counts, alpha=alpha, **how)
        return loss.reshape(target.shape) if reduction == "none" else loss
    x, y, w, alpha, shape = rows(logits, target, alpha, weight, ignore_index, class_dim)
    _check_softmax(normalize)
    soft = y.is_floating_point()
    formula = INDICES
    if soft or label_smoothing:
        formula = SHARES
        how["smoothing"] = label_smoothing or None

    loss = reduce(
        formula, x, y, weight=w, count=lambda: counted(y, w, wide(x.dtype)), alpha=alpha, **how
    )
    return loss.reshape(shape) if reduction == "none" else loss


def _check_options(
    alpha: object,
    gamma: float,
    kind: str,
    ignore_index: IgnoreIndex,
    label_smoothing: float,
    class_dim: int | None,
    normalize: str,
    reduction: Reduction,
) -> None:
    check_reduction(reduction)
    ignored(ignore_index, indexed=True)
    check_index(class_dim=class_dim)
    if isinstance(alpha, str):
        check_choice("alpha", alpha, ("auto",), also="numbers of at least 0, or None")
    check_number("gamma", gamma)
    check_choice("kind", kind, ("auto", "sigmoid", "softmax"))
    check_number("label_smoothing", label_smoothing, 0.0, 1.0)
    check_choice("normalize", normalize, ("elements", "positives"))
    if kind == "sigmoid":
        _check_sigmoid(label_smoothing)
    if kind == "softmax":
        _check_softmax(normalize)


def _check_sigmoid(label_smoothing: float) -> None:
    if label_smoothing:
        raise ValueError(
            f"label_smoothing: got {label_smoothing} with the sigmoid form, wanted 0: its "
            "targets are 0 and 1; for soft labels see quality_focal_loss"
        )


def _check_softmax(normalize: str) -> None:
    if normalize == "positives":
        raise ValueError("normalize: got 'positives' with a softmax, wanted 0/1 targets")


class FocalLoss(LossModule):
    """Module form of :func:`focal_loss`; same options, same defaults."""

    def __init__(
        self,
        alpha: float | Numbers | Literal["auto"] | None = "auto",
        gamma: float = 2.0,
        kind: Kind = "auto",
        ignore_index: IgnoreIndex = "auto",
        label_smoothing: float = 0.0,
        class_dim: int | None = None,
        normalize: Literal["elements", "positives"] = "elements",
        reduction: Reduction = "mean",
    ) -> None:
        _check_options(
            alpha, gamma, kind, ignore_index, label_smoothing, class_dim, normalize, reduction
        )
        if alpha is not None and not isinstance(alpha, str):
            alpha = as_factor("alpha", alpha)
        super().__init__(
            alpha=alpha,
            gamma=gamma,
            kind=kind,
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            class_dim=class_dim,
            normalize=normalize,
            reduction=reduction,
        )

    def forward(self, logits: Tensor, target: Numbers, *, weight: Numbers | None = None) -> Tensor:
        """The loss of ``logits`` against ``target``."""
        return focal_loss(logits, target, weight=weight, **self.options())
