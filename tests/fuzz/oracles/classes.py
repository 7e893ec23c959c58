"""Classification: cross-entropy, focal, varifocal, quality focal, distribution focal."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from tests.fuzz.oracles.common import (
    against,
    chance,
    costs,
    heard,
    logistic,
    power,
    reduced,
    scattered,
    softplus,
)

__all__ = [
    "asymmetric_loss",
    "binary_cross_entropy",
    "class_rows",
    "coral_loss",
    "corn_loss",
    "cross_entropy",
    "cross_entropy_terms",
    "distribution_focal_loss",
    "expected_value",
    "focal_loss",
    "generalized_cross_entropy_loss",
    "ia_bce_loss",
    "mal_loss",
    "poly1_loss",
    "quality_focal_loss",
    "row_entropy",
    "symmetric_cross_entropy_loss",
    "top_k_cross_entropy_loss",
    "varifocal_loss",
]


def class_rows(logits: Tensor, target: Tensor, class_dim: int | None) -> tuple[Tensor, int]:
    """Logits as ``(n, C)``, by the axis that class indices lack."""
    if class_dim is None:
        fits = [
            a
            for a in (1, logits.ndim - 1)
            if a < logits.ndim
            and (*logits.shape[:a], *logits.shape[a + 1 :]) == tuple(target.shape)
        ]
        class_dim = fits[0] if fits else logits.ndim - 1
    class_dim %= logits.ndim
    return logits.movedim(class_dim, -1).reshape(-1, logits.shape[class_dim]), class_dim


def row_terms(
    x: Tensor,
    y: Tensor,
    *,
    weight: Tensor | None,
    smoothing: float,
    softcap: float | None,
    adjustment: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy, and lse, of rows ``(n, C)`` with indices ``(n,)`` or shares ``(n, C)``.

    Szegedy et al. 2016 (arXiv:1512.00567), section 7; z-loss of PaLM (arXiv:2204.02311), section 5;
    softcap of Gemma 2 (arXiv:2408.00118), section 2; adjustment of Menon et al. (arXiv:2007.07314),
    eq. 10. Smoothing goes to classes that are not masked.
    """
    masked = x == -torch.inf
    w = torch.ones(x.shape[1], dtype=x.dtype) if weight is None else weight
    z = x if softcap is None else softcap * torch.tanh(x.masked_fill(masked, 0.0) / softcap)
    z = z if adjustment is None else z + adjustment
    z = z.masked_fill(masked, -torch.inf)
    spread = smoothing * (~masked).double() / (~masked).sum(1, keepdim=True)
    if y.ndim == 1:
        loss = (1 - smoothing) * w[y] * softplus(against(z, y))
        goal = spread * w
        some = smoothing > 0
    else:
        goal = ((1 - smoothing) * y + spread) * w
        loss, some = torch.zeros(len(x), dtype=x.dtype), True
    if some:
        loss = loss + torch.where(masked, 0.0, goal * costs(z).masked_fill(masked, 0.0)).sum(1)
    return loss, z.logsumexp(1)


def row_entropy(x: Tensor, y: Tensor, *, z_loss: float, **form: Any) -> Tensor:
    """The loss with its z-loss, of each row."""
    loss, lse = row_terms(x, y, **form)
    if not z_loss:
        return loss
    w = torch.ones(x.shape[1], dtype=x.dtype) if form["weight"] is None else form["weight"]
    return loss + z_loss * (w[y] if y.ndim == 1 else (y * w).sum(1)) * lse.square()


def cross_entropy(a: Any) -> Tensor:
    terms = cross_entropy_terms(a)
    return (
        terms["cross_entropy"] + a.z_loss * terms["z_loss"] if a.z_loss else terms["cross_entropy"]
    )


