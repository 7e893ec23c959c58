"""Promises about PyTorch's machinery: what a training loop may wrap around a loss."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from aptt.audit.figures import about, exact, fed, require, same
from aptt.audit.pretend import Bill, actual, counting, gradient, missing, register
from aptt.audit.promise import promise
from aptt.audit.spec import Inputs, Trial

__all__ = [
    "asks_little_of_the_device",
    "autocast",
    "charged",
    "checkpointed",
    "deterministic",
    "meta_device",
    "noncontiguous",
    "traces_without_breaks",
    "transforms",
]


# without its search for what is best kept for backward, of which nothing is promised
_TRACES = "aot_eager_default_partitioner"


@promise(ways=("in blocks",), check_all=lambda trials: compile_with(_TRACES, *trials))
def traces_without_breaks(trial: Trial) -> None:
    """``torch.compile(fullgraph=True)`` takes the loss as one graph, with the same result.

    Limits: with the ``aot_eager`` backend, which traces all and generates no code.
    """
    compile_with(_TRACES, trial)


def compile_with(backend: str, *trials: Trial, rtol: float = 1e-12) -> None:
    """Compile with any backend, all trials into one graph, and compare values and gradients."""
    losses, inputs, predictions, wants = [], [], [], []
    for trial in trials:
        made = trial.inputs()
        name = trial.prediction(made)
        wants.append(trial.gradient(made))
        predictions.append(made[name].detach().requires_grad_())
        inputs.append({**made, name: predictions[-1]})
        losses.append(partial(trial.spec.function, **trial.options()))

    def every(inputs: list[Inputs]) -> list[Tensor]:
        return [loss(**given) for loss, given in zip(losses, inputs, strict=True)]

    torch.compiler.reset()
    with warnings.catch_warnings():  # torch's compiler warns of torch.jit, which it imports
        warnings.simplefilter("ignore", DeprecationWarning)
        values = torch.compile(every, backend=backend, fullgraph=True)(inputs)
        grads = torch.autograd.grad([value.sum() for value in values], predictions)
    torch.compiler.reset()
    for value, grad, (want, want_grad) in zip(values, grads, wants, strict=True):
        same(value, want, "value, compiled", rtol=rtol)
        same(grad, want_grad, "gradient, compiled", rtol=rtol)


@promise()
def transforms(trial: Trial) -> None:
    """``torch.func`` works: ``grad``, ``jvp``, ``vmap``; and several gradients taken at once."""
    inputs = trial.inputs()
    name = trial.prediction(inputs)
    x = inputs[name]
    value, grad = trial.gradient(inputs, reduction="mean")
    loss = trial.of(inputs, reduction="mean")
    same(torch.func.grad(loss)(x), grad, "torch.func.grad")
    along = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(9))
    along = along.to(x.device)
    with warnings.catch_warnings():  # torch's own first use of it warns of torch.jit
        warnings.simplefilter("ignore", DeprecationWarning)
        there, slope, *_ = torch.func.jvp(loss, (x,), (along,))
    same(there, value, "value under torch.func.jvp")
    same(slope, (grad * along).sum(), "torch.func.jvp", rtol=1e-10)

    values = trial.of(inputs, reduction=trial.least_reduced)
    many = torch.stack([torch.randn_like(values(x)) for _ in range(3)])
    slopes = [trial.gradient(inputs, up, reduction=trial.least_reduced)[1] for up in many]
    p = x.detach().requires_grad_()
    (batched,) = torch.autograd.grad(values(p), p, many, is_grads_batched=True)
    same(batched, torch.stack(slopes), "several gradients at once")

    several = [trial.inputs(seed=seed) for seed in range(3)]
    stacked = {k: torch.stack([each[k] for each in several]) for k in inputs}
    options = trial.options(reduction="mean")

    def one(given: Inputs) -> Tensor:
        return trial.spec.function(**given, **options)

    def slope_of_one(given: Inputs) -> Tensor:
        return torch.func.grad(lambda p: one({**given, name: p}))(given[name])

    alone = [trial.gradient(each, reduction="mean") for each in several]
    same(torch.func.vmap(one)(stacked), torch.stack([v for v, _ in alone]), "torch.func.vmap")
    grads = torch.func.vmap(slope_of_one)(stacked)
    same(grads, torch.stack([g for _, g in alone]), "vmap of grad")


@promise()
def autocast(trial: Trial) -> None:
    """Autocast changes nothing: the loss stays in float32, at full precision."""
    for dtype in (torch.float32, torch.bfloat16):
        inputs = trial.inputs(dtype=dtype)
        want, want_grad = trial.gradient(inputs)
        with about(f"{dtype} inputs"), torch.autocast(trial.device.type, torch.bfloat16):
            value, grad = trial.gradient(inputs)
        if trial.spec.stranger:
            with about(f"{dtype} inputs"):
                _no_less_exact(trial, inputs, (value, want), (grad, want_grad))
            continue
        require(value.dtype == torch.float32, f"under autocast the loss is {value.dtype}")
        same(value, want, f"value under autocast, {dtype} inputs", rtol=1e-6)
        same(grad, want_grad, f"gradient under autocast, {dtype} inputs", rtol=1e-6)


def _no_less_exact(
    trial: Trial, inputs: Inputs, values: tuple[Tensor, Tensor], grads: tuple[Tensor, Tensor]
) -> None:
    """A loss that computes in the dtype of its inputs may gain by autocast, and not lose."""
    truths = trial.gradient(trial.cast(inputs, torch.float64))
    wide, roundings = values[0].dtype == torch.float32, torch.finfo(grads[0].dtype).eps
    least = max(1e-6, trial.spec.rounding)
    for what, (under, without), truth, within in (
        ("value", values, truths[0], least),
        ("gradient", grads, truths[1], max(least, roundings)),
    ):
        off, before = (float((t.double() - truth).norm()) for t in (under, without))
        kept = off <= 2 * before + within * float(truth.norm())
        said = f"{what} under autocast: off by {off:.3g}, without it by {before:.3g}"
        require(kept, f"{said}, of {float(truth.norm()):.9g}")
    require(wide, f"under autocast the loss is {values[0].dtype}")


@promise()
def checkpointed(trial: Trial) -> None:
    """Activation checkpointing gives the same value and gradient."""
    inputs = trial.inputs()
    want, want_grad = trial.gradient(inputs)
    loss = trial.of(inputs)
    for reentrant in (False, True):
        x = inputs[trial.prediction(inputs)].detach().requires_grad_()
        value: Any = checkpoint(loss, x, use_reentrant=reentrant)
        value.sum().backward()
        assert x.grad is not None
        # reentrant, forward runs without a graph, where a value need not come with its gradient
        (same if reentrant else exact)(value, want, "value, checkpointed")
        exact(x.grad, want_grad, "gradient, checkpointed")


@promise(ways=("in blocks",))
def meta_device(trial: Trial) -> None:
    """Shapes and dtypes come out without values: meta and fake tensors, forward and backward."""
    inputs = trial.inputs(dtype=torch.bfloat16)
    for reduction in ("mean", trial.least_reduced):
        want, want_grad = trial.gradient(inputs, reduction=reduction)
        options = trial.options(reduction=reduction)
        with about(f"meta, {reduction!r}"):
            given = {k: t.to("meta") for k, t in inputs.items()}
            on_meta = {k: _to_meta(v) for k, v in options.items()}
            _shaped_like(trial.spec.function, given, on_meta, want, want_grad)
        with about(f"fake, {reduction!r}"), FakeTensorMode(allow_non_fake_inputs=True) as mode:
            given = {k: mode.from_tensor(t.detach()) for k, t in inputs.items()}
            _shaped_like(trial.spec.function, given, options, want, want_grad)


def _to_meta(value: object) -> object:
    return value.to("meta") if isinstance(value, Tensor) else value


def _shaped_like(
    function: Callable[..., Tensor],
    inputs: Inputs,
    options: dict[str, Any],
    want: Tensor,
    want_grad: Tensor,
) -> None:
    name = next(iter(inputs))
    x = inputs[name].detach().requires_grad_()
    value = function(**{**inputs, name: x}, **options)
    (grad,) = torch.autograd.grad(value.sum(), x)
    for what, got, like in (("value", value, want), ("gradient", grad, want_grad)):
        is_, should = (tuple(got.shape), got.dtype), (tuple(like.shape), like.dtype)
        require(is_ == should, f"{what}: got {is_}, wanted {should}")


@promise()
def deterministic(trial: Trial) -> None:
    """Deterministic mode is no obstacle, and the same call gives the same bits.

    Limits: three calls in one process, on one device.
    """
    inputs = trial.inputs(dtype=torch.float32)
    value, grad = trial.gradient(inputs)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        runs = [trial.gradient(inputs) for _ in range(2)]
    finally:
        torch.use_deterministic_algorithms(before)
    exact(runs[1][0], runs[0][0], "value, again")
    exact(runs[1][1], runs[0][1], "gradient, again")
    same(runs[0][0], value, "value in deterministic mode", rtol=1e-6)
    same(runs[0][1], grad, "gradient in deterministic mode", rtol=1e-6)


@promise()
def noncontiguous(trial: Trial) -> None:
    """Strided, transposed and expanded inputs give the same value and gradient."""
    inputs = trial.inputs()
    want, want_grad = trial.gradient(inputs)
    layouts: dict[str, Callable[[Tensor], Tensor]] = {
        "every other element": lambda t: torch.stack((t, t), -1)[..., 0],
        "axes stored in reverse": _reversed,
        "with an offset": lambda t: torch.cat((t[:1], t))[1:],
    }
    for layout, lay in layouts.items():
        given = {k: lay(t) for k, t in inputs.items()}
        with about(layout), fed(given):
            value, grad = trial.gradient(given)
            same(value, want, "value")
            same(grad, want_grad, "gradient")
    one = trial.inputs(1)
    axis = trial.case.axis
    spread = {k: t.expand(*_many(t, axis)) for k, t in one.items()}
    want, want_grad = trial.gradient({k: t.clone() for k, t in spread.items()})
    value, grad = trial.gradient(spread)
    same(value, want, "value of one sample expanded")
    same(grad, want_grad, "gradient of one sample expanded")


def _reversed(t: Tensor) -> Tensor:
    axes = list(range(t.ndim))[::-1]
    return t.permute(axes).contiguous().permute(axes)


def _many(t: Tensor, axis: int, n: int = 5) -> list[int]:
    sizes = list(t.shape)
    sizes[axis] = n
    return sizes


@promise(ways=("whole", "plain"), unless=missing)
def asks_little_of_the_device(trial: Trial) -> None:
    """On an accelerator: the CPU's result, no wait for the host, and launches that do not grow.

    Limits: the accelerator is a pretended one, without kernels, memory or rounding of its own.
    Constants may be brought there by a first call. Four times the samples take as many kernels.
    """
    there = replace(trial, device=register())
    inputs = there.inputs()
    value, grad, first = charged(there, inputs)
    want, want_grad = charged(replace(trial, device=torch.device("cpu")), trial.inputs())[:2]
    same(value, want, "value, there")
    same(grad, want_grad, "gradient, there")
    many = charged(there, there.inputs(4 * there.many(inputs)))[2]
    waits = [why for why in many.waits if why not in trial.spec.asks]
    require(not waits, f"the host has to wait: {', '.join(waits)}")
    require(
        many.kernels <= first.kernels or "kernels" in trial.spec.asks,
        f"{first.kernels} kernels, and {many.kernels} for four times the samples",
    )


def charged(trial: Trial, inputs: Inputs, **changed: object) -> tuple[Tensor, Tensor, Bill]:
    """Value and gradient on the CPU, from wherever the trial is, and what they asked for."""
    name = trial.prediction(inputs)
    loss = _placed(trial, inputs, **changed)
    x = inputs[name].detach().requires_grad_()
    with counting() as bill:
        value = loss(x)
        (grad,) = gradient(value if value.dim() == 0 else value.sum(), x)
    return actual(value.detach()), actual(grad), bill


def _placed(trial: Trial, inputs: Inputs, **changed: object) -> Callable[[Tensor], Tensor]:
    """The loss as a function of the prediction, with all that it holds where the trial is."""
    if not (trial.spec.stranger and trial.spec.module is not None):
        return trial.of(inputs, **changed)
    module, name = trial.module(**changed).to(trial.device), trial.prediction(inputs)
    return lambda x: module(**{**inputs, name: x})
