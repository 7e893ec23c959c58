"""One call, held to its oracle: value, gradients, dtype, shape, and the error where it is wrong."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

import aptt.loss
from aptt.audit import pretend
from aptt.core.engine import engine, walking
from aptt.core.module import LossModule
from tests.fuzz.draw import HALVES, Call, Loss

__all__ = [
    "MODULES",
    "Failure",
    "Outcome",
    "called",
    "check",
    "computed",
    "function",
    "leaves",
    "mapped",
    "module_form",
    "ours",
    "truth",
]

RELATIVE = {torch.float32: 2e-5, torch.float64: 1e-9}
ROUNDINGS = 32
"""Of the largest number of a row, in each number that is a sum over the row."""
UNDERFLOW = {torch.float32: 1e-33, torch.float64: 1e-285}
NOISE = {torch.float32: 2**-38, torch.float64: 256 * torch.finfo(torch.float64).eps}
"""Of the largest number beside, in sums that are in float64 even of float32."""


@dataclass(frozen=True)
class Failure:
    """What came out otherwise than the oracle says."""

    kind: str
    message: str
    off: float = math.inf
    """By what share of the exact number the worst one is off."""
    got: float = math.nan
    wanted: float = math.nan
    largest: float = math.nan
    """Of all the numbers that were wanted."""


@dataclass
class Outcome:
    """Results by name, and gradients by the path of their argument."""

    values: dict[str, Tensor]
    grads: dict[str, Tensor]


def function(name: str) -> Callable[..., Any]:
    return getattr(aptt.loss, name)


def mapped(tree: Any, make: Callable[[str, Tensor], Any], path: str = "") -> Any:
    """The tree with what ``make`` gives of each tensor's path and the tensor."""
    if isinstance(tree, Tensor):
        return make(path, tree)
    if isinstance(tree, dict):
        at = "[{!r}]" if path else "{}"
        return {key: mapped(value, make, path + at.format(key)) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        made = [mapped(value, make, f"{path}[{i}]") for i, value in enumerate(tree)]
        return tree._make(made) if hasattr(tree, "_make") else type(tree)(made)
    return tree


def leaves(tree: Any) -> Iterator[tuple[str, Tensor]]:
    """Paths and tensors."""
    found: list[tuple[str, Tensor]] = []
    mapped(tree, lambda path, t: found.append((path, t)))
    yield from found


def check(loss: Loss, call: Call) -> Failure | None:
    """Compare; None if all is as the oracle says."""
    before = mapped(call.args, lambda _, t: t.detach().clone())
    if call.wrong:
        return _check_error(call)
    try:
        got = ours(call)
    except Exception as error:
        return Failure("raised", f"{type(error).__name__}: {error}")
    for (path, t), (_, was) in zip(leaves(call.args), leaves(before), strict=True):
        if not bool(((t == was) | ((t != t) & (was != was))).all()):
            return Failure("changed", f"{path} was changed in place")
    try:
        return _compare(loss, call, got, truth(loss, call))
    except Exception as error:
        return Failure("oracle", f"it raised {type(error).__name__}: {error}")


def _check_error(call: Call) -> Failure | None:
    name, kinds, loose = call.wrong
    try:
        ours(call)
    except Exception as error:
        if not isinstance(error, kinds):
            return Failure("wrong error", f"{type(error).__name__}: {error}")
        named = inspect.signature(function(call.name)).parameters if loose else (name,)
        if not any(key in str(error) for key in named):
            return Failure("unnamed error", f"{name} is wrong; {type(error).__name__}: {error}")
        return None
    return Failure("accepted", f"{name} is wrong, and nothing was raised")


def _ups(call: Call, values: dict[str, Tensor]) -> list[Tensor]:
    """Upstream gradients, the same for both sides."""
    g = torch.Generator().manual_seed(sum(map(ord, call.seed)))
    steps = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    picks = [torch.randint(4, v.shape, generator=g) for v in values.values()]
    return [steps[at].to(v.dtype) for at, v in zip(picks, values.values(), strict=True)]


def _named(result: Any) -> dict[str, Tensor]:
    if isinstance(result, Tensor):
        return {"loss": result}
    if hasattr(result, "_asdict"):
        return dict(result._asdict())
    return dict(result)


def _differentiated(call: Call, run: Callable[..., Any], args: dict[str, Any]) -> Outcome:
    values = _named(run(args))
    if call.engine == "pretend":
        return _abroad(call, values, args)
    asked = {path: t for path, t in leaves(args) if t.requires_grad}
    ups = _ups(call, values)
    # of one term, as those of several are rounded before they are added up
    one = sum(map(ord, call.seed)) % len(values)
    on_graph = [
        (v, up)
        for v, up in list(zip(values.values(), ups, strict=True))[one : one + 1]
        if v.requires_grad
    ]
    grads: tuple[Tensor | None, ...] = (None,) * len(asked)
    if on_graph and asked:
        outputs, ups = zip(*on_graph, strict=True)
        grads = torch.autograd.grad(outputs, list(asked.values()), ups, allow_unused=True)
    return Outcome(
        values,
        {
            path: torch.zeros_like(t) if grad is None else grad
            for (path, t), grad in zip(asked.items(), grads, strict=True)
        },
    )


def _abroad(call: Call, values: dict[str, Tensor], args: dict[str, Any]) -> Outcome:
    """The same on the pretended device, whose backward has a thread of its own."""
    asked = {path: t for path, t in leaves(args) if t.requires_grad}
    one = sum(map(ord, call.seed)) % len(values)
    value = list(values.values())[one]
    found = {path: torch.zeros_like(t) for path, t in asked.items()}
    if value.requires_grad:
        up = _ups(call, {key: pretend.actual(v) for key, v in values.items()})[one].to(value.device)
        reached = _reached(value, asked)
        grads = pretend.gradient(value, *reached.values(), up=up)
        found |= dict(zip(reached, grads, strict=True))
    return Outcome(values, found)


def _reached(value: Tensor, asked: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those leaves that the graph of the value leads to."""
    seen, left, ends = set(), [value.grad_fn], set()
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            ends.add(id(node.variable))
        left += [after for after, _ in node.next_functions]
    return {path: t for path, t in asked.items() if id(t) in ends}


def ours(call: Call) -> Outcome:
    """What the package says, by the way that the call is to take."""
    place = "cpu" if call.engine != "pretend" or pretend.missing() else pretend.register()

    def leaf(path: str, t: Tensor) -> Tensor:
        t = t.detach().to(place)
        return t.requires_grad_(_asks(call, path) and t.is_floating_point())

    args = mapped(call.args, leaf)
    run = called(call)
    if call.engine == "pretend":
        with pretend.counting():
            found = _differentiated(call, run, args)
        values, grads = (
            {key: pretend.actual(t).detach().requires_grad_(t.requires_grad) for key, t in each}
            for each in (found.values.items(), found.grads.items())
        )
        return Outcome(values, grads)
    if call.engine == "traced":
        torch._dynamo.reset()
        compiled = torch.compile(lambda args: run(args), backend="aot_eager", dynamic=False)
        return _differentiated(call, compiled, args)
    mode = "plain" if call.engine == "plain" else "auto"
    in_one = call.engine == "in one block"
    with engine(mode), walking(call.block, lambda cuts: None, in_one=in_one):
        return _differentiated(call, run, args)


def called(call: Call) -> Callable[[dict[str, Any]], Any]:
    """The function, or where the call is to take it the module, of the call's arguments."""
    run = function(call.name)
    if call.module and (form := module_form(call)) is not None:
        kind, options = form

        def as_module(args: dict[str, Any]) -> Any:
            loss_fn = kind(**{key: value for key, value in args.items() if key in options})
            for _, t in leaves(args):  # numbers from a list go where the first tensor is
                loss_fn = loss_fn.to(t.device)
                break
            given = {key: value for key, value in args.items() if key not in options}
            return loss_fn.terms(**given) if kind.terms_function is run else loss_fn(**given)

        return as_module
    return lambda args: run(**args)


def module_form(call: Call) -> tuple[type[LossModule], set[str]] | None:
    """The module of a function, and what of the call its constructor takes.

    None: there is none, or the call says what a module has no word for, such as options that learn.
    """
    kind = MODULES.get(call.name)
    if kind is None:
        return None
    options = {*inspect.signature(kind.__init__).parameters} & call.args.keys()
    taken = inspect.signature(kind.forward).parameters
    learns = any(key in options for key in call.grads)
    return None if learns or call.args.keys() - options - taken.keys() else (kind, options)


def _modules() -> dict[str, type[LossModule]]:
    found = {}
    for kind in vars(aptt.loss).values():
        if isinstance(kind, type) and issubclass(kind, LossModule):
            if named := re.search(r"Module form of :func:`(\w+)`", kind.__doc__ or ""):
                found[named[1]] = kind
            if kind.terms_function is not None:
                found[kind.terms_function.__name__] = kind
    return found


MODULES = _modules()
"""By the name of the function."""


def _asks(call: Call, path: str) -> bool:
    return path.split("[")[0] in call.grads


def computed(call: Call) -> torch.dtype:
    """The dtype of the computation: that of the prediction, float32 for half types."""
    dtypes = [t.dtype for path, t in leaves(call.args) if path.split("[")[0] == call.grads[0]]
    dtype = dtypes[0]
    for other in dtypes[1:]:
        dtype = torch.promote_types(dtype, other)
    return torch.float32 if dtype in HALVES else dtype


def truth(loss: Loss, call: Call, nudge: Callable[[str, Any], Any] | None = None) -> Outcome:
    """What the oracle says of the inputs as they are rounded."""
    wide = computed(call)

    def leaf(path: str, t: Tensor) -> Tensor:
        if not t.is_floating_point():
            return t
        exact = (t if path.split("[")[0] == call.grads[0] else t.to(wide)).double().contiguous()
        if nudge:
            exact = nudge(path, exact)
        return exact.detach().clone().requires_grad_(_asks(call, path))

    args = mapped(call.args, leaf)
    if nudge:
        args = {key: nudge(key, v) if type(v) is float else v for key, v in args.items()}
    bound = inspect.signature(function(call.name)).bind(**args)
    bound.apply_defaults()
    return _differentiated(call, lambda _: loss.oracle(SimpleNamespace(**bound.arguments)), args)


def _compare(loss: Loss, call: Call, got: Outcome, want: Outcome) -> Failure | None:
    wide = computed(call)
    if got.values.keys() != want.values.keys():
        return Failure("terms", f"got {list(got.values)}, wanted {list(want.values)}")
    for key, value in got.values.items():
        exact = want.values[key]
        if value.dtype != (loss.dtype or wide):
            return Failure("dtype", f"{key}: got {value.dtype}, wanted {loss.dtype or wide}")
        if value.shape != exact.shape:
            return Failure("shape", f"{key}: got {tuple(value.shape)}, wanted {tuple(exact.shape)}")
        if got.grads and not value.requires_grad and key not in loss.watched:
            return Failure("graph", f"{key} has no gradient")
    pairs = [
        (f"value of {key}", got.values[key], want.values[key].detach(), loss.unit)
        for key in got.values
    ]
    if loss.several is None or not loss.several(call):
        pairs += [
            (f"gradient of {path}", got.grads[path], want.grads[path], loss.slope_unit)
            for path in got.grads
        ]
    tensors = dict(leaves(call.args))
    slack: dict[str, Tensor] | None = None
    for kind, ours_, exact, unit in pairs:
        path = kind.removeprefix("gradient of ")
        if path in tensors and ours_.dtype != tensors[path].dtype:
            return Failure(kind, f"dtype: got {ours_.dtype}, wanted {tensors[path].dtype}")
        room = _room(loss, exact, ours_.dtype, wide, unit)
        if _within(ours_, exact, room):
            continue
        slack = _slack(loss, call, want) if slack is None else slack
        room = room + slack[kind]
        if loss.limit is not None and path.split("[")[0] in ("", call.grads[0], kind):
            room = room + loss.limit(call)[kind.startswith("gradient")]
        elif loss.limit is not None and path in (factors := loss.passed_on(call)):
            room = room + loss.limit(call)[1] * factors[path]
        if path in (units := loss.beside(call)):
            room = room + ROUNDINGS * torch.finfo(wide).eps * units[path]
        if path in tensors and path.split("[")[0] != call.grads[0]:
            eps = max(torch.finfo(dtype).eps for dtype in (ours_.dtype, wide))
            room = room + eps * slack[kind + " of the sum"]
        if _within(ours_, exact, room):
            continue
        if path.endswith("weight") and exact.shape == tensors[path].shape:
            removed = tensors[path] == 0
            if _within(torch.where(removed, exact.to(ours_.dtype), ours_), exact, room):
                kind += " where it is 0"
        return Failure(kind, *_worst(ours_, exact, room))
    return None


def _room(loss: Loss, exact: Tensor, dtype: torch.dtype, wide: torch.dtype, unit: float) -> Tensor:
    """How far each number may be off."""
    wide = torch.float32 if loss.dtype == torch.float32 else wide
    size = exact.abs().nan_to_num(0.0, 0.0, 0.0)
    room = (size + unit) * RELATIVE[wide] + UNDERFLOW[wide]
    if loss.rows is not None and exact.ndim and exact.numel():
        row = size.flatten(max(min(loss.rows % exact.ndim, exact.ndim - 1), 0)).amax(-1)
        row = row.reshape(*row.shape, *[1] * (exact.ndim - row.ndim))
        room = room + ROUNDINGS * torch.finfo(wide).eps * row
    if dtype != wide:
        info = torch.finfo(dtype)
        room = room + info.eps * size + info.smallest_normal * info.eps
    return room


def _within(got: Tensor, exact: Tensor, room: Tensor) -> bool:
    return not bool(_off(got, exact, room).any())


def _off(got: Tensor, exact: Tensor, room: Tensor) -> Tensor:
    """Which numbers are off; one that the dtype does not hold is to be infinite, or its largest."""
    top = torch.finfo(got.dtype).max
    far = exact.abs() >= 0.99 * top
    got = got.double()
    near = (got - exact).abs() <= room
    huge = far & (got.abs() >= 0.98 * top) & (got.sign() == exact.sign())
    return ~(near | huge | (got.isnan() & exact.isnan()))


def _worst(got: Tensor, exact: Tensor, room: Tensor) -> tuple[str, float, float, float, float]:
    off = _off(got, exact, room)
    excess = torch.where(off, (got.double() - exact).abs() / room, 0.0).nan_to_num(torch.inf)
    at = tuple(int(i) for i in torch.unravel_index(excess.argmax(), excess.shape))
    where = f" at {at}" if at else ""
    is_, wanted = got[at].item(), exact[at].item()
    text = (
        f"got {is_:.9g}, wanted {wanted:.9g}{where} "
        f"(allowed: {room[at].item():.3g}; {int(off.sum())} of {off.numel()} are off)"
    )
    return (
        text,
        (abs(is_ - wanted) / abs(wanted) if wanted else math.inf),
        is_,
        wanted,
        exact.abs().nan_to_num(0.0, 0.0, 0.0).max().item(),
    )


def _slack(loss: Loss, call: Call, want: Outcome) -> dict[str, Tensor]:
    """What the rounding of conceded inputs moves the exact results by; whole numbers have none.

    And for what a mean counts: of how large numbers its gradient is the difference.
    """
    names, rounded, eps = loss.conceded(call), loss.rounded(call), torch.finfo(computed(call)).eps
    if loss.products:
        eps = max(torch.finfo(t.dtype).eps for _, t in leaves(call.args) if t.is_floating_point())
    slack = {f"value of {key}": torch.zeros_like(v) for key, v in want.values.items()}
    slack |= {f"gradient of {path}": torch.zeros_like(g) for path, g in want.grads.items()}
    # a rounding at a time, for what is smooth; as many at once, for what has an edge within them
    for turn, (many, times) in enumerate(4 * [(1.0, loss.slack)] + 4 * [(loss.slack, 1.0)]):
        if not names and not rounded:
            break
        g, off = torch.Generator().manual_seed(turn), many * eps

        def nudge(path: str, value: Any, g: torch.Generator = g, off: float = off) -> Any:
            name = path.split("[")[0]
            if name not in names and name not in rounded:
                return value
            sign = torch.randint(2, getattr(value, "shape", ()), generator=g).double() * 2 - 1
            if isinstance(value, float):
                return value * (1 + off * sign.item())
            if name in rounded:
                moved = value + off * sign * (value.abs() + rounded[name])
                if name == "target" and value.numel():  # which has a range
                    moved = moved.clamp(value.min(), value.max())
                return torch.where(value.isfinite(), moved, value)
            return torch.where(value == value.round(), value, value * (1 + off * sign))

        moved = truth(loss, call, nudge)
        for key, v in moved.values.items():
            by = (v - want.values[key]).abs().detach()
            slack[f"value of {key}"] += times * by.nan_to_num(0.0)
        for path, v in moved.grads.items():
            by = (v - want.grads[path]).abs()
            slack[f"gradient of {path}"] += times * by.nan_to_num(0.0)
    # the oracle's own rounding, beside the gradients of a call that is near this one
    g = torch.Generator().manual_seed(0)

    alike = loss.alike(call)

    def move(path: str, value: Any) -> Any:
        if alike and path == "target":
            return torch.rand(value.shape, generator=g, dtype=value.dtype)
        if path.split("[")[0] != call.grads[0] or not isinstance(value, Tensor):
            return value
        mean = value.abs().nan_to_num(0.0, 0.0, 0.0).mean().nan_to_num(0.0)
        size = value.abs() + (mean if mean > 0 else 1.0)
        return value + 0.01 * torch.randn(value.shape, generator=g) * size

    kinked = loss.kinked(call) if callable(loss.kinked) else loss.kinked
    kink = ROUNDINGS * eps * (64 if alike else 1) if kinked or alike else 0.0
    noise = NOISE[computed(call)]
    near = truth(loss, call, move)
    for path, grad in near.grads.items():
        largest = grad.abs().nan_to_num(0.0, 0.0, 0.0).max().item() if grad.numel() else 0.0
        slack[f"gradient of {path}"] += (noise + kink) * largest
        size = dict(leaves(call.args))[path].abs().double().nan_to_num(0.0, 0.0, 0.0)
        most = max((v.abs().max().item() for v in want.values.values() if v.numel()), default=0.0)
        most = most if math.isfinite(most) else 0.0
        if size.numel() and path.split("[")[0] == call.grads[0]:
            slack[f"gradient of {path}"] += noise * most / max(1.0, size.max().item())
        elif size.numel() and size.max() > 0:
            # a weight that changes by a rounding of its own moves the loss by one of the loss
            own = size if path.endswith("weight") and not loss.products else size.max()
            own = torch.where(own > 0, own, size.max())
            slack[f"gradient of {path}"] += ROUNDINGS * eps * most / own
            slack[f"gradient of {path}"] += noise * most / torch.where(size > 0, size, size.max())
        if loss.lengths is not None and path == call.grads[0]:
            length = loss.lengths(call)  # the upstream gradient is about the same for all rows
            each = (want.grads[path].abs() * length).nan_to_num(0.0, 0.0, 0.0)
            beside = torch.where(length > 0, each.amax() / length, 0.0)
            slack[f"gradient of {path}"] += ROUNDINGS * eps * beside
    total, shares = want, [torch.ones(())]
    if call.args.get("reduction", "mean") not in ("sum", "none") and "reduction" in (
        inspect.signature(function(call.name)).parameters
    ):
        total = truth(loss, replace(call, args=call.args | {"reduction": "sum"}))
        shares = [(want.values[key] / v).abs() for key, v in total.values.items() if v != 0]
    share = max((s.item() for s in shares), default=1.0)
    for path, grad in total.grads.items():
        largest = grad.abs().max().item() if grad.numel() else 0.0
        slack[f"gradient of {path} of the sum"] = torch.tensor(64 * share * largest)
    return slack


def simpler(call: Call, path: str, t: Tensor) -> Call:
    """The call with another tensor at ``path``."""
    return replace(call, args=mapped(call.args, lambda at, was: t if at == path else was))
