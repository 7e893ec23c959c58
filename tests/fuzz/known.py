"""Known differences: each with whom it concerns, and what is to be mended. Empty is the aim."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from tests.fuzz.check import Failure, computed, leaves
from tests.fuzz.draw import Call

__all__ = ["KNOWN", "Known", "known"]


class Known(NamedTuple):
    """One kind of difference."""

    where: Callable[[Call, Failure], bool]
    sentence: str


REGIONS = (
    "dice_loss", "mask_iou_loss", "tversky_loss", "focal_tversky_loss", "generalized_dice_loss",
    "dice_ce_loss", "dice_ce_terms", "dice_focal_loss", "dice_focal_terms",
)  # fmt: skip
BOXES = ("box_iou_loss", "giou_loss", "diou_loss", "ciou_loss", "eiou_loss", "siou_loss")
SCALE_FREE = ("si_sdr_loss", "si_snr_loss")
DISTILLED = ("distillation_loss", "distillation_terms", "linear_distillation")
CLASSES_OF_ELEMENTS = ("varifocal_loss", "quality_focal_loss", "binary_cross_entropy")


def _numeric(failure: Failure) -> bool:
    return failure.kind.startswith(("value of", "gradient of"))


def _narrow_sides(call: Call) -> bool:
    """A float64 prediction beside sides of fewer digits."""
    return computed(call) == torch.float64 and any(
        t.is_floating_point() and t.dtype != torch.float64 for _, t in leaves(call.args)
    )


def _plainly(call: Call) -> bool:
    """By autograd of the definition: asked for, or because a side learns."""
    return call.engine == "plain" or len(call.grads) > 1


def _soft(call: Call) -> bool:
    target = call.args.get("target")
    return isinstance(target, Tensor) and target.is_floating_point()


def _fault(call: Call, failure: Failure) -> str:
    """What kind of thing is wrong with a call that should have been refused by its name."""
    if not call.wrong or failure.kind not in ("wrong error", "accepted", "unnamed error"):
        return ""
    value = call.args[call.wrong[0]]
    if isinstance(value, str):
        return "text"
    return "complex" if isinstance(value, Tensor) and value.is_complex() else "other"


def _short_signal(call: Call) -> bool:
    """So few samples that nothing but the level is left."""
    x, n = call.args["estimate"], call.args.get("lengths")
    return x.shape[-1] <= 2 or (n is not None and bool((n <= 2).any()))


def _half(call: Call, key: str) -> bool:
    value = call.args.get(key)
    return isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)


KNOWN: list[Known] = [
    Known(
        lambda c, f: f.kind.endswith("where it is 0"),
        "A weight of 0 removes its element, and has a gradient all the same: half of one, of the "
        "count alone, or that of an element of zeros.",
    ),
    Known(
        lambda c, f: _numeric(f) and _narrow_sides(c) and f.off < 1e-6,
        "float64 beside sides of fewer digits: the count, or what is made of sides alone, is "
        "summed in float32.",
    ),
    Known(
        lambda c, f: (
            c.name == "focal_loss"
            and f.kind == "value of loss"
            and _half(c, "target")
            and c.args.get("normalize") == "positives"
            and f.off < 1e-2
        ),
        "focal_loss counts the positives in the target's half type.",
    ),
    Known(
        lambda c, f: (
            c.name == "distribution_focal_loss"
            and _numeric(f)
            and (f.off <= 1 or f.kind == "gradient of logits")
        ),
        "distribution_focal_loss: log_softmax loses the digits of a small loss, and p - target of "
        "its slope.",
    ),
    Known(
        lambda c, f: c.name == "cross_entropy" and _soft(c) and _numeric(f),
        "cross_entropy with soft targets that are sure: lse - z and p - target lose the digits "
        "that the form of indices keeps.",
    ),
    Known(
        lambda c, f: (
            c.name.startswith("linear_")
            and c.name != "linear_distillation"
            and _soft(c)
            and _numeric(f)
        ),
        "The same, of linear_cross_entropy.",
    ),
    Known(
        lambda c, f: (
            c.name in ("lwf_loss", "lwf_terms")
            and f.kind.startswith("gradient of new")
            and f.off < 0.1
        ),
        "The same, of the old heads in lwf_loss.",
    ),
    Known(
        lambda c, f: c.name in DISTILLED and _numeric(f),
        "A divergence of distributions that are nearly equal has few digits, its gradient fewer.",
    ),
    Known(
        lambda c, f: c.name == "rmsle_loss" and _numeric(f) and f.off < 1,
        "rmsle_loss: log1p(x) - log1p(t) loses what x - t has.",
    ),
    Known(
        lambda c, f: (
            c.name == "rmse_loss" and f.kind.startswith("gradient of weight") and "nan" in f.message
        ),
        "rmse_loss: the gradient of the weights is NaN where the error is 0.",
    ),
    Known(
        lambda c, f: (
            c.name == "rmsle_loss"
            and f.kind.startswith("gradient of weight")
            and "nan" in f.message
        ),
        "The same, of rmsle_loss.",
    ),
    Known(
        lambda c, f: (
            (
                c.name == "adaptive_wing_loss"
                or (c.name == "heatmap_loss" and c.args.get("kind") == "awing")
            )
            and f.kind in ("gradient of prediction", "gradient of target")
            and f.off <= 1
        ),
        "adaptive_wing_loss: the slope near the target is what is left of the far slope less "
        "itself.",
    ),
    Known(
        lambda c, f: (
            c.name == "wing_loss"
            and f.kind in ("gradient of prediction", "gradient of target")
            and f.off < 1e-2
            and c.args["width"] < c.args["epsilon"]
        ),
        "wing_loss: likewise, where width is small beside epsilon.",
    ),
    Known(
        lambda c, f: c.name in BOXES and f.kind == "value of loss" and f.off <= 1,
        "Boxes nearly equal: 1 - I / U and (C - U) / C are differences of numbers near 1.",
    ),
    Known(
        lambda c, f: (
            c.name in BOXES
            and f.kind.startswith("gradient of")
            and f.off <= 1
            and (c.args["power"] != 1 or c.name in ("eiou_loss", "siou_loss"))
        ),
        "Boxes nearly equal: the slopes of powers, and of lengths compared relative to the span, "
        "likewise.",
    ),
    Known(
        lambda c, f: (
            c.name in ("probiou_loss", "siou_loss")
            and f.kind.startswith("gradient of")
            and f.off <= 1
        ),
        "probiou_loss, siou_loss: the slope of expm1 is its value plus 1, and loses its digits far "
        "away.",
    ),
    Known(
        lambda c, f: (
            c.name == "keypoint_loss"
            and f.kind == "gradient of pred"
            and f.off <= 1
            and c.args["mode"] != "cauchy"
        ),
        "keypoint_loss: likewise, a few sigmas away.",
    ),
    Known(
        lambda c, f: (
            c.name == "keypoint_loss"
            and f.kind == "gradient of area"
            and (f.off <= 1 or "nan" in f.message)
            and c.args["mode"] != "cauchy"
        ),
        "keypoint_loss: likewise of the area; and NaN for points far off with mode='log'.",
    ),
    Known(
        lambda c, f: c.name in SCALE_FREE and f.kind == "gradient of estimate" and _short_signal(c),
        "si_sdr_loss of one sample, or two without their mean: the gradient is rounding.",
    ),
    Known(
        lambda c, f: (
            c.name in (*SCALE_FREE, "permutation_invariant_loss")
            and _numeric(f)
            and c.args["estimate"].dtype == torch.float64
            and f.off < 1e-3
        ),
        "si_sdr_loss in float64: 1 - q has 6 digits at 100 dB.",
    ),
    Known(
        lambda c, f: c.name in REGIONS and _numeric(f) and _plainly(c),
        "Regions under plain autograd: the slope of a sigmoid and of a softmax loses its digits "
        "near 1.",
    ),
    Known(
        lambda c, f: (
            c.name in REGIONS and f.kind == "gradient of logits" and _soft(c) and f.off <= 1
        ),
        "Regions of floating targets: the price of what is false is lost beside that of what is "
        "missed, and where nearly nothing overlaps truth - missed is rounding.",
    ),
    Known(
        lambda c, f: c.name in CLASSES_OF_ELEMENTS and f.kind == "gradient of target",
        "The gradient of a target is a difference of two costs, near logits of 0.",
    ),
    Known(
        lambda c, f: c.name == "expected_value" and f.kind == "gradient of logits",
        "expected_value: the slope p (k - mean) where the mean is k but for rounding.",
    ),
    # ------------------------------------------------------------------------------------ errors
    Known(
        lambda c, f: _fault(c, f) == "complex",
        "Complex targets, weights and masks are taken, or raise torch's own error.",
    ),
    Known(
        lambda c, f: _fault(c, f) == "text" and f.kind in ("wrong error", "unnamed error"),
        "What is no tensor raises an AttributeError, or an error that does not name it.",
    ),
]
"""In the order in which they are asked."""


def known(call: Call, failure: Failure) -> Known | None:
    """The entry that a failure belongs to."""
    return next((entry for entry in KNOWN if entry.where(call, failure)), None)
