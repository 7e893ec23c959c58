"""A pretend accelerator: its tensors say that they live elsewhere, and are computed on the CPU.

What an accelerator would be asked to do is counted: kernels, the bytes that they move, and the
times that the host waits for them. Code that forgets where its tensors live meets an error, as it
would on a GPU. The engine takes these tensors for ordinary ones, so a loss goes the way that it
goes on a GPU, and backward runs in another thread, as it does there.

    device = register()
    x, y = logits.to(device).requires_grad_(), target.to(device)
    with counting() as bill:
        (slope,) = gradient(cross_entropy(x, y), x)
    print(bill.kernels, bill.moved, bill.waits)

PyTorch lets a process name one device of its own, and once: the first call of :func:`register`
does, and the name stays for the life of the process. Not for ``torch.compile``, autocast, or
``torch.func``.

A count is what CUDA launches: composites by their parts, gathers by what they fetch, scatters by
what they touch, expanded tensors by what is stored. A sort counts as one kernel, which it is not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._pytree import tree_leaves, tree_map

from aptt.core import ordinary

__all__ = ["DEVICE", "Bill", "Twist", "actual", "counting", "gradient", "missing", "register"]

DEVICE = "pretend"

Twist = Callable[[str, tuple[Any, ...], dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]]]
"""Given an operator's name and its arguments, with what is behind the tensors: other arguments."""


@dataclass
class Bill:
    """What was asked of the accelerator."""

    kernels: int = 0
    moved: int = 0
    """Bytes, read and written."""
    waits: list[str] = field(default_factory=list)
    """Why the host had to wait, each time: what it asked for, or brought."""
    faults: list[str] = field(default_factory=list)
    """What a GPU would have refused, in backward; in forward it is raised."""
    operators: set[str] = field(default_factory=set)
    """The names of all that were called, without overloads."""


_bill: Bill | None = None  # seen from every thread: backward has one of its own
_twist: Twist | None = None


def missing() -> str | None:
    """Why this process can have no pretend accelerator; None: it can."""
    if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        return "this PyTorch lets no process register a device in Python: 2.13 is needed"
    name = torch._C._get_privateuse1_backend_name()
    if name not in ("privateuseone", DEVICE):
        return f"the one device that a process may register is taken, by {name!r}"
    return None


class _Module(getattr(backend_registration, "_DummyBackendModule", object)):  # type: ignore[misc] # absent before 2.13
    """What ``torch.pretend`` would be."""

    def is_available(self) -> bool:
        """Only while something is counted: other libraries would take it for a GPU."""
        return _bill is not None

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]

    def get_rng_state(self, *device: object) -> Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, *state: object) -> None:
        pass


@cache
def register() -> torch.device:
    """Make the device known to this process.

    Raises:
        RuntimeError: it cannot be; :func:`missing` says why.
    """
    reason = missing()
    if reason is not None:
        raise RuntimeError(reason)
    backend_registration._setup_privateuseone_for_python_backend(DEVICE, backend_module=_Module())
    library = torch.library.Library("_", "IMPL")
    library.fallback(_run, "PrivateUse1")
    _held.append(library)
    ordinary.CLASSES.add(Pretended)
    return torch.device(DEVICE, 0)


_held: list[torch.library.Library] = []  # with them the registration would go


class Pretended(Tensor):
    """A tensor of the pretend accelerator; ``actual`` is what is behind it."""

    actual: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment] # how PyTorch says none

    @classmethod
    def __torch_dispatch__(  # type: ignore[override] # a class method, as PyTorch calls it
        cls, op: Any, types: object, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return _run(op, *args, **(kwargs or {}))

    def tolist(self) -> Any:
        """As of any tensor: the host waits."""
        _wait("tolist")
        return self.actual.tolist()

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override] # as Tensor has it, untyped
        return f"pretended({self.actual!r})"


def actual(t: Tensor) -> Tensor:
    """What is behind a tensor of the device; any other as it is."""
    return t.actual if isinstance(t, Pretended) else t


def _pretended(t: Tensor) -> Pretended:
    made: Pretended = Tensor._make_wrapper_subclass(
        Pretended,
        t.size(),
        strides=t.stride(),
        storage_offset=t.storage_offset(),
        dtype=t.dtype,
        device=torch.device(DEVICE, 0),
    )
    made.actual = t
    return made


@contextmanager
def counting(twist: Twist | None = None) -> Iterator[Bill]:
    """Count what is asked of the device inside, in any thread; raise its faults at the end.

    ``twist`` may give each operator other arguments than it was called with, and holds for what
    is counted within this too.
    """
    global _bill, _twist
    register()
    before = _bill, _twist
    bill = Bill()
    _bill, _twist = bill, twist or _twist
    try:
        with _Calls(), torch.autograd.set_multithreading_enabled(False):
            yield bill
    finally:
        _bill, _twist = before
    if bill.faults:
        raise RuntimeError(f"in backward: {bill.faults[0]}")


