"""Bugs of the field, planted in small losses: each promise catches its own.

A promise is only as good as what it catches. ``print(planted_table())`` shows which bug, whose, and
the promise that caught it. Two correct losses that are no part of the package keep every promise,
so that none of them holds by refusing all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial, wraps
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aptt.audit import PROMISES, SPECS, Refused, Scaling, Spec, case, make
from aptt.core.formula import Formula, by_row
from aptt.core.reduction import reduce

# ------------------------------------------------ a correct loss of a stranger: logistic, focused


def logistic(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    gamma: float = 2.0,
    reduction: str = "mean",
) -> Tensor:
    check(logits, target, weight, gamma, reduction)
    return finish(focused(*visible(logits, target, weight), gamma), weight, reduction)


def check(logits, target, weight, gamma, reduction):
    if not logits.is_floating_point():
        raise TypeError(f"logits: got {logits.dtype}")
    for name, t in (("target", target), ("weight", weight)):
        if t is not None and t.shape != logits.shape:
            raise ValueError(f"{name}: got {tuple(t.shape)} for logits {tuple(logits.shape)}")
    if gamma < 0:
        raise ValueError(f"gamma: got {gamma}")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction: got {reduction!r}")


def visible(logits, target, weight):
    """In a wide dtype, with nothing to be seen where the weight is 0."""
    x = logits.float() if logits.dtype.itemsize == 2 else logits
    if weight is not None:
        x, target = x.masked_fill(weight == 0, 0), target.masked_fill(weight == 0, 0)
    return x, target.to(x.dtype)


def focused(x, t, gamma):
    margin = (2 * t - 1) * x
    return torch.exp(-gamma * F.softplus(margin)) * F.softplus(-margin)


def finish(values, weight, reduction):
    if weight is not None:
        weight = weight.to(values.dtype)
        values = values * weight
    if reduction == "none":
        return values
    if reduction == "sum":
        return values.sum()
    count = torch.tensor(values.numel()) if weight is None else weight.sum()
    return values.sum() / torch.where(count == 0, 1, count).to(values.dtype)


class Logistic(nn.Module):
    function: Callable[..., Tensor] = staticmethod(logistic)

    def __init__(self, gamma: float = 2.0, reduction: str = "mean") -> None:
        super().__init__()
        self.gamma, self.reduction = gamma, reduction

    def forward(self, logits: Tensor, target: Tensor, *, weight: Tensor | None = None) -> Tensor:
        return self.function(
            logits, target, weight=weight, gamma=self.gamma, reduction=self.reduction
        )

    def extra_repr(self) -> str:
        return f"gamma={self.gamma}, reduction={self.reduction!r}"


def answers(g, n):
    return {
        "logits": 3 * torch.randn(n, 3, dtype=torch.float64, generator=g),
        "target": torch.randint(2, (n, 3), generator=g),
    }


def weighted(g, n):
    weight = 0.5 + torch.rand(n, 3, dtype=torch.float64, generator=g)
    return {**answers(g, n), "weight": weight}


def saturated():
    x = torch.tensor([6e4, -6e4, 120, -120, 41, -41, 12, -12, 1e-6, 0, 1], dtype=torch.float64)
    x = x.repeat(2).unsqueeze(1).expand(-1, 3).clone()
    return {"logits": x, "target": torch.arange(2).repeat_interleave(11)[:, None].expand(-1, 3)}


def hide(inputs, options, keep):
    weight = inputs.get("weight", torch.ones(keep.shape, dtype=torch.float64))
    return {**inputs, "weight": weight.masked_fill(~keep, 0)}


NO_SEAM = "the stranger's reduction takes names only"
NO_WALK = {"streamed_equals_plain": "it is plain PyTorch throughout"}
NOT_FROZEN = {"frozen_factors_are_constants": "no factor is held constant"}
NO_UNIT = {"scale_invariance": "another scale of logits is another prediction"}

STRANGER = Spec(
    name="logistic",
    function=logistic,
    module=Logistic,
    inputs=answers,
    cases={
        "plain": case(),
        "weighted": case(weighted, gamma=1.0),
        "summed": case(reduction="sum", gamma=0.5),
    },
    walks=False,
    hide=hide,
    perfect=lambda i, o: ({**i, "logits": (2.0 * i["target"] - 1) * 1000}, 0.0),
    hopeless=lambda i, o: {**i, "logits": i["logits"] / 10 + 20 * (1 - 2 * i["target"])},
    extremes=saturated,
    refused=(Refused("a negative exponent", "gamma", {"gamma": -1.0}),),
    exempt={
        **NO_WALK,
        **NOT_FROZEN,
        **NO_UNIT,
        "counts_what_it_says": NO_SEAM,
        "split_invariance": NO_SEAM,
    },
)

# ---------------------------------- another, made with the core: a relative error between signals


def relative_formula(x: Tensor, t: Tensor) -> Tensor:
    """How far each row is off, relative to the larger of the two, squared; 0 for silence."""
    size = torch.maximum(x.detach().abs().amax(1), t.abs().amax(1))
    size = torch.where(size > 0, size, 1)
    return ((x - t) / size.unsqueeze(1)).square().mean(1)


def relative_step(x, up, kept, t):
    size = torch.maximum(x.abs().amax(1), t.abs().amax(1))
    size = torch.where(size > 0, size, 1).unsqueeze(1)
    return None, (x - t) / size / size * (by_row(up) * (2 / x.shape[1]))


def relative_with(formula: Formula) -> Callable[..., Tensor]:
    def relative(prediction, target, *, weight=None, reduction="mean"):
        if not prediction.is_floating_point():
            raise TypeError(f"prediction: got {prediction.dtype}")
        if prediction.shape != target.shape:
            raise ValueError(
                f"target: {tuple(target.shape)}, prediction: {tuple(prediction.shape)}"
            )
        if weight is not None and weight.shape != prediction.shape[:1]:
            raise ValueError(f"weight: got {tuple(weight.shape)}")
        if not callable(reduction) and reduction not in ("mean", "sum", "none"):
            raise ValueError(f"reduction: got {reduction!r}")

        def count():
            return torch.tensor(len(prediction)) if weight is None else weight.double().sum()

        return reduce(
            formula,
            prediction,
            target,
            weight=weight,
            count=count,
            reduction=reduction,
            term="relative",
        )

    return relative


def signals(g, n):
    return {
        "prediction": torch.randn(n, 5, dtype=torch.float64, generator=g),
        "target": torch.randn(n, 5, dtype=torch.float64, generator=g),
    }


def weighted_signals(g, n):
    return {**signals(g, n), "weight": 0.5 + torch.rand(n, dtype=torch.float64, generator=g)}


def hide_signals(inputs, options, keep):
    keep = keep.clone()
    weight = inputs.get("weight", torch.ones(keep.shape, dtype=torch.float64))
    return {**inputs, "weight": weight.masked_fill(~keep, 0)}


def hold_size(inputs, options):
    x, t = inputs["prediction"], inputs["target"]
    size = torch.maximum(x.detach().abs().amax(1), t.abs().amax(1)).unsqueeze(1)
    weight = inputs.get("weight", torch.ones(len(x), dtype=torch.float64))
    return lambda p: weight * ((p - t) / size).square().mean(1)


def extreme_signals():
    x = torch.tensor([[0, 0], [1, 1], [1e4, -1e4], [1e-5, 0], [1, 1 + 2**-8]], dtype=torch.float64)
    return {"prediction": x[:, :1].expand(-1, 5).clone(), "target": x[:, 1:].expand(-1, 5).clone()}


RELATIVE = Spec(
    name="relative",
    function=relative_with(Formula(lambda x, kept, t: relative_formula(x, t), relative_step)),
    inputs=signals,
    cases={"rows": case(), "weighted": case(weighted_signals, reduction="sum")},
    features=1,
    hide=hide_signals,
    count=lambda i, o: i["weight"].sum() if "weight" in i else len(i["prediction"]),
    perfect=lambda i, o: ({**i, "prediction": i["target"]}, 0.0),
    hopeless=lambda i, o: {**i, "prediction": i["target"] + 100},
    extremes=extreme_signals,
    scaling=Scaling(lambda i, u: {k: t if k == "weight" else t * u for k, t in i.items()}),
    frozen={"size": hold_size},
    exempt=dict.fromkeys(
        ("twin_agrees", "copies", "follows_to_dtype_and_device"), "it has no module form"
    ),
)

STRANGERS = (STRANGER, RELATIVE)

# ------------------------------------------------------------------------------------ the bugs


class Bug(NamedTuple):
    about: str
    whose: str
    promise: str
    spec: Spec


BUGS: list[Bug] = []
NOBODY = "nobody in particular"


def planted(about: str, whose: str, promise: str, origin: Spec = STRANGER, **changed: Any):
    """Put a wrong function, or module, in the place of the stranger's."""

    def plant(wrong):
        part = "module" if isinstance(wrong, type) else "function"
        spec = replace(origin, name=wrong.__name__, **{part: wrong, **changed})
        BUGS.append(Bug(about, whose, promise, spec))
        return wrong

    return plant


