"""Count before computing: how much all micro-batches of a step count together."""

from __future__ import annotations

import inspect
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from aptt.core.module import LossModule
from aptt.core.reduction import Kind, Normalizer, Reduction, begin, check_reduction, hear
from aptt.parallel.normalizers import CountMean
from aptt.parallel.ranks import Group, check_average, check_count, group_of, size_of

__all__ = ["count_ahead", "counts_of", "normalized"]

Counts = Mapping[str, float]


def count_ahead(
    batches: Iterable[Any],
    count: Callable[[Any], float | Tensor | Mapping[str, float | Tensor]],
    *,
    group: Group = None,
    grad_average: float | None = None,
    kind: Kind = "values",
) -> CountMean:
    """Count the micro-batches of a step, on all ranks, and return the normalizer of each of them.

    Args:
        batches: this rank's micro-batches, which may differ in number from rank to rank; none is
            allowed.
        count: how much a micro-batch counts, as one number or by the names of the terms:
            ``lambda batch: (batch["labels"] != -100).sum()``, or :func:`counts_of` of a loss.
        group: a process group or a device mesh of one dimension; None: all ranks.
        grad_average: as for :func:`global_mean`; None: the number of ranks in ``group``.
        kind: what one number counts, as for :func:`count_mean`.

    Returns:
        :func:`count_mean` of the sum, to pass as ``reduction=`` for each micro-batch. The ranks
        gather their counts once for all of them.

    Raises:
        ValueError: one number from some micro-batches, and numbers by name from others; a count
            that is not one number of at least 0, such as a mask that was not summed.

    Example:
        >>> import torch
        >>> batches = [torch.tensor([1, -100, 2]), torch.tensor([3])]
        >>> count_ahead(batches, lambda target: (target != -100).sum())
        count_mean(3.0)
    """
    check_average(grad_average)
    sums: defaultdict[str, float] = defaultdict(float)
    for batch in batches:
        counted = count(batch)
        by_term = counted if isinstance(counted, Mapping) else {_EVERY: counted}
        for term, number in by_term.items():
            check_count("count" if term == _EVERY else f"count of {term!r}", number)
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
        return CountMean(sums[_EVERY], average, kind)
    return CountMean(dict(sums), average)


_EVERY = ""  # the name of the number that every term is divided by


def counts_of(loss: nn.Module | Callable[..., Tensor]) -> Callable[[Any], Counts]:
    """What ``loss`` counts of a micro-batch, by the names of its terms: it is asked to say.

    A micro-batch is what the loss is called with: a tuple or list of its arguments, or a dict of
    them by name. The loss is evaluated without gradients, and keeps no account of it. Where its
    counts depend on the targets alone, any predictions of the right shape will do, such as zeros.
    A loss may be a function of ours too, with options by :func:`functools.partial`.

    Where several of our losses are in ``loss``, a term has the path of its own before it, such as
    ``"terms.cls.focal"``; set them with :func:`normalized` of the same module, which knows them by
    these names.

    Raises:
        TypeError: a micro-batch of another kind.
        ValueError: one loss that is called twice for a micro-batch: it has two counts under one
            name. Use two modules.

    Example:
        >>> import torch
        >>> from aptt.loss import DiceCELoss
        >>> loss = DiceCELoss(pool="sample", ignore_index=255)
        >>> logits, target = torch.zeros(2, 3, 4), torch.tensor([[0, 1, 1, 2], [0, 0, 1, 255]])
        >>> counts_of(loss)((logits, target))
        {'dice': 5.0, 'cross_entropy': 7.0}
    """
    if not isinstance(loss, nn.Module) and "reduction" not in inspect.signature(loss).parameters:
        raise TypeError(f"loss: got {loss!r}, wanted a loss that takes a reduction, or a module")

    def counts(batch: Any) -> Counts:
        if not isinstance(batch, Mapping | tuple | list):
            raise TypeError(
                f"micro-batch: got {type(batch).__name__}, wanted a tuple or list of the "
                "arguments of the loss, or a mapping of them by name"
            )
        found: dict[str, float] = {}

        def record(total: Tensor, count: Tensor, *, term: str) -> Tensor:
            if term in found:
                raise ValueError(f"term {term!r}: counted twice, wanted a module for each count")
            found[term] = float(count)
            return total * 0

        args, named = ((), batch) if isinstance(batch, Mapping) else (batch, {})
        with torch.no_grad():
            if isinstance(loss, nn.Module):
                with _reduced(loss, record), _evaluating(loss):
                    loss(*args, **named)
            else:
                loss(*args, **named, reduction=record)
        return found

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
    a mean already, and cannot be divided once more; a warning names them. Where there are several
    of ours, a normalizer is told a term by its path, as :func:`counts_of` names it: two of one kind
    count apart.
    """
    others = [
        f"{path or 'loss'} ({type(m).__name__})"
        for path, m in loss.named_modules()
        if not isinstance(m, LossModule) and getattr(m, "reduction", None) == "mean"
    ]
    if others:
        warnings.warn(
            f"normalized: not reached, still a mean of its own batch: {', '.join(others)}",
            stacklevel=3,
        )
    with _reduced(loss, reduction):
        yield loss


@contextmanager
def _reduced(loss: nn.Module, reduction: Reduction) -> Iterator[None]:
    check_reduction(reduction)
    found = {
        path: m
        for path, m in loss.named_modules()
        if isinstance(m, LossModule) and "reduction" in m.options()
    }
    if not found:
        raise ValueError(f"loss: got {type(loss).__name__}, with no loss of aptt in it")
    before: list[Any] = [m.reduction for m in found.values()]
    try:
        for path, module in found.items():
            module.reduction = reduction
            if callable(reduction) and path and len(found) > 1:
                module.reduction = _At(path, reduction)
        yield
    finally:
        for module, own in zip(found.values(), before, strict=True):
            module.reduction = own


@dataclass(frozen=True)
class _At:
    """A normalizer that is told whose term it is."""

    path: str
    reduction: Normalizer

    def begin(self, count: Tensor, *, term: str) -> Any:
        return begin(self.reduction, count, f"{self.path}.{term}")

    def hear(self, kind: Kind, *, term: str, splits: bool = True) -> None:
        hear(self.reduction, kind, f"{self.path}.{term}", splits=splits)

    def __call__(self, total: Tensor, count: Any, *, term: str) -> Tensor:
        return self.reduction(total, count, term=f"{self.path}.{term}")
