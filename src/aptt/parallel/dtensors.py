"""Any loss on DTensors: each rank computes on what it holds, and all get the loss of the whole."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial, update_wrapper
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.placement_types import Replicate, Shard

from aptt.core.module import LossModule
from aptt.core.ordinary import placed
from aptt.core.reduction import Kind, Reduction, hear, normalize
from aptt.parallel.classes import TOKENS, by_classes, class_cut, name_of
from aptt.parallel.gathering import Gather
from aptt.parallel.placing import check_rows, check_sequences
from aptt.parallel.ranks import to_send
from aptt.parallel.vocabulary import replicated

__all__ = ["sharded"]


def sharded(loss: nn.Module | Callable[..., Any]) -> Callable[..., Any]:
    """A loss that takes DTensors where ``loss`` takes tensors, and gives the loss of the whole.

    ======================  =======================================================================
    placed                  computed
    ======================  =======================================================================
    ``Shard(d)``, rows      each rank's rows; totals and counts are added up over the ranks. All
                            that has these rows is sharded alike: predictions, targets, masks
    ``Shard``, classes      cross-entropy and distillation, from logits ``(..., C)`` with
                            ``Shard(-1)`` or from a head with ``Shard(0)``: as the
                            ``vocab_parallel`` losses; targets are ``Replicate()``
    ``Replicate()``         on every rank. Beside rows that are sharded, such as a head's weight:
                            its gradient is that of all rows
    a plain tensor          this rank's own, as it is
    ======================  =======================================================================

    Args:
        loss: one of our losses, as a function or a module, a sum of several in a module too.

    Returns:
        A callable with the same arguments. What it returns is a plain tensor, the same on every
        rank of the mesh; with ``reduction="none"`` a ``DTensor``, placed as the rows are. Its
        gradient is that of the whole in each ``DTensor``, placed as that is. A ``reduction`` that
        is a normalizer is given totals and counts of the mesh: :func:`global_mean` of other ranks
        goes on from there.

    Raises:
        TypeError: a ``DTensor`` that no loss of this kind can be computed from as it is placed,
            such as a pack whose sequences count.
        ValueError: meshes that differ, two tensors that are cut along different axes, ratios that
            cannot be added up over ranks, pairs whose shards differ.

    Use when:
        Tensor, sequence or context parallelism leaves logits, or hidden states, as DTensors.

    Differs from:
        torch: ``F.cross_entropy`` takes DTensors by itself, but gathers logits with ``Shard(-1)``
            outside of ``loss_parallel``.

    Example:
        >>> import torch
        >>> from aptt.loss import cross_entropy
        >>> logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 3.0, 0.0]])  # plain tensors: this rank's
        >>> round(sharded(cross_entropy)(logits, torch.tensor([0, 1])).item(), 4)
        0.1672
    """
    if not callable(loss):
        raise TypeError(f"loss: got {type(loss).__name__}, wanted a loss, a function or a module")

    def over_mesh(*args: Any, **kwargs: Any) -> Any:
        given = dict(_named_tensors(loss, args, kwargs))
        if not given:
            return loss(*args, **kwargs)
        mesh = _mesh(given)
        cut = class_cut(loss, given)
        axes = _rows(loss, given, mesh, cut)
        check_sequences(loss, given, kwargs)
        groups = [mesh.get_group(dim) for dim in axes]
        local = partial(_taken, axes=axes)
        args, kwargs = _each(args, local), _each(kwargs, local)
        call = loss
        if cut is not None:
            call, kwargs = by_classes(loss, args, kwargs, mesh.get_group(cut))
            args = ()
        with _reduced(call, kwargs, groups) as (known, none):
            try:
                found = known(*args)
            except ValueError as error:
                shards = ", ".join(f"{name} {placed(t)}" for name, t in given.items())
                raise ValueError(f"{error}. These are this rank's shards of {shards}") from error
        first = next(iter(given.values()))
        return _each(found, partial(_put, like=first, axes=axes)) if none else found

    if not isinstance(loss, nn.Module):
        update_wrapper(over_mesh, loss)
    return over_mesh


def _named_tensors(
    loss: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Iterator[tuple[str, DTensor]]:
    """Every ``DTensor`` that is passed, by the name of its argument."""
    function = loss.forward if isinstance(loss, nn.Module) else loss
    names = list(inspect.signature(function).parameters)
    names += [f"argument {i}" for i in range(len(names), len(args))]
    for name, value in [*zip(names, args, strict=False), *kwargs.items()]:
        yield from _found(name, value)


def _found(name: str, value: Any) -> Iterator[tuple[str, DTensor]]:
    if isinstance(value, DTensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from _found(f"{name}[{key!r}]", one)
    elif isinstance(value, tuple | list):
        for i, one in enumerate(value):
            yield from _found(f"{name}[{i}]", one)


def _each(value: Any, change: Callable[[Any], Any]) -> Any:
    """The same, with every tensor changed."""
    if isinstance(value, Mapping):
        return {key: _each(one, change) for key, one in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_make"):
        return value._make(_each(one, change) for one in value)
    if isinstance(value, tuple | list):
        return type(value)(_each(one, change) for one in value)
    return change(value) if isinstance(value, Tensor) else value


def _mesh(given: Mapping[str, DTensor]) -> DeviceMesh:
    (first, t), *others = given.items()
    for name, other in others:
        if other.device_mesh != t.device_mesh:
            raise ValueError(
                f"{name}: got a DTensor on {other.device_mesh}, wanted it on that of {first}, "
                f"{t.device_mesh}"
            )
    for name, one in given.items():
        if any(p.is_partial() for p in one.placements):
            raise TypeError(
                f"{name}: got a DTensor placed as {placed(one)}, wanted Shard or Replicate: "
                f"{name}.redistribute(placements=...) adds the parts up"
            )
    return t.device_mesh


# ------------------------------------------------------------------------------------- rows


def _rows(
    loss: Any, given: Mapping[str, DTensor], mesh: DeviceMesh, classes: int | None
) -> dict[int, int]:
    """The axis of rows that each dimension of the mesh has cut, but for that of the classes."""
    axes: dict[int, int] = {}
    for dim in range(mesh.ndim):
        cut = {
            name: p.dim % t.ndim
            for name, t in given.items()
            if isinstance(p := t.placements[dim], Shard)
        }
        if dim == classes or not cut:
            continue
        if len(set(cut.values())) > 1:
            named = ", ".join(f"{name} along axis {axis}" for name, axis in cut.items())
            raise ValueError(
                f"DTensors cut along different axes by one dimension of the mesh: {named}; wanted "
                "the same rows of each"
            )
        ((name, axis), *_) = cut.items()
        t = given[name]
        check_rows(loss, given, cut)
        if axis and (name_of(loss) not in TOKENS or axis == t.ndim - 1):
            raise TypeError(
                f"{name}: got a DTensor placed as {placed(t)}, wanted its rows sharded, Shard(0); "
                "tokens along any axis, and classes, are for cross-entropy and distillation"
            )
        axes[dim] = axis
    return axes


def _taken(t: Tensor, axes: Mapping[int, int]) -> Tensor:
    """What this rank holds. Of what all hold, each rank's rows add a part to the gradient."""
    if not isinstance(t, DTensor):
        return t
    held = t.to_local(grad_placements=t.placements)
    for dim in axes if held.requires_grad else ():
        if t.placements[dim].is_replicate():
            held = replicated(held, t.device_mesh.get_group(dim))
    return held


def _put(value: Tensor, like: DTensor, axes: Mapping[int, int]) -> DTensor:
    """A value for each row, as a ``DTensor``."""
    mesh = like.device_mesh
    placements = [Shard(axes[dim]) if dim in axes else Replicate() for dim in range(mesh.ndim)]
    shape = list(value.shape)
    for axis in set(axes.values()):
        shape[axis] = like.shape[axis]
    strides = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(
        value.contiguous(),
        mesh,
        placements,
        run_check=False,
        shape=torch.Size(shape),
        stride=strides,
    )


@contextmanager
def _reduced(
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


_OF_RANKS = ("reduction", "pool", "gather")


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
