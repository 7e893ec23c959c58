"""Labels of some classes alone: what a sample has no labels of may be in its background.

    z[0] = log(e**z[0] + sum of e**z[c])    z[c] = -inf      over the classes c without labels

Axes: logits ``(N, C, ...)``, or with ``class_dim`` anywhere.
From: Shi et al. 2021, "Marginal loss and exclusion loss for partially supervised multi-organ
segmentation", arXiv:2007.03868, section 3.2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.checks import Numbers, as_tensor, check_floating, check_index
from aptt.core.precision import widen
from aptt.core.shapes import check_shapes

__all__ = ["merge_unlabelled"]


def merge_unlabelled(logits: Tensor, annotated: Numbers, *, class_dim: int = 1) -> Tensor:
    """Logits in which the classes that a sample has no labels of are merged into its background.

        z[0] = log(e**z[0] + sum of e**z[c])    z[c] = -inf      over the classes c not annotated

    Args:
        logits: ``(N, C, ...)``, any floating dtype; class 0 is the background.
        annotated: ``(N, C)`` or ``(C,)`` bool, which classes were labelled in each sample. The
            background always is, whatever stands there.
        class_dim: the axis of the classes.

    Returns:
        The shape of the logits; float32 for half types. Any loss of a softmax takes them, and is
        then its marginal form: cross-entropy, Dice, Lovasz.

    Raises:
        ValueError: shapes that do not fit, an axis that is none.
        TypeError: ``annotated`` is not of bool.

    The gradient goes to ``logits``: of cross-entropy it is the probability less the posterior, so
    that a class without labels is neither punished nor asked for. A pixel that is labelled with a
    class that its sample has no labels of costs infinity.

    Use when:
        Data sets that annotate different organs, or different objects, train one model. Where the
        classes are labels that do not exclude each other (``mode="multilabel"``), a ``weight`` of
        0 for a class removes it instead.

    Elsewhere:
        The marginal loss of Shi et al.; MultiTalent.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[0.5, 0.3, 0.2]]).log()
        >>> merged = merge_unlabelled(logits, torch.tensor([[True, True, False]]))
        >>> [round(p, 4) for p in merged.softmax(1)[0].tolist()]
        [0.7, 0.3, 0.0]
    """
    check_floating(logits=logits)
    check_index(class_dim=class_dim)
    annotated = as_tensor("annotated", annotated, logits)
    if annotated.dtype != torch.bool:
        raise TypeError(f"annotated: got {annotated.dtype}, wanted bool, such as annotated.bool()")
    if not -logits.ndim <= class_dim < logits.ndim or class_dim % logits.ndim == 0:
        raise ValueError(
            f"class_dim: got {class_dim} with logits {tuple(logits.shape)}, wanted an axis after "
            "that of the samples"
        )
    x = widen(logits).movedim(class_dim, 1)
    axes = "C" if annotated.ndim == 1 else "N C"
    check_shapes(logits=(x, "N C *S"), annotated=(annotated, axes))
    known = annotated.reshape(-1, x.shape[1], *[1] * (x.ndim - 2))
    of_no_label = known.logical_not().index_fill(1, known.new_zeros(1, dtype=torch.int64), True)
    background = _log_sum(torch.where(of_no_label, x, -torch.inf))
    foreground = torch.where(of_no_label, -torch.inf, x)[:, 1:]
    return torch.cat((background, foreground), 1).movedim(1, class_dim)


def _log_sum(x: Tensor) -> Tensor:
    """``logsumexp`` over classes; what is not finite has no slope, as where a pixel is ignored."""
    found = x.detach().logsumexp(1, keepdim=True)
    finite = found.isfinite()
    return torch.where(finite, torch.where(finite, x, 0.0).logsumexp(1, keepdim=True), found)
