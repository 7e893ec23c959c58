"""Losses of aligned boxes, from their edges.

    iou 1 - I / U    giou (C - U) / C    diou d**2 / c**2    ciou a v    eiou ((w - W) / cw)**2
    siou (distance + shape) / 2

The overlap is measured by what sticks out of it on each side, ``out`` of the prediction and ``off``
of the target: what is missed is a sum of those, and never 1 less something near 1.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tests.fuzz.oracles.common import reduced, rise, scattered

__all__ = [
    "box_iou_loss",
    "box_l1_loss",
    "ciou_loss",
    "counted",
    "diou_loss",
    "edges",
    "eiou_loss",
    "giou_loss",
    "kld_loss",
    "nwd_loss",
    "probiou_loss",
    "siou_loss",
]


@dataclass
class _Axis:
    """One axis of a pair."""

    size: Tensor
    """Of the prediction, 0 where it is turned inside out."""
    goal: Tensor
    common: Tensor
    out: Tensor
    off: Tensor
    span: Tensor
    """Of both together; held where the prediction is turned inside out."""
    gap: Tensor
    """Twice the distance of the centres."""
    change: Tensor
    """size - goal."""
    flip: Tensor
    meets: Tensor
    """Whether the two touch, at least."""
    point: Tensor
    """Where both are one point, and the axis decides nothing."""


def edges(boxes: Tensor, box_format: str) -> tuple[Tensor, Tensor]:
    """Lower and upper ones."""
    return _edges(*boxes.chunk(2, -1), box_format)


def _edges(a: Tensor, b: Tensor, box_format: str) -> tuple[Tensor, Tensor]:
    if box_format == "xyxy":
        return a, b
    return (a, a + b) if box_format == "xywh" else (a - b / 2, a + b / 2)


def _axis(x: Tensor, t: Tensor, i: int, box_format: str) -> _Axis:
    size = x.shape[1] // 2
    a, b, c, d = x[:, i], x[:, i + size], t[:, i], t[:, i + size]
    if box_format != "xyxy":
        a, c = a - c, c - c  # from the target's corner or centre
    lo, hi = _edges(a, b, box_format)
    goal_low, goal_high = _edges(c, d, box_format)
    low, high = torch.minimum(goal_low, goal_high), torch.maximum(goal_low, goal_high)
    zero = torch.zeros_like(lo)
    turned = hi < lo
    left = torch.where(turned, hi.detach(), lo)
    right = torch.where(turned, lo.detach(), hi)
    meets = ~turned & (torch.minimum(hi, high) >= torch.maximum(lo, low))
    size, goal = torch.where(turned, zero, hi - lo), goal_high - goal_low
    # at a tie the edge belongs half to each
    out = torch.maximum(low - lo, zero) + torch.maximum(hi - high, zero)
    off = torch.maximum(lo - low, zero) + torch.maximum(high - hi, zero)
    change = torch.where(turned, -goal, (hi - high) - (lo - low))
    return _Axis(
        size=size,
        goal=goal,
        common=torch.where(meets, torch.minimum(hi, high) - torch.maximum(lo, low), zero),
        out=torch.where(meets, out, size),
        off=torch.where(meets, off, goal),
        span=torch.maximum(right, high) - torch.minimum(left, low),
        gap=(lo - low) + (hi - high),
        change=change,
        flip=torch.where(turned, lo - hi, zero),
        meets=meets,
        point=(torch.maximum(right, high) == torch.minimum(left, low)).detach(),
    )


def _safe(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole; 0 of nothing."""
    some = whole != 0
    return torch.where(some, part / torch.where(some, whole, 1.0), 0.0)


def _overlap(axes: list[_Axis]) -> tuple[Tensor, Tensor, Tensor]:
    """1 - I / U = (U - I) / U, I / U, and U; an axis of one point counts as whole."""
    inner = outer = whole = goals = torch.ones(())
    outer = outer * 0
    # what is missed, axis by axis: outside on this one, or within and outside on those before
    for a in axes:
        common, out, off, size, goal = (
            torch.where(a.point, v, k)
            for k, v in ((a.common, 1.0), (a.out, 0.0), (a.off, 0.0), (a.size, 1.0), (a.goal, 1.0))
        )
        outer = outer * common + out * whole + off * goals
        inner, whole, goals = inner * common, whole * size, goals * goal
    union = outer + inner
    meets = torch.stack([a.meets | a.point for a in axes]).all(0)
    apart = ~meets | (union == 0)
    return torch.where(apart, 1.0, _safe(outer, union)), _safe(inner, union), union


def _raised(cost: Tensor, power: float) -> Tensor:
    some = cost > 0
    return torch.where(some, torch.where(some, cost, 1.0) ** power, 0.0)


