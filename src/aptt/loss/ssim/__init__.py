"""Structural similarity: images compared as windows of them look, not pixel by pixel.

    S = (2 mu_x mu_t + c1) / (mu_x**2 + mu_t**2 + c1)
        * (2 cov + c2) / (var x + var t + c2)                c1 = (k1 L)**2, c2 = (k2 L)**2
    SSIM       1 - mean S
    MS-SSIM    1 - prod over scales of (mean of the second factor)**w, of S at the last

under a Gaussian window; L is the range of the data. Scales halve the images.

Axes: prediction and target ``(N, C, H, W)`` or ``(N, C, D, H, W)``, one value for each image.
From: Wang et al. 2004, doi:10.1109/TIP.2003.819861; Wang et al. 2003,
doi:10.1109/ACSSC.2003.1292216.
"""

from aptt.loss.ssim.ms_ssim import MSSSIMLoss, ms_ssim_loss
from aptt.loss.ssim.ssim import SSIMLoss, ssim_loss

__all__ = ["MSSSIMLoss", "SSIMLoss", "ms_ssim_loss", "ssim_loss"]
