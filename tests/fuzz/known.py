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


KNOWN: list[Known] = []
"""In the order in which they are asked."""


def known(call: Call, failure: Failure) -> Known | None:
    """The entry that a failure belongs to."""
    return next((entry for entry in KNOWN if entry.where(call, failure)), None)
