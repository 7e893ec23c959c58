"""Known differences: each with whom it concerns, and what is to be mended. Empty is the aim."""

from __future__ import annotations

import re
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
    "dice_loss",
    "mask_iou_loss",
    "tversky_loss",
    "focal_tversky_loss",
    "generalized_dice_loss",
    "dice_ce_loss",
    "dice_ce_terms",
    "dice_focal_loss",
    "dice_focal_terms",
    "mcc_loss",
    "wasserstein_dice_loss",
    "boundary_loss",
    "hausdorff_loss",
)


def _rounding(call: Call, failure: Failure, units: float = 64) -> bool:
    """Whether what is off is some roundings of the numbers that a small one is a difference of."""
    eps = torch.finfo(computed(call)).eps
    floats = [t for _, t in leaves(call.args) if t.is_floating_point() and t.numel()]
    most = [t.detach().abs().nan_to_num(0.0, 0.0, 0.0).max().item() for t in floats]
    predictions = [t for path, t in leaves(call.args) if path.split("[")[0] == call.grads[0]]
    many = max(t.numel() for t in predictions) if call.args.get("reduction") == "sum" else 1
    room = units * eps * max(*most, failure.largest, 1.0) * many
    if failure.kind.startswith("gradient"):
        room += max(torch.finfo(t.dtype).eps for t in predictions) * abs(failure.wanted)
    return abs(failure.got - failure.wanted) <= room


def _plainly(call: Call) -> bool:
    """By autograd of the definition: asked for, or because a side learns."""
    return call.engine == "plain" or len(call.grads) > 1


def _soft(call: Call) -> bool:
    target = call.args.get("target")
    return isinstance(target, Tensor) and target.is_floating_point()


def _aligned(call: Call) -> bool:
    """Whether a signal is its target but for rounding, in its level or not."""
    x, t = (call.args[key].detach().double() for key in ("estimate", "target"))
    if not x.numel():
        return False
    name = call.name
    if "loss" in call.args:  # of permuted sources
        t, name = t.flip(1), call.args["loss"].__name__
    size, n = torch.full(x.shape[:-1], x.shape[-1]), call.args.get("lengths")
    if n is not None:
        size = n.long().reshape(-1, *[1] * (size.ndim - 1)).expand(size.shape)
    size = size[..., None]
    inside = torch.arange(x.shape[-1]) < size
    x, t = (torch.where(inside, v, 0.0) for v in (x, t))
    if call.args.get("zero_mean", name == "si_snr_loss"):
        mean = (v.sum(-1, keepdim=True) / size.clamp(min=1) for v in (x, t))
        x, t = (torch.where(inside, v - m, 0.0) for v, m in zip((x, t), mean, strict=True))
    energy, power, cross = (x * x).sum(-1), (t * t).sum(-1), (x * t).sum(-1)
    close = energy * power - cross**2 <= 1e-8 * energy * power
    return bool((close & (size[..., 0] > 0) & ((power > 0) | (energy == 0))).any())


def _close(call: Call) -> bool:
    """Whether a box is nearly its target."""
    x, t = (call.args[key].detach().double() for key in ("pred_boxes", "target_boxes"))
    size = t[..., 2:4].amax(-1)
    return bool(((x - t)[..., :4].abs().amax(-1) <= 0.05 * size).any())


def _level(call: Call) -> bool:
    x, n = call.args["estimate"], call.args.get("lengths")
    x = x if n is None else x.double().nan_to_num(0.0, 0.0, 0.0)
    first = x[..., :1]
    return bool(((x == first) | (x == 0)).all())


def _known(
    sentence: str,
    names: tuple[str, ...] | str,
    kind: str = "(value|gradient) of .*",
    when: Callable[[Call, Failure], bool] = _rounding,
) -> Known:
    """Of these losses, what fails in this way."""
    names = (names,) if isinstance(names, str) else names

    def where(call: Call, failure: Failure) -> bool:
        kinds = re.fullmatch(kind, failure.kind)
        return call.name in names and kinds is not None and when(call, failure)

    return Known(where, sentence)