def gradient(value: Tensor, *to: Tensor, up: Tensor | None = None) -> tuple[Tensor, ...]:
    """The gradients of one number, taken in another thread. What is raised there is raised here.

    With ``up`` those of any tensor, times it.

    An operator of PyTorch's own that raises in there ends the process, whence
    :attr:`Bill.faults`; a ``backward`` written in Python may raise.
    """
    found: list[Tensor] = []
    raised: list[BaseException] = []

    def work() -> None:
        try:  # PyTorch's own threads may have been started before the device was known
            with _Calls(), torch.autograd.set_multithreading_enabled(False):
                found.extend(torch.autograd.grad(value, to, up))
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
    return tuple(found)


class _Calls(TorchFunctionMode):
    """Catches what makes a tensor of the device out of Python's numbers: a copy, and a wait."""

    def __torch_function__(
        self, function: Any, types: object, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(function, "__name__", "")
        if function in (torch.tensor, torch.as_tensor) and not isinstance(args[0], Tensor):
            device = kwargs.get("device", args[2] if len(args) > 2 else None)
            if device is not None and torch.device(device).type == DEVICE:
                kwargs["device"] = "cpu"
                _wait(f"{name}(..., device=)")
                return _pretended(function(args[0], *args[1:2], **kwargs))
        if function is Tensor.new_tensor and isinstance(args[0], Pretended):
            _wait(name)
            return _pretended(args[0].actual.new_tensor(*args[1:], **kwargs))
        return function(*args, **kwargs)


def _wait(why: str) -> None:
    if _bill is not None:
        _bill.waits.append(why)


# ---------------------------------------------------------------------------- the operators

_ASKS = {
    *("_local_scalar_dense", "equal", "nonzero", "is_nonzero", "masked_select", "allclose"),
    *("_unique", "_unique2", "unique_dim", "unique_consecutive", "bincount", "histc"),
}
"""Operators whose result, or its size, the host needs."""

_COPIES = {"_to_copy", "copy_", "_copy_from", "_copy_from_and_resize"}
_TAKES_CPU = {*_COPIES, "index", "index_put", "index_put_", "repeat_interleave"}
"""Operators that take a tensor of the CPU beside those of a device."""


def _run(op: Any, *args: Any, **kwargs: Any) -> Any:
    """An operator of the device: on the CPU, and on the bill."""
    name = op._schema.name.partition("::")[2]
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    ours = [t for t in tensors if isinstance(t, Pretended)]
    device = kwargs.get("device")
    stays = device is None or torch.device(device).type == DEVICE
    if ours and name not in _TAKES_CPU:
        strangers = [t for t in tensors if t.dim() and not isinstance(t, Pretended)]
        if strangers:
            shape = tuple(strangers[0].shape)
            _fault(f"{name} was given a tensor {shape} of the CPU beside one of the accelerator")
    if _waits(name, args, kwargs, stays):
        _wait(name)
    below = tree_map(lambda t: t.actual if isinstance(t, Pretended) else t, (args, kwargs))
    if device is not None:
        below[1]["device"] = torch.device("cpu")
    out = _computed(op, name, *below)
    if _bill is not None:
        _bill.operators.add(name)
        if not (op.is_view or name in _FREE or "empty" in name):
            kernels, moved = _cost(name, op, args, kwargs, out)
            _bill.kernels += kernels
            _bill.moved += moved
    written = [v for v, _ in _written(op, args, kwargs)]
    for t in tree_leaves(written):
        if isinstance(t, Pretended) and t.shape != t.actual.shape:  # as ``out=``, it was resized
            t.data = _pretended(t.actual)
    if written and len(written) == len(op._schema.returns):
        return written[0] if len(written) == 1 else tuple(written)
    if not stays:
        return out
    return tree_map(lambda t: _pretended(t) if isinstance(t, Tensor) else t, out)


def _computed(op: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if _twist is not None:
        try:
            other, named = _twist(name, args, kwargs)
            return op(*other, **named)
        except Exception as error:
            _fault(f"{name}, with other arguments: {error}")
    return op(*args, **kwargs)


def _fault(what: str) -> None:
    """Refuse, as a GPU would; but within backward an exception would end the process."""
    if torch._C._current_graph_task_id() == -1:
        raise RuntimeError(what)
    if _bill is not None:
        _bill.faults.append(what)


def _waits(name: str, args: Sequence[Any], kwargs: dict[str, Any], stays: bool) -> bool:
    """Whether the host waits, for an answer or until what it brought has been taken."""
    if name in _ASKS:
        return True
    if name == "repeat_interleave":
        return kwargs.get("output_size") is None
    if name == "index":
        return _by_mask(args[1])
    if name in ("index_put", "index_put_"):
        return _by_mask(args[1]) and args[2].numel() != 1
    if name in ("copy_", "_copy_from", "_copy_from_and_resize"):
        ahead = kwargs.get("non_blocking", args[2] if len(args) > 2 else False)
        return _foreign(args[0]) or (_foreign(args[1]) and not ahead)
    return name == "_to_copy" and (_foreign(args[0]) or not stays)


def _foreign(t: Any) -> bool:
    return not isinstance(t, Pretended)


def _by_mask(indices: Sequence[Any]) -> bool:
    return any(i is not None and (i.dtype == torch.bool or _foreign(i)) for i in indices)


def _written(op: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[tuple[Any, bool]]:
    """The arguments that an operator writes to, and whether it does not read them (``out=``)."""
    found = []
    for i, argument in enumerate(op._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            given = kwargs.get(argument.name, args[i] if i < len(args) else None)
            if given is not None:
                found.append((given, bool(argument.kwarg_only)))
    return found


# --------------------------------------------------------------------------------- what they cost

_FREE = {
    *("detach", "alias", "lift_fresh", "_unsafe_view", "_reshape_alias", "is_pinned"),
    *("is_same_size", "_has_same_storage_numel", "_local_scalar_dense"),
}
_FETCHES = {"gather", "index_select", "embedding", "take", "index"}
"""They read of their first argument what they return."""

_FILLS = {
    *("ones_like", "zeros_like", "full_like", "rand_like", "randn_like", "fill_", "zero_"),
    *("new_zeros", "new_ones", "new_full", "arange", "normal_", "uniform_", "copy_"),
    *("index_select_backward",),
}
"""They read nothing of what they are like, or write to."""

_AT = {"scatter", "scatter_add", "scatter_reduce", "index_put", "index_add", "index_fill"}
_AT |= {"index_copy", "masked_scatter", "slice_scatter", "select_scatter"}
"""They write where indices say: a trailing underscore is in place, else after a copy."""


def _cost(
    name: str, op: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Any
) -> tuple[int, int]:
    """Kernels and bytes of an operator, as CUDA has it."""
    outputs = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
    returned = sum(map(_stored, outputs))
    inputs = {id(t): t for t in tree_leaves((args, kwargs)) if isinstance(t, Pretended)}
    first: Any = args[0] if args else None
    rest = sum(_stored(t) for t in inputs.values() if t is not first)
    if name == "binary_cross_entropy_with_logits":  # clamps, logarithm, products; then the mean
        whole = _stored(first)
        return (5, 11 * whole + returned) if outputs[0].dim() < first.dim() else (4, 10 * whole)
    if name == "logsumexp":  # top, difference, exponential, sum, logarithm, and two selections
        return 9, 6 * _stored(first) + 10 * returned
    if name in ("nll_loss_backward", "nll_loss2d_backward"):  # zeros, and one number a row
        return 2, returned + _stored(args[2])
    if name in ("nll_loss_forward", "nll_loss2d_forward"):
        return 1, args[1].numel() * first.element_size() + rest + returned
    if name == "log_sigmoid_forward":
        return 1, _stored(first) + _stored(outputs[0])
    if name == "masked_fill":
        return 2, 3 * returned + rest
    if name in _AT:
        return 2, 2 * returned + 2 * rest
    if name.removesuffix("_") in _AT:
        return 1, rest + _touched(name, first, list(inputs.values()))
    if name in _FETCHES:
        return 1, min(_stored(first), returned) + rest + returned
    if name in _FILLS:
        return 1, returned + (rest if name == "copy_" else 0)
    blind = [id(t) for t, unread in _written(op, args, kwargs) if unread]
    return 1, sum(_stored(t) for key, t in inputs.items() if key not in blind) + returned


def _touched(name: str, into: Tensor, inputs: Sequence[Tensor]) -> int:
    """Bytes of what an operator in place writes, and reads before if it adds."""
    sizes = [t.numel() for t in inputs if t is not into and t.dtype == torch.int64]
    if name.startswith("index"):
        sizes += [t.numel() for t in inputs if t is not into and t.dtype != torch.bool]
    return max(sizes, default=0) * into.element_size() * (2 if "add" in name else 1)


def _stored(t: Tensor) -> int:
    """Bytes behind a tensor; of an expanded one, those that are there."""
    size = t.element_size()
    for length, stride in zip(t.shape, t.stride(), strict=True):
        size *= length if stride else min(length, 1)
    return size
