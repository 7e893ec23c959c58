"""The rows of all ranks on each of them, for losses that compare rows with one another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from aptt.core.precision import widen
from aptt.parallel.ranks import Group, group_of

__all__ = ["Gather", "gather"]


@dataclass(frozen=True)
class Gather:
    """Put the rows of all ranks one after another, differentiably; pass it as ``gather=``.

    A rank gives ``(N_r, ...)`` and gets ``(N_0 + N_1 + ..., ...)``, those of rank 0 first. The
    ranks may differ in how many rows they have, and one may have none. The gradient of a row is the
    sum of what every rank's loss asks of it, added up in float32 at least. So both ways to a loss
    are exact where DDP or FSDP average gradients afterwards: each rank's own rows against those of
    all, with ``reduction=global_mean()``; and the loss of all rows, the same on every rank.

    Labels and masks are gathered likewise, without a gradient. Where any rank's rows ask for a
    gradient, every rank takes part in its message: call backward on all, on one without rows too.
    A deep copy shares the group.

    Args:
        group: a process group or a device mesh of one dimension; None: all ranks. One process, or
            no process group at all, is a world of one.

    Raises:
        ValueError: a number without rows; ranks whose rows differ in shape or dtype, on all alike.

    Each call sends a few numbers first and waits for them, then the rows, filled up to the longest
    share; backward sends as much once more. There is a second derivative.

    Elsewhere:
        torch ``distributed.nn.all_gather``, for equal shares; PyTorch Lightning ``all_gather``.

    Differs from:
        torch: shares may differ in length.
        Lightning: the rows stay in one axis, with no axis of ranks before them.

    Example:
        >>> import torch
        >>> gather(torch.eye(2)).shape, gather.offset(torch.eye(2))  # a world of one rank
        (torch.Size([2, 2]), 0)
    """

    group: Group = None

    def __call__(self, rows: Tensor) -> Tensor:
        """The rows of all ranks."""
        if rows.ndim == 0:
            raise ValueError("rows: got one number, wanted rows (N, ...)")
        group = group_of(self.group)
        if group is None:
            return rows
        sizes, asked = _sizes(rows, group)
        if not asked:
            return _all(rows.detach(), sizes, group)
        if not rows.requires_grad:  # another rank's do, and waits for this one in backward
            rows = rows.detach().requires_grad_()
        every: Tensor = _Gathered.apply(rows, sizes, group)
        return every

    def offset(self, rows: Tensor) -> int:
        """Where this rank's rows begin among those of all."""
        group = group_of(self.group)
        return 0 if group is None else sum(_sizes(rows, group)[0][: dist.get_rank(group)])

    def __deepcopy__(self, memo: dict[int, Any]) -> Gather:
        """Itself: it never changes, and a group of processes cannot be copied."""
        return self

    def __repr__(self) -> str:
        """As it is written."""
        return "gather" if self.group is None else f"Gather(group={self.group!r})"


def _sizes(rows: Tensor, group: dist.ProcessGroup) -> tuple[list[int], bool]:
    """How many rows each rank has, and whether any of them asks for a gradient.

    What must be alike is sent along: a rank that waited for others of another size would wait on.
    """
    asks = rows.requires_grad and torch.is_grad_enabled()
    trailing = rows.shape[1:]
    alike = [_DTYPES.index(str(rows.dtype)), trailing.numel(), len(trailing), *trailing]
    alike = (alike + [0] * _TOLD)[:_TOLD]  # no more axes than that are compared one by one
    own = torch.tensor([len(rows), asks, *alike], device=rows.device)
    every = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(every, own, group=group)
    told = torch.stack(every).tolist()
    kinds = {tuple(one[2:]) for one in told}
    if len(kinds) > 1:
        named = "; ".join(
            f"rank {rank}: (N{''.join(f', {size}' for size in sizes[:axes])}), {_DTYPES[dtype]}"
            for rank, (_, _, dtype, _, axes, *sizes) in enumerate(told)
        )
        raise ValueError(f"rows: wanted rows of one shape and dtype on all ranks, got {named}")
    return [one[0] for one in told], any(one[1] for one in told)


_TOLD = 8
_DTYPES = sorted({str(dtype) for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)})


def _all(rows: Tensor, sizes: list[int], group: dist.ProcessGroup) -> Tensor:
    """One message: shares that are filled up to the longest, of which the filling is left out.

    Bytes are sent, for not every backend knows every dtype.
    """
    most, trailing = max(sizes), rows.shape[1:]
    own = rows.new_zeros(most, trailing.numel())
    own[: len(rows)] = rows.reshape(len(rows), trailing.numel())
    every = own.new_empty(len(sizes) * most, trailing.numel())
    _gather(every.view(torch.uint8), own.view(torch.uint8), group=group)
    shares = every.view(len(sizes), most, trailing.numel())
    kept = torch.cat([share[:size] for share, size in zip(shares, sizes, strict=True)])
    return kept.view(sum(sizes), *trailing)


def _own(rows: Tensor, sizes: list[int], group: dist.ProcessGroup) -> Tensor:
    """The share of this rank in the sum of all ranks' rows; half types are added in float32."""
    wide = widen(rows)
    most, rank = max(sizes), dist.get_rank(group)
    filled = wide.new_zeros(len(sizes), most, *rows.shape[1:])
    for share, some, size in zip(filled, wide.split(sizes), sizes, strict=True):
        share[:size] = some
    mine = torch.empty_like(filled[0])
    _scatter(mine, filled.flatten(0, 1), group=group)
    return mine[: sizes[rank]].to(rows.dtype)


_gather: Any = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_scatter: Any = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
"""By their names since torch 2.13, or before."""


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(rows: Tensor, sizes: list[int], group: dist.ProcessGroup) -> Tensor:
        return _all(rows, sizes, group)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.sizes, ctx.group = inputs

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor, None, None]:
        return _Summed.apply(up, ctx.sizes, ctx.group), None, None


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(rows: Tensor, sizes: list[int], group: dist.ProcessGroup) -> Tensor:
        return _own(rows, sizes, group)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.sizes, ctx.group = inputs

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor, None, None]:
        return _Gathered.apply(up, ctx.sizes, ctx.group), None, None


gather = Gather()
"""The rows of every rank."""