def variant(body):
    """A function with the stranger's signature and checks, around a body with a bug."""

    def wrong(logits, target, *, weight=None, gamma=2.0, reduction="mean"):
        check(logits, target, weight, gamma, reduction)
        return body(logits, target, weight, gamma, reduction)

    wrong.__name__ = body.__name__
    return wrong


# ---- what is summed, counted, left out


@planted("the mean divides by ignored elements too", "kornia", "ignoring_is_removing")
@variant
def mean_over_all(logits, target, weight, gamma, reduction):
    values = finish(focused(*visible(logits, target, weight), gamma), weight, "none")
    return values.mean() if reduction == "mean" else finish(values, None, reduction)


@planted(
    "a mask that multiplies: NaN times 0",
    "every overlap loss of smp, MONAI, kornia, nnU-Net",
    "ignoring_is_removing",
)
@variant
def mask_multiplies(logits, target, weight, gamma, reduction):
    return finish(focused(*visible(logits, target, None), gamma), weight, reduction)


def mask_times_weight(logits, target, weight, ignore_index=-100, reduction="mean"):
    x = logits.float() if logits.dtype.itemsize == 2 else logits
    seen = target != ignore_index
    x, weight = x.masked_fill(~seen[:, None], 0), weight * seen
    values = weight * F.cross_entropy(x, target, ignore_index=ignore_index, reduction="none")
    if reduction == "none":
        return values
    return values.sum() if reduction == "sum" else values.sum() / weight.sum().clamp(min=1e-9)


def weighted_classes(g, n):
    return {
        "logits": torch.randn(n, 4, generator=g),
        "target": torch.randint(4, (n,), generator=g),
        "weight": 0.5 + torch.rand(n, generator=g),
    }


BUGS.append(
    Bug(
        "a mask that multiplies a weight: infinity times 0",
        "token weights of fine-tuning scripts",
        "ignoring_is_removing",
        make(mask_times_weight, inputs=weighted_classes),
    )
)


