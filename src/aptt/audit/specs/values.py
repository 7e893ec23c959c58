"""Rows of the losses between numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor, nn

from aptt.audit.spec import Inputs, Options, Refused, Scaling, Spec, case
from aptt.audit.specs.making import NOTHING_FROZEN, grid, normal, pooled, uniform, with_
from aptt.loss import RMSELoss, RMSLELoss, rmse_loss, rmsle_loss

__all__ = ["VALUES"]


def _numbers(g: Generator, n: int) -> Inputs:
    return {"prediction": normal(g, n, 5, scale=3), "target": normal(g, n, 5)}


def _quantities(g: Generator, n: int) -> Inputs:
    """Far enough above -1 to be shaken."""
    return {
        "prediction": uniform(g, n, 5, low=50, high=200),
        "target": uniform(g, n, 5, low=70, high=150),
    }


def _extremes() -> Inputs:
    x = grid(
        [0, 0], [1, 1], [1, 1 + 2**-20], [1e18, -1e18], [1e30, 1e30], [1e-20, 0], [1e-30, 3e-30]
    )
    return {"prediction": x[:, :1].expand(-1, 5).clone(), "target": x[:, 1:].expand(-1, 5).clone()}


def _extreme_quantities() -> Inputs:
    x = grid([0, 0], [1e30, 0], [0, 1e30], [1e-20, 0], [-0.99, 3], [5, 5], [1e10, 1e10])
    return {"prediction": x[:, :1].expand(-1, 5).clone(), "target": x[:, 1:].expand(-1, 5).clone()}


def _hide(inputs: Inputs, options: Options, keep: Tensor) -> Inputs:
    weight = inputs.get("weight", torch.ones_like(keep, dtype=torch.float64))
    return {**inputs, "weight": weight.masked_fill(~keep, 0)}


def _count(inputs: Inputs, options: Options) -> float:
    return len(inputs["prediction"]) if options.get("pool") == "sample" else 1


def _roots(function: Callable[..., Tensor], module: Callable[..., nn.Module], **more: Any) -> Spec:
    return Spec(
        name=function.__name__,
        function=function,
        module=module,
        cases=pooled(
            {
                "batch": case(),
                "weighted": case(with_(more["inputs"], "weight", "target"), reduction="sum"),
                "sample": case(pool="sample", reduction="none"),
                "sample, weighted": case(with_(more["inputs"], "weight", "target"), pool="sample"),
            }
        ),
        joint=True,
        hide=_hide,
        count=_count,
        perfect=lambda i, o: ({**i, "prediction": i["target"]}, 0.0),
        hopeless=lambda i, o: {**i, "prediction": i["target"] + 1000},
        refused=(
            Refused("an unknown pool", "pool", {"pool": "image"}),
            Refused("weights of one", "weight", change=lambda i: {**i, "weight": torch.ones(1)}),
        ),
        **more,
    )


VALUES = (
    _roots(
        rmse_loss,
        RMSELoss,
        inputs=_numbers,
        extremes=_extremes,
        scaling=Scaling(
            lambda i, u: {k: t if k == "weight" else t * u for k, t in i.items()}, degree=1
        ),
        exempt=NOTHING_FROZEN,
    ),
    _roots(
        rmsle_loss,
        RMSLELoss,
        inputs=_quantities,
        extremes=_extreme_quantities,
        exempt={**NOTHING_FROZEN, "scale_invariance": "log(1 + x) takes x as a count, in units"},
    ),
)
