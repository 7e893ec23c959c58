"""Losses of language models: distillation, linear heads, several tokens, old tasks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from tests.fuzz.oracles.classes import (
    class_rows,
    cross_entropy,
    cross_entropy_terms,
    row_entropy,
)
from tests.fuzz.oracles.common import costs, heard, reduced, scattered

__all__ = [
    "distillation_loss",
    "distillation_terms",
    "kl",
    "linear_cross_entropy",
    "linear_cross_entropy_terms",
    "linear_distillation_loss",
    "linear_distillation_terms",
    "linear_multi_token_loss",
    "linear_multi_token_terms",
    "linear_token_stats",
    "lwf_loss",
    "lwf_terms",
    "multi_token_loss",
    "multi_token_terms",
    "token_stats",
]


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """sum p (log p - log q) of rows, and as the sum of p - q is 0, sum p (d + exp(-d) - 1)."""
    some = log_p > -torch.inf
    p = torch.where(some, log_p, 0.0).exp() * some
    d = torch.where(some, log_p, 0.0) - torch.where(some, log_q, 0.0)
    lost = torch.where(some, 0.0, torch.where(log_q > -torch.inf, log_q, -torch.inf).exp())
    return (p * (d + torch.expm1(-d))).sum(1) + lost.sum(1)


def _divergence(a: Any, log_p: Tensor, log_q: Tensor) -> Tensor:
    """Of teacher p and student q; the mixture of Agarwal et al. 2024 (arXiv:2306.13649), eq. 1."""
    if a.divergence == "forward_kl":
        return kl(log_p, log_q)
    if a.divergence == "reverse_kl":
        return kl(log_q, log_p)
    weights = torch.tensor([a.beta, 1 - a.beta], dtype=torch.float64).log()
    masked = (log_p == -torch.inf) & (log_q == -torch.inf)
    both = torch.stack((log_p + weights[0], log_q + weights[1])).masked_fill(masked, 0.0)
    mixed = both.logsumexp(0).masked_fill(masked, -torch.inf)
    return a.beta * kl(log_p, mixed) + (1 - a.beta) * kl(log_q, mixed)


def _rows(a: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, tuple[int, ...]]:
    """Student, weights and targets of the rows that count; which they are, and the shape."""
    shares = a.hard_targets is not None and a.hard_targets.is_floating_point()
    if a.hard_targets is None or shares:
        axis = (-1 if a.class_dim is None else a.class_dim) % a.student_logits.ndim
        like = a.student_logits.sum(axis)
    else:
        like, axis = a.hard_targets, a.class_dim
    x, axis = class_rows(a.student_logits, like, axis)
    s = torch.ones(len(x)).double() if a.sample_weight is None else a.sample_weight.reshape(-1)
    keep = s != 0
    if a.hard_targets is not None and not shares:
        keep = keep & heard(a.hard_targets.reshape(-1), a.ignore_index)
    return x, s, keep, axis, tuple(like.shape)


def _standard(z: Tensor) -> Tensor:
    """Sun et al. 2024 (arXiv:2403.01427): less the mean, over the standard deviation, of a row."""
    open = z > -torch.inf
    n = open.sum(1, keepdim=True)
    d = torch.where(open, z, 0.0)
    d = torch.where(open, d - d.sum(1, keepdim=True) / n, 0.0)
    level = torch.where(open, z, 0.0).abs().amax(1, keepdim=True)
    flat = d.abs().amax(1, keepdim=True) <= 1e-15 * level
    spread = torch.where(flat, 1.0, d.square().sum(1, keepdim=True) / n).sqrt()
    return torch.where(open, torch.where(flat, 0.0, d / spread), -torch.inf)


def distillation_terms(a: Any) -> dict[str, Tensor]:
    """Hinton et al. 2015 (arXiv:1503.02531), section 2: T**2 times the soft term, and the hard."""
    x, s, keep, axis, shape = _rows(a)
    t = a.teacher_logits.movedim(axis, -1).reshape(-1, a.teacher_logits.shape[axis])[keep]
    z = x[keep]
    if a.standardize:
        z, t = _standard(z), _standard(t)
    count, log_q = s[keep].sum(), -costs(z / a.temperature)
    if a.teacher_indices is None:
        log_p = -costs(t / a.temperature)
    else:  # what is not listed is one more class, of either
        at = a.teacher_indices.movedim(axis, -1).reshape(-1, t.shape[1])[keep].long()
        log_p, mine = t, log_q.gather(1, at)
        if t.shape[1] < x.shape[1]:
            rest = log_q.scatter(1, at, -torch.inf).logsumexp(1, keepdim=True)
            left = torch.log1p(-t.exp().sum(1, keepdim=True))
            log_p, mine = torch.cat((log_p, left), 1), torch.cat((mine, rest), 1)
        else:  # all of them: a distribution, up to its rounding
            log_p = log_p.log_softmax(1)
        log_q = mine
    values = a.temperature**2 * _divergence(a, log_p, log_q)
    where = keep.reshape(shape)
    terms = {"soft": reduced(scattered(s[keep] * values, where), count, a.reduction, "soft")}
    if a.hard_targets is not None:
        of_student = SimpleNamespace(
            logits=a.student_logits,
            target=a.hard_targets,
            weight=a.class_weight,
            label_smoothing=a.label_smoothing,
            softcap=None,
            logit_adjustment=None,
            z_loss=0.0,
        )
        terms["hard"] = cross_entropy(SimpleNamespace(**vars(a) | vars(of_student)))
    return terms


def distillation_loss(a: Any) -> Tensor:
    soft = a.alpha if a.soft_weight is None else a.soft_weight
    hard = 1 - a.alpha if a.hard_weight is None else a.hard_weight
    terms = distillation_terms(a)
    return soft * terms["soft"] + (hard * terms["hard"] if hard else 0.0)


def _logits(hidden: Tensor, weight: Any, bias: Tensor | None, scale: float = 1.0) -> Tensor:
    logits = hidden @ weight.T
    return scale * (logits if bias is None else logits + bias)


def linear_cross_entropy(a: Any) -> Tensor:
    """The cross-entropy of all the logits at once."""
    return cross_entropy(_of_logits(a, z_loss=a.z_loss))


def linear_cross_entropy_terms(a: Any) -> dict[str, Tensor]:
    """Its terms."""
    return cross_entropy_terms(_of_logits(a))


def _of_logits(a: Any, **more: Any) -> SimpleNamespace:
    return SimpleNamespace(
        logits=_logits(_clean(a, a.hidden), a.weight, a.bias, a.scale),
        target=a.target,
        weight=a.class_weight,
        sample_weight=a.sample_weight,
        ignore_index=a.ignore_index,
        label_smoothing=a.label_smoothing,
        softcap=a.softcap,
        logit_adjustment=a.logit_adjustment,
        class_dim=-1,
        reduction=a.reduction,
        **more,
    )


def _clean(a: Any, hidden: Tensor) -> Tensor:
    """Hidden states with 0 for the tokens that do not count."""
    target = getattr(a, "target", getattr(a, "hard_targets", None))
    keep = torch.ones(hidden.shape[:-1], dtype=torch.bool)
    if target is not None and not target.is_floating_point():
        keep = heard(target, a.ignore_index)
    if getattr(a, "sample_weight", None) is not None:
        keep = keep & (a.sample_weight != 0)
    return torch.where(keep[..., None], hidden, 0.0)


def linear_token_stats(a: Any) -> dict[str, Tensor]:
    return _statistics(_logits(_clean(a, a.hidden), a.weight, a.bias, a.scale), a)


def token_stats(a: Any) -> dict[str, Tensor]:
    keep = heard(a.target, a.ignore_index)[..., None]
    return _statistics(a.scale * torch.where(keep, a.logits, 0.0), a)


def _statistics(z: Tensor, a: Any) -> dict[str, Tensor]:
    if a.softcap is not None:  # which does not open a masked class
        z = torch.where(z == -torch.inf, z, a.softcap * torch.tanh(z / a.softcap))
    keep = heard(a.target, a.ignore_index)
    rows, y = z[keep], a.target[keep].long()
    nll = costs(rows)
    others = rows.scatter(1, y[:, None], -torch.inf)
    values = {
        "log_prob": -nll.gather(1, y[:, None])[:, 0],
        "lse": rows.logsumexp(1),
        "entropy": (torch.exp(-nll) * torch.where(nll < torch.inf, nll, 0.0)).sum(1),
        "margin": rows.gather(1, y[:, None])[:, 0]
        - rows.gather(1, others.argmax(1, keepdim=True))[:, 0],
    }
    return {name: scattered(value, keep) for name, value in values.items()}


def linear_distillation_loss(a: Any) -> Tensor:
    """The distillation of all the logits at once."""
    return distillation_loss(_with_logits(a))


def linear_distillation_terms(a: Any) -> dict[str, Tensor]:
    return distillation_terms(_with_logits(a))


def _with_logits(a: Any) -> SimpleNamespace:
    student = _capped(_logits(_clean(a, a.hidden), a.weight, a.bias, a.scale), a.softcap)
    if a.teacher_logits is None:
        taught = _clean(a, a.teacher_hidden)
        teacher = _logits(taught, a.teacher_weight, a.teacher_bias, a.teacher_scale)
        indices = None
    else:
        teacher, indices = _clean(a, a.teacher_logits), a.teacher_indices
    made = {
        "student_logits": student,
        "teacher_logits": _capped(teacher, a.teacher_softcap),
        "teacher_indices": indices,
        "class_dim": -1,
    }
    return SimpleNamespace(**{**vars(a), **made})


def _capped(z: Tensor, softcap: float | None) -> Tensor:
    return z if softcap is None else softcap * torch.tanh(z / softcap)


def multi_token_terms(a: Any) -> dict[str, Tensor]:
    """DeepSeek-V3 (arXiv:2412.19437), eq. 24 and 25.

    Position i of depth k predicts the token at i + k + 1, which aligned labels hold at i + k.
    """
    length = a.target.shape[-1]
    w = a.class_weight
    totals, counts = [], []
    for k, head in enumerate(a.logits_list):
        shift = k + (a.labels == "raw")
        total, count = head.sum() * 0, torch.zeros(()).double()
        for i in range(min(head.shape[-2], length - shift)):
            y = a.target[..., i + shift]
            keep = heard(y, a.ignore_index)
            if a.document_ids is not None:  # past the end it counts as that of the last position
                ahead = min(i + k + 1, length - 1)
                keep = keep & (a.document_ids[..., ahead] == a.document_ids[..., i])
            s = torch.ones(y.shape).double()
            if a.sample_weight is not None:
                s = a.sample_weight[..., i + shift]
                keep = keep & (s != 0)
            y, s = y[keep].long(), s[keep]
            values = row_entropy(
                head[..., i, :][keep],
                y,
                weight=w,
                smoothing=a.label_smoothing,
                z_loss=a.z_loss,
                softcap=a.softcap,
                adjustment=None,
            )
            total = total + (s * values).sum()
            count = count + (s if w is None else s * w[y]).sum()
        totals.append(total)
        counts.append(count)
    names = ["main"] + [f"depth_{k}" for k in range(1, len(totals))]
    over = [counts[0]] * len(totals) if a.normalize == "tokens" else counts
    return {
        name: reduced(total, count, a.reduction, name)
        for name, total, count in zip(names, totals, over, strict=True)
    }


def multi_token_loss(a: Any) -> Tensor:
    return _with_lambda(a, multi_token_terms(a))


def _with_lambda(a: Any, terms: dict[str, Tensor]) -> Tensor:
    main, *depths = terms.values()
    factor = a.mtp_lambda(a.step) if callable(a.mtp_lambda) else a.mtp_lambda
    return main + (factor / len(depths) * sum(depths) if depths else 0.0)


def linear_multi_token_terms(a: Any) -> dict[str, Tensor]:
    heads = [_logits(h, a.weight, a.bias, a.scale) for h in a.hidden_list]
    return multi_token_terms(SimpleNamespace(**{**vars(a), "logits_list": heads}))


def linear_multi_token_loss(a: Any) -> Tensor:
    return _with_lambda(a, linear_multi_token_terms(a))


def lwf_terms(a: Any) -> dict[str, Tensor]:
    """Li and Hoiem 2016 (arXiv:1606.09282), eq. 1 to 3; of several tasks the first for each."""
    one = isinstance(a.new_logits, Tensor)
    if one:
        heads = {"new": (a.new_logits, a.target)}
    elif isinstance(a.target, dict):
        heads = {f"new_{name}": (a.new_logits[name], y) for name, y in a.target.items()}
    else:
        (task,) = [a.task] if a.task else [n for n in a.new_logits if n not in a.old_logits]
        heads = {"new": (a.new_logits[task], a.target)}
    terms, counted, axis = {}, None, a.class_dim
    for term, (head, target) in heads.items():
        x, axis = class_rows(head, target, axis)
        y = target.reshape(-1)
        s = torch.ones(len(x)).double() if a.sample_weight is None else a.sample_weight.reshape(-1)
        keep = heard(y, a.ignore_index) & (s != 0)
        counted = keep if counted is None else keep | counted
        form = dict(weight=None, smoothing=0.0, z_loss=0.0, softcap=None, adjustment=None)
        values = scattered(
            s[keep] * row_entropy(x[keep], y[keep].long(), **form), keep.reshape(target.shape)
        )
        terms[term] = reduced(values, s[keep].sum(), a.reduction, term)
    where, count = counted.reshape(target.shape), s[counted].sum()
    for name, old in {"old": a.old_logits}.items() if one else a.old_logits.items():
        new = a.new_logits if one else a.new_logits[name]
        new, old = (v.movedim(axis, -1).flatten(0, -2)[counted] for v in (new, old))
        classes = range(old.shape[1]) if a.old_classes is None else a.old_classes
        now = costs(new[:, list(classes)] / a.temperature)
        values = ((old / a.temperature).softmax(1) * now).sum(1)
        term = "old" if one else f"old_{name}"
        terms[term] = reduced(scattered(s[counted] * values, where), count, a.reduction, term)
    return terms


def lwf_loss(a: Any) -> Tensor:
    terms = lwf_terms(a)
    new = sum(term for name, term in terms.items() if name.startswith("new"))
    old = sum(term for name, term in terms.items() if name.startswith("old"))
    return new + a.lambda_old * old
