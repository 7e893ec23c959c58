"""Box losses: a prediction near its target for each of a million boxes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

import aptt.loss
from benchmarks.case import OURS, Case, Contender, Loss

__all__ = ["CASES"]

_TINY = 1e-7


def _inputs(size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Corners in pixels; the prediction is off by about a quarter of the sides."""
    count = size[0]
    centre, side = 640 * torch.rand(count, 2), 8 + 192 * torch.rand(count, 2)
    target = torch.cat((centre - side / 2, centre + side / 2), 1)
    centre = centre + 0.25 * side * torch.randn(count, 2)
    side = side * (0.25 * torch.randn(count, 2)).exp()
    return torch.cat((centre - side / 2, centre + side / 2), 1), target


def _overlap(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """IoU, union, and the sides of the enclosing box."""
    (ax, ay, bx, by), (cx, cy, dx, dy) = x.unbind(-1), t.unbind(-1)
    width = (torch.minimum(bx, dx) - torch.maximum(ax, cx)).clamp(min=0)
    height = (torch.minimum(by, dy) - torch.maximum(ay, cy)).clamp(min=0)
    common = width * height
    union = (bx - ax) * (by - ay) + (dx - cx) * (dy - cy) - common
    wide = torch.maximum(bx, dx) - torch.minimum(ax, cx)
    high = torch.maximum(by, dy) - torch.minimum(ay, cy)
    return common / (union + _TINY), union, wide, high


def plain_giou(x: Tensor, t: Tensor) -> Tensor:
    """Rezatofighi et al. 2019, arXiv:1902.09630, algorithm 1."""
    iou, union, wide, high = _overlap(x, t)
    enclosing = wide * high
    return (1 - iou + (enclosing - union) / (enclosing + _TINY)).mean()


def _apart(x: Tensor, t: Tensor, wide: Tensor, high: Tensor) -> Tensor:
    """The distance of the centres, squared, relative to the enclosing diagonal."""
    (ax, ay, bx, by), (cx, cy, dx, dy) = x.unbind(-1), t.unbind(-1)
    distance = ((ax + bx - cx - dx) ** 2 + (ay + by - cy - dy) ** 2) / 4
    return distance / (wide**2 + high**2 + _TINY)


def plain_diou(x: Tensor, t: Tensor) -> Tensor:
    """Zheng et al. 2020, arXiv:1911.08287, eq. 7."""
    iou, _, wide, high = _overlap(x, t)
    return (1 - iou + _apart(x, t, wide, high)).mean()


def plain_ciou(x: Tensor, t: Tensor) -> Tensor:
    """Zheng et al. 2020, arXiv:1911.08287, eq. 8 to 11; alpha is constant in the gradient."""
    iou, _, wide, high = _overlap(x, t)
    (ax, ay, bx, by), (cx, cy, dx, dy) = x.unbind(-1), t.unbind(-1)
    aspect = torch.atan((dx - cx) / (dy - cy)) - torch.atan((bx - ax) / (by - ay))
    v = 4 / math.pi**2 * aspect**2
    alpha = (v / (1 - iou + v + _TINY)).detach()
    return (1 - iou + _apart(x, t, wide, high) + alpha * v).mean()


def _monai_giou() -> Loss:
    from monai.losses import BoxGIoULoss

    return BoxGIoULoss()


def _case(name: str, plain: Loss, *peers: Contender) -> Case:
    uses = f"{name}_loss"
    return Case(
        name,
        uses,
        _inputs,
        size=(1_000_000, 4),
        quick=(10_000, 4),
        contenders=(
            Contender(OURS, lambda: getattr(aptt.loss, uses)),
            Contender("plain, compiled", lambda: plain, compiled=True),
            Contender("plain", lambda: plain),
            *peers,
        ),
    )


CASES = (
    _case("giou", plain_giou, Contender("monai", _monai_giou)),
    _case("diou", plain_diou),
    _case("ciou", plain_ciou),
)
