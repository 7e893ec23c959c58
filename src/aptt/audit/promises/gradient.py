"""Promises about the gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from aptt.audit.figures import about, exact, fed, finite, require, same
from aptt.audit.promise import promise
from aptt.audit.slopes import is_right, is_right_either_way
from aptt.audit.spec import Inputs, Trial
from aptt.audit.ways import in_blocks, plainly

__all__ = [
    "double_backward",
    "frozen_factors_are_constants",
    "gradient_is_right",
    "gradient_reaches_all_who_ask",
    "hopeless_keeps_a_gradient",
    "respects_upstream_gradient",
    "streamed_equals_plain",
]


@promise()
def respects_upstream_gradient(trial: Trial) -> None:
    """Any upstream gradient is right: scaled, uneven, twice, or through a loss used twice."""
    inputs = trial.inputs()
    value, grad = trial.gradient(inputs, reduction="mean")
    for scale in (3.0, -0.25, 0.0, 2.0**16):
        scaled = trial.gradient(inputs, scale, reduction="mean")[1]
        same(scaled, scale * grad, f"gradient of {scale:g} * loss")
    name = trial.prediction(inputs)
    x = inputs[name].detach().requires_grad_()
    loss = trial.loss({**inputs, name: x}, reduction="mean")
    first, again = (torch.autograd.grad(loss, x, retain_graph=True)[0] for _ in range(2))
    same(first, grad, "gradient that keeps the graph")
    exact(again, first, "gradient taken again")
    (both,) = torch.autograd.grad(loss * loss + 2 * loss, x)
    same(both, (2 * value + 2) * grad, "gradient of a loss used twice")

    mine = trial.loss({**inputs, name: x}, reduction="mean")
    trial.gradient(trial.inputs(seed=1), reduction="mean")
    same(torch.autograd.grad(mine, x)[0], grad, "gradient after another call in between")

    values = trial.loss({**inputs, name: x}, reduction=trial.least_reduced)
    up, one_by_one = _random(values.shape, trial.device), torch.zeros_like(x)
    skipped = torch.arange(values.numel(), device=up.device) % -(-values.numel() // _AT_MOST) != 0
    up.view(-1)[skipped] = 0
    for at in (~skipped).nonzero().flatten().tolist():
        (slope,) = torch.autograd.grad(values.flatten()[at], x, retain_graph=True)
        one_by_one += up.flatten()[at] * slope
    (uneven,) = torch.autograd.grad(values, x, up)
    same(uneven, one_by_one, "gradient of values against its values one by one")


_AT_MOST = 128  # values, of which the others get an upstream gradient of 0


@promise(ways=("plain",))
def gradient_is_right(trial: Trial) -> None:
    """The gradient is that of the value: finite differences in float64.

    Limits: at one random point of a few samples, and of large ones along random directions; a kink
    there would show as a difference. Of a loss that makes float32 of float64, within a fiftieth.
    """
    if trial.spec.rounds:
        return _rounded_slopes(trial, lambda t, i: (t.of(i), [i[t.prediction(i)]]))
    inputs = trial.inputs(4)
    x = inputs[trial.prediction(inputs)].detach().requires_grad_()
    for loss in _as_defined(trial, inputs):
        is_right_either_way(loss, [x], walks=trial.spec.walks)
    return None


@promise(ways=("plain",))
def double_backward(trial: Trial) -> None:
    """The gradient of the gradient is right too."""
    if trial.spec.rounds:
        return _rounded_slopes(trial, _slope)
    inputs = trial.inputs(3)
    x = inputs[trial.prediction(inputs)].detach().requires_grad_()
    for loss in _as_defined(trial, inputs):
        up = _random(loss(x).shape, trial.device, seed=8).requires_grad_()
        is_right_either_way(_first(loss), [x, up], walks=trial.spec.walks)
    return None


def _first(loss: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """The gradient of a loss, as a function of the prediction and of the upstream gradient."""

    def first(x: Tensor, up: Tensor) -> Tensor:
        return torch.autograd.grad(loss(x), x, up, create_graph=True)[0]

    return first


Posed = tuple[Callable[..., Tensor], list[Tensor]]


def _slope(trial: Trial, inputs: Inputs) -> Posed:
    """The gradient along a random direction, as a number to be differentiated once more."""
    x, loss = inputs[trial.prediction(inputs)], trial.of(inputs)
    along = _random(x.shape, trial.device, seed=8)

    def slope(p: Tensor) -> Tensor:
        p = p if p.requires_grad else p.detach().requires_grad_()
        value = loss(p)
        # squared, so that even of a linear loss there is something to be differentiated
        (grad,) = torch.autograd.grad((value * value).sum(), p, create_graph=True)
        return (grad * along).sum()

    return slope, [x]


def _rounded_slopes(trial: Trial, pose: Callable[[Trial, Inputs], Posed]) -> None:
    """Of a loss that computes in float32: steps that it can see, of several sizes, and points.

    One of them has a kink in between, perhaps, or is too coarse; a wrong gradient fails in all.
    """
    said = ""
    for seed in range(3):
        loss, points = pose(trial, trial.inputs(4, seed=seed))
        for step in (2.0**-7, 2.0**-9, 2.0**-11):
            said = _off_along(loss, points, step, trial.device)
            if not said:
                return
    raise AssertionError(said)


def _off_along(
    loss: Callable[..., Tensor], points: list[Tensor], step: float, device: torch.device
) -> str:
    """How a gradient differs from central differences along random directions; '' if it agrees."""
    asked = [p.detach().requires_grad_() for p in points]
    grads = torch.autograd.grad(loss(*asked).sum(), asked, materialize_grads=True)
    size = sum(float(g.double().square().sum()) for g in grads) ** 0.5
    scale = max(float(p.detach().square().mean()) ** 0.5 for p in points) or 1.0
    h = step * scale
    for i in range(8):
        along = [_random(p.shape, device, seed=20 + i + k) for k, p in enumerate(points)]
        ends = [
            float(loss(*(p + s * h * a for p, a in zip(points, along, strict=True))).sum().detach())
            for s in (1, -1)
        ]
        got = sum(float((g.double() * a).sum()) for g, a in zip(grads, along, strict=True))
        want = (ends[0] - ends[1]) / (2 * h)
        seen = 4 * torch.finfo(torch.float32).eps * max(map(abs, ends)) / h
        if not abs(got - want) <= 0.02 * size + seen:
            return f"slope along a random direction: got {got:.6g}, finite differences {want:.6g}"
    return ""


def _as_defined(trial: Trial, inputs: Inputs) -> list[Callable[[Tensor], Tensor]]:
    """The loss; where factors are frozen, what finite differences can be held against."""
    if not trial.spec.frozen:
        return [trial.of(inputs)]
    return [hold(inputs, trial.options()) for hold in trial.spec.frozen.values()]


@promise("frozen")
def frozen_factors_are_constants(trial: Trial) -> None:
    """A factor that is constant by definition passes no gradient, first or second."""
    inputs = trial.inputs()
    x = inputs[trial.prediction(inputs)].detach().requires_grad_()
    along = _random(x.shape, trial.device)
    for name, hold in trial.spec.frozen.items():
        with about(f"factor {name!r}"):
            results = []
            for loss in (trial.of(inputs, reduction="none"), hold(inputs, trial.options())):
                value = loss(x)
                up = _random(value.shape, trial.device, seed=8)
                (first,) = torch.autograd.grad(value, x, up, create_graph=True)
                (second,) = torch.autograd.grad((first * along).sum(), x)
                results.append((value, first, second))
            for what, got, want in zip(("value", "gradient", "second"), *results, strict=True):
                same(got, want, what, rtol=1e-10)


@promise(ways=("plain",))
def gradient_reaches_all_who_ask(trial: Trial) -> None:
    """Targets, weights and options that require a gradient get theirs, with the prediction's.

    Options named ``detach_...``, which say that something gets none, are off.
    """
    detached = {name: False for name in trial.spec.defaults() if name.startswith("detach_")}
    inputs, options = trial.inputs(4), trial.options(**detached)
    learns = {k: t for k, t in inputs.items() if t.is_floating_point()}
    learns |= {k: v.double() for k, v in options.items() if _is_floating(v)}
    names = tuple(learns)

    def loss(*tensors: Tensor) -> Tensor:
        given = dict(zip(names, tensors, strict=True))
        called = {k: given.get(k, v) for k, v in {**inputs, **options}.items()}
        return trial.spec.function(**called)

    points = [t.detach().requires_grad_() for t in learns.values()]
    with plainly():
        want = torch.autograd.grad(loss(*points).sum(), points)
    with in_blocks():
        got = torch.autograd.grad(loss(*points).sum(), points)
        for name, a, b in zip(names, got, want, strict=True):
            same(a, b, f"gradient of {name}, in blocks against plain")
        for i, name in enumerate(names):
            alone = [p.detach().requires_grad_(k == i) for k, p in enumerate(points)]
            (mine,) = torch.autograd.grad(loss(*alone).sum(), alone[i])
            same(mine, want[i], f"gradient of {name}, where it alone asks")
    if trial.spec.rounds:
        _rounded_slopes(trial, lambda t, _: (loss, [p.detach() for p in points]))
    elif not trial.spec.frozen:
        is_right(loss, points)


@promise(ways=("plain",))
def streamed_equals_plain(trial: Trial) -> None:
    """Walking in blocks changes neither value nor gradient, at any upstream gradient."""
    require(trial.spec.walks, "the row says that the loss does not walk; exempt it, saying why")
    tolerance = {torch.float64: 1e-12, torch.float32: 2e-6}  # a millionth each, of the truth
    ragged = False
    for n, size, dtype in _lengths(trial):
        inputs = trial.inputs(n, dtype=dtype)
        for reduction in trial.spec.reductions:
            with about(f"{reduction!r}, {dtype}, {n} samples in blocks of {size}"):
                x = inputs[trial.prediction(inputs)].detach().requires_grad_()
                with plainly():
                    want = trial.loss({**inputs, trial.prediction(inputs): x}, reduction=reduction)
                    up = _random(want.shape, trial.device)
                    (want_grad,) = torch.autograd.grad((want * up).sum(), x)
                with in_blocks(size) as walked:
                    value, grad = trial.gradient(inputs, up, reduction=reduction)
                terms = trial.spec.terms
                walks = len(walked.walks)
                # there and back for each term; or there alone, where the gradient is taken along
                require(terms <= walks <= 2 * terms, f"walked {walks} times for {terms} terms")
                require(len(walked.walks[0]) > 2, "not even three blocks")
                ragged |= walked.walks[0][-1] != walked.walks[0][0]
                same(value, want, "value", rtol=tolerance[dtype])
                same(grad, want_grad, "gradient", rtol=tolerance[dtype])
                with in_blocks(size), torch.inference_mode():
                    alone = trial.loss(inputs, reduction=reduction)
                require(not alone.requires_grad, "a graph in inference mode")
                same(alone, want, "value in inference mode", rtol=tolerance[dtype])
    require(ragged, "no block was shorter than the others")


def _lengths(trial: Trial) -> Iterator[tuple[int, int, torch.dtype]]:
    """Samples, the size of a block, and a dtype; in float32 as many elements whatever a sample has.

    So that there are some forty small blocks, or five large ones, and not as many as samples.
    """
    with in_blocks() as walked:
        trial.loss(trial.inputs(_FEW))
    each = max(min(map(sum, walked.walks), default=0) // _FEW, 1)
    yield _FEW, 16, torch.float64
    yield _FEW, 22, torch.float64
    yield max(_FEW, -(-609 // each) | 1), 16, torch.float32
    yield max(_FEW, -(-3009 // each) | 1), 640, torch.float32


_FEW = 23


@promise("hopeless")
def hopeless_keeps_a_gradient(trial: Trial) -> None:
    """Confidently wrong is dearer than half right, and has a gradient that leads back.

    Limits: as wrong as the row says, in every sample; one small step is taken.
    """
    assert trial.spec.hopeless is not None
    truth = trial.spec.hopeless(trial.inputs(), trial.options())
    name = trial.prediction(truth)
    before, usual = (trial.loss(i, reduction="mean") for i in (truth, trial.inputs()))
    with fed(truth):
        require(before > usual, f"confidently wrong costs {before:.9g}, half right {usual:.9g}")
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        with about(str(dtype)), fed(truth):
            inputs = trial.cast(truth, dtype)
            _, grad = trial.gradient(inputs, 2.0**10, reduction="mean")
            finite(grad, "gradient")
            size = grad.double().movedim(trial.case.axis, 0).flatten(1).abs().amax(1)
            require((size > 0).all(), f"no gradient in samples {(size == 0).nonzero().tolist()}")
            x = truth[name]
            step = 1e-3 * x.abs().mean() / grad.double().abs().max() * grad.double()
            after = trial.loss({**truth, name: x - step}, reduction="mean")
            require(after < before, f"a step down leads from {before:.9g} to {after:.9g}")


def _is_floating(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _random(shape: torch.Size, device: torch.device, seed: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator).to(device)