@planted("'none' is averaged all the same", "mmsegmentation 0.x", "none_sums_to_sum")
@variant
def none_averages(logits, target, weight, gamma, reduction):
    values = finish(focused(*visible(logits, target, weight), gamma), weight, "none")
    return values.mean(1) if reduction == "none" else finish(values, None, reduction)


@planted(
    "a weight by the batch's share of positives", "HED, class-balanced BCE", "samples_stand_alone"
)
@variant
def balances_the_batch(logits, target, weight, gamma, reduction):
    values = focused(*visible(logits, target, weight), gamma)
    share = target.to(values.dtype).mean()
    values = values * torch.where(target == 1, 1 - share, share)
    return finish(values, weight, reduction)


@planted("large batches are rounded to save memory", NOBODY, "size_changes_nothing")
@variant
def rounds_what_is_large(logits, target, weight, gamma, reduction):
    values = focused(*visible(logits, target, weight), gamma)
    values = values.half().to(values.dtype) if values.numel() > 16384 else values
    return finish(values, weight, reduction)


def always_balances(logits, target):
    """The same of a loss that gives one number only."""
    t = target.to(logits.dtype)
    weight = torch.where(target == 1, 1 - t.mean(), t.mean())
    return (weight * F.binary_cross_entropy_with_logits(logits, t, reduction="none")).mean()


BUGS.append(
    Bug(
        "the same, of a loss that always reduces",
        NOBODY,
        "samples_stand_alone",
        make(always_balances, kind="logits+multilabel"),
    )
)


def off_seam(about, whose, promise, total_and_count):
    """The relative error, with a slip where it hands over to the reduction."""
    honest = RELATIVE.function

    def wrong(prediction, target, *, weight=None, reduction="mean"):
        if reduction in ("sum", "none"):
            return honest(prediction, target, weight=weight, reduction=reduction)
        values = honest(prediction, target, weight=weight, reduction="none")
        counted = torch.ones_like(values) if weight is None else weight
        total, count = total_and_count(values, counted)
        if reduction == "mean":
            return total / count
        return reduction(total, count, term="relative")

    wrong.__name__ = promise
    planted(about, whose, promise, RELATIVE)(wrong)


off_seam(
    "the mean divides by rows, whatever they weigh",
    "torch (soft targets)",
    "counts_what_it_says",
    lambda values, counted: (values.sum(), torch.tensor(float(len(values)))),
)
off_seam(
    "an average of averages over micro-batches",
    "transformers before 34191, torchtitan before 2206",
    "split_invariance",
    lambda values, counted: (values.sum() / counted.sum(), torch.tensor(1.0)),
)


@planted("the mean of nothing is NaN", "torch, torchvision focal", "nothing_left_is_zero")
@variant
def nan_on_empty(logits, target, weight, gamma, reduction):
    values = finish(focused(*visible(logits, target, weight), gamma), weight, "none")
    if reduction == "mean":
        return values.sum() / (values.numel() if weight is None else weight.sum())
    return finish(values, None, reduction)


@planted("a zero that is detached: backward raises", "torchtune", "nothing_left_is_zero")
@variant
def detached_zero(logits, target, weight, gamma, reduction):
    if logits.numel() == 0 or (weight is not None and not weight.any()):
        return torch.zeros(logits.shape if reduction == "none" else ())
    return finish(focused(*visible(logits, target, weight), gamma), weight, reduction)


# ---- values


@planted("a leak of 1e-6 into the wrong class", "kornia focal", "perfect_is_minimal")
@variant
def leaking_target(logits, target, weight, gamma, reduction):
    x, t = visible(logits, target, weight)
    values = (t + 1e-6) * focused(x, torch.ones_like(t), gamma)
    values = values + (1 - t + 1e-6) * focused(x, torch.zeros_like(t), gamma)
    return finish(values, weight, reduction)


@planted("1 - p by subtraction, and its logarithm", "the field's", "near_perfect_keeps_digits")
@variant
def subtracts_from_one(logits, target, weight, gamma, reduction):
    x, t = visible(logits, target, weight)
    right = torch.sigmoid((2 * t - 1) * x).clamp(min=1e-38)
    return finish((1 - right) ** gamma * -right.log(), weight, reduction)


@planted("the logarithm of rounding", "softplus, by hand", "near_perfect_keeps_digits")
@variant
def logs_rounding(logits, target, weight, gamma, reduction):
    x, t = visible(logits, target, weight)
    margin = ((2 * t - 1) * x).clamp(min=-80)
    return finish((1 + (-margin).exp()).log(), weight, reduction)


def expands_a_square(prediction, target, reduction="mean"):
    values = prediction**2 - 2 * prediction * target + target**2
    return values if reduction == "none" else getattr(values, reduction)()


BUGS.append(
    Bug(
        "a square that is multiplied out",
        "distances by a matrix product",
        "near_perfect_keeps_digits",
        make(expands_a_square, kind="regression"),
    )
)


def one_less_alpha(logits, target, alpha=0.25, reduction="mean"):
    if logits.shape != target.shape or not logits.is_floating_point():
        raise ValueError
    weight = target * alpha + (1 - target) * (1 - alpha)
    return F.binary_cross_entropy_with_logits(logits, target, weight, reduction=reduction)


BUGS.append(
    Bug(
        "a weight above 1, whose complement is below 0",
        "torchvision focal",
        "bad_input_is_refused",
        make(one_less_alpha, kind="logits+multilabel"),
    )
)


def takes_any_weight(logits, target, weight, reduction="mean"):
    if not logits.shape == target.shape == weight.shape or not logits.is_floating_point():
        raise ValueError
    return F.binary_cross_entropy_with_logits(logits, target, weight, reduction=reduction)


