"""Promises about values: where they are least, how exact they are, and that there is always one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial

import torch
from torch import Tensor

from aptt.audit.call import is_target
from aptt.audit.figures import about, fed, finite, require, same, within_roundings
from aptt.audit.promise import promise
from aptt.audit.spec import Inputs, Trial
from aptt.audit.ways import in_blocks, plainly

__all__ = [
    "finite_at_extremes",
    "half_matches_truth",
    "halves_match",
    "near_perfect_keeps_digits",
    "perfect_is_minimal",
    "scale_invariance",
]

_LOW = (torch.float32, torch.bfloat16, torch.float16)

Ways = Mapping[str, Callable[[], AbstractContextManager[object]]]


@promise("perfect")
def perfect_is_minimal(trial: Trial) -> None:
    """A perfect prediction is a minimum, at the value that is stated.

    Limits: some forty other predictions are tried, from close by to far away.
    """
    perfect = trial.case.perfect or trial.spec.perfect
    assert perfect is not None
    inputs = trial.inputs()
    given, least = perfect(inputs, trial.options())
    name = trial.prediction(given)
    with fed(given):
        best = trial.loss(given, reduction="mean")
        finite(best, "value at the best prediction")
    if least is not None:
        low = trial.loss(trial.cast(given, torch.float32), reduction="mean")
        for value, what in ((best, "float64"), (low, "float32")):
            off = abs(float(value) - least)
            within = off <= trial.spec.least_within * torch.finfo(value.dtype).eps
            with fed(given):
                said = f"{float(value):.9g} at the best prediction in {what}"
                require(within, f"{said}, not {least:g}")
    generator = torch.Generator().manual_seed(5)
    others = [inputs[name]]
    for size in (1e-3, 1e-2, 0.1, 1.0, 10.0):
        noise = torch.randn((8, *given[name].shape), dtype=torch.float64, generator=generator)
        others += [given[name] + size * n for n in noise.to(trial.device)]
    for x in others:
        other = {**given, name: x.clamp(*trial.spec.within)}
        value = trial.loss(other, reduction="mean")
        lower = float(best - value)
        rounding = max(1e-12, trial.spec.rounding)
        with fed({**given, f"lower at {name}": other[name]}):
            require(
                lower <= rounding, f"elsewhere the loss is lower by {lower:.3g} than {best:.9g}"
            )


@promise("perfect")
def near_perfect_keeps_digits(trial: Trial) -> None:
    """Near a perfect prediction float32 keeps four digits, however small the exact value is.

    Limits: a hundredth off; of logits a tenth, or where the perfect ones are confident, 8 and 12.
    """
    perfect = trial.case.perfect or trial.spec.perfect
    assert perfect is not None
    inputs = trial.inputs()
    given, _ = perfect(inputs, trial.options())
    name = trial.prediction(given)
    best, drawn = given[name], inputs[name]
    noise = torch.randn(best.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    noise = noise.to(trial.device)
    if (
        best.nan_to_num().abs().amax() > 100 + 10 * drawn.abs().amax()
    ):  # logits, the more the better
        near = [best.clamp(-most, most) + 0.1 * noise for most in (8.0, 12.0)]
    else:
        off = 0.1 if "logits" in name else 0.01
        near = [best + off * best.square().nanmean().sqrt() * noise]
    for x in near:
        low = trial.cast({**given, name: x.clamp(*trial.spec.within)}, torch.float32)
        with about("near the best prediction, in float32"), fed(low):
            found = _with_truth(trial, low, trial.least_reduced)
            for what, got, truth in zip(("value", "gradient"), found[:2], found[2:], strict=True):
                off, whole = float((got.double() - truth).norm()), float(truth.norm())
                said = f"the {what} is off by {off / (whole or 1):.2g} of {whole:.3g}, as a whole"
                require(off <= 1e-4 * whole or not whole, said)


@promise("extremes")
def finite_at_extremes(trial: Trial) -> None:
    """Finite in, finite out: the exact value and gradient wherever the dtype holds them.

    A prediction of NaN is NaN in the value, or an error: it is never hidden.

    Limits: the hardest inputs that the row names, one by one, are tried, and not every input; and
    batches without positives, or of them alone, where its targets are 0 or 1.
    """
    if trial.case.inputs is None or trial.case.extremes is not None:
        _hardest(trial)
    _of_one_class(trial)
    _of_nan(trial)


def _of_nan(trial: Trial) -> None:
    """A prediction that is NaN all over."""
    made = trial.inputs(dtype=torch.float32)
    name = trial.prediction(made)
    loss = trial.of(made, reduction=trial.least_reduced)
    with about("a prediction of NaN"), suppress(ValueError):
        value = loss(torch.full_like(made[name], math.nan))
        require(not value.numel() or bool(value.isnan().any()), f"value: got {value}, wanted NaN")


def _of_one_class(trial: Trial) -> None:
    """A batch without positives, or of one class alone."""
    made = trial.inputs(32, dtype=torch.float32)
    name = trial.prediction(made)
    for value in (0, 1):
        filled = {k: _filled(t, value) for k, t in made.items() if k != name and _says(k, t)}
        alike = {**made, **filled}
        asked = any(alike[k] is not t for k, t in made.items())
        for reduction in trial.spec.reductions if asked else ():
            with about(f"targets of {value} alone, {reduction!r}"), fed(alike):
                loss, grad = trial.gradient(alike, reduction=reduction)
                finite(loss, "value")
                finite(grad, "gradient")


def _says(name: str, t: Tensor) -> bool:
    """Whether a tensor says what is positive: a target that is no distribution, or a mask."""
    shares = t.is_floating_point() and any(
        bool(((t.sum(axis) - 1).abs() < 1e-6).all()) for axis in range(1, t.ndim)
    )
    return t.dtype == torch.bool or (is_target(name) and not shares)


def _filled(t: Tensor, value: int) -> Tensor:
    """One value in all of a target that holds it, and no number beyond it if they are floats."""
    outside = t.is_floating_point() and bool(((t < 0) | (t > 1)).any())
    return t if outside or not (t == value).any() else torch.full_like(t, value)


def _hardest(trial: Trial) -> None:
    made = trial.extremes()
    for dtype in _LOW:
        with about(str(dtype)):
            inputs = _representable(trial, made, trial.cast(made, dtype))
            reduction = trial.least_reduced
            value, grad = trial.gradient(inputs, reduction=reduction)
            with plainly():
                wide = trial.cast(inputs, torch.float64)
                truth, truth_grad = trial.gradient(wide, reduction=reduction)
            finite(truth, "the value, in float64")
            finite(truth_grad, "the gradient, in float64")
            # that a stranger rounds is another promise's matter
            own = 32 * torch.finfo(dtype).eps if trial.spec.stranger else 0.0
            unit = 0.0 if trial.spec.scaling and trial.spec.scaling.degree else 1.0
            _near(value, truth, "value", rtol=max(1e-5, own), floor=max(1e-6 * unit, own))
            bound = torch.ones_like(truth_grad)
            allowed = trial.case.bound or trial.spec.bound
            if allowed is not None:
                bound = allowed(wide)
                over = truth_grad.abs() / bound
                where = (over > 1).nonzero().tolist()
                require(not where, f"gradient {float(over.max()):.4g} times its bound at {where}")
            if trial.spec.alive is not None:
                dead = trial.spec.alive(wide) & (truth_grad == 0)
                require(not dead.any(), f"no gradient at {dead.nonzero().tolist()[:4]}")
            rtol = torch.finfo(dtype).eps + 5e-3 + own  # the hardest are ill-conditioned too
            _near(grad, truth_grad, "gradient", rtol=rtol, floor=max(1e-6, own) * bound)


def _representable(trial: Trial, made: Inputs, cast: Inputs) -> Inputs:
    """The samples that are still finite, or masked on purpose, in another dtype."""
    good = torch.ones(made[trial.prediction(made)].shape[trial.case.axis], dtype=torch.bool)
    for name, t in cast.items():
        fits = t.isfinite() | made[name].isinf()
        fits = fits.movedim(trial.case.axis, 0)
        good &= fits.reshape(len(fits), -1).all(1).cpu()
    return trial.take(cast, good.nonzero().squeeze(1))


def _near(got: Tensor, truth: Tensor, what: str, *, rtol: float, floor: Tensor | float) -> None:
    limits = torch.finfo(got.dtype)
    fits = truth.abs() <= limits.max
    allowed = rtol * truth.abs() + floor + limits.tiny * limits.eps
    wrong = fits & ~((got.double() - truth).abs() <= allowed)
    wrong |= got.isnan()
    if wrong.any():
        at = tuple(wrong.nonzero()[0].tolist())
        raise AssertionError(
            f"{what}: got {got[at].item():.9g}, wanted {truth[at].item():.9g} at {list(at)} "
            f"({int(wrong.sum())} of {wrong.numel()} wrong)"
        )


@promise(ways=("plain",))
def half_matches_truth(trial: Trial) -> None:
    """Half types lose what their inputs lose, float32 a millionth; the loss is float32."""
    halves_match(trial)


def halves_match(trial: Trial, ways: Ways | None = None) -> None:
    """Compute the truth once, and hold the half types to it in each of the ways."""
    made = trial.inputs(67)
    name = trial.prediction(made)
    calls: dict[str, tuple[Inputs, float, Tensor, Tensor]] = {}
    for dtype in _LOW:
        cast = trial.cast(made, dtype)
        mixed = {**made, name: cast[name]}
        both = not trial.spec.stranger and any(mixed[k].dtype != t.dtype for k, t in cast.items())
        for inputs, others in [(cast, dtype), *([(mixed, torch.float64)] if both else [])]:
            truth, truth_grad = _truth(trial, inputs, "mean")
            for up in (1.0, 2.0**12):  # as a gradient scaler would
                said = f"{dtype}, the rest {others}, {up:g} * loss"
                calls[said] = inputs, up, truth, up * truth_grad
    for way, within in (ways or _some_blocks(trial, made[name].numel())).items():
        with about(way) if trial.spec.walks else nullcontext(), within():
            if trial.spec.stranger and trial.spec.extremes:
                _hard_halves(trial)
            found = {
                said: (*trial.gradient(inputs, up, reduction="mean"), *truths)
                for said, (inputs, up, *truths) in calls.items()
            }
            for check in (_no_overflow, partial(_near_truth, trial)):
                for said, result in found.items():  # not finite is worse than not exact
                    with about(said):
                        check(*result)


def _some_blocks(trial: Trial, elements: int) -> Ways:
    """The plain way, and if it walks, some eight blocks."""
    if not trial.spec.walks:
        return {"plain": plainly}
    return {"plain": plainly, "in blocks": lambda: in_blocks(max(16, elements // 8))}


def _hard_halves(trial: Trial) -> None:
    """A loss that is computed in its inputs' dtype overflows before its float32 value would."""
    made = trial.extremes()
    for dtype in (torch.float16, torch.bfloat16):
        cast = _representable(trial, made, trial.cast(made, dtype))
        for i in range(trial.many(cast)):
            one = trial.take(cast, torch.tensor([i]))
            with about(f"{dtype}, one sample"), fed(one):
                _no_overflow(*_with_truth(trial, one, "mean"))


