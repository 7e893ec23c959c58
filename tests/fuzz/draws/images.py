"""Losses between images."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from tests.fuzz.draw import Call, Draw, Loss
from tests.fuzz.draws.classes import NAN, poisoned
from tests.fuzz.oracles import images as oracle

__all__ = ["LOSSES"]


def _ssim(d: Draw, name: str) -> Call:
    shape = (
        d.pick("images", (2, 1, 0)),
        d.pick("channels", (1, 3)),
        *d.pick("size", ((9, 8), (8, 13), (8, 8, 9))),
    )
    level = d.pick("level", (1.0, 255.0))
    t = level * d.normal("target", shape).abs()
    x = t + d.normal("prediction", shape, d.pick("noise", (1.0, 1e-2, 0.0))) * level
    if d.chance("opposite", 8):
        x = level - t
    if d.chance("flat", 16):
        t = t * 0 + level
    weight = d.maybe("weight", lambda: d.weights("weight", shape[:1]))
    keep = torch.ones(shape, dtype=torch.bool)
    if weight is not None:
        keep &= (weight != 0).reshape(-1, *[1] * (len(shape) - 1))
    x, t = poisoned(d, x, keep, "prediction"), poisoned(d, t, keep, "target")
    options: dict[str, Any] = {}
    if name == "ms_ssim_loss":
        options["scale_weight"] = d.pick("scale_weight", ((0.3, 0.7), (1.0,), (0.5, 0.0)))
    dtype = d.dtype("prediction")
    return d.call(
        name,
        options
        | dict(
            prediction=d.tensor("prediction", x, dtype),
            target=d.tensor("target", t, dtype),
            weight=weight,
            data_range=d.pick("data_range", (1.0, 255.0)),
            window_size=d.pick("window_size", (3, 4, 2)),
            sigma=d.pick("sigma", (1.5, 0.5)),
            k1=d.pick("k1", (0.01, 0.1)),
            k2=d.pick("k2", (0.03, 0.2)),
            reduction=d.reduction(),
        ),
        "prediction",
    )


WRONG: dict[str, tuple[Any, ...]] = {
    "data_range": (None, 0.0, -1.0, NAN),
    "window_size": (1, 2.5, 20),
    "sigma": (0.0, NAN),
    "k1": (0.0, NAN),
    "k2": (-1.0, NAN),
}
LOSSES = {
    name: Loss(
        partial(_ssim, name=name),
        getattr(oracle, name),
        rows=0,
        rigid=("prediction", "target"),
        wrong=WRONG | more,
    )
    for name, more in (
        ("ssim_loss", {}),
        ("ms_ssim_loss", {"scale_weight": ((), (1.0, -1.0), (1.0,) * 9)}),
    )
}
