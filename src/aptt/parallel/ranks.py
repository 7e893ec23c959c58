"""Who takes part: a process group, one dimension of a device mesh, or this process alone."""

from __future__ import annotations

from torch import Tensor
from torch import distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from aptt.core.checks import check_number, check_positive
from aptt.core.ordinary import is_readable
from aptt.core.precision import widest

__all__ = ["Group", "check_average", "check_count", "group_of", "size_of", "to_send"]

Group = dist.ProcessGroup | DeviceMesh | None
"""None is every rank there is."""


def group_of(group: Group) -> dist.ProcessGroup | None:
    """The process group; None where there is no other rank to talk to."""
    if not dist.is_available() or not dist.is_initialized():
        return None
    if isinstance(group, DeviceMesh):
        if group.ndim != 1:
            raise ValueError(
                f"group: got a device mesh of {group.ndim} dimensions, wanted one: mesh['dp']"
            )
        group = group.get_group()
    found = dist.group.WORLD if group is None else group
    if found is None or dist.get_rank(found) < 0:
        raise ValueError("group: this rank is not a member of it")
    return None if dist.get_world_size(found) == 1 else found


def size_of(group: Group) -> int:
    """How many ranks take part."""
    found = group_of(group)
    return 1 if found is None else dist.get_world_size(found)


def to_send(count: Tensor) -> Tensor:
    """A copy of a count in the one dtype that all ranks send, float64 where the device has it.

    A rank's count is whole or not as its own options have it; a message of mixed dtypes would add
    up raw bits.
    """
    return count.detach().to(widest(count), copy=True)


def check_count(name: str, count: float | Tensor) -> None:
    """Hold a count to one number of at least 0. One that lies on a device is not waited for."""
    if isinstance(count, Tensor):
        if count.ndim:
            raise ValueError(f"{name}: got shape {tuple(count.shape)}, wanted one number")
        if not is_readable(count):
            return
        count = count.item()
    check_number(name, count)


def check_average(grad_average: float | None) -> None:
    """Hold what gradients are divided by to a positive number; None is the number of ranks."""
    if grad_average is not None:
        check_positive("grad_average", grad_average)