def cross_entropy_terms(a: Any) -> dict[str, Tensor]:
    """The loss without its z-loss, lse**2 and lse, each of them weighed alike."""
    x, axis = class_rows(a.logits, a.target, a.class_dim)
    soft = a.target.is_floating_point()
    shape = (*a.logits.shape[:axis], *a.logits.shape[axis + 1 :])
    y = a.target.movedim(axis, -1).reshape(-1, x.shape[1]) if soft else a.target.reshape(-1).long()
    s = (
        torch.ones(len(x), dtype=x.dtype)
        if a.sample_weight is None
        else a.sample_weight.reshape(-1)
    )
    keep = (s != 0) if soft else (s != 0) & heard(y, a.ignore_index)
    x, y, s = x[keep], y[keep], s[keep]
    w = torch.ones(x.shape[1], dtype=x.dtype) if a.weight is None else a.weight
    loss, lse = row_terms(
        x,
        y,
        weight=a.weight,
        smoothing=a.label_smoothing,
        softcap=a.softcap,
        adjustment=a.logit_adjustment,
    )
    mass = s * ((y * w).sum(1) if soft else w[y])
    each = {
        "cross_entropy": s * loss,
        "z_loss": mass * lse.square(),
        "lse": (mass * lse).detach(),
    }
    return {
        name: reduced(
            scattered(value, keep.reshape(shape)), mass.sum(), a.reduction, "cross_entropy"
        )
        for name, value in each.items()
    }


def top_k_cross_entropy_loss(a: Any) -> Tensor:
    """Fan et al. 2017 (arXiv:1705.08826): the mean of the k largest, those that are tied shared."""
    each = SimpleNamespace(**vars(a) | dict(weight=a.class_weight, reduction="none"))
    values = cross_entropy(each)
    soft = a.target.is_floating_point()
    known = torch.ones(values.shape, dtype=torch.bool)
    if not soft and a.ignore_index is not None:
        known = a.target != a.ignore_index
    if a.sample_weight is not None:
        known = known & (a.sample_weight != 0)
    share = torch.zeros(values.shape, dtype=torch.float64)
    parts = range(len(values)) if a.pool == "sample" and values.ndim else [slice(None)]
    for part in parts:
        here = known[part]
        losses = values.detach()[part][here]
        if not losses.numel():
            continue
        k = max(1, math.ceil(a.fraction * losses.numel() - 1e-9))
        if a.threshold:
            k = max(k, int((losses > -math.log(a.threshold)).sum()))
        least = losses.sort(descending=True).values[k - 1]
        tied = (losses == least) | ((losses - least).abs() < 1e-12 * least.abs())
        more = (losses > least) & ~tied
        part_of = torch.where(
            more, 1.0, torch.where(tied, (k - more.sum()).double() / tied.sum(), 0.0)
        )
        spread = torch.zeros(here.shape, dtype=torch.float64)
        spread[here] = part_of.double()
        share[part] = spread
    if a.sample_weight is not None:
        share = torch.where(share != 0, share * a.sample_weight, 0.0)
    each = SimpleNamespace(**vars(a) | dict(weight=a.class_weight, sample_weight=share))
    if callable(a.reduction):
        each.reduction = lambda total, count, term: a.reduction(
            total, count, term="top_k_cross_entropy"
        )
    return cross_entropy(each)


def _kept(a: Any, ignored: float | None) -> tuple[Tensor, Tensor]:
    """What counts, and the weights of those."""
    weight = getattr(a, "weight", None)
    w = torch.ones(a.target.shape, dtype=torch.float64) if weight is None else weight.double()
    keep = w != 0
    if ignored is not None:
        keep = keep & (a.target != ignored)
    return keep, w[keep]


def _per_class(vector: Any, a: Any, keep: Tensor) -> Any:
    """A number, or one per class along ``class_dim``, at each element that counts."""
    if not isinstance(vector, Tensor) or vector.ndim == 0:
        return vector
    axis = (a.logits.ndim - 1 if a.class_dim is None else a.class_dim) % a.logits.ndim
    shape = [-1 if i == axis else 1 for i in range(a.logits.ndim)]
    return vector.reshape(shape).expand(a.logits.shape)[keep]


def binary_cross_entropy(a: Any) -> Tensor:
    """Smoothing as in Szegedy et al. 2016 for two classes: t (1 - e) + e / 2."""
    keep, w = _kept(a, a.ignore_index)
    x, t = a.logits[keep], a.target[keep].double()
    factor = 1.0 if a.pos_weight is None else _per_class(a.pos_weight, a, keep)
    e = a.label_smoothing
    t = t * (1 - e) + e / 2
    x = torch.where((t == 1) & (x == torch.inf) | (t == 0) & (x == -torch.inf), x.sign() * 1e5, x)
    values = w * (factor * t * softplus(-x) + (1 - t) * softplus(x))
    return reduced(scattered(values, keep), w.sum(), a.reduction, "binary_cross_entropy")


