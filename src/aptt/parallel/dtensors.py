"""Any loss on DTensors: each rank computes on what it holds, and all get the loss of the whole."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial, update_wrapper
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.placement_types import Replicate, Shard

from aptt.core.ordinary import placed
from aptt.parallel.classes import TOKENS, by_classes, class_cut, name_of
from aptt.parallel.placing import check_rows, check_sequences
from aptt.parallel.summing import over_groups
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
        with over_groups(call, kwargs, groups) as (known, none):
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
