"""Heat-map losses: where on a grid a point or a centre lies.

    mse      loss = (x - y)**2                                     x: value, y: target from 0 to 1
    focal    loss = (1 - p)**alpha * -log p                        at a peak, p = sigmoid(x)
                  = (1 - y)**beta * p**alpha * -log(1 - p)         elsewhere
    awing    loss = omega * log(1 + |(x - y) / epsilon|**(2.1 - y))  below theta, then linear

Axes: prediction and target ``(N, K, *S)``: samples, maps (points or classes), any grid.
From: focal, Law and Deng, "CornerNet", ECCV 2018, arXiv:1808.01244, eq. 1, and Zhou et al.,
"Objects as Points", 2019, arXiv:1904.07850, eq. 1; awing, Wang et al., "Adaptive Wing Loss", ICCV
2019, arXiv:1904.07399, eq. 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from numbers import Real
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from aptt.core.checks import (
    Numbers,
    as_floats,
    as_tensor,
    as_weight,
    check_choice,
    check_flags,
    check_floating,
    check_number,
    check_range,
)
from aptt.core.formula import Formula, Kept, scaled_, widen
from aptt.core.gaussian import gaussian_maps
from aptt.core.logistic import add_product_, finite, held, power, softplus, times
from aptt.core.module import LossModule
from aptt.core.ordinary import is_readable
from aptt.core.peaks import mean_position, vertices
from aptt.core.reduction import Count, Reduction, check_reduction, count_found, count_of, reduce
from aptt.core.shapes import check_shapes
from aptt.core.wing import ADAPTIVE_WING

__all__ = ["HeatmapLoss", "Peaks", "decode_heatmaps", "heatmap_loss", "render_heatmaps"]

Kind = Literal["mse", "focal", "awing"]
Decoding = Literal["argmax", "parabola", "gaussian", "soft-argmax"]


def heatmap_loss(
    prediction: Tensor,
    target: Numbers,
    *,
    visibility: Numbers | None = None,
    weight: Numbers | None = None,
    positive: Numbers | None = None,
    kind: Kind = "mse",
    alpha: float = 2.0,
    beta: float = 4.0,
    normalize: Literal["elements", "positives"] | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Loss of predicted heat maps: squared error, penalty-reduced focal, or adaptive wing.

        mse      (x - y)**2
        focal    -(1 - p)**alpha log p at peaks, -(1 - y)**beta p**alpha log(1 - p) elsewhere
        awing    14 log(1 + |x - y|**(2.1 - y)) below 0.5, then linear

    Args:
        prediction: ``(N, K, *S)``, any floating dtype: values for mse and awing, logits for focal.
        target: the same shape, of any real dtype, from 0 to 1 for focal and awing.
        visibility: ``(N, K)``, as COCO has it: a map with 0 (not labelled) is removed, any other
            number counts once. A point known to be absent has -1 here and a map of zeros.
        weight: shaped like the target; multiplies and is counted, and 0 removes.
        positive: focal: bool, shaped like the target, where the peaks are. None: where the target
            is exactly 1, which no resized, blurred or sub-pixel map is.
        kind: ``"mse"``, ``"focal"`` or ``"awing"``.
        alpha: focal: how fast pixels fade that the model gets right, at least 0.
        beta: focal: how fast the penalty fades towards a peak, at least 0.
        normalize: what ``"mean"`` counts: elements, or peaks (at least 1, so that a batch without
            peaks is summed, as published). None: peaks for focal, elements otherwise.
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, at least 0: a scalar, or with ``"none"`` the shape of the target. float32 for
        half types.

    Raises:
        ValueError: shapes that differ, targets out of range (on CPU), an unknown option, a
            ``positive`` or ``normalize="positives"`` for a kind that has no peaks.

    The gradient goes to ``prediction``, and to targets and weights that ask for it. Focal: a
    confidently wrong pixel has a gradient of -1 on a peak and ``(1 - y)**beta`` elsewhere, however
    far its logit is off. The least focal loss, 0, is at 1 on peaks and 0 elsewhere, not at
    ``p = y``.

    Use when:
        Points or centres are found on a grid: focal where a map has few of them among much
        background, mse or awing for one smooth peak per map.

    Elsewhere:
        mmpose ``KeypointMSELoss``, ``AdaptiveWingLoss``, ``FocalHeatmapLoss``; mmdetection
        ``GaussianFocalLoss`` (beta is called gamma there); CenterNet ``FocalLoss``.

    Differs from:
        CenterNet: from logits, where clamped probabilities have no gradient beyond a logit of
            9.2 and are infinite in half precision.
        mmpose: a weight multiplies the loss; there it multiplies prediction and target inside the
            square or the logarithm. Hidden maps are not counted in the mean.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[2.0, -1.0, -3.0]]])
        >>> target = torch.tensor([[[1.0, 0.5, 0.0]]])
        >>> round(heatmap_loss(logits, target, kind="focal").item(), 5)
        0.00333
    """
    _check_options(kind, alpha, beta, normalize, reduction)
    check_floating(prediction=prediction)
    target = as_floats("target", target, prediction)
    check_shapes(prediction=(prediction, "N K *S"), target=(target, "N K *S"))
    if positive is not None:
        if kind != "focal":
            raise ValueError(f"positive: got a mask with kind={kind!r}, wanted kind='focal'")
        positive = as_tensor("positive", positive, prediction)
        check_shapes(target=(target, "N K *S"), positive=(positive, "N K *S"))
        if positive.dtype != torch.bool:
            raise TypeError(f"positive: got {positive.dtype}, wanted bool")
    w = _weights(prediction, target, visibility, weight)
    x, y = prediction.reshape(-1), target.reshape(-1)
    peaks = None if positive is None else positive.reshape(-1)
    w = None if w is None else w.reshape(-1)
    if kind != "mse":
        check_range(y, 0, 1, keep=None if w is None else w != 0)

    def count() -> Count:
        if kind != "focal" or normalize == "elements":
            return count_of(y, w)
        return count_found(y == 1 if peaks is None else peaks, w, reduction)

    sides = (y, peaks) if kind == "focal" else (y,)
    options: dict[str, Any] = {"alpha": alpha, "beta": beta} if kind == "focal" else _OPTIONS[kind]
    loss = reduce(
        _FORMULAS[kind],
        x,
        *sides,
        weight=w,
        count=count,
        reduction=reduction,
        term="heatmap",
        kind="values" if kind != "focal" or normalize == "elements" else "positives",
        **options,
    )
    return loss.reshape(target.shape) if reduction == "none" else loss


