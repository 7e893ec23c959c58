"""Sources in no particular order: any loss of two signals, under the best assignment.

    PIT   min over assignments P of the mean over targets k of loss(e_P(k), s_k)

Axes: estimates e ``(N, E, ..., T)``, targets s ``(N, K, ..., T)``, K at most E; a value for each N.
From: Yu et al. 2017, arXiv:1607.00325, section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from aptt.core.checks import Numbers, as_tensor, check_choice, check_floating, check_tensors
from aptt.core.module import LossModule, reduced
from aptt.core.reduction import Reduction, check_reduction, normalize
from aptt.core.shapes import check_shapes
from aptt.core.signals import check_recorded
from aptt.loss.snr.pairing import Sources, best_order, check_loss, value_by_source
from aptt.loss.snr.si_sdr import si_sdr_loss

__all__ = ["PermutationInvariantLoss", "best_permutation", "permutation_invariant_loss"]

Unmatched = Literal["ignore", "silence"]


def permutation_invariant_loss(
    estimate: Tensor,
    target: Tensor,
    *,
    lengths: Numbers | None = None,
    active: Tensor | None = None,
    loss: Callable[..., Tensor] = si_sdr_loss,
    unmatched: Unmatched = "ignore",
    reduction: Reduction = "mean",
) -> Tensor:
    """A loss between sources in no particular order: that of the best assignment.

        min over assignments P of the mean over targets k of loss(e_P(k), s_k)

    Args:
        estimate: ``(N, E, ..., T)``, E sources; any floating dtype.
        target: ``(N, K, ..., T)``, K sources, at most E.
        lengths: ``(N,)``, or ``(N, K)`` for each target, handed to ``loss``: how many of the T
            samples are signal; 0 removes.
        active: ``(N, K)``, which targets there are; those that are not may hold anything.
        loss: a function of two sources ``(N, ..., T)`` with ``reduction="none"``, such as
            ``snr_loss`` or ``functools.partial(mel_loss, sample_rate=16000)``, that gives one value
            for each of N, or several, whose mean counts; or a module such as ``SNRLoss()``, of
            which the options are taken, but for its reduction.
        unmatched: what estimates cost that no target is left for: ``"ignore"``, nothing, or
            ``"silence"``, their loss against silence, which counts as a target does.
        reduction: over the N: ``"mean"``, ``"sum"``, ``"none"``, or a callable
            ``(total, count, *, term)``.

    Returns:
        The loss of the best assignment: a scalar, or with ``"none"`` one value for each of N.

    Raises:
        ValueError: shapes that do not fit, more targets than estimates, an unknown option, a
            ``loss`` that gives other than one value or several for each of N.
        TypeError: a ``loss`` that cannot be called, or a module without a ``reduction``.

    The gradient goes to ``estimate``, and to targets that ask for it, through the best assignment
    alone. :func:`aptt.loss.snr.best_permutation` tells which one it is. Up to 12 sources it is
    found on the device, by a search over all 4096 subsets; of more, on the host, which waits for
    it. A loss of this package between levels (``snr_loss``, ``si_sdr_loss``, ``si_snr_loss``,
    ``sd_sdr_loss``) is compared in float64.

    Use when:
        A model separates sources of one kind, say speakers, and no output belongs to one of them.

    Elsewhere:
        asteroid ``PITLossWrapper``, torchmetrics ``permutation_invariant_training`` (higher is
        better there).

    Differs from:
        Both: exact for any number of sources on any device; asteroid solves for more than 3 on the
            CPU, torchmetrics tries all orders where it has no scipy. A sample that is not a number
            spoils itself alone.
        asteroid: speakers who are silent need no loss of their own.

    Example:
        >>> import torch
        >>> target = torch.tensor([[[1.0, -2.0, 3.0, 0.0], [2.0, 1.0, 0.0, 1.0]]])
        >>> round(permutation_invariant_loss(target.flip(1) + 0.1, target).item(), 2)
        -26.49
    """
    check_reduction(reduction)
    check_floating(estimate=estimate)
    lengths = None if lengths is None else as_tensor("lengths", lengths, estimate)
    sources = _sources(estimate, target, lengths, active, loss, unmatched)
    order, broken = best_order(sources, loss)
    value = value_by_source(sources, order, loss)
    counted = None if sources.counts is None else sources.counts.gather(1, order)
    if counted is None:
        value = value.mean(1)
    else:
        value = torch.where(counted, value, 0.0).sum(1) / counted.sum(1).clamp(min=1)
        value = value + torch.zeros_like(value.detach()).masked_fill(broken, torch.nan)
    if reduction == "none":
        return value
    some = torch.ones_like(value) if lengths is None or lengths.ndim == 2 else lengths > 0
    if counted is not None:
        some = some.bool() & counted.any(1)
    return normalize(value.sum(), some.sum(), reduction, term="permutation_invariant")


def best_permutation(
    estimate: Tensor,
    target: Tensor,
    *,
    lengths: Numbers | None = None,
    active: Tensor | None = None,
    loss: Callable[..., Tensor] = si_sdr_loss,
    unmatched: Unmatched = "ignore",
) -> Tensor:
    """Which target belongs to each estimate: ``(N, E)``, ``target[n, order[n, i]]`` to source i.

    The assignment that :func:`permutation_invariant_loss` takes, with its arguments; no gradient.
    An estimate that no target is left for has -1.

    The ``best_perm`` of torchmetrics, and the indices that asteroid reorders estimates by, say
    which estimate belongs to each target. That is the inverse: ``order.argsort(1)``.

    Example:
        >>> import torch
        >>> target = torch.eye(3).unsqueeze(0)
        >>> order = best_permutation(target[:, [2, 0, 1]], target)
        >>> order, order.argsort(1)
        (tensor([[2, 0, 1]]), tensor([[1, 2, 0]]))
    """
    check_floating(estimate=estimate)
    lengths = None if lengths is None else as_tensor("lengths", lengths, estimate)
    sources = _sources(estimate, target, lengths, active, loss, unmatched)
    order, _ = best_order(sources, loss)
    if sources.there is None:
        return order
    return torch.where(sources.there.gather(1, order), order, -1)


def _sources(
    estimate: Tensor,
    target: Tensor,
    lengths: Tensor | None,
    active: Tensor | None,
    loss: Callable[..., Tensor],
    unmatched: Unmatched,
) -> Sources:
    """As many targets as estimates: those that there are, and silence."""
    check_loss(loss)
    check_choice("unmatched", unmatched, ("ignore", "silence"))
    check_recorded(target)
    check_shapes(estimate=(estimate, "N E *S"), target=(target, "N K *S"))
    n, size, k = *estimate.shape[:2], target.shape[1]
    if estimate.ndim < 3 or not 1 <= k <= size:
        raise ValueError(
            f"target: got {tuple(target.shape)} for estimate {tuple(estimate.shape)}, wanted "
            "(N, K, ..., T) with 1 to E sources K, as many as there are estimates at most"
        )
    by_source = lengths is not None and lengths.ndim == 2
    if lengths is not None:
        check_shapes(target=(target, "N K *S"), lengths=(lengths, "N K" if by_source else "N"))
    if active is not None:
        check_tensors(estimate=estimate, active=active)
        check_shapes(target=(target, "N K *S"), active=(active, "N K"))
        if active.dtype != torch.bool:
            raise TypeError(
                f"active: got {active.dtype}, wanted torch.bool, True where there is one"
            )
    if active is None and k == size and not by_source:
        return Sources(estimate, target, lengths, None, None)
    there = estimate.new_ones((n, k), dtype=torch.bool) if active is None else active
    there = torch.nn.functional.pad(there, (0, size - k))
    target = torch.cat((target, target.new_zeros(n, size - k, *target.shape[2:])), 1)
    target = torch.where(there.view(n, size, *[1] * (target.ndim - 2)), target, 0.0)
    counts = there if unmatched == "ignore" else torch.ones_like(there)
    if by_source:
        assert lengths is not None
        longest = lengths.amax(1, keepdim=True).expand(n, size)
        lengths = torch.where(there, torch.nn.functional.pad(lengths, (0, size - k)), longest)
        counts, there = counts & (lengths > 0), there & (lengths > 0)
    return Sources(estimate, target, lengths, there, counts)


class PermutationInvariantLoss(LossModule):
    """Module form of :func:`permutation_invariant_loss`; same options, same defaults."""

    def __init__(
        self,
        loss: Callable[..., Tensor] = si_sdr_loss,
        unmatched: Unmatched = "ignore",
        reduction: Reduction = "mean",
    ) -> None:
        check_reduction(reduction)
        check_loss(loss)
        check_choice("unmatched", unmatched, ("ignore", "silence"))
        if isinstance(loss, nn.Module):
            loss = reduced("loss", loss, "none")
        super().__init__(loss=loss, unmatched=unmatched, reduction=reduction)

    def forward(
        self,
        estimate: Tensor,
        target: Tensor,
        *,
        lengths: Numbers | None = None,
        active: Tensor | None = None,
    ) -> Tensor:
        """The loss of ``estimate`` against ``target``."""
        return permutation_invariant_loss(
            estimate, target, lengths=lengths, active=active, **self.options()
        )
