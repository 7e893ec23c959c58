"""Sources in no particular order: any loss of two signals, under the best assignment.

    PIT   min over permutations P of the mean over i of loss(e_i, s_P(i))

Axes: estimates e and targets s ``(N, K, ..., T)``, one value for each N.
From: Yu et al. 2017, arXiv:1607.00325, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations
from typing import Any

import torch
from torch import Tensor, nn

from aptt.core.checks import Numbers, as_tensor, check_floating
from aptt.core.module import LossModule, reduced
from aptt.core.reduction import Reduction, check_reduction, normalize
from aptt.core.shapes import check_shapes
from aptt.loss.snr.si_sdr import si_sdr_loss

__all__ = ["PermutationInvariantLoss", "best_permutation", "permutation_invariant_loss"]


def permutation_invariant_loss(
    estimate: Tensor,
    target: Tensor,
    *,
    lengths: Numbers | None = None,
    loss: Callable[..., Tensor] = si_sdr_loss,
    reduction: Reduction = "mean",
) -> Tensor:
    """A loss between sources in no particular order: that of the best assignment.

        min over permutations P of the mean over i of loss(e_i, s_P(i))

    Args:
        estimate: ``(N, K, ..., T)``, K sources, at most 4; any floating dtype.
        target: the same shape.
        lengths: ``(N,)``, handed to ``loss``, how many of the T samples are signal; 0 removes.
        loss: a function of two sources ``(N, ..., T)`` with ``reduction="none"``, such as
            ``snr_loss`` or ``functools.partial(mel_loss, sample_rate=16000)``, that gives one value
            for each of N, or several, whose mean counts; or a module such as ``SNRLoss()``, of
            which the options are taken, but for its reduction.
        reduction: over the N: ``"mean"``, ``"sum"``, ``"none"``, or a callable
            ``(total, count, *, term)``.

    Returns:
        The loss of the best assignment: a scalar, or with ``"none"`` one value for each of N.

    Raises:
        ValueError: shapes that differ, more than 4 sources, an unknown option, a ``loss`` that
            gives other than one value or several for each of N.
        TypeError: a ``loss`` that cannot be called, or a module without a ``reduction``.

    The gradient goes to ``estimate``, and to targets that ask for it, through the best assignment
    alone. :func:`aptt.loss.snr.best_permutation` tells which one it is.

    Use when:
        A model separates sources of one kind, say speakers, and no output belongs to one of them.

    Elsewhere:
        asteroid ``PITLossWrapper``, torchmetrics ``permutation_invariant_training`` (higher is
        better there).

    Differs from:
        Both: exact for 4 sources and no more, without a detour over scipy.

    Example:
        >>> import torch
        >>> target = torch.tensor([[[1.0, -2.0, 3.0, 0.0], [2.0, 1.0, 0.0, 1.0]]])
        >>> round(permutation_invariant_loss(target.flip(1) + 0.1, target).item(), 2)
        -26.49
    """
    _check_sources(estimate, target, loss, reduction)
    lengths = None if lengths is None else as_tensor("lengths", lengths, estimate)
    order = best_permutation(estimate, target, lengths=lengths, loss=loss)
    matched = target.gather(1, order.view(order.shape + (1,) * (target.ndim - 2)).expand_as(target))
    sample = _by_sample(loss, lengths)
    each = [sample(e, s) for e, s in zip(estimate.unbind(1), matched.unbind(1), strict=True)]
    value = torch.stack(each, 1).mean(1)
    if reduction == "none":
        return value
    some = torch.ones_like(value) if lengths is None else lengths > 0
    return normalize(value.sum(), some.sum(), reduction, term="permutation_invariant")


def best_permutation(
    estimate: Tensor,
    target: Tensor,
    *,
    lengths: Numbers | None = None,
    loss: Callable[..., Tensor] = si_sdr_loss,
) -> Tensor:
    """Which target belongs to each estimate: ``(N, K)``, ``target[n, order[n, i]]`` to source i.

    The assignment that :func:`permutation_invariant_loss` takes, with its arguments; no gradient.

    The ``best_perm`` of torchmetrics, and the indices that asteroid reorders estimates by, say
    which estimate belongs to each target. That is the inverse: ``order.argsort(1)``.

    Example:
        >>> import torch
        >>> target = torch.eye(3).unsqueeze(0)
        >>> order = best_permutation(target[:, [2, 0, 1]], target)
        >>> order, order.argsort(1)
        (tensor([[2, 0, 1]]), tensor([[1, 2, 0]]))
    """
    _check_sources(estimate, target, loss, "mean")
    lengths = None if lengths is None else as_tensor("lengths", lengths, estimate)
    sample, sources = _by_sample(loss, lengths), range(estimate.shape[1])
    with torch.no_grad():
        pairs = [[sample(estimate[:, i], target[:, k]) for k in sources] for i in sources]
        ways = list(permutations(sources))
        costs = [torch.stack([pairs[i][k] for i, k in enumerate(way)]).sum(0) for way in ways]
        best = torch.stack(costs, 1).argmin(1)
        return _way(best, len(sources))


def _way(number: Tensor, k: int) -> Tensor:
    """The permutations of ``k`` with these numbers, in lexicographic order: ``(N, k)``.

    By the digits of the number in the factorial base; a table would be brought to the device.
    """
    order: list[Tensor] = []
    for i in range(k):
        digit = (number // math.factorial(i)) % (i + 1)
        order = [digit, *(each + (each >= digit) for each in order)]
    return torch.stack(order, 1)


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


_MOST_SOURCES = 4


def _check_sources(
    estimate: Tensor, target: Tensor, loss: Callable[..., Tensor], reduction: Reduction
) -> None:
    check_reduction(reduction)
    _check_loss(loss)
    check_floating(estimate=estimate)
    check_shapes(estimate=(estimate, "N K *S"), target=(target, "N K *S"))
    if estimate.ndim < 3 or not 1 <= estimate.shape[1] <= _MOST_SOURCES:
        raise ValueError(
            f"estimate: got {tuple(estimate.shape)}, wanted (N, K, ..., T) with 1 to "
            f"{_MOST_SOURCES} sources K"
        )


def _check_loss(loss: object) -> None:
    if isinstance(loss, type) or not callable(loss):
        raise TypeError(f"loss: got {loss!r}, wanted a function such as snr_loss, or SNRLoss()")


class PermutationInvariantLoss(LossModule):
    """Module form of :func:`permutation_invariant_loss`; same options, same defaults."""

    def __init__(
        self, loss: Callable[..., Tensor] = si_sdr_loss, reduction: Reduction = "mean"
    ) -> None:
        check_reduction(reduction)
        _check_loss(loss)
        if isinstance(loss, nn.Module):
            loss = reduced("loss", loss, "none")
        super().__init__(loss=loss, reduction=reduction)

    def forward(
        self, estimate: Tensor, target: Tensor, *, lengths: Numbers | None = None
    ) -> Tensor:
        """The loss of ``estimate`` against ``target``."""
        return permutation_invariant_loss(estimate, target, lengths=lengths, **self.options())
