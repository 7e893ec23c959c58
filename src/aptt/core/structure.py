"""Structural similarity of two images, as what is missing to 1: small where they are alike.

    p       (mu_x - mu_t)**2 / (mu_x**2 + mu_t**2 + c1)          1 - luminance
    q       var(x - t) / (var x + var t + c2)                    1 - contrast and structure
    1 - S = p + q - p q

``mu`` and ``var`` are under a Gaussian window. These are the paper's ratios less 1: 2 a b is a**2 +
b**2 less (a - b)**2, and 2 cov is the sum of the variances less that of the difference. So nothing
cancels where the images are alike. Variances are taken of images less their means, in double
precision: a square of a level would leave nothing of a deviation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from aptt.core.exponential import expm1
from aptt.core.formula import Formula, Kept
from aptt.core.precision import to_widest

__all__ = ["LEAST", "MS_SSIM", "SSIM"]

Blur: TypeAlias = Callable[[Tensor, int, tuple[int, float]], Tensor]
LEAST = 0.01
"""The contrast below which its power is not taken."""


def _ssim(
    x: Tensor,
    kept: Kept,
    t: Tensor,
    *,
    shape: Sequence[int],
    window: tuple[int, float],
    c: tuple[float, float],
    blurred: Blur,
) -> Tensor:
    if x.numel() == 0:
        return (x + t).sum(1)
    p, q = _missing(_maps(x, shape), _maps(t, shape), window, c, blurred)
    return (p + q - p * q).reshape(len(x), -1).mean(1).to(x.dtype)


def _ms_ssim(
    x: Tensor,
    kept: Kept,
    t: Tensor,
    *,
    shape: Sequence[int],
    window: tuple[int, float],
    c: tuple[float, float],
    weights: Sequence[float],
    blurred: Blur,
) -> Tensor:
    if x.numel() == 0:
        return (x + t).sum(1)
    a, b = _maps(x, shape), _maps(t, shape)
    halved = F.avg_pool2d if a.ndim == 4 else F.avg_pool3d
    logs = a.new_zeros(len(a))
    for i, weight in enumerate(weights):
        if i:
            a, b = halved(a, 2), halved(b, 2)
        p, q = _missing(a, b, window, c, blurred)
        if i == len(weights) - 1:
            q = p + q - p * q
        logs = logs + weight * _log_of_rest(q.flatten(1).mean(1))
    return -expm1(logs).reshape(len(x), -1).mean(1).to(x.dtype)


def _maps(images: Tensor, shape: Sequence[int]) -> Tensor:
    """Every channel of every image by itself, ``(N * C, 1, *S)``."""
    return to_widest(images).reshape(-1, 1, *shape[1:])


def _missing(
    x: Tensor, t: Tensor, window: tuple[int, float], c: tuple[float, float], blurred: Blur
) -> tuple[Tensor, Tensor]:
    """``p`` and ``q`` at each place where the window fits."""
    axes = tuple(range(2, x.ndim))
    off = x - t
    levels = [v.mean(axes, keepdim=True) for v in (x, t, off)]
    x, t, off = (v - level for v, level in zip((x, t, off), levels, strict=True))
    maps = torch.cat((x, t, off, x.square() + t.square(), off.square()))
    for axis in axes:
        maps = blurred(maps, axis, window)
    mean_x, mean_t, mean_off, power, power_off = maps.chunk(5)
    spread = _at_least_0(power - mean_x.square() - mean_t.square())
    spread_off = _at_least_0(power_off - mean_off.square())
    of_x, of_t, apart = (
        m + level for m, level in zip((mean_x, mean_t, mean_off), levels, strict=True)
    )
    p = apart.square() / (of_x.square() + of_t.square() + c[0])
    return p, spread_off / (spread + c[1])


def _by_shifts(maps: Tensor, axis: int, window: tuple[int, float]) -> Tensor:
    """Under a Gaussian window along one axis, where it fits: taps on either side at once."""
    size, sigma = window
    steps = [0.5 * ((i - (size - 1) / 2) / sigma) ** 2 for i in range(size)]
    least = min(steps)  # so that one tap at least is 1, however narrow the window
    bell = [math.exp(least - step) for step in steps]
    count, whole = maps.shape[axis] - size + 1, math.fsum(bell)
    blurred = None
    for i in range((size + 1) // 2):
        other = size - 1 - i
        both = maps.narrow(axis, i, count)
        if other != i:
            both = both + maps.narrow(axis, other, count)
        share = bell[i] / whole
        blurred = both * share if blurred is None else torch.add(blurred, both, alpha=share)
    assert blurred is not None  # a window has at least one tap
    return blurred


def _by_convolution(maps: Tensor, axis: int, window: tuple[int, float]) -> Tensor:
    """The same in one operator, which a CPU has no fast one of in double precision."""
    size, sigma = window
    at = torch.arange(size, dtype=maps.dtype, device=maps.device) - (size - 1) / 2
    off = at.square() if size % 2 else at.square() - 0.25  # from the middle, whose tap is 1
    bell = torch.exp(off * -min(0.5 / sigma**2, _NARROWEST))
    along = [1] * maps.ndim
    along[axis] = size
    convolved = F.conv2d if maps.ndim == 4 else F.conv3d
    return convolved(maps, (bell / bell.sum()).reshape(along))


_NARROWEST = 1e30  # a steeper bell is the same: 0 beyond the middle taps


def _at_least_0(variance: Tensor) -> Tensor:
    """A variance that rounding has brought below 0 is 0; one of 0 keeps its curvature."""
    return torch.where(variance < 0, 0.0, variance)


def _log_of_rest(missing: Tensor) -> Tensor:
    """The logarithm of ``r = 1 - missing``; below ``LEAST`` of ``LEAST**2 / (2 LEAST - r)``."""
    low = missing > 1 - LEAST
    rest = torch.where(low, 1 - missing, 0.0)
    beyond = 2 * math.log(LEAST) - torch.log(2 * LEAST - rest)
    return torch.where(low, beyond, torch.log1p(-torch.where(low, 0.0, missing)))


def _formula(result: Callable[..., Tensor]) -> Formula:
    """By shifts, which a compiler fuses, or on an accelerator in fewer operators."""
    one = Formula(partial(result, blurred=_by_convolution), ahead=True)
    return Formula(partial(result, blurred=_by_shifts), ahead=True, block=2**16, in_one=one)


SSIM = _formula(_ssim)
"""What is missing of each image, ``x`` and ``target`` ``(N, C * S)``; ``shape`` is ``(C, *S)``."""

MS_SSIM = _formula(_ms_ssim)
"""Likewise, of the product over scales."""