BUGS.append(
    Bug(
        "weights below 0, of which there is no least loss",
        "torch",
        "bad_input_is_refused",
        make(
            takes_any_weight,
            inputs=lambda g, n: {
                "logits": torch.randn(n, 3, generator=g),
                "target": torch.randint(2, (n, 3), generator=g).float(),
                "weight": torch.rand(n, 3, generator=g) + 0.5,
            },
        ),
    )
)


def divides_by_the_union(pred_boxes, target_boxes, reduction="mean"):
    """Exact, but of areas that may be negative."""
    low = torch.maximum(pred_boxes[:, :2], target_boxes[:, :2])
    high = torch.minimum(pred_boxes[:, 2:], target_boxes[:, 2:])
    common = (high - low).clamp(min=0).prod(1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (pred_boxes, target_boxes)]
    union = areas[0] + areas[1] - common
    some = torch.where(union.detach().abs() > 0, union, 1)
    # of lines and points nothing is known here; of boxes inside out, it divides by anything
    values = 1 - torch.where(areas[0] * areas[1] == 0, 0, common / some).to(pred_boxes.dtype)
    values = torch.where(pred_boxes[:, 2] < pred_boxes[:, 0], common / union, values)
    return values if reduction == "none" else getattr(values, reduction)()


BUGS.append(
    Bug(
        "a division by the area of boxes inside out",
        NOBODY,
        "finite_at_extremes",
        make(divides_by_the_union, kind="boxes"),
    )
)


def takes_rounding_for_a_signal(estimate, target, reduction="mean"):
    """SI-SNR by the book: nothing is left of a constant but the rounding of its mean."""
    e, s = (v - v.mean(-1, keepdim=True) for v in (estimate, target))
    size = s.square().sum(-1, keepdim=True).clamp(min=1e-30)
    part = (e * s).sum(-1, keepdim=True) / size * s
    signal, noise = part.square().sum(-1), (e - part).square().sum(-1)
    values = -10 * ((signal + 1e-30) / (noise + 1e-30)).log10()
    return values if reduction == "none" else getattr(values, reduction)()


BUGS.append(
    Bug(
        "a mean that rounds: a constant counts as a signal",
        "asteroid, torchmetrics",
        "finite_at_extremes",
        make(takes_rounding_for_a_signal, kind="waveforms"),
    )
)


def relative_row(about, whose, promise):
    """Plant a formula in the place of the relative error's."""

    def plant(formula):
        loss = relative_with(Formula(lambda x, kept, t: formula(x, t)))
        spec = replace(RELATIVE, name=formula.__name__, function=loss)
        BUGS.append(Bug(about, whose, promise, spec))
        return formula

    return plant


@relative_row(
    "the sign of an exponent: farther is cheaper", "mmdetection SIoU", "hopeless_keeps_a_gradient"
)
def falls_with_distance(x, t):
    far = 3 * relative_formula(x, t)
    return -torch.expm1(-far) * torch.exp(-far)


@planted("0 * inf for a confident right answer", "torchvision, kornia", "finite_at_extremes")
@variant
def nan_below_one(logits, target, weight, gamma, reduction):
    x, t = visible(logits, target, weight)
    p = torch.sigmoid(x)
    right = p * t + (1 - p) * (1 - t)
    nll = F.binary_cross_entropy_with_logits(x, t, reduction="none")
    return finish((1 - right) ** gamma * nll, weight, reduction)


@planted(
    "a division by the number of positives", "RetinaNet's losses, copied", "finite_at_extremes"
)
@variant
def divides_by_positives(logits, target, weight, gamma, reduction):
    values = finish(focused(*visible(logits, target, weight), gamma), weight, "none")
    return values.sum() / target.sum() if reduction == "mean" else finish(values, None, reduction)


@planted("computed in the input's dtype", "torch cross_entropy in bfloat16", "half_matches_truth")
@variant
def stays_half(logits, target, weight, gamma, reduction):
    x, t = visible(logits, target, weight)
    values = focused(x.to(logits.dtype), t.to(logits.dtype), gamma).to(x.dtype)
    return finish(values, weight, reduction)


@relative_row(
    "an epsilon that swallows small numbers", "every box loss of the field", "scale_invariance"
)
def fixed_epsilon(x, t):
    size = torch.maximum(x.detach().abs().amax(1), t.abs().amax(1)) + 1e-7
    return ((x - t) / size.unsqueeze(1)).square().mean(1)


# ---- gradients


class EarlyGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, value, grad):
        ctx.save_for_backward(grad)
        return value.detach().clone()

    @staticmethod
    def backward(ctx, up):
        (grad,) = ctx.saved_tensors
        return grad, None, None


def early(loss, x, scale=None):
    """Take the gradient already in forward, and return it whatever comes back."""
    with torch.enable_grad():
        inner = x.detach().requires_grad_()
        value = loss(inner)
        (grad,) = torch.autograd.grad(value.sum(), inner)
    return EarlyGradient.apply(x, value, grad if scale is None else scale(grad))


@planted(
    "the gradient of forward, whatever the upstream one", "torchtitan", "respects_upstream_gradient"
)
@variant
def ignores_upstream(logits, target, weight, gamma, reduction):
    return early(
        lambda x: logistic(x, target, weight=weight, gamma=gamma, reduction=reduction), logits
    )


class ScaledInPlace(EarlyGradient):
    @staticmethod
    def backward(ctx, up):
        (grad,) = ctx.saved_tensors
        with torch.no_grad():
            grad.data.mul_(up)
        return grad.clone(), None, None


