"""Absolute error with a round bottom: smooth everywhere, linear far from the target.

    Charbonnier   = sqrt(d**2 + eps**2) - eps = d**2 / (sqrt(d**2 + eps**2) + eps)
    log-cosh      = log cosh d

Axes: prediction x and target t of any equal shape; d = x - t.
From: Charbonnier et al., ICIP 1994, https://doi.org/10.1109/ICIP.1994.413553, as in Lai et al.,
"Deep Laplacian Pyramid Networks", CVPR 2017, arXiv:1704.03915, section 3.3.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from aptt.core.checks import Numbers, check_positive
from aptt.core.formula import Formula, Kept, scaled_
from aptt.core.numbers import elementwise
from aptt.core.reduction import Reduction
from aptt.loss.regression.module import NumberLoss

__all__ = ["CharbonnierLoss", "LogCoshLoss", "charbonnier_loss", "log_cosh_loss"]


def charbonnier_loss(
    prediction: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    epsilon: float = 1e-3,
    reduction: Reduction = "mean",
) -> Tensor:
    """Charbonnier loss: a square root that is round near the target, exactly 0 there.

        sqrt(d**2 + epsilon**2) - epsilon, with d = x - t

    Args:
        prediction: any shape, any floating dtype.
        target: the same shape.
        weight: the same shape; multiplies and is counted, and 0 removes.
        epsilon: how far the bend reaches, in the units of the prediction, above 0.
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, at least 0: a scalar, or with ``"none"`` the shape of the target. float32 for
        half types.

    Raises:
        ValueError: shapes that differ, an epsilon of 0 or less, weights that are negative or
            infinite (on CPU).

    The gradient goes to ``prediction``, and to targets and weights that ask for it: ``d /
    sqrt(d**2 + epsilon**2)``.

    Use when:
        Images are restored: as sharp as an L1 loss, with a gradient that fades at the target.

    Elsewhere:
        basicsr ``CharbonnierLoss``, kornia ``charbonnier_loss``.

    Differs from:
        LapSRN, basicsr: lower by epsilon, so that a perfect prediction costs 0; the gradient is the
            same. Some implementations mean epsilon's square by ``eps``: ``eps=1e-6`` there is
            ``epsilon=1e-3`` here.
        kornia: its epsilon is 1.

    Example:
        >>> import torch
        >>> round(charbonnier_loss(torch.tensor([0.003]), torch.tensor([0.0])).item(), 7)
        0.0021623
    """
    _check_epsilon(epsilon)
    return elementwise(
        CHARBONNIER, prediction, target, weight=weight, reduction=reduction, term="charbonnier",
        epsilon=epsilon,
    )  # fmt: skip


def log_cosh_loss(
    prediction: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Log-cosh: half the squared error near the target, the absolute error less log 2 far away.

        log cosh (x - t)

    Args:
        prediction: any shape, any floating dtype.
        target: the same shape. The bend lies at an error of about 1: measure both in a unit that
            makes ordinary errors about that large.
        weight: the same shape; multiplies and is counted, and 0 removes.
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, at least 0: a scalar, or with ``"none"`` the shape of the target. float32 for
        half types.

    Raises:
        ValueError: shapes that differ, weights that are negative or infinite (on CPU).

    The gradient goes to ``prediction``, and to targets and weights that ask for it: ``tanh(d)``.

    Use when:
        A Huber loss is wanted that has all derivatives, for second-order methods.

    Elsewhere:
        Keras ``LogCosh``, auraloss ``LogCoshLoss``, torchmetrics ``LogCoshError``.

    Differs from:
        auraloss, torchmetrics: ``log(cosh(d))`` is infinite from an error of 90 on in float32.
        Keras: ``d + softplus(-2 d) - log 2`` is 0 for errors below 2e-4 in float32.

    Example:
        >>> import torch
        >>> round(log_cosh_loss(torch.tensor([100.0]), torch.tensor([0.0])).item(), 5)
        99.30685
    """
    return elementwise(
        LOG_COSH, prediction, target, weight=weight, reduction=reduction, term="log_cosh"
    )


def _charbonnier(x: Tensor, kept: Kept, t: Tensor, *, epsilon: float) -> Tensor:
    d = x - t
    return d * (d / (_hypotenuse(d, epsilon) + epsilon))


def _charbonnier_step(
    x: Tensor, up: Tensor | float, kept: Kept, t: Tensor, *, epsilon: float
) -> tuple[Tensor, Tensor]:
    d = x - t
    root = _hypotenuse(d, epsilon)
    slope = d / root
    return d.mul_(d / root.add_(epsilon)), scaled_(slope, up)


def _hypotenuse(d: Tensor, epsilon: float) -> Tensor:
    """``sqrt(d**2 + epsilon**2)``, where a square would leave the range too."""
    return torch.hypot(d, d.new_full((), epsilon))


def _log_cosh(x: Tensor, kept: Kept, t: Tensor) -> Tensor:
    # near: cosh d = 1 + 2 sinh(d / 2)**2; far: cosh d = exp(|d|) (1 + exp(-2 |d|)) / 2
    d = x - t
    off = d.abs()
    near = torch.sinh(d.clamp(-1, 1) / 2).square().mul(2).log1p()
    far = off + torch.exp(-2 * off).log1p() - math.log(2)
    return torch.where(off < 1, near, far)


def _log_cosh_step(x: Tensor, up: Tensor | float, kept: Kept, t: Tensor) -> tuple[Tensor, Tensor]:
    return _log_cosh(x, kept, t), scaled_(torch.tanh(x - t), up)


CHARBONNIER = Formula(_charbonnier, _charbonnier_step, ahead=True)
LOG_COSH = Formula(_log_cosh, _log_cosh_step, ahead=True, block=2**17)


def _check_epsilon(epsilon: float) -> None:
    check_positive("epsilon", epsilon)


class CharbonnierLoss(NumberLoss):
    """Module form of :func:`charbonnier_loss`; same options, same defaults."""

    _function = staticmethod(charbonnier_loss)

    def __init__(self, epsilon: float = 1e-3, reduction: Reduction = "mean") -> None:
        _check_epsilon(epsilon)
        super().__init__(epsilon=epsilon, reduction=reduction)


class LogCoshLoss(NumberLoss):
    """Module form of :func:`log_cosh_loss`; same options, same defaults."""

    _function = staticmethod(log_cosh_loss)

    def __init__(self, reduction: Reduction = "mean") -> None:
        super().__init__(reduction=reduction)
