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
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from aptt.core.gaussian import gaussian_maps
from aptt.core.logistic import finite, softplus, softplus_into
from aptt.core.module import LossModule
from aptt.core.reduction import Reduction, check_reduction, count_of, reduce
from aptt.core.shapes import (
    check_choice,
    check_floating,
    check_number,
    check_range,
    check_shapes,
    is_readable,
)
from aptt.core.streaming import Formula, Work, streams, widen
from aptt.core.wing import adaptive_wing

__all__ = ["HeatmapLoss", "Peaks", "decode_heatmaps", "heatmap_loss", "render_heatmaps"]

Kind = Literal["mse", "focal", "awing"]
Decoding = Literal["argmax", "parabola", "gaussian", "soft-argmax"]


def heatmap_loss(
    prediction: Tensor,
    target: Tensor,
    *,
    kind: Kind = "mse",
    visibility: Tensor | None = None,
    weight: Tensor | None = None,
    positive: Tensor | None = None,
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
        target: the same shape, from 0 to 1 for focal and awing.
        kind: ``"mse"``, ``"focal"`` or ``"awing"``.
        visibility: ``(N, K)``, as COCO has it: a map with 0 (not labelled) is removed, any other
            number counts once. A point known to be absent has -1 here and a map of zeros.
        weight: shaped like the target; multiplies and is counted, and 0 removes.
        positive: focal: bool, shaped like the target, where the peaks are. None: where the target
            is exactly 1, which no resized, blurred or sub-pixel map is.
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
    check_floating(prediction=prediction, target=target)
    check_shapes(prediction=(prediction, "N K *S"), target=(target, "N K *S"))
    if positive is not None:
        if kind != "focal":
            raise ValueError(f"positive: got a mask with kind={kind!r}, wanted kind='focal'")
        check_shapes(target=(target, "N K *S"), positive=(positive, "N K *S"))
        if positive.dtype != torch.bool:
            raise TypeError(f"positive: got {positive.dtype}, wanted bool")
    w = _weights(target, visibility, weight)
    x, y = prediction.reshape(-1), target.reshape(-1)
    peaks = None if positive is None else positive.reshape(-1)
    w = None if w is None else w.reshape(-1)
    found = _survey(y, peaks, w) if kind == "focal" else None
    if kind == "awing":
        check_range(y, 0, 1, keep=None if w is None else w != 0)

    def count() -> Tensor:
        if found is None or normalize == "elements":
            return count_of(y, w)
        return found.clamp(min=1) if reduction == "mean" else found

    sides = (y, peaks) if kind == "focal" else (y,)
    options = {"alpha": alpha, "beta": beta} if kind == "focal" else {}
    loss = reduce(
        _FORMULAS[kind],
        x,
        *sides,
        weight=w,
        count=count,
        reduction=reduction,
        term="heatmap",
        **options,
    )
    return loss.reshape(target.shape) if reduction == "none" else loss


def _weights(target: Tensor, visibility: Tensor | None, weight: Tensor | None) -> Tensor | None:
    if weight is not None:
        check_shapes(target=(target, "N K *S"), weight=(weight, "N K *S"))
    if visibility is None:
        return weight
    check_shapes(target=(target, "N K *S"), visibility=(visibility, "N K"))
    maps = (*visibility.shape, *[1] * (target.ndim - 2))
    seen = (visibility != 0).reshape(maps).expand(target.shape)
    return seen if weight is None else torch.where(seen, weight, 0.0)


def _square(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).square()


def _square_forward(x: Tensor, work: Work, y: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    return torch.sub(x, y, out=work("off", x)).square_(), ()


def _square_backward(
    out: Tensor, x: Tensor, work: Work, up: Tensor, kept: Sequence[Tensor], y: Tensor
) -> None:
    torch.sub(x, y, out=out).mul_(2 * up)


def _focal(x: Tensor, y: Tensor, positive: Tensor | None, *, alpha: float, beta: float) -> Tensor:
    peak = y == 1 if positive is None else positive
    wrong = finite(torch.where(peak, -x, x))
    nll = softplus(wrong)
    miss = torch.exp(-alpha * softplus(-wrong))
    return nll * miss * (1 - torch.where(peak, 0.0, y)) ** beta


def _missed(
    x: Tensor, y: Tensor, positive: Tensor | None, work: Work, beta: float
) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
    """By hand: peaks as 0 and 1, -log of the right answer's probability, 1 - it, the penalty."""
    peak, wrong, far = _peaks(x, y, positive, work), x, y
    if peak is not None:
        wrong = torch.mul(peak, -2, out=work("miss", x)).add_(1).mul_(x)  # a sign: x may be -inf
        far = torch.addcmul(y, y, peak, value=-1, out=work("far", x))
    wrong = finite(wrong, out=work("miss", x))
    nll = softplus_into(work("nll", x), wrong)
    miss = torch.sigmoid(wrong, out=work("miss", x))
    far = torch.sub(far, 1, out=work("far", x))
    return peak, nll, miss, _power_(far, beta) if beta in (2, 4) else _power_(far.neg_(), beta)


def _peaks(x: Tensor, y: Tensor, positive: Tensor | None, work: Work) -> Tensor | None:
    """None where a block is seen to have no peak, as most have."""
    if positive is not None:
        return work("peak", x).copy_(positive)
    if y.device.type == "cpu" and bool(y.amax() < 1):
        return None
    return torch.eq(y, 1, out=work("peak", x))


def _power_(t: Tensor, exponent: float) -> Tensor:
    """``t ** exponent``, in place; the published exponents are squares of squares."""
    if exponent in (1, 2, 4):
        for _ in range(int(exponent) // 2):
            t.square_()
        return t
    return t.pow_(exponent)


def _focal_forward(
    x: Tensor, work: Work, y: Tensor, positive: Tensor | None, *, alpha: float, beta: float
) -> tuple[Tensor, tuple[Tensor, ...]]:
    _, loss, miss, penalty = _missed(x, y, positive, work, beta)
    return loss.mul_(_power_(miss, alpha)).mul_(penalty), ()


def _focal_backward(
    out: Tensor,
    x: Tensor,
    work: Work,
    up: Tensor,
    kept: Sequence[Tensor],
    y: Tensor,
    positive: Tensor | None,
    *,
    alpha: float,
    beta: float,
) -> None:
    peak, nll, miss, penalty = _missed(x, y, positive, work, beta)
    # the slope of miss**alpha * nll along the logit that points to the wrong answer
    nll.addcmul_(nll, miss, value=-1)
    torch.add(miss, nll, alpha=alpha, out=nll)
    torch.mul(nll, _power_(miss, alpha), out=out).mul_(penalty).mul_(up)
    if peak is not None:
        out.addcmul_(out, peak, value=-2)


def _survey(y: Tensor, positive: Tensor | None, weight: Tensor | None) -> Tensor:
    """Hold targets to [0, 1] and count the peaks, or weigh them; in one pass where that pays."""
    if y.device.type != "cpu" or not streams(y, (weight,)):
        check_range(y, 0, 1, keep=None if weight is None else weight != 0)
        peak = (y == 1 if positive is None else positive).to(widen(y[:0]).dtype)
        return (peak if weight is None else peak * widen(weight)).sum()
    step, total, room = 2**17, 0.0, torch.empty(2**17)
    for at in range(0, len(y), step):
        here = slice(at, at + step)
        part, w = y[here].detach(), None if weight is None else weight[here]
        low, high = part.aminmax()
        if not (low >= 0 and high <= 1):
            check_range(part, 0, 1, keep=None if w is None else w != 0)
        peak = room[: len(part)]
        if positive is not None:
            peak.copy_(positive[here])
        elif high < 1:
            continue
        else:
            torch.eq(part, 1, out=peak)
        total += (peak if w is None else peak * widen(w)).sum().item()
    return torch.tensor(total, dtype=widen(y[:0]).dtype)


_SQUARE = Formula(_square, _square_forward, _square_backward, block=2**17)
_FOCAL = Formula(_focal, _focal_forward, _focal_backward, block=2**17)


def _adaptive_wing(x: Tensor, y: Tensor) -> Tensor:
    return adaptive_wing(x, y, alpha=2.1, omega=14.0, epsilon=1.0, theta=0.5)


_FORMULAS = {
    "mse": _SQUARE,
    "focal": _FOCAL,
    "awing": Formula(_adaptive_wing, block=2**17),
}


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
        target: Tensor,
        *,
        visibility: Tensor | None = None,
        weight: Tensor | None = None,
        positive: Tensor | None = None,
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
    points: Tensor,
    size: tuple[int, int],
    *,
    sigma: float | Tensor = 2.0,
    visibility: Tensor | None = None,
    snap: bool = False,
) -> Tensor:
    """Heat maps with a Gaussian around each point, wherever between the cells it lies.

        exp(-((u - x)**2 + (v - y)**2) / (2 sigma**2))

    Args:
        points: ``(N, K, 2)``, x then y in cells of the map: 0 is the centre of the first.
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
    check_floating(points=points)
    check_shapes(points=(points, "N K 2"))
    if not isinstance(sigma, Tensor):
        check_number("sigma", sigma, torch.finfo(torch.float32).tiny)
    elif sigma.ndim:
        check_shapes(points=(points, "N K 2"), sigma=(sigma, "N K"))
    _check_size(size)
    points = widen(points)
    if visibility is not None:
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
    flat = widen(heatmaps).flatten(2)
    scores, at = flat.max(2)
    if method == "soft-argmax":
        flat = finite(flat)  # a map that is -inf everywhere has its mean in the middle
        share = (flat / temperature).softmax(2).unflatten(2, (height, width))
        columns = torch.arange(width, dtype=flat.dtype, device=flat.device)
        rows = torch.arange(height, dtype=flat.dtype, device=flat.device)
        x, y = (share.sum(2) * columns).sum(2), (share.sum(3) * rows).sum(2)
        return Peaks(torch.stack((x, y), 2), scores)
    x, y = at % width, at // width
    points = torch.stack((x, y), 2).to(flat.dtype)
    if method != "argmax":
        shape = flat if method == "parabola" else flat.clamp_min(_FAINT[flat.dtype]).log()
        offsets = (_vertex(shape, at, x, width, 1), _vertex(shape, at, y, height, width))
        points = points + torch.stack(offsets, 2)
    return Peaks(points, scores)


def _vertex(flat: Tensor, at: Tensor, along: Tensor, cells: int, step: int) -> Tensor:
    """How far from the highest cell the parabola's vertex lies: at most half.

    0 at the border, and beside cells that are -inf.
    """
    inside = (along > 0) & (along < cells - 1)
    left, centre, right = (
        flat.gather(2, torch.where(inside, at + k * step, at).unsqueeze(2)).squeeze(2)
        for k in (-1, 0, 1)
    )
    bend = 2 * centre - left - right
    curved = inside & (bend > 0) & (bend < torch.inf)
    lean = torch.where(curved, right - left, 0.0)
    return lean / (2 * torch.where(curved, bend, 1.0))


_FAINT = {t: torch.finfo(t).tiny for t in (torch.float32, torch.float64)}
