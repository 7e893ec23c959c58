"""Count before computing: how much all micro-batches of a step count together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from aptt.core.module import LossModule
from aptt.core.reduction import Reduction
from aptt.parallel.normalizers import CountMean
from aptt.parallel.ranks import Group, group_of, size_of

__all__ = ["count_ahead", "counts_of", "normalized"]

Counts = Mapping[str, float]


def count_ahead(
    batches: Iterable[Any],
    count: Callable[[Any], float | Tensor | Mapping[str, float | Tensor]],
    *,
    group: Group = None,
    grad_average: float | None = None,
) -> CountMean:
    """Count the micro-batches of a step, on all ranks, and return the normalizer of each of them.

    Args:
        batches: this rank's micro-batches, which may differ in number from rank to rank; none is
            allowed.
        count: how much a micro-batch counts, as one number or by the names of the terms:
            ``lambda batch: (batch["labels"] != -100).sum()``, or :func:`counts_of` of a loss.
        group: a process group or a device mesh of one dimension; None: all ranks.
        grad_average: as for :func:`global_mean`; None: the number of ranks in ``group``.

    Returns:
        :func:`count_mean` of the sum, to pass as ``reduction=`` for each micro-batch. One message
        is sent for all of them.

    Raises:
        ValueError: one number from some micro-batches, and numbers by name from others.

    Example:
        >>> import torch
        >>> batches = [torch.tensor([1, -100, 2]), torch.tensor([3])]
        >>> count_ahead(batches, lambda target: (target != -100).sum())
        count_mean(3.0)
    """
    sums: defaultdict[str, float] = defaultdict(float)
    for batch in batches:
        counted = count(batch)
        by_term = counted if isinstance(counted, Mapping) else {_EVERY: counted}
        for term, number in by_term.items():
            sums[term] += float(number)
    found = group_of(group)
    if found is not None:
        every: list[dict[str, float] | None] = [None] * dist.get_world_size(found)
        dist.all_gather_object(every, dict(sums), group=found)
        sums = defaultdict(float)
        for one in every:
            for term, number in (one or {}).items():
                sums[term] += number
    if _EVERY in sums and len(sums) > 1:
        named = ", ".join(repr(term) for term in sums if term != _EVERY)
        raise ValueError(f"count: gave one number for some micro-batches and {named} for others")
    average = float(size_of(group)) if grad_average is None else grad_average
    if set(sums) <= {_EVERY}:
        return CountMean(sums[_EVERY], average)
    return CountMean(dict(sums), average)


_EVERY = ""  # the name of the number that every term is divided by


def counts_of(loss: nn.Module) -> Callable[[Any], Counts]:
    """What ``loss`` counts of a micro-batch, by the names of its terms: it is asked to say.

    A micro-batch is what the loss is called with: a tuple of its arguments, or a dict of them by
    name. The loss is evaluated without gradients, and keeps no account of it. Where its counts
    depend on the targets alone, any predictions of the right shape will do, such as zeros.
    """

    def counts(batch: Any) -> Counts:
        found: defaultdict[str, float] = defaultdict(float)

        def record(total: Tensor, count: Tensor, *, term: str) -> Tensor:
            found[term] += float(count)
            return total * 0

        with normalized(loss, record), _evaluating(loss), torch.no_grad():
            loss(**batch) if isinstance(batch, Mapping) else loss(*batch)
        return dict(found)

    return counts


@contextmanager
def _evaluating(loss: nn.Module) -> Iterator[None]:
    """Each module of ``loss`` in evaluation, where none keeps an account; as it was afterwards."""
    training = [m for m in loss.modules() if m.training]
    loss.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def normalized(loss: nn.Module, reduction: Reduction) -> Iterator[nn.Module]:
    """Give every loss in ``loss``, itself and the terms it is made of, one ``reduction``.

    They have their own again afterwards. Losses that are not ours keep theirs: what they return is
    a mean already, and cannot be divided once more.
    """
    found = [m for m in loss.modules() if isinstance(m, LossModule) and "reduction" in m.options()]
    if not found:
        raise ValueError(f"loss: got {type(loss).__name__}, with no loss of aptt in it")
    before = [m.reduction for m in found]
    try:
        for module in found:
            module.reduction = reduction  # type: ignore[assignment]
        yield loss
    finally:
        for module, own in zip(found, before, strict=True):
            module.reduction = own