def _weights(
    prediction: Tensor, target: Tensor, visibility: Numbers | None, weight: Numbers | None
) -> Tensor | None:
    if weight is not None:
        weight = as_weight("weight", weight, prediction)
        check_shapes(target=(target, "N K *S"), weight=(weight, "N K *S"))
    if visibility is None:
        return weight
    visibility = as_tensor("visibility", visibility, target)
    check_shapes(target=(target, "N K *S"), visibility=(visibility, "N K"))
    maps = (*visibility.shape, *[1] * (target.ndim - 2))
    seen = (visibility != 0).reshape(maps).expand(target.shape)
    return seen if weight is None else torch.where(seen, weight, 0.0)


def _square_result(x: Tensor, kept: Kept, y: Tensor) -> Tensor:
    return (x - y).square()


def _square_step(x: Tensor, up: Tensor | float, kept: Kept, y: Tensor) -> tuple[Tensor, Tensor]:
    off = x - y
    return off.square(), off.mul_(2 * up)


def _focal_result(
    x: Tensor, kept: Kept, y: Tensor, positive: Tensor | None, *, alpha: float, beta: float
) -> Tensor:
    peak, wrong = _wrong(x, y, positive)
    loss = softplus(wrong) * power(torch.sigmoid(held(wrong)), alpha)
    return times(torch.where(peak, 1.0, power(1 - y, beta)), loss)


def _focal_step(
    x: Tensor,
    up: Tensor | float,
    kept: Kept,
    y: Tensor,
    positive: Tensor | None,
    *,
    alpha: float,
    beta: float,
    in_one: bool = False,
) -> tuple[Tensor, Tensor]:
    # along the logit that is wrong, d nll = miss and d miss = miss (1 - miss), so
    # d (miss**alpha nll) = miss**alpha (miss + alpha (1 - miss) nll)
    peak, wrong = _wrong(x, y, positive)
    nll, miss = softplus(wrong), torch.sigmoid(wrong)
    fade = power(1 - y, beta)
    # a choice is faster on a CPU, and one operator more
    fade = fade.masked_fill_(peak, -1.0) if in_one else torch.where(peak, -1.0, fade)
    fade.mul_(power(miss, alpha))
    slope = add_product_(miss, 1 - miss, finite(nll), alpha).mul_(fade)
    v = nll.mul_(fade) if positive is None else times(fade, nll)
    return v.abs_(), scaled_(slope, up)