def asymmetric_loss(a: Any) -> Tensor:
    """Ridnik et al. 2021 (arXiv:2009.14119), section 2; p - m by the smaller of p and 1 - p."""
    keep, w = _kept(a, a.ignore_index)
    x, t = a.logits[keep], a.target[keep].double()
    over = torch.where(x > 0, 1 - a.margin - torch.sigmoid(-x), torch.sigmoid(x) - a.margin)
    over = over.clamp(min=0)
    none = over == 0
    some = torch.where(none, 0.5, over)
    price = softplus(x) if a.margin == 0 else -torch.log1p(-some)
    no = torch.where(none, 0.0, some**a.gamma_negative * price)
    yes = power(-softplus(x), a.gamma_positive) * softplus(-x)
    values = w * (t * yes + (1 - t) * no)
    return reduced(scattered(values, keep), w.sum(), a.reduction, "asymmetric")


def coral_loss(a: Any) -> Tensor:
    """Cao et al. 2020 (arXiv:1901.07884), eq. 4."""
    return _levels(a, nested=False, term="coral")


def corn_loss(a: Any) -> Tensor:
    """Shi et al. 2021 (arXiv:2111.08851): of a level, the rows that have passed those before."""
    return _levels(a, nested=True, term="corn")


def _levels(a: Any, *, nested: bool, term: str) -> Tensor:
    keep, w = _kept(a, a.ignore_index)
    rows, _ = class_rows(a.logits, a.target, a.class_dim)
    rows, y = rows[keep.reshape(-1)], a.target[keep].long()
    factor = torch.ones(rows.shape[1]) if a.level_weight is None else a.level_weight
    values, asked = torch.zeros_like(w), torch.zeros_like(w)
    for k in range(rows.shape[1]):
        here = y >= k if nested else torch.ones_like(y, dtype=torch.bool)
        x = torch.where(here, rows[:, k], 0.0)
        cost = factor[k] * torch.where(y > k, softplus(-x), softplus(x))
        values, asked = values + torch.where(here, cost, 0.0), asked + here
    count = (w * asked).sum() if nested else w.sum()
    return reduced(scattered(w * values, keep), count, a.reduction, term)


def _chance(a: Any, value: Any, term: str) -> Tensor:
    """A loss of nll and of 1 - p, by the log-odds against the right class."""
    keep, w = _kept(a, a.ignore_index)
    rows, _ = class_rows(a.logits, a.target, a.class_dim)
    wrong = against(rows[keep.reshape(-1)], a.target[keep].long())
    values = w * value(softplus(wrong), torch.sigmoid(wrong))
    return reduced(scattered(values, keep), w.sum(), a.reduction, term)


def poly1_loss(a: Any) -> Tensor:
    """Leng et al. 2022 (arXiv:2204.12511)."""
    e = a.epsilon

    def value(nll: Tensor, miss: Tensor) -> Tensor:
        few = miss.clamp(max=0.1)
        tail = sum(few**k / k for k in range(2, 24))  # of the logarithm, where it nearly cancels
        tail = torch.where(miss < 0.1, tail, nll - miss)
        return (1 + e) * nll - e * tail if e < 0 else nll + e * miss

    return _chance(a, value, "poly1")


def generalized_cross_entropy_loss(a: Any) -> Tensor:
    """Zhang and Sabuncu 2018 (arXiv:1805.07836)."""
    term = "generalized_cross_entropy"

    def value(nll: Tensor, miss: Tensor) -> Tensor:
        again = (1 - torch.exp(-a.q * nll)) / a.q  # whose slope has all digits, and expm1 the value
        return again + (-torch.expm1(-a.q * nll) / a.q - again).detach()

    return _chance(a, value, term)


