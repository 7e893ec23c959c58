"""Losses of numbers: errors, quantiles and distributions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.fuzz.draw import Call, Draw, Loss
from tests.fuzz.draws.classes import NAN, poisoned, shape_of
from tests.fuzz.oracles import numbers as oracle

__all__ = ["LOSSES"]

OPTIONS: dict[str, dict[str, tuple[Any, ...]]] = {
    "l1_loss": {},
    "mse_loss": {},
    "huber_loss": {"delta": (1.0, 1e-3, 33.3)},
    "smooth_l1_loss": {"beta": (1.0, 0.0, 1e-3, 33.3)},
    "charbonnier_loss": {"epsilon": (1e-3, 1.0, 50.0)},
    "log_cosh_loss": {},
    "gaussian_nll_loss": {"beta": (0.0, 0.5, 1.0), "full": (False, True)},
    "laplace_nll_loss": {},
    "gaussian_crps_loss": {},
}
WIDTHS = {
    "gaussian_nll_loss": "log_variance",
    "laplace_nll_loss": "log_scale",
    "gaussian_crps_loss": "log_variance",
}


def _pair(d: Draw, shape: tuple[int, ...], each: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Predictions and targets, far apart, close, or equal."""
    t = d.numbers("target", shape, 1e4)
    beside = t.reshape((*shape, *[1] * len(each))).expand((*shape, *each))
    x = d.numbers("prediction", (*shape, *each), 1e4)
    if d.chance("prediction close", 2):
        x = beside + d.normal("prediction", x.shape, d.pick("noise", (1.0, 1e-3, 0.0)))
    return x, t


def _call(
    d: Draw, name: str, x: Tensor, t: Tensor, weight: Tensor | None, sides: dict[str, Tensor],
    **options: Any,
) -> Call:  # fmt: skip
    keep = torch.ones(t.shape, dtype=torch.bool) if weight is None else weight != 0
    whole = keep.ndim == x.ndim
    wide = keep if whole else keep.unsqueeze(-1).expand(x.shape)
    x = poisoned(d, x, wide, "prediction")
    t = poisoned(d, t, wide.any(-1) if keep.ndim > t.ndim else keep, "target")
    dtype = d.dtype("prediction")
    given = {
        k: d.tensor(k, poisoned(d, v, keep, k), d.dtype(k, (dtype, torch.float32)))
        for k, v in sides.items()
    }
    return d.call(
        name,
        dict(
            prediction=d.tensor("prediction", x, dtype),
            target=d.tensor("target", t, d.dtype("target", (torch.float32, torch.bfloat16))),
            **given,
            weight=None if weight is None else d.tensor("weight", weight),
            reduction=d.reduction(),
        )
        | options,
        "prediction",
        *given,
        sides=("target", "weight"),
    )


def _errors(name: str) -> Any:
    def draw(d: Draw) -> Call:
        shape = shape_of(d, low=0)
        x, t = _pair(d, shape, ())
        weight = d.maybe("weight", lambda: d.weights("weight", shape))
        sides = {}
        if name in WIDTHS:
            sides[WIDTHS[name]] = d.normal("width", shape, d.pick("spread", (1.0, 0.0, 5.0)))
        options = {key: d.pick(key, choices) for key, choices in OPTIONS[name].items()}
        return _call(d, name, x, t, weight, sides, **options)

    return draw


def _quantile(d: Draw) -> Call:
    shape = shape_of(d, low=0)
    quantiles = d.pick("quantiles", ((0.1, 0.5, 0.9), (0.5,), (0.001, 0.999)))
    x, t = _pair(d, shape, (len(quantiles),))
    whole = d.chance("weight of each", 3)
    weight = d.maybe("weight", lambda: d.weights("weight", x.shape if whole else shape))
    return _call(d, "quantile_loss", x, t, weight, {}, quantiles=quantiles)


def _ensemble(d: Draw) -> Call:
    shape = shape_of(d, low=0)
    fair = d.pick("fair", (1.0, 0.0, 0.95))
    members = d.size("members", low=2 if fair else 1, high=17)
    x, t = _pair(d, shape, (members,))
    weight = d.maybe("weight", lambda: d.weights("weight", shape))
    return _call(d, "ensemble_crps_loss", x, t, weight, {}, fair=fair)


def _difference(call: Call) -> set[str]:
    """What cancels, in float64 alone: a narrower one is exact there."""
    exact = call.args["prediction"].dtype == torch.float64
    return {"prediction", "target"} if exact else set()


def _by_weight(call: Call) -> tuple[float, float]:
    """What an error and a width that cancel are beside, where a mean does not divide by weight."""
    weight = call.args.get("weight")
    if call.name not in WIDTHS or weight is None or call.args["reduction"] not in ("none", "sum"):
        return 0.0, 0.0
    w = weight.double().nan_to_num(0.0, 0.0, 0.0)
    most = w.max().item() if w.numel() else 0.0
    return 4e-6 * (most if call.args["reduction"] == "none" else w.sum().item()), 1.2e-5 * most


LOSSES = {
    name: Loss(
        _errors(name),
        getattr(oracle, name),
        limit=_by_weight,
        unit=0.2 * (name in WIDTHS),
        slope_unit=0.2 * (name in WIDTHS),
        wrong={
            key: (-1.0, NAN) if key in ("beta",) else (0.0, -1.0, NAN)
            for key in OPTIONS[name]
            if key != "full"
        },
    )
    for name in OPTIONS
} | {
    "quantile_loss": Loss(
        _quantile,
        oracle.quantile_loss,
        slope_unit=1e-3,
        wrong={"quantiles": ((0.9, 0.1), (0.0, 0.5), (0.5, 1.0), (), (NAN,))},
    ),
    "ensemble_crps_loss": Loss(
        _ensemble,
        oracle.ensemble_crps_loss,
        rows=-1,
        conceded=_difference,
        wrong={"fair": (-0.1, 1.1, NAN)},
    ),
}