@planted(
    "saved gradients scaled in place: the second backward is scaled twice",
    "Liger, FLA",
    "respects_upstream_gradient",
)
@variant
def scaled_twice(logits, target, weight, gamma, reduction):
    with torch.enable_grad():
        inner = logits.detach().requires_grad_()
        value = logistic(inner, target, weight=weight, gamma=gamma, reduction=reduction)
        (grad,) = torch.autograd.grad(2 * value.sum(), inner)
    return ScaledInPlace.apply(logits, value, grad) / 2


class RoundedEarly(EarlyGradient):
    @staticmethod
    def backward(ctx, up):
        (grad,) = ctx.saved_tensors
        return (up * grad).to(grad.dtype), None, None


@planted(
    "the gradient rounded to half before the loss scale arrives",
    "torch linear_cross_entropy in float16",
    "half_matches_truth",
)
@variant
def rounded_early(logits, target, weight, gamma, reduction):
    with torch.enable_grad():
        inner = logits.detach().requires_grad_()
        value = logistic(inner, target, weight=weight, gamma=gamma, reduction=reduction)
        (grad,) = torch.autograd.grad(1e-4 * value.sum(), inner)
    return RoundedEarly.apply(logits, value, grad) / 1e-4


def wrong_step(x, up, kept, t):
    v, dx = relative_step(x, up, kept, t)
    dx[-1] = 0  # the last row of every block
    return v, dx


@planted(
    "a hand-written gradient that skips a row at the end of a block",
    NOBODY,
    "streamed_equals_plain",
    RELATIVE,
)
def skips_a_row(prediction, target, *, weight=None, reduction="mean"):
    formula = Formula(lambda x, kept, t: relative_formula(x, t), wrong_step)
    return relative_with(formula)(prediction, target, weight=weight, reduction=reduction)


@planted("a factor left out of a written gradient", NOBODY, "gradient_is_right")
@variant
def misses_a_factor(logits, target, weight, gamma, reduction):
    return early(
        lambda x: logistic(x, target, weight=weight, gamma=gamma, reduction=reduction),
        logits,
        lambda grad: grad * torch.sigmoid(logits),
    )


class OnceOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, t, gamma):
        ctx.save_for_backward(x, t)
        ctx.gamma = gamma
        return focused(x, t, gamma)

    @staticmethod
    def backward(ctx, up):
        x, t = ctx.saved_tensors
        with torch.enable_grad():
            inner = x.detach().requires_grad_()
            (grad,) = torch.autograd.grad(focused(inner, t, ctx.gamma).sum(), inner)
        return up * grad, None, None


@planted(
    "a backward that is a constant to autograd", "Liger and other fused kernels", "double_backward"
)
@variant
def no_second_gradient(logits, target, weight, gamma, reduction):
    x, t = visible(logits, target, weight)
    return finish(OnceOnly.apply(x, t, gamma), weight, reduction)


@relative_row("a forgotten detach", "VFL in several detectors", "frozen_factors_are_constants")
def forgotten_detach(x, t):
    size = torch.maximum(x.abs().amax(1), t.abs().amax(1))
    size = torch.where(size > 0, size, 1)
    return ((x - t) / size.unsqueeze(1)).square().mean(1)


@planted("a target detached in silence", NOBODY, "gradient_reaches_all_who_ask", RELATIVE)
def silent_detach(prediction, target, *, weight=None, reduction="mean"):
    return RELATIVE.function(prediction, target.detach(), weight=weight, reduction=reduction)


@planted("a clamp with no gradient past it", "CenterNet", "hopeless_keeps_a_gradient")
@variant
def dead_past_clamp(logits, target, weight, gamma, reduction):
    x, t = visible(logits, target, weight)
    p = torch.sigmoid(x).clamp(1e-4, 1 - 1e-4)
    right = p * t + (1 - p) * (1 - t)
    return finish(-((1 - right) ** gamma) * right.log(), weight, reduction)


# ---- names, options, errors, the module


@planted("the class has another default", "kornia", "twin_agrees")
class DriftedDefault(Logistic):
    def __init__(self, gamma: float = 1.5, reduction: str = "mean") -> None:
        super().__init__(gamma, reduction)


@planted(
    "the class forgets to pass an option on", "torchvision CIoU, its eps within", "twin_agrees"
)
class ForgetsOption(Logistic):
    def forward(self, logits, target, *, weight=None):
        return logistic(logits, target, weight=weight, reduction=self.reduction)


@planted("a repr that is no call", "toolbelt BinaryFocalLoss", "twin_agrees")
class BadRepr(Logistic):
    def extra_repr(self) -> str:
        return f"exponent={self.gamma}"


@planted(
    "an option that is accepted and ignored",
    "smp LovaszLoss(from_logits=)",
    "every_option_is_exercised",
    cases={**STRANGER.cases, "told": case(from_logits=False)},
)
def ignores_option(logits, target, *, weight=None, gamma=2.0, from_logits=True, reduction="mean"):
    return logistic(logits, target, weight=weight, gamma=gamma, reduction=reduction)


@planted(
    "a row that leaves an option at its default",
    NOBODY,
    "every_option_is_exercised",
    cases={"plain": case(weighted), "summed": case(reduction="sum")},
)
def never_set(logits, target, *, weight=None, gamma=2.0, reduction="mean"):
    return logistic(logits, target, weight=weight, gamma=gamma, reduction=reduction)


@planted("shapes that broadcast in silence", "smp, multilabel", "bad_input_is_refused")
def broadcasts(logits, target, *, weight=None, gamma=2.0, reduction="mean"):
    check(logits, logits, None, gamma, reduction)
    weight = None if weight is None else weight.expand_as(logits)
    target = target.expand(torch.broadcast_shapes(target.shape, logits.shape))
    return finish(focused(*visible(logits, target, weight), gamma), weight, reduction)


