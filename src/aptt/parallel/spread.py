"""A vocabulary that is spread over ranks: whose classes are where, and what they have together."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.tensor import DTensor

from aptt.core.divergence import Over
from aptt.core.module import LossModule
from aptt.core.vocabulary import Form, Stats, measure, merge
from aptt.parallel.ranks import Group

__all__ = ["GroupModule", "OverRanks", "Place", "local", "measured", "merged", "nothing", "place"]


class Place(NamedTuple):
    """Where this rank's classes are among all."""

    start: int
    classes: int
    group: dist.ProcessGroup | None


def place(shard: Tensor, axis: int, rows: int, group: dist.ProcessGroup | None) -> Place:
    """The first class of this rank, and how many there are on all.

    Raises:
        ValueError: ranks that differ in the number of rows, on all alike: they would wait on.
    """
    here = shard.shape[axis]
    if group is None:
        return Place(0, here, None)
    own = torch.tensor([here, rows], device=shard.device)
    every = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(every, own, group=group)
    sizes, counts = torch.stack(every).T.tolist()
    if len(set(counts)) > 1:
        raise ValueError(
            f"target: got {counts} on the ranks that the vocabulary is spread over, wanted the "
            "same targets on each"
        )
    return Place(sum(sizes[: dist.get_rank(group)]), sum(sizes), group)


def local(name: str, t: Tensor, axis: int, group: Group, *, wanted: str) -> tuple[Tensor, Group]:
    """This rank's shard of a ``DTensor``, and the ranks that hold the others; else as it is."""
    if not isinstance(t, DTensor):
        return t, group
    axis %= t.ndim
    spread = [
        dim
        for dim, placement in enumerate(t.placements)
        if placement.is_shard(axis) or placement.is_shard(axis - t.ndim)
    ]
    rest = [p for dim, p in enumerate(t.placements) if dim not in spread]
    if len(spread) != 1 or not all(p.is_replicate() for p in rest):
        raise ValueError(
            f"{name}: got a DTensor placed as {t.placements}, wanted {wanted} along one "
            "dimension of its mesh and Replicate() along the others"
        )
    return t.to_local(), t.device_mesh.get_group(spread[0])


def measured(z: Tensor, y: Tensor, weight: Tensor | None, form: Form, start: int) -> Stats:
    """What the rows have to know of this rank's classes, of which there may be none."""
    if z.shape[1]:
        return measure(z, y, class_weight=weight, form=form, start=start)
    return nothing(z, form)


def nothing(z: Tensor, form: Form) -> Stats:
    """The numbers of no class at all."""
    none = z.new_zeros(len(z), 1)
    top = torch.full_like(none, torch.finfo(z.dtype).min)
    return Stats(top, none, none, *((none, none, none) if form.smoothing is not None else ()))


def merged(own: Stats, group: dist.ProcessGroup | None) -> Stats:
    """The numbers of all ranks' classes, in one message."""
    if group is None:
        return own
    packed = torch.stack([t for t in own if t is not None])
    every = [torch.empty_like(packed) for _ in range(dist.get_world_size(group))]
    dist.all_gather(every, packed, group=group)
    first, *others = (Stats._make([*t, *own[len(t) :]]) for t in every)
    for other in others:
        first = merge(first, other)
    return first


class OverRanks(Over):
    """What a row takes of the classes of all ranks."""

    def __init__(self, group: dist.ProcessGroup | None) -> None:
        self.group = group

    def tops(self, *logits: Tensor) -> Sequence[Tensor]:
        """The largest of each row."""
        least = torch.finfo(logits[0].dtype).min
        tops = [
            (z.amax(1, keepdim=True) if z.shape[1] else z.new_full((len(z), 1), least))
            for z in logits
        ]
        return self._over_ranks([t.clamp(min=least) for t in tops], dist.ReduceOp.MAX)

    def sums(self, *parts: Tensor) -> Sequence[Tensor]:
        """The sum of each row."""
        return self._over_ranks([t.sum(1, keepdim=True) for t in parts], dist.ReduceOp.SUM)

    def _over_ranks(self, parts: list[Tensor], how: Any) -> Sequence[Tensor]:
        if self.group is None:
            return parts
        packed = torch.stack(parts)
        dist.all_reduce(packed, op=how, group=self.group)
        return packed.unbind()


Module = TypeVar("Module", bound="GroupModule")


class GroupModule(LossModule):
    """A module that knows the ranks it works with."""

    group: Group

    def __deepcopy__(self: Module, memo: dict[int, Any]) -> Module:
        """A copy that shares the group of processes, which cannot be copied."""
        memo[id(self.group)] = self.group
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__setstate__(deepcopy(self.__dict__, memo))
        return twin
