"""Structural similarity: images compared as windows of them look, not pixel by pixel.

    S = (2 mu_x mu_t + c1) / (mu_x**2 + mu_t**2 + c1)
        * (2 cov + c2) / (var x + var t + c2)                c1 = (k1 L)**2, c2 = (k2 L)**2
    SSIM       1 - mean S

under a Gaussian window; L is the range of the data.

Axes: prediction and target ``(N, C, H, W)`` or ``(N, C, D, H, W)``, one value for each image.
From: Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity",
doi:10.1109/TIP.2003.819861.
"""

from __future__ import annotations

from torch import Tensor

from aptt.core.checks import Numbers
from aptt.core.module import LossModule
from aptt.core.reduction import Reduction
from aptt.core.structure import SSIM
from aptt.loss.ssim.images import check_options, compared

__all__ = ["SSIMLoss", "ssim_loss"]


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
    return compared(
        SSIM,
        prediction,
        target,
        weight,
        data_range=data_range,
        window_size=window_size,
        sigma=sigma,
        k1=k1,
        k2=k2,
        reduction=reduction,
        term="ssim",
    )


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
        check_options(data_range, window_size, sigma, k1, k2, None, reduction)

    def forward(
        self, prediction: Tensor, target: Numbers, *, weight: Numbers | None = None
    ) -> Tensor:
        """The loss of ``prediction`` against ``target``."""
        return ssim_loss(prediction, target, weight=weight, **self.options())