def _with_truth(
    trial: Trial, inputs: Inputs, reduction: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return *trial.gradient(inputs, reduction=reduction), *_truth(trial, inputs, reduction)


def _truth(trial: Trial, inputs: Inputs, reduction: str) -> tuple[Tensor, Tensor]:
    with plainly():
        return trial.gradient(trial.cast(inputs, torch.float64), reduction=reduction)


def _no_overflow(value: Tensor, grad: Tensor, truth: Tensor, truth_grad: Tensor) -> None:
    """Every loss fits into float32, which is what it should be; a gradient, into its own dtype."""
    for what, got, want, limit in (
        ("value", value, truth, torch.finfo(torch.float32).max),
        ("gradient", grad, truth_grad, torch.finfo(grad.dtype).max),
    ):
        wrong = ~got.isfinite() & (want.abs() <= limit)
        if wrong.any():
            at = tuple(wrong.nonzero()[0].tolist())
            raise AssertionError(f"{what}: got {got[at].item()}, wanted {want[at].item():.9g}")


def _near_truth(
    trial: Trial, value: Tensor, grad: Tensor, truth: Tensor, truth_grad: Tensor
) -> None:
    dtype = grad.dtype
    said = f"got {value.item():.9g}, wanted {truth.item():.9g}"
    require(value.dtype == torch.float32, f"the loss is {value.dtype}: {said}")
    require(grad.dtype == dtype, f"the gradient is {grad.dtype}")
    same(value, truth, "value", rtol=max(1e-6, trial.spec.rounding))
    if dtype == torch.float32:
        off = float((grad.double() - truth_grad).norm() / truth_grad.norm())
        require(off <= 1e-6, f"the gradient is off by {off:.2g}, as a whole")
    else:
        within_roundings(grad, truth_grad, "gradient")


@promise("scaling")
def scale_invariance(trial: Trial) -> None:
    """Measuring everything in another unit changes the loss by the power it should, exactly."""
    scaling = trial.spec.scaling
    assert scaling is not None
    for dtype, rtol in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        inputs = trial.inputs(dtype=dtype)
        value, grad = trial.gradient(inputs, reduction="mean")
        for power in (-40, -20, -7, 7, 20, 40):
            with about(f"{dtype}, times 2**{power}"):
                unit, name = 2.0**power, trial.prediction(inputs)
                x = inputs[name].detach().requires_grad_()
                scaled = trial.loss(scaling.by({**inputs, name: x}, unit), reduction="mean")
                # against the prediction before scaling: angles, say, have no unit
                (scaled_grad,) = torch.autograd.grad(scaled, x)
                same(scaled.detach(), value * unit**scaling.degree, "value", rtol=rtol)
                same(scaled_grad, grad * unit**scaling.degree, "gradient", rtol=rtol)