def symmetric_cross_entropy_loss(a: Any) -> Tensor:
    """Wang et al. 2019 (arXiv:1908.06112)."""
    term = "symmetric_cross_entropy"
    return _chance(a, lambda nll, miss: a.alpha * nll - a.beta * a.log_zero * miss, term)


def focal_loss(a: Any) -> Tensor:
    """Lin et al. 2017 (arXiv:1708.02002), eq. 5: -alpha (1 - p)**gamma log p."""
    alike = a.target.shape == a.logits.shape
    kind = getattr(a, "kind", "auto")  # what calls it for boxes has none
    sigmoid = kind == "sigmoid" or (kind == "auto" and alike)
    if a.alpha == "auto":
        a = SimpleNamespace(**{**vars(a), "alpha": 0.25 if sigmoid else None})
    if a.ignore_index == "auto":
        a = SimpleNamespace(**{**vars(a), "ignore_index": None if alike else -100})
    if not sigmoid and (alike or a.label_smoothing):
        return _focal_of_shares(a)
    if sigmoid:
        keep, w = _kept(a, a.ignore_index)
        x, t = a.logits[keep], a.target[keep].double()
        wrong = (1 - 2 * t) * x
        alpha = _per_class(a.alpha, a, keep)
        share = 1.0 if alpha is None else t * alpha + (1 - t) * (1 - alpha)
        positives = (w * t).sum()
    else:
        keep, w = _kept(a, a.ignore_index)
        rows, _ = class_rows(a.logits, a.target, a.class_dim)
        y = a.target[keep].long()
        wrong = against(rows[keep.reshape(-1)], y)
        alpha = a.alpha
        share = 1.0 if alpha is None else alpha[y] if getattr(alpha, "ndim", 0) else alpha
    nll, log_miss = softplus(wrong), -softplus(-wrong)
    values = w * share * power(log_miss, a.gamma) * nll
    count = w.sum()
    if a.normalize == "positives":
        count = positives.clamp(min=1) if a.reduction == "mean" else positives
    return reduced(scattered(values, keep), count, a.reduction, "focal")


def _focal_of_shares(a: Any) -> Tensor:
    """The same of each class, by its share; smoothing goes to classes that are not masked."""
    soft = a.target.is_floating_point()
    rows, axis = class_rows(a.logits, a.target, a.class_dim)
    shape = (*a.logits.shape[:axis], *a.logits.shape[axis + 1 :])
    weight = torch.ones(shape, dtype=torch.float64) if a.weight is None else a.weight.double()
    keep = weight != 0
    if soft:
        t = a.target.movedim(axis, -1).reshape(-1, rows.shape[1])[keep.reshape(-1)].double()
    else:
        keep = keep & (a.target != a.ignore_index) if a.ignore_index is not None else keep
        t = torch.nn.functional.one_hot(a.target[keep].long(), rows.shape[1]).double()
    x, w, mass = rows[keep.reshape(-1)], weight[keep], t.sum(1)
    masked = x == -torch.inf
    spread = a.label_smoothing * (~masked).double() / (~masked).sum(1, keepdim=True).clamp(min=1)
    goal = (1 - a.label_smoothing) * t + spread
    values = torch.zeros_like(w)
    for c in range(x.shape[1]):
        at = torch.full((len(x),), c)
        none = (goal[:, c] == 0) & masked[:, c]
        wrong = against(torch.where(none.unsqueeze(1), 0.0, x), at)
        cost = power(-softplus(-wrong), a.gamma) * softplus(wrong)
        factor = 1.0 if a.alpha is None else a.alpha[c] if getattr(a.alpha, "ndim", 0) else a.alpha
        values = values + factor * torch.where(none, 0.0, goal[:, c] * cost)
    return reduced(
        scattered(w * values, keep.reshape(shape)), (w * mass).sum(), a.reduction, "focal"
    )


def _quality_count(a: Any, q: Tensor, positive: Tensor, w: Tensor) -> Tensor:
    if a.normalize == "elements":
        return w.sum()
    count = (w * (q if a.normalize == "quality" else positive)).sum()
    return count.clamp(min=1) if a.reduction == "mean" else count


