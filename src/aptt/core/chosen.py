"""The divergence from a teacher that tells of some classes; the rest is one more, of either model.

    z[k]    = student[chosen[k]] / T        z[rest] = log of the sum of exp(student / T) elsewhere
    log p   = as the teacher has it         log p[rest] = log(1 - sum of p)

and then the divergences of :mod:`aptt.core.divergence` at a temperature of 1. The gradient of the
rest goes to its classes by their share of it, ``exp((student - its largest) / T) / their sum``.
The class axis is axis 1, and is kept.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.divergence import SOFT, Form
from aptt.core.exponential import expm1
from aptt.core.formula import Formula, Kept
from aptt.core.softmax import exp_of_gaps_, largest

__all__ = ["SOFT_CHOSEN"]


def _of_some(soft: Formula) -> Formula:
    """A divergence of few classes, which are made of all of the student's."""

    def stats(x: Tensor, t: Tensor, chosen: Tensor, *, form: Form) -> Kept:
        z, log_p = _few(x, t, chosen, form)
        return soft.measure(z, (log_p,), {"form": form._replace(temperature=1.0)})

    def result(x: Tensor, kept: Kept, t: Tensor, chosen: Tensor, *, form: Form) -> Tensor:
        value: Tensor = soft.result(x, kept, t, form=form._replace(temperature=1.0))
        return value

    def step(
        x: Tensor, up: Tensor | float, kept: Kept, t: Tensor, chosen: Tensor, *, form: Form
    ) -> tuple[None, Tensor]:
        assert soft.step is not None
        (z, log_p), at = _few(x, t, chosen, form), chosen.long()
        few = form._replace(temperature=1.0, soft=form.soft / form.temperature)
        _, dz = soft.step(z, up, kept, log_p, form=few)
        assert isinstance(dz, Tensor)
        k = t.shape[1]
        if k < x.shape[1]:
            _, e, total = _others(x, at, form)
            dx = e.mul_(torch.where(total > 0, dz[:, k:] / total.clamp(min=1.0), 0.0))
        else:
            dx = torch.zeros_like(x)
        return None, dx.scatter(1, at, dz[:, :k])

    return Formula(result, step, stats)


def _few(x: Tensor, t: Tensor, chosen: Tensor, form: Form) -> tuple[Tensor, Tensor]:
    """Logits of the chosen classes and of the rest, and the teacher's logarithms of both.

    The largest is 0, as it nearly is of logarithms: so their differences keep the digits.
    """
    chosen = chosen.long()
    z = x.gather(1, chosen)
    if t.shape[1] == x.shape[1]:
        return (z - largest(z)) / form.temperature, t
    others, _, total = _others(x, chosen, form)
    top = torch.maximum(largest(z), others)
    none = total <= 0  # a NaN stays one
    rest = (others - top) / form.temperature + torch.where(none, 1.0, total).log()
    rest = torch.where(none, -torch.inf, rest)
    most, at = t.max(1, keepdim=True)
    below = t.exp().scatter(1, at, 0.0).sum(1, keepdim=True)
    left = -expm1(most) - below  # one: to its last digit
    return torch.cat(((z - top) / form.temperature, rest), 1), torch.cat((t, _log(left)), 1)


def _others(x: Tensor, chosen: Tensor, form: Form) -> tuple[Tensor, Tensor, Tensor]:
    """Of the other classes: the largest logit, ``exp((x - it) / T)``, and the sum of these."""
    left = x.scatter(1, chosen, -torch.inf)
    top = largest(left)
    e = exp_of_gaps_((left - top) / form.temperature)
    return top, e, e.sum(1, keepdim=True)


def _log(left: Tensor) -> Tensor:
    none = left <= 0
    return torch.where(none, -torch.inf, torch.where(none, 1.0, left).log())


SOFT_CHOSEN = {name: _of_some(soft) for name, soft in SOFT.items()}
"""The formulas of student logits, with sides: the teacher's log-probabilities of some classes, and
which classes these are."""
