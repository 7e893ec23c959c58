"""Structural similarity: images compared as windows of them look, not pixel by pixel.

    S = (2 mu_x mu_t + c1) / (mu_x**2 + mu_t**2 + c1)
        * (2 cov + c2) / (var x + var t + c2)                c1 = (k1 L)**2, c2 = (k2 L)**2
    SSIM       1 - mean S
    MS-SSIM    1 - prod over scales of (mean of the second factor)**w, of S at the last

under a Gaussian window; L is the range of the data. Scales halve the images.

Axes: prediction and target ``(N, C, H, W)`` or ``(N, C, D, H, W)``, one value for each image.
From: Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity",
doi:10.1109/TIP.2003.819861; Wang et al. 2003, "Multiscale structural similarity for image quality
assessment", doi:10.1109/ACSSC.2003.1292216.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from aptt.core.checks import (
    Numbers,
    as_floats,
    as_weight,
    check_floating,
    check_number,
    check_positive,
    check_tensors,
    check_whole,
)
from aptt.core.formula import Formula, widen
from aptt.core.module import LossModule
from aptt.core.reduction import Reduction, check_reduction, reduce
from aptt.core.shapes import check_shapes
from aptt.core.structure import MS_SSIM, SSIM

__all__ = ["MSSSIMLoss", "SSIMLoss", "ms_ssim_loss", "ssim_loss"]

_OF_THE_PAPER = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def ssim_loss(
    prediction: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    data_range: float | None = None,
    window_size: int = 11,
    sigma: float = 1.5,
    k1: float = 0.01,
    k2: float = 0.03,
    reduction: Reduction = "mean",
) -> Tensor:
    """What structural similarity lacks of 1: luminance, contrast and structure of windows.

        1 - mean of (2 mu_x mu_t + c1)(2 cov + c2) / ((mu_x**2 + mu_t**2 + c1)(var x + var t + c2))

    Args:
        prediction: ``(N, C, H, W)`` or ``(N, C, D, H, W)``, any floating dtype.
        target: the same shape.
        weight: of each image, ``(N,)``; multiplies and is counted, and 0 removes.
        data_range: L, how far the largest value can be from the smallest, which has to be said: 1
            for images from 0 to 1, 2 from -1 to 1, 255 for bytes.
        window_size: taps of the Gaussian window along each axis, 2 and more; places count where it
            fits.
        sigma: its standard deviation, in pixels.
        k1: of the constant that steadies the luminance, ``(k1 L)**2``, above 0.
        k2: of the one that steadies the contrast.
        reduction: over the images: ``"mean"``, ``"sum"``, ``"none"``, or a callable
            ``(total, count, *, term)``.

    Returns:
        The loss, from 0 to 2, and 0 only for equal images: a scalar, or with ``"none"`` ``(N,)``,
        each the mean over channels and places. float32 for half types.

    Raises:
        ValueError: shapes that differ, an image smaller than the window, an option out of range.

    The gradient goes to ``prediction``, and to targets that ask for it. Windows overlap: a pixel
    cannot be taken out of its neighbours' values, so there is no mask.

    Use when:
        Images are restored or compressed, beside an absolute error, for what pixels alone miss.

    Elsewhere:
        pytorch-msssim ``ssim``, torchmetrics ``structural_similarity_index_measure``, piq, kornia.

    Differs from:
        all: they take variances as a difference of squares in the dtype given, where a bright image
            that is flat loses its digits; there is none of that here, and no cancellation where the
            images are alike.
        kornia: half of it, clamped, with reflected edges. torchmetrics: counts places at edges that
            it reflects, and takes the range from the data unless it is told.

    Example:
        >>> import torch
        >>> flat = torch.full((1, 1, 16, 16), 0.5)
        >>> round(ssim_loss(flat + 0.1, flat, data_range=1.0).item(), 6)  # 0.01 / 0.6101
        0.016391
    """
    options = {"data_range": data_range, "window_size": window_size, "sigma": sigma}
    return _evaluated(SSIM, prediction, target, weight, options, k1, k2, reduction, "ssim")


def ms_ssim_loss(
    prediction: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    data_range: float | None = None,
    window_size: int = 11,
    sigma: float = 1.5,
    k1: float = 0.01,
    k2: float = 0.03,
    scale_weight: Sequence[float] = _OF_THE_PAPER,
    reduction: Reduction = "mean",
) -> Tensor:
    """What structural similarity lacks of 1 at several scales: one misses what another sees.

        1 - product over scales of (mean of (2 cov + c2) / (var x + var t + c2))**w

    At the last and coarsest scale the luminance is in the mean as well.

    Args:
        prediction: ``(N, C, H, W)`` or ``(N, C, D, H, W)``, any floating dtype.
        target: the same shape.
        weight: of each image, ``(N,)``; multiplies and is counted, and 0 removes.
        data_range: L, how far the largest value can be from the smallest, which has to be said: 1
            for images from 0 to 1, 2 from -1 to 1, 255 for bytes.
        window_size: taps of the Gaussian window along each axis, 2 and more; places count where it
            fits.
        sigma: its standard deviation, in pixels of each scale.
        k1: of the constant that steadies the luminance, ``(k1 L)**2``, above 0.
        k2: of the one that steadies the contrast.
        scale_weight: w, the exponent of each scale, from the finest: as many scales as numbers. By
            default the paper's five.
        reduction: over the images: ``"mean"``, ``"sum"``, ``"none"``, or a callable
            ``(total, count, *, term)``.

    Returns:
        The loss, from 0 to 1, and 0 only for equal images: a scalar, or with ``"none"`` ``(N,)``,
        each the mean over channels. float32 for half types.

    Raises:
        ValueError: shapes that differ, an image whose coarsest scale is smaller than the window, an
            option out of range.

    The gradient goes to ``prediction``, and to targets that ask for it. The contrast of images that
    are unlike may be negative, and then has no power: a mean r below 0.01 goes on as
    ``0.0001 / (0.02 - r)``, smoothly, and its slope leads back.

    Use when:
        Images are seen from more than one distance; of five scales, 176 pixels a side and more.

    Elsewhere:
        pytorch-msssim ``ms_ssim``, torchmetrics
        ``multiscale_structural_similarity_index_measure``, piq, kornia ``MS_SSIMLoss``.

    Differs from:
        pytorch-msssim, torchmetrics: negative contrasts are cut off at 0, where the loss is 1 and
            has no gradient, or NaN. pytorch-msssim: an odd side is halved with a border of zeros,
            here without its last pixel.
        kornia: another loss, of one scale under several windows, with an absolute error, times 200.

    Example:
        >>> import torch
        >>> flat = torch.full((1, 1, 22, 22), 0.5)
        >>> loss = ms_ssim_loss(flat + 0.1, flat, data_range=1.0, scale_weight=(0.5, 0.5))
        >>> round(loss.item(), 6)  # 1 - (1 - 0.01 / 0.6101) ** 0.5
        0.008229
    """
    options = {"data_range": data_range, "window_size": window_size, "sigma": sigma}
    return _evaluated(
        MS_SSIM, prediction, target, weight, options, k1, k2, reduction, "ms_ssim", scale_weight
    )


def _evaluated(
    formula: Formula,
    prediction: Tensor,
    target: Numbers,
    weight: Numbers | None,
    options: dict[str, Any],
    k1: float,
    k2: float,
    reduction: Reduction,
    term: str,
    scale_weight: Sequence[float] | None = None,
) -> Tensor:
    _check(**options, k1=k1, k2=k2, scale_weight=scale_weight, reduction=reduction)
    check_floating(prediction=prediction)
    target = as_floats("target", target, prediction)
    if prediction.ndim not in (4, 5):
        raise ValueError(
            f"prediction: got shape {tuple(prediction.shape)}, wanted (N, C, H, W) or "
            "(N, C, D, H, W); unsqueeze(0) makes a batch of one image"
        )
    check_shapes(prediction=(prediction, "*N"), target=(target, "*N"))
    given = None if weight is None else as_weight("weight", weight, prediction)
    if given is not None:
        check_tensors(prediction=prediction, weight=given)
        check_shapes(prediction=(prediction, "N *S"), weight=(given, "N"))
    size, scales = options["window_size"], 1 if scale_weight is None else len(scale_weight)
    least = min(prediction.shape[2:])
    if least >> (scales - 1) < size:
        fit = max((least // size).bit_length(), 0)
        hint = f" at {scales} scales" if scales > 1 else ""
        if scales > 1 and fit:
            hint += f"; scale_weight of {fit} numbers fits"
        raise ValueError(
            f"prediction: got shape {tuple(prediction.shape)}, wanted sides of at least "
            f"{size << (scales - 1)}, for window_size={size}{hint}"
        )
    more: dict[str, Any] = {}
    if scale_weight is not None:
        more = {"weights": tuple(float(w) for w in scale_weight)}
    return reduce(
        formula,
        prediction.flatten(1),
        target.flatten(1),
        weight=given,
        count=lambda: len(prediction) if given is None else widen(given).sum(),
        reduction=reduction,
        term=term,
        shape=tuple(prediction.shape[1:]),
        window=(size, float(options["sigma"])),
        c=((k1 * options["data_range"]) ** 2, (k2 * options["data_range"]) ** 2),
        **more,
    )


def _check(
    *,
    data_range: float | None,
    window_size: int,
    sigma: float,
    k1: float,
    k2: float,
    scale_weight: Sequence[float] | None,
    reduction: Reduction,
) -> None:
    if data_range is None:
        raise ValueError(
            "data_range: got None, wanted the range of the data: 1 for images from 0 to 1, 255 for "
            "bytes"
        )
    check_whole("window_size", window_size, 2)
    for name, value in (("data_range", data_range), ("sigma", sigma), ("k1", k1), ("k2", k2)):
        check_positive(name, value)
    if scale_weight is not None:
        if isinstance(scale_weight, str) or not isinstance(scale_weight, Sequence):
            raise TypeError(f"scale_weight: got {scale_weight!r}, wanted a number for each scale")
        for weight in scale_weight:
            check_number("scale_weight", weight)
        if not any(scale_weight):
            raise ValueError(f"scale_weight: got {scale_weight!r}, wanted one above 0")
    check_reduction(reduction)


class SSIMLoss(LossModule):
    """Module form of :func:`ssim_loss`; same options, same defaults."""

    def __init__(
        self,
        data_range: float | None = None,
        window_size: int = 11,
        sigma: float = 1.5,
        k1: float = 0.01,
        k2: float = 0.03,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(
            data_range=data_range,
            window_size=window_size,
            sigma=sigma,
            k1=k1,
            k2=k2,
            reduction=reduction,
        )
        _check(**self.options(), scale_weight=None)

    def forward(
        self, prediction: Tensor, target: Numbers, *, weight: Numbers | None = None
    ) -> Tensor:
        """The loss of ``prediction`` against ``target``."""
        return ssim_loss(prediction, target, weight=weight, **self.options())


class MSSSIMLoss(LossModule):
    """Module form of :func:`ms_ssim_loss`; same options, same defaults."""

    def __init__(
        self,
        data_range: float | None = None,
        window_size: int = 11,
        sigma: float = 1.5,
        k1: float = 0.01,
        k2: float = 0.03,
        scale_weight: Sequence[float] = _OF_THE_PAPER,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(
            data_range=data_range,
            window_size=window_size,
            sigma=sigma,
            k1=k1,
            k2=k2,
            scale_weight=scale_weight,
            reduction=reduction,
        )
        _check(**self.options())

    def forward(
        self, prediction: Tensor, target: Numbers, *, weight: Numbers | None = None
    ) -> Tensor:
        """The loss of ``prediction`` against ``target``."""
        return ms_ssim_loss(prediction, target, weight=weight, **self.options())
