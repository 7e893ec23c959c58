"""Normalizers: what a total is divided by, so that every split gives the mean over everything.

    mean over everything = sum of the totals / sum of the counts, over ranks and micro-batches
    loss of one split    = its total * grad_average / sum of the counts

The gradients of the splits are added up by ``backward`` over micro-batches, and averaged by DDP or
FSDP over ``grad_average`` ranks: what comes out is the gradient of the mean over everything. The
values average to it over the ranks likewise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from aptt.parallel.ranks import (
    Group,
    check_average,
    check_count,
    group_of,
    size_of,
    widest,
)

__all__ = ["CountMean", "GlobalMean", "count_mean", "global_mean"]


def global_mean(group: Group = None, *, grad_average: float | None = None) -> GlobalMean:
    """The mean over all ranks, for one batch a step on each of them.

    Args:
        group: a process group or a device mesh of one dimension; None: all ranks. One process, or
            no process group at all, is a world of one.
        grad_average: what the gradients are divided by after they have been added up over ranks;
            None: the number of ranks in ``group``, as DDP and FSDP do. 1 where they are summed.

    Returns:
        A normalizer to pass as ``reduction=``. Each call sends one number, while the loss computes.

    A rank with nothing to count gets 0 on its graph and still takes part; where no rank has any,
    all get 0. A deep copy shares the group; one with a process group cannot be pickled, as torch
    cannot pickle that.

    Example:
        >>> import torch
        >>> from aptt.loss import cross_entropy
        >>> target = torch.tensor([1, -100])
        >>> loss = cross_entropy(torch.zeros(2, 4), target, reduction=global_mean())
        >>> round(loss.item(), 4)
        1.3863
    """
    return GlobalMean(group, grad_average)


def count_mean(
    num_items: float | Tensor | Mapping[str, float | Tensor], *, grad_average: float = 1.0
) -> CountMean:
    """The mean over a count that is known beforehand, for several micro-batches a step.

    Args:
        num_items: how much all micro-batches, on all ranks, count together: one number for every
            term, or a number for each term by its name. :func:`count_ahead` finds it. Hugging
            Face's ``Trainer`` hands over ``(n_gpu, 1)`` where one process drives several GPUs; it
            multiplies the loss by ``n_gpu``, or has divided the counts by it, so they are added up.
        grad_average: what the gradients are divided by after they have been added up over ranks:
            the number of ranks with DDP or FSDP. 1 for one process, where they are summed, or where
            the framework multiplies for you (as Hugging Face's ``Trainer`` does).

    Returns:
        A normalizer to pass as ``reduction=``. It sends nothing.

    Example:
        >>> import torch
        >>> from aptt.loss import cross_entropy
        >>> shared = count_mean(3)
        >>> first = cross_entropy(torch.zeros(2, 4), torch.tensor([1, 2]), reduction=shared)
        >>> second = cross_entropy(torch.zeros(2, 4), torch.tensor([0, -100]), reduction=shared)
        >>> round((first + second).item(), 4)
        1.3863
    """
    return CountMean(num_items, grad_average)


@dataclass(frozen=True)
class GlobalMean:
    """What :func:`global_mean` returns."""

    group: Group = None
    grad_average: float | None = None

    def __post_init__(self) -> None:
        """Refuse what gradients cannot be divided by."""
        check_average(self.grad_average)

    def begin(self, count: Tensor, *, term: str) -> Pending:
        """Send the count; the answer is waited for when it is needed."""
        counted, group = widest(count), group_of(self.group)
        if group is None:
            return Pending(counted, None)
        eager = not torch.compiler.is_compiling()  # the compiler waits by itself
        work = dist.all_reduce(counted, group=group, async_op=eager)
        return Pending(counted, work if eager else None)

    def __call__(self, total: Tensor, count: Tensor | Pending, *, term: str) -> Tensor:
        """The share of this rank in the mean over all."""
        if isinstance(count, Tensor):  # of a loss that has not begun
            count = self.begin(count, term=term)
        average = size_of(self.group) if self.grad_average is None else self.grad_average
        return _over(total * average, count.wait())

    def __deepcopy__(self, memo: dict[int, Any]) -> GlobalMean:
        """Itself: it never changes, and a group of processes cannot be copied."""
        return self

    def __repr__(self) -> str:
        """As the call that makes it."""
        return _call("global_mean", group=self.group, grad_average=self.grad_average)


@dataclass(frozen=True)
class Pending:
    """A count on its way."""

    counted: Tensor
    work: dist.Work | None

    def wait(self) -> Tensor:
        """The sum over the ranks."""
        if self.work is not None:
            self.work.wait()
        return self.counted


@dataclass(frozen=True)
class CountMean:
    """What :func:`count_mean` returns."""

    num_items: float | Tensor | Mapping[str, float | Tensor]
    grad_average: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what is no count."""
        check_average(self.grad_average)
        if isinstance(self.num_items, Mapping):
            for term, items in self.num_items.items():
                check_count(f"num_items of {term!r}", _added(items))
        else:
            check_count("num_items", _added(self.num_items))

    def __call__(self, total: Tensor, count: Tensor, *, term: str) -> Tensor:
        """The share of this micro-batch in the mean over all."""
        items = self.num_items
        if isinstance(items, Mapping):
            if term not in items:
                named = ", ".join(map(repr, items)) or "nothing"
                raise ValueError(f"num_items: got counts of {named}, wanted one of {term!r}")
            items = items[term]
        items = _added(items)
        if not isinstance(items, Tensor):  # exact, where float32 would round a large count
            wide = torch.float32 if total.device.type == "mps" else torch.float64
            items = torch.tensor(items, dtype=wide, device=total.device)
        return _over(total * self.grad_average, items.to(total.device))

    def __repr__(self) -> str:
        """As the call that makes it."""
        average = None if self.grad_average == 1 else self.grad_average
        items = self.num_items if isinstance(self.num_items, Mapping) else _added(self.num_items)
        items = items.item() if isinstance(items, Tensor) else items
        return _call("count_mean", items, grad_average=average)


def _added(items: float | Tensor) -> float | Tensor:
    """A count as one number: of the GPUs that one process drives, ``(n_gpu, 1)``, their sum."""
    if isinstance(items, Tensor) and items.ndim == 2 and items.shape[1] == 1:
        return items.sum()
    return items


def _over(total: Tensor, count: Tensor) -> Tensor:
    """A total over what was counted everywhere; over 1 where that is nothing.

    The total of nothing is 0 by itself. A detector's loss, which counts objects, still penalises
    background where there are none, as its own mean does.
    """
    return total / torch.where(count == 0, 1, count).to(total.dtype)


def _call(name: str, *values: object, **options: object) -> str:
    given = [*map(repr, values), *(f"{k}={v!r}" for k, v in options.items() if v is not None)]
    return f"{name}({', '.join(given)})"
