"""A loss of all pairs of sources, the best assignment, and the values of its pairs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from aptt.core.assignment import assigned as assigned_on_host
from aptt.core.module import reduced
from aptt.core.precision import to_widest
from aptt.core.subsets import MOST, assigned
from aptt.loss.snr.sd_sdr import SDSDRLoss, sd_sdr_loss
from aptt.loss.snr.si_sdr import SISDRLoss, SISNRLoss, si_sdr_loss, si_snr_loss
from aptt.loss.snr.snr import SNRLoss, snr_loss

__all__ = ["Sources", "best_order", "check_loss", "value_by_source"]

_OF_SIGNALS = (snr_loss, si_sdr_loss, si_snr_loss, sd_sdr_loss)
_MODULES = (SNRLoss, SISDRLoss, SISNRLoss, SDSDRLoss)


_FEW = 2**20  # numbers of all pairs, beyond which each estimate is compared by itself


class Sources(NamedTuple):
    """Estimates, and as many targets."""

    estimate: Tensor
    target: Tensor
    lengths: Tensor | None
    """Of each sample, or of each target."""
    there: Tensor | None
    """Which targets there are; None: all."""
    counts: Tensor | None
    """Which have a part in the loss, silence too where it is wanted; None: all."""

    def of_target(self, k: int) -> Tensor | None:
        """The lengths of one target."""
        of_each = self.lengths is not None and self.lengths.ndim == 2
        return self.lengths[:, k] if of_each and self.lengths is not None else self.lengths


def check_loss(loss: object) -> None:
    """Refuse what is no loss of two signals."""
    if isinstance(loss, type) or not callable(loss):
        raise TypeError(f"loss: got {loss!r}, wanted a function such as snr_loss, or SNRLoss()")


def best_order(sources: Sources, loss: Callable[..., Tensor]) -> tuple[Tensor, Tensor]:
    """``(N, E)``, the target of each estimate; and which samples have a pair that is no number."""
    with torch.no_grad():
        cost = _costs(sources, loss)  # (N, target, estimate)
        if sources.counts is not None:
            cost = cost.masked_fill(~sources.counts.unsqueeze(2), 0.0)
        if cost.shape[1] <= MOST:
            order = assigned(cost).argsort(1)
        else:
            packed = cost.mT.unsqueeze(1)
            how: dict[str, Any] = {"drop": False, "validate": False, "groups": 1}
            order = assigned_on_host(packed, None, names=("estimate", "target"), **how).squeeze(1)
        return order, cost.isnan().any(2).any(1)


def _costs(sources: Sources, loss: Callable[..., Tensor]) -> Tensor:
    e, s = sources.estimate, sources.target
    size = e.shape[1]
    if _own(loss):  # in double precision
        e, s = to_widest(e), to_widest(s)
        n, lengths = len(e), sources.lengths
        if e.numel() * size <= _FEW:  # all pairs at once
            pairs = (n, size, *e.shape[1:])
            of_each = None if lengths is None else _each_length(lengths, n, size)
            value = _folded(
                loss,
                e.unsqueeze(1).expand(pairs).flatten(1, 2),
                s.unsqueeze(2).expand(pairs).flatten(1, 2),
                None if of_each is None else of_each.repeat_interleave(size, 1),
            )
            return value.view(n, size, size)
        each = [_folded(loss, e[:, i : i + 1].expand_as(s), s, lengths) for i in range(size)]
        return torch.stack(each, 2)
    rows = []
    for k in range(size):
        sample = _by_sample(loss, sources.of_target(k))
        rows.append(torch.stack([sample(e[:, i], s[:, k]) for i in range(size)], 1))
    return to_widest(torch.stack(rows, 1))


def value_by_source(sources: Sources, order: Tensor, loss: Callable[..., Tensor]) -> Tensor:
    """``(N, E)``: the loss of each estimate against its target."""
    e, target, lengths = sources.estimate, sources.target, sources.lengths
    at = order.view(order.shape + (1,) * (target.ndim - 2))
    s = target.gather(1, at.expand_as(target))
    if sources.counts is not None:  # what is left over may hold anything, and has no gradient
        e = torch.where(sources.counts.gather(1, order).view(at.shape), e, 0.0)
    if lengths is not None and lengths.ndim == 2:
        lengths = lengths.gather(1, order)
    if _own(loss):
        return _folded(loss, e, s, lengths)
    matched = sources._replace(lengths=lengths)
    each = [_by_sample(loss, matched.of_target(i))(e[:, i], s[:, i]) for i in range(e.shape[1])]
    return torch.stack(each, 1)


def _own(loss: Callable[..., Tensor]) -> bool:
    """Whether it is a loss that takes sources as samples, in any dtype."""
    inner = loss.func if isinstance(loss, partial) else loss
    return inner in _OF_SIGNALS or type(inner) in _MODULES


def _folded(loss: Callable[..., Tensor], e: Tensor, s: Tensor, lengths: Tensor | None) -> Tensor:
    """One value for each source, each of them a sample."""
    n, size = e.shape[:2]
    if lengths is not None:
        lengths = _each_length(lengths, n, size).reshape(-1)
    value = _by_sample(loss, lengths)(*(v.reshape(n * size, *v.shape[2:]) for v in (e, s)))
    return value.view(n, size)


def _each_length(lengths: Tensor, n: int, size: int) -> Tensor:
    return lengths if lengths.ndim == 2 else lengths.unsqueeze(1).expand(n, size)


def _by_sample(
    loss: Callable[..., Tensor], lengths: Tensor | None
) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of two sources as one value a sample, held to that."""
    extra: dict[str, Any] = {} if lengths is None else {"lengths": lengths}
    if isinstance(loss, nn.Module):
        loss = reduced("loss", loss, "none")
    else:
        extra["reduction"] = "none"

    def sample(estimate: Tensor, target: Tensor) -> Tensor:
        value = loss(estimate, target, **extra)
        if not isinstance(value, Tensor) or value.shape[:1] != estimate.shape[:1]:
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
            raise ValueError(
                f"loss: returned {got}, wanted ({len(estimate)},), one value for each sample, as "
                "with reduction='none'"
            )
        return value if value.ndim == 1 else value.flatten(1).mean(1)

    return sample