def _loss(a: Any, term: str, penalties: Any) -> Tensor:
    w = torch.ones(a.pred_boxes.shape[:-1]).double() if a.weight is None else a.weight.double()
    keep = w != 0
    w = w[keep]
    boxes, targets = a.pred_boxes[keep], a.target_boxes[keep].double()
    axes = [_axis(boxes, targets, i, a.box_format) for i in range(boxes.shape[1] // 2)]
    missed, iou, union = _overlap(axes)
    loss = missed
    kind = getattr(a, "kind", "linear")
    if kind == "log":  # below 1e-6 its tangent
        near = missed < 0.5
        log = -torch.log1p(-torch.where(near, missed, 0.0))
        least = torch.where(near, 1.0, iou).clamp(min=1e-6)
        loss = torch.where(near, log, (1 - iou / 1e-6).clamp(min=0) - least.log())
    elif kind == "square":
        loss = missed * (1 + iou)
    elif a.power != 1:  # 1 - iou**power, exact near iou = 1 too
        near = missed < 0.5
        log = torch.log1p(-torch.where(near, missed, 0.0))
        loss = torch.where(near, -torch.expm1(a.power * log), 1 - _raised(iou, a.power))
    for penalty in penalties(a, axes, missed, union):
        loss = loss + (penalty if a.power == 1 else _raised(penalty, a.power))
    for axis in axes:
        loss = loss + _safe(axis.flip, axis.span)
    return counted(a, loss, w, keep, term)


def counted(a: Any, loss: Tensor, w: Tensor, keep: Tensor, term: str) -> Tensor:
    """Reduced, as the call says."""
    count = w.sum()
    if a.normalize == "positives":
        count = (w > 0).sum()
        count = count.clamp(min=1) if a.reduction == "mean" else count
    return reduced(scattered(w * loss, keep), count, a.reduction, term)


def box_iou_loss(a: Any) -> Tensor:
    """Yu et al. 2016 (arXiv:1608.01471), or its linear form; powers, He et al. 2021."""
    return _loss(a, "iou", lambda *_: ())


def box_l1_loss(a: Any) -> Tensor:
    """Girshick 2015 (arXiv:1504.08083), eq. 3; the sum over the numbers of a box."""
    w = torch.ones(a.pred_boxes.shape[:-1]).double() if a.weight is None else a.weight.double()
    keep = w != 0
    off = (a.pred_boxes[keep] - a.target_boxes[keep].double()).abs()
    near = off < a.beta
    square = 0.5 * off.square() / (a.beta or 1.0)
    loss = torch.where(near, square, off - 0.5 * a.beta).sum(-1)
    return counted(a, loss, w[keep], keep, "box_l1")


def giou_loss(a: Any) -> Tensor:
    """Rezatofighi et al. 2019 (arXiv:1902.09630), eq. 3 and algorithm 1."""

    def penalty(a: Any, axes: list[_Axis], missed: Tensor, union: Tensor) -> tuple[Tensor, ...]:
        spans = torch.stack([torch.where(k.point, 1.0, k.span) for k in axes])
        meet = torch.stack([k.common > 0 for k in axes]).all(0)
        # where they meet, an axis is common + out + off: a corner is in neither box if it is out
        # on some axis and off on another
        corners = torch.zeros_like(union)
        for kinds in itertools.product(("common", "out", "off"), repeat=len(axes)):
            if {"out", "off"} <= set(kinds):
                parts = [getattr(k, kind) for k, kind in zip(axes, kinds, strict=True)]
                corners = corners + torch.stack(parts).prod(0)
        whole = spans.prod(0)
        return (torch.where(meet, corners, whole - union) / whole,)

    return _loss(a, "giou", penalty)


def _distance(axes: list[_Axis]) -> Tensor:
    """d**2 / c**2; Zheng et al. 2020 (arXiv:1911.08287), eq. 7."""
    gap, span = (torch.stack([getattr(k, n) for k in axes]) for n in ("gap", "span"))
    return _safe(gap.square().sum(0) / 4, span.square().sum(0))


def diou_loss(a: Any) -> Tensor:
    return _loss(a, "diou", lambda a, axes, *_: (_distance(axes),))


def ciou_loss(a: Any) -> Tensor:
    """Zheng et al. 2020, eq. 8 to 11; the gate, Zheng et al. 2021 (arXiv:2005.03572), eq. 13.

    Of boxes under 1/100 of the enclosing diagonal, the slope of the aspect is that at this size.
    """

    def penalty(a: Any, axes: list[_Axis], missed: Tensor, union: Tensor) -> tuple[Tensor, ...]:
        x, y = axes
        turn = x.goal * y.change - y.goal * x.change
        run = x.goal * x.size + y.goal * y.size
        unit = torch.maximum(turn.abs(), run).detach()
        some = unit > 0
        unit = torch.where(some, unit, 1.0)
        angle = torch.atan2(turn / unit, torch.where(some, run / unit, 1.0))
        size = (x.size.square() + y.size.square()).detach()
        least = 1e-4 * (x.span.square() + y.span.square()).detach()
        slow = torch.where(size < least, size / torch.where(least > 0, least, 1.0), 1.0)
        angle = angle.detach() + slow * (angle - angle.detach())
        v = (2 / math.pi * angle).square()
        share = _safe(v, missed + v).detach()
        if a.gate:
            share = torch.where(missed < 0.5, share, 0.0)
        return _distance(axes), share * v

    return _loss(a, "ciou", penalty)


def eiou_loss(a: Any) -> Tensor:
    """Zhang et al. 2021 (arXiv:2101.08158), eq. 6."""

    def penalty(a: Any, axes: list[_Axis], *_: Tensor) -> tuple[Tensor, ...]:
        return (_distance(axes), *(_safe(k.change, k.span).square() for k in axes))

    return _loss(a, "eiou", penalty)


def siou_loss(a: Any) -> Tensor:
    """Gevorgyan 2022 (arXiv:2205.12740), eq. 1 to 16, with theta = 4.

    Lengths and distances under 1/100 of the enclosing length take the slope at that size.
    """

    def slowed(value: Tensor, size: Tensor) -> Tensor:
        return value.detach() + (size.detach() / 0.01).clamp(max=1) * (value - value.detach())

    def penalty(a: Any, axes: list[_Axis], *_: Tensor) -> tuple[Tensor, ...]:
        x, y = axes
        longer = torch.maximum(x.span, y.span).detach()
        longer = torch.where(longer > 0, longer, 1.0)
        gx, gy = x.gap / 2 / longer, y.gap / 2 / longer
        far = gx.square() + gy.square()
        slant = slowed(2 * _safe((gx * gy).abs(), far), far.sqrt())  # sin(2 alpha)
        total = 0.0
        for k in (x, y):
            distance = rise((2 - slant) * _safe(k.gap / 2, k.span).square())
            longest = torch.maximum(k.size, k.goal)
            change = slowed(_safe(k.change.abs(), longest), _safe(longest, k.span))
            total = total + distance + rise(change).pow(4)
        return (total / 2,)

    return _loss(a, "siou", penalty)


def probiou_loss(a: Any) -> Tensor:
    """Llerena et al. 2021 (arXiv:2106.06072), L1 and L2, with B of two Gaussians.

        B = (m1 - m2)' S^-1 (m1 - m2) / 8 + log(|S| / sqrt(|S1| |S2|)) / 2      S = (S1 + S2) / 2

    Sides under 1/1000 of the pair's longest length count as that long, with their own slope.
    """
    w = torch.ones(a.pred_boxes.shape[:-1]).double() if a.weight is None else a.weight.double()
    keep = w != 0
    w, x, t = w[keep], a.pred_boxes[keep], a.target_boxes[keep].double()
    gap = x[:, :2] - t[:, :2]
    unit = torch.cat((gap.abs(), x[:, 2:4], t[:, 2:4]), 1).detach().amax(1).clamp(min=0)
    unit = torch.where(unit > 0, unit, 1.0)[:, None]

    def sides(boxes: Tensor) -> tuple[Tensor, Tensor]:
        s = boxes[:, 2:4] / unit
        s = s + (1e-3 - s).clamp(min=0).detach()
        return s[:, 0], s[:, 1]

    (w1, h1), (w2, h2), gap = sides(x), sides(t), gap / unit
    turn = x[:, 4] - t[:, 4]
    # With A and B 12 times the covariances: |A + B| = |A| + |B| + p**2 + q**2 + turned, where no
    # term is negative; less 4 sqrt(|A| |B|) it is a sum of squares, as p q = w1 h1 w2 h2
    alike = (w1 - h1) * (w2 - h2) >= 0
    p, q = torch.where(alike, w1 * h2, w1 * w2), torch.where(alike, h1 * w2, h1 * h2)
    sine = torch.where(alike, turn.sin(), turn.cos())
    turned = torch.where(alike, 1, -1) * (w1**2 - h1**2) * (w2**2 - h2**2) * sine.square()
    det = (w1 * h1).square() + (w2 * h2).square() + p.square() + q.square() + turned
    beyond = (w1 * h1 - w2 * h2).square() + (p - q).square() + turned

    def seen(angle: Tensor, w: Tensor, h: Tensor) -> Tensor:  # gap' adj(covariance) gap
        u = gap[:, 0] * angle.cos() + gap[:, 1] * angle.sin()
        v = gap[:, 1] * angle.cos() - gap[:, 0] * angle.sin()
        return (h * u).square() + (w * v).square()

    apart = (seen(x[:, 4], w1, h1) + seen(t[:, 4], w2, h2)) / det
    distance = 3 * apart + torch.log1p(beyond / (4 * w1 * h1 * w2 * h2)) / 2
    if a.distance == "hellinger":
        some = distance > 0
        root = rise(torch.where(some, distance, 1.0)).sqrt()
        distance = torch.where(some, root, 0.0)
    goal = t[:, 2:4].clamp(min=0)
    ratio = _safe(2 * goal[:, 0] * goal[:, 1], goal.square().sum(1))
    loss = distance + a.angle * (2 * turn).sin().square() * ratio.square()
    return counted(a, loss, w, keep, "probiou")


def kld_loss(a: Any) -> Tensor:
    """Yang et al. 2021 (arXiv:2106.01883), tau = 1: the divergence by matrices.

        KL(2, 1) = (d' S1^-1 d + tr(S1^-1 S2) - 2 - log(|S2| / |S1|)) / 2

    In the axes of the first: with k the ratio of the sides, log(k) is taken of 1 + (k - 1).
    Sides under 1/1000 of the pair's longest length count as that long, with their own slope.
    """
    w = torch.ones(a.pred_boxes.shape[:-1]).double() if a.weight is None else a.weight.double()
    keep = w != 0
    w, x, t = w[keep], a.pred_boxes[keep], a.target_boxes[keep].double()
    gap = x[:, :2] - t[:, :2]
    unit = torch.cat((gap.abs(), x[:, 2:4], t[:, 2:4]), 1).detach().amax(1).clamp(min=0)
    unit = torch.where(unit > 0, unit, 1.0)[:, None]

    def sides(boxes: Tensor) -> Tensor:
        s = boxes[:, 2:4] / unit
        return s + (1e-3 - s).clamp(min=0).detach()

    def kl(p: Tensor, t: Tensor) -> Tensor:
        own, goal, turn = sides(p), sides(t), p[:, 4] - t[:, 4]
        a1, a2 = own.square().unbind(1)
        b1, b2 = goal.square().unbind(1)
        alike = (a1 - a2) * (b1 - b2) >= 0  # else side against the other side
        goal = torch.where(alike[:, None], goal, goal.flip(1))
        sine = torch.where(alike, turn.sin().square(), -turn.cos().square())
        more = (goal - own) / own
        # tr(S1^-1 S2) = sum of k**2 + what the turn adds, a product of two differences
        turned = sine * (a1 - a2) * (b1 - b2) / (a1 * a2)
        cos, sin = p[:, 4].cos(), p[:, 4].sin()
        u = (gap[:, 0] * cos + gap[:, 1] * sin) / unit[:, 0] / own[:, 0]
        v = (gap[:, 1] * cos - gap[:, 0] * sin) / unit[:, 0] / own[:, 1]
        shape = more.square() / 2 + (more - more.log1p())
        return 2 * (u.square() + v.square()) + shape.sum(1) + turned / 2

    if a.divergence == "symmetric":
        d = (kl(x, t) + kl(t, x)) / 2
    else:
        d = kl(x, t) if a.divergence == "forward" else kl(t, x)
    if a.squash == "sqrt":
        some = d > 0
        d = torch.where(some, torch.where(some, d, 1.0).sqrt(), 0.0)
    elif a.squash == "log1p":
        d = d.log1p()
    return counted(a, d if a.squash == "none" else d / (1 + d), w, keep, "kld")


def nwd_loss(a: Any) -> Tensor:
    """Wang et al. 2021 (arXiv:2110.13389); None: in the root mean square of the target's sides."""
    w = torch.ones(a.pred_boxes.shape[:-1]).double() if a.weight is None else a.weight.double()
    keep = w != 0
    x, t = a.pred_boxes[keep], a.target_boxes[keep].double()
    low, high = edges(t, a.box_format)
    gap = x - t
    if a.box_format == "xyxy":
        lower, upper = gap.chunk(2, 1)
    else:
        first, size = gap.chunk(2, 1)
        lower = first if a.box_format == "xywh" else first - size / 2
        upper = lower + size
    square = (lower.square() + upper.square()).sum(1) / 2
    far = gap.detach().abs().amax(1) if len(gap) else gap[:, 0]
    sides = high - low if a.box_format == "xyxy" else t.chunk(2, 1)[1]
    mean = sides.square().mean(1)
    size = torch.where(mean > 0, torch.where(mean > 0, mean, 1.0).sqrt(), 0.0)
    size = torch.maximum(size, 1e-3 * far)
    unit = torch.where(size > 0, size, 1.0) if a.unit is None else torch.full_like(size, a.unit)
    some = square > 0
    root = torch.where(some, torch.where(some, square, 1.0).sqrt(), 0.0)
    return counted(a, rise(root / unit), w[keep], keep, "nwd")
