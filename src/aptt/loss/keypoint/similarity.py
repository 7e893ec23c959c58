"""Object keypoint similarity of instances: the formula of :func:`keypoint_loss`.

Axes: rows ``(N, K D)``, the coordinates of one instance; visibility and shares ``(N, K)``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from aptt.core.exponential import expm1, rise
from aptt.core.formula import Formula, Kept

__all__ = ["OKS"]


def _oks(
    x: Tensor,
    kept: Kept,
    t: Tensor,
    seen: Tensor,
    area: Tensor,
    share: Tensor | None,
    *,
    sigmas: Tensor,
    form: str,
    area_scale: float,
) -> Tensor:
    places = x.shape[1] // max(len(sigmas), 1)
    off = (x - t).unflatten(1, (len(sigmas), places))
    off = torch.where(seen.unsqueeze(2), off, 0.0)
    area = torch.where(area > 0, area, 1.0)  # of instances that are removed, it may be anything
    unit = (8 * area_scale * area).sqrt().unsqueeze(1) * sigmas
    e = (off / unit.unsqueeze(2)).square().sum(2)
    n = _denominator(seen if share is None else share)
    if form == "cauchy":
        return _over(_log1p_of_squares(off / unit.unsqueeze(2), e), share, n)
    if form == "oks":
        return _over(rise(e), share, n)
    # from the nearest point on, where nothing underflows: -log OKS = least - log(mean exp(least-e))
    least = torch.where(seen, e, torch.inf).detach().amin(1)
    least = torch.where(seen.any(1), least, 0.0)
    near = seen & least.isfinite().unsqueeze(1)  # of two infinities the gap is 0
    gap = torch.where(near, e - least.unsqueeze(1), 0.0)
    # at the nearest point it is 0, where an ELU has no curvature
    further = torch.where(gap < 1, -expm1(-gap), rise(gap))
    missed = _over(further, share, n)
    if share is None:
        return least - torch.log1p(-missed)
    # of a nearest point that weighs little beside the others, 1 - missed has lost its digits
    close = missed < 0.5
    left = _over(torch.exp(-gap), share, n)
    log = torch.where(close, 1.0, left).log() + torch.log1p(-torch.where(close, missed, 0.0))
    return least - log


def _log1p_of_squares(off: Tensor, e: Tensor) -> Tensor:
    """``log(1 + e)``, ``e`` the sum of the squares of ``off``, however far that is."""
    far = off.detach().abs().amax(2) > 1e9  # where the 1 is nothing, and e nears the largest float
    scaled = torch.where(far.unsqueeze(2), off * 1e-20, 1.0).square().sum(2)
    return torch.where(far, scaled.log() + 40 * math.log(10), torch.log1p(torch.where(far, 0.0, e)))


def _denominator(share: Tensor) -> Tensor:
    """What a mean over points divides by; of none, 1."""
    if share.dtype == torch.bool:
        return share.sum(1).clamp_min(1)
    total = share.sum(1)
    return torch.where(total > 0, total, 1.0)


def _over(values: Tensor, share: Tensor | None, n: Tensor) -> Tensor:
    """The mean over points, of which hidden ones are 0, or weigh nothing."""
    return (values if share is None else values * share).sum(1) / n


OKS = Formula(_oks, ahead=True, block=2**17)
