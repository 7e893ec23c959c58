"""Losses of aligned boxes."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from tests.fuzz.draw import Call, Draw, Loss
from tests.fuzz.draws.classes import NAN, shape_of
from tests.fuzz.oracles import boxes as oracle
from tests.fuzz.oracles import rotated

__all__ = ["LOSSES", "pairs"]


def pairs(
    d: Draw, shape: tuple[int, ...], numbers: int = 4, axes: int = 2
) -> tuple[Tensor, Tensor]:
    """Targets in order and predictions, as corners; by chance apart, close, equal or degenerate."""
    unit = d.pick("boxes unit", (1.0, 100.0, 1e-4, 1e4))
    corner = d.normal("target corner", (*shape, axes), 2.0)
    size = d.normal("target size", (*shape, axes)).abs() + 0.1
    if numbers == 4 and d.chance("target thin", 5):
        size = size * d.among("target thinness", (*shape, axes), (1.0, 0.0, 1e-3))
    target = torch.cat((corner, corner + size), -1)
    kind = d.pick("pred values", ("apart", "over", "close", "equal", "inside", "whole", "turned"))
    noise = d.normal("pred", (*shape, 2 * axes))
    if kind == "whole":  # many ties
        target, noise = target.round(), noise.round()
    if kind == "inside":
        inner = corner + size * 0.25
        pred = torch.cat((inner, inner + size * 0.5), -1)
    elif kind == "equal":
        pred = target.clone()
    elif kind == "turned":
        pred = target + noise
    else:
        pred = target + noise * {"close": d.pick("pred noise", (1e-2, 1e-4, 1e-6))}.get(kind, 1.0)
        if kind == "apart":
            pred = pred + 5.0
        low, high = pred.chunk(2, -1)
        pred = torch.cat((torch.minimum(low, high), torch.maximum(low, high)), -1)
    return pred * unit, target * unit


def formatted(boxes: Tensor, box_format: str) -> Tensor:
    low, high = boxes.chunk(2, -1)
    if box_format == "xyxy":
        return boxes
    first = low if box_format == "xywh" else (low + high) / 2
    return torch.cat((first, high - low), -1)


def _call(d: Draw, name: str, pred: Tensor, target: Tensor, options: dict[str, Any]) -> Call:
    shape = pred.shape[:-1]
    weight = d.maybe("weight", lambda: d.weights("weight", shape))
    keep = torch.ones(shape, dtype=torch.bool) if weight is None else weight != 0
    wide = keep.unsqueeze(-1).expand(pred.shape)
    poison = d.pick("poison", (NAN, math.inf))
    # one rounding for both, so that equal boxes stay equal
    dtype = d.dtype("pred_boxes")
    top = torch.finfo(dtype).max / 2
    pred, t = pred.clamp(-top, top), target.clamp(-top, top).to(dtype)
    if d.pick("target dtype", ("same", "wide")) == "wide":
        t = t.to(torch.promote_types(dtype, torch.float32))
    low, high = t[..., : t.shape[-1] // 2 * 2].chunk(2, -1)
    flat = (high - (low if options.get("box_format") == "xyxy" else 0) > 0).all()
    if d.chance("poisoned", 3):
        pred, t = torch.where(wide, pred, poison), torch.where(wide, t, poison)
    return d.call(
        name,
        dict(
            pred_boxes=d.tensor("pred_boxes", pred, dtype),
            target_boxes=d.laid("target_boxes", t),
            weight=None if weight is None else d.tensor("weight", weight),
            validate=d.pick("validate", (False, True)),
            normalize=d.pick("normalize", ("elements", "positives")),
            reduction=d.reduction(),
        )
        | options,
        "pred_boxes",
        # where a target is a line or a point its gradient is one of several
        sides=("weight", *(("target_boxes",) * bool(flat))),
    )


def _axes(d: Draw) -> int:
    return d.pick("axes", (2, 2, 1, 3))


def _aligned(name: str) -> Any:
    def draw(d: Draw) -> Call:
        box_format = d.pick("box_format", ("xyxy", "xywh", "cxcywh"))
        axes = 2 if name in ("ciou_loss", "siou_loss") else _axes(d)
        drawn = pairs(d, shape_of(d, high=2), axes=axes)
        pred, target = (formatted(b, box_format) for b in drawn)
        options = dict(box_format=box_format, power=d.pick("power", (1.0, 1.0, 3.0, 1.5)))
        if name == "ciou_loss":
            options["gate"] = d.pick("gate", (False, True))
        if name == "box_iou_loss":
            options["kind"] = d.pick("kind", ("linear", "square", "log"))
            if options["kind"] != "linear":
                options["power"] = 1.0
        call = _call(d, name, pred, target, options)
        if options.get("gate") and _at_the_gate(call):
            call.args["gate"] = False
        return call

    return draw


def _at_the_gate(call: Call) -> bool:
    """An IoU of 1/2 may be rounded to either side, where the loss has a jump."""
    a = {"weight": None} | call.args
    boxes = {key: a[key].detach().double() for key in ("pred_boxes", "target_boxes")}
    plain = {"kind": "linear", "power": 1.0, "weight": None, "reduction": "none"}
    missed = oracle.box_iou_loss(SimpleNamespace(**a | boxes | plain))
    return bool(((missed - 0.5).abs() < 1e-5).any())


def _turned(d: Draw, *, cuboids: bool = False, rows: int = 2) -> tuple[Tensor, Tensor]:
    drawn = pairs(d, shape_of(d, high=rows), 5, axes=3 if cuboids else 2)
    pred, target = (formatted(b, "cxcywh") for b in drawn)
    turn = d.normal("target angle", (*pred.shape[:-1], 1))
    turned = turn + d.normal("pred angle", turn.shape, d.pick("turn", (1.0, 0.0, 1e-3)))
    return torch.cat((pred, turned), -1), torch.cat((target, turn), -1)


def _rotated(d: Draw) -> Call:
    pred, target = _turned(d)
    options = dict(
        distance=d.pick("distance", ("hellinger", "bhattacharyya")),
        angle=d.pick("angle", (0.0, 0.5)),
    )
    return _call(d, "probiou_loss", pred, target, options)


def _exact(name: str) -> Any:
    def draw(d: Draw) -> Call:
        pred, target = _turned(d, cuboids=d.pick("cuboids", (False, True)), rows=1)
        return _call(d, name, pred, target, {})

    return draw


def _edges(call: Call) -> bool:
    """Equal boxes, of which any slope of either side will do, and boxes that are lines.

    Those are as thin as a thousandth, and what float32 knows of their angle is a share of that.
    """
    pred, target = (call.args[name] for name in ("pred_boxes", "target_boxes"))
    sides = slice(2, 4) if pred.shape[-1] == 5 else slice(3, 6)
    lines = any(bool((boxes[..., sides] == 0).any()) for boxes in (pred, target))
    return lines or bool((pred == target).all(-1).any())


def _around(call: Call) -> Tensor:
    """What both boxes span, for centre and sizes; a radian for the angle."""
    pred, target = (call.args[key].detach().double() for key in ("pred_boxes", "target_boxes"))
    half = pred.shape[-1] // 2
    sizes = torch.cat((pred[..., half:-1].abs(), target[..., half:-1].abs()), -1)
    span = sizes.amax(-1, keepdim=True) + (pred - target)[..., :half].abs().amax(-1, keepdim=True)
    return torch.cat((span.expand(*span.shape[:-1], 2 * half), torch.ones_like(span)), -1)


def _kld(d: Draw) -> Call:
    pred, target = _turned(d)
    options = dict(
        divergence=d.pick("divergence", ("forward", "reverse", "symmetric")),
        squash=d.pick("squash", ("log1p", "sqrt", "none")),
    )
    return _call(d, "kld_loss", pred, target, options)


def _nwd(d: Draw) -> Call:
    box_format = d.pick("box_format", ("xyxy", "xywh", "cxcywh"))
    drawn = pairs(d, shape_of(d, high=2), axes=_axes(d))
    pred, target = (formatted(b, box_format) for b in drawn)
    options = dict(box_format=box_format, unit=d.pick("unit", (None, 1.0, 30.0)))
    return _call(d, "nwd_loss", pred, target, options)


def _l1(d: Draw) -> Call:
    pred, target = pairs(d, shape_of(d, high=2), axes=_axes(d))
    call = _call(d, "box_l1_loss", pred, target, dict(beta=d.pick("beta", (0.0, 1.0, 0.1))))
    call.args.pop("validate")
    return call


def _nearly_tied(call: Call) -> bool:
    """Edges that are sums, and equal or not by their rounding: either slope is one."""
    box_format = call.args["box_format"]
    if box_format == "xyxy":
        return False
    edges = []
    for boxes in (call.args["pred_boxes"], call.args["target_boxes"]):
        first, size = boxes.detach().double().chunk(2, -1)
        low = first if box_format == "xywh" else first - size / 2
        edges.append(torch.cat((low, low + size), -1))
    x, t = edges
    eps = torch.finfo(torch.promote_types(call.args["pred_boxes"].dtype, torch.float32)).eps
    off = (x - t).abs()
    return bool(((off > 0) & (off <= 8 * eps * (x.abs() + t.abs()))).any())


def _sums(call: Call) -> set[str]:
    """Edges that are sums are rounded before they are compared."""
    boxes = {"pred_boxes", "target_boxes"}
    return set() if call.args.get("box_format", "xyxy") == "xyxy" else boxes


def _spans(call: Call) -> Tensor:
    """The enclosing lengths, for each number of a box."""
    x, t = (call.args[key].detach().double() for key in ("pred_boxes", "target_boxes"))
    box_format = call.args.get("box_format", "xyxy")
    ends = [*oracle.edges(x, box_format), *oracle.edges(t, box_format)]
    ends = torch.stack(ends)
    return (ends.amax(0) - ends.amin(0)).repeat(*[1] * (x.ndim - 1), 2)


LOSSES = {
    name: Loss(
        _aligned(name),
        getattr(oracle, name),
        rows=-1,
        lengths=_spans,
        several=_nearly_tied,
        rigid=("target_boxes",),
        kinked=True,
        conceded=_sums,
        wrong={"power": (0.5, NAN, math.inf)},
    )
    for name in (
        "box_iou_loss",
        "giou_loss",
        "diou_loss",
        "ciou_loss",
        "eiou_loss",
        "siou_loss",
    )
} | {
    "probiou_loss": Loss(
        _rotated,
        oracle.probiou_loss,
        slack=64.0,
        rows=-1,
        rigid=("target_boxes",),
        kinked=True,
        conceded=lambda call: {"pred_boxes", "target_boxes"},
        wrong={"angle": (-1.0, NAN)},
    ),
    "kld_loss": Loss(
        _kld,
        oracle.kld_loss,
        slack=64.0,
        rows=-1,
        rigid=("target_boxes",),
        kinked=True,
        conceded=lambda call: {"pred_boxes", "target_boxes"},
    ),
    "nwd_loss": Loss(
        _nwd,
        oracle.nwd_loss,
        rows=-1,
        rigid=("target_boxes",),
        kinked=True,
        conceded=lambda call: {"pred_boxes", "target_boxes"},
        wrong={"unit": (-1.0, NAN)},
    ),
    **{
        name: Loss(
            _exact(name),
            getattr(rotated, name),
            slack=64.0,
            rows=-1,
            lengths=_around,
            several=_edges,
            rigid=("target_boxes",),
            kinked=True,
            conceded=lambda call: {"pred_boxes", "target_boxes"},
        )
        for name in ("rotated_iou_loss", "rotated_giou_loss")
    },
    "box_l1_loss": Loss(
        _l1,
        oracle.box_l1_loss,
        rows=-1,
        rigid=("target_boxes",),
        kinked=True,
        conceded=lambda call: {"pred_boxes", "target_boxes"},
        wrong={"beta": (-1.0, NAN)},
    ),
}