def _wrong(x: Tensor, y: Tensor, positive: Tensor | None) -> tuple[Tensor, Tensor]:
    """Where the peaks are; and the logit of the wrong answer, which may be infinite."""
    peak = y == 1 if positive is None else positive
    return peak, torch.where(peak, -x, x)


_FORMULAS = {
    "mse": Formula(_square_result, _square_step, ahead=True, block=2**17),
    "focal": Formula(
        _focal_result,
        _focal_step,
        ahead=True,
        block=2**17,
        in_one=Formula(_focal_result, partial(_focal_step, in_one=True), ahead=True),
    ),
    "awing": ADAPTIVE_WING,
}
_OPTIONS = {"mse": {}, "awing": {"alpha": 2.1, "omega": 14.0, "epsilon": 1.0, "theta": 0.5}}


def _check_options(
    kind: str, alpha: float, beta: float, normalize: str | None, reduction: Reduction
) -> None:
    check_reduction(reduction)
    check_choice("kind", kind, tuple(_FORMULAS))
    check_number("alpha", alpha)
    check_number("beta", beta)
    if normalize is not None:
        check_choice("normalize", normalize, ("elements", "positives"))
        if normalize == "positives" and kind != "focal":
            raise ValueError(f"normalize: got 'positives' with kind={kind!r}, wanted kind='focal'")


