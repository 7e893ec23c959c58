"""Overlap of masks: ratios of sums over pixels, and Lovasz's extension of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tests.fuzz.oracles.common import against, chance, costs, logistic, power, reduced, softplus

__all__ = [
    "dice_ce_loss",
    "dice_ce_terms",
    "dice_focal_loss",
    "dice_focal_terms",
    "dice_loss",
    "focal_tversky_loss",
    "generalized_dice_loss",
    "lovasz_loss",
    "mask_iou_loss",
    "mcc_loss",
    "pixels",
    "tversky_loss",
    "wasserstein_dice_loss",
]


@dataclass
class _Pixels:
    """Of each sample, class and pixel ``(N, C, S)``; 0 in what does not count."""

    x: Tensor
    yes: Tensor
    no: Tensor
    nll: Tensor
    """-log p of a softmax."""
    t: Tensor
    w: Tensor


def pixels(a: Any) -> _Pixels:
    x, t = a.logits, a.target
    if a.mode == "binary":
        x, t = (v.reshape(len(a.logits), 1, -1) if len(v) else v.reshape(0, 1, 1) for v in (x, t))
    x = x[..., None].flatten(2) if a.mode != "binary" else x
    classes = x.shape[1]
    indexed = a.mode == "multiclass" and not t.is_floating_point()
    ignored = (-100 if indexed else None) if a.ignore_index == "auto" else a.ignore_index
    if a.mode == "multiclass" and not t.is_floating_point():
        y = t[..., None].flatten(1).long()
        keep = torch.ones_like(y, dtype=torch.bool) if ignored is None else y != ignored
        keep = keep[:, None].expand(x.shape)
        y = torch.where(keep[:, 0], y, 0)
        t = torch.nn.functional.one_hot(y, classes).movedim(-1, 1)
    else:
        t = t[..., None].flatten(2)
        keep = torch.ones(x.shape, dtype=torch.bool) if ignored is None else t != ignored
    w = torch.ones(x.shape).double()
    if a.weight is not None:
        of_pixels = a.weight.double()
        if a.mode == "multilabel" and a.weight.ndim == a.logits.ndim:
            of_pixels = of_pixels.expand(a.logits.shape)[..., None].flatten(2)
        elif x.numel():
            of_pixels = of_pixels.reshape(len(x), 1, -1)
        w = of_pixels.expand(x.shape) if x.numel() else w
    keep = keep & (w != 0)
    x, t, w = (torch.where(keep, v.double(), 0.0) for v in (x, t, w))
    if a.mode != "multiclass":
        return _Pixels(x, chance(x), chance(-x), x, t, w)
    rows = x.movedim(1, -1).reshape(-1, classes)
    nll = costs(rows)
    yes = torch.exp(-nll)
    top = rows.argmax(1) if len(rows) else rows[:, 0].long()
    largest = torch.arange(classes) == top[:, None]
    miss = chance(against(rows, top)) if len(rows) else rows[:, 0]
    no = torch.where(largest, miss[:, None], 1 - yes)

    def back(v: Tensor) -> Tensor:
        return v.reshape(len(x), -1 if len(x) else x.shape[2], classes).movedim(-1, 1)

    return (
        _Pixels(x, back(yes), back(no), back(nll), t, w) if x.numel() else _Pixels(x, x, x, x, t, w)
    )


@dataclass
class _Sums:
    """Of each pool, ``(C,)`` or ``(N, C)``."""

    truth: Tensor
    false: Tensor
    missed: Tensor
    common: Tensor
    pixels: Tensor


def _sums(a: Any, v: _Pixels) -> _Sums:
    error = (1 - v.t) * v.yes - v.t * v.no  # p - t
    axes = (2,) if a.pool == "sample" else (0, 2)
    each = (v.t, error.relu(), (-error).relu(), torch.where(error < 0, v.yes, v.t), v.w * 0 + 1)
    return _Sums(*((v.w * part).sum(axes) for part in each))


def _over(part: Tensor, whole: Tensor) -> Tensor:
    some = whole > 0
    return torch.where(some, part / torch.where(some, whole, 1.0), 0.0)


def _ratio(s: _Sums, alpha: float, beta: float, smooth: float = 0.0, log: bool = False) -> Tensor:
    """1 - I / (I + alpha FP + beta FN), as the share of what is wrong."""
    wrong, right = alpha * s.false + beta * s.missed, s.common + smooth
    if not log:
        return _over(wrong, right + wrong)
    return torch.log1p(_over(wrong, torch.maximum(right, 1e-30 * (right + wrong))))


def _average(a: Any, loss: Tensor, s: _Sums, term: str) -> Tensor:
    present = s.truth > 0
    if a.absent == "penalize":
        loss = torch.where(present, loss, _over(s.common + s.false, s.pixels))
    if a.absent == "zero":
        loss = torch.where(present, loss, 0.0)
    share = (present if a.absent == "skip" else s.pixels > 0).double() * _class_weight(a, loss)
    return reduced(share * loss, share.sum(), a.reduction, term)


def _class_weight(a: Any, like: Tensor) -> Tensor:
    share = torch.ones(like.shape[-1]).double() if a.class_weight is None else a.class_weight
    return share if a.background else share * (torch.arange(len(share)) > 0)


def _region(a: Any, term: str, alpha: float, beta: float) -> Tensor:
    s = _sums(a, pixels(a))
    return _average(a, _ratio(s, alpha, beta, a.smooth, getattr(a, "log", False)), s, term)


def dice_loss(a: Any) -> Tensor:
    """Drozdzal et al. 2016 (arXiv:1608.04117); min(p, t), Wang et al. 2023 (arXiv:2302.05666).

    Squared, Milletari et al. 2016 (arXiv:1606.04797), by the sum of squared errors.
    """
    if a.squared:
        v = pixels(a)
        s, axes = _sums(a, v), (2,) if a.pool == "sample" else (0, 2)
        error = (1 - v.t) * v.yes - v.t * v.no
        error, whole = ((v.w * part).sum(axes) for part in (error**2, v.yes**2 + v.t**2))
        return _average(a, _over(error, whole + 2 * a.smooth), s, "dice")
    return _region(a, "dice", 0.5, 0.5)


def mask_iou_loss(a: Any) -> Tensor:
    """Rahman and Wang 2016, eq. 4, with min(p, t)."""
    return _region(a, "mask_iou", 1.0, 1.0)


def tversky_loss(a: Any) -> Tensor:
    """Salehi et al. 2017 (arXiv:1706.05721), eq. 4."""
    return _region(a, "tversky", a.alpha, a.beta)


def focal_tversky_loss(a: Any) -> Tensor:
    """Abraham and Khan 2018 (arXiv:1810.07842), eq. 4, of each class."""
    s = _sums(a, pixels(a))
    loss = _ratio(s, a.alpha, a.beta, a.smooth)
    some = loss > 0
    loss = torch.where(some, torch.where(some, loss, 1.0) ** a.gamma, 0.0)
    return _average(a, loss, s, "focal_tversky")


def generalized_dice_loss(a: Any) -> Tensor:
    """Sudre et al. 2017 (arXiv:1707.03237), eq. 2; absent classes weigh as the rarest, or 0."""
    return _of_all(a, _sums(a, pixels(a)), "generalized_dice")


def _of_all(a: Any, s: Any, term: str) -> Tensor:
    share = _class_weight(a, s.truth).expand(s.truth.shape)
    present = (s.truth > 0) & (share > 0)
    some = present.any(-1)
    rarest = torch.where(present, s.truth, torch.inf).amin(-1, keepdim=True).detach()
    exponent = {"square": 2, "linear": 1, "uniform": 0}[a.weighting]
    size = torch.where(present, s.truth, 1.0) / torch.where(some[..., None], rarest, 1.0)
    value = share * torch.where(present, size**-exponent, float(a.absent == "penalize"))
    wrong = (s.false + s.missed) / 2
    loss = _over((value * wrong).sum(-1), (value * (s.common + wrong)).sum(-1))
    other = torch.zeros(())
    if a.absent == "penalize":
        other = _over((share * _over(s.common + s.false, s.pixels)).sum(-1), share.sum(-1))
    loss = torch.where(some, loss, other)
    counted = (some if a.absent == "skip" else s.pixels.amax(-1) > 0).double()
    return reduced(counted * loss, counted.sum(), a.reduction, term)


def mcc_loss(a: Any) -> Tensor:
    """Abhishek and Hamarneh 2021, of the table of right and wrong; a target of one class is absent.

    1 - MCC is the sum of what each of the four rates lacks, so that nothing cancels near 0.
    """
    v = pixels(a)
    s, axes = _sums(a, v), (2,) if a.pool == "sample" else (0, 2)
    rest = (v.w * (1 - v.t)).sum(axes)
    size = torch.where(s.pixels > 0, s.pixels, 1.0)
    present = (s.truth > 0) & (rest > 1e-6 * size)
    tp, fp, fn, tn = (x / size for x in (s.common, s.false, s.missed, rest - s.false))
    tp, tn = (torch.where(present, x, 0.5) for x in (tp, tn))
    fp, fn = (torch.where(present, x, 0.0) for x in (fp, fn))
    spread = (tp + fp) * (tn + fn)
    few = spread < 1 / (4 * size**2)
    root = torch.where(few, 1 / (4 * size**2), spread) * (tp + fn) * (tn + fp)
    b = (tn + fp) * (tn + fn)
    a_less, b_less = tp * (fp + fn) + fp * fn, tn * (fp + fn) + fp * fn
    gap = (a_less * b + tp**2 * b_less) / (root.sqrt() + tp * tn) + fp * fn
    loss = torch.where(few, 1 - (tp * tn - fp * fn) / root.sqrt(), gap / root.sqrt())
    full = (s.truth > 0) & ~present
    alone = torch.where(full, s.missed, s.common + s.false) / size
    loss = torch.where(present, loss, alone if a.absent == "penalize" else 0.0)
    counted = present if a.absent == "skip" else s.pixels > 0
    share = counted.double() * _class_weight(a, loss)
    return reduced(share * loss, share.sum(), a.reduction, "mcc")


def wasserstein_dice_loss(a: Any) -> Tensor:
    """Fidon et al. 2017 (arXiv:1707.00478), section 2."""
    a.mode, a.class_weight, a.background = "multiclass", None, True
    v = pixels(a)
    y = v.t.argmax(1) if v.t.numel() else v.t[:, 0].long()
    far = a.class_distance
    far = 1 - torch.eye(v.x.shape[1]).double() if far is None else far.double()
    cost = (far[y].movedim(-1, 1) * v.yes).sum(1)
    w = v.w[:, 0] if v.w.shape[1] else v.w.sum(1)
    axes = (1,) if a.pool == "sample" else (0, 1)
    object_ = w * (y > 0)
    every, hit = (w * cost).sum(axes), (object_ * (1 - cost)).sum(axes)
    loss, size = _over(every, 2 * hit + every), w.sum(axes)
    present = object_.sum(axes) > 0
    alone = _over(every, size) if a.absent == "penalize" else torch.zeros(())
    loss = torch.where(present, loss, alone)
    counted = (present if a.absent == "skip" else size > 0).double()
    return reduced(counted * loss, counted.sum(), a.reduction, "wasserstein_dice")


def _compound(a: Any, term: str, gamma: float) -> dict[str, Tensor]:
    v = pixels(a)
    s = _sums(a, v)
    w = v.w if a.class_weight is None else v.w * a.class_weight[:, None]
    if a.mode == "multiclass":
        cost, count = v.t * v.nll, (w * v.t).sum()
        if gamma:
            rows, y = v.x.movedim(1, -1).reshape(-1, v.x.shape[1]), v.t.argmax(1).reshape(-1)
            wrong = against(rows, y).reshape(len(v.x), 1, v.x.shape[2])
            cost = v.t * power(-softplus(-wrong), gamma) * softplus(wrong)
    else:
        cost, count = logistic(v.x, v.t), w.sum()
        if gamma:
            wrong = (1 - 2 * v.t) * v.x
            cost = power(-softplus(-wrong), gamma) * softplus(wrong)
    one = a.weighting is None
    return {
        "dice": _average(a, _ratio(s, 0.5, 0.5, a.smooth), s, "dice")
        if one
        else _of_all(a, s, "dice"),
        term: reduced((w * cost).sum(), count, a.reduction, term),
    }


def dice_ce_terms(a: Any) -> dict[str, Tensor]:
    """Taghanaki et al. 2019 (arXiv:1805.02798), eq. 3: each term, before its weight."""
    return _compound(a, "cross_entropy", 0.0)


def dice_ce_loss(a: Any) -> Tensor:
    terms = dice_ce_terms(a)
    return a.dice_weight * terms["dice"] + a.ce_weight * terms["cross_entropy"]


def dice_focal_terms(a: Any) -> dict[str, Tensor]:
    """Zhu et al. 2018 (arXiv:1808.05238), eq. 4: each term, before its weight."""
    return _compound(a, "focal", a.gamma)


def dice_focal_loss(a: Any) -> Tensor:
    terms = dice_focal_terms(a)
    return a.dice_weight * terms["dice"] + a.focal_weight * terms["focal"]


def lovasz_loss(a: Any) -> Tensor:
    """Berman et al. 2018 (arXiv:1705.08790), eq. 8 and 9; J as algorithm 1 has it."""
    v = pixels(a)
    if a.mode == "multiclass":
        e = torch.where(v.t > 0, v.no, v.yes)
    else:
        e = torch.relu(1 - (2 * v.t - 1) * v.x)
    parts = [e, v.t, v.w]
    if a.pool == "batch":
        parts = [p.transpose(0, 1).reshape(1, p.shape[1], -1) for p in parts]
    e, t, w = parts
    e, order = torch.where(w > 0, e, 0.0).sort(-1, descending=True)
    t, w = t.gather(-1, order), w.gather(-1, order)
    truth = (w * t).sum(-1, keepdim=True)
    missed, false = (w * t).cumsum(-1), (w * (1 - t)).cumsum(-1)
    jaccard = _over(missed + false, truth + false)
    steps = torch.diff(jaccard, dim=-1, prepend=torch.zeros(*jaccard.shape[:-1], 1).double())
    loss = (e * steps).sum(-1)
    truth, size = truth[..., 0], w.sum(-1)
    if a.pool == "batch":
        loss, truth, size = loss[0], truth[0], size[0]
    if a.absent != "penalize":
        loss = torch.where(truth > 0, loss, 0.0)
    share = ((truth if a.absent == "skip" else size) > 0).double() * _class_weight(a, loss)
    return reduced(share * loss, share.sum(), a.reduction, "lovasz")
