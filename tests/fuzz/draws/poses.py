"""Points by bins, by their likelihood, and by the means of maps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.fuzz.check import computed
from tests.fuzz.draw import Call, Draw, Loss
from tests.fuzz.draws.classes import NAN, poisoned, shape_of
from tests.fuzz.oracles import poses as oracle

__all__ = ["LOSSES"]


def heavy(e: Tensor) -> Tensor:
    """A log-density in place of a flow."""
    return -2 * torch.log1p(e.square().sum(1))


def _counted(d: Draw, shape: tuple[int, ...]) -> tuple[Tensor, Tensor | None, Tensor]:
    """Visibility, weights, and which points count."""
    visible = torch.randint(-1, 3, shape, generator=d.stream("visibility"))
    weight = d.maybe("weight", lambda: d.weights("weight", shape))
    keep = visible > 0
    return visible, weight, keep if weight is None else keep & (weight != 0)


def _pixels(d: Draw, shape: tuple[int, ...], bins: tuple[int, ...], split: float) -> Tensor:
    """On the bins, and a little beyond."""
    share = torch.rand(*shape, len(bins), generator=d.stream("points")).double()
    return (share * 1.2 - 0.1) * torch.tensor(bins).double() / split


def _bars(d: Draw) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
    shape = shape_of(d, low=1, high=2)
    places = d.pick("places", (2, 1, 3))
    bins = tuple(d.size(f"bins {i}", low=1) for i in range(places))
    one = d.pick("sigma", (6.0, 1.0, 0.3))
    sigma = d.pick("sigma kind", (one, (one, 2.0, 0.7)[:places]))
    return shape, bins, dict(split=d.pick("split", (2.0, 1.0, 3.3)), sigma=sigma)


def _simcc(d: Draw) -> Call:
    shape, bins, options = _bars(d)
    visible, weight, keep = _counted(d, shape)
    t = _pixels(d, shape, bins, options["split"])
    t = poisoned(d, t, keep.unsqueeze(-1).expand(t.shape), "target")
    dtype = d.dtype("logits")
    logits = []
    for i, n in enumerate(bins):
        x = d.numbers(f"logits {i}", (*shape, n))
        x = poisoned(d, x, keep.unsqueeze(-1).expand(x.shape), f"logits {i}")
        logits.append(d.tensor(f"logits {i}", x, dtype))
    return d.call(
        "simcc_loss",
        dict(
            logits_list=logits,
            target=d.tensor("target", t, d.dtype("target", (torch.float32, torch.float64))),
            visibility=d.laid("visibility", visible),
            weight=None if weight is None else d.tensor("weight", weight),
            temperature=d.pick("temperature", (1.0, 0.1, 4.0)),
            reduction=d.reduction(),
        )
        | options,
        "logits_list",
        sides=("weight",),
    )


def _rle(d: Draw) -> Call:
    shape = (*shape_of(d, low=1, high=2), d.pick("places", (2, 1, 3)))
    visible, weight, keep = _counted(d, shape[:-1])
    seen = keep.unsqueeze(-1).expand(shape)
    t = d.normal("target", shape, 30.0)
    x = t + d.normal("prediction", shape, d.pick("noise", (3.0, 0.0, 1e-3, 300.0)))
    s = d.normal("log_scale", shape, d.pick("spread", (1.0, 0.0, 3.0)))
    dtype = d.dtype("prediction", (torch.float32, torch.float64, torch.bfloat16))
    return d.call(
        "rle_loss",
        dict(
            prediction=d.tensor("prediction", poisoned(d, x, seen, "prediction"), dtype),
            target=d.tensor("target", poisoned(d, t, seen, "target").to(dtype), torch.float32),
            log_scale=d.tensor("log_scale", poisoned(d, s, seen, "log_scale"), dtype),
            visibility=d.laid("visibility", visible),
            weight=None if weight is None else d.tensor("weight", weight),
            distribution=d.pick("distribution", ("laplace", "gaussian")),
            flow=d.pick("flow", (None, heavy)),
            least_scale=d.pick("least_scale", (None, 0.01)),
            reduction=d.reduction(),
        ),
        "prediction",
        "log_scale",
        sides=("target", "weight"),
    )


def _dsnt(name: str) -> Any:
    def draw(d: Draw) -> Call:
        shape = (d.size("samples", high=3), d.size("points", high=3))
        size = (d.size("height", low=1, high=17), d.size("width", low=1, high=17))
        visible, weight, keep = _counted(d, shape)
        if d.chance("all visible", 3):
            visible, keep = None, torch.ones(shape, dtype=torch.bool)
            keep = keep if weight is None else weight != 0
        x = d.numbers("logits", (*shape, *size))
        x = poisoned(d, x, keep[..., None, None].expand(x.shape), "logits")
        t = _pixels(d, shape, (size[1], size[0]), 1.0)
        t = poisoned(d, t, keep.unsqueeze(-1).expand(t.shape), "target")
        options: dict[str, Any] = {}
        if name == "dsnt_loss":
            options["regularizer_weight"] = d.pick("regularizer_weight", (1.0, 0.0, 0.25))
        return d.call(
            name,
            dict(
                logits=d.tensor("logits", x),
                target=d.tensor("target", t, torch.float32),
                visibility=visible,
                weight=None if weight is None else d.tensor("weight", weight),
                distance=d.pick("distance", ("euclidean", "l1")),
                unit=d.pick("unit", ("map", "cell")),
                regularizer=d.pick("regularizer", ("js", "variance")),
                sigma=d.pick("sigma", (1.0, 0.3, 4.0)),
                temperature=d.pick("temperature", (1.0, 0.1, 4.0)),
                reduction=d.reduction(),
            )
            | options,
            "logits",
            sides=("weight",),
        )

    return draw


def _limit(call: Call) -> tuple[float, float]:
    """A softmax that is nearly its label: the roundings of each, in units of a share of 1."""
    eps, t = 8 * torch.finfo(computed(call)).eps, call.args["temperature"]
    weight, most = call.args.get("weight"), 1.0
    if weight is not None and weight.numel():
        most = max(1.0, weight.double().max().item())
    rows = call.args["target"].numel() if call.args["reduction"] == "sum" else 1
    several = len(call.args.get("logits_list", (None,)))
    return eps * most * rows * several, 3 * eps * most / t  # upstream gradients are 3 at most


def _to_targets(call: Call) -> Tensor:
    """How far means of maps are from their targets, in cells."""
    x, t = call.args["logits"].double(), call.args["target"].double()
    x = torch.where(x.isfinite(), x, 0.0) / call.args["temperature"]
    p = x.flatten(2).softmax(2).view_as(x)
    column, row = (torch.arange(n).double() for n in (x.shape[3], x.shape[2]))
    found = torch.stack(((p.sum(2) * column).sum(2), (p.sum(3) * row).sum(2)), 2)
    off = torch.where(t.isfinite(), found - t, 1.0).abs()
    return off if call.args["distance"] == "l1" else off.norm(dim=2)


def _there(call: Call) -> bool:
    """Whether a mean is so near its target that rounding turns the direction there."""
    off = _to_targets(call)
    return bool((off < 1e6 * torch.finfo(computed(call)).eps).any())


POSITIVE = (0.0, -1.0, NAN)
LOSSES = {
    "simcc_loss": Loss(
        _simcc,
        oracle.simcc_loss,
        limit=_limit,
        rows=-1,
        conceded=lambda call: {"logits_list", "target"},
        wrong={"split": POSITIVE, "sigma": POSITIVE, "temperature": POSITIVE},
    ),
    "rle_loss": Loss(
        _rle, oracle.rle_loss, unit=0.2, slope_unit=0.2, wrong={"least_scale": POSITIVE}
    ),
    **{
        name: Loss(
            _dsnt(name),
            getattr(oracle, name),
            limit=_limit,
            several=_there,
            rows=2,
            conceded=lambda call: {"logits", "target"},
            wrong={"sigma": POSITIVE, "temperature": POSITIVE},
        )
        for name in ("dsnt_loss", "dsnt_terms")
    },
}