KNOWN: list[Known] = [
    _known(
        "probiou_loss of a size of 0 or less: its slope has four digits in float32.",
        "probiou_loss",
        "gradient of .*",
        lambda c, f: bool((c.args["pred_boxes"][..., 2:4] <= 0).any()) and f.off < 1e-3,
    ),
    _known(
        "generalized_dice_loss: where all that count weigh 0, the weights have a gradient.",
        "generalized_dice_loss",
        "gradient of weight.*",
        lambda c, f: not c.args["weight"][0 if c.args.get("background", True) else 1 :].any(),
    ),
    _known(
        "distillation from all classes as the likeliest: they add up to 1 only to their rounding.",
        ("distillation_loss", "distillation_terms"),
        when=lambda c, f: c.args.get("teacher_indices") is not None and f.off < 1e-6,
    ),
    _known(
        "distribution_focal_loss: log_softmax loses the digits of a small loss, and p - target of "
        "its slope.",
        "distribution_focal_loss",
    ),
    _known(
        "cross_entropy with soft targets that are sure: lse - z and p - target lose the digits "
        "that the form of indices keeps.",
        ("cross_entropy", "linear_cross_entropy"),
        when=lambda c, f: _soft(c) and _rounding(c, f),
    ),
    _known(
        "cross_entropy of a sure row: the slope of its z-loss is rounded beside 1 - p.",
        (
            "cross_entropy",
            "linear_cross_entropy",
            "multi_token_loss",
            "multi_token_terms",
            "linear_multi_token_loss",
            "linear_multi_token_terms",
        ),
        "gradient of .*",
        lambda c, f: c.args["z_loss"] > 0 and _rounding(c, f),
    ),
    _known(
        "token_stats and linear_token_stats: the slopes of a sure token have few digits.",
        ("token_stats", "linear_token_stats"),
        "gradient of .*",
    ),
    _known("Soft targets that are sure, of the old heads in lwf_loss.", ("lwf_loss", "lwf_terms")),
    _known(
        "A divergence of distributions that are nearly equal has few digits, its gradient fewer.",
        ("distillation_loss", "distillation_terms", "linear_distillation_loss"),
        when=lambda c, f: _rounding(c, f, 1024),
    ),
    _known(
        "Boxes nearly equal: 1 - I / U and (C - U) / C are differences of numbers near 1, and "
        "lengths are compared relative to the span.",
        ("box_iou_loss", "giou_loss", "diou_loss", "ciou_loss", "eiou_loss", "siou_loss"),
    ),
    _known(
        "probiou_loss of boxes nearly equal: w h - W H is a difference of products.",
        "probiou_loss",
        when=lambda c, f: _close(c) and f.off < 0.2,
    ),
    _known(
        "si_sdr_loss of signals nearly in proportion: sums in double leave few digits to their "
        "gradient, and none to that of signals beside which their means are large; a walk of the "
        "residual would keep them.",
        ("si_sdr_loss", "si_snr_loss", "permutation_invariant_loss"),
        "gradient of .*",
        lambda c, f: _aligned(c) and (f.off < 1e-3 or 0 in (f.got, f.wanted)),
    ),
    _known(
        "Regions under plain autograd: the slope of a sigmoid and of a softmax loses its digits "
        "near 1.",
        REGIONS,
        "gradient of .*",
        lambda c, f: _plainly(c) and _rounding(c, f),
    ),
    _known(
        "Regions of floating targets: the price of what is false is lost beside that of what is "
        "missed, and where nearly nothing overlaps truth - missed is rounding.",
        REGIONS,
        "gradient of .*",
        lambda c, f: _soft(c) and (c.args.get("log", False) or _rounding(c, f)),
    ),
    _known(
        "cl_dice_loss is under plain autograd, and a skeleton a difference of probabilities.",
        ("cl_dice_loss", "cl_dice_terms"),
        "gradient of .*",
    ),
    _known(
        "mcc_loss of soft targets that are hardly there: what is found is rounding.",
        "mcc_loss",
        when=lambda c, f: _soft(c),
    ),
    _known(
        "The gradient of a target is a difference of two costs, near logits of 0.",
        ("varifocal_loss", "quality_focal_loss", "mal_loss", "ia_bce_loss"),
        "gradient of target",
    ),
    _known(
        "IoU-aware cross-entropy: its target p**alpha q**(1 - alpha) is rounded, and near 1 the "
        "cost is a difference from it.",
        "ia_bce_loss",
    ),
    _known(
        "The gradient of a target is summed of two parts, each rounded to its dtype.",
        ("snr_loss", "si_sdr_loss", "si_snr_loss", "sd_sdr_loss"),
        "gradient of target",
    ),
    _known(
        "Spectra of a constant: the logarithm is of the rounding of the transform.",
        ("stft_loss", "multi_resolution_stft_loss", "mel_loss"),
        when=lambda c, f: _level(c),
    ),
    _known(
        "expected_value: the slope p (k - mean) where the mean is k but for rounding.",
        "expected_value",
        "gradient of logits",
    ),
    _known(
        "The same, and distribution_focal_loss's p - target, in the detectors of distributions.",
        ("detection_loss", "detection_terms"),
        "gradient of boxes",
        lambda c, f: c.args["pred_boxes"].ndim == 4 and _rounding(c, f),
    ),
]
"""In the order in which they are asked."""


def known(call: Call, failure: Failure) -> Known | None:
    """The entry that a failure belongs to."""
    return next((entry for entry in KNOWN if entry.where(call, failure)), None)
