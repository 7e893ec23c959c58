"""SimCC: each coordinate of a point as a distribution over bins finer than a pixel.

    y       = split * x                                          a coordinate in bins
    t[k]    = exp(-(k - y)**2 / (2 sigma**2)) / sum over bins    the label, whose sum is always 1
    p       = softmax(logits / temperature)
    loss    = sum over coordinates of KL(t || p) = sum t log(t / p)

Axes: logits ``(*N, K, bins)``, one tensor for each of D coordinates; points ``(*N, K, D)``.
From: Li et al., "SimCC: a Simple Coordinate Classification Perspective for Human Pose Estimation",
ECCV 2022, arXiv:2107.03332, section 3; Gaussian labels and the KL divergence as in Jiang et al.,
"RTMPose", 2023, arXiv:2303.07399.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from aptt.core.checks import Numbers, as_floats
from aptt.core.divergence import Form
from aptt.core.labels import KL, gaussian_logits, taught
from aptt.core.module import LossModule
from aptt.core.points import point_weights
from aptt.core.precision import wide
from aptt.core.reduction import Reduction, check_reduction, count_of, normalize, reduce
from aptt.core.shapes import check_shapes
from aptt.loss.keypoint.bars import Sigma, bars_of, check_bars, far, sigma_of

__all__ = ["SimCCLoss", "simcc_loss"]


def simcc_loss(
    logits_list: Sequence[Tensor],
    target: Numbers,
    visibility: Numbers,
    *,
    weight: Numbers | None = None,
    split: float = 2.0,
    sigma: Sigma = 6.0,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """KL divergence of a Gaussian around each coordinate and the softmax over its bins.

        sum over coordinates of sum_k t[k] log(t[k] / p[k])      p = softmax(logits / temperature)

    Args:
        logits_list: D tensors ``(*N, K, bins)``, x first, of any floating dtype; each coordinate
            has bins of its own, ``split`` for each pixel.
        target: points ``(*N, K, D)`` in pixels, of any real dtype; bin k lies at ``k / split``.
        visibility: ``(*N, K)``: a point counts where it is above 0, as COCO has it. What other
            points hold is of no account, NaN included.
        weight: ``(*N, K)``, such as the confidence of an annotation; multiplies and is counted,
            and 0 removes.
        split: bins to a pixel, above 0.
        sigma: of the Gaussian in bins, at least 0.001: a number, or one for each coordinate.
        temperature: divides the logits.
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, at least 0, and 0 where the softmax is the Gaussian: a scalar, or with ``"none"``
        one value per point ``(*N, K)``. float32 for half types.

    Raises:
        ValueError: shapes that do not fit, an unknown option.
        TypeError: logits that are not floating, or not one tensor for each coordinate.

    The gradient goes to all logits, ``(p - t) / temperature``, and to targets and weights that ask
    for it. A point more than three sigma beyond the bins is removed, as an invisible one is; one
    that is closer has a label like any other, whose sum is 1. Labels of another kind are for
    :func:`cross_entropy`, with those of :func:`simcc_targets` changed.

    Use when:
        A pose model is to be exact below a pixel without large heat maps or their upsampling.

    Elsewhere:
        mmpose ``KLDiscretLoss`` with the codec ``SimCCLabel``.

    Differs from:
        mmpose: the sum over bins, where the mean there makes the value depend on their number;
            the mean over visible points, there over all points and samples; the label is the
            Gaussian itself, there the softmax of 10 times its values, which is another width:
            ``label_beta`` of RTMPose. ``beta`` is 1 / temperature.

    Example:
        >>> import torch
        >>> logits = torch.zeros(1, 1, 8), torch.zeros(1, 1, 6)
        >>> round(simcc_loss(logits, [[[1.5, 1.0]]], [[2]], sigma=1.0).item(), 4)
        1.0591
    """
    check_reduction(reduction)
    logits = bars_of(logits_list)
    check_bars(split, sigma, temperature, coordinates=len(logits))
    target = as_floats("target", target, logits[0])
    check_shapes(target=(target, f"*N K {len(logits)}"))
    for i, x in enumerate(logits):
        check_shapes(**{f"logits_list[{i}]": (x, "*N K bins"), "target": (target, "*N K D")})
    w = point_weights(target, visibility, weight, like=logits[0])
    y, total = target.to(wide(logits[0].dtype)) * split, None
    for i, x in enumerate(logits):
        w = w.masked_fill(far(y[..., i], x.shape[-1], sigma_of(sigma, i)), 0)
    for i, x in enumerate(logits):
        part = reduce(
            _SIMCC, x.reshape(w.numel(), x.shape[-1]), y[..., i].reshape(-1), weight=w.reshape(-1),
            count=lambda: 1, reduction="none" if reduction == "none" else "sum", term="simcc",
            sigma=sigma_of(sigma, i), temperature=temperature,
        )  # fmt: skip
        total = part if total is None else total + part
    assert total is not None
    if reduction == "none":
        return total.reshape(w.shape)
    return normalize(total, count_of(w, w), reduction, term="simcc")


def _labels(x: Tensor, y: Tensor, *, sigma: float, temperature: float) -> Tensor:
    """Times the temperature, by which the divergence divides both logits."""
    return gaussian_logits(y.to(wide(x.dtype)), x.shape[1], sigma) * temperature


def _form(*, sigma: float, temperature: float) -> Form:
    return Form(temperature, beta=0.0, soft=1.0)


_SIMCC = taught(KL, _labels, _form)


class SimCCLoss(LossModule):
    """Module form of :func:`simcc_loss`; same options, same defaults."""

    def __init__(
        self,
        split: float = 2.0,
        sigma: Sigma = 6.0,
        temperature: float = 1.0,
        reduction: Reduction = "mean",
    ) -> None:
        check_bars(split, sigma, temperature)
        check_reduction(reduction)
        super().__init__(split=split, sigma=sigma, temperature=temperature, reduction=reduction)

    def forward(
        self,
        logits_list: Sequence[Tensor],
        target: Numbers,
        visibility: Numbers,
        *,
        weight: Numbers | None = None,
    ) -> Tensor:
        """The loss of ``logits_list`` against ``target``."""
        return simcc_loss(logits_list, target, visibility, weight=weight, **self.options())