@planted("an unknown reduction is taken for 'none'", "torchvision", "bad_input_is_refused")
def lets_reduction_through(logits, target, *, weight=None, gamma=2.0, reduction="mean"):
    known = reduction if reduction in ("mean", "sum") else "none"
    return logistic(logits, target, weight=weight, gamma=gamma, reduction=known)


def classwise(logits, target, *, scale=None, weight=None, gamma=2.0, reduction="mean"):
    values = logistic(logits, target, weight=weight, gamma=gamma, reduction="none")
    return finish(values if scale is None else values * scale, None, reduction)


class PlainAttribute(Logistic):
    """Holds the weights of its classes as a plain attribute."""

    def __init__(self, scale=None, gamma: float = 2.0, reduction: str = "mean") -> None:
        super().__init__(gamma, reduction)
        self.scale = scale

    def forward(self, logits, target, *, weight=None):
        return classwise(
            logits,
            target,
            scale=self.scale,
            weight=weight,
            gamma=self.gamma,
            reduction=self.reduction,
        )


SCALED = {"plain": case(scale=torch.tensor([1.0, 2.0, 3.0]))}
planted(
    "class weights that are no buffer: not in the checkpoint",
    "smp",
    "copies",
    function=classwise,
    cases=SCALED,
)(PlainAttribute)
planted(
    "class weights that stay behind when the module moves",
    "smp, MONAI GeneralizedWassersteinDice",
    "follows_to_dtype_and_device",
    function=classwise,
    cases=SCALED,
)(PlainAttribute)


@planted("the gradient written over the logits", "Liger 272", "leaves_inputs_alone")
@variant
def overwrites_logits(logits, target, weight, gamma, reduction):
    value = logistic(logits, target, weight=weight, gamma=gamma, reduction=reduction)
    logits.data.clamp_(-2, 2)
    return value


@planted("class weights normalised in place", "MONAI DiceLoss", "leaves_inputs_alone")
class MutatesItself(Logistic):
    def forward(self, logits, target, *, weight=None):
        value = super().forward(logits, target, weight=weight)
        self.gamma = self.gamma / 2
        return value


# ---- PyTorch's machinery


@planted("a graph break: values read in Python", "MONAI Dice, .tolist()", "traces_without_breaks")
@variant
def reads_values(logits, target, weight, gamma, reduction):
    positives = int(target.sum())
    value = logistic(logits, target, weight=weight, gamma=gamma, reduction=reduction)
    return value * (1 if positives >= 0 else 0)


@planted("a branch on a value", "torchtune", "transforms")
@variant
def branches_on_values(logits, target, weight, gamma, reduction):
    value = logistic(logits, target, weight=weight, gamma=gamma, reduction=reduction)
    return value if bool((target >= 0).all()) else value * 0


@planted("a sum taken by a matrix product, in bfloat16", "ours, in the region gradient", "autocast")
@variant
def sums_by_product(logits, target, weight, gamma, reduction):
    values = logistic(logits, target, weight=weight, gamma=gamma, reduction="none")
    values = values @ torch.eye(3, dtype=values.dtype)
    if reduction == "none":
        return values
    count = 1 if reduction == "sum" else values.numel() if weight is None else weight.sum()
    return values.sum() / count


class Running:
    """A mean that each call moves, so that a call repeated for its gradient is another call."""

    mean = torch.ones((), dtype=torch.float64)


@planted("a running mean that moves when recomputed", "WIoU v3", "checkpointed")
@variant
def moves_when_recomputed(logits, target, weight, gamma, reduction):
    value = logistic(logits, target, weight=weight, gamma=gamma, reduction=reduction)
    Running.mean = 0.9 * Running.mean + 0.1 * value.detach().double().mean()
    return value / Running.mean.to(value.dtype)


@planted("a number asked of a tensor without one", NOBODY, "meta_device")
@variant
def asks_for_a_number(logits, target, weight, gamma, reduction):
    value = logistic(logits, target, weight=weight, gamma=gamma, reduction=reduction)
    return value * max(float(target.double().mean() >= 0), 1.0)


@planted("noise of its own", NOBODY, "deterministic")
@variant
def draws_noise(logits, target, weight, gamma, reduction):
    noisy = logits + 1e-3 * torch.randn_like(logits)
    return logistic(noisy, target, weight=weight, gamma=gamma, reduction=reduction)


@planted("view(-1) of an input that is strided", "toolbelt", "noncontiguous")
@variant
def insists_on_view(logits, target, weight, gamma, reduction):
    flat = logits.view(-1).view(logits.shape)
    return logistic(flat, target, weight=weight, gamma=gamma, reduction=reduction)


# ---- accelerators


@planted("a number that the host waits for", "Liger PR 1292", "asks_little_of_the_device")
@variant
def waits_for_a_number(logits, target, weight, gamma, reduction):
    value = logistic(logits, target, weight=weight, gamma=gamma, reduction=reduction)
    return value * max(target.double().mean().sign().item(), 1.0)


@planted("a count that is brought along", "ours, once", "asks_little_of_the_device")
@variant
def brings_the_count(logits, target, weight, gamma, reduction):
    total = logistic(logits, target, weight=weight, gamma=gamma, reduction="sum")
    if reduction == "sum" or weight is not None:
        return logistic(logits, target, weight=weight, gamma=gamma, reduction=reduction)
    return total / torch.tensor(logits.numel(), device=logits.device)


