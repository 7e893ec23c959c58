"""Sums over ranks, for losses that are a ratio of sums: Dice and its family, RMSE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from aptt.parallel.ranks import Group, check_average, group_of, size_of

__all__ = ["WorldSum", "world_sum"]


@dataclass(frozen=True)
class WorldSum:
    """Add sums up over ranks, differentiably; pass it as ``pool=``.

    Every rank gets the loss of the whole batch. Its gradient reaches a rank's own share of the sums
    multiplied by ``grad_average``, which is what DDP and FSDP divide by afterwards; nothing is sent
    in backward. A rank without samples takes part with sums of 0. A deep copy shares the group.

    Args:
        group: a process group or a device mesh of one dimension; None: all ranks.
        grad_average: what the gradients are divided by after they have been added up over ranks;
            None: the number of ranks in ``group``. 1 where they are summed.
    """

    group: Group = None
    grad_average: float | None = None

    def __post_init__(self) -> None:
        """Refuse what gradients cannot be divided by."""
        check_average(self.grad_average)

    def __call__(self, sums: Tensor) -> Tensor:
        """The sums of all ranks."""
        group = group_of(self.group)
        if group is None:
            return sums
        average = size_of(self.group) if self.grad_average is None else self.grad_average
        total: Tensor = _Sum.apply(sums, group, float(average))
        return total

    def __deepcopy__(self, memo: dict[int, Any]) -> WorldSum:
        """Itself: it never changes, and a group of processes cannot be copied."""
        return self

    def __repr__(self) -> str:
        """As it is written."""
        if self.group is None and self.grad_average is None:
            return "world_sum"
        return f"WorldSum(group={self.group!r}, grad_average={self.grad_average!r})"


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(sums: Tensor, group: dist.ProcessGroup, average: float) -> Tensor:
        total = sums.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.average = inputs[2]

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor, None, None]:
        return up * ctx.average, None, None


world_sum = WorldSum()
"""The sum over every rank."""
