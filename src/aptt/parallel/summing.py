"""A loss whose totals, counts and pooled sums are added up over groups of ranks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from aptt.core.module import LossModule
from aptt.core.reduction import Kind, Reduction, hear, normalize
from aptt.parallel.gathering import Gather
from aptt.parallel.ranks import to_send

__all__ = ["over_groups"]

_OF_RANKS = ("reduction", "pool", "gather")


@contextmanager
def over_groups(
    loss: Any, kwargs: dict[str, Any], groups: Sequence[dist.ProcessGroup]
) -> Iterator[tuple[Callable[..., Any], bool]]:
    """The loss, with totals, counts and ratios added up over what cuts its rows.

    And whether it gives a value for each row.
    """
    if not isinstance(loss, nn.Module):
        known = inspect.signature(loss).parameters
        if "reduction" not in known:
            raise TypeError(
                f"loss: got {loss!r}, wanted a loss that takes a reduction, or a module"
            )
        options = {name: known[name].default for name in _OF_RANKS if name in known} | kwargs
        yield partial(loss, **{**kwargs, **_over(options, groups)}), options["reduction"] == "none"
        return
    ours = [m for m in loss.modules() if isinstance(m, LossModule) and "reduction" in m.options()]
    if not ours:
        raise TypeError(f"loss: got {type(loss).__name__}, with no loss of aptt in it")
    before = [
        (m, {name: value for name, value in m.options().items() if name in _OF_RANKS}) for m in ours
    ]
    try:
        for module, options in before:
            for name, value in _over(options, groups).items():
                setattr(module, name, value)
        yield partial(loss, **kwargs), getattr(loss, "reduction", None) == "none"
    finally:
        for module, options in before:
            for name, value in options.items():
                setattr(module, name, value)


def _over(options: Mapping[str, Any], groups: Sequence[dist.ProcessGroup]) -> dict[str, Any]:
    """Those options that say what is added up, over ranks."""
    changed: dict[str, Any] = {}
    if options.get("pool") == "batch":
        changed["pool"] = _Pool(groups)
    if options["reduction"] != "none":
        pools = "pool" in options
        changed["reduction"] = _Whole(options["reduction"], groups, pools)
    if "gather" in options and options["gather"] is None and len(groups) == 1:
        changed["gather"] = Gather(groups[0])
    return changed


@dataclass(frozen=True)
class _Whole:
    """A reduction of the totals and counts of several ranks."""

    own: Reduction
    groups: Sequence[dist.ProcessGroup]
    pools: bool
    """Whether the loss can add sums up before it takes their ratio."""
    pooled: set[str] = field(default_factory=set)
    """The terms whose sums were added up before: every rank has the total of all."""

    def hear(self, kind: Kind, *, term: str, splits: bool = True) -> None:
        """Note what must not be added up once more."""
        if callable(self.own):
            hear(self.own, kind, term, splits=splits)
        if not splits and self.groups and not self.pools:
            raise ValueError(
                f"{term}: made of the samples of a whole batch together, which their shards do not "
                "add up to"
            )
        if not splits:
            self.pooled.add(term)

    def __call__(self, total: Tensor, count: Tensor, *, term: str) -> Tensor:
        """The total of all over the count of all."""
        groups = () if term in self.pooled else self.groups
        counted = to_send(count)
        for group in groups:
            dist.all_reduce(counted, group=group)
        whole = _Pool(groups)(total)
        if self.own == "mean":
            return whole / torch.where(counted == 0, 1, counted).to(whole.dtype)
        return normalize(whole, counted, self.own, term=term)


@dataclass(frozen=True)
class _Pool:
    """A sum over ranks that all go on from alike: its gradient is that of each."""

    groups: Sequence[dist.ProcessGroup]

    def __call__(self, sums: Tensor) -> Tensor:
        """The sums of all ranks."""
        total: Tensor = _Sum.apply(sums, tuple(self.groups))
        return total

    def __repr__(self) -> str:
        """What a loss says that has no use for it."""
        return "a sum over ranks in place of 'batch'"


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(sums: Tensor, groups: Sequence[dist.ProcessGroup]) -> Tensor:
        total = sums.clone()
        for group in groups:
            dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Nothing is kept."""

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor, None]:
        return up, None