@planted("a constant on the CPU", NOBODY, "asks_little_of_the_device")
@variant
def forgets_the_device(logits, target, weight, gamma, reduction):
    logits = logits * torch.ones(3, dtype=logits.dtype)
    return logistic(logits, target, weight=weight, gamma=gamma, reduction=reduction)


class Rows(torch.autograd.Function):
    """The values of rows, whose gradient goes through a tensor on the CPU."""

    @staticmethod
    def forward(ctx, x):
        return x * 1

    @staticmethod
    def backward(ctx, up):
        return up * torch.ones(up.shape, dtype=up.dtype)


@planted("a constant on the CPU, in backward", NOBODY, "asks_little_of_the_device")
@variant
def forgets_it_in_backward(logits, target, weight, gamma, reduction):
    return logistic(Rows.apply(logits), target, weight=weight, gamma=gamma, reduction=reduction)


@planted("a loop over the samples", "ours, in Lovász", "asks_little_of_the_device")
@variant
def loops_over_samples(logits, target, weight, gamma, reduction):
    weights = [None] * len(logits) if weight is None else weight
    values = [
        logistic(x, t, weight=w, gamma=gamma, reduction="none")
        for x, t, w in zip(logits, target, weights, strict=True)
    ]
    values = torch.stack(values)
    if reduction == "none":
        return values
    count = torch.ones_like(values) if weight is None else weight
    return values.sum() / (1 if reduction == "sum" else count.sum())


@planted("another way on another device", NOBODY, "asks_little_of_the_device")
@variant
def differs_by_device(logits, target, weight, gamma, reduction):
    value = logistic(logits, target, weight=weight, gamma=gamma, reduction=reduction)
    return value if logits.device.type == "cpu" else value.to(torch.bfloat16).to(value.dtype)


# -------------------------------------------------------------- preferences and policies, by row


def instead_of(name: str, about: str, whose: str, promise: str, **changed: Any):
    """Put a wrong function in the place of one of ours, whose row it is held to."""
    row = SPECS[name]

    def plant(wrong):
        wraps(row.function)(named := partial(wrong, row.function))
        spec = replace(row, name=wrong.__name__, function=named, module=None, **changed)
        BUGS.append(Bug(about, whose, promise, spec))
        return wrong

    return plant


@instead_of("policy_loss", "a mean of the means of micro-batches", "open-instruct#1161",
            "split_invariance")  # fmt: skip
def mean_of_means(right, *args, reduction="mean", **options):
    if not callable(reduction):
        return right(*args, reduction=reduction, **options)
    mean = right(*args, reduction="mean", **options)
    return reduction(mean, torch.ones((), dtype=mean.dtype), term="policy")


@instead_of("policy_loss", "a mask that is multiplied with", "TRL, OpenRLHF, Liger",
            "ignoring_is_removing")  # fmt: skip
def mask_by_product(right, log_prob, old_log_prob, advantage, *, mask=None, **options):
    tokens = _tokens(log_prob, old_log_prob, advantage, {**options, "reduction": None})
    if mask is None or tokens is None:
        return right(log_prob, old_log_prob, advantage, mask=mask, **options)
    rho, a = tokens[0].exp(), tokens[1]
    return finish(torch.maximum(-rho * a, -rho.clamp(0.8, 1.2) * a) * mask, mask,
                  options.get("reduction", "mean"))  # fmt: skip


def _tokens(log_prob, old_log_prob, advantage, options):
    if set(options) - {"reduction"} or options.get("reduction") not in ("none", None):
        return None
    x = log_prob.float() if log_prob.dtype.itemsize == 2 else log_prob
    return x - old_log_prob.to(x.dtype), advantage.to(x.dtype).unsqueeze(-1)


@instead_of("policy_loss", "a log-ratio that is clamped to 20", "verl, OpenRLHF",
            "finite_at_extremes")  # fmt: skip
def clamps_the_log_ratio(right, log_prob, old_log_prob, advantage, **options):
    tokens = _tokens(log_prob, old_log_prob, advantage, options)
    if tokens is None:
        return right(log_prob, old_log_prob, advantage, **options)
    rho = tokens[0].clamp(-20, 20).exp()
    return torch.maximum(-rho * tokens[1], -rho.clamp(0.8, 1.2) * tokens[1])


@instead_of("policy_loss", "the larger of two products, one of them infinite", "TRL",
            "finite_at_extremes")  # fmt: skip
def infinite_product(right, log_prob, old_log_prob, advantage, **options):
    tokens = _tokens(log_prob, old_log_prob, advantage, options)
    if tokens is None:
        return right(log_prob, old_log_prob, advantage, **options)
    rho = tokens[0].exp()
    return torch.maximum(-rho * tokens[1], -rho.clamp(0.8, 1.2) * tokens[1])


@instead_of("policy_loss", "a count of tokens that were masked too", "TRL#6369",
            "counts_what_it_says")  # fmt: skip
def counts_padding(right, log_prob, *args, reduction="mean", mask=None, **options):
    if mask is None or not callable(reduction):
        return right(log_prob, *args, reduction=reduction, mask=mask, **options)
    total = right(log_prob, *args, reduction="sum", mask=mask, **options)
    return reduction(total, torch.tensor(mask.numel()), term="policy")


@instead_of("dpo_loss", "a loss times the number of ranks", "verl#7200", "counts_what_it_says")
def times_the_world(right, *args, reduction="mean", **options):
    if not callable(reduction):
        return right(*args, reduction=reduction, **options)
    return right(*args, reduction=lambda t, c, *, term: reduction(2 * t, c, term=term), **options)


