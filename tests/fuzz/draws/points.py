"""Keypoints and heat maps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.fuzz.draw import Call, Draw, Loss
from tests.fuzz.draws.classes import NAN, poisoned, shape_of
from tests.fuzz.oracles import points as oracle

__all__ = ["LOSSES"]


def _weighted(
    d: Draw, name: str, x: Tensor, t: Tensor, options: dict[str, Any], keep: Tensor | None = None
) -> Call:
    shape = x.shape
    by_map = name == "heatmap_loss" and d.chance("weight of maps", 3)
    weight = d.maybe("weight", lambda: d.weights("weight", shape[:2] if by_map else shape))
    keep = torch.ones(shape, dtype=torch.bool) if keep is None else keep
    if weight is not None:
        keep = keep & (weight.reshape((*weight.shape, *[1] * (x.ndim - weight.ndim))) != 0)
    x, t = poisoned(d, x, keep, "prediction"), poisoned(d, t, keep, "target")
    return d.call(
        name,
        dict(
            prediction=d.tensor("prediction", x),
            target=d.tensor("target", t, d.dtype("target", (torch.float32, torch.bfloat16))),
            weight=None if weight is None else d.tensor("weight", weight),
            reduction=d.reduction(),
        )
        | options,
        "prediction",
        sides=("target", "weight"),
    )


def _wing(d: Draw) -> Call:
    shape = shape_of(d, low=0)
    t = d.normal("target", shape, 30.0)
    x = t + d.numbers("prediction", shape)
    options = dict(
        width=d.pick("width", (10.0, 1e-3, 33.3)), epsilon=d.pick("epsilon", (2.0, 1e-3, 50.0))
    )
    return _weighted(d, "wing_loss", x, t, options)


def _map(d: Draw, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    t = d.shares("target", shape)
    x = d.numbers("prediction", shape, 1e4)
    if d.chance("prediction close", 2):
        x = t + d.normal("prediction", shape, d.pick("noise", (0.1, 1e-3, 0.0)))
    return x, t


def _adaptive(d: Draw) -> Call:
    x, t = _map(d, shape_of(d, low=0))
    options = dict(
        alpha=d.pick("alpha", (2.1, 2.0, 3.0)),
        omega=d.pick("omega", (14.0, 1.0)),
        epsilon=d.pick("epsilon", (1.0, 0.1)),
        theta=d.pick("theta", (0.5, 0.05)),
    )
    return _weighted(d, "adaptive_wing_loss", x, t, options)


def _keypoints(d: Draw) -> Call:
    shape = shape_of(d, low=0, high=2)
    kind = d.pick("sigmas", ("coco", "crowdpose", "number", "vector", "list"))
    points = {"coco": 17, "crowdpose": 14}.get(kind) or d.size("points", low=1, high=17)
    sigmas: Any = kind
    if kind == "number":
        sigmas = d.pick("sigma", (0.05, 1.0))
    elif kind == "vector":
        sigmas = d.among("sigma", (points,), (0.05, 0.1, 1.0)).float()
    elif kind == "list":
        sigmas = [0.05] * points
    places = d.pick("places", (2, 3, 1))
    t = d.normal("target", (*shape, points, places), 30.0)
    x = t + d.normal("prediction", t.shape, d.pick("noise", (3.0, 0.0, 1e-3, 1e-6, 300.0)))
    visible = torch.randint(-1, 3, (*shape, points), generator=d.stream("visibility"))
    visible = visible * d.mask("instance seen", (*shape, 1), 0.8)
    weight = d.maybe("weight", lambda: d.weights("weight", shape))
    shares = d.maybe("point_weight", lambda: d.weights("point_weight", (*shape, points)))
    there = visible > 0 if shares is None else (visible > 0) & (shares != 0)
    keep = there.any(-1)
    keep = keep if weight is None else keep & (weight != 0)
    seen = there.unsqueeze(-1).expand(t.shape) & keep[..., None, None]
    x, t = poisoned(d, x, seen, "prediction"), poisoned(d, t, seen, "target")
    area = d.normal("area", shape, 500.0).abs() + 30
    dtype = d.dtype("prediction", (torch.float32, torch.float64, torch.bfloat16))
    return d.call(
        "keypoint_loss",
        dict(
            prediction=d.tensor("prediction", x, dtype),
            target=d.tensor("target", t.to(dtype), d.pick("side", (dtype, torch.float32))),
            visibility=d.laid("visibility", visible),
            area=d.tensor("area", area, torch.float32),
            sigmas=sigmas,
            kind=d.pick("kind", ("oks", "log", "cauchy")),
            area_scale=d.pick("area_scale", (1.0, 0.53)),
            point_weight=None if shares is None else d.tensor("point_weight", shares),
            weight=None if weight is None else d.tensor("weight", weight),
            reduction=d.reduction(),
        ),
        "prediction",
        sides=("target", "weight", "point_weight", "area"),
    )


def _heatmap(d: Draw) -> Call:
    shape = (d.size("samples", high=3), d.size("points", high=3))
    shape = (*shape, *(d.size(f"size {i}", high=17) for i in range(d.pick("axes", (2, 1, 3)))))
    kind = d.pick("kind", ("mse", "focal", "awing"))
    x, t = _map(d, shape)
    visible = d.maybe("visibility", lambda: d.among("visibility", shape[:2], (0, 1, 2, -1)))
    options: dict[str, Any] = dict(kind=kind)
    keep = None
    if visible is not None:
        options["visibility"] = visible.long()
        keep = (visible != 0).reshape(*shape[:2], *[1] * (len(shape) - 2)).expand(shape)
    if kind == "focal":
        x = d.numbers("logits", shape)
        options |= dict(alpha=d.pick("alpha", (2.0, 0.0, 0.5)), beta=d.pick("beta", (4.0, 0.0)))
        options["normalize"] = d.pick("normalize", (None, "elements", "positives"))
        options["positive"] = d.maybe("positive", lambda: d.mask("positive", shape, 0.2))
    elif d.chance("normalize", 2):
        options["normalize"] = "elements"
    return _weighted(d, "heatmap_loss", x, t, options, keep)


def _render(d: Draw) -> Call:
    shape = (d.size("samples", high=3), d.size("points", high=3))
    points = d.normal("points", (*shape, 2), 4.0)
    visible = d.maybe("visibility", lambda: d.among("visibility", shape, (1, 0, 2, -1)).long())
    if visible is not None:
        points = poisoned(d, points, (visible > 0).unsqueeze(-1).expand(points.shape), "points")
    per_point = d.pick("sigma kind", (False, True))
    sigma = d.normal("sigma", shape).abs().float() + 0.5 if per_point else d.pick("s", (2.0, 0.5))
    return d.call(
        "render_heatmaps",
        dict(
            points=d.tensor("points", points),
            size=(d.size("height", high=17), d.size("width", high=17)),
            sigma=sigma,
            visibility=visible,
            snap=d.pick("snap", (False, True)),
        ),
        "points",
    )


POSITIVE = (0.0, -1.0, NAN)
LOSSES = {
    "wing_loss": Loss(
        _wing,
        oracle.wing_loss,
        conceded=lambda call: {"width"},
        wrong={"width": POSITIVE, "epsilon": POSITIVE},
    ),
    "adaptive_wing_loss": Loss(
        _adaptive,
        oracle.adaptive_wing_loss,
        conceded=lambda call: {"theta"},
        wrong={"omega": POSITIVE, "epsilon": POSITIVE, "theta": POSITIVE, "alpha": (1.9, NAN)},
    ),
    "keypoint_loss": Loss(
        _keypoints,
        oracle.keypoint_loss,
        rows=-2,
        rounded=lambda call: {"area": 0.0},  # a chance is exp of a distance in areas
        rigid=("area",),
        wrong={"area_scale": POSITIVE},
    ),
    "heatmap_loss": Loss(
        _heatmap, oracle.heatmap_loss, wrong={"alpha": (-1.0, NAN), "beta": (-1.0, NAN)}
    ),
    "render_heatmaps": Loss(_render, oracle.render_heatmaps, rows=-1),
}
