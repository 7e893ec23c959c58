"""A head whose parameters FSDP2 has spread over ranks, gathered once for a loss in chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.placement_types import Partial

from aptt.parallel.ranks import check_average

__all__ = ["unsharded"]


@overload
def unsharded(
    head: Tensor, *, dtype: torch.dtype | None = None, grad_average: float | None = None
) -> Tensor: ...
@overload
def unsharded(
    head: nn.Module, *, dtype: torch.dtype | None = None, grad_average: float | None = None
) -> Callable[[Tensor], Tensor]: ...
def unsharded(
    head: Tensor | nn.Module,
    *,
    dtype: torch.dtype | None = None,
    grad_average: float | None = None,
) -> Tensor | Callable[[Tensor], Tensor]:
    """A head that FSDP2 has sharded, gathered once, for the linear losses.

    Called as a module, a unit of FSDP gathers its parameters with every chunk, and sends their
    gradients with every chunk: ranks that have more chunks than others would wait for ever. This
    sends two messages a parameter, one here and one in backward, whatever the number of chunks; so
    every rank calls backward, one without tokens too.

    Args:
        head: a weight or a bias, as ``fully_shard`` leaves it outside of its unit's forward; or the
            unit itself, such as a layer wrapped by LoRA. What is not sharded is taken as it is.
        dtype: what it is gathered, and its gradient is averaged, in; None: its own.
        grad_average: what the gradients are divided by after they have been added up over ranks;
            None: the number of ranks, as FSDP does. 1 where its division is switched off.

    Returns:
        The whole weight, whose gradient goes to the shards; or a callable that makes the logits of
        hidden states with the whole parameters. For this step: it is stale once the optimizer has
        stepped.

    Raises:
        TypeError: neither a tensor nor a module.

    Use when:
        ``fully_shard(model.lm_head)``, and the loss is taken outside of the model.

    Differs from:
        torch: ``weight.full_tensor()`` gives each rank the gradient of its own tokens alone, and
            nothing says so; ``full_tensor(grad_placements=[Partial("avg")])`` is this.

    Example:
        >>> import torch
        >>> from aptt.loss import linear_cross_entropy
        >>> head = torch.nn.Linear(2, 3, bias=False)  # fully_shard(head), on several ranks
        >>> hidden, target = torch.zeros(4, 2), torch.tensor([0, 1, 2, 0])
        >>> round(linear_cross_entropy(hidden, unsharded(head.weight), target).item(), 4)
        1.0986
    """
    check_average(grad_average)
    if isinstance(head, Tensor):
        return _whole(head, dtype, grad_average)
    if not isinstance(head, nn.Module):
        raise TypeError(f"head: got {type(head).__name__}, wanted a parameter or a module")
    once: dict[int, Tensor] = {}  # a tied parameter has two names
    found = {}
    for name, p in head.named_parameters(remove_duplicate=False):
        if id(p) not in once:
            once[id(p)] = _whole(p, dtype, grad_average)
        found[name] = once[id(p)]

    def logits(hidden: Tensor) -> Tensor:
        with _holding(head, found):
            made: Tensor = head.forward(hidden)  # as itself: FSDP's hooks come with a call
            return made

    return logits


def _whole(t: Tensor, dtype: torch.dtype | None, average: float | None) -> Tensor:
    if not isinstance(t, DTensor):
        return t if dtype is None else t.to(dtype)
    sent: Any = t if dtype is None else t.to(dtype)
    how = Partial("avg" if average is None else "sum")
    whole: Tensor = sent.full_tensor(grad_placements=[how] * t.device_mesh.ndim)
    if average is not None and average != 1:
        whole = _Divided.apply(whole, average)
    return whole


class _Divided(torch.autograd.Function):
    """The same number, and its gradient over another."""

    @staticmethod
    def forward(ctx: Any, whole: Tensor, by: float) -> Tensor:
        ctx.by = by
        return whole.view_as(whole)

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor, None]:
        return up / ctx.by, None


@contextmanager
def _holding(head: nn.Module, found: Mapping[str, Tensor]) -> Iterator[None]:
    """``head`` with other tensors in place of its parameters; its own again afterwards."""
    places = []
    for name, whole in found.items():
        path, _, own = name.rpartition(".")
        places.append((head.get_submodule(path)._parameters, own, whole))
    before = [held[own] for held, own, _ in places]
    try:
        for held, own, whole in places:
            held[own] = whole  # type: ignore[assignment]  # which need not be a parameter
        yield
    finally:
        for (held, own, _), parameter in zip(places, before, strict=True):
            held[own] = parameter