def varifocal_loss(a: Any) -> Tensor:
    """Zhang et al. 2021 (arXiv:2008.13367), eq. 2."""
    keep, w = _kept(a, None)
    x, q = a.logits[keep], a.target[keep].double()
    positive = q > 0 if a.positive is None else a.positive[keep]
    fade = a.alpha * power(-softplus(-x), a.gamma)
    fade = fade.detach() if a.detach_factor else fade
    values = w * torch.where(positive, q, fade) * logistic(x, q)
    count = _quality_count(a, q, positive.double(), w)
    return reduced(scattered(values, keep), count, a.reduction, "varifocal")


def mal_loss(a: Any) -> Tensor:
    """Huang et al. 2024 (arXiv:2412.04234): positives ask for q**gamma, and weigh 1."""
    asked = lambda log_p, log_q: a.gamma * log_q  # noqa: E731
    return _aligned(a, "mal", asked, 0.0, a.alpha, a.detach_factor)


def ia_bce_loss(a: Any) -> Tensor:
    """Cai et al. 2023 (arXiv:2304.07527): positives ask for p**alpha q**(1 - alpha)."""
    asked = lambda log_p, log_q: a.alpha * log_p.detach() + (1 - a.alpha) * log_q  # noqa: E731
    return _aligned(a, "ia_bce", asked, a.floor, 1.0, False)


def _aligned(a: Any, term: str, asked: Any, floor: float, alpha: float, held: bool) -> Tensor:
    keep, w = _kept(a, None)
    x, q = a.logits[keep], a.target[keep].double()
    positive = q > 0 if a.positive is None else a.positive[keep]
    log_p = -softplus(-x)
    fade = alpha * power(log_p, a.gamma)
    fade = fade.detach() if held else fade
    log_t = asked(log_p, torch.where(q > 0, torch.where(q > 0, q, 1.0).log(), -1e30))
    t = torch.where(positive, log_t.exp().clamp(min=floor), 0.0)
    missing = torch.where(positive, (-torch.expm1(log_t)).clamp(max=1 - floor), 1.0)
    values = w * torch.where(positive, 1.0, fade) * logistic(x, t, missing)
    count = _quality_count(a, q, positive.double(), w)
    return reduced(scattered(values, keep), count, a.reduction, term)


def quality_focal_loss(a: Any) -> Tensor:
    """Li et al. 2020 (arXiv:2006.04388), eq. 3: |q - p|**beta times the cross-entropy."""
    keep, w = _kept(a, None)
    x, q = a.logits[keep], a.target[keep].double()
    off = (1 - q) * chance(x) - q * chance(-x)  # p - q, exact at q of 0 and 1
    some = off != 0  # a power has no slope at 0
    size = torch.where(some, off, 1.0).abs()
    fade = torch.where(some, size**a.beta, 1.0 if a.beta == 0 else 0.0)
    values = w * fade * logistic(x, q)
    count = _quality_count(a, q, (q > 0).double(), w)
    return reduced(scattered(values, keep), count, a.reduction, "quality_focal")


def distribution_focal_loss(a: Any) -> Tensor:
    """Li et al. 2020 (arXiv:2006.04388), eq. 6."""
    keep, w = _kept(a, None)
    x, y = a.logits[keep], a.target[keep].double()
    if a.values is not None:
        y = (y - a.values[0]) / (a.values[1] - a.values[0])
    if a.out_of_range == "clamp":
        y = y.clamp(0, x.shape[1] - 1)
    low, high = y.detach().floor().long(), y.detach().ceil().long()
    share = y - low
    values = w * ((1 - share) * softplus(against(x, low)) + share * softplus(against(x, high)))
    count = w.sum()
    if a.normalize == "positives":
        count = (w > 0).sum()
        count = count.clamp(min=1) if a.reduction == "mean" else count
    return reduced(scattered(values, keep), count, a.reduction, "dfl")


def expected_value(a: Any) -> Tensor:
    """Li et al. 2020 (arXiv:2006.04388), eq. 5."""
    bins = torch.arange(a.logits.shape[-1], dtype=torch.float64)
    bins = bins if a.values is None else a.values.double()
    likeliest = bins[a.logits.argmax(-1)]  # seen from where, a distance of 0 costs no digits
    return likeliest + (a.logits.softmax(-1) * (bins - likeliest[..., None])).sum(-1)