@instead_of("orpo_loss", "1e-9 inside a logarithm", "ORPO in many", "finite_at_extremes")
def epsilon_in_the_odds(right, chosen, rejected, **options):
    x, y = (t.float() if t.dtype.itemsize == 2 else t for t in (chosen, rejected))
    nll = right(chosen, rejected, **{**options, "odds_weight": 0.0})
    u = [t - torch.log(1 - t.exp() + 1e-9) for t in (x, y)]
    odds = F.softplus(u[1] - u[0])
    return nll + options.get("odds_weight", 0.1) * odds.sum()


@instead_of("kl_penalty_loss", "k3 that is clamped to 10", "verl, OpenRLHF", "finite_at_extremes")
def clamps_k3(right, log_prob, reference_log_prob, **options):
    if set(options) - {"reduction"}:
        return right(log_prob, reference_log_prob, **options)
    x = log_prob.float() if log_prob.dtype.itemsize == 2 else log_prob
    d = x - reference_log_prob.to(x.dtype)
    value = (torch.expm1(-d.clamp(-20, 20)) + d).clamp(max=10)
    return value if options.get("reduction") == "none" else value.mean()


# ---- masks, spectra and numbers


@instead_of("top_k_cross_entropy_loss", "ignored positions in the number of the hardest",
            "nnU-Net", "ignoring_is_removing")  # fmt: skip
def counts_ignored_for_k(right, logits, target, *, fraction=0.1, ignore_index=-100, **options):
    if not target.is_floating_point() and ignore_index is not None:
        seen = (target != ignore_index).sum().clamp(min=1)
        fraction = min(1.0, fraction * target.numel() / seen.item())
    return right(logits, target, fraction=fraction, ignore_index=ignore_index, **options)


@instead_of("top_k_cross_entropy_loss", "easy positions struck out of a copy: all are kept",
            "mmsegmentation OHEM", "every_option_is_exercised")  # fmt: skip
def strikes_out_of_a_copy(right, logits, target, *, fraction=0.1, threshold=None, **options):
    everything = {**options, "fraction": 1.0, "threshold": None}
    each = right(logits, target, **{**everything, "reduction": "none"}).detach()
    weight = torch.ones_like(each)
    weight[each > 0][each[each > 0] < each.quantile(1 - fraction)] = 0  # indexing copies
    value = right(logits, target, **everything)
    return value * weight if options.get("reduction") == "none" else value


@instead_of("l1_loss", "a weighted mean over the number of elements", "nobody in particular",
            "counts_what_it_says")  # fmt: skip
def weighs_without_counting(right, prediction, target, *, reduction="mean", **options):
    if not callable(reduction):
        return right(prediction, target, reduction=reduction, **options)
    total = right(prediction, target, reduction="sum", **options)
    return reduction(total, torch.tensor(prediction.numel()), term="l1")


@instead_of("mse_loss", "NaN that is taken for 0", "darts", "finite_at_extremes")
def hides_nan(right, prediction, target, *, weight=None, **options):
    return right(prediction.nan_to_num(), target, weight=weight, **options)


@instead_of("boundary_loss", "a gradient that ends where nothing is predicted",
            "losses that skip empty masks", "hopeless_keeps_a_gradient")  # fmt: skip
def skips_what_is_empty(right, logits, target, **options):
    if bool((logits.argmax(1) == 0).all()) or bool((logits < 0).all()):
        return 0 * right(logits, target, **options)
    return right(logits, target, **options)


# ------------------------------------------------------------------------------------ the tests


def planted_table() -> str:
    """Each bug, whose it is, and the promise that catches it."""
    rows = [("planted bug", "whose", "caught by"), *((b.about, b.whose, b.promise) for b in BUGS)]
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    return "\n".join(f"{a:{widths[0]}}  {b:{widths[1]}}  {c}" for a, b, c in rows)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: f"{bug.promise}-{bug.spec.name}")
def test_the_promise_catches_its_bug(bug):
    if (reason := PROMISES[bug.promise].unless()) is not None:
        pytest.skip(reason)
    with pytest.raises(AssertionError) as caught:
        PROMISES[bug.promise](bug.spec)
    assert str(caught.value)


@pytest.mark.parametrize("spec", STRANGERS, ids=lambda spec: spec.name)
@pytest.mark.parametrize("promise", PROMISES.values(), ids=lambda promise: promise.name)
def test_a_correct_stranger_keeps_it_or_says_why_not(promise, spec):
    reason = promise.exemption(spec)
    if reason is None:
        assert promise(spec).cases
    else:
        assert len(reason.split()) > 3


def breaks_the_graph(value):
    torch._dynamo.graph_break()
    return value


def differs_compiled(value):
    return value * (1 + 1e-9) if torch.compiler.is_compiling() else value


@pytest.mark.parametrize(
    ("wrong", "said"),
    [(breaks_the_graph, "Unsupported"), (differs_compiled, "value, compiled: got")],
)
def test_of_cases_that_are_compiled_at_once_the_one_that_breaks_is_named(wrong, said):
    @variant
    def sums_wrongly(logits, target, weight, gamma, reduction):
        value = logistic(logits, target, weight=weight, gamma=gamma, reduction=reduction)
        return wrong(value) if reduction == "sum" else value

    with pytest.raises(AssertionError, match=f"^summed: {said}"):
        PROMISES["traces_without_breaks"](replace(STRANGER, function=sums_wrongly))


def test_every_promise_has_a_bug_to_catch():
    assert {bug.promise for bug in BUGS} == set(PROMISES)


def test_the_table_names_each_bug_with_its_promise():
    lines = planted_table().splitlines()
    assert len(lines) == 1 + len(BUGS)
    for line, bug in zip(lines[1:], BUGS, strict=True):
        assert line.startswith(bug.about)
        assert line.endswith(bug.promise)
