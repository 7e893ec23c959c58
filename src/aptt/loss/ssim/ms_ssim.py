"""Structural similarity at several scales, each half as large as the one before.

    S = (2 mu_x mu_t + c1) / (mu_x**2 + mu_t**2 + c1)
        * (2 cov + c2) / (var x + var t + c2)                c1 = (k1 L)**2, c2 = (k2 L)**2
    MS-SSIM    1 - prod over scales of (mean of the second factor)**w, of S at the last

under a Gaussian window; L is the range of the data.

Axes: prediction and target ``(N, C, H, W)`` or ``(N, C, D, H, W)``, one value for each image.
From: Wang et al. 2003, "Multiscale structural similarity for image quality assessment",
doi:10.1109/ACSSC.2003.1292216.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from aptt.core.checks import Numbers
from aptt.core.module import LossModule
from aptt.core.reduction import Reduction
from aptt.core.structure import MS_SSIM
from aptt.loss.ssim.images import check_options, compared

__all__ = ["MSSSIMLoss", "ms_ssim_loss"]

_OF_THE_PAPER = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


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
    return compared(
        MS_SSIM,
        prediction,
        target,
        weight,
        data_range=data_range,
        window_size=window_size,
        sigma=sigma,
        k1=k1,
        k2=k2,
        scale_weight=scale_weight,
        reduction=reduction,
        term="ms_ssim",
    )


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
        check_options(data_range, window_size, sigma, k1, k2, scale_weight, reduction)

    def forward(
        self, prediction: Tensor, target: Numbers, *, weight: Numbers | None = None
    ) -> Tensor:
        """The loss of ``prediction`` against ``target``."""
        return ms_ssim_loss(prediction, target, weight=weight, **self.options())
