"""Bars of bins: the labels of :func:`simcc_loss` as tensors, and points back from its logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from aptt.core.checks import (
    Numbers,
    as_floats,
    as_tensor,
    check_choice,
    check_floating,
    check_number,
    check_positive,
    check_whole,
)
from aptt.core.labels import gaussian_logits
from aptt.core.peaks import Peaks, vertex
from aptt.core.precision import widen
from aptt.core.shapes import check_shapes

__all__ = ["Sigma", "bars_of", "check_bars", "far", "sigma_of", "simcc_decode", "simcc_targets"]

Sigma = float | Sequence[float]
"""One number for all coordinates, or one for each."""

_REACH = 3.0  # sigmas beyond the bins, from which on a point has no label


def simcc_targets(
    points: Numbers,
    bins: Sequence[int],
    *,
    visibility: Numbers | None = None,
    split: float = 2.0,
    sigma: Sigma = 6.0,
) -> tuple[Tensor, ...]:
    """Labels of SimCC: a Gaussian over the bins of each coordinate, whose sum is 1.

        exp(-(k - split x)**2 / (2 sigma**2)) / sum over bins

    Args:
        points: ``(*N, K, D)`` in pixels, x first. Whole numbers are taken as float32.
        bins: how many there are for each of the D coordinates: as a rule its pixels times
            ``split``.
        visibility: ``(*N, K)``: a point with 0 or less has labels of zeros, whatever it holds.
        split: bins to a pixel, above 0.
        sigma: in bins, at least 0.001: a number, or one for each coordinate.

    Returns:
        A tensor ``(*N, K, bins)`` for each coordinate; zeros for a point more than three sigma
        beyond the bins of any. float32 for half types.

    Raises:
        ValueError: shapes that do not fit, an unknown option.

    The gradient goes to ``points``.

    Use when:
        Labels are looked at, smoothed or mixed: :func:`simcc_loss` makes its own.

    Elsewhere:
        mmpose ``SimCCLabel``, whose labels are cut off at three sigma, and whose sum is less than
        1 at the border.

    Example:
        >>> import torch
        >>> x, y = simcc_targets(torch.tensor([[[0.5, 9.0]]]), (3, 20), sigma=1.0)
        >>> [round(share, 4) for share in x[0, 0].tolist()]
        [0.2741, 0.4519, 0.2741]
    """
    points = as_tensor("points", points)
    points = widen(as_floats("points", points, points))
    _check_bins(bins)
    check_bars(split, sigma, coordinates=len(bins))
    check_shapes(points=(points, f"*N K {len(bins)}"))
    gone = torch.zeros_like(points[..., 0], dtype=torch.bool)
    if visibility is not None:
        visibility = as_tensor("visibility", visibility, points)
        check_shapes(points=(points, "*N K D"), visibility=(visibility, "*N K"))
        gone = visibility <= 0
    y = points * split
    for i, n in enumerate(bins):
        gone = gone | far(y[..., i], n, sigma_of(sigma, i))
    y = torch.where(gone.unsqueeze(-1), 0.0, y)
    return tuple(
        gaussian_logits(y[..., i], n, sigma_of(sigma, i))
        .softmax(-1)
        .masked_fill(gone.unsqueeze(-1), 0.0)
        for i, n in enumerate(bins)
    )


def simcc_decode(
    logits_list: Sequence[Tensor],
    *,
    split: float = 2.0,
    temperature: float = 1.0,
    method: Literal["argmax", "parabola", "soft-argmax"] = "parabola",
) -> Peaks:
    """Read points back from the logits of SimCC.

        argmax         the likeliest bin / split
        parabola       the vertex of the parabola through its logit and those beside, / split
        soft-argmax    sum over bins of softmax(logits / temperature) * bin / split

    Args:
        logits_list: D tensors ``(*N, K, bins)``, x first, as the model gives them.
        split: bins to a pixel, above 0.
        temperature: divides the logits; that of the loss.
        method: ``"argmax"``; ``"parabola"``, which is exact where the softmax is a Gaussian, but
            for peaks in the first and the last bin, which stay there; ``"soft-argmax"``, which is
            pulled to the middle where the bins end.

    Returns:
        :class:`Peaks`: points ``(*N, K, D)`` in pixels, and scores ``(*N, K)`` in [0, 1], the
        smallest over the coordinates of the probability of the likeliest bin. float32 for half
        types.

    Raises:
        ValueError: shapes that do not fit, an unknown method.
        TypeError: logits that are not floating, or not one tensor for each coordinate.

    The gradient of soft-argmax goes to every bin; that of the parabola to the peak and the bins
    beside it.

    Use when:
        Scoring keypoints of a model that :func:`simcc_loss` trained.

    Elsewhere:
        mmpose ``get_simcc_maximum``, which is ``"argmax"``, with the largest logit for a score.

    Example:
        >>> import torch
        >>> bars = simcc_targets(torch.tensor([[[3.3, 2.8]]]), (16, 12), sigma=2.0)
        >>> found = simcc_decode([bar.log() for bar in bars])
        >>> [round(v, 3) for v in found.points[0, 0].tolist()]
        [3.3, 2.8]
    """
    check_choice("method", method, ("argmax", "parabola", "soft-argmax"))
    check_positive("split", split)
    check_positive("temperature", temperature)
    bars = [widen(x) for x in bars_of(logits_list)]
    places, scores = [], []
    for x in bars:
        check_shapes(**{"logits_list[0]": (bars[0], "*N bins_x"), "logits_list": (x, "*N bins")})
        share = (x / temperature).softmax(-1)
        at = x.argmax(-1)
        place = at.to(x.dtype)
        if method == "soft-argmax":
            place = (share * torch.arange(x.shape[-1], dtype=x.dtype, device=x.device)).sum(-1)
        elif method == "parabola":
            place = place + vertex(x, at, at, x.shape[-1], 1)
        places.append(place / split)
        scores.append(share.amax(-1))
    return Peaks(torch.stack(places, -1), torch.stack(scores, -1).amin(-1))


def bars_of(logits_list: Sequence[Tensor]) -> list[Tensor]:
    """One tensor for each coordinate, of floats, with a bin at least."""
    if isinstance(logits_list, Tensor | str) or not isinstance(logits_list, Sequence):
        raise TypeError(
            f"logits_list: got {type(logits_list).__name__}, wanted a list of tensors, one for "
            "each coordinate"
        )
    if not logits_list:
        raise ValueError("logits_list: got no tensor, wanted one for each coordinate")
    check_floating(**{f"logits_list[{i}]": x for i, x in enumerate(logits_list)})
    for i, x in enumerate(logits_list):
        if x.ndim == 0 or x.shape[-1] == 0:
            raise ValueError(f"logits_list[{i}]: got {tuple(x.shape)}, wanted (*N, K, bins)")
    return list(logits_list)


def far(y: Tensor, bins: int, sigma: float) -> Tensor:
    """Which coordinates lie so far beyond the bins that they have no label."""
    return (y < -_REACH * sigma) | (y > bins - 1 + _REACH * sigma)


def sigma_of(sigma: Sigma, coordinate: int) -> float:
    """The sigma of one coordinate."""
    return sigma[coordinate] if isinstance(sigma, Sequence) else sigma


def check_bars(
    split: float, sigma: Sigma, temperature: float = 1.0, *, coordinates: int | None = None
) -> None:
    """Hold the options to what they may be."""
    check_positive("split", split)
    check_positive("temperature", temperature)
    each = list(sigma) if isinstance(sigma, Sequence) else [sigma]
    for number in each:
        check_number("sigma", number, 1e-3)
    if isinstance(sigma, Sequence) and coordinates not in (None, len(each)):
        raise ValueError(f"sigma: got {sigma!r}, wanted a number, or {coordinates} of them")


def _check_bins(bins: Sequence[int]) -> None:
    if not isinstance(bins, Sequence) or not bins:
        raise TypeError(f"bins: got {bins!r}, wanted a whole number for each coordinate")
    for number in bins:
        check_whole("bins", number)
