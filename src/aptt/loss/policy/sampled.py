"""Sampled tokens, held to each other's shapes; their objective, and what is watched beside it.

Axes: tokens ``(..., T)`` with a sequence a row, or packed ``(N,)`` with ids.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from aptt.core.checks import Numbers, check_floating
from aptt.core.precision import widen
from aptt.core.reduction import Reduction, normalize, reduce
from aptt.loss.policy.averages import Average, Parts, numbers, parts_of
from aptt.loss.policy.powers import excess
from aptt.loss.policy.ratios import CISPO, CLIP, Limits, held_within

__all__ = ["Kind", "Ratio", "Sampled"]

Kind = Literal["clip", "cispo"]
Ratio = Literal["token", "sequence"]


class Sampled:
    """Tokens held to each other's shapes, and their parts in the mean."""

    def __init__(
        self,
        log_prob: Tensor,
        old_log_prob: Numbers,
        advantage: Numbers,
        mask: Numbers | None,
        sequence_ids: Tensor | None,
        importance: Numbers | None,
        average: Average,
        nominal_length: float | None,
    ) -> None:
        check_floating(log_prob=log_prob)
        self.x = log_prob
        self.old = numbers("old_log_prob", old_log_prob, log_prob).detach()
        self.advantage = numbers("advantage", advantage, log_prob, of_rows=True).detach()
        self.factor = None
        if importance is not None:
            self.factor = numbers("importance", importance, log_prob).detach().reshape(-1)
        self.parts = parts_of(log_prob, mask, sequence_ids, average, nominal_length)

    def loss(self, kind: Kind, ratio: Ratio, limits: Limits, reduction: Reduction) -> Tensor:
        """The objective."""
        x, old = self.x, None if ratio == "sequence" else self.old
        if ratio == "sequence":
            x = _mean_log_ratio(x, self.old, self.parts)
        edges: dict[str, Any] = {"cap": limits.cap}
        if kind == "clip":
            edges = limits._asdict()
            del edges["cap"]
        value = reduce(
            CISPO if kind == "cispo" else CLIP,
            x.reshape(-1),
            None if old is None else old.reshape(-1),
            self.advantage.reshape(-1),
            self.factor,
            weight=None if self.parts.weight is None else self.parts.weight.reshape(-1),
            count=lambda: self.parts.counted,
            reduction=reduction,
            term="policy",
            **edges,
        )
        return value.reshape(self.x.shape) if reduction == "none" else value

    def watched(
        self, kind: Kind, ratio: Ratio, limits: Limits, reduction: Reduction
    ) -> dict[str, Tensor]:
        """How many ratios are held, and how far the policy is from the old one."""
        x = widen(self.x.detach())
        each = x - self.old.to(x.dtype)
        if self.parts.keep is not None:
            each = torch.where(self.parts.keep, each, 0.0)
        log_ratio = each
        if ratio == "sequence":
            log_ratio = _mean_log_ratio(x, self.old, self.parts)
        if kind == "cispo":
            held = log_ratio > limits.cap
        else:
            low, high, dual, _ = limits
            advantage = self.advantage.to(x.dtype)
            held = held_within(log_ratio, advantage, low=low, high=high, dual=dual) != log_ratio
        return {
            name: self._averaged(v.to(x.dtype), reduction)
            for name, v in {"clipped": held, "kl_old": excess(each)}.items()
        }

    def _averaged(self, values: Tensor, reduction: Reduction) -> Tensor:
        weight = self.parts.weight
        if weight is not None:
            values = torch.where(weight != 0, values, 0.0) * weight.to(values.dtype)
        if reduction == "none":
            return values
        return normalize(values.sum(), self.parts.counted, reduction, term="policy")


def _mean_log_ratio(x: Tensor, old: Tensor, parts: Parts) -> Tensor:
    """The mean of l over each sequence, at its tokens."""
    assert parts.segments is not None
    assert parts.tokens is not None
    wide = widen(x)
    each = wide - old.to(wide.dtype)
    if parts.keep is not None:
        each = torch.where(parts.keep, each, 0.0)
    total = parts.segments.total(each)
    mean = parts.segments.spread(total / parts.tokens.clamp(min=1).to(total.dtype))
    return mean.expand(x.shape).to(wide.dtype)  # its gradient is summed in the widest float too