class HeatmapLoss(LossModule):
    """Module form of :func:`heatmap_loss`; same options, same defaults."""

    def __init__(
        self,
        kind: Kind = "mse",
        alpha: float = 2.0,
        beta: float = 4.0,
        normalize: Literal["elements", "positives"] | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        _check_options(kind, alpha, beta, normalize, reduction)
        super().__init__(
            kind=kind, alpha=alpha, beta=beta, normalize=normalize, reduction=reduction
        )

    def forward(
        self,
        prediction: Tensor,
        target: Numbers,
        *,
        visibility: Numbers | None = None,
        weight: Numbers | None = None,
        positive: Numbers | None = None,
    ) -> Tensor:
        """The loss of ``prediction`` against ``target``."""
        return heatmap_loss(
            prediction,
            target,
            visibility=visibility,
            weight=weight,
            positive=positive,
            **self.options(),
        )


# ----------------------------------------------------------------------- from points and back


class Peaks(NamedTuple):
    """Where each map peaks ``(N, K, 2)``, x then y in cells, and how high ``(N, K)``."""

    points: Tensor
    scores: Tensor


def render_heatmaps(
    points: Numbers,
    size: tuple[int, int],
    *,
    sigma: float | Numbers = 2.0,
    visibility: Numbers | None = None,
    snap: bool = False,
) -> Tensor:
    """Heat maps with a Gaussian around each point, wherever between the cells it lies.

        exp(-((u - x)**2 + (v - y)**2) / (2 sigma**2))

    Args:
        points: ``(N, K, 2)``, x then y in cells of the map: 0 is the centre of the first. Whole
            numbers are taken as float32.
        size: height and width of the maps.
        sigma: in cells, above 0: a number, or ``(N, K)``.
        visibility: ``(N, K)``: a point with 0 or less has a map of zeros, whatever it holds.
        snap: round points to the nearest cell first, so that each peak is exactly 1.

    Returns:
        ``(N, K, height, width)``, from 0 to 1. float32 for half types.

    Raises:
        ValueError: shapes that do not fit.

    The gradient goes to ``points`` (not if they are snapped) and to ``sigma``.

    Use when:
        Making targets of ``heatmap_loss``; with ``kind="focal"``, snap, or say where peaks are.

    Elsewhere:
        mmpose ``UDPHeatmap`` (not snapped), ``MSRAHeatmap`` (snapped).

    Differs from:
        mmpose: not cut off at three sigma; no loop over points.

    Example:
        >>> import torch
        >>> render_heatmaps(torch.tensor([[[1.0, 0.0]]]), (1, 3), sigma=1.0)[0, 0, 0].tolist()[1]
        1.0
    """
    points = as_tensor("points", points)
    points = as_floats("points", points, points)
    check_flags(snap=snap)
    check_shapes(points=(points, "N K 2"))
    if isinstance(sigma, Real):
        check_number("sigma", sigma := float(sigma), torch.finfo(torch.float32).tiny)
    else:
        sigma = as_tensor("sigma", sigma, points)
        if sigma.ndim:
            check_shapes(points=(points, "N K 2"), sigma=(sigma, "N K"))
    _check_size(size)
    points = widen(points)
    if visibility is not None:
        visibility = as_tensor("visibility", visibility, points)
        check_shapes(points=(points, "N K 2"), visibility=(visibility, "N K"))
        seen = visibility > 0
        points = torch.where(seen.unsqueeze(-1), points, 0.0)
        sigma = torch.where(seen, sigma, 1.0)
    if isinstance(sigma, Tensor) and is_readable(points):
        check_range(sigma, torch.finfo(torch.float32).tiny, torch.inf, keep=None, name="sigma")
    if visibility is None:
        return gaussian_maps(points.round() if snap else points, sigma, size)
    maps = gaussian_maps(points.round() if snap else points, sigma, size)
    return torch.where(seen[..., None, None], maps, 0.0)


def _check_size(size: tuple[int, int]) -> None:
    whole = isinstance(size, Sequence) and all(isinstance(n, int) and n >= 0 for n in size)
    if not whole or len(size) != 2:
        raise ValueError(f"size: got {size!r}, wanted height and width, whole numbers")


def decode_heatmaps(
    heatmaps: Tensor, *, method: Decoding = "parabola", temperature: float = 1.0
) -> Peaks:
    """Read points back from heat maps, finer than their cells.

        parabola, gaussian    x + (r - l) / (2 (2 c - l - r))      l, c, r: at the peak and beside
        soft-argmax           sum over cells of softmax(map / temperature) * position

    Args:
        heatmaps: ``(N, K, height, width)``, as the model gives them.
        method: ``"argmax"``: the highest cell; ``"parabola"``: the vertex of a parabola through
            it and its neighbours, along each axis; ``"gaussian"``: the same of the logarithm,
            exact on maps of :func:`render_heatmaps` but for peaks in cells of the border, which
            stay there; ``"soft-argmax"``: the mean position.
        temperature: of soft-argmax, above 0.

    Returns:
        :class:`Peaks`: points ``(N, K, 2)``, x then y in cells, and scores ``(N, K)``, the values
        of the highest cells. float32 for half types.

    Raises:
        ValueError: maps of another number of axes, or without a cell; an unknown method.

    The gradient of soft-argmax goes to every cell; that of the others to the peak's neighbours.

    Use when:
        Scoring keypoints, or training through the position (soft-argmax).

    Elsewhere:
        mmpose ``get_heatmap_maximum`` with ``refine_keypoints``, kornia ``spatial_soft_argmax2d``.

    Differs from:
        mmpose: a fitted offset, not a quarter of a cell towards the higher neighbour.

    Example:
        >>> import torch
        >>> maps = render_heatmaps(torch.tensor([[[3.3, 2.8]]]), (8, 8))
        >>> [round(v, 3) for v in decode_heatmaps(maps, method="gaussian").points[0, 0].tolist()]
        [3.3, 2.8]
    """
    check_choice("method", method, ("argmax", "parabola", "gaussian", "soft-argmax"))
    check_number("temperature", temperature, torch.finfo(torch.float32).tiny)
    check_floating(heatmaps=heatmaps)
    check_shapes(heatmaps=(heatmaps, "N K height width"))
    height, width = heatmaps.shape[2:]
    if height * width == 0:
        raise ValueError(f"heatmaps: got {tuple(heatmaps.shape)}, with no cell in a map")
    maps = widen(heatmaps)
    scores, at = maps.flatten(2).max(2)
    if method == "soft-argmax":
        return Peaks(mean_position(maps, temperature), scores)
    points = torch.stack((at % width, at // width), 2).to(maps.dtype)
    if method != "argmax":
        points = points + vertices(maps, at, log=method == "gaussian")
    return Peaks(points, scores)
