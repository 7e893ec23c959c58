"""Normalizers: what a total is divided by, so that every split gives the mean over everything.

    mean over everything = sum of the totals / sum of the counts, over ranks and micro-batches
    loss of one split    = its total * grad_average / sum of the counts

The gradients of the splits are added up by ``backward`` over micro-batches, and averaged by DDP or
FSDP over ``grad_average`` ranks: what comes out is the gradient of the mean over everything. The
values average to it over the ranks likewise.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from aptt.core.checks import check_choice
from aptt.core.ordinary import is_readable
from aptt.core.precision import widest
from aptt.core.reduction import Kind
from aptt.parallel.ranks import (
    Group,
    check_average,
    check_count,
    group_of,
    size_of,
    to_send,
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
    num_items: float | Tensor | Mapping[str, float | Tensor],
    *,
    grad_average: float = 1.0,
    kind: Kind = "values",
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
        kind: what one number counts: ``"values"`` that take part (tokens, rows, pixels, boxes),
            ``"positives"`` (objects that there are to find), or ``"ratios"`` (what Dice and its
            family and RMSE average: one for each sample or class).

    Returns:
        A normalizer to pass as ``reduction=``. It sends nothing.

    Raises:
        ValueError: no number of at least 0, or another kind. In a loss: one number that meets
            another kind of count, or terms that count differently; a micro-batch that counts more
            than all together (where the count can be read without waiting for a device).

    Warns:
        UserWarning: a ratio over the batch (``pool="batch"``) of one of several micro-batches: the
            mean of their ratios is not the ratio of the whole. ``pool="sample"`` is exact.

    Example:
        >>> import torch
        >>> from aptt.loss import cross_entropy
        >>> shared = count_mean(3)
        >>> first = cross_entropy(torch.zeros(2, 4), torch.tensor([1, 2]), reduction=shared)
        >>> second = cross_entropy(torch.zeros(2, 4), torch.tensor([0, -100]), reduction=shared)
        >>> round((first + second).item(), 4)
        1.3863
    """
    return CountMean(num_items, grad_average, kind)


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
        counted, group = to_send(count), group_of(self.group)
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


@dataclass
class CountMean:
    """What :func:`count_mean` returns."""

    num_items: float | Tensor | Mapping[str, float | Tensor]
    grad_average: float = 1.0
    kind: Kind = "values"
    _round: dict[str, float] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What each term of this micro-batch counted, where one number is for all of them."""
    _whole: set[str] = field(default_factory=set, init=False, repr=False, compare=False)
    """The terms that cannot be split."""

    def __post_init__(self) -> None:
        """Refuse what is no count."""
        check_average(self.grad_average)
        check_choice("kind", self.kind, tuple(_KINDS))
        if isinstance(self.num_items, Mapping):
            for term, items in self.num_items.items():
                check_count(f"num_items of {term!r}", _added(items))
        else:
            check_count("num_items", _added(self.num_items))

    def hear(self, kind: Kind, *, term: str, splits: bool = True) -> None:
        """Refuse one number for another kind of count than it was made for."""
        if not isinstance(self.num_items, Mapping) and kind != self.kind:
            raise ValueError(
                f"num_items: got one number of {_KINDS[self.kind]}, but {term!r} counts "
                f"{_KINDS[kind]}; wanted {{{term!r}: ...}}, which count_ahead(batches, "
                f"counts_of(loss)) finds, or kind={kind!r}"
            )
        if not splits and not torch.compiler.is_compiling():
            self._whole.add(term)

    def __call__(self, total: Tensor, count: Tensor, *, term: str) -> Tensor:
        """The share of this micro-batch in the mean over all."""
        items = self.num_items
        if isinstance(items, Mapping):
            if term not in items:
                named = ", ".join(map(repr, items)) or "nothing"
                raise ValueError(f"num_items: got counts of {named}, wanted one of {term!r}")
            items = items[term]
        items = _added(items)
        if is_readable(count) and (not isinstance(items, Tensor) or is_readable(items)):
            self._check(float(count.detach()), float(items), term)
        if not isinstance(items, Tensor):  # exact, where float32 would round a large count
            items = torch.full((), items, dtype=widest(total), device=total.device)
        return _over(total * self.grad_average, items.to(total.device))

    def _check(self, count: float, items: float, term: str) -> None:
        if count > items * (1 + 1e-5):  # a sum in float32 may round
            raise ValueError(
                f"num_items: got {items:g}, but {term!r} counts {count:g} in this micro-batch "
                "alone; wanted what all micro-batches on all ranks count together"
            )
        if term in self._whole and count < items:
            warnings.warn(
                f"{term}: a ratio over one of several micro-batches; the mean of their ratios is "
                "not the ratio of the whole. pool='sample' is exact",
                stacklevel=3,
            )
        if isinstance(self.num_items, Mapping):
            return
        if term in self._round:
            self._round.clear()
        for other, before in self._round.items():
            if abs(count - before) > 1e-5 * max(count, before):
                raise ValueError(
                    f"num_items: got one number for {other!r} and {term!r}, which count "
                    f"{before:g} and {count:g}; wanted a number for each, which "
                    "count_ahead(batches, counts_of(loss)) finds"
                )
        self._round[term] = count

    def __repr__(self) -> str:
        """As the call that makes it."""
        average = None if self.grad_average == 1 else self.grad_average
        kind = None if self.kind == "values" else self.kind
        items = self.num_items if isinstance(self.num_items, Mapping) else _added(self.num_items)
        items = items.item() if isinstance(items, Tensor) else items
        return _call("count_mean", items, grad_average=average, kind=kind)


_KINDS: dict[Kind, str] = {
    "values": "the values that take part",
    "positives": "positives",
    "ratios": "ratios, one for each sample or class",
}


def _added(items: float | Tensor) -> float | Tensor:
    """A count as one number.

    Where one process drives several GPUs, the Trainer gives ``(n_gpu, 1)``: a share of the count
    for each, or the count as often as there are GPUs, by which it multiplies the loss afterwards.
    """
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
