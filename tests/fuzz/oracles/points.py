"""Keypoints and heat maps."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from tests.fuzz.oracles.common import power, reduced, rise, scattered, softplus

__all__ = [
    "adaptive_wing_loss",
    "heatmap_loss",
    "keypoint_loss",
    "render_heatmaps",
    "wing_loss",
]

SIGMAS = {  # of the COCO and CrowdPose evaluation code
    "coco": [
        0.026,
        0.025,
        0.025,
        0.035,
        0.035,
        0.079,
        0.079,
        0.072,
        0.072,
        0.062,
        0.062,
        0.107,
        0.107,
        0.087,
        0.087,
        0.089,
        0.089,
    ],
    "crowdpose": [
        0.079,
        0.079,
        0.072,
        0.072,
        0.062,
        0.062,
        0.107,
        0.107,
        0.087,
        0.087,
        0.089,
        0.089,
        0.079,
        0.079,
    ],
}


def _weights(a: Any) -> tuple[Tensor, Tensor]:
    w = torch.ones(a.target.shape).double() if a.weight is None else a.weight.double()
    keep = w != 0
    return keep, w[keep]


def wing_loss(a: Any) -> Tensor:
    """Feng et al. 2018 (arXiv:1711.06753), eq. 5."""
    keep, w = _weights(a)
    off = (a.prediction[keep] - a.target[keep].double()).abs()
    constant = a.width - a.width * math.log1p(a.width / a.epsilon)
    near = a.width * torch.log1p(off / a.epsilon)
    values = w * torch.where(off < a.width, near, off - constant)
    return reduced(scattered(values, keep), w.sum(), a.reduction, "wing")


def _adaptive(x: Tensor, y: Tensor, a: Any) -> Tensor:
    """Wang et al. 2019 (arXiv:1904.07399), eq. 3."""
    off, exponent = (x - y).abs(), a.alpha - y
    some = off > 0
    lifted = torch.where(some, torch.where(some, off / a.epsilon, 1.0) ** exponent, 0.0)
    end = (a.theta / a.epsilon) ** exponent
    slope = a.omega / (1 + end) * exponent * (a.theta / a.epsilon) ** (exponent - 1) / a.epsilon
    constant = a.theta * slope - a.omega * torch.log1p(end)
    return torch.where(off < a.theta, a.omega * torch.log1p(lifted), slope * off - constant)


def adaptive_wing_loss(a: Any) -> Tensor:
    keep, w = _weights(a)
    values = w * _adaptive(a.prediction[keep], a.target[keep].double(), a)
    return reduced(scattered(values, keep), w.sum(), a.reduction, "adaptive_wing")


def keypoint_loss(a: Any) -> Tensor:
    """OKS of the COCO keypoint evaluation; Maji et al. 2022 (arXiv:2204.06806), eq. 4."""
    shape, points = a.prediction.shape[:-2], a.prediction.shape[-2]
    sigmas = SIGMAS[a.sigmas] if isinstance(a.sigmas, str) else a.sigmas
    sigmas = torch.as_tensor(sigmas, dtype=torch.float64).expand(points)
    seen = a.visibility > 0
    share = seen.double()
    if a.point_weight is not None:
        share = torch.where(seen, a.point_weight.double(), 0.0)
        seen = share != 0
        share = torch.where(seen, share, 0.0)
    w = torch.ones(shape).double() if a.weight is None else a.weight.double()
    keep = (w != 0) & seen.any(-1)
    w, seen, share = w[keep], seen[keep], share[keep]
    off = torch.where(seen[..., None], a.prediction[keep] - a.target[keep].double(), 0.0)
    unit = 8 * sigmas**2 * (a.area_scale * a.area[keep].double())[:, None]
    e, n = off.square().sum(-1) / unit, share.sum(-1)
    if a.kind == "cauchy":
        values = (share * torch.log1p(e)).sum(-1) / n
    else:
        missed = (share * torch.where(seen, rise(e), 0.0)).sum(-1) / n  # 1 - OKS
        values = missed
        if a.kind == "log":
            log_share = torch.where(seen, share, 1.0).log()
            far = n.log() - torch.where(seen, log_share - e, -torch.inf).logsumexp(-1)
            close = missed < 0.5
            values = torch.where(close, -torch.log1p(-torch.where(close, missed, 0.0)), far)
    return reduced(scattered(w * values, keep), w.sum(), a.reduction, "keypoint")


def heatmap_loss(a: Any) -> Tensor:
    """Squared error; CenterNet's focal (Zhou et al. 2019, arXiv:1904.07850), eq. 1; awing."""
    w = torch.ones(a.target.shape).double() if a.weight is None else a.weight.double()
    w = w.reshape(*w.shape, *[1] * (a.target.ndim - w.ndim)).expand(a.target.shape)
    keep = w != 0
    if a.visibility is not None:
        axes = [1] * (a.target.ndim - 2)
        keep = keep & (a.visibility != 0).reshape(*a.visibility.shape, *axes)
    x, y, w = a.prediction[keep], a.target[keep].double(), w[keep]
    peak = y == 1 if a.positive is None else a.positive[keep]
    if a.kind == "mse":
        values = (x - y).square()
    elif a.kind == "awing":
        values = _adaptive(x, y, SimpleNamespace(alpha=2.1, omega=14.0, epsilon=1.0, theta=0.5))
    else:
        wrong = torch.where(peak, -x, x)
        some = y < 1
        near = torch.where(some, torch.where(some, 1 - y, 1.0) ** a.beta, float(a.beta == 0))
        share = torch.where(peak, 1.0, near)
        values = share * power(-softplus(-wrong), a.alpha) * softplus(wrong)
    count = w.sum()
    if (a.normalize or ("positives" if a.kind == "focal" else "elements")) == "positives":
        count = torch.where(peak, w, 0.0).sum()
        count = count.clamp(min=1) if a.reduction == "mean" else count
    return reduced(scattered(w * values, keep), count, a.reduction, f"heatmap_{a.kind}")


def render_heatmaps(a: Any) -> Tensor:
    """exp(-|cell - point|**2 / (2 sigma**2)), a point on a cell being its centre."""
    points = a.points.round() if a.snap else a.points
    sigma = torch.as_tensor(a.sigma, dtype=torch.float64)[..., None, None]
    there = torch.ones(points.shape[:2], dtype=torch.bool)
    if a.visibility is not None:
        there = a.visibility > 0
    points = torch.where(there[..., None], points, 0.0)
    row = torch.arange(a.size[0]).double()[:, None] - points[..., 1, None, None]
    column = torch.arange(a.size[1]).double() - points[..., 0, None, None]
    maps = torch.exp(-(row.square() + column.square()) / (2 * sigma.square()))
    return torch.where(there[..., None, None], maps, 0.0)
