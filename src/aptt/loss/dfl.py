"""Distribution focal loss: a distance as a distribution over whole numbers.

    l    = floor(y), r = ceil(y)               y: the target in bins, 0 to n - 1
    loss = -(1 - (y - l)) log p[l] - (y - l) log p[r]      with p = softmax(x)

Axes: logits ``(..., n)``, one bin each for 0 to n - 1; target ``(...)``. For boxes as a rule
``(N, 4, n)`` and ``(N, 4)``: the distances from an anchor to the four sides, in strides.
From: Li et al., "Generalized Focal Loss", NeurIPS 2020, arXiv:2006.04388, eq. 6; the
decoding, eq. 5.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from aptt.core.bins import around, check_bins, cross_entropy, less_all, less_target
from aptt.core.checks import (
    Numbers,
    as_tensor,
    as_weight,
    assert_range,
    check_choice,
    check_floating,
    check_numbers,
    check_range,
    check_tensors,
)
from aptt.core.formula import Formula, Kept, by_row, scaled_
from aptt.core.module import LossModule, per_class
from aptt.core.ordinary import is_readable
from aptt.core.precision import wide, widen
from aptt.core.reduction import Reduction, check_reduction, count_of, count_positives, reduce
from aptt.core.shapes import check_shapes
from aptt.core.softmax import leading

__all__ = ["DistributionFocalLoss", "distribution_focal_loss", "expected_value"]


def distribution_focal_loss(
    logits: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    values: Numbers | None = None,
    out_of_range: Literal["error", "clamp"] = "error",
    normalize: Literal["elements", "positives"] = "elements",
    reduction: Reduction = "mean",
) -> Tensor:
    """Distribution focal loss: cross-entropy with the two bins around a distance.

        loss = -(1 - f) log p[floor y] - f log p[ceil y]      f = y - floor y

    Args:
        logits: ``(..., n)``, of two bins or more, floating.
        target: ``(...)``, from 0 to n - 1, both included; with ``values``, from the first of them
            to the last.
        weight: shaped like the target; multiplies and is counted, and 0 removes. One weight a box
            is ``weight.unsqueeze(-1).expand_as(target)``.
        values: ``(n,)``, increasing: what the bins stand for, in place of 0 to n - 1. FGL of
            D-FINE is this with its values, and the IoU as ``weight``.
        out_of_range: what becomes of targets beyond the bins: ``"error"``, or ``"clamp"`` to the
            nearest bin, for boxes larger than the bins can say.
        normalize: what ``"mean"`` counts: the weights, or the targets whose weight is above 0 (at
            least 1).
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss; least where p is 1 - f and f at the two bins, and there the entropy of these
        two, which is 0 for whole numbers alone: a scalar, or with ``"none"`` the shape of the
        target. float32 for half types.

    Raises:
        ValueError: shapes that do not fit, a target out of range (in eager mode on CPU; elsewhere
            a RuntimeError, by an assertion on the device), an unknown option.

    The gradient goes to ``logits``, and to targets and weights that ask for it.

    Use when:
        Box sides are uncertain: the head says a distribution, and a box loss of the decoded box
        trains beside it.

    Elsewhere:
        mmdetection ``DistributionFocalLoss``, ultralytics ``DFLoss``.

    Differs from:
        mmdetection: the last bin is a target like any other, an error there; a target below 0 is
            an error, there a negative weight. ``reg_max=16`` is 17 bins there, 16 in ultralytics.
        ultralytics: targets are not held 0.01 below the last bin, and never changed in place.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[0.0, 2.0, 1.0, 0.0]])
        >>> round(distribution_focal_loss(logits, torch.tensor([1.25])).item(), 4)
        0.7438
    """
    _check_options(out_of_range, normalize, reduction)
    check_floating(logits=logits)
    if values is not None:
        values = _values(values, logits)
    target = as_tensor("target", target, logits)
    check_shapes(logits=(logits, "*N bins"), target=(target, "*N"))
    bins = logits.shape[-1]
    check_bins("logits", logits)
    x = logits.reshape(target.numel(), bins)
    y = target.reshape(-1).to(wide(logits.dtype))
    w = None
    if weight is not None:
        w = as_weight("weight", weight, logits)
        check_shapes(target=(target, "*N"), weight=(w, "*N"))
        w = w.reshape(-1)
        y = torch.where(w != 0, y, 0 if values is None else values[0].to(y.dtype))
    if values is not None:
        if out_of_range == "error" and is_readable(values) and is_readable(logits):
            check_range(y, values[0].item(), values[-1].item(), keep=None)
        y = _in_bins(y, values.to(y.dtype))
    if out_of_range == "clamp":
        y = y.clamp(0, bins - 1)
    check_range(y, 0, bins - 1, keep=None)
    assert_range("target", y, 0, bins - 1, wanted="numbers from the first bin to the last")
    loss = reduce(
        _FORMULA,
        x,
        y,
        weight=w,
        count=lambda: (
            count_positives(y, w, reduction) if normalize == "positives" else count_of(y, w)
        ),
        reduction=reduction,
        term="dfl",
        kind="values" if normalize == "elements" else "positives",
    )
    return loss.reshape(target.shape) if reduction == "none" else loss


def expected_value(logits: Tensor, *, values: Numbers | None = None) -> Tensor:
    """The mean of a distribution over whole numbers: what its logits say, in bins.

        value = sum k p[k]      with p = softmax(x)

    Args:
        logits: ``(..., n)``, of two bins or more, floating.
        values: ``(n,)``, increasing: what the bins stand for, in place of 0 to n - 1.

    Returns:
        ``(...)``, from 0 to n - 1, or from the first value to the last; float32 for half types.

    Raises:
        ValueError: logits without an axis of bins, or with fewer than two on it.

    The gradient goes to ``logits``.

    Use when:
        Decoding what was trained with ``distribution_focal_loss``; times the stride, it is a
        distance in pixels.

    Example:
        >>> import torch
        >>> round(expected_value(torch.tensor([0.0, 2.0, 1.0, 0.0])).item(), 4)
        1.3071
    """
    check_floating(logits=logits)
    check_bins("logits", logits)
    x = widen(logits)
    lead = leading(x.reshape(-1, x.shape[-1]))
    # k p[k] summed as far as it is from the likeliest bin, which has no part in the sum
    stands = torch.arange(x.shape[-1], device=x.device, dtype=x.dtype)
    if values is not None:
        stands = _values(values, logits).to(x.dtype)
    likeliest = stands[lead.at]
    value = likeliest + ((stands - likeliest.unsqueeze(1)) * (lead.e * lead.share)).sum(1)
    return value.reshape(x.shape[:-1])


def _values(values: Numbers, logits: Tensor) -> Tensor:
    """What bins stand for, held to the logits and to their order; constants."""
    made = as_tensor("values", values, logits)
    check_tensors(logits=logits, values=made)
    check_numbers(values=made)
    if made.shape != logits.shape[-1:] or made.numel() < 2:
        got, wanted = tuple(made.shape), tuple(logits.shape[-1:])
        raise ValueError(f"values: got shape {got}, wanted {wanted}, of 2 bins or more")
    if (
        is_readable(made)
        and is_readable(logits)
        and not bool((made.diff() > 0).all() and made.isfinite().all())
    ):
        raise ValueError(f"values: got {made.tolist()}, wanted finite numbers that increase")
    return made.detach()


def _in_bins(y: Tensor, values: Tensor) -> Tensor:
    """Where numbers ``(N,)`` lie among the values, as bins and parts of them; differentiable."""
    below = (y.detach().unsqueeze(1) >= values[1:-1]).sum(1)
    low, high = values[below], values[below + 1]
    return below + (y - low) / (high - low)


def _result(x: Tensor, kept: Kept, y: Tensor) -> Tensor:
    lead = leading(x)
    return cross_entropy(lead.gap - lead.level, around(y))


def _step(x: Tensor, up: Tensor | float, kept: Kept, y: Tensor) -> tuple[Tensor, Tensor]:
    # cross-entropy with a distribution: d loss / d x = p - target
    lead, bins = leading(x), around(y)
    v = cross_entropy(lead.gap - lead.level, bins)
    return v, scaled_(less_target(lead, bins), by_row(up))


def _step_in_one(x: Tensor, up: Tensor | float, kept: Kept, y: Tensor) -> tuple[Tensor, Tensor]:
    # as torch has them, but for the likeliest bin: what it lacks of 1 is the sum of the others
    log_p, bins = x.log_softmax(1), around(y)
    top, at = log_p.max(1, keepdim=True)
    p = log_p.exp().scatter_(1, at, 0.0)
    lack = p.sum(1, keepdim=True)
    log_p.scatter_(1, at, torch.where(top > -0.5, torch.log1p(-lack), top))
    return cross_entropy(log_p, bins), scaled_(less_all(p, at, lack, bins), by_row(up))


_FORMULA = Formula(
    _result,
    _step,
    ahead=True,
    block=2**18,
    in_one=Formula(_result, _step_in_one, ahead=True),
)


def _check_options(out_of_range: str, normalize: str, reduction: Reduction) -> None:
    check_reduction(reduction)
    check_choice("out_of_range", out_of_range, ("error", "clamp"))
    check_choice("normalize", normalize, ("elements", "positives"))


class DistributionFocalLoss(LossModule):
    """Module form of :func:`distribution_focal_loss`; same options, same defaults."""

    def __init__(
        self,
        values: Numbers | None = None,
        out_of_range: Literal["error", "clamp"] = "error",
        normalize: Literal["elements", "positives"] = "elements",
        reduction: Reduction = "mean",
    ) -> None:
        _check_options(out_of_range, normalize, reduction)
        super().__init__(
            values=per_class(values, "values", signed=True),
            out_of_range=out_of_range,
            normalize=normalize,
            reduction=reduction,
        )

    def forward(self, logits: Tensor, target: Numbers, *, weight: Numbers | None = None) -> Tensor:
        """The loss of ``logits`` against ``target``, both in bins."""
        return distribution_focal_loss(logits, target, weight=weight, **self.options())
